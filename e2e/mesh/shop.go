package mesh

import (
	_ "embed"
	"time"
)

// ShopPolicy is the policy of [Shop].
//
//go:embed shop.yaml
var ShopPolicy string

// The trust domains of [Shop].
const (
	Prod    = "prod.example"
	Partner = "partner.example"
)

// Shop is the mesh that the harness ships:
//
//	gateway ──────────┐
//	runner-acme ──────┤            ┌─ inventory ─┐
//	runner-globex ────┼─ orders ───┤             ├─ ledger
//	                  │            └─ billing ───┘
//	partner ─ boundary┘                  └─ partner, for acme
//
// The partner is of a trust domain of its own, which is confined to acme, and
// both calls and is called. The boundary originates anew: orders and those
// behind it do not have the partner's bundle, and could not verify its hops.
func Shop(ttl time.Duration) Description {
	tenants := []string{"acme", "globex", "initech"}
	prod := func(path string) string { return "spiffe://" + Prod + "/" + path }
	return Description{
		TrustDomains: []TrustDomain{
			{Name: Prod, TTL: ttl, Federates: []string{Partner}},
			{Name: Partner, TTL: ttl, Federates: []string{Prod}},
		},
		Workloads: []Workload{
			{Name: "ledger", ID: prod("ledger"), Service: "mesh.v1.Ledger"},
			{Name: "partner", ID: "spiffe://" + Partner + "/app", Federates: []string{Prod}, Service: "mesh.v1.Partner",
				Calls: []Call{{To: "boundary"}}, Tenants: []string{"acme"}},
			{Name: "inventory", ID: prod("inventory"), Service: "mesh.v1.Inventory", Calls: []Call{{To: "ledger"}}},
			{Name: "billing", ID: prod("billing"), Federates: []string{Partner}, Service: "mesh.v1.Billing",
				Calls: []Call{{To: "ledger"}, {To: "partner", Tenants: []string{"acme"}}}},
			{Name: "orders", ID: prod("orders"), Service: "mesh.v1.Orders", Calls: []Call{{To: "inventory"}, {To: "billing"}}},
			{Name: "boundary", ID: prod("boundary"), Federates: []string{Partner}, Service: "mesh.v1.Boundary",
				Calls: []Call{{To: "orders"}}, Anew: true},
			{Name: "gateway", ID: prod("gateway"), Calls: []Call{{To: "orders"}}, Tenants: tenants},
			{Name: "runner-acme", ID: prod("tenant/acme/runner"), Calls: []Call{{To: "orders"}}, Tenants: []string{"acme"}},
			{Name: "runner-globex", ID: prod("tenant/globex/runner"), Calls: []Call{{To: "orders"}}, Tenants: []string{"globex"}},
		},
		Policy: ShopPolicy,
	}
}
