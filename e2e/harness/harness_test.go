package main

import (
	"os"
	"testing"

	"github.com/tenantmesh/tenantmesh/e2e/mesh"
)

func TestMain(m *testing.M) {
	mesh.Main(roles)
	os.Exit(m.Run())
}

// TestMesh runs what only a whole mesh can show, each in a mesh of its own. make
// e2e runs all there is.
func TestMesh(t *testing.T) {
	for name, only := range map[string]string{
		"H4 boundary":   "^load calm$",
		"I4 federation": "^fault federation cut$",
		"I5 rotation":   "^fault root rotated$",
		"S3 streams":    "^streams",
		"kills":         "^load while",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &config{calls: 2000, kills: 2, streams: 300, only: only}
			report, err := c.run(t.Context(), newPrinter(os.Stderr))
			if err != nil {
				t.Fatal(err)
			}
			if passed, failed := report.Count(); failed > 0 || passed < 2 {
				t.Errorf("%d passed, %d failed", passed, failed)
			}
		})
	}
}
