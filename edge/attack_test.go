package edge_test

import (
	"testing"
	"time"

	"github.com/tenantmesh/tenantmesh/edge"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// mesh is the world of the attacks: two issuers, one of them with a limited
// set of tenants.
func mesh(t testing.TB) (*world, *issuer, *issuer) {
	one, two := newIssuer(t), newIssuer(t)
	attacktest.PublishForAttacks(one, two)
	acme, _ := tenant.ParseID("acme")
	w := newWorld(t, edge.Config{
		Issuers: []edge.Issuer{
			{URL: one.URL, Audience: audience},
			{URL: two.URL, Audience: audience, Tenants: []tenant.ID{acme}, Type: "JWT"},
		},
		Leeway: 10 * time.Second,
	})
	return w, one, two
}
