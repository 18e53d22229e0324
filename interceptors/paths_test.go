package interceptors_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/internal/mint"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestOtherTransport: a server that is mounted into net/http gets calls that
// the kit's credentials and the check at header time never saw.
func TestOtherTransport(t *testing.T) {
	m := newMesh(t)
	web := httptest.NewUnstartedServer(m.server)
	web.EnableHTTP2 = true
	web.StartTLS()
	t.Cleanup(web.Close)
	m.each("I6 a transport that is not ours", func(m *mesh, shape shape) {
		t := m.t
		req, err := http.NewRequestWithContext(deadline(t), http.MethodPost, web.URL+shape.method, strings.NewReader("\x00\x00\x00\x00\x00"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
		resp, err := web.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
			t.Error("the server answers with a message")
		}
		code, message := resp.Trailer.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Message")
		if code == "" { // trailers only
			code, message = resp.Header.Get("Grpc-Status"), resp.Header.Get("Grpc-Message")
		}
		if code != "16" || message != "unauthenticated" {
			t.Errorf("the caller sees status %s %q", code, message)
		}
		m.recorded(tenant.PeerUnauthenticated)
	})
}

// TestOtherWiring: clients that are wired otherwise than DialOptions has it send
// nothing.
func TestOtherWiring(t *testing.T) {
	m := newMesh(t)
	own := attacktest.Identity(m.svid("gateway"), m.bundles())
	expect := svid.Expect(id("target"))
	theirs := grpc.WithTransportCredentials(svid.NewClientCredentials(own, expect))
	exchange := func() {
		m.policy.p.Store(parsePolicy(t, strings.Replace(document, `subjects: ["user-*"]`, `subjects: ["nobody"]`, 1)))
	}
	elsewhere := []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, _ string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
			return invoke(ctx, attacktest.OtherMethod, req, reply, cc, o...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, _ string, open grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(ctx, d, cc, attacktest.OtherMethod, o...)
		}),
	}
	meanwhile := []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
			exchange()
			return invoke(ctx, method, req, reply, cc, o...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
			exchange()
			return open(ctx, d, cc, method, o...)
		}),
	}
	for _, row := range []struct {
		name    string
		options func(ours []grpc.DialOption) []grpc.DialOption
		want    tenant.Reason
	}{
		{"I6 other credentials after ours", func(ours []grpc.DialOption) []grpc.DialOption { return append(ours, theirs) }, tenant.PeerUnauthenticated},
		{"H1 an interceptor after ours that calls another method", func(ours []grpc.DialOption) []grpc.DialOption { return append(ours, elsewhere...) }, tenant.TargetMismatch},
		{"P2 a policy exchanged after our interceptor", func(ours []grpc.DialOption) []grpc.DialOption { return append(ours, meanwhile...) }, tenant.SubjectNotAllowed},
		{"I6 the credentials without the interceptors", func(ours []grpc.DialOption) []grpc.DialOption { return ours[:2] }, tenant.Internal},
	} {
		m.each(row.name, func(m *mesh, s shape) {
			defer m.policy.p.Store(m.policy.Current())
			sink := newTrail()
			g := m.newGuard(own, sink, time.Now)
			cc := m.dial(row.options(g.DialOptions(expect))...)
			ctx := acme(m.t, g)
			sink.take()
			m.notLeft(s.call(ctx, cc), row.want)
			if events := sink.take(); len(events) != 1 || events[0].Reason != row.want || events[0].Point != audit.Client {
				m.t.Errorf("the client's audit has %+v", events)
			}
		})
	}
	m.each("I6 a context of another maker", func(m *mesh, s shape) {
		_, cc := m.client("gateway")
		ctx := mint.With(deadline(m.t), &mint.Record{Facts: &mint.Facts{Tenant: "acme"}, Carrier: "chain"})
		m.notLeft(s.call(ctx, cc), tenant.Internal)
	})
	bare := newMesh(t, grpc.Creds(nil))
	bare.each("I6 no credentials at all", func(m *mesh, s shape) {
		cc := m.dial(grpc.WithTransportCredentials(insecure.NewCredentials()))
		m.refusedBlindly(s.call(deadline(m.t), cc), tenant.PeerUnauthenticated)
	})
}

