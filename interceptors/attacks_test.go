package interceptors_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// attack is a context that must be refused, presented over mTLS by a workload
// with a valid SVID.
type attack struct {
	name string
	// path names who signs the call that the attack starts from. The last
	// presents it, and it is allowed, unless the path itself is the attack.
	path string
	by   string                 // who presents the forgery instead, on a connection of its own
	old  bool                   // the very call that was allowed is forged, not one like it
	do   func(m *mesh, w *wire) // the forgery; nil: the path itself, or who presents it
	want tenant.Reason
	hop  int // the one at fault; -1 if none is
}

// TestChainAttacks makes each attack by gRPC and by raw HTTP/2, on a connection on
// which an honest call was allowed before, and twice: what was verified before
// changes no answer (H9).
func TestChainAttacks(t *testing.T) {
	m := newMesh(t)
	for _, a := range slices.Concat(h1, h2, h3, h4, h5, h6(), h7, h8, h9, h11, t9, i3, others) {
		for _, name := range strings.Fields(a.path + " " + a.by) {
			m.svid(name)
		}
		m.each(a.name, func(m *mesh, s shape) {
			a.run(m, s, m.byGRPC)
			a.run(m, s, m.byRaw)
		})
	}
}

// connect connects to the target and returns what calls a method there, with the
// metadata of forge.
type connect func(own *x509svid.SVID, forge forgery) func(shape) error

func (m *mesh) byGRPC(own *x509svid.SVID, forge forgery) func(shape) error {
	cc := m.attack(own, forge)
	return func(s shape) error { return s.call(deadline(m.t), cc) }
}

func (m *mesh) byRaw(own *x509svid.SVID, forge forgery) func(shape) error {
	raw := m.rawBy(own)
	m.t.Cleanup(func() { _ = raw.Close() })
	return func(s shape) error {
		binding, err := raw.Binding()
		if err != nil {
			return err
		}
		md, err := forge(binding, s.method)
		if err != nil {
			return err
		}
		var fields []string
		for key, value := range md {
			fields = append(fields, key, value)
		}
		return raw.Call(s.method, fields...)
	}
}

func (a attack) run(m *mesh, s shape, by connect) {
	m.t.Helper()
	defer m.domain.Federate(m.partner)
	path := strings.Fields(a.path)
	forging := false
	var honest, forged *wire
	forge := func(binding [32]byte, method string) (map[string]string, error) {
		if forged != nil {
			return forged.values(), nil
		}
		w, err := m.send(binding, method, path)
		if err != nil {
			return nil, err
		}
		if !forging {
			honest = w
			return w.values(), nil
		}
		if a.old {
			w = honest.clone()
		}
		if a.do != nil {
			a.do(m, w)
		}
		forged = w
		return w.values(), nil
	}
	presenter := m.svid(path[len(path)-1])
	call := by(presenter, forge)
	if a.do != nil || a.by != "" {
		m.allowed(call(s), "acme")
	}
	if forging = true; a.by != "" {
		presenter = m.svid(a.by)
		call = by(presenter, forge)
	}
	for range 2 {
		e := m.refused(call(s), a.want)
		if a.hop >= 0 && !strings.Contains(e.Detail, fmt.Sprintf("(hop %d)", a.hop)) {
			m.t.Errorf("detail %q does not name hop %d", e.Detail, a.hop)
		}
		if c := hop.UnverifiedClaims(hop.Metadata{Hops: forged.values()[hop.HopsKey]}); a.hop >= 0 && c != nil && e.Transaction != c.Transaction {
			m.t.Errorf("the event cannot be tied to transaction %q: %+v", c.Transaction, e)
		}
		if e.Proven != (e.Path != nil) || e.Proven != (slices.Contains(policyReasons, a.want) || a.want == tenant.WorkloadUnknown && a.hop >= 0) {
			m.t.Errorf("the event has the wrong word of what is proven: %+v", e)
		}
		if e.Peer != presenter.ID.String() || e.Method != s.method || e.DecisionID == "" || e.Point != audit.Server {
			m.t.Errorf("incomplete event: %+v", e)
		}
	}
}

// policyReasons are those of rows whose chain is good, so that only policy
// refuses it.
var policyReasons = []tenant.Reason{
	tenant.TenantNotBound, tenant.TenantReplaced, tenant.OriginationNotAllowed, tenant.ScopeNotAllowed, tenant.IssuerNotAllowed,
	tenant.SubjectNotAllowed, tenant.ClassificationNotAllowed, tenant.LifetimeNotAllowed, tenant.ElevationNotAllowed, tenant.ScopeMissing,
}

