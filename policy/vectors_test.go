package policy

import (
	"encoding/json"
	"testing"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
)

// vectorPolicies returns the distinct policies of conformance/vectors.
func vectorPolicies(t testing.TB) (out [][]byte) {
	t.Helper()
	seen := map[string]bool{}
	for _, file := range []string{"chains.json", "claims.json", "policy.json"} {
		list, err := vectors.Read("../conformance/vectors/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range list {
			var in struct{ Policy json.RawMessage }
			if err := json.Unmarshal(v.Input, &in); err != nil {
				t.Fatal(err)
			}
			var doc string
			if json.Unmarshal(in.Policy, &doc) != nil { // an object stands for its encoding
				doc = string(in.Policy) + "\n"
			}
			if in.Policy != nil && !seen[doc] {
				seen[doc] = true
				out = append(out, []byte(doc))
			}
		}
	}
	if len(out) < 20 {
		t.Fatalf("the vectors have %d policies", len(out))
	}
	return out
}
