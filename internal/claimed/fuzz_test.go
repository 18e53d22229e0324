package claimed_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tenantmesh/tenantmesh/internal/claimed"
	"github.com/tenantmesh/tenantmesh/internal/vectors"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// What is said to be asserted is a tenant that a header names, and another than
// the verified one.
func FuzzTenants(f *testing.F) {
	seeds := 0
	for _, file := range []string{"metadata.json", "chains.json"} {
		list, err := vectors.Inputs[struct{ Headers [][2]vectors.Text }]("../../conformance/vectors/" + file)
		if err != nil {
			f.Fatal(err)
		}
		for _, v := range list {
			for _, h := range v.Headers {
				seeds++
				f.Add(string(h[0]), string(h[1]), "acme")
			}
		}
	}
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, name, value, verified string) {
		plain, _ := claimed.Plain(name)
		if strings.Contains(plain, "_") || plain != strings.ToLower(plain) {
			t.Fatalf("%q is plainly %q", name, plain)
		}
		if again, gateway := claimed.Plain(plain); gateway || again != strings.TrimSuffix(plain, "-bin") {
			t.Fatalf("%q is plainly %q, and that %q", name, plain, again)
		}
		got := claimed.Tenants(map[string][]string{name: {value}}, verified)
		if (got != "") != (claimed.Names(name) && value != verified) {
			t.Fatalf("%q of %q, where %q is verified, asserts %q", value, name, verified, got)
		}
		if _, err := tenant.ParseID(value); err == nil && !slices.Contains([]string{"", value}, got) || err != nil && !slices.Contains([]string{"", "(not a tenant ID)"}, got) {
			t.Fatalf("%q asserts %q", value, got)
		}
	})
}
