package interceptors_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestChainAttacks makes each attack by gRPC and by raw HTTP/2, on a connection on
// which an honest call was allowed before, and twice: what was verified before
// changes no answer (H9).
func TestChainAttacks(t *testing.T) {
	m := newMesh(t)
	for _, name := range attacktest.Cast() {
		m.svid(name)
	}
	w := m.outfit()
	for _, a := range attacktest.Attacks() {
		m.each(a.Name, func(m *mesh, s shape) {
			m.make(a.In(w), s, m.byGRPC)
			m.make(a.In(w), s, m.byRaw)
		})
	}
}

// outfit is the mesh as its attackers hold it.
func (m *mesh) outfit() *attacktest.World {
	return &attacktest.World{Target: id("target"), Claims: claims, SVIDs: m.svids, Bundles: m.bundles, Domain: m.domain}
}

// connect connects to the target and returns what calls a method there, with the
// metadata of forge.
type connect func(own *x509svid.SVID, forge attacktest.Forgery) func(shape) error

func (m *mesh) byGRPC(own *x509svid.SVID, forge attacktest.Forgery) func(shape) error {
	cc := m.attack(own, forge)
	return func(s shape) error { return s.call(deadline(m.t), cc) }
}

func (m *mesh) byRaw(own *x509svid.SVID, forge attacktest.Forgery) func(shape) error {
	raw := m.rawBy(own)
	m.t.Cleanup(func() { _ = raw.Close() })
	return func(s shape) error { return raw.CallForged(s.method, forge) }
}

func (m *mesh) make(a *attacktest.Attempt, s shape, by connect) {
	m.t.Helper()
	defer m.domain.Federate(m.partner)
	signers := a.Signers()
	presenter := m.svid(signers[len(signers)-1])
	call := by(presenter, a.Metadata)
	if a.Forged() {
		m.allowed(call(s), "acme")
	}
	if a.Forging = true; a.By != "" {
		presenter = m.svid(a.By)
		call = by(presenter, a.Metadata)
	}
	if a.Unfederated {
		m.domain.Unfederate("partner.example")
	}
	for range 2 {
		e := m.refused(call(s), a.Want)
		if a.Hop >= 0 && !strings.Contains(e.Detail, fmt.Sprintf("(hop %d)", a.Hop)) {
			m.t.Errorf("detail %q does not name hop %d", e.Detail, a.Hop)
		}
		if c := a.Claims(); a.Hop >= 0 && c != nil && e.Transaction != c.Transaction {
			m.t.Errorf("the event cannot be tied to transaction %q: %+v", c.Transaction, e)
		}
		if e.Proven != (e.Path != nil) || e.Proven != (slices.Contains(policyReasons, a.Want) || a.Want == tenant.WorkloadUnknown && a.Hop >= 0) {
			m.t.Errorf("the event has the wrong word of what is proven: %+v", e)
		}
		if e.Peer != presenter.ID.String() || e.Method != s.method || e.DecisionID == "" || e.Point != audit.Server {
			m.t.Errorf("incomplete event: %+v", e)
		}
	}
}

// policyReasons are those of rows whose chain is good, so that only policy
// refuses it.
var policyReasons = []tenant.Reason{
	tenant.TenantNotBound, tenant.TenantReplaced, tenant.OriginationNotAllowed, tenant.ScopeNotAllowed, tenant.IssuerNotAllowed,
	tenant.SubjectNotAllowed, tenant.ClassificationNotAllowed, tenant.LifetimeNotAllowed, tenant.ElevationNotAllowed, tenant.ScopeMissing,
}

// honest presents what the last workload of the path may.
func (m *mesh) honest(path ...string) attacktest.Forgery {
	for _, name := range path {
		m.svid(name)
	}
	return m.outfit().Honest(path...)
}