// Forgeries.

// statement changes statement i with the keys of all who signed since.
func statement(i int, f func(*pb.Statement)) func(*mesh, *wire) {
	return func(_ *mesh, w *wire) { w.change(i, f) }
}

// claim changes the claims with the keys of all signers.
func claim(f func(*pb.Claims)) func(*mesh, *wire) {
	return statement(0, func(s *pb.Statement) { f(s.Claims) })
}

// exchange changes the claims with the keys of all signers but the first.
func exchange(f func(*pb.Claims)) func(*mesh, *wire) {
	return func(_ *mesh, w *wire) {
		signature := w.hops.Hops[0].Signature
		w.change(0, func(s *pb.Statement) { f(s.Claims) })
		w.hops.Hops[0].Signature = signature
	}
}

func edited(f func(w *wire)) func(*mesh, *wire) { return func(_ *mesh, w *wire) { f(w) } }

// cheaply is edited with garbage for signatures: what it does is found before
// cryptography.
func cheaply(f func(w *wire)) func(*mesh, *wire) {
	return func(_ *mesh, w *wire) { f(w); w.garble() }
}

// value changes the values of the metadata.
func value(f func(hops, certs *string)) func(*mesh, *wire) {
	return func(_ *mesh, w *wire) { w.text = f }
}

func asGrant(s *pb.Statement) { s.Kind, s.Target, s.Binding = pb.Kind_KIND_GRANT, "", nil }

func scopes(values ...string) *pb.Narrowing {
	return &pb.Narrowing{Scope: &pb.ScopeSet{Values: values}}
}

func methods(values ...string) *pb.Narrowing {
	return &pb.Narrowing{Methods: &pb.MethodSet{Values: values}}
}

const otherMethod = grpc_testing.TestService_EmptyCall_FullMethodName

// handed is what most attacks start from, and long what needs three hops.
const handed, long = "gateway orders", "gateway orders stock"

var h1 = []attack{
	{name: "H1 a captured context replayed by another workload", path: "gateway", by: "intruder", old: true, want: tenant.SignerNotPeer, hop: 0},
	{name: "H1 a captured chain replayed by another workload", path: handed, by: "intruder", old: true, want: tenant.SignerNotPeer, hop: 1},
	{name: "H1 a context signed for another workload's connection", path: handed, by: "intruder", want: tenant.SignerNotPeer, hop: 1},
	{name: "H1 a context handed to B and forwarded by C", path: handed, by: "intruder",
		do: func(m *mesh, w *wire) { w.replace(1, m.svids["intruder"]) }, want: tenant.AudienceMismatch, hop: 0},
	{name: "H1 a hop moved to another connection", path: "gateway", by: "gateway", old: true, want: tenant.ChannelMismatch, hop: 0},
	{name: "H1 a chain moved to another connection", path: handed, by: "orders", old: true, want: tenant.ChannelMismatch, hop: 1},
	{name: "H1 a hop moved to another method", path: handed,
		do: statement(1, func(s *pb.Statement) { s.Target = otherMethod }), want: tenant.TargetMismatch, hop: 1},
	{name: "H1 a hop moved to another callee", path: handed,
		do: statement(1, func(s *pb.Statement) { s.Aud = id("stock") }), want: tenant.AudienceMismatch, hop: 1},
	{name: "H1 a grant used by another than its aud", path: "tts gateway", by: "intruder",
		do: func(m *mesh, w *wire) { w.replace(1, m.svids["intruder"]) }, want: tenant.AudienceMismatch, hop: 0},
	{name: "H1 a grant at index 1", path: long, do: statement(1, asGrant), want: tenant.KindMismatch, hop: 1},
	{name: "H1 a grant presented as a call", path: "gateway", do: statement(0, asGrant), want: tenant.KindMismatch, hop: 0},
}

