package edge_test

import (
	"encoding/json"
	"testing"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
)

// vectorTokens returns the tokens of conformance/vectors.
func vectorTokens(t testing.TB) (out []string) {
	t.Helper()
	list, err := vectors.Read("../conformance/vectors/tokens.json") // fails if it is empty
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list {
		var in struct{ Token vectors.Text }
		if err := json.Unmarshal(v.Input, &in); err != nil {
			t.Fatal(err)
		}
		out = append(out, string(in.Token))
	}
	return out
}
