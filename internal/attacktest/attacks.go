package attacktest

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
	"errors"
	"math/big"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/tenantmesh/tenantmesh/hop"
	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Attack is a context that must be refused, presented over mTLS by a workload
// with a valid SVID.
type Attack struct {
	// Name starts with the line of the attack catalogue that it is of, if any.
	Name string
	// Path names who signs the call that the attack starts from. The last
	// presents it, and it is allowed, unless the path itself is the attack.
	Path        string
	By          string              // who presents the forgery instead, on a connection of its own
	Old         bool                // the very call that was allowed is forged, not one like it
	Unfederated bool                // it is presented after the bundle of the partner's trust domain is gone
	Do          func(*World, *Wire) // the forgery; nil: the path itself, or who presents it
	Want        tenant.Reason
	Hop         int // the one at fault; -1 if none is
}

// Attacks returns all attacks by contexts, in the order of the catalogue.
func Attacks() []Attack {
	return slices.Concat(h1, h2, h3, h4, h5, h6(), h7, h8, h9, h11, t9, i3, others)
}

// Signers names who signs the call that the attack starts from.
func (a Attack) Signers() []string { return strings.Fields(a.Path) }

// Forged says whether an honest call comes before the forgery.
func (a Attack) Forged() bool { return a.Do != nil || a.By != "" || a.Unfederated }

// Attempt is an attack being made: it presents an honest call until Forging is
// set, and then one forgery, again and again. It is for one goroutine.
type Attempt struct {
	Attack
	Forging bool

	world          *World
	honest, forged *Wire
}

// In starts an attack.
func (a Attack) In(w *World) *Attempt { return &Attempt{Attack: a, world: w} }

// Metadata is a Forgery.
func (a *Attempt) Metadata(binding [32]byte, method string) (map[string]string, error) {
	if a.forged != nil {
		return a.forged.Values()
	}
	w, err := a.world.Send(binding, method, a.Signers()...)
	if err != nil {
		return nil, err
	}
	if !a.Forging {
		a.honest = w
		return w.Values()
	}
	if a.Old {
		w = a.honest.Clone()
	}
	if a.Do != nil {
		a.Do(a.world, w)
	}
	a.forged = w
	return w.Values()
}

// Claims returns what claims the forgery shows, or nil.
func (a *Attempt) Claims() *hop.Claims {
	md, err := a.forged.Values()
	if err != nil {
		return nil
	}
	return hop.UnverifiedClaims(hop.Metadata{Hops: md[hop.HopsKey]})
}

// Forgeries.

// Statement changes statement i with the keys of all who signed since.
func Statement(i int, f func(*pb.Statement)) func(*World, *Wire) {
	return func(_ *World, w *Wire) { w.Change(i, f) }
}

// Claim changes the claims with the keys of all signers.
func Claim(f func(*pb.Claims)) func(*World, *Wire) {
	return Statement(0, func(s *pb.Statement) { f(s.Claims) })
}

// exchange changes the claims with the keys of all signers but the first.
func exchange(f func(*pb.Claims)) func(*World, *Wire) {
	return func(_ *World, w *Wire) {
		signature := w.Hops.Hops[0].Signature
		w.Change(0, func(s *pb.Statement) { f(s.Claims) })
		w.Hops.Hops[0].Signature = signature
	}
}

// Globex changes the claims to another tenant that there is, with the keys of
// all signers.
func Globex(m *World, w *Wire) { globex(Claim)(m, w) }

func globex(how func(func(*pb.Claims)) func(*World, *Wire)) func(*World, *Wire) {
	return func(m *World, w *Wire) {
		how(func(c *pb.Claims) { c.Tctx.Tenant, c.Tctx.TenantUid = "globex", m.Claims("globex").TenantUID })(m, w)
	}
}

func edited(f func(w *Wire)) func(*World, *Wire) { return func(_ *World, w *Wire) { f(w) } }

// cheaply is edited with garbage for signatures: what it does is found before
// cryptography.
func cheaply(f func(w *Wire)) func(*World, *Wire) {
	return func(_ *World, w *Wire) { f(w); w.Garble() }
}

// Value changes the values of the metadata.
func Value(f func(hops, certs *string)) func(*World, *Wire) {
	return func(_ *World, w *Wire) { w.Text = f }
}

func asGrant(s *pb.Statement) { s.Kind, s.Target, s.Binding = pb.Kind_KIND_GRANT, "", nil }

