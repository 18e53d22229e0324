package hop

import (
	"testing"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// M1: the reason does not depend on the order in which a map is walked.
func TestAmbiguityCountsFirst(t *testing.T) {
	for range 64 {
		_, err := ParseMetadata(map[string][]string{HopsKey: {""}, CertsKey + "-bin": {"AA"}})
		if tenant.ReasonOf(err) != tenant.MetadataAmbiguous {
			t.Fatal(err)
		}
	}
}

// What ParseMetadata returns is exactly what stands under the two keys, and
// nothing like them stands beside.
func FuzzParseMetadata(f *testing.F) {
	for _, v := range vectorInputs[struct{ Headers [][2]vectors.Text }](f, "metadata.json") {
		h := append(v.Headers, [2]vectors.Text{}, [2]vectors.Text{})
		f.Add(string(h[0][0]), string(h[0][1]), string(h[1][0]), string(h[1][1]))
	}
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		headers := map[string][]string{name1: {value1}}
		headers[name2] = append(headers[name2], value2)
		m, err := ParseMetadata(headers)
		if again, err2 := ParseMetadata(headers); again != m || tenant.ReasonOf(err2) != tenant.ReasonOf(err) {
			t.Fatalf("%v, %v, and then %v, %v", m, err, again, err2)
		}
		if err != nil {
			switch r := tenant.ReasonOf(err); r {
			case tenant.MetadataAmbiguous, tenant.MetadataTooLarge, tenant.ContextMalformed:
			default:
				t.Fatalf("refused for %q: %v", r, err)
			}
			if m != (Metadata{}) {
				t.Fatal("an error came with metadata")
			}
			return
		}
		want := map[string]string{HopsKey: m.Hops, CertsKey: m.Certs}
		for name, values := range headers {
			switch read, ok := want[name]; {
			case !ok && IsMetadataKey(name):
				t.Fatalf("%q was passed over", name)
			case ok && (len(values) != 1 || values[0] != read || read == ""):
				t.Fatalf("%q is %q, and %q was read", name, values, read)
			}
		}
		if len(m.Hops)+len(m.Certs) > MaxMetadata {
			t.Fatal("over budget")
		}
	})
}
