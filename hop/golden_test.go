package hop

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
)

var update = flag.Bool("update", false, "write testdata/calls anew")

// golden is a captured call in testdata/calls: what was verified once must
// verify for ever.
type golden struct {
	Hops      string    `json:"tenantmesh-hops"`
	Certs     string    `json:"tenantmesh-certs,omitempty"`
	Peer      [][]byte  `json:"peer"` // DER, leaf first
	Self      string    `json:"self"`
	Target    string    `json:"target"`
	Binding   []byte    `json:"binding"`
	Authority []byte    `json:"authority"` // DER
	Now       time.Time `json:"now"`
}

func (g *golden) expected() Expected {
	want := Expected{
		Kind:    Call,
		Self:    spiffeid.RequireFromString(g.Self),
		Target:  g.Target,
		Binding: [32]byte(g.Binding),
		Now:     g.Now,
		Bundles: x509bundle.FromX509Authorities(spiffeid.RequireTrustDomainFromString("prod.example"),
			[]*x509.Certificate{must(x509.ParseCertificate(g.Authority))}),
	}
	for _, der := range g.Peer {
		want.Peer = append(want.Peer, must(x509.ParseCertificate(der)))
	}
	return want
}

// goldens returns the calls in testdata/calls by their names.
func goldens(t testing.TB) map[string]*golden {
	t.Helper()
	files, err := filepath.Glob("testdata/calls/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no calls in testdata/calls: %v", err)
	}
	out := map[string]*golden{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		g := new(golden)
		if err := json.Unmarshal(text, g); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		out[strings.TrimSuffix(filepath.Base(f), ".json")] = g
	}
	return out
}

func TestGolden(t *testing.T) {
	if *update {
		writeGoldens(t)
	}
	for name, g := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			chain, err := Verify(Metadata{Hops: g.Hops, Certs: g.Certs}, g.expected())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(goodClaims(), chain.Claims(), equateIDs); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
		})
	}
}

func writeGoldens(t *testing.T) {
	names := []string{"gateway", "orders", "inventory", "stock"}
	keys := []func() crypto.Signer{func() crypto.Signer { return newKey(elliptic.P256()) }, p384, rsa2048}
	for name, call := range map[string]func() []*x509svid.SVID{
		"one-hop":    func() []*x509svid.SVID { return path(names[:2]...) },
		"three-hops": func() []*x509svid.SVID { return path(names...) },
		"all-keys": func() []*x509svid.SVID {
			var out []*x509svid.SVID
			for i, name := range names[:3] {
				out = append(out, root().issueFor(keys[i](), name))
			}
			return append(out, path("stock")...)
		},
		"intermediates": func() []*x509svid.SVID {
			return []*x509svid.SVID{newCA(newCA(root())).issue("gateway"), newCA(root()).issue("orders"), root().issue("inventory")}
		},
	} {
		c := send(t, goodClaims(), call(), nil)
		m := c.metadata(t)
		g := golden{
			Hops: m.Hops, Certs: m.Certs, Self: c.want.Self.String(), Target: c.want.Target, Binding: c.want.Binding[:],
			Authority: root().cert.Raw, Now: noon,
		}
		for _, cert := range c.want.Peer {
			g.Peer = append(g.Peer, cert.Raw)
		}
		text, err := json.MarshalIndent(g, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll("testdata/calls", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/calls/"+name+".json", append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// seeds returns the calls to fuzz with, in a fixed order.
func seeds(f *testing.F) []*golden {
	f.Helper()
	calls := goldens(f)
	var out []*golden
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		out = append(out, calls[name])
	}
	return out
}

// What parses is the canonical encoding of what it parsed to.
func FuzzParseStatement(f *testing.F) {
	statements := vectorStatements(f)
	for _, g := range seeds(f) {
		m := new(pb.HopChain)
		if err := fromText(g.Hops, m); err != nil {
			f.Fatal(err)
		}
		for _, h := range m.Hops {
			statements = append(statements, h.Statement)
		}
	}
	if len(statements) == 0 {
		f.Fatal("no seeds")
	}
	for _, b := range statements {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseStatement(b)
		if err != nil {
			return
		}
		again, err := s.Marshal()
		if err != nil {
			t.Fatalf("parsed and does not marshal: %v", err)
		}
		if string(again) != string(b) {
			t.Fatalf("parsed from\n%x\nand marshals to\n%x", b, again)
		}
	})
}

// What is read by hand is what protobuf-go reads, and of it only what it writes.
func FuzzWire(f *testing.F) {
	added := 0
	for _, g := range append(seeds(f), vectorCalls(f)...) {
		hops, hopsErr := textEncoding.DecodeString(g.Hops)
		certs, certsErr := textEncoding.DecodeString(g.Certs)
		if hopsErr == nil && certsErr == nil {
			f.Add(hops, certs)
			added++
		}
	}
	if added == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, b, certs []byte) {
		want := new(pb.HopChain)
		wantErr := readCanonical(b, want)
		hops, err := parseHops(nil, string(b))
		if (err == nil) != (wantErr == nil) || err == nil && len(hops) != len(want.Hops) {
			t.Fatalf("hops: %v, protobuf-go: %v", err, wantErr)
		}
		for i, h := range want.GetHops() {
			if wantErr != nil {
				break
			}
			got := hops[i].sealed
			same := got.encoded == string(h.Statement) && got.signature == string(h.Signature) && got.size == h.TreeSize &&
				got.index == h.LeafIndex && slices.EqualFunc(got.path, h.InclusionPath, func(a string, b []byte) bool { return a == string(b) })
			if !same {
				t.Fatalf("hop %d: %+v, protobuf-go: %v", i, got, h)
			}
			if _, err := ParseStatement(h.Statement); err == nil && readCanonical(h.Statement, new(pb.Statement)) != nil {
				t.Fatalf("not the canonical encoding of a statement, and it was read: %x", h.Statement)
			}
		}
		chains := new(pb.CertificateChains)
		wantErr = readCanonical(certs, chains)
		got, err := parseChains(string(certs))
		if (err == nil) != (wantErr == nil) || err == nil && len(got) != len(chains.Chains) {
			t.Fatalf("certificates: %v, protobuf-go: %v", err, wantErr)
		}
		for i, c := range got {
			if !slices.EqualFunc(c.ders, chains.Chains[i].Certificates, func(a string, b []byte) bool { return a == string(b) }) {
				t.Fatalf("chain %d is another", i)
			}
		}
	})
}

// Of all metadata, exactly what was captured, or stands in a vector, verifies.
func FuzzVerify(f *testing.F) {
	calls := append(seeds(f), vectorCalls(f)...)
	known := map[Metadata]bool{}
	for i, g := range calls {
		known[Metadata{Hops: g.Hops, Certs: g.Certs}] = true
		hops, err := textEncoding.DecodeString(g.Hops)
		if err != nil {
			continue // a vector that is about this
		}
		if certs, err := textEncoding.DecodeString(g.Certs); err == nil {
			f.Add(i, hops, certs)
		}
	}
	if len(known) == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, i int, hops, certs []byte) {
		if i < 0 || i >= len(calls) {
			return
		}
		m := Metadata{Hops: textEncoding.EncodeToString(hops), Certs: textEncoding.EncodeToString(certs)}
		chain, err := Verify(m, calls[i].expected())
		if err != nil {
			if chain != nil {
				t.Fatal("an error came with a chain")
			}
			return
		}
		if !known[m] {
			t.Fatalf("verified, and is not what was captured:\n%s\n%s", m.Hops, m.Certs)
		}
	})
}
