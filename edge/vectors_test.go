package edge_test

import (
	"testing"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
)

// vectorTokens returns the tokens of conformance/vectors.
func vectorTokens(t testing.TB) (out []string) {
	t.Helper()
	list, err := vectors.Inputs[struct{ Token vectors.Text }]("../conformance/vectors/tokens.json") // fails if it is empty
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range list {
		out = append(out, string(in.Token))
	}
	return out
}