var h2 = []attack{
	{name: "H2 the first hop removed", path: long, do: edited(func(w *wire) {
		w.hops.Hops, w.certs.Chains = w.hops.Hops[1:], w.certs.Chains[1:]
	}), want: tenant.ChainBroken, hop: 0},
	{name: "H2 a middle hop removed", path: long, do: edited(func(w *wire) {
		w.hops.Hops, w.certs.Chains = slices.Delete(w.hops.Hops, 1, 2), w.certs.Chains[:1]
	}), want: tenant.ChainBroken, hop: 1},
	{name: "H2 a middle hop removed by the last signer", path: long, do: edited(func(w *wire) {
		w.hops.Hops, w.by, w.certs.Chains = slices.Delete(w.hops.Hops, 1, 2), slices.Delete(w.by, 1, 2), w.certs.Chains[:1]
		w.edit(1, func(s *pb.Statement) { s.Index = 1 })
		w.relink(0)
		w.sign(1, signed)
	}), want: tenant.AudienceMismatch, hop: 0},
	{name: "H2 the last hop removed", path: long, do: edited(func(w *wire) {
		w.hops.Hops, w.certs.Chains = w.hops.Hops[:2], w.certs.Chains[:1]
	}), want: tenant.SignerNotPeer, hop: 1},
	{name: "H2 all hops removed", path: long, do: edited(func(w *wire) { w.hops.Hops, w.certs.Chains = nil, nil }), want: tenant.ContextMalformed, hop: -1},
	{name: "H2 a hop inserted", path: long, do: edited(func(w *wire) {
		w.hops.Hops = slices.Insert(w.hops.Hops, 1, proto.CloneOf(w.hops.Hops[2]))
	}), want: tenant.ChainBroken, hop: 1},
	{name: "H2 a hop inserted by its signer and the one after", path: long, do: func(m *mesh, w *wire) {
		w.hops.Hops, w.by = slices.Insert(w.hops.Hops, 2, proto.CloneOf(w.hops.Hops[1])), slices.Insert(w.by, 2, w.by[1])
		w.certs.Chains = append(w.certs.Chains, nil)
		w.edit(2, func(s *pb.Statement) { s.Index, s.Jti = 2, make([]byte, 16) })
		w.edit(3, func(s *pb.Statement) { s.Index = 3 })
		w.relink(1)
		w.replace(2, m.svid("intruder"))
	}, want: tenant.AudienceMismatch, hop: 1},
	{name: "H2 hops reordered", path: long, do: edited(func(w *wire) { slices.Reverse(w.hops.Hops[:2]) }), want: tenant.ChainBroken, hop: 0},
	{name: "H2 the first hop duplicated", path: long, do: edited(func(w *wire) {
		w.hops.Hops = slices.Insert(w.hops.Hops, 1, w.hops.Hops[0])
	}), want: tenant.ChainBroken, hop: 1},
	{name: "H2 the last hop duplicated", path: long, do: edited(func(w *wire) {
		w.hops.Hops = append(w.hops.Hops, w.hops.Hops[2])
	}), want: tenant.ChainBroken, hop: 3},
	{name: "H2 a jti repeated", path: handed, do: edited(func(w *wire) {
		var jti []byte
		w.edit(0, func(s *pb.Statement) { jti = s.Jti })
		w.change(1, func(s *pb.Statement) { s.Jti = jti })
	}), want: tenant.TokenIDRepeated, hop: 1},
	{name: "H2 a hop spliced from another transaction", path: long, do: spliced(2), want: tenant.ChainBroken, hop: 2},
	{name: "H2 the first hop spliced from another transaction", path: long, do: spliced(0), want: tenant.ChainBroken, hop: 1},
	{name: "H2 the claims exchanged", path: handed, do: edited(func(w *wire) {
		w.edit(0, func(s *pb.Statement) { s.Claims.Tctx.Tenant = "globex" })
	}), want: tenant.ChainBroken, hop: 1},
	{name: "H2 the claims exchanged, and all signed again but the first", path: handed,
		do: exchange(func(c *pb.Claims) { c.Txn = "txn-2" }), want: tenant.SignatureInvalid, hop: 0},
	{name: "H2 a message presented as a call", path: handed,
		do: statement(1, func(s *pb.Statement) { s.Kind = pb.Kind_KIND_MESSAGE }), want: tenant.KindMismatch, hop: 1},
	{name: "H2 a call after a message", path: handed,
		do: statement(0, func(s *pb.Statement) { s.Kind = pb.Kind_KIND_MESSAGE }), want: tenant.KindMismatch, hop: 0},
}

// spliced puts hop i of another transaction into the chain.
func spliced(i int) func(*mesh, *wire) {
	return func(m *mesh, w *wire) {
		other, err := w.again()
		if err != nil {
			m.t.Error(err)
			return
		}
		w.hops.Hops[i] = other.hops.Hops[i]
	}
}