func scopes(values ...string) *pb.Narrowing {
	return &pb.Narrowing{Scope: &pb.ScopeSet{Values: values}}
}

func methods(values ...string) *pb.Narrowing {
	return &pb.Narrowing{Methods: &pb.MethodSet{Values: values}}
}

// OtherMethod is a method that no attack calls.
const OtherMethod = grpc_testing.TestService_EmptyCall_FullMethodName

// handed is what most attacks start from, and long what needs three hops.
const handed, long = "gateway orders", "gateway orders stock"

var h1 = []Attack{
	{Name: "H1 a captured context replayed by another workload", Path: "gateway", By: "intruder", Old: true, Want: tenant.SignerNotPeer, Hop: 0},
	{Name: "H1 a captured chain replayed by another workload", Path: handed, By: "intruder", Old: true, Want: tenant.SignerNotPeer, Hop: 1},
	{Name: "H1 a context signed for another workload's connection", Path: handed, By: "intruder", Want: tenant.SignerNotPeer, Hop: 1},
	{Name: "H1 a context handed to B and forwarded by C", Path: handed, By: "intruder",
		Do: func(m *World, w *Wire) { w.Replace(1, m.SVIDs["intruder"]) }, Want: tenant.AudienceMismatch, Hop: 0},
	{Name: "H1 a hop moved to another connection", Path: "gateway", By: "gateway", Old: true, Want: tenant.ChannelMismatch, Hop: 0},
	{Name: "H1 a chain moved to another connection", Path: handed, By: "orders", Old: true, Want: tenant.ChannelMismatch, Hop: 1},
	{Name: "H1 a hop moved to another method", Path: handed,
		Do: Statement(1, func(s *pb.Statement) { s.Target = OtherMethod }), Want: tenant.TargetMismatch, Hop: 1},
	{Name: "H1 a hop moved to another callee", Path: handed,
		Do: func(m *World, w *Wire) {
			w.Change(1, func(s *pb.Statement) { s.Aud = m.SVIDs["stock"].ID.String() })
		}, Want: tenant.AudienceMismatch, Hop: 1},
	{Name: "H1 a grant used by another than its aud", Path: "tts gateway", By: "intruder",
		Do: func(m *World, w *Wire) { w.Replace(1, m.SVIDs["intruder"]) }, Want: tenant.AudienceMismatch, Hop: 0},
	{Name: "H1 a grant at index 1", Path: long, Do: Statement(1, asGrant), Want: tenant.KindMismatch, Hop: 1},
	{Name: "H1 a grant presented as a call", Path: "gateway", Do: Statement(0, asGrant), Want: tenant.KindMismatch, Hop: 0},
}

