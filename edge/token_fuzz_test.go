package edge

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// What a token is taken apart into is what stands in it, and no reader of JSON
// reads other claims from it.
func FuzzDecode(f *testing.F) {
	list, err := vectors.Inputs[struct{ Token vectors.Text }]("../conformance/vectors/tokens.json") // fails if it is empty
	if err != nil {
		f.Fatal(err)
	}
	const limit = 16 << 10
	for _, in := range list {
		if len(in.Token) <= 2*limit {
			f.Add(string(in.Token))
		}
	}
	f.Fuzz(func(t *testing.T, token string) {
		header, payload, err := decode(token, limit)
		if err != nil {
			switch r := tenant.ReasonOf(err); r {
			case tenant.TokenMissing, tenant.TokenTooLarge, tenant.TokenMalformed:
			default:
				t.Fatalf("refused for %q: %v", r, err)
			}
			if header != nil || payload != nil {
				t.Fatal("an error came with parts")
			}
			return
		}
		enc := base64.RawURLEncoding
		if !strings.HasPrefix(token, enc.EncodeToString(header)+"."+enc.EncodeToString(payload)+".") || len(token) > limit {
			t.Fatalf("%q has other parts", token)
		}
		m, err := parseObject(payload, maxItems, claimNames...)
		if err != nil {
			if m != nil || tenant.ReasonOf(err) != tenant.TokenMalformed {
				t.Fatalf("%v, %v", m, err)
			}
			return
		}
		var lax map[string]json.RawMessage
		if err := json.Unmarshal(payload, &lax); err != nil || len(lax) != len(m) {
			t.Fatalf("%q: %d members, and by encoding/json %d: %v", payload, len(m), len(lax), err)
		}
		for name := range m {
			if slices.ContainsFunc(claimNames, func(n string) bool { return n != name && strings.EqualFold(n, name) }) {
				t.Fatalf("%q is a member of %q", name, payload)
			}
		}
		// The keys are chosen by what is read before the payload is parsed strictly.
		before, err1 := peekIssuer(payload)
		after, err2 := m.text("iss")
		if err1 == nil && err2 == nil && before != after {
			t.Fatalf("%q is by %q, and then by %q", payload, before, after)
		}
	})
}
