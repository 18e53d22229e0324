package interceptors_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"math/big"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/protobuf/proto"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
)

// wire is the context of a call as it stands on the wire, and who signed it.
// Its methods change it, with the keys of the signers where those are needed. What
// it makes, it makes by SPEC.md and not by package hop, which refuses to.
type wire struct {
	hops  *pb.HopChain
	certs *pb.CertificateChains
	by    []*x509svid.SVID // the signer of each hop
	text  func(hops, certs *string)
	again func() (*wire, error) // another transaction by the same path
}

// send returns what the last workload of the path presents to the target, when
// each has handed a context to the next. A "tts" hands over a grant.
func (m *mesh) send(binding [32]byte, method string, path []string) (*wire, error) {
	w := &wire{hops: new(pb.HopChain), certs: new(pb.CertificateChains)}
	w.again = func() (*wire, error) { return m.send(binding, method, path) }
	chain, err := hop.Begin(claims("acme"))
	if err != nil {
		return nil, err
	}
	for i, name := range path {
		own := m.svids[name]
		w.by = append(w.by, own)
		h := hop.Handover{Kind: hop.Call, Audience: id("target"), Target: method, Binding: binding, Now: time.Now()}
		last := i == len(path)-1
		if !last {
			h.Audience, h.Binding = m.svids[path[i+1]].ID.String(), [32]byte{1}
		}
		if name == "tts" {
			h.Kind, h.Target, h.Binding = hop.Grant, "", [32]byte{}
		}
		md, err := chain.Sign(own, h)
		if err != nil {
			return nil, err
		}
		if last {
			return w, w.parse(md)
		}
		if chain, err = hop.Verify(md, hop.Expected{
			Kind: h.Kind, Peer: own.Certificates, Self: m.svids[path[i+1]].ID, Target: h.Target, Binding: h.Binding, Bundles: m.bundles(), Now: h.Now,
		}); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// parse reads what was sent.
func (w *wire) parse(md hop.Metadata) error {
	for text, m := range map[string]proto.Message{md.Hops: w.hops, md.Certs: w.certs} {
		raw, err := attacktest.Text.DecodeString(text)
		if err != nil {
			return err
		}
		if err := proto.Unmarshal(raw, m); err != nil {
			return err
		}
	}
	return nil
}

// values returns the metadata.
func (w *wire) values() map[string]string {
	text := func(m proto.Message) string { return attacktest.Text.EncodeToString(encode(m)) }
	hops, certs := text(w.hops), text(w.certs)
	if w.text != nil {
		w.text(&hops, &certs)
	}
	out := map[string]string{hop.HopsKey: hops, hop.CertsKey: certs}
	if certs == "" {
		delete(out, hop.CertsKey)
	}
	if hops == "-" { // an attack without it
		delete(out, hop.HopsKey)
	}
	return out
}

func encode(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// clone returns a copy that can be changed by itself.
func (w *wire) clone() *wire {
	c := *w
	c.hops, c.certs, c.by = proto.CloneOf(w.hops), proto.CloneOf(w.certs), slices.Clone(w.by)
	return &c
}

func (w *wire) last() int { return len(w.hops.Hops) - 1 }

// edit changes statement i and nothing else: no signature, and no prev.
func (w *wire) edit(i int, f func(*pb.Statement)) {
	s := new(pb.Statement)
	if err := proto.Unmarshal(w.hops.Hops[i].Statement, s); err != nil {
		panic(err)
	}
	f(s)
	w.hops.Hops[i].Statement = encode(s)
}

// relink sets prev of the hops after i.
func (w *wire) relink(i int) {
	for i++; i <= w.last(); i++ {
		prev := sha256.Sum256(w.hops.Hops[i-1].Statement)
		w.edit(i, func(s *pb.Statement) { s.Prev = prev[:] })
	}
}

// seal signs hop i and those after it, which refer to it: what their signers
// can do together.
func (w *wire) seal(i int) {
	w.relink(i)
	for ; i <= w.last(); i++ {
		w.sign(i, signed)
	}
}

// change changes statement i, and seals.
func (w *wire) change(i int, f func(*pb.Statement)) {
	w.edit(i, f)
	w.seal(i)
}

// changeRaw changes the bytes of the last statement, and signs them.
func (w *wire) changeRaw(f func([]byte) []byte) {
	h := w.hops.Hops[w.last()]
	h.Statement = f(bytes.Clone(h.Statement))
	w.sign(w.last(), signed)
}

// replace makes hop i be signed with another SVID, and seals.
func (w *wire) replace(i int, own *x509svid.SVID) {
	w.by[i] = own
	if i < len(w.certs.Chains) {
		w.certs.Chains[i] = certificateChain(own.Certificates)
	}
	sum := sha256.Sum256(own.Certificates[0].Raw)
	w.change(i, func(s *pb.Statement) { s.X5TS256 = sum[:] })
}

func certificateChain(certs []*x509.Certificate) *pb.CertificateChain {
	m := new(pb.CertificateChain)
	for _, c := range certs {
		m.Certificates = append(m.Certificates, c.Raw)
	}
	return m
}

// garble makes all signatures garbage, so that only what comes before
// cryptography can still be the reason.
func (w *wire) garble() {
	for _, h := range w.hops.Hops {
		h.Signature = bytes.Repeat([]byte{0x5a}, 64)
	}
}

// The prefixes of SPEC.md, section 5.
const callPrefix, messagePrefix, grantPrefix = "tenantmesh-v1-call\x00", "tenantmesh-v1-message\x00", "tenantmesh-v1-grant\x00"

// signed returns what is signed of a statement (SPEC.md, section 5).
func signed(statement []byte) []byte { return signedAs(callPrefix, 0, statement) }

// signedAs is signed under another prefix, or as another node of the tree.
func signedAs(prefix string, node byte, statement []byte) []byte {
	root := sha256.Sum256(append([]byte{node}, statement...))
	return append(binary.BigEndian.AppendUint32([]byte(prefix), 1), root[:]...)
}

// sign signs hop i over the message that is made of its statement, for a key on
// P-256; another key leaves garbage.
func (w *wire) sign(i int, message func(statement []byte) []byte) {
	h := w.hops.Hops[i]
	h.Signature = make([]byte, 64)
	key, ok := w.by[i].PrivateKey.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return
	}
	digest := sha256.Sum256(message(h.Statement))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		panic(err)
	}
	if n := key.Params().N; new(big.Int).Lsh(s, 1).Cmp(n) > 0 {
		s.Sub(n, s)
	}
	r.FillBytes(h.Signature[:32])
	s.FillBytes(h.Signature[32:])
}

// honest presents what the last workload of the path may.
func (m *mesh) honest(path ...string) forgery {
	for _, name := range path {
		m.svid(name)
	}
	return m.forged(path, func(*mesh, *wire) {})
}

// forged presents what do makes of what the last workload of the path may
// present. All of the path have an SVID already.
func (m *mesh) forged(path []string, do func(*mesh, *wire)) forgery {
	return func(binding [32]byte, method string) (map[string]string, error) {
		w, err := m.send(binding, method, path)
		if err != nil {
			return nil, err
		}
		do(m, w)
		return w.values(), nil
	}
}