var h3 = []attack{
	{name: "H3 the tenant changed along the chain", path: handed,
		do: exchange(func(c *pb.Claims) { c.Tctx.Tenant, c.Tctx.TenantUid = "globex", "globex-uid-1" }), want: tenant.SignatureInvalid, hop: 0},
	{name: "H3 the subject changed along the chain", path: handed,
		do: exchange(func(c *pb.Claims) { c.Sub = "user-2" }), want: tenant.SignatureInvalid, hop: 0},
	{name: "H3 a scope added along the chain", path: handed,
		do: exchange(func(c *pb.Claims) { c.Scope = []string{"orders.read", "orders.write"} }), want: tenant.SignatureInvalid, hop: 0},
	{name: "H3 claims of another tenant at a later hop", path: handed, do: edited(func(w *wire) {
		var c *pb.Claims
		w.edit(0, func(s *pb.Statement) { c = s.Claims })
		c.Tctx.Tenant = "globex"
		w.change(1, func(s *pb.Statement) { s.Claims = c })
	}), want: tenant.ChainBroken, hop: 1},
	{name: "H3 a scope that the claims do not hold", path: handed,
		do: statement(1, func(s *pb.Statement) { s.Narrowing = scopes("orders.read", "orders.write") }), want: tenant.ScopeWidened, hop: 1},
	{name: "H3 a scope narrowed away upstream and held downstream", path: handed, do: edited(func(w *wire) {
		w.edit(1, func(s *pb.Statement) { s.Narrowing = scopes("orders.read") })
		w.change(0, func(s *pb.Statement) { s.Narrowing = scopes() })
	}), want: tenant.ScopeWidened, hop: 1},
	{name: "H3 a scope narrowed away upstream and used downstream", path: handed,
		do: statement(0, func(s *pb.Statement) { s.Narrowing = scopes() }), want: tenant.ScopeMissing, hop: -1},
	{name: "H3 a method narrowed away upstream and called downstream", path: handed,
		do: statement(0, func(s *pb.Statement) { s.Narrowing = methods(otherMethod) }), want: tenant.MethodNarrowed, hop: 1},
	{name: "H3 all methods narrowed away", path: handed,
		do: statement(0, func(s *pb.Statement) { s.Narrowing = methods() }), want: tenant.MethodNarrowed, hop: 1},
	{name: "H3 a method narrowed away and allowed again", path: long, do: edited(func(w *wire) {
		var target string
		w.edit(2, func(s *pb.Statement) { target = s.Target })
		w.edit(0, func(s *pb.Statement) { s.Narrowing = methods(target) })
		w.edit(1, func(s *pb.Statement) { s.Target, s.Narrowing = target, methods(otherMethod) })
		w.seal(0)
	}), want: tenant.ScopeWidened, hop: 1},
}

var h4 = []attack{
	{name: "H4 the last signer is not the TLS peer", path: handed, by: "gateway", want: tenant.SignerNotPeer, hop: 1},
	{name: "H4 the last hop names the TLS peer and another signed it", path: handed, do: edited(func(w *wire) {
		w.by[1] = w.by[0]
		w.sign(1, signed)
	}), want: tenant.SignatureInvalid, hop: 1},
	{name: "H4 a workload on the path that may not act for the tenant", path: "gateway intruder orders", want: tenant.TenantNotBound, hop: 1},
	{name: "H4 a first signer that may only forward", path: "orders", want: tenant.OriginationNotAllowed, hop: 0},
	{name: "H4 a peer that is bound to another tenant", path: "reports", want: tenant.TenantNotBound, hop: 0},
	{name: "H4 a federated domain outside its tenants", path: partnerApp,
		do: claim(func(c *pb.Claims) { c.Tctx.Tenant, c.Tctx.TenantUid = "globex", "globex-uid-1" }), want: tenant.TenantNotBound, hop: 0},
}

const partnerApp = "spiffe://partner.example/app"

// after is now and d, as a statement has it.
func after(d time.Duration) uint64 { return uint64(time.Now().Add(d).Unix()) }

// expiring changes the exp of statement i and of those after it.
func expiring(i int, d time.Duration) func(*mesh, *wire) {
	return func(_ *mesh, w *wire) {
		for j := i; j <= w.last(); j++ {
			w.edit(j, func(s *pb.Statement) { s.Exp = after(d) })
		}
		w.seal(i)
	}
}

