package interceptors_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestCallee: a context reaches no workload that may not have it, whoever calls
// it: nothing is signed, and the callee's handler never runs.
func TestCallee(t *testing.T) {
	for _, tt := range []struct {
		name, tenant, old, instead string
		want                       tenant.Reason
	}{
		{"a tenant that the callee's trust domain may have", "acme", "", "", ""},
		{"a tenant that it may not have", "globex", "", "", tenant.TenantNotBound},
		{"a callee that is denied", "acme", "methods:\n", "  - name: no\n    match: " + attacktest.PartnerApp + "\n    deny: true\nmethods:\n", tenant.WorkloadDenied},
		{"a callee of a trust domain that is not listed", "acme", "partner.example", "other.example", tenant.WorkloadUnknown},
	} {
		each(t, "H4 "+tt.name, func(t *testing.T, s shape) {
			m := newMesh(t)
			w, err := m.partner.Workload(attacktest.PartnerApp)
			if err != nil {
				t.Fatal(err)
			}
			callee := m.newGuard(w, newTrail(), time.Now)
			_, m.addr = m.serve(callee.ServerOptions()...)
			audit := newTrail()
			g := m.guardBy(attacktest.Identity(m.svid("gateway"), m.bundles()), audit, tt.old, tt.instead)
			ctx, err := g.Originate(deadline(t), claims(tt.tenant))
			if err != nil {
				t.Fatal(err)
			}
			audit.take()
			err = s.call(ctx, m.dial(g.DialOptions(svid.Expect(attacktest.PartnerApp))...))
			if interceptors.ReasonOf(err) != tt.want {
				t.Errorf("the caller sees %v, want %q", err, tt.want)
			}
			if runs := m.ran.take(); (len(runs) == 1) != (tt.want == "") {
				t.Errorf("the handler ran for %q", runs)
			}
			if tt.want == "" {
				return
			}
			if status.Code(err) != codes.PermissionDenied {
				t.Errorf("the caller sees %v, want PermissionDenied", err)
			}
			if e := audit.take(); len(e) != 1 || e[0].Allowed || e[0].Reason != tt.want || e[0].Tenant != tt.tenant {
				t.Errorf("audit: %+v, want a refusal for %s", e, tt.want)
			}
		})
	}
}

// guardBy returns a guard whose policy has one text in the place of another.
func (m *mesh) guardBy(src svid.Snapshotter, audit *trail, old, instead string) *interceptors.Guard {
	m.t.Helper()
	c := m.config(src, audit, time.Now)
	p := new(source)
	p.p.Store(parsePolicy(m.t, strings.ReplaceAll(document, old, instead)))
	c.Policy = p
	return m.guardOf(c)
}

// TestReceiver: a workload takes no context that it may not have, from a caller
// that was taken over and asks no such thing.
func TestReceiver(t *testing.T) {
	for _, tt := range []struct {
		name, tenant, old, instead string
		want                       tenant.Reason
	}{
		{"a tenant that the receiver's trust domain may not have", "globex", "", "", tenant.TenantNotBound},
		{"a receiver that is denied", "acme", "methods:\n", "  - name: no\n    match: " + attacktest.PartnerApp + "\n    deny: true\nmethods:\n", tenant.WorkloadDenied},
	} {
		each(t, "H4 "+tt.name, func(t *testing.T, s shape) {
			m := newMesh(t)
			w, err := m.partner.Workload(attacktest.PartnerApp)
			if err != nil {
				t.Fatal(err)
			}
			audit := newTrail()
			_, m.addr = m.serve(m.guardBy(w, audit, tt.old, tt.instead).ServerOptions()...)
			g := m.guardBy(attacktest.Identity(m.svid("gateway"), m.bundles()), newTrail(), "    tenants: [acme]\n", "")
			ctx, err := g.Originate(deadline(t), claims(tt.tenant))
			if err != nil {
				t.Fatal(err)
			}
			err = s.call(ctx, m.dial(g.DialOptions(svid.Expect(attacktest.PartnerApp))...))
			if interceptors.ReasonOf(err) != tt.want || status.Code(err) != codes.PermissionDenied {
				t.Errorf("the caller sees %v, want %s", err, tt.want)
			}
			if runs := m.ran.take(); len(runs) != 0 {
				t.Errorf("the handler ran for %q", runs)
			}
			if e := audit.take(); len(e) != 1 || e[0].Allowed || e[0].Reason != tt.want || e[0].Tenant != tt.tenant || !e[0].Proven {
				t.Errorf("audit: %+v, want a refusal for %s", e, tt.want)
			}
		})
	}
}
