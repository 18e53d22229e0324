package mesh_test

import (
	"os"
	"testing"
	"time"

	"github.com/tenantmesh/tenantmesh/e2e/mesh"
	"github.com/tenantmesh/tenantmesh/tenant"
)

func TestMain(m *testing.M) {
	mesh.Main() // the processes of workloads are this program, too
	os.Exit(m.Run())
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
