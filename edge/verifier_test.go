package edge_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantmesh/tenantmesh/edge"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/tenant"
)

func TestVerifyRefuses(t *testing.T) {
	w, one, two := mesh(t)
	for _, a := range attacktest.TokenAttacks(one, two) {
		t.Run(a.Name, func(t *testing.T) {
			c, err := w.v.Verify(t.Context(), a.Token)
			if c != nil || tenant.ReasonOf(err) != a.Want {
				t.Fatalf("Verify = %v, %v; want %s", c, err, a.Want)
			}
			var e *tenant.Error
			errors.As(err, &e)
			noLeak(t, a.Token, fmt.Sprintf("%v %+v %#v %v", err, err, e, errors.Unwrap(err)), w.log.String())
		})
	}
	if n := one.Fetches.Load(); n > 1 {
		t.Errorf("%d fetches of keys, want at most 1: several unknown kids within one interval", n)
	}
}

// noLeak fails the test if anything of a token shows.
func noLeak(t *testing.T, token string, shown ...string) {
	t.Helper()
	for _, s := range shown {
		if strings.Contains(s, canary) {
			t.Errorf("the canary shows: %s", s)
		}
		for _, part := range strings.Split(token, ".") {
			if len(part) > 12 && strings.Contains(s, part[:12]) {
				t.Errorf("a part of the token shows: %s", s)
			}
		}
	}
}

func TestVerifyAccepts(t *testing.T) {
	w, one, two := mesh(t)
	at := func(d time.Duration) int64 { return start.Add(d).Unix() }
	for _, c := range []struct{ name, token string }{
		{"RS256", one.Good(nil)},
		{"ES256", one.Token(jose.ES256, "e1", attacktest.ECKey(), nil)},
		{"PS256 with a key without alg", one.Token(jose.PS256, "any", rsaKeys[0](), nil)},
		{"a key for verifying", one.Token(jose.RS256, "verify", rsaKeys[0](), nil)},
		{"a key that is listed twice", one.Token(jose.RS256, "same", rsaKeys[0](), nil)},
		{"T3 application/at+jwt", one.Headed(claims{"typ": "application/AT+JWT"})},
		{"T6 exp just within the leeway", one.Good(claims{"iat": at(-time.Hour), "exp": at(-9 * time.Second)})},
		{"T6 iat at the edge of the leeway", one.Good(claims{"iat": at(10 * time.Second)})},
		{"T6 nbf at the edge of the leeway", one.Good(claims{"nbf": at(10 * time.Second)})},
		{"T6 fractions", one.Good(claims{"exp": float64(at(time.Hour)) + 0.5})},
		{"T6 lives exactly 24 hours", one.Good(claims{"exp": at(24 * time.Hour)})},
		{"T7 a list of one audience", one.Good(claims{"aud": []string{audience}})},
		{"T7 a tenant that the issuer is accepted for", sign2(two.Payload(nil))},
		{"T8 nested 16 deep", one.Good(claims{"x": attacktest.Nested(15)})},
		{"T8 brackets in a text", one.Good(claims{"x": strings.Repeat("[", 64), "y": strings.Repeat(`"{`, 64)})},
		{"T8 a sub of 512 bytes", one.Good(claims{"sub": strings.Repeat("s", 512)})},
		{"case variants that mean nothing", one.Good(claims{"Email": "x", "eMail": "y"})},
	} {
		t.Run(c.name, func(t *testing.T) { w.wantAccepted(t, c.token) })
	}

	c, err := w.v.Verify(t.Context(), one.Good(nil))
	if err != nil {
		t.Fatal(err)
	}
	if c.Tenant.String() != "acme" || c.Subject != "user-7" || c.Issuer != one.URL ||
		!slices.Equal(c.Scopes, []string{"orders.read", "orders.write"}) || !c.Expires.Equal(start.Add(time.Hour)) {
		t.Errorf("claims are %#v %+v %v %v", c, c.Subject, c.Scopes, c.Expires)
	}
	if !c.IssuedAt.IsZero() || c.Transaction != "" || c.TenantUID != "" {
		t.Error("the verifier set what the guard is to set")
	}
	if ev := w.sink.take(); ev != nil {
		t.Errorf("Verify recorded %v", ev)
	}
}

// The exact instant at which a token expires, on both sides.
func TestExpiryIsExact(t *testing.T) {
	w, one, _ := mesh(t)
	token := one.Good(nil)
	edge := start.Add(time.Hour + 10*time.Second) // exp and the leeway
	w.clock.Set(edge.Add(-time.Nanosecond))
	w.wantAccepted(t, token)
	w.clock.Set(edge)
	w.wantReason(t, token, tenant.TokenExpired)
}

