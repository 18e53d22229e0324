package policy

import (
	"encoding/json"
	"testing"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
)

// vectorPolicies returns the distinct policies of conformance/vectors.
func vectorPolicies(t testing.TB) (out [][]byte) {
	t.Helper()
	seen := map[string]bool{"": true}
	for _, file := range []string{"chains.json", "claims.json"} {
		list, err := vectors.Read("../conformance/vectors/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range list {
			var in struct{ Policy string }
			if err := json.Unmarshal(v.Input, &in); err != nil {
				t.Fatal(err)
			}
			if !seen[in.Policy] {
				seen[in.Policy] = true
				out = append(out, []byte(in.Policy))
			}
		}
	}
	if len(out) == 0 {
		t.Fatal("no vector has a policy")
	}
	return out
}
