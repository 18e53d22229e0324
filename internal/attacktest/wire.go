package attacktest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/protobuf/proto"

	"github.com/tenantmesh/tenantmesh/hop"
	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
)

// Wire is the context of a call as it stands on the wire, and who signed it.
// Its methods change it, with the keys of the signers where those are needed. What
// it makes, it makes by SPEC.md and not by package hop, which refuses to.
type Wire struct {
	Hops  *pb.HopChain
	Certs *pb.CertificateChains
	By    []*x509svid.SVID // the signer of each hop
	// Text changes the values of the metadata; a chain of "-" is left out.
	Text func(hops, certs *string)

	again func() (*Wire, error) // another transaction by the same path
	err   error                 // the first of what could not be made
}

// Send returns what the last workload of the path presents to the target, when
// each has handed a context to the next. A "tts" hands over a grant.
func (w *World) Send(binding [32]byte, method string, path ...string) (*Wire, error) {
	out := &Wire{Hops: new(pb.HopChain), Certs: new(pb.CertificateChains)}
	out.again = func() (*Wire, error) { return w.Send(binding, method, path...) }
	for _, name := range path {
		own := w.SVIDs[name]
		if own == nil {
			return nil, fmt.Errorf("attacktest: no SVID of %q", name)
		}
		out.By = append(out.By, own)
	}
	chain, err := hop.Begin(w.Claims("acme"))
	if err != nil {
		return nil, err
	}
	for i, own := range out.By {
		h := hop.Handover{Kind: hop.Call, Audience: w.Target, Target: method, Binding: binding, Now: time.Now()}
		last := i == len(path)-1
		if !last {
			h.Audience, h.Binding = out.By[i+1].ID.String(), [32]byte{1}
		}
		if path[i] == "tts" {
			h.Kind, h.Target, h.Binding = hop.Grant, "", [32]byte{}
		}
		md, err := chain.Sign(own, h)
		if err != nil {
			return nil, err
		}
		if last {
			return out, out.parse(md)
		}
		if chain, err = hop.Verify(md, hop.Expected{
			Kind: h.Kind, Peer: own.Certificates, Self: out.By[i+1].ID, Target: h.Target, Binding: h.Binding, Bundles: w.Bundles(), Now: h.Now,
		}); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("attacktest: a path of nobody")
}

// parse reads what was sent.
func (w *Wire) parse(md hop.Metadata) error {
	for text, m := range map[string]proto.Message{md.Hops: w.Hops, md.Certs: w.Certs} {
		raw, err := Text.DecodeString(text)
		if err != nil {
			return err
		}
		if err := proto.Unmarshal(raw, m); err != nil {
			return err
		}
	}
	return nil
}

// Values returns the metadata.
func (w *Wire) Values() (map[string]string, error) {
	if w.err != nil {
		return nil, w.err
	}
	text := func(m proto.Message) string { return Text.EncodeToString(encode(m)) }
	hops, certs := text(w.Hops), text(w.Certs)
	if w.Text != nil {
		w.Text(&hops, &certs)
	}
	out := map[string]string{hop.HopsKey: hops, hop.CertsKey: certs}
	if certs == "" {
		delete(out, hop.CertsKey)
	}
	if hops == "-" { // an attack without it
		delete(out, hop.HopsKey)
	}
	return out, nil
}

// fail keeps the first error for Values.
func (w *Wire) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

func encode(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// Clone returns a copy that can be changed by itself.
func (w *Wire) Clone() *Wire {
	c := *w
	c.Hops, c.Certs, c.By = proto.CloneOf(w.Hops), proto.CloneOf(w.Certs), slices.Clone(w.By)
	return &c
}

func (w *Wire) last() int { return len(w.Hops.Hops) - 1 }

// edit changes statement i and nothing else: no signature, and no prev.
func (w *Wire) edit(i int, f func(*pb.Statement)) {
	s := new(pb.Statement)
	if err := proto.Unmarshal(w.Hops.Hops[i].Statement, s); err != nil {
		panic(err)
	}
	f(s)
	w.Hops.Hops[i].Statement = encode(s)
}

// relink sets prev of the hops after i.
func (w *Wire) relink(i int) {
	for i++; i <= w.last(); i++ {
		prev := sha256.Sum256(w.Hops.Hops[i-1].Statement)
		w.edit(i, func(s *pb.Statement) { s.Prev = prev[:] })
	}
}

// seal signs hop i and those after it, which refer to it: what their signers
// can do together.
func (w *Wire) seal(i int) {
	w.relink(i)
	for ; i <= w.last(); i++ {
		w.sign(i, signed)
	}
}

// Change changes statement i, and seals.
func (w *Wire) Change(i int, f func(*pb.Statement)) {
	w.edit(i, f)
	w.seal(i)
}

// changeRaw changes the bytes of the last statement, and signs them.
func (w *Wire) changeRaw(f func([]byte) []byte) {
	h := w.Hops.Hops[w.last()]
	h.Statement = f(bytes.Clone(h.Statement))
	w.sign(w.last(), signed)
}

// Replace makes hop i be signed with another SVID, and seals.
func (w *Wire) Replace(i int, own *x509svid.SVID) {
	w.By[i] = own
	if i < len(w.Certs.Chains) {
		w.Certs.Chains[i] = certificateChain(own.Certificates)
	}
	sum := sha256.Sum256(own.Certificates[0].Raw)
	w.Change(i, func(s *pb.Statement) { s.X5TS256 = sum[:] })
}

func certificateChain(certs []*x509.Certificate) *pb.CertificateChain {
	m := new(pb.CertificateChain)
	for _, c := range certs {
		m.Certificates = append(m.Certificates, c.Raw)
	}
	return m
}

// Garble makes all signatures garbage, so that only what comes before
// cryptography can still be the reason.
func (w *Wire) Garble() {
	for _, h := range w.Hops.Hops {
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
func (w *Wire) sign(i int, message func(statement []byte) []byte) {
	h := w.Hops.Hops[i]
	h.Signature = make([]byte, 64)
	key, ok := w.By[i].PrivateKey.(*ecdsa.PrivateKey)
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
