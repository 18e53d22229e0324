package main

import (
	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
)

// policyText is the policy of vectors that have one.
const policyText = `version: 1
trust_domains:
  - name: prod.example
  - name: partner.example
    tenants: [globex]
workloads:
  - name: gateway
    match: spiffe://prod.example/gateway
    tenants: [acme]
    originate: {issuers: ["https://login.example"], scopes: [orders.*], subjects: ["alice", "svc-*"], classification: 2, max_ttl: 5m}
    calls: [/orders.v1.Service/*]
  - name: runner
    match: spiffe://prod.example/tenant/{tenant}/runner/*
    tenants: ["{tenant}"]
    originate: {scopes: [orders.read], classification: 2}
    calls: [/orders.v1.Service/Do]
  - name: partner
    match: spiffe://partner.example/gateway
    tenants: ["*"]
    originate: {scopes: [orders.read], classification: 2}
    calls: [/orders.v1.Service/Do]
  - name: orders
    match: spiffe://prod.example/orders
    tenants: ["*"]
    calls: [/inventory.v1.Service/*]
  - name: billing
    match: spiffe://prod.example/billing
    tenants: [globex]
    calls: [/inventory.v1.Service/*]
  - name: pay
    match: spiffe://prod.example/service/pay
    tenants: [acme]
    originate: {scopes: [orders.read], classification: 2}
    calls: [/inventory.v1.Service/*]
  - name: dotted
    match: spiffe://prod.example/a.b
    tenants: [acme]
    calls: [/inventory.v1.Service/*]
  - name: quarantine
    match: spiffe://prod.example/tenant/*/runner/old-*
    deny: true
methods:
  - match: /orders.v1.Service/*
    callers: [gateway, runner, partner]
  - match: /inventory.v1.Service/*
    callers: [orders, billing, dotted]
  - match: /inventory.v1.Service/Drop
    scopes: [orders.drop]
  - match: /inventory.v1.Service/Audit
    callers: [billing]
tenants:
  acme: {uid: 01J9ZK3V5Q8W7RBNXH2C4D6E8F}
  globex: {uid: 01JA2M4N6P8R0T2V4X6Z8B0D2F}
`

// policyClaims are what the policy's gateway may originate.
func policyClaims() *pb.Claims {
	c := someClaims()
	c.Scope = []string{"orders.read", "orders.write"}
	return c
}

// claimed changes the claims.
func claimed(f func(*pb.Claims)) func(*call) {
	return changed(0, func(s *pb.Statement) { f(s.Claims) })
}

// elsewhere has the last hop made for, and the call arrive at, another method.
func elsewhere(method string) func(*call) {
	return func(c *call) {
		c.input["method"] = method
		c.change(c.last(), func(s *pb.Statement) { s.Target = method })
	}
}

// by has hop i signed by a workload that it was handed to.
func by(i int, path string) func(*call) {
	return func(c *call) {
		who := root().issue(path)
		if i > 0 {
			c.edit(i-1, func(s *pb.Statement) { s.Aud = who.id })
			c.seal(i - 1)
		}
		c.replace(i, who)
	}
}

func partnerOriginates(c *call) {
	c.input["bundles"] = bundles(root(), partner())
	c.edit(0, func(s *pb.Statement) { s.Claims.Iss, s.Claims.Scope = "", []string{"orders.read"} })
	c.replace(0, partner().issue("/gateway"))
}