// issued changes the iat of statement i.
func issued(i int, d time.Duration) func(*mesh, *wire) {
	return statement(i, func(s *pb.Statement) { s.Iat = after(d) })
}

// certified gives hop i another certificate of its signer.
func certified(i int, options ...devdomain.LeafOption) func(*mesh, *wire) {
	return func(m *mesh, w *wire) { w.replace(i, m.issue(strings.TrimPrefix(w.by[i].ID.Path(), "/"), options...)) }
}

func valid(from, to time.Duration) devdomain.LeafOption {
	return devdomain.ValidFrom(time.Now().Add(from), time.Now().Add(to))
}

var h5 = []attack{
	{name: "H5 a certificate on the chain that expired", path: handed, do: func(m *mesh, w *wire) {
		certified(0, valid(-time.Hour, -5*time.Second))(m, w)
		w.edit(0, func(s *pb.Statement) { s.Iat, s.Claims.Iat = after(-10*time.Second), after(-10*time.Second) })
		w.edit(1, func(s *pb.Statement) { s.Iat = after(-10 * time.Second) })
		expiring(0, -5*time.Second)(m, w)
	}, want: tenant.ContextExpired, hop: 0},
	{name: "H5 an intermediate on the chain that expired", path: handed,
		do: func(m *mesh, w *wire) { w.replace(0, m.underExpired("gateway")) }, want: tenant.SVIDExpired, hop: 0},
	{name: "H5 a certificate on the chain that is not yet valid", path: handed, do: func(m *mesh, w *wire) {
		certified(0, valid(time.Minute, time.Hour))(m, w)
	}, want: tenant.SVIDExpired, hop: 0},
	{name: "H5 a certificate on the chain of a bundle removed since", path: partnerApp + " orders", do: func(m *mesh, _ *wire) {
		m.domain.Unfederate("partner.example") // until the attack is over
	}, want: tenant.SVIDUntrusted, hop: 0},
	{name: "H5 exp beyond the NotAfter of its signer", path: handed, do: func(m *mesh, w *wire) {
		certified(0, valid(-time.Minute, time.Minute))(m, w)
	}, want: tenant.LifetimeExceeded, hop: 0},
	{name: "H5 exp beyond the claims", path: "gateway", do: expiring(0, 5*time.Minute), want: tenant.LifetimeExceeded, hop: 0},
	{name: "H5 exp beyond the hop before", path: handed, do: expiring(1, 5*time.Minute), want: tenant.LifetimeExceeded, hop: 1},
	{name: "H5 iat before the hop before by more than the skew", path: handed, do: issued(1, -hop.Skew-3*time.Second), want: tenant.TimeReversed, hop: 1},
	{name: "H5 iat before the claims by more than the skew", path: handed, do: issued(0, -hop.Skew-3*time.Second), want: tenant.TimeReversed, hop: 0},
	{name: "H5 a last hop older than its freshness", path: "gateway", do: statement(0, func(s *pb.Statement) {
		s.Claims.Iat, s.Iat = after(-hop.Freshness-2*time.Second), after(-hop.Freshness-2*time.Second)
	}), want: tenant.ContextStale, hop: 0},
	{name: "H5 a hop from the future", path: handed, do: issued(1, hop.Skew+time.Minute), want: tenant.ContextNotYetValid, hop: 1},
	{name: "H5 claims past exp", path: handed, do: claim(func(c *pb.Claims) {
		c.Iat, c.Exp = after(-time.Minute), after(-time.Second)
	}), want: tenant.ContextExpired, hop: 0},
	{name: "H5 a hop past exp", path: handed, do: statement(0, func(s *pb.Statement) {
		s.Iat, s.Exp = after(-5*time.Second), after(-time.Second)
	}), want: tenant.ContextExpired, hop: 0},
}

// signature changes the signature of the last hop.
func signature(f func(key *ecdsa.PrivateKey, h *pb.Hop) []byte) func(*mesh, *wire) {
	return func(m *mesh, w *wire) {
		key, ok := w.by[w.last()].PrivateKey.(*ecdsa.PrivateKey)
		if !ok {
			m.t.Error("not an EC key")
			return
		}
		h := w.hops.Hops[w.last()]
		h.Signature = f(key, h)
	}
}

// over signs other bytes than the profile's with the key of the last signer.
func over(message func(statement []byte) []byte) func(*mesh, *wire) {
	return edited(func(w *wire) { w.sign(w.last(), message) })
}