// TestStreamGoesOn: what was checked when a stream opened is asked again at
// each message that is sent.
func TestStreamGoesOn(t *testing.T) {
	watch := func(ctx context.Context, cc *grpc.ClientConn) error {
		s, err := grpc_testing.NewTestServiceClient(cc).StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{})
		if err != nil {
			return err
		}
		return drain(s.Recv)
	}
	t.Run("S2 claims expire before a message is sent", func(t *testing.T) {
		m := newMesh(t)
		g, cc := m.client("gateway")
		m.ran.setHook(func(context.Context) error { m.clock.advance(10 * time.Minute); return nil })
		if err := watch(acme(t, g), cc); reason(err) != tenant.ContextExpired {
			t.Errorf("got %v", err)
		}
	})
	t.Run("S2 the peer's SVID expires before a message is sent", func(t *testing.T) {
		m := newMesh(t)
		now := time.Now()
		own := m.issue("gateway", devdomain.ValidFrom(now.Add(-time.Minute), now.Add(3*time.Minute)))
		g := m.newGuard(attacktest.Identity(own, m.bundles()), newTrail(), time.Now)
		cc := m.dial(g.DialOptions(svid.Expect(id("target")))...)
		m.ran.setHook(func(context.Context) error { m.clock.advance(200 * time.Second); return nil })
		if err := watch(acme(t, g), cc); reason(err) != tenant.SVIDExpired {
			t.Errorf("got %v", err)
		}
	})
	t.Run("I5 the clock is set back before the peer's SVID is valid", func(t *testing.T) {
		m := newMesh(t)
		now := time.Now()
		own := m.issue("gateway", devdomain.ValidFrom(now.Add(-time.Minute), now.Add(time.Hour)))
		g := m.newGuard(attacktest.Identity(own, m.bundles()), newTrail(), time.Now)
		cc := m.dial(g.DialOptions(svid.Expect(id("target")))...)
		m.ran.setHook(func(context.Context) error { m.clock.advance(-2 * time.Minute); return nil })
		if err := watch(acme(t, g), cc); reason(err) != tenant.SVIDExpired {
			t.Errorf("got %v", err)
		}
	})
}

// talk opens a stream, and returns how to say something on it and hear the answer.
func talk(ctx context.Context, cc *grpc.ClientConn) (say func() error) {
	s, err := grpc_testing.NewTestServiceClient(cc).FullDuplexCall(ctx)
	return func() error {
		if err != nil {
			return err
		}
		if err := s.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil {
			return err
		}
		_, err := s.Recv()
		return err
	}
}

// TestTimedStream: a stream that a service opened with a context that it got by a method with a
// condition on time ends at the next message once the condition no longer holds, and so does
// one of a context that is derived from that one.
func TestTimedStream(t *testing.T) {
	for name, derived := range map[string]bool{"P5 received": false, "P5 derived from what was received": true} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			at := time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
			m.policy.p.Store(parsePolicy(t, strings.Replace(anewDocument, "UnaryCall\n", "UnaryCall\n    when: 'now < timestamp(\""+at+"\")'\n", 1)))
			_, addr := m.serveOther(m.newGuard(m.workload("stock"), newTrail(), time.Now), new(handlerLog))
			toStock := m.dialTo(addr, m.guard.DialOptions(svid.Expect(id("stock")))...)
			var before, after error
			m.ran.setHook(func(ctx context.Context) error {
				if derived {
					c := claims("acme")
					c.Issuer, c.Expires = "", time.Time{}
					var err error
					if ctx, err = m.guard.OriginateAnew(ctx, c); err != nil {
						return err
					}
				}
				say := talk(ctx, toStock)
				before = say()
				m.clock.advance(time.Minute)
				after = say()
				return nil
			})
			g, cc := m.client("gateway")
			err := shapes[0].call(acme(t, g), cc)
			if before != nil || reason(after) != tenant.ConditionNotMet {
				t.Errorf("S2 the stream: %v and then %v, want %s", before, after, tenant.ConditionNotMet)
			}
			if reason(err) != tenant.ConditionNotMet {
				t.Errorf("S2 the call: %v, want %s", err, tenant.ConditionNotMet)
			}
		})
	}
}

