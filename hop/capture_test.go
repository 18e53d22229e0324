package hop

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/protobuf/proto"

	"github.com/tenantmesh/tenantmesh/internal/leaf"
	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// root is the CA that all tests trust.
var root = sync.OnceValue(func() *ca { return newCA(nil) })

// canary stands in every claim but the tenant. It is nowhere else, so no error and no log may show it.
const canary = "canary"

// goodClaims has every claim.
func goodClaims() *Claims {
	return &Claims{
		Transaction:    "tx-" + canary,
		Tenant:         must(tenant.ParseID("acme")),
		TenantUID:      "uid-" + canary,
		Subject:        "alice-" + canary,
		Issuer:         "https://login.example/" + canary,
		Scopes:         []string{"orders.read", "orders.write", "stock." + canary},
		Classification: 2,
		Attributes:     map[string]string{"cost-center": canary, canary: "", "region": "eu"},
		Request:        map[string]string{"ip": "192.0.2.1 " + canary},
		IssuedAt:       noon,
		Expires:        noon.Add(5 * time.Minute),
		Parent:         &Parent{Transaction: "parent-" + canary, Statement: sha256.Sum256([]byte("parent"))},
		Elevation:      "elevation-" + canary,
	}
}

// path returns an SVID for each name, the same one for the same name.
func path(names ...string) []*x509svid.SVID {
	var svids []*x509svid.SVID
	known := map[string]*x509svid.SVID{}
	for _, name := range names {
		if known[name] == nil {
			known[name] = root().issue(name)
		}
		svids = append(svids, known[name])
	}
	return svids
}

func methodOf(callee *x509svid.SVID) string {
	return "/" + strings.TrimPrefix(callee.ID.Path(), "/") + ".v1.Service/Do"
}

// capture is a call as a wire tap has it, and what the receiver expects of it.
// Its methods change it, with the keys of the signers where those are needed.
type capture struct {
	hops  *pb.HopChain
	certs *pb.CertificateChains
	by    []*x509svid.SVID // the signer of each hop
	want  Expected
	text  func(*Metadata) // changes the metadata values, if set
	// warm remembers what was verified of the capture before, with a generation for
	// each of the bundles.
	warm        Cache
	generations []x509bundle.Source
}

// send hands the claims from each workload of the path to the next, all of
// them at noon. The last one gets what was captured.
func send(t testing.TB, claims *Claims, path []*x509svid.SVID, change func(i int, h *Handover)) *capture {
	t.Helper()
	chain, err := Begin(claims)
	if err != nil {
		t.Fatalf("Begin: %v", err)
	}
	for i := 0; ; i++ {
		signer, callee := path[i], path[i+1]
		to := Handover{
			Kind:     Call,
			Audience: callee.ID.String(),
			Target:   methodOf(callee),
			Binding:  sha256.Sum256([]byte{byte(i)}),
			Now:      noon,
		}
		if change != nil {
			change(i, &to)
		}
		m, err := chain.Sign(signer, to)
		if err != nil {
			t.Fatalf("Sign hop %d: %v", i, err)
		}
		want := Expected{
			Kind:    to.Kind,
			Peer:    signer.Certificates,
			Self:    callee.ID,
			Target:  to.Target,
			Binding: to.Binding,
			Bundles: root().bundles(),
			Now:     noon,
		}
		if i == len(path)-2 {
			c := &capture{hops: new(pb.HopChain), certs: new(pb.CertificateChains), by: path[:i+1], want: want}
			if err := fromText(m.Hops, c.hops); err != nil {
				t.Fatalf("hops: %v", err)
			}
			if err := fromText(m.Certs, c.certs); err != nil {
				t.Fatalf("certs: %v", err)
			}
			// So that attacks on it meet a cache that knows what they are made of.
			if _, err := c.verify(t); err != nil {
				t.Fatalf("Verify: %v", err)
			}
			return c
		}
		if chain, err = Verify(m, want); err != nil {
			t.Fatalf("Verify hop %d: %v", i, err)
		}
	}
}

// metadata returns the capture as it is on the wire.
func (c *capture) metadata(t testing.TB) Metadata {
	t.Helper()
	m := Metadata{Hops: toText(c.hops), Certs: toText(c.certs)}
	if c.text != nil {
		c.text(&m)
	}
	return m
}

// verify verifies without a cache, and with one. H9: the answers are the same.
func (c *capture) verify(t testing.TB) (*Chain, error) {
	t.Helper()
	chain, cold := Verify(c.metadata(t), c.want)
	want := c.want
	want.Cache = &c.warm
	if want.Generation = uint64(slices.Index(c.generations, want.Bundles) + 1); want.Generation == 0 {
		c.generations = append(c.generations, want.Bundles)
		want.Generation = uint64(len(c.generations))
	}
	for range 2 {
		again, warm := Verify(c.metadata(t), want)
		if fmt.Sprint(cold) != fmt.Sprint(warm) {
			t.Errorf("H9 with a cache: %v, without one: %v", warm, cold)
		}
		if diff := cmp.Diff(chain, again, cmp.Comparer(sameChain)); diff != "" {
			t.Errorf("H9 with a cache another chain is verified: %s", diff)
		}
	}
	return chain, cold
}

// sameChain reports whether two chains say and allow the same.
func sameChain(a, b *Chain) bool {
	if a == nil || b == nil {
		return a == b
	}
	return cmp.Equal(a.Claims(), b.Claims(), equateIDs) && slices.Equal(a.Scopes(), b.Scopes()) && slices.Equal(a.Path(), b.Path()) &&
		a.Until().Equal(b.Until()) && a.sent == b.sent && a.certs() == b.certs() && *a.Origin() == *b.Origin()
}