func TestOtherClaimNames(t *testing.T) {
	is := newIssuer(t, jwk("k1", "RS256", rsaKeys[0]().Public()))
	w := newWorld(t, edge.Config{Issuers: []edge.Issuer{{
		URL: is.URL, JWKSURL: is.URL + "/jwks", Audience: audience, TenantClaim: "https://example/org", ScopeClaim: "scp",
	}}})
	c, err := w.v.Verify(t.Context(), is.Good(claims{"https://example/org": "globex", "scp": []string{"b", "a"}}))
	if err != nil || c.Tenant.String() != "globex" || !slices.Equal(c.Scopes, []string{"a", "b"}) {
		t.Fatalf("Verify = %v, %v", c, err)
	}
	w.wantReason(t, is.Good(claims{"HTTPS://example/org": "acme", "https://example/org": "globex"}), tenant.TokenMalformed)
	w.wantReason(t, is.Good(nil), tenant.TokenClaimMissing)
}

// Each algorithm that may be allowed is accepted where it is, and nowhere else.
func TestAlgorithms(t *testing.T) {
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	p521 := must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	public, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	is := newIssuer(t,
		jwk("rsa", "", rsaKeys[0]().Public()), jwk("p256", "", attacktest.ECKey().Public()), jwk("p384", "", p384.Public()),
		jwk("p521", "", p521.Public()), jwk("ed", "", public),
		json.RawMessage(`{"kty":"OKP","kid":"another","KID":"ed"}`),
	)
	tokens := map[string]string{}
	for _, a := range []struct {
		alg jose.SignatureAlgorithm
		kid string
		key any
	}{
		{jose.RS256, "rsa", rsaKeys[0]()}, {jose.RS384, "rsa", rsaKeys[0]()}, {jose.RS512, "rsa", rsaKeys[0]()},
		{jose.PS256, "rsa", rsaKeys[0]()}, {jose.PS384, "rsa", rsaKeys[0]()}, {jose.PS512, "rsa", rsaKeys[0]()},
		{jose.ES256, "p256", attacktest.ECKey()}, {jose.ES384, "p384", p384}, {jose.ES512, "p521", p521}, {jose.EdDSA, "ed", ed},
	} {
		tokens[string(a.alg)] = is.Token(a.alg, a.kid, a.key, nil)
	}
	for allowed := range tokens {
		w := newWorld(t, edge.Config{Issuers: []edge.Issuer{{URL: is.URL, Audience: audience, Algorithms: []string{allowed}}}})
		for alg, token := range tokens {
			t.Run("T1 "+alg+" where "+allowed+" is allowed", func(t *testing.T) {
				if alg == allowed {
					w.wantAccepted(t, token)
				} else {
					w.wantReason(t, token, tenant.TokenAlgorithm)
				}
			})
		}
	}
}

// T8: what is refused for its size or shape costs at most 64 KiB.
func TestAllocations(t *testing.T) {
	w, one, two := mesh(t)
	w.wantAccepted(t, one.Good(nil)) // the keys are there
	for _, a := range attacktest.TokenAttacks(one, two) {
		if !strings.HasPrefix(a.Name, "T8") {
			continue
		}
		t.Run(a.Name, func(t *testing.T) {
			const runs = 20
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range runs {
				w.v.Verify(t.Context(), a.Token)
			}
			runtime.ReadMemStats(&after)
			if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 64<<10 {
				t.Errorf("%d bytes allocated", n)
			} else {
				t.Logf("%d bytes allocated", n)
			}
		})
	}
}

func TestZeroVerifierDenies(t *testing.T) {
	for _, v := range []*edge.Verifier{nil, {}} {
		if c, err := v.Verify(t.Context(), "a.b.c"); c != nil || tenant.ReasonOf(err) != tenant.TokenIssuer {
			t.Errorf("Verify = %v, %v", c, err)
		}
	}
}

