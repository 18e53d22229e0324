package policy_test

import (
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/tenant"
)

func ExamplePolicy_Authorize() {
	pol, err := policy.LoadFile("testdata/design.yaml")
	if err != nil {
		fmt.Println(err)
		return
	}
	acme, err := tenant.ParseID("acme")
	if err != nil {
		fmt.Println(err)
		return
	}
	uid, _ := pol.TenantUID(acme)
	now := time.Now()
	call := policy.Call{
		Method: "/inventory.v1.Inventory/Get",
		Path: []spiffeid.ID{
			spiffeid.RequireFromString("spiffe://prod.example/gateway"),
			spiffeid.RequireFromString("spiffe://prod.example/orders"),
		},
		Claims: &hop.Claims{
			Tenant: acme, TenantUID: uid, Subject: "ann", Issuer: "https://login.example",
			Scopes: []string{"orders.read"}, IssuedAt: now, Expires: now.Add(time.Minute),
		},
		Scopes: []string{"orders.read"},
	}
	a, err := pol.Authorize(call)
	fmt.Println(a.Workloads, err)

	// The peer is the same, but a runner of another tenant was on the way.
	call.Path[0] = spiffeid.RequireFromString("spiffe://prod.example/tenant/globex/runner/1")
	_, err = pol.Authorize(call)
	fmt.Println(err)
	// Output:
	// [gateway orders] <nil>
	// tenantmesh: TENANT_NOT_BOUND (hop 0): workload "tenant-runner" is not bound to the tenant
}

func ExampleParse() {
	_, err := policy.Parse("tenantmesh.yaml", []byte(`version: 1
trust_domains: [{name: prod.example}]
workloads:
  - name: pay
    match: spiffe://prod.example/service/*
  - name: payroll
    mach: spiffe://prod.example/service/payroll
methods: []
tenants: {}
`))
	fmt.Println(err)
	// Output:
	// tenantmesh.yaml:6:5: a workload needs the key "match"
	// tenantmesh.yaml:7:5: unknown key "mach" in a workload: did you mean "match"?
}
