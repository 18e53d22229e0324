package interceptors_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
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
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestRetry: a retry is a new statement, or the other server would refuse it.
func TestRetry(t *testing.T) {
	m := newMesh(t)
	_, second := m.serve(m.guard.ServerOptions()...)
	g := m.newGuard(attacktest.Identity(m.svid("gateway"), m.bundles()), newTrail(), time.Now)
	const config = `{"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [{"name": [{}], "retryPolicy": {
		"maxAttempts": 4, "initialBackoff": "0.001s", "maxBackoff": "0.001s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`
	m.each("H10 a retry on another connection is signed afresh", func(m *mesh, s shape) {
		r := manual.NewBuilderWithScheme("two")
		r.InitialState(resolver.State{Endpoints: []resolver.Endpoint{
			{Addresses: []resolver.Address{{Addr: m.addr}}}, {Addresses: []resolver.Address{{Addr: second}}},
		}})
		cc, err := grpc.NewClient("two:///x", append(g.DialOptions(svid.Expect(id("target"))),
			grpc.WithResolvers(r), grpc.WithDefaultServiceConfig(config))...)
		if err != nil {
			m.t.Fatal(err)
		}
		m.t.Cleanup(func() { _ = cc.Close() })
		var attempts atomic.Int32
		m.ran.setHook(func(context.Context) error {
			if attempts.Add(1) < 4 {
				return status.Error(codes.Unavailable, "the handler is not ready")
			}
			return nil
		})
		if err := s.call(acme(m.t, g), cc); err != nil {
			m.t.Fatal(err)
		}
		events := m.audit.take()
		if len(events) != 4 || slices.ContainsFunc(events, func(e audit.Event) bool { return !e.Allowed }) {
			m.t.Errorf("audit: %+v, want four calls allowed", events)
		}
		m.ran.take()
	})
}

// TestCanary: what stands in claims and metadata shows nowhere but where audit
// names it. The other tests have a canary in their claims too.
func TestCanary(t *testing.T) {
	var logged safeBuffer
	defer func(l *slog.Logger) { slog.SetDefault(l) }(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	m := newMesh(t)
	all := attacktest.Claim(func(c *pb.Claims) {
		c.Scope, c.Elevation = []string{canary}, &pb.Elevation{Id: canary}
		c.Parent = &pb.Parent{Txn: canary, Statement: make([]byte, 32)}
	})
	for name, do := range map[string]func(*attacktest.World, *attacktest.Wire){
		"a chain that policy refuses": all,
		"a chain for another method": func(m *attacktest.World, w *attacktest.Wire) {
			all(m, w)
			w.Change(1, func(s *pb.Statement) { s.Target = attacktest.OtherMethod })
		},
		"a chain that is broken":  func(m *attacktest.World, w *attacktest.Wire) { all(m, w); w.Hops.Hops[1] = w.Hops.Hops[0] },
		"a signature that is not": func(m *attacktest.World, w *attacktest.Wire) { all(m, w); w.Garble() },
		"bytes that are no chain": attacktest.Value(func(hops, certs *string) { *hops, *certs = canary, canary }),
	} {
		m.svid("gateway")
		m.each("M6 "+name, func(m *mesh, s shape) {
			cc := m.attack(m.svid("orders"), m.outfit().Forged(do, "gateway", "orders"))
			err := s.call(deadline(m.t), cc)
			m.refused(err, reason(err))
			if reason(err) == "" {
				m.t.Errorf("got %v", err)
			}
		})
	}
	m.server.Stop()
	if strings.Contains(logged.String(), canary) {
		t.Errorf("a log shows %s", logged.String())
	}
}

// TestFlood: distinct, malformed and oversized metadata, from raw clients and
// from gRPC, leave memory flat, and so do good calls and connections.
func TestFlood(t *testing.T) {
	m := newMesh(t)
	sink := new(counter) // so that the test itself keeps nothing
	g := m.newGuard(m.self, sink, time.Now)
	_, m.addr = m.serve(g.ServerOptions()...)
	raw := m.raw("gateway")
	round := 0
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cc := m.attack(m.svid("gateway"), m.outfit().Forged(func(_ *attacktest.World, w *attacktest.Wire) {
		if round%2 == 1 {
			w.Garble()
		}
	}, "gateway"))
	flood := func(n int) (want map[tenant.Reason]int64) {
		want = map[tenant.Reason]int64{}
		for round = range n {
			s := shapes[round%len(shapes)]
			distinct := fmt.Sprintf("%08d", round)
			for value, reason := range map[string]tenant.Reason{
				distinct: tenant.ContextMalformed,
				strings.Repeat("A", hop.MaxMetadata-8) + distinct: tenant.ContextMalformed,
				strings.Repeat("A", hop.MaxMetadata) + distinct:   tenant.MetadataTooLarge,
			} {
				want[reason]++
				if err := raw.Call(s.method, hop.HopsKey, value, "x-tenant-id", "t"+distinct); interceptors.ReasonOf(err) != reason {
					t.Fatalf("got %v, want %s", err, reason)
				}
			}
			reason := []tenant.Reason{"", tenant.SignatureInvalid}[round%2]
			want[reason]++
			if err := s.call(ctx, cc); interceptors.ReasonOf(err) != reason {
				t.Fatalf("got %v, want %q", err, reason)
			}
			if round%20 == 0 {
				want[tenant.ContextMissing]++
				c := m.rawBy(m.svid("gateway"))
				if err := c.Call(s.method); interceptors.ReasonOf(err) != tenant.ContextMissing {
					t.Fatal(err)
				}
				_ = c.Close()
			}
		}
		m.ran.take()
		return want
	}
	for round = 0; round < 2*interceptors.MaxProofs; round += 2 { // what a connection keeps of good calls is bounded
		if err := shapes[0].call(ctx, cc); err != nil {
			t.Fatal(err)
		}
	}
	flood(100)
	sink.n.Clear()
	before := attacktest.Heap()
	want := flood(500)
	after := attacktest.Heap()
	t.Logf("%d bytes before, %d after", before, after)
	if after > before+128<<10 { // 64 bytes a call
		t.Errorf("H8 the heap grew from %d to %d bytes", before, after)
	}
	for reason, n := range want {
		if got := sink.count(reason); got != n {
			t.Errorf("%q was recorded %d times, want %d", reason, got, n)
		}
	}
}

// counter is a sink that counts decisions by their reason.
type counter struct{ n sync.Map }

func (c *counter) Record(_ context.Context, e audit.Event) error {
	n, _ := c.n.LoadOrStore(e.Reason, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	return nil
}

func (c *counter) count(r tenant.Reason) int64 {
	n, ok := c.n.Load(r)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load()
}