// last returns the index of the last hop.
func (c *capture) last() int { return len(c.hops.Hops) - 1 }

func (c *capture) statement(i int) *pb.Statement {
	s := new(pb.Statement)
	if err := proto.Unmarshal(c.hops.Hops[i].Statement, s); err != nil {
		panic(err)
	}
	return s
}

// edit changes statement i and nothing else: no signature, and no prev.
func (c *capture) edit(i int, f func(*pb.Statement)) {
	s := c.statement(i)
	f(s)
	c.hops.Hops[i].Statement = canonical(s)
}

// sign signs statement i anew, with the key of its signer.
func (c *capture) sign(i int) {
	h := c.hops.Hops[i]
	s := new(pb.Statement)
	_ = proto.Unmarshal(h.Statement, s) // attacks have statements that are none
	signature, err := sign(c.by[i].PrivateKey, signedAlone(Kind(s.Kind), h.Statement))
	if err != nil { // attacks have keys that cannot sign
		signature = make([]byte, 64)
	}
	h.Signature = signature
}

// grow signs hop i with the key of another as a leaf of a tree of a kind.
func (c *capture) grow(i, by int, kind Kind, index, size int) {
	h := c.hops.Hops[i]
	statements := make([]string, size)
	for j := range statements {
		statements[j] = fmt.Sprintf("statement %d of hop %d", j, i)
	}
	statements[index] = string(h.Statement)
	b, hops := planted(statements)
	h.TreeSize, h.LeafIndex, h.InclusionPath = uint32(size), uint32(index), nil
	for _, sibling := range hops[index].path {
		h.InclusionPath = append(h.InclusionPath, []byte(sibling))
	}
	h.Signature = must(sign(c.by[by].PrivateKey, signedBytes(kind, h.TreeSize, b.tree.root())))
}

// relink sets prev of the hops after i.
func (c *capture) relink(i int) {
	for i++; i < len(c.hops.Hops); i++ {
		prev := sha256.Sum256(c.hops.Hops[i-1].Statement)
		c.edit(i, func(s *pb.Statement) { s.Prev = prev[:] })
	}
}

// seal signs hop i and those after it, which refer to it: what the workloads
// from i on can do together.
func (c *capture) seal(i int) {
	c.relink(i)
	for ; i < len(c.hops.Hops); i++ {
		c.sign(i)
	}
}

// change changes statement i, and seals.
func (c *capture) change(i int, f func(*pb.Statement)) {
	c.edit(i, f)
	c.seal(i)
}

// changeRaw changes the bytes of statement i, and seals.
func (c *capture) changeRaw(i int, f func([]byte) []byte) {
	c.hops.Hops[i].Statement = f(bytes.Clone(c.hops.Hops[i].Statement))
	c.seal(i)
}

// replace makes hop i be signed with another SVID.
func (c *capture) replace(i int, svid *x509svid.SVID) {
	c.by = append([]*x509svid.SVID(nil), c.by...)
	c.by[i] = svid
	if i == c.last() {
		c.want.Peer = svid.Certificates
	} else {
		c.certs.Chains[i] = certificateChain(svid.Certificates)
	}
	c.change(i, func(s *pb.Statement) {
		sum := leaf.Thumbprint(svid.Certificates[0])
		s.X5TS256 = sum[:]
	})
}

func certificateChain(certs []*x509.Certificate) *pb.CertificateChain {
	m := new(pb.CertificateChain)
	for _, c := range certs {
		m.Certificates = append(m.Certificates, c.Raw)
	}
	return m
}

// The reference for what wire.go does by hand: protobuf-go, in the encoding that
// SPEC.md, section 4, calls canonical.

func canonical(m proto.Message) []byte {
	return must(proto.MarshalOptions{Deterministic: true}.Marshal(m))
}

// readCanonical fails for bytes that are not the canonical encoding of what they hold.
func readCanonical(b []byte, m proto.Message) error {
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return err
	}
	if !bytes.Equal(canonical(m), b) {
		return errors.New("not canonical")
	}
	return nil
}

func toText(m proto.Message) string { return textEncoding.EncodeToString(canonical(m)) }

func fromText(text string, m proto.Message) error {
	b, err := textEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	return readCanonical(b, m)
}

// signedAlone returns what is signed for a tree of one.
func signedAlone(kind Kind, statement []byte) []byte {
	return signedBytes(kind, 1, sha256.Sum256(append([]byte{0}, statement...)))
}

// batches returns n calls over so many hops that differ in their last, whose
// statements were signed size at a time.
func batches(t testing.TB, depth, size, n int) (calls []Metadata, want Expected) {
	t.Helper()
	p := path(names[:depth+1]...)
	chain, err := Begin(goodClaims())
	if depth > 1 {
		chain, err = send(t, goodClaims(), p[:depth], nil).verify(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, callee := p[depth-1], p[depth]
	to := Handover{Kind: Call, Audience: callee.ID.String(), Target: methodOf(callee), Binding: [32]byte{1}, Now: noon}
	for len(calls) < n {
		b := new(batch)
		var hops []*sealed
		for range min(size, n-len(calls)) {
			h := &sealed{encoded: string(must(must((&Signer{SVID: signer}).next(chain, to)).Marshal()))}
			hops = append(hops, h)
			b.leaves = append(b.leaves, leafHash(h.encoded))
		}
		if b.sign(signer.PrivateKey, Call); b.err != nil {
			t.Fatal(b.err)
		}
		for i, h := range hops {
			b.seal(h, i)
			calls = append(calls, chain.encode(h))
		}
	}
	return calls, Expected{
		Kind: Call, Peer: signer.Certificates, Self: callee.ID, Target: to.Target, Binding: to.Binding, Bundles: root().bundles(), Now: noon,
	}
}
