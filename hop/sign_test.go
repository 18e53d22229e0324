package hop

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// hopOf returns the hop that err names, or -2 where it is no *tenant.Error.
func hopOf(err error, e **tenant.Error) int {
	if !errors.As(err, e) {
		return -2
	}
	return (*e).Hop
}

// signing returns an SVID whose key does not sign as it should.
func signing(key crypto.Signer, signature []byte, err error) *x509svid.SVID {
	svid := root().issueFor(key, "orders")
	svid.PrivateKey = brokenKey{key, signature, err}
	return svid
}

type brokenKey struct {
	crypto.Signer
	signature []byte
	err       error
}

func (k brokenKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return k.signature, k.err
}

// der returns a sequence of numbers, each of so many bytes; for a size of 0, a
// byte after it.
func der(sizes ...int) []byte {
	var numbers []*big.Int
	var rest []byte
	for _, n := range sizes {
		if n == 0 {
			rest = append(rest, 0)
			continue
		}
		numbers = append(numbers, new(big.Int).Lsh(big.NewInt(1), uint(8*n-1)))
	}
	return append(must(asn1.Marshal(numbers)), rest...)
}

// A refusal to begin or to sign comes before anything leaves the workload.
func TestSignRefuses(t *testing.T) {
	verified := func(t *testing.T, names ...string) *Chain {
		t.Helper()
		chain, err := send(t, goodClaims(), path(names...), nil).verify(t)
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	narrowedTo := func(n *Narrowing) func(*testing.T) *Chain {
		return func(t *testing.T) *Chain {
			chain, err := send(t, goodClaims(), path("gateway", "orders"), func(_ int, h *Handover) { h.Narrowing = n }).verify(t)
			if err != nil {
				t.Fatal(err)
			}
			return chain
		}
	}
	begun := func(t *testing.T) *Chain {
		chain, err := Begin(goodClaims())
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	big := func(t *testing.T) *Chain {
		claims := goodClaims()
		for i := range 11 {
			claims.Request[string(rune('a'+i))] = strings.Repeat("x", maxText)
		}
		chain, err := Begin(claims)
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	none := new(x509svid.SVID) // stands for nil
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		chain func(*testing.T) *Chain
		svid  *x509svid.SVID // nil for a good one
		do    func(*Handover)
		want  tenant.Reason
	}{
		{"the zero chain", func(*testing.T) *Chain { return new(Chain) }, nil, nil, tenant.ContextMissing},
		{"no SVID", begun, none, nil, tenant.IdentityUnavailable},
		{"an expired SVID", begun, root().issue("orders", between(noon.Add(-time.Hour), noon)), nil, tenant.IdentityUnavailable},
		{"an SVID without a key", begun, &x509svid.SVID{Certificates: root().issue("orders").Certificates}, nil, tenant.IdentityUnavailable},
		{"an EC key that fails", begun, signing(newKey(elliptic.P256()), nil, errors.New("the token was pulled")), nil, tenant.Internal},
		{"an RSA key that fails", begun, signing(rsaKey(), nil, errors.New("the token was pulled")), nil, tenant.Internal},
		{"a key that signs in another encoding", begun, signing(newKey(elliptic.P256()), make([]byte, 64), nil), nil, tenant.Internal},
		{"a key that signs with bytes to spare", begun, signing(newKey(elliptic.P256()), der(1, 1, 0), nil), nil, tenant.Internal},
		{"a key that signs with an r of 33 bytes", begun, signing(newKey(elliptic.P256()), der(33, 1), nil), nil, tenant.Internal},
		{"a key that signs with an s of 33 bytes", begun, signing(newKey(elliptic.P256()), der(1, 33), nil), nil, tenant.Internal},
		{"a key that signs with r alone", begun, signing(newKey(elliptic.P256()), der(1), nil), nil, tenant.Internal},
		{"a key that signs with three numbers", begun, signing(newKey(elliptic.P256()), der(1, 1, 1), nil), nil, tenant.Internal},
		{"an SVID without certificates", begun, new(x509svid.SVID), nil, tenant.IdentityUnavailable},
		{"expired claims", begun, nil, func(h *Handover) { h.Now = noon.Add(5 * time.Minute) }, tenant.ContextExpired},
		{"an expired hop", func(t *testing.T) *Chain {
			p := append([]*x509svid.SVID{root().issue("gateway", between(noon, noon.Add(time.Minute)))}, path("orders")...)
			chain, err := send(t, goodClaims(), p, nil).verify(t)
			if err != nil {
				t.Fatal(err)
			}
			return chain
		}, nil, func(h *Handover) { h.Now = noon.Add(time.Minute) }, tenant.ContextExpired},
		{"an expired signer upstream", func(t *testing.T) *Chain {
			p := append([]*x509svid.SVID{newCA(root(), between(noon, noon.Add(time.Minute))).issue("gateway")}, path("orders")...)
			chain, err := send(t, goodClaims(), p, nil).verify(t)
			if err != nil {
				t.Fatal(err)
			}
			return chain
		}, nil, func(h *Handover) { h.Now = noon.Add(time.Minute) }, tenant.SVIDExpired},
		{"a seventh hop", func(t *testing.T) *Chain { return verified(t, "a", "b", "c", "d", "e", "f", "orders") }, nil, nil, tenant.ChainTooLong},
		{"more than the budget", big, nil, nil, tenant.MetadataTooLarge},
		{"a scope that the claims do not hold", begun, nil, func(h *Handover) {
			h.Narrowing = &Narrowing{Scopes: []string{"orders.admin"}}
		}, tenant.ScopeWidened},
		{"a scope that was narrowed away", narrowedTo(&Narrowing{Scopes: []string{"orders.read"}}), nil, func(h *Handover) {
			h.Narrowing = &Narrowing{Scopes: []string{"orders.read", "orders.write"}}
		}, tenant.ScopeWidened},
		{"a method that was narrowed away", narrowedTo(&Narrowing{Methods: []string{"/billing.v1.Service/Do"}}), nil, nil, tenant.MethodNarrowed},
		{"all methods were narrowed away", narrowedTo(&Narrowing{Methods: []string{}}), nil, nil, tenant.MethodNarrowed},
		{"a method allowed again", narrowedTo(&Narrowing{Methods: []string{"/inventory.v1.Service/Do"}}), nil, func(h *Handover) {
			h.Narrowing = &Narrowing{Methods: []string{"/stock.v1.Service/Do"}}
		}, tenant.ScopeWidened},
		{"unsorted scopes", begun, nil, func(h *Handover) {
			h.Narrowing = &Narrowing{Scopes: []string{"orders.write", "orders.read"}}
		}, tenant.ContextMalformed},
		{"no kind", begun, nil, func(h *Handover) { h.Kind = 0 }, tenant.KindMismatch},
		{"a grant that is not the first hop", func(t *testing.T) *Chain { return verified(t, "gateway", "orders") }, nil, func(h *Handover) {
			h.Kind, h.Target = Grant, ""
		}, tenant.KindMismatch},
		{"no aud", begun, nil, func(h *Handover) { h.Audience = "" }, tenant.ContextMalformed},
		{"a method without its slash", begun, nil, func(h *Handover) { h.Target = "a.B/C" }, tenant.ContextMalformed},
		{"no randomness", begun, nil, func(h *Handover) { h.Rand = iotest.ErrReader(errors.New("none")) }, tenant.Internal},
		{"an Ed25519 key", begun, root().issueFor(edKey, "orders"), nil, tenant.KeyUnsupported},
		{"a key on P-521", begun, root().issueFor(newKey(elliptic.P521()), "orders"), nil, tenant.KeyUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			svid := tt.svid
			switch svid {
			case nil:
				svid = root().issue("orders")
			case none:
				svid = nil
			}
			to := Handover{Kind: Call, Audience: "spiffe://prod.example/inventory", Target: "/inventory.v1.Service/Do", Now: noon}
			if tt.do != nil {
				tt.do(&to)
			}
			m, err := tt.chain(t).Sign(svid, to)
			if tenant.ReasonOf(err) != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
			if m != (Metadata{}) {
				t.Error("metadata came with an error")
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("the error shows a claim: %v", err)
			}
		})
	}
}

func TestBeginRefuses(t *testing.T) {
	long := strings.Repeat(canary, 100)
	for name, spoil := range map[string]func(*Claims){
		"no txn":              func(c *Claims) { c.Transaction = "" },
		"no tenant":           func(c *Claims) { c.Tenant = tenant.ID{} },
		"no uid":              func(c *Claims) { c.TenantUID = "" },
		"no sub":              func(c *Claims) { c.Subject = "" },
		"a long sub":          func(c *Claims) { c.Subject = long },
		"a long iss":          func(c *Claims) { c.Issuer = long },
		"sub not UTF-8":       func(c *Claims) { c.Subject = canary + "\xff" },
		"unsorted scopes":     func(c *Claims) { c.Scopes = []string{"b" + canary, "a"} },
		"a scope of two":      func(c *Claims) { c.Scopes = []string{"a " + canary} },
		"a long attribute":    func(c *Claims) { c.Attributes["a"] = long },
		"a nameless one":      func(c *Claims) { c.Request[""] = canary },
		"no parent txn":       func(c *Claims) { c.Parent.Transaction = "" },
		"a newline":           func(c *Claims) { c.Elevation = canary + "\n" },
		"no iat":              func(c *Claims) { c.IssuedAt = time.Time{} },
		"exp that is the iat": func(c *Claims) { c.Expires = c.IssuedAt },
		"exp in 10000":        func(c *Claims) { c.Expires = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		c := goodClaims()
		spoil(c)
		chain, err := Begin(c)
		if tenant.ReasonOf(err) != tenant.ContextMalformed || chain != nil {
			t.Errorf("%s: %v, want %s", name, err, tenant.ContextMalformed)
		}
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the error shows a claim: %v", name, err)
		}
	}
}

// Exactly the budget may be sent, and then is received.
func TestSignBudgetEdge(t *testing.T) {
	p := path("gateway", "orders")
	for fill := range 3 * maxText {
		claims := goodClaims()
		for i := range 7 {
			claims.Request[string(rune('a'+i))] = strings.Repeat("x", maxText)
		}
		for i := range 3 {
			claims.Request[string(rune('p'+i))] = strings.Repeat("x", min(maxText, max(0, fill-i*maxText)))
		}
		chain, err := Begin(claims)
		if err != nil {
			t.Fatal(err)
		}
		m, err := chain.Sign(p[0], Handover{Kind: Call, Audience: p[1].ID.String(), Target: methodOf(p[1]), Binding: [32]byte{1}, Now: noon})
		if err == nil && len(m.Hops) < MaxMetadata {
			continue
		}
		if len(m.Hops) != MaxMetadata {
			t.Fatalf("the first that does not fit, or fits exactly: %d bytes, %v", len(m.Hops), err)
		}
		if _, err := Verify(m, Expected{
			Kind: Call, Peer: p[0].Certificates, Self: p[1].ID, Target: methodOf(p[1]), Binding: [32]byte{1}, Bundles: root().bundles(), Now: noon,
		}); err != nil {
			t.Error(err)
		}
		return
	}
	t.Fatal("the budget was never reached")
}

// A statement expires with what expires first.
func TestSignExpires(t *testing.T) {
	for _, tt := range []struct {
		name          string
		first, second time.Duration // from noon to the NotAfter of each signer
		want          time.Duration
	}{
		{"the claims", time.Hour, time.Hour, 5 * time.Minute},
		{"the signer", time.Hour, time.Minute, time.Minute},
		{"the hop before", time.Minute, time.Hour, time.Minute},
	} {
		c := send(t, goodClaims(), []*x509svid.SVID{
			root().issue("gateway", between(noon, noon.Add(tt.first))),
			root().issue("orders", between(noon, noon.Add(tt.second))),
			root().issue("inventory"),
		}, nil)
		c.edit(1, func(s *pb.Statement) {
			if s.Exp != second(tt.want) {
				t.Errorf("%s: exp is %d after noon, want %s", tt.name, s.Exp-second(0), tt.want)
			}
		})
	}
}

// The jti comes from the Rand that was given, and otherwise is not the same twice.
func TestTokenID(t *testing.T) {
	jti := func(random string) (id string) {
		c := send(t, goodClaims(), path("gateway", "orders"), func(_ int, h *Handover) {
			if random != "" {
				h.Rand = strings.NewReader(random)
			}
		})
		c.edit(0, func(s *pb.Statement) { id = string(s.Jti) })
		return id
	}
	if got := jti("0123456789abcdef"); got != "0123456789abcdef" {
		t.Errorf("jti %q, want the bytes of Rand", got)
	}
	if a, b := jti(""), jti(""); a == b {
		t.Error("the same jti twice")
	}
}

// Attack line M6: no claim but the tenant and the txn, which Claims.String is
// there to show, reaches a log by way of fmt or slog.
func TestNoClaimIsPrinted(t *testing.T) {
	claims := goodClaims()
	claims.Transaction = "tx-1"
	c := send(t, claims, path("gateway", "orders"), func(_ int, h *Handover) {
		h.Narrowing = &Narrowing{Scopes: []string{"stock." + canary}}
	})
	chain, err := c.verify(t)
	if err != nil {
		t.Fatal(err)
	}
	begun, err := Begin(claims)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseStatement(c.hops.Hops[0].Statement)
	if err != nil {
		t.Fatal(err)
	}
	m := c.metadata(t)
	for _, v := range []any{
		claims, *claims, s, *s, chain, *chain, begun, *begun, m, &m,
	} {
		texts := map[string]string{}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			texts[verb] = fmt.Sprintf(verb, v)
		}
		var text, json bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&json, nil)).Info("m", "v", v)
		texts["slog text"], texts["slog JSON"] = text.String(), json.String()
		for how, text := range texts {
			for _, secret := range []string{canary, fmt.Sprintf("%x", canary), m.Hops[:64]} {
				if strings.Contains(text, secret) {
					t.Errorf("%T shows %q by %s", v, secret, how)
				}
			}
		}
	}
	if got, want := fmt.Sprint(claims), "claims of acme txn tx-1"; got != want {
		t.Errorf("claims print as %q, want %q", got, want)
	}
}