var h2 = []Attack{
	{Name: "H2 the first hop removed", Path: long, Do: edited(func(w *Wire) {
		w.Hops.Hops, w.Certs.Chains = w.Hops.Hops[1:], w.Certs.Chains[1:]
	}), Want: tenant.ChainBroken, Hop: 0},
	{Name: "H2 a middle hop removed", Path: long, Do: edited(func(w *Wire) {
		w.Hops.Hops, w.Certs.Chains = slices.Delete(w.Hops.Hops, 1, 2), w.Certs.Chains[:1]
	}), Want: tenant.ChainBroken, Hop: 1},
	{Name: "H2 a middle hop removed by the last signer", Path: long, Do: edited(func(w *Wire) {
		w.Hops.Hops, w.By, w.Certs.Chains = slices.Delete(w.Hops.Hops, 1, 2), slices.Delete(w.By, 1, 2), w.Certs.Chains[:1]
		w.edit(1, func(s *pb.Statement) { s.Index = 1 })
		w.relink(0)
		w.sign(1, signed)
	}), Want: tenant.AudienceMismatch, Hop: 0},
	{Name: "H2 the last hop removed", Path: long, Do: edited(func(w *Wire) {
		w.Hops.Hops, w.Certs.Chains = w.Hops.Hops[:2], w.Certs.Chains[:1]
	}), Want: tenant.SignerNotPeer, Hop: 1},
	{Name: "H2 all hops removed", Path: long, Do: edited(func(w *Wire) { w.Hops.Hops, w.Certs.Chains = nil, nil }), Want: tenant.ContextMalformed, Hop: -1},
	{Name: "H2 a hop inserted", Path: long, Do: edited(func(w *Wire) {
		w.Hops.Hops = slices.Insert(w.Hops.Hops, 1, proto.CloneOf(w.Hops.Hops[2]))
	}), Want: tenant.ChainBroken, Hop: 1},
	{Name: "H2 a hop inserted by its signer and the one after", Path: long, Do: func(m *World, w *Wire) {
		w.Hops.Hops, w.By = slices.Insert(w.Hops.Hops, 2, proto.CloneOf(w.Hops.Hops[1])), slices.Insert(w.By, 2, w.By[1])
		w.Certs.Chains = append(w.Certs.Chains, nil)
		w.edit(2, func(s *pb.Statement) { s.Index, s.Jti = 2, make([]byte, 16) })
		w.edit(3, func(s *pb.Statement) { s.Index = 3 })
		w.relink(1)
		w.Replace(2, m.SVIDs["intruder"])
	}, Want: tenant.AudienceMismatch, Hop: 1},
	{Name: "H2 hops reordered", Path: long, Do: edited(func(w *Wire) { slices.Reverse(w.Hops.Hops[:2]) }), Want: tenant.ChainBroken, Hop: 0},
	{Name: "H2 the first hop duplicated", Path: long, Do: edited(func(w *Wire) {
		w.Hops.Hops = slices.Insert(w.Hops.Hops, 1, w.Hops.Hops[0])
	}), Want: tenant.ChainBroken, Hop: 1},
	{Name: "H2 the last hop duplicated", Path: long, Do: edited(func(w *Wire) {
		w.Hops.Hops = append(w.Hops.Hops, w.Hops.Hops[2])
	}), Want: tenant.ChainBroken, Hop: 3},
	{Name: "H2 a jti repeated", Path: handed, Do: edited(func(w *Wire) {
		var jti []byte
		w.edit(0, func(s *pb.Statement) { jti = s.Jti })
		w.Change(1, func(s *pb.Statement) { s.Jti = jti })
	}), Want: tenant.TokenIDRepeated, Hop: 1},
	{Name: "H2 a hop spliced from another transaction", Path: long, Do: spliced(2), Want: tenant.ChainBroken, Hop: 2},
	{Name: "H2 the first hop spliced from another transaction", Path: long, Do: spliced(0), Want: tenant.ChainBroken, Hop: 1},
	{Name: "H2 the claims exchanged", Path: handed, Do: edited(func(w *Wire) {
		w.edit(0, func(s *pb.Statement) { s.Claims.Tctx.Tenant = "globex" })
	}), Want: tenant.ChainBroken, Hop: 1},
	{Name: "H2 the claims exchanged, and all signed again but the first", Path: handed,
		Do: exchange(func(c *pb.Claims) { c.Txn = "txn-2" }), Want: tenant.SignatureInvalid, Hop: 0},
	{Name: "H2 a message presented as a call", Path: handed,
		Do: Statement(1, func(s *pb.Statement) { s.Kind = pb.Kind_KIND_MESSAGE }), Want: tenant.KindMismatch, Hop: 1},
	{Name: "H2 a call after a message", Path: handed,
		Do: Statement(0, func(s *pb.Statement) { s.Kind = pb.Kind_KIND_MESSAGE }), Want: tenant.KindMismatch, Hop: 0},
}

// spliced puts hop i of another transaction into the chain.
func spliced(i int) func(*World, *Wire) {
	return func(_ *World, w *Wire) {
		other, err := w.again()
		if err != nil {
			w.fail(err)
			return
		}
		w.Hops.Hops[i] = other.Hops.Hops[i]
	}
}

