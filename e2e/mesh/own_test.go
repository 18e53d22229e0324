package mesh_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tenantmesh/tenantmesh/e2e/mesh"
	inventoryv1 "github.com/tenantmesh/tenantmesh/examples/proto/inventory/v1"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// roles are those of this package's tests.
var roles = map[string]mesh.Role{"caller": newCaller}

// caller is the role of docs/mesh.md: it originates and calls a program that
// knows nothing of the mesh.
type caller struct {
	guard     *interceptors.Guard
	inventory inventoryv1.InventoryServiceClient
}

func newCaller(ctx context.Context, env *mesh.Env) (any, error) {
	guard, err := env.Guard(ctx)
	if err != nil {
		return nil, err
	}
	to := env.Peers["inventory"]
	conn, err := grpc.NewClient(to.Addr, guard.DialOptions(svid.Expect(to.ID))...)
	return &caller{guard, inventoryv1.NewInventoryServiceClient(conn)}, err
}

// Stock is what the test asks for, by net/rpc.
func (c *caller) Stock(name string, quantity *uint32) error {
	id, err := tenant.ParseID(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if ctx, err = c.guard.Originate(ctx, &hop.Claims{Tenant: id, Subject: "user:test", Scopes: []string{"orders.read"}}); err != nil {
		return err
	}
	stock, err := c.inventory.GetStock(ctx, &inventoryv1.GetStockRequest{Item: "anvil"}, grpc.WaitForReady(true))
	*quantity = stock.GetQuantity()
	return err
}

const ownPolicy = `
version: 1
trust_domains:
  - name: prod.example
workloads:
  - name: caller
    match: spiffe://prod.example/caller
    tenants: ["*"]
    originate: {scopes: [orders.read]}
    calls: [/inventory.v1.InventoryService/*]
methods:
  - match: /inventory.v1.InventoryService/*
    callers: [caller]
tenants:
  acme: {uid: acme-1}
  globex: {uid: globex-1}
`

// TestOwnProgram runs a program of the examples as a workload, and calls it for
// two tenants, also after it was killed. Another mesh then takes the agent of
// the first for its own.
func TestOwnProgram(t *testing.T) {
	dir, err := os.MkdirTemp("", "own")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // workloads have other uids
		t.Fatal(err)
	}
	program := filepath.Join(dir, "quickstart")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../examples/quickstart").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d := mesh.Description{
		TrustDomains: []mesh.TrustDomain{{Name: "prod.example"}},
		Workloads: []mesh.Workload{
			{Name: "inventory", ID: "spiffe://prod.example/inventory",
				Command: []string{"sh", "-c", "exec " + program + " inventory --until-stdin-closes --listen $MESH_LISTEN --policy $MESH_POLICY"}},
			{Name: "caller", ID: "spiffe://prod.example/caller", Role: "caller"},
		},
		Policy: ownPolicy,
	}
	m := start(t, d, mesh.Options{})
	stock := func(m *mesh.Mesh, tenant string, want uint32) {
		t.Helper()
		var got uint32
		if err := m.Process("caller").Ask(t.Context(), "Stock", tenant, &got); err != nil || got != want {
			t.Errorf("%s has %d, %v, want %d", tenant, got, err, want)
		}
	}
	stock(m, "acme", 12)
	stock(m, "globex", 0)
	p := m.Process("inventory")
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stock(m, "acme", 12)

	if p.Socket() != m.Process("caller").Socket() {
		t.Skip("only root has uids by which an agent tells workloads apart")
	}
	d.TrustDomains[0].Agent = p.Socket()
	stock(start(t, d, mesh.Options{}), "acme", 12)
}