// keyed gives the first signer another key; its signatures are garbage.
func keyed(key crypto.Signer) func(*mesh, *wire) { return certified(0, devdomain.WithKey(key)) }

func h6() []attack {
	order := elliptic.P256().Params().N
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	return []attack{
		{name: "H6 (r, n-s)", path: handed, do: signature(func(_ *ecdsa.PrivateKey, h *pb.Hop) []byte {
			s := new(big.Int).SetBytes(h.Signature[32:])
			return append(h.Signature[:32:32], s.Sub(order, s).FillBytes(make([]byte, 32))...)
		}), want: tenant.SignatureMalformed, hop: 1},
		{name: "H6 DER where P1363 is due", path: handed, do: signature(func(key *ecdsa.PrivateKey, h *pb.Hop) []byte {
			digest := sha256.Sum256(signed(h.Statement))
			return must(key.Sign(rand.Reader, digest[:], crypto.SHA256))
		}), want: tenant.SignatureMalformed, hop: 1},
		{name: "H6 PKCS#1 v1.5", path: handed, do: func(m *mesh, w *wire) {
			keyed(rsaKey)(m, w)
			digest := sha256.Sum256(signed(w.hops.Hops[0].Statement))
			w.hops.Hops[0].Signature = must(rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA256, digest[:]))
		}, want: tenant.SignatureInvalid, hop: 0},
		{name: "H6 SHA-384 under a P-256 key", path: handed, do: signature(func(key *ecdsa.PrivateKey, h *pb.Hop) []byte {
			digest := sha512.Sum384(signed(h.Statement))
			r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
			if s = must(s, err); new(big.Int).Lsh(s, 1).Cmp(order) > 0 {
				s.Sub(order, s)
			}
			return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}), want: tenant.SignatureInvalid, hop: 1},
		{name: "H6 zeros", path: handed, do: signature(func(*ecdsa.PrivateKey, *pb.Hop) []byte {
			return make([]byte, 64) // CVE-2022-21449
		}), want: tenant.SignatureInvalid, hop: 1},
		{name: "H6 a signature by a P-256 key where the certificate's is RSA", path: handed, do: keyed(rsaKey), want: tenant.SignatureMalformed, hop: 0},
		{name: "H6 a signer's Ed25519 key", path: handed, do: keyed(must(edKey, err)), want: tenant.KeyUnsupported, hop: 0},
		{name: "H6 a signature under a message's prefix", path: handed, do: over(func(statement []byte) []byte {
			return signedAs(messagePrefix, 0, statement)
		}), want: tenant.SignatureInvalid, hop: 1},
		{name: "H6 a signature under a grant's prefix", path: handed, do: over(func(statement []byte) []byte {
			return signedAs(grantPrefix, 0, statement)
		}), want: tenant.SignatureInvalid, hop: 1},
		{name: "H6 a TLS signature", path: handed, do: over(func(statement []byte) []byte {
			transcript := sha256.Sum256(statement) // RFC 8446, section 4.4.3
			return slices.Concat([]byte(strings.Repeat(" ", 64)), []byte("TLS 1.3, client CertificateVerify\x00"), transcript[:])
		}), want: tenant.SignatureInvalid, hop: 1},
		{name: "H6 a JWS signature", path: handed, do: over(func(statement []byte) []byte {
			enc := base64.RawURLEncoding
			return []byte(enc.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." + enc.EncodeToString(statement))
		}), want: tenant.SignatureInvalid, hop: 1},
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// raw changes the bytes of the last statement, which begins 08 01 (version) 10 01 (kind).
func raw(f func([]byte) []byte) func(*mesh, *wire) {
	return edited(func(w *wire) { w.changeRaw(f) })
}

var h7 = []attack{
	{name: "H7 an unknown field", path: handed, do: raw(func(b []byte) []byte { return append(b, 0xc0, 0x3e, 0x01) }), want: tenant.ContextMalformed, hop: 1},
	{name: "H7 a duplicate field", path: handed, do: raw(func(b []byte) []byte { return append([]byte{0x08, 1}, b...) }), want: tenant.ContextMalformed, hop: 1},
	{name: "H7 fields out of order", path: handed, do: raw(func(b []byte) []byte { return append(b[2:], b[:2]...) }), want: tenant.ContextMalformed, hop: 1},
	{name: "H7 a varint that is not minimal", path: handed, do: raw(func(b []byte) []byte { return append([]byte{0x08, 0x81, 0x00}, b[2:]...) }), want: tenant.ContextMalformed, hop: 1},
	{name: "H7 an unknown field in the chain", path: handed, do: edited(func(w *wire) {
		w.hops.ProtoReflect().SetUnknown([]byte{0xc0, 0x3e, 0x01})
	}), want: tenant.ContextMalformed, hop: -1},
	{name: "H7 bytes that are no chain", path: handed, do: value(func(hops, _ *string) { *hops = "AAAA" }), want: tenant.ContextMalformed, hop: -1},
	{name: "H7 a bit to spare", path: handed, do: edited(func(w *wire) {
		for len(encode(w.hops))%3 == 0 {
			w.change(0, func(s *pb.Statement) { s.Claims.Sub += "1" })
		}
		w.text = func(hops, _ *string) {
			const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
			last := len(*hops) - 1
			*hops = (*hops)[:last] + alphabet[strings.IndexByte(alphabet, (*hops)[last])+1:][:1]
		}
	}), want: tenant.ContextMalformed, hop: -1},
}

var h8 = []attack{
	{name: "H8 seven hops", path: handed, do: cheaply(func(w *wire) {
		for len(w.hops.Hops) <= hop.MaxHops {
			w.hops.Hops = append(w.hops.Hops, w.hops.Hops[1])
		}
	}), want: tenant.ChainTooLong, hop: -1},
	{name: "H8 one byte over budget", path: handed, do: value(func(hops, certs *string) {
		*hops += strings.Repeat("A", hop.MaxMetadata+1-len(*hops)-len(*certs))
	}), want: tenant.MetadataTooLarge, hop: -1},
	{name: "H8 one byte of certificates over budget", path: handed, do: value(func(hops, certs *string) {
		*certs += strings.Repeat("A", hop.MaxMetadata+1-len(*hops)-len(*certs))
	}), want: tenant.MetadataTooLarge, hop: -1},
	{name: "H8 a certificate that nobody refers to", path: handed, do: func(m *mesh, w *wire) {
		w.certs.Chains = append(w.certs.Chains, certificateChain(m.svid("stock").Certificates))
		w.garble()
	}, want: tenant.CertificateUnexpected, hop: -1},
	{name: "H8 certificates with a chain that needs none", path: "gateway", do: func(m *mesh, w *wire) {
		w.certs.Chains = append(w.certs.Chains, certificateChain(m.svid("stock").Certificates))
		w.garble()
	}, want: tenant.CertificateUnexpected, hop: -1},
	{name: "H8 certificates out of order", path: long, do: cheaply(func(w *wire) { slices.Reverse(w.certs.Chains) }), want: tenant.CertificateUnexpected, hop: 0},
	{name: "H8 three intermediates", path: handed, do: func(m *mesh, w *wire) {
		certified(0, devdomain.WithIntermediates(3))(m, w)
		w.garble()
	}, want: tenant.CertificateUnexpected, hop: 0},
	{name: "H8 no certificates", path: handed, do: cheaply(func(w *wire) { w.certs.Chains = nil }), want: tenant.CertificateMissing, hop: 0},
}

var h9 = []attack{
	{name: "H9 a valid statement with a garbage signature", path: handed, old: true, do: edited((*wire).garble), want: tenant.SignatureInvalid, hop: 0},
	{name: "H9 a valid statement with a bit of its signature changed", path: handed, old: true, do: edited(func(w *wire) {
		w.hops.Hops[1].Signature[31] ^= 1
	}), want: tenant.SignatureInvalid, hop: 1},
	{name: "H9 a valid signature of another statement", path: handed, old: true, do: edited(func(w *wire) {
		signature := w.hops.Hops[1].Signature
		w.change(1, func(s *pb.Statement) { s.Jti[0] ^= 1 })
		w.hops.Hops[1].Signature = signature
	}), want: tenant.SignatureInvalid, hop: 1},
}

// tree changes the place of the last statement in its tree.
func tree(f func(*pb.Hop)) func(*mesh, *wire) {
	return edited(func(w *wire) { f(w.hops.Hops[w.last()]) })
}

var h11 = []attack{
	{name: "H11 a wrong index", path: handed, do: tree(func(h *pb.Hop) { h.LeafIndex = 1 }), want: tenant.SignatureMalformed, hop: 1},
	{name: "H11 a tree of two", path: handed, do: tree(func(h *pb.Hop) { h.TreeSize = 2 }), want: tenant.SignatureMalformed, hop: 1},
	{name: "H11 a path in a tree of one", path: handed, do: tree(func(h *pb.Hop) {
		h.InclusionPath = [][]byte{make([]byte, 32)}
	}), want: tenant.SignatureMalformed, hop: 1},
	{name: "H11 a leaf taken for a node", path: handed, do: over(func(statement []byte) []byte {
		return signedAs(callPrefix, 1, statement)
	}), want: tenant.SignatureInvalid, hop: 1},
	{name: "H11 a root of another signer", path: handed, do: edited(func(w *wire) {
		w.hops.Hops[1].Signature = w.hops.Hops[0].Signature
	}), want: tenant.SignatureInvalid, hop: 1},
}

var t9 = []attack{
	{name: "T9 a tenant that the first signer may not originate for", path: "tenant/globex/runner/1", want: tenant.TenantNotBound, hop: 0},
	{name: "T9 a tenant that is not listed", path: handed,
		do: claim(func(c *pb.Claims) { c.Tctx.Tenant = "umbrella" }), want: tenant.TenantNotBound, hop: 0},
	{name: "T9 a scope", path: handed, do: claim(func(c *pb.Claims) { c.Scope = []string{"billing.read"} }), want: tenant.ScopeNotAllowed, hop: 0},
	{name: "T9 a subject", path: handed, do: claim(func(c *pb.Claims) { c.Sub = "root" }), want: tenant.SubjectNotAllowed, hop: 0},
	{name: "T9 a classification", path: handed, do: claim(func(c *pb.Claims) { c.Tctx.Classification = 3 }), want: tenant.ClassificationNotAllowed, hop: 0},
	{name: "T9 an issuer", path: handed, do: claim(func(c *pb.Claims) { c.Iss = "https://evil.example" }), want: tenant.IssuerNotAllowed, hop: 0},
	{name: "T9 no issuer", path: handed, do: claim(func(c *pb.Claims) { c.Iss = "" }), want: tenant.IssuerNotAllowed, hop: 0},
	{name: "T9 a lifetime", path: handed, do: claim(func(c *pb.Claims) { c.Exp = c.Iat + 301 }), want: tenant.LifetimeNotAllowed, hop: 0},
}

var i3 = []attack{
	{name: "I3 /service/pay does not match /service/payroll", path: "service/payroll", want: tenant.WorkloadUnknown, hop: -1},
	{name: "I3 nor what is below it", path: "service/pay/roll", want: tenant.WorkloadUnknown, hop: -1},
	{name: "I3 nor what is above it", path: "service", want: tenant.WorkloadUnknown, hop: -1},
	{name: "I3 a path never crosses trust domains", path: "spiffe://partner.example/gateway", want: tenant.WorkloadUnknown, hop: -1},
	{name: "I3 a.b never matches axb", path: "axb", want: tenant.WorkloadUnknown, hop: -1},
	{name: "I3 a pattern stays within its segment", path: "tenant/acme/x/runner/1", want: tenant.WorkloadUnknown, hop: -1},
	{name: "I3 an ID on the path that matches by prefix alone", path: "gateway service/payroll orders", want: tenant.WorkloadUnknown, hop: 1},
	{name: "I3 a workload without a prefix of tenants", path: "gateway intruder", want: tenant.TenantNotBound, hop: 1},
	{name: "I7 an SVID used outside its path", path: "tenant/acme/runner/1",
		do: claim(func(c *pb.Claims) { c.Tctx.Tenant, c.Tctx.TenantUid = "globex", "globex-uid-1" }), want: tenant.TenantNotBound, hop: 0},
}

var others = []attack{
	{name: "M1 an empty value", path: handed, do: value(func(hops, _ *string) { *hops = "" }), want: tenant.ContextMalformed, hop: -1},
	{name: "M1 certificates without hops", path: handed, do: value(func(hops, _ *string) { *hops = "-" }), want: tenant.ContextMissing, hop: -1},
	{name: "no context", path: "gateway", do: value(func(hops, _ *string) { *hops = "-" }), want: tenant.ContextMissing, hop: -1},
	{name: "D10 a tenant that was created anew", path: handed,
		do: claim(func(c *pb.Claims) { c.Tctx.TenantUid = "acme-uid-0" }), want: tenant.TenantReplaced, hop: 0},
	{name: "E1 an elevation that nothing grants", path: handed,
		do: claim(func(c *pb.Claims) { c.Elevation = &pb.Elevation{Id: "please"} }), want: tenant.ElevationNotAllowed, hop: 0},
}
