package interceptors_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestRetry: H10, a retry on another connection is signed afresh and succeeds.
func TestRetry(t *testing.T) {
	m := newMesh(t)
	_, second := m.serve(m.guard.ServerOptions()...)
	g := m.newGuard(m.workload("gateway"), new(trail), time.Now)
	const config = `{"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [{"name": [{}], "retryPolicy": {
		"maxAttempts": 4, "initialBackoff": "0.001s", "maxBackoff": "0.001s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`
	for _, shape := range shapes {
		t.Run("H10 "+shape.name, func(t *testing.T) {
			r := manual.NewBuilderWithScheme("two")
			r.InitialState(resolver.State{Endpoints: []resolver.Endpoint{
				{Addresses: []resolver.Address{{Addr: m.addr}}}, {Addresses: []resolver.Address{{Addr: second}}},
			}})
			cc, err := grpc.NewClient("two:///x", append(g.DialOptions(svid.Expect(id("target"))),
				grpc.WithResolvers(r), grpc.WithDefaultServiceConfig(config))...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cc.Close() })
			var attempts atomic.Int32
			m.ran.setHook(func(context.Context) error {
				if attempts.Add(1) < 4 {
					return status.Error(codes.Unavailable, "the handler is not ready")
				}
				return nil
			})
			if err := shape.call(acme(t, g), cc); err != nil {
				t.Fatal(err)
			}
			events := m.audit.take()
			if len(events) != 4 || slices.ContainsFunc(events, func(e audit.Event) bool { return !e.Allowed }) {
				t.Errorf("audit: %+v, want four calls allowed", events)
			}
			m.ran.take()
		})
	}
}

// TestCanary: M6, what stands in claims and metadata shows nowhere but where
// audit names it.
func TestCanary(t *testing.T) {
	const canary = "CANARY7"
	var logged safeBuffer
	defer func(l *slog.Logger) { slog.SetDefault(l) }(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	m := newMesh(t)
	c := claims("acme")
	c.Subject, c.Scopes = canary, []string{canary}
	c.Attributes, c.Request = map[string]string{canary: canary}, map[string]string{"k": canary}
	c.Elevation = canary
	chain, err := hop.Begin(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, shape := range shapes {
		for name, forge := range map[string]forgery{
			"a chain that policy refuses": func(conn *svid.Conn, method string) (map[string]string, error) {
				return onWire(chain.Sign(conn.Local(), handOver(conn, method)))
			},
			"a chain for another method": func(conn *svid.Conn, _ string) (map[string]string, error) {
				return onWire(chain.Sign(conn.Local(), handOver(conn, "/a.B/C")))
			},
			"bytes that are no chain": func(*svid.Conn, string) (map[string]string, error) {
				return map[string]string{hop.HopsKey: canary, hop.CertsKey: canary}, nil
			},
		} {
			t.Run("M6 "+name+"/"+shape.name, func(t *testing.T) {
				cc := m.attack(fixed{m.issue("gateway"), m.bundles()}, forge)
				err := shape.call(deadline(t), cc)
				if reason(err) == "" || strings.Contains(fmt.Sprintf("%v %+v", err, status.Convert(err).Details()), canary) {
					t.Errorf("the caller sees %v", err)
				}
				for _, e := range m.audit.take() {
					e.Subject = ""
					if s := fmt.Sprintf("%+v", e); strings.Contains(s, canary) {
						t.Errorf("audit shows %s", s)
					}
				}
			})
		}
	}
	m.server.Stop()
	if strings.Contains(logged.String(), canary) {
		t.Errorf("a log shows %s", logged.String())
	}
}

// TestFlood: distinct, malformed and oversized metadata leave memory flat.
func TestFlood(t *testing.T) {
	m := newMesh(t)
	// A sink that counts, so that the test itself keeps nothing.
	sink := new(counter)
	g := m.newGuard(m.workload("orders"), sink, time.Now)
	_, m.addr = m.serve(g.ServerOptions()...)
	raw := m.raw(m.issue("gateway"))
	flood := func(n int) {
		for i := range n {
			value := fmt.Sprintf("%08d", i)
			switch i % 3 {
			case 1:
				value = strings.Repeat("A", hop.MaxMetadata-8) + value
			case 2:
				value = strings.Repeat("A", hop.MaxMetadata) + value
			}
			if got, err := raw.call(shapes[0].method, hop.HopsKey, value); err != nil || got["grpc-status"] == "0" {
				t.Fatalf("got %q, %v", got, err)
			}
		}
	}
	heap := func() uint64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.GC() // what the first left to finalizers and pools
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	flood(300)
	before := heap()
	flood(3000)
	after := heap()
	if after > before+1<<20 {
		t.Errorf("H8 the heap grew from %d to %d bytes in 3000 calls", before, after)
	}
	if got := sink.n.Load(); got != 3300 {
		t.Errorf("%d refusals were recorded, want 3300", got)
	}
}

type counter struct{ n atomic.Int64 }

func (c *counter) Record(_ context.Context, e audit.Event) error {
	if e.Reason == tenant.ContextMalformed || e.Reason == tenant.MetadataTooLarge {
		c.n.Add(1)
	}
	return nil
}
