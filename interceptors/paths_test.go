package interceptors_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

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
	for _, shape := range shapes {
		t.Run("I6 "+shape.name, func(t *testing.T) {
			m := *m
			m.t = t
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
		g := m.newGuard(fixed{own, m.bundles()}, new(trail), time.Now)
		cc := m.dial(g.DialOptions(svid.Expect(id("target")))...)
		m.ran.setHook(func(context.Context) error { m.clock.advance(200 * time.Second); return nil })
		if err := watch(acme(t, g), cc); reason(err) != tenant.SVIDExpired {
			t.Errorf("got %v", err)
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
	for _, shape := range shapes {
		if err := shape.call(ctx, cc); reason(err) != tenant.SubjectNotAllowed {
			t.Errorf("P2 %s: got %v", shape.name, err)
		}
	}
	m.policy.p.Store(nil)
	if _, err := g.Originate(deadline(t), claims("acme")); tenant.ReasonOf(err) != tenant.PolicyUnavailable {
		t.Errorf("P6: got %v", err)
	}
	if _, err := tenant.Require(ctx); tenant.ReasonOf(err) != tenant.PolicyUnavailable {
		t.Errorf("P6: got %v", err)
	}
}

// TestNoIdentity: without an SVID of its own, a workload neither calls nor
// originates.
func TestNoIdentity(t *testing.T) {
	m := newMesh(t)
	gateway := m.workload("gateway")
	g := m.newGuard(gateway, new(trail), time.Now)
	cc := m.dial(g.DialOptions(svid.Expect(id("target")))...)
	ctx := acme(t, g)
	gateway.Remove()
	for _, shape := range shapes {
		if err := shape.call(ctx, cc); reason(err) != tenant.IdentityUnavailable || status.Code(err) != codes.Unavailable {
			t.Errorf("%s: got %v", shape.name, err)
		}
	}
	if _, err := g.Originate(deadline(t), claims("acme")); tenant.ReasonOf(err) != tenant.IdentityUnavailable {
		t.Errorf("got %v", err)
	}
	if events := m.audit.take(); len(events) != 0 {
		t.Errorf("a call left: %+v", events)
	}
}

// TestSigningRefused: H8, what cannot be signed keeps its reason, though gRPC
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
	for _, shape := range shapes {
		if err := shape.call(ctx, cc); reason(err) != tenant.MetadataTooLarge || status.Code(err) != codes.Internal {
			t.Errorf("H8 %s: got %v", shape.name, err)
		}
	}
	if events := m.audit.take(); len(events) != 0 {
		t.Errorf("a call left: %+v", events)
	}
}
