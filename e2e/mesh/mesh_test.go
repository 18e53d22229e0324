package mesh_test

import (
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/tenantmesh/tenantmesh/data/rls"
	"github.com/tenantmesh/tenantmesh/e2e/mesh"
	"github.com/tenantmesh/tenantmesh/internal/pgtest"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/tenant"
)

func TestMain(m *testing.M) {
	mesh.Main(roles) // the processes of workloads are this program, too
	os.Exit(pgtest.Run(m))
}

// start starts a mesh that ends with the test.
func start(t *testing.T, d mesh.Description, opts mesh.Options) *mesh.Mesh {
	t.Helper()
	opts.Log = t.Logf
	m, err := mesh.Start(t.Context(), d, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// TestShop has all who originate call through the mesh, on the machine's
// network and on the loopback.
func TestShop(t *testing.T) {
	for name, loopback := range map[string]bool{"namespaces": false, "loopback": true} {
		t.Run(name, func(t *testing.T) {
			m := start(t, mesh.Shop(time.Minute), mesh.Options{Loopback: loopback})
			load, err := m.StartLoad(t.Context(), mesh.Load{Name: "all", By: map[string]mesh.Generate{
				"gateway": {Calls: 400, Depth: 2}, "runner-acme": {Calls: 100, Depth: 2},
				"runner-globex": {Calls: 100, Depth: 2}, "partner": {Calls: 200, Depth: 3},
			}})
			if err != nil {
				t.Fatal(err)
			}
			got, err := load.Wait()
			if err != nil || !got.Passed() || got.Calls != 800 {
				t.Errorf("%v: %+v", err, got)
			}
			for _, s := range mesh.Shapes {
				if got.Latency[s] == nil {
					t.Errorf("no call was %s", s)
				}
			}
		})
	}
}

// TestDatabase has orders keep its records in PostgreSQL, where nothing but the
// proven tenant tells one from another.
func TestDatabase(t *testing.T) {
	db := pgtest.New(t)
	key, err := rls.NewKey("k1")
	if err != nil {
		t.Fatal(err)
	}
	install, err := fs.ReadFile(rls.Migrations(), "0001_tenantmesh.sql")
	if err != nil {
		t.Fatal(err)
	}
	db.Exec(t, pgtest.Owner, string(install), key.InsertSQL(),
		"CREATE TABLE records (tenant_id text, tenant_uid text, workload text, record text NOT NULL, PRIMARY KEY (tenant_uid, workload))",
		rls.Schema{}.EnableSQL("public", "records", "text"), "GRANT SELECT ON records TO app", "REVOKE TEMPORARY ON DATABASE "+db.Name+" FROM PUBLIC")
	d := mesh.Shop(time.Minute)
	for i := range d.Workloads {
		if d.Workloads[i].Name == "orders" {
			d.Workloads[i].Database = &mesh.Database{DSN: db.DSN(pgtest.App), Key: key.Text()}
		}
	}
	m := start(t, d, mesh.Options{})
	pol, err := policy.Parse("shop.yaml", []byte(mesh.ShopPolicy))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"acme", "globex", "initech"} {
		id, err := tenant.ParseID(name)
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := pol.TenantUID(id)
		db.Exec(t, pgtest.Superuser, fmt.Sprintf("INSERT INTO records VALUES ('%s', '%s', 'orders', '%s')", name, uid, m.Record("orders", name)))
	}
	load, err := m.StartLoad(t.Context(), mesh.Load{Name: "rows", By: map[string]mesh.Generate{
		"gateway": {Calls: 300, Depth: 2}, "runner-acme": {Calls: 100, Depth: 1}, "runner-globex": {Calls: 100, Depth: 1},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := load.Wait(); err != nil || !got.Passed() || got.Calls != 500 {
		t.Errorf("%v: %+v", err, got)
	}
}

// TestAdd adds one with the SVID of another, which the policy does not take for
// anyone else.
func TestAdd(t *testing.T) {
	m := start(t, mesh.Shop(time.Minute), mesh.Options{})
	p, err := m.Add(t.Context(), mesh.Workload{Name: "second", As: "gateway", Calls: []mesh.Call{{To: "orders"}, {To: "ledger"}}, Tenants: []string{"acme"}})
	if err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]string{"orders": "", "ledger": "PermissionDenied CALL_NOT_ALLOWED"} {
		var got string
		if err := p.Ask(t.Context(), "One", mesh.Generate{To: to}, &got); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", to, got, err, want)
		}
	}
	events, err := p.Trail(t.Context(), 0)
	if err != nil || len(events.Events) != 1 || events.Events[0].Reason != tenant.CallNotAllowed {
		t.Errorf("%+v, %v", events, err)
	}
	h, err := m.Process("orders").Handled(t.Context())
	if want := "one acme spiffe://prod.example/gateway"; err != nil || h.Runs != 1 || h.Last[0] != want {
		t.Errorf("%+v, %v", h, err)
	}
}
