package interceptors_test

import (
	"context"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// replay presents what its workload presented first, or what twist makes of it.
type replay struct {
	m     *mesh
	path  []string
	first *attacktest.Wire
	twist func(*attacktest.Wire)
}

func (r *replay) forge(binding [32]byte, method string) (map[string]string, error) {
	if r.first == nil {
		var err error
		if r.first, err = r.m.outfit().Send(binding, method, r.path...); err != nil {
			return nil, err
		}
	}
	w := r.first.Clone()
	if r.twist != nil {
		r.twist(w)
	}
	return w.Values()
}

// TestWarm: what was proven on a connection before is held to all that may have
// changed since, and what differs from it in anything is proven by itself.
func TestWarm(t *testing.T) {
	partner := "spiffe://partner.example/app"
	for name, row := range map[string]struct {
		change func(*mesh, *replay)
		want   tenant.Reason
	}{
		"H9 nothing": {func(*mesh, *replay) {}, ""},
		"H9 a garbage signature": {func(_ *mesh, r *replay) {
			r.twist = func(w *attacktest.Wire) { w.Garble() }
		}, tenant.SignatureInvalid},
		"H9 without its certificates": {func(_ *mesh, r *replay) {
			r.twist = func(w *attacktest.Wire) { w.Text = func(_, certs *string) { *certs = "" } }
		}, tenant.CertificateMissing},
		"H9 with others": {func(m *mesh, r *replay) {
			other, err := m.outfit().Send([32]byte{1}, shapes[0].method, "stock", "orders")
			if err != nil {
				m.t.Fatal(err)
			}
			r.twist = func(w *attacktest.Wire) { w.Certs = other.Certs }
		}, tenant.CertificateUnexpected},
		"H5 no longer fresh": {func(m *mesh, _ *replay) { m.clock.advance(2 * time.Minute) }, tenant.ContextStale},
		"H5 expired":         {func(m *mesh, _ *replay) { m.clock.advance(10 * time.Minute) }, tenant.ContextExpired},
		"I4 a signer's bundle is gone": {func(m *mesh, _ *replay) {
			m.domain.Unfederate("partner.example")
		}, tenant.SVIDUntrusted},
		"P2 another policy": {func(m *mesh, _ *replay) {
			m.policy.p.Store(parsePolicy(m.t, strings.Replace(document, partner, partner+"2", 1)))
		}, tenant.WorkloadUnknown},
	} {
		each(t, name, func(t *testing.T, s shape) {
			m := newMesh(t)
			for _, name := range []string{partner, "orders", "stock"} {
				m.svid(name)
			}
			r := &replay{m: m, path: []string{partner, "orders"}}
			cc := m.attack(m.svid("orders"), r.forge)
			for range 3 { // cold, and warm once it came again
				m.allowed(s.call(deadline(t), cc), "acme")
			}
			row.change(m, r)
			err := s.call(deadline(t), cc)
			if row.want == "" {
				m.allowed(err, "acme")
				return
			}
			m.refused(err, row.want)
		})
	}
	each(t, "H1 on another connection", func(t *testing.T, s shape) {
		m := newMesh(t)
		m.svid("gateway")
		r := &replay{m: m, path: []string{"gateway"}}
		first := m.attack(m.svid("gateway"), r.forge)
		for range 3 {
			m.allowed(s.call(deadline(t), first), "acme")
		}
		m.refused(s.call(deadline(t), m.attack(m.svid("gateway"), r.forge)), tenant.ChannelMismatch)
	})
	each(t, "H1 for another method", func(t *testing.T, s shape) {
		m := newMesh(t)
		m.svid("gateway")
		r := &replay{m: m, path: []string{"gateway"}}
		cc := m.attack(m.svid("gateway"), r.forge)
		for range 3 {
			m.allowed(s.call(deadline(t), cc), "acme")
		}
		for _, other := range shapes {
			if other.name != s.name {
				m.refused(other.call(deadline(t), cc), tenant.TargetMismatch)
			}
		}
	})
}

// TestProofsAreBounded: however many contexts a connection brings, a guard keeps
// few of them, none that came once, and none once the connection is gone.
func TestProofsAreBounded(t *testing.T) {
	m := newMesh(t)
	honest := m.honest("gateway")
	var sent map[string]string
	anew := true
	cc := m.attack(m.svid("gateway"), func(binding [32]byte, method string) (_ map[string]string, err error) {
		if anew {
			sent, err = honest(binding, method)
		}
		return sent, err
	})
	call := func() { m.allowed(shapes[0].call(deadline(t), cc), "acme") }
	for range 100 {
		call()
	}
	if n := interceptors.Proofs(m.guard); n != 0 {
		t.Errorf("H8 %d proofs are kept that came once", n)
	}
	for range interceptors.MaxProofs + 100 {
		for _, anew = range []bool{true, false} {
			call()
		}
	}
	if n := interceptors.Proofs(m.guard); n != interceptors.MaxProofs {
		t.Errorf("H8 %d proofs are kept, want %d", n, interceptors.MaxProofs)
	}
	_ = cc.Close()
	m.server.Stop()
	for ctx := deadline(t); interceptors.Proofs(m.guard) > 0; runtime.GC() {
		if ctx.Err() != nil {
			t.Fatalf("H8 %d proofs are kept of a connection that is gone", interceptors.Proofs(m.guard))
		}
	}
}

// TestSentAgain: a proof is presented again on its connection, for its context
// and its method, within the window, and for nothing else.
func TestSentAgain(t *testing.T) {
	m := newMesh(t)
	var mu sync.Mutex
	var last string
	note := func(ctx context.Context) {
		md, _ := metadata.FromIncomingContext(ctx)
		mu.Lock()
		defer mu.Unlock()
		last = md.Get(hop.HopsKey)[0]
	}
	m.addr = m.serveBare(append(noting(note), grpc.Creds(svid.NewServerCredentials(m.self)))...)
	each(t, "H1 what is sent again", func(t *testing.T, s shape) {
		now := new(clock)
		g := m.newGuard(attacktest.Identity(m.svid("gateway"), m.bundles()), newTrail(), now.now)
		dial := func() *grpc.ClientConn { return m.dial(g.DialOptions(svid.Expect(id("target")))...) }
		cc, ctx := dial(), acme(t, g)
		sent := func(ctx context.Context, s shape, cc *grpc.ClientConn) string {
			t.Helper()
			if err := s.call(ctx, cc); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			return last
		}
		first := sent(ctx, s, cc)
		if sent(ctx, s, cc) != first {
			t.Error("the proof is not presented again")
		}
		now.advance(4 * time.Second)
		if sent(ctx, s, cc) != first {
			t.Error("the proof is not presented again within the window")
		}
		other := shapes[0]
		if s.name == other.name {
			other = shapes[1]
		}
		seen := map[string]string{first: "the first"}
		for name, value := range map[string]string{
			"another method":     sent(ctx, other, cc),
			"another context":    sent(acme(t, g), s, cc),
			"another connection": sent(ctx, s, dial()),
		} {
			if seen[value] != "" {
				t.Errorf("%s has the proof of %s", name, seen[value])
			}
			seen[value] = name
		}
		for _, by := range []time.Duration{2 * time.Second, -3 * time.Second} { // past the window, and before it
			now.advance(by)
			value := sent(ctx, s, cc)
			if seen[value] != "" {
				t.Errorf("after %s the proof of %s is presented", by, seen[value])
			}
			seen[value] = by.String()
		}
	})
}

// TestSentIsBounded: for however many connections and methods a context is used, few of its
// proofs are kept, and it goes on to be used.
func TestSentIsBounded(t *testing.T) {
	m := newMesh(t)
	now := time.Now()
	g := m.newGuard(attacktest.Identity(m.svid("gateway"), m.bundles()), newTrail(), func() time.Time { return now }) // no proof is over
	ctx := acme(t, g)
	for made := 0; made < interceptors.MaxSent+2*len(shapes); {
		cc := m.dial(g.DialOptions(svid.Expect(id("target")))...)
		for _, s := range shapes {
			for range 2 {
				m.allowed(s.call(ctx, cc), "acme")
			}
			made++
			if kept, want := interceptors.SentProofs(ctx), min(made, interceptors.MaxSent); kept != want {
				t.Fatalf("H8 %d proofs are kept of %d, want %d", kept, made, want)
			}
		}
	}
}

// TestSlots: what a connection's slots stand for is held to all checks, and a slot
// means nothing on another connection.
func TestSlots(t *testing.T) {
	for name, steps := range map[string][]struct {
		hops string // %s stands for the whole text
		want tenant.Reason
	}{
		"H9 filled and named":         {{"=0:%s", ""}, {"=0", ""}, {"=0", ""}},
		"H9 filled with what is none": {{"=0:%sA", tenant.ContextMalformed}, {"=0", tenant.ContextMalformed}},
		"H7 empty":                    {{"=0", tenant.ContextMalformed}},
		"H7 not offered":              {{"=1024:%s", tenant.ContextMalformed}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			m.svid("gateway")
			value := "%s"
			r := &replay{m: m, path: []string{"gateway"}, twist: func(w *attacktest.Wire) {
				w.Text = func(hops, _ *string) { *hops = strings.ReplaceAll(value, "%s", *hops) }
			}}
			dial := func() *grpc.ClientConn { return m.attack(m.svid("gateway"), r.forge) }
			cc, s := dial(), shapes[0]
			value = "=0:%s"
			m.refused(s.call(deadline(t), cc), tenant.ContextMalformed) // nothing is offered yet
			value = "%s"
			var header metadata.MD
			m.allowed(s.call(deadline(t), cc, grpc.Header(&header)), "acme")
			if o := hop.ParseOffer(header[hop.SlotsKey]); o.Slots != 1024 {
				t.Fatalf("offered: %q", header)
			}
			for _, step := range steps {
				value = step.hops
				err := s.call(deadline(t), cc)
				if step.want == "" {
					m.allowed(err, "acme")
				} else {
					m.refused(err, step.want)
				}
			}
			r.first, value = nil, "%s"
			cc = dial()
			m.allowed(s.call(deadline(t), cc), "acme")
			value = "=0"
			m.refused(s.call(deadline(t), cc), tenant.ContextMalformed)
		})
	}
}

// written counts the bytes that a client writes.
type written struct {
	net.Conn
	n *atomic.Int64
}

func (w written) Write(b []byte) (int, error) {
	w.n.Add(int64(len(b)))
	return w.Conn.Write(b)
}

// TestSlotsAreUsed: contexts that are used again cost few bytes, though there are
// more than HPACK's table holds.
func TestSlotsAreUsed(t *testing.T) {
	m := newMesh(t)
	var n atomic.Int64
	g := m.newGuard(attacktest.Identity(m.svid("gateway"), m.bundles()), newTrail(), time.Now)
	cc := m.dial(append(g.DialOptions(svid.Expect(id("target"))), grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		return written{c, &n}, err
	}))...)
	var contexts []context.Context
	for range 50 {
		contexts = append(contexts, acme(t, g))
	}
	var rounds []int64
	for range 4 {
		n.Store(0)
		for _, ctx := range contexts {
			m.allowed(shapes[0].call(ctx, cc), "acme")
		}
		rounds = append(rounds, n.Load()/int64(len(contexts)))
	}
	if rounds[3] > rounds[0]/3 || rounds[3] > 250 {
		t.Errorf("bytes a call in each round: %d", rounds)
	}
}
