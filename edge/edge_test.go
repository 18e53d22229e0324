package edge_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/edge"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestMain demands that each line of the attack catalogue that this package is
// about ran over all four shapes.
func TestMain(m *testing.M) {
	os.Exit(attacktest.Main(&account, m, shapes, "T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10", "M2", "M3", "M6"))
}

var account attacktest.Account

// each runs f over all four shapes, as subtests of name.
func each(t *testing.T, name string, f func(*testing.T, shape)) {
	t.Helper()
	attacktest.Run(&account, t, name, shapes, f)
}

const (
	audience = "https://api.example"
	// canary stands in every token, in claims and headers that go nowhere (M6).
	canary = "c4n4ry"
)

// The time of the tests, and the keys, which are dear to make.
var (
	start    = time.Unix(1_800_000_000, 0)
	rsaKeys  = [2]func() *rsa.PrivateKey{sync.OnceValue(newRSA), sync.OnceValue(newRSA)}
	ecKey    = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	otherEC  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	smallRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 1024)) })
)

func newRSA() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// claims are the members of a token's payload; a nil value removes one.
type claims map[string]any

// issuer is an authorization server on the loopback interface.
type issuer struct {
	*httptest.Server
	jwks    atomic.Value // http.HandlerFunc
	fetches atomic.Int32 // of the JWK Set
}

func newIssuer(t testing.TB, keys ...any) *issuer {
	is := new(issuer)
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"issuer": is.URL, "jwks_uri": is.URL + "/jwks", "scopes_supported": []string{"openid"}})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, r *http.Request) {
		is.fetches.Add(1)
		is.jwks.Load().(http.HandlerFunc)(w, r)
	})
	is.Server = httptest.NewServer(mux)
	t.Cleanup(is.Close)
	is.publish(keys...)
	return is
}

// publish sets the JWK Set. A key is a jose.JSONWebKey, or anything that
// marshals to one.
func (is *issuer) publish(keys ...any) {
	if keys == nil {
		keys = []any{}
	}
	body := must(json.Marshal(map[string]any{"keys": keys}))
	is.answer(func(w http.ResponseWriter, r *http.Request) { w.Write(body) })
}

func (is *issuer) answer(h http.HandlerFunc) { is.jwks.Store(h) }

func jwk(kid, alg string, public any) jose.JSONWebKey {
	return jose.JSONWebKey{KeyID: kid, Algorithm: alg, Use: "sig", Key: public}
}

// payload returns the claims of a good token, changed as told.
func (is *issuer) payload(change claims) claims {
	c := claims{
		"iss": is.URL, "sub": "user-7", "aud": audience, "tenant": "acme",
		"iat": start.Unix(), "exp": start.Add(time.Hour).Unix(),
		"scope": "orders.write orders.read orders.read", "email": canary + "@example.com",
		"realm": map[string]any{"roles": []string{canary}},
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func (is *issuer) header(change claims) claims {
	h := claims{"alg": "RS256", "kid": "k1", "typ": "at+jwt", "note": canary}
	maps.Copy(h, change)
	maps.DeleteFunc(h, func(_ string, v any) bool { return v == nil })
	return h
}

// token returns a token signed by go-jose.
func (is *issuer) token(alg jose.SignatureAlgorithm, kid string, key any, change claims) string {
	opts := (&jose.SignerOptions{}).WithType("at+jwt").WithHeader("kid", kid)
	s := must(jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts))
	return must(must(s.Sign(must(json.Marshal(is.payload(change))))).CompactSerialize())
}

// good returns a token that is accepted but for the change.
func (is *issuer) good(change claims) string {
	return is.token(jose.RS256, "k1", rsaKeys[0](), change)
}

// headed returns a good token with another header, signed all the same.
func (is *issuer) headed(change claims) string {
	return sign(string(must(json.Marshal(is.header(change)))), string(must(json.Marshal(is.payload(nil)))))
}

// sign signs any two texts with RS256, as no library would.
func sign(header, payload string) string {
	return signed(rsaKeys[0](), b64([]byte(header))+"."+b64([]byte(payload)))
}

func signed(key *rsa.PrivateKey, input string) string {
	sum := sha256.Sum256([]byte(input))
	return input + "." + b64(must(rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])))
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// events is a sink that keeps what it takes.
type events struct {
	mu   sync.Mutex
	list []audit.Event
	fail error
}

func (s *events) Record(ctx context.Context, e audit.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, e)
	return s.fail
}

// take returns the events since it was last called.
func (s *events) take() []audit.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list = nil
	return list
}

// originator stands in for the guard.
type originator struct {
	err  error
	last atomic.Pointer[hop.Claims]
}

type originatedKey struct{}

func (o *originator) Originate(ctx context.Context, c *hop.Claims) (context.Context, error) {
	o.last.Store(c)
	if o.err != nil {
		return nil, o.err
	}
	return context.WithValue(ctx, originatedKey{}, c), nil
}

// clock is a time that tests set.
type clock struct{ now atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.now.Store(start.UnixNano())
	return c
}
func (c *clock) Now() time.Time      { return time.Unix(0, c.now.Load()) }
func (c *clock) Add(d time.Duration) { c.now.Add(int64(d)) }
func (c *clock) Set(t time.Time)     { c.now.Store(t.UnixNano()) }

// log is a buffer that may be written to and read concurrently.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// world is a verifier and what is around it.
type world struct {
	v     *edge.Verifier
	sink  events
	clock *clock
	log   log
}

func newWorld(t testing.TB, cfg edge.Config) *world {
	t.Helper()
	w := &world{clock: newClock()}
	cfg.Audit = &w.sink
	cfg.Clock = w.clock.Now
	cfg.Logger = slog.New(slog.NewJSONHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.InsecureHTTPLoopback = true
	v, err := edge.NewVerifier(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	w.v = v
	return w
}

// wantReason fails the test unless Verify refuses the token with the reason.
func (w *world) wantReason(t *testing.T, token string, want tenant.Reason) {
	t.Helper()
	c, err := w.v.Verify(t.Context(), token)
	if c != nil || tenant.ReasonOf(err) != want {
		t.Fatalf("Verify = %v, %v; want %s", c, err, want)
	}
}

func (w *world) wantAccepted(t *testing.T, token string) {
	t.Helper()
	if _, err := w.v.Verify(t.Context(), token); err != nil {
		t.Fatalf("Verify = %v; want the token accepted", err)
	}
}

func marshal(v any) []byte { return must(json.Marshal(v)) }
