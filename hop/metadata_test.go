package hop

import (
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
	"github.com/tenantmesh/tenantmesh/tenant"
)

func TestParseMetadata(t *testing.T) {
	const budget = 7 << 10 // SPEC.md's
	x := func(n int) []string { return []string{strings.Repeat("x", n)} }
	for _, tt := range []struct {
		name    string
		headers map[string][]string
		want    Metadata
		reason  tenant.Reason
	}{
		{"neither", map[string][]string{"baggage": {"a", "b"}, "tenantmesh": {"c"}, "tenantmesh-hops-x": {"d"}}, Metadata{}, ""},
		{"hops", map[string][]string{"tenantmesh-hops": {"A"}, "other": {""}}, Metadata{Hops: "A"}, ""},
		{"certificates", map[string][]string{"tenantmesh-certs": {"B"}}, Metadata{Certs: "B"}, ""},
		{"both", map[string][]string{"tenantmesh-hops": {"A"}, "tenantmesh-certs": {"B"}}, Metadata{Hops: "A", Certs: "B"}, ""},
		{"as much as the budget", map[string][]string{"tenantmesh-hops": x(budget - 1), "tenantmesh-certs": x(1)}, Metadata{Hops: x(budget - 1)[0], Certs: "x"}, ""},
		{"H8 a byte more", map[string][]string{"tenantmesh-hops": x(budget), "tenantmesh-certs": x(1)}, Metadata{}, tenant.MetadataTooLarge},
		{"M1 hops without a value", map[string][]string{"tenantmesh-hops": {}}, Metadata{}, tenant.MetadataAmbiguous},
		{"M1 hops twice", map[string][]string{"tenantmesh-hops": {"A", "A"}}, Metadata{}, tenant.MetadataAmbiguous},
		{"M1 certificates twice", map[string][]string{"tenantmesh-hops": {"A"}, "tenantmesh-certs": {"B", "B"}}, Metadata{}, tenant.MetadataAmbiguous},
		{"M1 joined", map[string][]string{"tenantmesh-hops": {"A,A"}}, Metadata{}, tenant.MetadataAmbiguous},
		{"M1 a twin", map[string][]string{"tenantmesh-hops": {"A"}, "tenantmesh-hops-bin": {"A"}}, Metadata{}, tenant.MetadataAmbiguous},
		{"M1 a twin alone", map[string][]string{"tenantmesh-certs-bin": {"A"}}, Metadata{}, tenant.MetadataAmbiguous},
		{"M1 another spelling", map[string][]string{"tenantmesh_hops": {"A"}}, Metadata{}, tenant.MetadataAmbiguous},
		{"M1 by way of a gateway", map[string][]string{"grpcgateway-tenantmesh-certs": {"A"}}, Metadata{}, tenant.MetadataAmbiguous},
		{"H7 empty hops", map[string][]string{"tenantmesh-hops": {""}}, Metadata{}, tenant.ContextMalformed},
		{"H7 empty certificates", map[string][]string{"tenantmesh-hops": {"A"}, "tenantmesh-certs": {""}}, Metadata{}, tenant.ContextMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := ParseMetadata(tt.headers)
			if m != tt.want || tenant.ReasonOf(err) != tt.reason || (err == nil) != (tt.reason == "") {
				t.Errorf("%+v, %v; want %+v, %q", m, err, tt.want, tt.reason)
			}
		})
	}
}

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

// HPACK's encoders send a value as it stands unless Huffman's code makes it shorter.
func TestTextIsNotHuffmanCoded(t *testing.T) {
	for name, g := range goldens(t) {
		for _, text := range []string{g.Hops, g.Certs} {
			if coded := hpack.HuffmanEncodeLength(text); coded < uint64(len(text)) {
				t.Errorf("%s: %d bytes of text would be sent as %d", name, len(text), coded)
			}
		}
	}
}
