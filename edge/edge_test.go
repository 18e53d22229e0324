package edge_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"log/slog"
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

const audience, canary = attacktest.Audience, attacktest.TokenCanary

// start is the time of the tests.
var start = time.Unix(1_800_000_000, 0)

var (
	rsaKeys = attacktest.RSAKeys
	otherEC = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
)

type (
	issuer = attacktest.Issuer
	claims = attacktest.TokenClaims
)

func must[T any](v T, err error) T { return attacktest.Must(v, err) }

func jwk(kid, alg string, public any) jose.JSONWebKey { return attacktest.JWK(kid, alg, public) }

// newIssuer returns an issuer on the loopback interface.
func newIssuer(t testing.TB, keys ...any) *issuer {
	is := attacktest.NewIssuer(func() time.Time { return start }, keys...)
	s := httptest.NewServer(is)
	t.Cleanup(s.Close)
	is.URL = s.URL
	return is
}

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