var h3 = []Attack{
	{Name: "H3 the tenant changed along the chain", Path: handed,
		Do: globex(exchange), Want: tenant.SignatureInvalid, Hop: 0},
	{Name: "H3 the subject changed along the chain", Path: handed,
		Do: exchange(func(c *pb.Claims) { c.Sub = "user-2" }), Want: tenant.SignatureInvalid, Hop: 0},
	{Name: "H3 a scope added along the chain", Path: handed,
		Do: exchange(func(c *pb.Claims) { c.Scope = []string{"orders.read", "orders.write"} }), Want: tenant.SignatureInvalid, Hop: 0},
	{Name: "H3 claims of another tenant at a later hop", Path: handed, Do: edited(func(w *Wire) {
		var c *pb.Claims
		w.edit(0, func(s *pb.Statement) { c = s.Claims })
		c.Tctx.Tenant = "globex"
		w.Change(1, func(s *pb.Statement) { s.Claims = c })
	}), Want: tenant.ChainBroken, Hop: 1},
	{Name: "H3 a scope that the claims do not hold", Path: handed,
		Do: Statement(1, func(s *pb.Statement) { s.Narrowing = scopes("orders.read", "orders.write") }), Want: tenant.ScopeWidened, Hop: 1},
	{Name: "H3 a scope narrowed away upstream and held downstream", Path: handed, Do: edited(func(w *Wire) {
		w.edit(1, func(s *pb.Statement) { s.Narrowing = scopes("orders.read") })
		w.Change(0, func(s *pb.Statement) { s.Narrowing = scopes() })
	}), Want: tenant.ScopeWidened, Hop: 1},
	{Name: "H3 a scope narrowed away upstream and used downstream", Path: handed,
		Do: Statement(0, func(s *pb.Statement) { s.Narrowing = scopes() }), Want: tenant.ScopeMissing, Hop: -1},
	{Name: "H3 a method narrowed away upstream and called downstream", Path: handed,
		Do: Statement(0, func(s *pb.Statement) { s.Narrowing = methods(OtherMethod) }), Want: tenant.MethodNarrowed, Hop: 1},
	{Name: "H3 all methods narrowed away", Path: handed,
		Do: Statement(0, func(s *pb.Statement) { s.Narrowing = methods() }), Want: tenant.MethodNarrowed, Hop: 1},
	{Name: "H3 a method narrowed away and allowed again", Path: long, Do: edited(func(w *Wire) {
		var target string
		w.edit(2, func(s *pb.Statement) { target = s.Target })
		w.edit(0, func(s *pb.Statement) { s.Narrowing = methods(target) })
		w.edit(1, func(s *pb.Statement) { s.Target, s.Narrowing = target, methods(OtherMethod) })
		w.seal(0)
	}), Want: tenant.ScopeWidened, Hop: 1},
}

var h4 = []Attack{
	{Name: "H4 the last signer is not the TLS peer", Path: handed, By: "gateway", Want: tenant.SignerNotPeer, Hop: 1},
	{Name: "H4 the last hop names the TLS peer and another signed it", Path: handed, Do: edited(func(w *Wire) {
		w.By[1] = w.By[0]
		w.sign(1, signed)
	}), Want: tenant.SignatureInvalid, Hop: 1},
	{Name: "H4 a workload on the path that may not act for the tenant", Path: "gateway intruder orders", Want: tenant.TenantNotBound, Hop: 1},
	{Name: "H4 a first signer that may only forward", Path: "orders", Want: tenant.OriginationNotAllowed, Hop: 0},
	{Name: "H4 a peer that is bound to another tenant", Path: "reports", Want: tenant.TenantNotBound, Hop: 0},
	{Name: "H4 a federated domain outside its tenants", Path: PartnerApp,
		Do: globex(Claim), Want: tenant.TenantNotBound, Hop: 0},
}

// PartnerApp is a workload of the partner's trust domain.
const PartnerApp = "spiffe://partner.example/app"

// after is now and d, as a statement has it.
func after(d time.Duration) uint64 {
	return uint64(max(0, time.Now().Add(d).Unix()))
}

// expiring changes the exp of statement i and of those after it.
func expiring(i int, d time.Duration) func(*World, *Wire) {
	return func(_ *World, w *Wire) {
		for j := i; j <= w.last(); j++ {
			w.edit(j, func(s *pb.Statement) { s.Exp = after(d) })
		}
		w.seal(i)
	}
}

// issued changes the iat of statement i.
func issued(i int, d time.Duration) func(*World, *Wire) {
	return Statement(i, func(s *pb.Statement) { s.Iat = after(d) })
}

// certified gives the first hop another certificate of its signer.
func certified(options ...devdomain.LeafOption) func(*World, *Wire) {
	return func(m *World, w *Wire) {
		own, err := m.issue(w.By[0].ID.String(), options...)
		if err != nil {
			w.fail(err)
			return
		}
		w.Replace(0, own)
	}
}

// Valid is a leaf valid from now and from, to now and to.
func Valid(from, to time.Duration) devdomain.LeafOption {
	return devdomain.ValidFrom(time.Now().Add(from), time.Now().Add(to))
}

