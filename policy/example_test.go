package policy_test

import (
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/tenant"
)

func ExamplePolicy_Decide() {
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
		Path: []hop.Step{
			{Signer: spiffeid.RequireFromString("spiffe://prod.example/gateway"), Target: "/orders.v1.Orders/List"},
			{Signer: spiffeid.RequireFromString("spiffe://prod.example/orders"), Target: "/inventory.v1.Inventory/Get"},
		},
		Claims: &hop.Claims{
			Tenant: acme, TenantUID: uid, Subject: "ann", Issuer: "https://login.example",
			Scopes: []string{"orders.read"}, IssuedAt: now, Expires: now.Add(time.Minute),
		},
		Scopes: []string{"orders.read"},
	}
	d := pol.Decide(&call)
	fmt.Println(d.Workloads(), d.Err())

	// The peer is the same, but a runner of another tenant was on the way.
	call.Path[0].Signer = spiffeid.RequireFromString("spiffe://prod.example/tenant/globex/runner/1")
	d = pol.Decide(&call)
	fmt.Print(d.Explain())
	// Output:
	// [gateway orders] <nil>
	// denied     decide /inventory.v1.Inventory/Get
	// reason     TENANT_NOT_BOUND
	// missing    workload "tenant-runner" is not bound to the tenant
	// rule       testdata/design.yaml:12
	// hop 0      spiffe://prod.example/tenant/globex/runner/1 as "tenant-runner" by testdata/design.yaml:12  ← at fault
	// hop 1      spiffe://prod.example/orders as "orders" by testdata/design.yaml:17
	// passed     policy, method, path, callers, calls
	// failed     bindings
	// rules      testdata/design.yaml:12
	// policy     sha256:c9cb98160bb7da0bec5601b3d6fbce84fc2b120bf946ef61e6efcc4d62107205
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