// originated returns a context that the gateway originated, by a guard with a policy of its own.
func originated(t *testing.T) (*mesh, context.Context, *source) {
	t.Helper()
	m := newMesh(t)
	own := m.config(attacktest.Identity(m.svid("gateway"), m.bundles()), newTrail(), time.Now)
	by := new(source)
	own.Policy = by
	by.p.Store(parsePolicy(t, document))
	return m, acme(t, m.guardOf(own)), by
}

// TestHeldByAnother: a context is held to the policy of the guard that made it, whichever guard
// it is used with, and whatever that one's policy allows.
func TestHeldByAnother(t *testing.T) {
	each(t, "P2 originated by another guard", func(t *testing.T, s shape) {
		m, ctx, by := originated(t)
		_, cc := m.client("gateway")
		m.allowed(s.call(ctx, cc), "acme")
		by.p.Store(parsePolicy(t, strings.Replace(document, `subjects: ["user-*"]`, `subjects: ["nobody"]`, 1)))
		m.notLeft(s.call(ctx, cc), tenant.SubjectNotAllowed)
	})
	t.Run("P2 a stream with what another guard originated", func(t *testing.T) {
		m, ctx, by := originated(t)
		_, cc := m.client("gateway")
		say := talk(ctx, cc)
		if err := say(); err != nil {
			t.Fatal(err)
		}
		by.p.Store(parsePolicy(t, strings.Replace(document, `subjects: ["user-*"]`, `subjects: ["nobody"]`, 1)))
		if err := say(); reason(err) != tenant.SubjectNotAllowed {
			t.Errorf("S2 got %v, want %s", err, tenant.SubjectNotAllowed)
		}
	})
	t.Run("P2 a stream with what another guard received", func(t *testing.T) {
		m := newMesh(t)
		_, addr := m.serveOther(m.guardBy(m.workload("stock"), newTrail(), "", ""), new(handlerLog))
		other := m.config(m.self, newTrail(), time.Now)
		other.Policy = m.policy.p.Load() // the same, until the first guard's changes
		toStock := m.dialTo(addr, m.guardOf(other).DialOptions(svid.Expect(id("stock")))...)
		var before, after error
		m.ran.setHook(func(ctx context.Context) error {
			say := talk(ctx, toStock)
			before = say()
			m.policy.p.Store(parsePolicy(t, strings.Replace(document, `tenants: ["*"]`, "tenants: [globex]", 1)))
			after = say()
			return nil
		})
		g, cc := m.client("gateway")
		err := shapes[0].call(acme(t, g), cc)
		if before != nil || reason(after) != tenant.TenantNotBound || reason(err) != tenant.TenantNotBound {
			t.Errorf("S2 the stream: %v and then %v, and the call: %v, want %s", before, after, err, tenant.TenantNotBound)
		}
	})
	each(t, "P2 received by another guard", func(t *testing.T, s shape) {
		m := newMesh(t)
		ran := new(handlerLog)
		_, addr := m.serveOther(m.guardBy(m.workload("stock"), newTrail(), "", ""), ran)
		toStock := m.dialTo(addr, m.guardBy(m.self, newTrail(), "", "").DialOptions(svid.Expect(id("stock")))...)
		var before, after error
		m.ran.setHook(func(ctx context.Context) error {
			before = s.call(ctx, toStock)
			m.policy.p.Store(parsePolicy(t, strings.Replace(document, `tenants: ["*"]`, "tenants: [globex]", 1)))
			after = s.call(ctx, toStock)
			return nil
		})
		g, cc := m.client("gateway")
		err := s.call(acme(t, g), cc)
		if before != nil || reason(after) != tenant.TenantNotBound {
			t.Errorf("the calls with it: %v and then %v, want %s", before, after, tenant.TenantNotBound)
		}
		if runs := ran.take(); len(runs) != 1 {
			t.Errorf("the handler ran for %q", runs)
		}
		if reason(err) != tenant.TenantNotBound {
			t.Errorf("the call itself: %v", err)
		}
	})
}