var h5 = []Attack{
	{Name: "H5 a certificate on the chain that expired", Path: handed, Do: func(m *World, w *Wire) {
		certified(Valid(-time.Hour, -5*time.Second))(m, w)
		w.edit(0, func(s *pb.Statement) { s.Iat, s.Claims.Iat = after(-10*time.Second), after(-10*time.Second) })
		w.edit(1, func(s *pb.Statement) { s.Iat = after(-10 * time.Second) })
		expiring(0, -5*time.Second)(m, w)
	}, Want: tenant.ContextExpired, Hop: 0},
	{Name: "H5 an intermediate on the chain that expired", Path: handed,
		Do: func(m *World, w *Wire) {
			own, err := m.underExpired(w.By[0].ID)
			if err != nil {
				w.fail(err)
				return
			}
			w.Replace(0, own)
		}, Want: tenant.SVIDExpired, Hop: 0},
	{Name: "H5 a certificate on the chain that is not yet valid", Path: handed, Do: func(m *World, w *Wire) {
		certified(Valid(time.Minute, time.Hour))(m, w)
	}, Want: tenant.SVIDExpired, Hop: 0},
	{Name: "H5 a certificate on the chain of a bundle removed since", Path: PartnerApp + " orders", Unfederated: true, Want: tenant.SVIDUntrusted, Hop: 0},
	{Name: "H5 exp beyond the NotAfter of its signer", Path: handed, Do: func(m *World, w *Wire) {
		certified(Valid(-time.Minute, 15*time.Second))(m, w)
	}, Want: tenant.LifetimeExceeded, Hop: 0},
	{Name: "H5 exp beyond the claims", Path: "gateway", Do: expiring(0, 5*time.Minute), Want: tenant.LifetimeExceeded, Hop: 0},
	{Name: "H5 exp beyond the hop before", Path: handed, Do: expiring(1, 5*time.Minute), Want: tenant.LifetimeExceeded, Hop: 1},
	{Name: "H5 iat before the hop before by more than the skew", Path: handed, Do: issued(1, -hop.Skew-3*time.Second), Want: tenant.TimeReversed, Hop: 1},
	{Name: "H5 iat before the claims by more than the skew", Path: handed, Do: issued(0, -hop.Skew-3*time.Second), Want: tenant.TimeReversed, Hop: 0},
	{Name: "H5 a last hop older than its freshness", Path: "gateway", Do: Statement(0, func(s *pb.Statement) {
		s.Claims.Iat, s.Iat = after(-hop.Freshness-2*time.Second), after(-hop.Freshness-2*time.Second)
	}), Want: tenant.ContextStale, Hop: 0},
	{Name: "H5 a hop from the future", Path: handed, Do: issued(1, hop.Skew+5*time.Second), Want: tenant.ContextNotYetValid, Hop: 1},
	{Name: "H5 claims past exp", Path: handed, Do: Claim(func(c *pb.Claims) {
		c.Iat, c.Exp = after(-time.Minute), after(-time.Second)
	}), Want: tenant.ContextExpired, Hop: 0},
	{Name: "H5 a hop past exp", Path: handed, Do: Statement(0, func(s *pb.Statement) {
		s.Iat, s.Exp = after(-5*time.Second), after(-time.Second)
	}), Want: tenant.ContextExpired, Hop: 0},
}

// signature changes the signature of the last hop.
func signature(f func(key *ecdsa.PrivateKey, h *pb.Hop) []byte) func(*World, *Wire) {
	return func(_ *World, w *Wire) {
		key, ok := w.By[w.last()].PrivateKey.(*ecdsa.PrivateKey)
		if !ok {
			w.fail(errors.New("attacktest: not an EC key"))
			return
		}
		h := w.Hops.Hops[w.last()]
		h.Signature = f(key, h)
	}
}

// over signs other bytes than the profile's with the key of the last signer.
func over(message func(statement []byte) []byte) func(*World, *Wire) {
	return edited(func(w *Wire) { w.sign(w.last(), message) })
}

// keyed gives the first signer another key; its signatures are garbage.
func keyed(key crypto.Signer) func(*World, *Wire) { return certified(devdomain.WithKey(key)) }

