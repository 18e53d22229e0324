package interceptors_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestUnavailable: what the guard cannot decide, it denies.
func TestUnavailable(t *testing.T) {
	each(t, "P6 no policy", func(t *testing.T, s shape) {
		m := newMesh(t)
		g, cc := m.client("gateway")
		ctx := acme(t, g)
		m.policy.p.Store(nil)
		m.notLeft(s.call(ctx, cc), tenant.PolicyUnavailable)
		var trailer metadata.MD
		m.refused(s.call(deadline(t), m.attack(m.svid("gateway"), nil), grpc.Trailer(&trailer)), tenant.PolicyUnavailable)
		if got := trailer.Get("grpc-retry-pushback-ms"); len(got) != 1 || got[0] != "-1" {
			t.Errorf("pushback %q, want -1", got)
		}
	})
	each(t, "M3 no policy, and what an interceptor before ours sees", func(t *testing.T, s shape) {
		m := newMesh(t)
		seen := make(chan metadata.MD, 1)
		note := func(ctx context.Context) {
			md, _ := metadata.FromIncomingContext(ctx)
			seen <- md
		}
		m.addr = m.serveAround(noting(note)...)
		m.policy.p.Store(nil)
		ctx := withMetadata(deadline(t), "x-request-id", "7")
		m.refused(s.call(ctx, m.attack(m.svid("gateway"), m.honest("gateway"))), tenant.PolicyUnavailable)
		md := <-seen
		for key := range md {
			if hop.IsMetadataKey(key) {
				t.Errorf("it sees %s", key)
			}
		}
		if len(md.Get("x-request-id")) != 1 {
			t.Errorf("it sees %v", md)
		}
	})
	each(t, "E2 an audit sink that is down", func(t *testing.T, s shape) {
		m := newMesh(t)
		g, cc := m.client("gateway")
		m.audit.setFail(errors.New("disk full"))
		err := s.call(acme(t, g), cc)
		if reason(err) != tenant.AuditUnavailable || status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
		m.notRun()
		if !strings.Contains(m.logged.String(), "a refusal could not be recorded") {
			t.Errorf("the log has %q", m.logged)
		}
	})
	each(t, "a closed guard", func(t *testing.T, s shape) {
		m := newMesh(t)
		g, cc := m.client("gateway")
		ctx := acme(t, g)
		if err := m.guard.Close(); err != nil {
			t.Fatal(err)
		}
		m.refused(s.call(ctx, cc), tenant.PolicyUnavailable)
	})
	each(t, "I5 our own identity withdrawn", func(t *testing.T, s shape) {
		m := newMesh(t)
		g, cc := m.client("gateway")
		ctx := acme(t, g)
		m.allowed(s.call(ctx, cc), "acme")
		m.self.Remove()
		m.refusedBlindly(s.call(ctx, cc), tenant.IdentityUnavailable)
	})
}
