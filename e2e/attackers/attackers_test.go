package attackers_test

import (
	"os"
	"testing"
	"time"

	"github.com/tenantmesh/tenantmesh/e2e/attackers"
	"github.com/tenantmesh/tenantmesh/e2e/mesh"
)

func TestMain(m *testing.M) {
	mesh.Main(attackers.Roles) // the processes of workloads are this program, too
	os.Exit(m.Run())
}

// TestRun makes all attacks on the shop.
func TestRun(t *testing.T) {
	m, err := mesh.Start(t.Context(), attackers.Join(mesh.Shop(2*time.Minute)), mesh.Options{Log: t.Logf, SPIRE: os.Getenv("SPIRE_BIN_DIR")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	results, err := attackers.Run(t.Context(), m, func(r mesh.AttackResult) {
		if !r.Passed {
			t.Errorf("%s %s: %+v", r.Line, r.Name, r)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if len(results) < 500 {
		t.Errorf("only %d attacks were made", len(results))
	}
}