func h6() []Attack {
	order := elliptic.P256().Params().N
	rsaKey := Must(rsa.GenerateKey(rand.Reader, 2048))
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	return []Attack{
		{Name: "H6 (r, n-s)", Path: handed, Do: signature(func(_ *ecdsa.PrivateKey, h *pb.Hop) []byte {
			s := new(big.Int).SetBytes(h.Signature[32:])
			return append(h.Signature[:32:32], s.Sub(order, s).FillBytes(make([]byte, 32))...)
		}), Want: tenant.SignatureMalformed, Hop: 1},
		{Name: "H6 DER where P1363 is due", Path: handed, Do: signature(func(key *ecdsa.PrivateKey, h *pb.Hop) []byte {
			digest := sha256.Sum256(signed(h.Statement))
			return Must(key.Sign(rand.Reader, digest[:], crypto.SHA256))
		}), Want: tenant.SignatureMalformed, Hop: 1},
		{Name: "H6 PKCS#1 v1.5", Path: handed, Do: func(m *World, w *Wire) {
			keyed(rsaKey)(m, w)
			digest := sha256.Sum256(signed(w.Hops.Hops[0].Statement))
			w.Hops.Hops[0].Signature = Must(rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA256, digest[:]))
		}, Want: tenant.SignatureInvalid, Hop: 0},
		{Name: "H6 SHA-384 under a P-256 key", Path: handed, Do: signature(func(key *ecdsa.PrivateKey, h *pb.Hop) []byte {
			digest := sha512.Sum384(signed(h.Statement))
			r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
			if s = Must(s, err); new(big.Int).Lsh(s, 1).Cmp(order) > 0 {
				s.Sub(order, s)
			}
			return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}), Want: tenant.SignatureInvalid, Hop: 1},
		{Name: "H6 zeros", Path: handed, Do: signature(func(*ecdsa.PrivateKey, *pb.Hop) []byte {
			return make([]byte, 64) // CVE-2022-21449
		}), Want: tenant.SignatureInvalid, Hop: 1},
		{Name: "H6 a signature by a P-256 key where the certificate's is RSA", Path: handed, Do: keyed(rsaKey), Want: tenant.SignatureMalformed, Hop: 0},
		{Name: "H6 a signer's Ed25519 key", Path: handed, Do: keyed(Must(edKey, err)), Want: tenant.KeyUnsupported, Hop: 0},
		{Name: "H6 a signature under a message's prefix", Path: handed, Do: over(func(statement []byte) []byte {
			return signedAs(messagePrefix, 0, statement)
		}), Want: tenant.SignatureInvalid, Hop: 1},
		{Name: "H6 a signature under a grant's prefix", Path: handed, Do: over(func(statement []byte) []byte {
			return signedAs(grantPrefix, 0, statement)
		}), Want: tenant.SignatureInvalid, Hop: 1},
		{Name: "H6 a TLS signature", Path: handed, Do: over(func(statement []byte) []byte {
			transcript := sha256.Sum256(statement) // RFC 8446, section 4.4.3
			return slices.Concat([]byte(strings.Repeat(" ", 64)), []byte("TLS 1.3, client CertificateVerify\x00"), transcript[:])
		}), Want: tenant.SignatureInvalid, Hop: 1},
		{Name: "H6 a JWS signature", Path: handed, Do: over(func(statement []byte) []byte {
			enc := base64.RawURLEncoding
			return []byte(enc.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." + enc.EncodeToString(statement))
		}), Want: tenant.SignatureInvalid, Hop: 1},
	}
}

// Must returns v, or panics with the error.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// raw changes the bytes of the last statement, which begins 08 01 (version) 10 01 (kind).
func raw(f func([]byte) []byte) func(*World, *Wire) {
	return edited(func(w *Wire) { w.changeRaw(f) })
}

var h7 = []Attack{
	{Name: "H7 an unknown field", Path: handed, Do: raw(func(b []byte) []byte { return append(b, 0xc0, 0x3e, 0x01) }), Want: tenant.ContextMalformed, Hop: 1},
	{Name: "H7 a duplicate field", Path: handed, Do: raw(func(b []byte) []byte { return append([]byte{0x08, 1}, b...) }), Want: tenant.ContextMalformed, Hop: 1},
	{Name: "H7 fields out of order", Path: handed, Do: raw(func(b []byte) []byte { return append(b[2:], b[:2]...) }), Want: tenant.ContextMalformed, Hop: 1},
	{Name: "H7 a varint that is not minimal", Path: handed, Do: raw(func(b []byte) []byte { return append([]byte{0x08, 0x81, 0x00}, b[2:]...) }), Want: tenant.ContextMalformed, Hop: 1},
	{Name: "H7 an unknown field in the chain", Path: handed, Do: edited(func(w *Wire) {
		w.Hops.ProtoReflect().SetUnknown([]byte{0xc0, 0x3e, 0x01})
	}), Want: tenant.ContextMalformed, Hop: -1},
	{Name: "H7 bytes that are no chain", Path: handed, Do: Value(func(hops, _ *string) { *hops = "AAAA" }), Want: tenant.ContextMalformed, Hop: -1},
	{Name: "H7 a bit to spare", Path: handed, Do: edited(func(w *Wire) {
		for len(encode(w.Hops))%3 == 0 {
			w.Change(0, func(s *pb.Statement) { s.Claims.Sub += "1" })
		}
		w.Text = func(hops, _ *string) {
			const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
			last := len(*hops) - 1
			*hops = (*hops)[:last] + alphabet[strings.IndexByte(alphabet, (*hops)[last])+1:][:1]
		}
	}), Want: tenant.ContextMalformed, Hop: -1},
}