// TestOriginatedStillValid: a context that a workload originated is asked again
// when the policy changes.
func TestOriginatedStillValid(t *testing.T) {
	m := newMesh(t)
	g, cc := m.client("gateway")
	ctx := acme(t, g)
	m.policy.p.Store(parsePolicy(t, strings.Replace(document, `subjects: ["user-*"]`, `subjects: ["nobody"]`, 1)))
	m.each("P2 a subject that may no longer be originated for", func(m *mesh, s shape) {
		m.notLeft(s.call(ctx, cc), tenant.SubjectNotAllowed)
	})
	m.policy.p.Store(nil)
	if _, err := g.Originate(deadline(t), claims("acme")); tenant.ReasonOf(err) != tenant.PolicyUnavailable {
		t.Errorf("P6: got %v", err)
	}
	if _, err := tenant.Require(ctx); tenant.ReasonOf(err) != tenant.PolicyUnavailable {
		t.Errorf("P6: got %v", err)
	}
	m.policy.p.Store(parsePolicy(t, document))
	gateway, c := m.workload("gateway"), new(clock)
	g = m.newGuard(gateway, newTrail(), c.now)
	ctx = acme(t, g)
	c.advance(5 * time.Minute)
	if _, err := tenant.Require(ctx); tenant.ReasonOf(err) != tenant.ContextExpired {
		t.Errorf("T9 past exp: got %v", err)
	}
	c.advance(-5 * time.Minute)
	gateway.Remove()
	m.policy.p.Store(parsePolicy(t, document)) // so that it asks who this workload is
	if _, err := tenant.Require(ctx); tenant.ReasonOf(err) != tenant.IdentityUnavailable {
		t.Errorf("I5 without an identity: got %v", err)
	}
}

// TestNoIdentity: without an SVID of its own, a workload neither calls nor
// originates.
func TestNoIdentity(t *testing.T) {
	m := newMesh(t)
	gateway := m.workload("gateway")
	g := m.newGuard(gateway, newTrail(), time.Now)
	cc := m.dial(g.DialOptions(svid.Expect(id("target")))...)
	ctx := acme(t, g)
	gateway.Remove()
	m.each("I5 no identity", func(m *mesh, s shape) {
		err := s.call(ctx, cc)
		m.notLeft(err, tenant.IdentityUnavailable)
		if status.Code(err) != codes.Unavailable {
			m.t.Errorf("got %v", err)
		}
	})
	if _, err := g.Originate(deadline(t), claims("acme")); tenant.ReasonOf(err) != tenant.IdentityUnavailable {
		t.Errorf("got %v", err)
	}
	for name, fault := range map[string]failing{
		"I5 a source that fails without a reason": {errors.New("a fault")},
		"I5 a source that gives nothing":          {nil},
	} {
		broken := m.newGuard(fault, newTrail(), time.Now)
		if len(broken.ServerOptions()) == 0 {
			t.Error("a server cannot be made before there is an identity")
		}
		cc = m.dial(broken.DialOptions(svid.Expect(id("target")))...)
		m.each(name, func(m *mesh, s shape) {
			m.notLeft(s.call(ctx, cc), tenant.IdentityUnavailable)
		})
	}
}

// failing is a source of identity that has a fault.
type failing struct{ err error }

func (f failing) Snapshot() (*svid.Snapshot, error) { return nil, f.err }

// TestSigningRefused: what cannot be signed keeps its reason, though gRPC
// lets a credential return few codes.
func TestSigningRefused(t *testing.T) {
	m := newMesh(t)
	g, cc := m.client("gateway")
	c := claims("acme")
	c.Request = map[string]string{}
	for i := range 12 {
		c.Request[string(rune('a'+i))] = strings.Repeat("x", 500)
	}
	ctx, err := g.Originate(deadline(t), c)
	if err != nil {
		t.Fatal(err)
	}
	m.each("H8 more claims than the budget", func(m *mesh, s shape) {
		err := s.call(ctx, cc)
		m.notLeft(err, tenant.MetadataTooLarge)
		if status.Code(err) != codes.Internal {
			m.t.Errorf("got %v", err)
		}
	})
}
