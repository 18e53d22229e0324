package interceptors_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestMetadata: security keys that are ambiguous, and tenant headers.
func TestMetadata(t *testing.T) {
	m := newMesh(t)
	honest := m.honest("gateway")
	cc := m.attack(m.svid("gateway"), honest)
	for _, row := range attacktest.BesideHonest() {
		m.each(row.Name, func(m *mesh, s shape) {
			m.refused(s.call(withMetadata(deadline(m.t), row.Fields...), cc), row.Want)
		})
	}
	m.each("M1 values joined by a comma", func(m *mesh, s shape) {
		m.refused(s.call(deadline(m.t), m.attack(m.svid("gateway"), attacktest.Joined(honest))), tenant.MetadataAmbiguous)
	})
	for _, key := range attacktest.TenantHeaders() {
		m.each("M2 "+key+" chooses no tenant", func(m *mesh, s shape) {
			ctx := withMetadata(deadline(m.t), key, "globex", key, "../"+canary, "baggage", "tenant=globex")
			event := m.allowed(s.call(ctx, cc), "acme")
			if event.Claimed != "globex, (not a tenant ID)" {
				m.t.Errorf("the audit has claimed tenant %q, want globex", event.Claimed)
			}
		})
	}
	m.each("M2 nor does it where the chain is missing", func(m *mesh, s shape) {
		cc := m.attack(m.svid("gateway"), nil)
		event := m.refused(s.call(withMetadata(deadline(m.t), "x-tenant-id", "acme"), cc), tenant.ContextMissing)
		if event.Claimed != "acme" || event.Tenant != "" {
			m.t.Errorf("audit: %+v", event)
		}
	})
	m.each("M3 security metadata never reaches a handler", func(m *mesh, s shape) {
		var seen metadata.MD
		m.ran.setHook(func(ctx context.Context) error {
			seen, _ = metadata.FromIncomingContext(ctx)
			return nil
		})
		defer m.ran.setHook(nil)
		m.allowed(s.call(withMetadata(deadline(m.t), "x-request-id", "7"), cc), "acme")
		for key := range seen {
			if strings.Contains(key, "tenantmesh") {
				m.t.Errorf("the handler sees %s", key)
			}
		}
		if got := seen.Get("x-request-id"); len(got) != 1 || got[0] != "7" {
			m.t.Errorf("the handler sees x-request-id %q", got)
		}
	})
}

// TestApplicationSetsSecurityKey: M1, on the sending side.
func TestApplicationSetsSecurityKey(t *testing.T) {
	m := newMesh(t)
	g, cc := m.client("gateway")
	for _, key := range []string{hop.HopsKey, hop.CertsKey, "Tenantmesh_Hops", "tenantmesh-hops-bin"} {
		m.each("M1 the application sets "+key, func(m *mesh, s shape) {
			m.notLeft(s.call(withMetadata(acme(m.t, g), key, "AAAA"), cc), tenant.MetadataAmbiguous)
		})
	}
	m.each("M1 a call credential sets it beside ours", func(m *mesh, s shape) {
		m.refused(s.call(acme(m.t, g), cc, grpc.PerRPCCredentials(&staticCredential{hop.HopsKey, "AAAA"})), tenant.MetadataAmbiguous)
	})
	m.each("M1 a call credential of the application's works beside ours", func(m *mesh, s shape) {
		m.allowed(s.call(acme(m.t, g), cc, grpc.PerRPCCredentials(&staticCredential{"authorization", "Bearer x"})), "acme")
	})
}

type staticCredential struct{ key, value string }

func (c *staticCredential) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{c.key: c.value}, nil
}
func (c *staticCredential) RequireTransportSecurity() bool { return true }