var h8 = []Attack{
	{Name: "H8 seven hops", Path: handed, Do: cheaply(func(w *Wire) {
		for len(w.Hops.Hops) <= hop.MaxHops {
			w.Hops.Hops = append(w.Hops.Hops, w.Hops.Hops[1])
		}
	}), Want: tenant.ChainTooLong, Hop: -1},
	{Name: "H8 one byte over budget", Path: handed, Do: Value(func(hops, certs *string) {
		*hops += strings.Repeat("A", hop.MaxMetadata+1-len(*hops)-len(*certs))
	}), Want: tenant.MetadataTooLarge, Hop: -1},
	{Name: "H8 one byte of certificates over budget", Path: handed, Do: Value(func(hops, certs *string) {
		*certs += strings.Repeat("A", hop.MaxMetadata+1-len(*hops)-len(*certs))
	}), Want: tenant.MetadataTooLarge, Hop: -1},
	{Name: "H8 a certificate that nobody refers to", Path: handed, Do: func(m *World, w *Wire) {
		w.Certs.Chains = append(w.Certs.Chains, certificateChain(m.SVIDs["stock"].Certificates))
		w.Garble()
	}, Want: tenant.CertificateUnexpected, Hop: -1},
	{Name: "H8 certificates with a chain that needs none", Path: "gateway", Do: func(m *World, w *Wire) {
		w.Certs.Chains = append(w.Certs.Chains, certificateChain(m.SVIDs["stock"].Certificates))
		w.Garble()
	}, Want: tenant.CertificateUnexpected, Hop: -1},
	{Name: "H8 certificates out of order", Path: long, Do: cheaply(func(w *Wire) { slices.Reverse(w.Certs.Chains) }), Want: tenant.CertificateUnexpected, Hop: 0},
	{Name: "H8 three intermediates", Path: handed, Do: func(m *World, w *Wire) {
		certified(devdomain.WithIntermediates(3))(m, w)
		w.Garble()
	}, Want: tenant.CertificateUnexpected, Hop: 0},
	{Name: "H8 no certificates", Path: handed, Do: cheaply(func(w *Wire) { w.Certs.Chains = nil }), Want: tenant.CertificateMissing, Hop: 0},
}

var h9 = []Attack{
	{Name: "H9 a valid statement with a garbage signature", Path: handed, Old: true, Do: edited((*Wire).Garble), Want: tenant.SignatureInvalid, Hop: 0},
	{Name: "H9 a valid statement with a bit of its signature changed", Path: handed, Old: true, Do: edited(func(w *Wire) {
		w.Hops.Hops[1].Signature[31] ^= 1
	}), Want: tenant.SignatureInvalid, Hop: 1},
	{Name: "H9 a valid signature of another statement", Path: handed, Old: true, Do: edited(func(w *Wire) {
		signature := w.Hops.Hops[1].Signature
		w.Change(1, func(s *pb.Statement) { s.Jti[0] ^= 1 })
		w.Hops.Hops[1].Signature = signature
	}), Want: tenant.SignatureInvalid, Hop: 1},
}

// tree changes the place of the last statement in its tree.
func tree(f func(*pb.Hop)) func(*World, *Wire) {
	return edited(func(w *Wire) { f(w.Hops.Hops[w.last()]) })
}

var h11 = []Attack{
	{Name: "H11 a wrong index", Path: handed, Do: tree(func(h *pb.Hop) { h.LeafIndex = 1 }), Want: tenant.SignatureMalformed, Hop: 1},
	{Name: "H11 a tree of two", Path: handed, Do: tree(func(h *pb.Hop) { h.TreeSize = 2 }), Want: tenant.SignatureMalformed, Hop: 1},
	{Name: "H11 a path in a tree of one", Path: handed, Do: tree(func(h *pb.Hop) {
		h.InclusionPath = [][]byte{make([]byte, 32)}
	}), Want: tenant.SignatureMalformed, Hop: 1},
	{Name: "H11 a leaf taken for a node", Path: handed, Do: over(func(statement []byte) []byte {
		return signedAs(callPrefix, 1, statement)
	}), Want: tenant.SignatureInvalid, Hop: 1},
	{Name: "H11 a root of another signer", Path: handed, Do: edited(func(w *Wire) {
		w.Hops.Hops[1].Signature = w.Hops.Hops[0].Signature
	}), Want: tenant.SignatureInvalid, Hop: 1},
}