// policies: who may act for which tenant, and call what.
var policies = []chain{
	{"I3", "A federated trust domain within its tenants.", "policy", func(c *call) {
		partnerOriginates(c)
		c.change(0, func(s *pb.Statement) {
			s.Claims.Tctx.Tenant, s.Claims.Tctx.TenantUid = "globex", "01JA2M4N6P8R0T2V4X6Z8B0D2F"
		})
	}, "", -1},
	{"H4", "A workload on the path that may not act for the tenant, though the peer may.", "policy-runner", by(0, "/tenant/globex/runner/7"), "TENANT_NOT_BOUND", 0},
	{"H4", "The peer may not act for the tenant.", "policy", by(1, "/billing"), "TENANT_NOT_BOUND", 1},
	{"H4", "A first signer that may only forward.", "policy", by(0, "/orders"), "ORIGINATION_NOT_ALLOWED", 0},
	{"H4", "A first signer that no entry matches.", "policy", by(0, "/mallory"), "WORKLOAD_UNKNOWN", 0},
	{"H4", "A first signer that is denied.", "policy-runner", by(0, "/tenant/acme/runner/old-7"), "WORKLOAD_DENIED", 0},
	{"H4", "A federated trust domain outside its tenants.", "policy", partnerOriginates, "TENANT_NOT_BOUND", 0},
	{"H4", "A tenant that the originator is not bound to.", "policy", claimed(func(c *pb.Claims) {
		c.Tctx.Tenant, c.Tctx.TenantUid = "globex", "01JA2M4N6P8R0T2V4X6Z8B0D2F"
	}), "TENANT_NOT_BOUND", 0},
	{"H4", "A tenant that is not listed looks like one that is not bound.", "policy", claimed(func(c *pb.Claims) { c.Tctx.Tenant = "initech" }), "TENANT_NOT_BOUND", 0},
	{"H4", "A tenant that was deleted and created again.", "policy", claimed(func(c *pb.Claims) { c.Tctx.TenantUid = "01J90000000000000000000000" }), "TENANT_REPLACED", 0},
	{"H4", "The peer may not call the method.", "policy", elsewhere("/inventory.v1.Service/Audit"), "CALLER_NOT_ALLOWED", -1},
	{"H3", "A scope that was narrowed upstream is required downstream.", "policy", func(c *call) {
		c.edit(0, func(s *pb.Statement) {
			s.Claims.Scope = []string{"orders.drop", "orders.read"}
			s.Narrowing = narrowing([]string{"orders.read"}, nil)
		})
		c.seal(0)
		elsewhere("/inventory.v1.Service/Drop")(c)
	}, "SCOPE_MISSING", -1},
	{"H3", "A scope that the claims never held is required.", "policy", elsewhere("/inventory.v1.Service/Drop"), "SCOPE_MISSING", -1},

	{"I3", "/service/pay does not match /service/payroll.", "policy-runner", by(0, "/service/payroll"), "WORKLOAD_UNKNOWN", 0},
	{"I3", "/service/pay does not match /service.", "policy-runner", by(0, "/service"), "WORKLOAD_UNKNOWN", 0},
	{"I3", "/service/pay does not match what is below it.", "policy-runner", by(0, "/service/pay/admin"), "WORKLOAD_UNKNOWN", 0},
	{"I3", "/service/pay does not match /x/service/pay.", "policy-runner", by(0, "/x/service/pay"), "WORKLOAD_UNKNOWN", 0},
	{"I3", "A dot is a dot.", "policy", by(1, "/axb"), "WORKLOAD_UNKNOWN", -1},
	{"I3", "A star is one segment.", "policy-runner", by(0, "/tenant/acme/runner/7/8"), "WORKLOAD_UNKNOWN", 0},
	{"I3", "The same path in another trust domain.", "policy", func(c *call) {
		who := partner().issue("/orders")
		c.input["bundles"] = bundles(root(), partner())
		c.edit(0, func(s *pb.Statement) { s.Aud = who.id })
		c.seal(0)
		c.replace(1, who)
	}, "WORKLOAD_UNKNOWN", -1},
	{"I3", "A path in another case.", "policy", by(0, "/Gateway"), "WORKLOAD_UNKNOWN", 0},
	{"I7", "Three dots are a segment like another, and no way up.", "policy-runner", by(0, "/tenant/globex/.../acme/runner/7"), "WORKLOAD_UNKNOWN", 0},
	{"I7", "A tenant that is no tenant ID.", "policy-runner", by(0, "/tenant/ACME/runner/7"), "WORKLOAD_UNKNOWN", 0},
	{"I7", "The tenant in another place of the path.", "policy-runner", by(0, "/runner/acme/tenant/7"), "WORKLOAD_UNKNOWN", 0},

	{"M4", "The path without its slash.", "policy", set("method", "inventory.v1.Service/Do"), "METHOD_NOT_COVERED", -1},
	{"M4", "The path with two slashes before it.", "policy", set("method", "//inventory.v1.Service/Do"), "METHOD_NOT_COVERED", -1},
	{"M4", "The path with two slashes inside.", "policy", set("method", "/inventory.v1.Service//Do"), "METHOD_NOT_COVERED", -1},
	{"M4", "The path with %2F.", "policy", set("method", "/inventory.v1.Service%2FDo"), "METHOD_NOT_COVERED", -1},
	{"M4", "The path with a fragment.", "policy", set("method", "/inventory.v1.Service/Do#x"), "METHOD_NOT_COVERED", -1},
	{"M4", "The path with a query.", "policy", set("method", "/inventory.v1.Service/Do?x=1"), "METHOD_NOT_COVERED", -1},
	{"M4", "The path with a trailing slash.", "policy", set("method", "/inventory.v1.Service/Do/"), "METHOD_NOT_COVERED", -1},
	{"M4", "The path in upper case.", "policy", set("method", "/INVENTORY.V1.SERVICE/Do"), "METHOD_NOT_COVERED", -1},
	{"M5", "A service that no rule covers.", "policy", elsewhere("/stock.v1.Service/Do"), "METHOD_NOT_COVERED", -1},
	{"M5", "A service of which a rule covers one with a longer name.", "policy", elsewhere("/inventory.v1.Servic/Do"), "METHOD_NOT_COVERED", -1},
	{"M5", "A service whose name begins like one that is covered.", "policy", elsewhere("/inventory.v1.Service2/Do"), "METHOD_NOT_COVERED", -1},
	{"M5", "Health, which is listed nowhere.", "policy", elsewhere("/grpc.health.v1.Health/Check"), "METHOD_NOT_COVERED", -1},
	{"M5", "Reflection, which is listed nowhere.", "policy", elsewhere("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"), "METHOD_NOT_COVERED", -1},
}