func TestConfiguration(t *testing.T) {
	ok := edge.Issuer{URL: "https://login.example", Audience: audience}
	with := func(f func(*edge.Issuer)) []edge.Issuer {
		is := ok
		f(&is)
		return []edge.Issuer{is}
	}
	cfg := func(f func(*edge.Config)) edge.Config {
		c := edge.Config{Issuers: []edge.Issuer{ok}, Audit: &events{}}
		f(&c)
		return c
	}
	issuers := func(f func(*edge.Issuer)) edge.Config {
		return cfg(func(c *edge.Config) { c.Issuers = with(f) })
	}
	for name, c := range map[string]edge.Config{
		"no issuer":                    cfg(func(c *edge.Config) { c.Issuers = nil }),
		"no audit":                     cfg(func(c *edge.Config) { c.Audit = nil }),
		"an issuer twice":              cfg(func(c *edge.Config) { c.Issuers = []edge.Issuer{ok, ok} }),
		"negative leeway":              cfg(func(c *edge.Config) { c.Leeway = -1 }),
		"long leeway":                  cfg(func(c *edge.Config) { c.Leeway = time.Hour }),
		"negative limit":               cfg(func(c *edge.Config) { c.Keys.MaxKeys = -1 }),
		"limits that cross":            cfg(func(c *edge.Config) { c.Keys.MaxKeyAge = time.Minute }),
		"negative token size":          cfg(func(c *edge.Config) { c.MaxToken = -1 }),
		"T7 empty audience":            issuers(func(i *edge.Issuer) { i.Audience = "" }),
		"blank audience":               issuers(func(i *edge.Issuer) { i.Audience = " " }),
		"T1 none allowed":              issuers(func(i *edge.Issuer) { i.Algorithms = []string{"none"} }),
		"T1 HS256 allowed":             issuers(func(i *edge.Issuer) { i.Algorithms = []string{"RS256", "HS256"} }),
		"unknown algorithm":            issuers(func(i *edge.Issuer) { i.Algorithms = []string{"rs256"} }),
		"http":                         issuers(func(i *edge.Issuer) { i.URL = "http://login.example" }),
		"http on loopback":             issuers(func(i *edge.Issuer) { i.URL = "http://127.0.0.1:1" }),
		"http JWKS":                    issuers(func(i *edge.Issuer) { i.JWKSURL = "http://login.example/jwks" }),
		"file JWKS":                    issuers(func(i *edge.Issuer) { i.JWKSURL = "file:///jwks" }),
		"what is no URL":               issuers(func(i *edge.Issuer) { i.URL = "https://login.example/%zz" }),
		"no URL":                       issuers(func(i *edge.Issuer) { i.URL = "" }),
		"URL with user":                issuers(func(i *edge.Issuer) { i.URL = "https://u:p@login.example" }),
		"URL with query":               issuers(func(i *edge.Issuer) { i.URL = "https://login.example?a" }),
		"URL with fragment":            issuers(func(i *edge.Issuer) { i.URL = "https://login.example#a" }),
		"type of other letters":        issuers(func(i *edge.Issuer) { i.Type = "at jwt" }),
		"tenant claim that is sub":     issuers(func(i *edge.Issuer) { i.TenantClaim = "sub" }),
		"tenant claim that is scope":   issuers(func(i *edge.Issuer) { i.TenantClaim = "Scope" }),
		"no tenants":                   issuers(func(i *edge.Issuer) { i.Tenants = []tenant.ID{} }),
		"the zero tenant":              issuers(func(i *edge.Issuer) { i.Tenants = []tenant.ID{{}} }),
		"negative lifetime":            issuers(func(i *edge.Issuer) { i.MaxLifetime = -1 }),
		"http elsewhere with loopback": {Issuers: with(func(i *edge.Issuer) { i.URL = "http://127.0.0.1.example" }), Audit: &events{}, InsecureHTTPLoopback: true},
	} {
		t.Run(name, func(t *testing.T) {
			if v, err := edge.NewVerifier(c); err == nil || v != nil {
				t.Errorf("NewVerifier = %v, %v; want an error", v, err)
			}
		})
	}
	v, err := edge.NewVerifier(cfg(func(*edge.Config) {}))
	if err != nil {
		t.Fatal(err)
	}
	v.Close()
}

// FuzzVerify: no input makes Verify panic, and none is accepted, since nobody
// has the private key.
func FuzzVerify(f *testing.F) {
	one, two := newIssuer(f), newIssuer(f)
	seeds := attacktest.TokenAttacks(one, two)
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, a := range seeds {
		if len(a.Token) < 32<<10 {
			f.Add(a.Token)
		}
	}
	f.Add(one.Good(nil))
	for _, token := range vectorTokens(f) {
		if len(token) < 32<<10 {
			f.Add(token)
		}
	}
	stranger := newIssuer(f, jwk("k1", "", otherEC().Public()), jwk("any", "", must(rsa.GenerateKey(rand.Reader, 2048)).Public()))
	w := newWorld(f, edge.Config{
		Issuers: []edge.Issuer{{URL: one.URL, JWKSURL: stranger.URL + "/jwks", Audience: audience}},
		Client:  http.DefaultClient,
	})
	f.Fuzz(func(t *testing.T, token string) {
		c, err := w.v.Verify(t.Context(), token)
		if c != nil || err == nil {
			t.Fatalf("accepted: %q", token)
		}
		if tenant.ReasonOf(err) == "" {
			t.Fatalf("no reason: %v", err)
		}
	})
}

// sign2 signs for the second issuer of [mesh].
func sign2(c claims) string {
	return attacktest.SignTokenBy(rsaKeys[1](), `{"alg":"RS256","kid":"k1","typ":"JWT"}`, string(marshal(c)))
}