var t9 = []Attack{
	{Name: "T9 a tenant that the first signer may not originate for", Path: "tenant/globex/runner/1", Want: tenant.TenantNotBound, Hop: 0},
	{Name: "T9 a tenant that is not listed", Path: handed,
		Do: Claim(func(c *pb.Claims) { c.Tctx.Tenant = "umbrella" }), Want: tenant.TenantNotBound, Hop: 0},
	{Name: "T9 a scope", Path: handed, Do: Claim(func(c *pb.Claims) { c.Scope = []string{"billing.read"} }), Want: tenant.ScopeNotAllowed, Hop: 0},
	{Name: "T9 a subject", Path: handed, Do: Claim(func(c *pb.Claims) { c.Sub = "root" }), Want: tenant.SubjectNotAllowed, Hop: 0},
	{Name: "T9 a classification", Path: handed, Do: Claim(func(c *pb.Claims) { c.Tctx.Classification = 3 }), Want: tenant.ClassificationNotAllowed, Hop: 0},
	{Name: "T9 an issuer", Path: handed, Do: Claim(func(c *pb.Claims) { c.Iss = "https://evil.example" }), Want: tenant.IssuerNotAllowed, Hop: 0},
	{Name: "T9 no issuer", Path: handed, Do: Claim(func(c *pb.Claims) { c.Iss = "" }), Want: tenant.IssuerNotAllowed, Hop: 0},
	{Name: "T9 a lifetime", Path: handed, Do: Claim(func(c *pb.Claims) { c.Exp = c.Iat + 301 }), Want: tenant.LifetimeNotAllowed, Hop: 0},
}

var i3 = []Attack{
	{Name: "I3 /service/pay does not match /service/payroll", Path: "service/payroll", Want: tenant.WorkloadUnknown, Hop: -1},
	{Name: "I3 nor what is below it", Path: "service/pay/roll", Want: tenant.WorkloadUnknown, Hop: -1},
	{Name: "I3 nor what is above it", Path: "service", Want: tenant.WorkloadUnknown, Hop: -1},
	{Name: "I3 a path never crosses trust domains", Path: "spiffe://partner.example/gateway", Want: tenant.WorkloadUnknown, Hop: -1},
	{Name: "I3 a.b never matches axb", Path: "axb", Want: tenant.WorkloadUnknown, Hop: -1},
	{Name: "I3 a pattern stays within its segment", Path: "tenant/acme/x/runner/1", Want: tenant.WorkloadUnknown, Hop: -1},
	{Name: "I3 an ID on the path that matches by prefix alone", Path: "gateway service/payroll orders", Want: tenant.WorkloadUnknown, Hop: 1},
	{Name: "I3 a workload without a prefix of tenants", Path: "gateway intruder", Want: tenant.TenantNotBound, Hop: 1},
	{Name: "I7 an SVID used outside its path", Path: "tenant/acme/runner/1",
		Do: globex(Claim), Want: tenant.TenantNotBound, Hop: 0},
}

var others = []Attack{
	{Name: "M1 an empty value", Path: handed, Do: Value(func(hops, _ *string) { *hops = "" }), Want: tenant.ContextMalformed, Hop: -1},
	{Name: "M1 certificates without hops", Path: handed, Do: Value(func(hops, _ *string) { *hops = "-" }), Want: tenant.ContextMissing, Hop: -1},
	{Name: "M2 no context, which nothing else stands in for", Path: "gateway", Do: Value(func(hops, _ *string) { *hops = "-" }), Want: tenant.ContextMissing, Hop: -1},
	{Name: "D10 a tenant that was created anew", Path: handed,
		Do: Claim(func(c *pb.Claims) { c.Tctx.TenantUid = "acme-uid-0" }), Want: tenant.TenantReplaced, Hop: 0},
	{Name: "E1 an elevation that nothing grants", Path: handed,
		Do: Claim(func(c *pb.Claims) { c.Elevation = &pb.Elevation{Id: "please"} }), Want: tenant.ElevationNotAllowed, Hop: 0},
}
