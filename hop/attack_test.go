package hop

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// An attack changes a good call, and the changed call must be refused.
type attack struct {
	name string // begins with the line of the attack catalogue
	call func(testing.TB) *capture
	do   func(testing.TB, *capture)
	want tenant.Reason
	hop  int
	// proof says that cryptography alone can find it. Every other attack must
	// be refused before a signature is looked at.
	proof bool
}

var attacks = slices.Concat(h1, h2, h3, h4, h5, h6, h7, h8, h11)

func TestAttacks(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range attacks {
		if seen[a.name] {
			t.Errorf("two attacks are named %q", a.name)
		}
		seen[a.name] = true
		t.Run(a.name, func(t *testing.T) {
			c := a.call(t)
			if _, err := c.verify(t); err != nil {
				t.Fatalf("the call that the attack starts from: %v", err)
			}
			a.do(t, c)
			chain, err := c.verify(t)
			a.refused(t, chain, err)
			if a.proof {
				return
			}
			for _, h := range c.hops.Hops {
				for i := range h.Signature {
					h.Signature[i] = 0x5a
				}
			}
			if _, err := c.verify(t); tenant.ReasonOf(err) != a.want {
				t.Errorf("with garbage for signatures: %v, want %s: it was not refused before cryptography", err, a.want)
			}
		})
	}
}

func (a attack) refused(t *testing.T, chain *Chain, err error) {
	t.Helper()
	var e *tenant.Error
	if !errors.As(err, &e) {
		t.Fatalf("accepted, or not a *tenant.Error: %v", err)
	}
	if chain != nil {
		t.Error("an error came with a chain")
	}
	if e.Reason != a.want || e.Hop != a.hop {
		t.Errorf("got %v, want %s at hop %d", err, a.want, a.hop)
	}
	if strings.Contains(err.Error(), canary) {
		t.Errorf("the error shows a claim: %v", err)
	}
}

// calls is the call that most attacks start from: gateway → orders → inventory → stock.
func calls(t testing.TB) *capture {
	return send(t, goodClaims(), path("gateway", "orders", "inventory", "stock"), nil)
}

// oneCall is gateway → orders.
func oneCall(t testing.TB) *capture { return send(t, goodClaims(), path("gateway", "orders"), nil) }

// again is calls, but orders hands it back to the gateway before the last hop.
func again(t testing.TB) *capture {
	return send(t, goodClaims(), path("gateway", "orders", "gateway", "stock"), nil)
}

// granted is a grant by an authority to the gateway, which then calls orders.
func granted(t testing.TB) *capture {
	return send(t, goodClaims(), path("tts", "gateway", "orders"), func(i int, h *Handover) {
		if i == 0 {
			h.Kind, h.Target, h.Binding = Grant, "", [32]byte{}
		}
	})
}

// narrowed is calls with a narrowing at the first and the second hop.
func narrowed(t testing.TB) *capture {
	return send(t, goodClaims(), path("gateway", "orders", "inventory", "stock"), func(i int, h *Handover) {
		switch i {
		case 0:
			h.Narrowing = &Narrowing{
				Scopes:  []string{"orders.read", "orders.write"},
				Methods: []string{"/inventory.v1.Service/Do", "/stock.v1.Service/Do"},
			}
		case 1:
			h.Narrowing = &Narrowing{Scopes: []string{"orders.read"}, Methods: []string{"/stock.v1.Service/Do"}}
		}
	})
}

// rsaKey is one key for all tests, for it is slow to make.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })

// withKey is calls with a key of another kind for the second hop.
func withKey(key func() crypto.Signer) func(testing.TB) *capture {
	return func(t testing.TB) *capture {
		p := path("gateway", "orders", "inventory", "stock")
		p[1] = root().issueFor(key(), "orders")
		return send(t, goodClaims(), p, nil)
	}
}

func p384() crypto.Signer    { return newKey(elliptic.P384()) }
func rsa2048() crypto.Signer { return rsaKey() }

// A context handed on, and used elsewhere.
var h1 = []attack{
	{name: "H1 replayed by another workload", call: oneCall, do: func(_ testing.TB, c *capture) {
		c.want.Peer = path("billing")[0].Certificates
	}, want: tenant.SignerNotPeer, hop: 0},
	{name: "H1 a chain of three replayed by another workload", call: calls, do: func(_ testing.TB, c *capture) {
		c.want.Peer = path("billing")[0].Certificates
	}, want: tenant.SignerNotPeer, hop: 2},
	{name: "H1 replayed by another SVID of the same workload", call: oneCall, do: func(_ testing.TB, c *capture) {
		c.want.Peer = path("gateway")[0].Certificates
	}, want: tenant.SignerNotPeer, hop: 0},
	{name: "H1 another workload adds its hop to a chain handed to B", call: calls, do: func(_ testing.TB, c *capture) {
		c.replace(2, path("billing")[0])
	}, want: tenant.AudienceMismatch, hop: 1},
	{name: "H1 on another connection", call: calls, do: func(_ testing.TB, c *capture) {
		c.want.Binding[31] ^= 1
	}, want: tenant.ChannelMismatch, hop: 2},
	{name: "H1 on a connection without an exporter", call: calls, do: func(_ testing.TB, c *capture) {
		c.want.Binding = [32]byte{}
		c.change(2, func(s *pb.Statement) { s.Binding = make([]byte, 32) })
	}, want: tenant.ChannelMismatch, hop: 2},
	{name: "H1 for another method", call: calls, do: func(_ testing.TB, c *capture) {
		c.want.Target = "/stock.v1.Service/Delete"
	}, want: tenant.TargetMismatch, hop: 2},
	{name: "H1 to another callee", call: calls, do: func(_ testing.TB, c *capture) {
		c.want.Self = spiffeid.RequireFromString("spiffe://prod.example/stockroom")
	}, want: tenant.AudienceMismatch, hop: 2},
	{name: "H1 to the callee's namesake in another trust domain", call: calls, do: func(_ testing.TB, c *capture) {
		c.want.Self = spiffeid.RequireFromString("spiffe://test.example/stock")
	}, want: tenant.AudienceMismatch, hop: 2},
	{name: "H1 without a peer", call: calls, do: func(_ testing.TB, c *capture) {
		c.want.Peer = nil
	}, want: tenant.PeerUnauthenticated, hop: -1},
	{name: "H1 a grant used by another than its aud", call: granted, do: func(_ testing.TB, c *capture) {
		c.replace(1, path("billing")[0])
	}, want: tenant.AudienceMismatch, hop: 0},
	{name: "H1 a grant at index 1", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(1, func(s *pb.Statement) { s.Kind, s.Target, s.Binding = pb.Kind_KIND_GRANT, "", nil })
	}, want: tenant.KindMismatch, hop: 1},
	{name: "H1 a grant presented as a call", call: oneCall, do: func(_ testing.TB, c *capture) {
		c.change(0, func(s *pb.Statement) { s.Kind, s.Target, s.Binding = pb.Kind_KIND_GRANT, "", nil })
	}, want: tenant.KindMismatch, hop: 0},
}

// The hops of a chain are what they were, in their order.
var h2 = []attack{
	{name: "H2 the first hop removed", call: calls, do: func(_ testing.TB, c *capture) {
		c.hops.Hops = c.hops.Hops[1:]
		c.certs.Chains = c.certs.Chains[1:]
	}, want: tenant.ChainBroken, hop: 0},
	{name: "H2 a middle hop removed", call: calls, do: func(_ testing.TB, c *capture) {
		c.hops.Hops = slices.Delete(c.hops.Hops, 1, 2)
		c.certs.Chains = c.certs.Chains[:1]
	}, want: tenant.ChainBroken, hop: 1},
	{name: "H2 a middle hop removed by the last signer", call: calls, do: func(_ testing.TB, c *capture) {
		c.hops.Hops, c.by = slices.Delete(c.hops.Hops, 1, 2), slices.Delete(slices.Clone(c.by), 1, 2)
		c.certs.Chains = c.certs.Chains[:1]
		c.edit(1, func(s *pb.Statement) { s.Index = 1 })
		c.relink(0)
		c.sign(1)
	}, want: tenant.AudienceMismatch, hop: 0},
	{name: "H2 the last hop removed", call: calls, do: func(_ testing.TB, c *capture) {
		c.hops.Hops = c.hops.Hops[:2]
		c.certs.Chains = c.certs.Chains[:1]
	}, want: tenant.SignerNotPeer, hop: 1},
	{name: "H2 all hops removed", call: calls, do: func(_ testing.TB, c *capture) {
		c.hops.Hops, c.certs.Chains = nil, nil
	}, want: tenant.ContextMissing, hop: -1},
	{name: "H2 a hop inserted", call: calls, do: func(t testing.TB, c *capture) {
		c.hops.Hops = slices.Insert(c.hops.Hops, 1, calls(t).hops.Hops[1])
	}, want: tenant.ChainBroken, hop: 1},
	{name: "H2 a hop inserted by its signer and the one after", call: calls, do: func(_ testing.TB, c *capture) {
		mallory := path("mallory")[0]
		c.hops.Hops = slices.Insert(c.hops.Hops, 2, proto.CloneOf(c.hops.Hops[1]))
		c.by = slices.Insert(slices.Clone(c.by), 2, mallory)
		c.certs.Chains = append(c.certs.Chains, nil)
		c.edit(2, func(s *pb.Statement) { s.Index, s.Jti = 2, make([]byte, 16) })
		c.edit(3, func(s *pb.Statement) { s.Index = 3 })
		c.relink(1)
		c.replace(2, mallory)
	}, want: tenant.AudienceMismatch, hop: 1},
	{name: "H2 hops reordered", call: calls, do: func(_ testing.TB, c *capture) {
		h := c.hops.Hops
		h[0], h[1] = h[1], h[0]
	}, want: tenant.ChainBroken, hop: 0},
	{name: "H2 the first hop duplicated", call: calls, do: func(_ testing.TB, c *capture) {
		c.hops.Hops = slices.Insert(c.hops.Hops, 1, c.hops.Hops[0])
	}, want: tenant.ChainBroken, hop: 1},
	{name: "H2 the last hop duplicated", call: calls, do: func(_ testing.TB, c *capture) {
		c.hops.Hops = append(c.hops.Hops, c.hops.Hops[2])
	}, want: tenant.ChainBroken, hop: 3},
	{name: "H2 a jti repeated", call: calls, do: func(_ testing.TB, c *capture) {
		var jti []byte
		c.edit(0, func(s *pb.Statement) { jti = s.Jti })
		c.change(2, func(s *pb.Statement) { s.Jti = jti })
	}, want: tenant.TokenIDRepeated, hop: 2},
	{name: "H2 an index skipped", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(1, func(s *pb.Statement) { s.Index = 2 })
	}, want: tenant.ChainBroken, hop: 1},
	{name: "H2 an index beyond every chain", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(1, func(s *pb.Statement) { s.Index = 1<<32 - 1 })
	}, want: tenant.ChainBroken, hop: 1},
	{name: "H2 prev of another statement", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(1, func(s *pb.Statement) { s.Prev[0] ^= 1 })
	}, want: tenant.ChainBroken, hop: 1},
	{name: "H2 prev absent at index 1", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(1, func(s *pb.Statement) { s.Prev = nil })
	}, want: tenant.ChainBroken, hop: 1},
	{name: "H2 prev at index 0", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(0, func(s *pb.Statement) { s.Prev = make([]byte, 32) })
	}, want: tenant.ChainBroken, hop: 0},
	{name: "H2 the tail spliced from another transaction", call: calls, do: func(t testing.TB, c *capture) {
		other := send(t, goodClaims(), slices.Concat(c.by, path("stock")), nil)
		c.hops.Hops[2] = other.hops.Hops[2]
	}, want: tenant.ChainBroken, hop: 2},
	{name: "H2 the first statement of another transaction", call: calls, do: func(t testing.TB, c *capture) {
		other := send(t, goodClaims(), slices.Concat(c.by, path("stock")), nil)
		c.hops.Hops[0] = other.hops.Hops[0]
	}, want: tenant.ChainBroken, hop: 1},
	{name: "H2 the claims exchanged", call: calls, do: func(_ testing.TB, c *capture) {
		c.edit(0, func(s *pb.Statement) { s.Claims.Tctx.Tenant = "globex" })
	}, want: tenant.ChainBroken, hop: 1},
	{name: "H2 the claims exchanged by all signers but the first", call: calls, do: func(_ testing.TB, c *capture) {
		c.edit(0, func(s *pb.Statement) { s.Claims.Tctx.Tenant = "globex" })
		c.relink(0)
		c.sign(1)
		c.sign(2)
	}, want: tenant.SignatureInvalid, hop: 0, proof: true},
	{name: "H2 claims at index 1", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(1, func(s *pb.Statement) { s.Claims = c.statement(0).Claims })
	}, want: tenant.ChainBroken, hop: 1},
	{name: "H2 no claims at index 0", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(0, func(s *pb.Statement) { s.Claims = nil })
	}, want: tenant.ChainBroken, hop: 0},
	{name: "H2 a message presented as a call", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(2, func(s *pb.Statement) { s.Kind = pb.Kind_KIND_MESSAGE })
	}, want: tenant.KindMismatch, hop: 2},
	{name: "H2 a call presented as a message", call: calls, do: func(_ testing.TB, c *capture) {
		c.want.Kind = Message
	}, want: tenant.KindMismatch, hop: 2},
	{name: "H2 a call after a message", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(1, func(s *pb.Statement) { s.Kind = pb.Kind_KIND_MESSAGE })
	}, want: tenant.KindMismatch, hop: 1},
	{name: "H2 no kind", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(1, func(s *pb.Statement) { s.Kind = 0 })
	}, want: tenant.KindMismatch, hop: 1},
	{name: "H2 an unknown kind", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(1, func(s *pb.Statement) { s.Kind = 4 })
	}, want: tenant.KindMismatch, hop: 1},
	{name: "H2 a negative kind", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(1, func(s *pb.Statement) { s.Kind = -1 })
	}, want: tenant.KindMismatch, hop: 1},
	{name: "H2 another version", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(1, func(s *pb.Statement) { s.Version = 2 })
	}, want: tenant.VersionUnsupported, hop: 1},
	{name: "H2 no version", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(0, func(s *pb.Statement) { s.Version = 0 })
	}, want: tenant.VersionUnsupported, hop: 0},
}

// What a hop leaves never grows again.
var h3 = []attack{
	{name: "H3 a scope that the claims do not hold", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(1, func(s *pb.Statement) {
			s.Narrowing = &pb.Narrowing{Scope: &pb.ScopeSet{Values: []string{"orders.admin", "orders.read"}}}
		})
	}, want: tenant.ScopeWidened, hop: 1},
	{name: "H3 a scope that was narrowed away upstream", call: narrowed, do: func(_ testing.TB, c *capture) {
		c.change(2, func(s *pb.Statement) {
			s.Narrowing = &pb.Narrowing{Scope: &pb.ScopeSet{Values: []string{"orders.write"}}}
		})
	}, want: tenant.ScopeWidened, hop: 2},
	{name: "H3 a scope after all scopes were narrowed away", call: calls, do: func(_ testing.TB, c *capture) {
		c.edit(1, func(s *pb.Statement) { s.Narrowing = &pb.Narrowing{Scope: &pb.ScopeSet{}} })
		c.change(2, func(s *pb.Statement) {
			s.Narrowing = &pb.Narrowing{Scope: &pb.ScopeSet{Values: []string{"orders.read"}}}
		})
		c.seal(1)
	}, want: tenant.ScopeWidened, hop: 2},
	{name: "H3 a method that was narrowed away is called", call: narrowed, do: func(_ testing.TB, c *capture) {
		c.change(0, func(s *pb.Statement) { s.Narrowing.Methods.Values = []string{"/stock.v1.Service/Do"} })
	}, want: tenant.MethodNarrowed, hop: 1},
	{name: "H3 a method that was narrowed away two hops upstream is called", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(0, func(s *pb.Statement) {
			s.Narrowing = &pb.Narrowing{Methods: &pb.MethodSet{Values: []string{"/inventory.v1.Service/Do"}}}
		})
	}, want: tenant.MethodNarrowed, hop: 2},
	{name: "H3 a call after all methods were narrowed away", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(1, func(s *pb.Statement) { s.Narrowing = &pb.Narrowing{Methods: &pb.MethodSet{}} })
	}, want: tenant.MethodNarrowed, hop: 2},
	{name: "H3 a method allowed again that was narrowed away", call: narrowed, do: func(_ testing.TB, c *capture) {
		c.change(2, func(s *pb.Statement) {
			s.Narrowing = &pb.Narrowing{Methods: &pb.MethodSet{Values: []string{"/inventory.v1.Service/Do"}}}
		})
	}, want: tenant.ScopeWidened, hop: 2},
	{name: "H3 the tenant changed in the middle", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(2, func(s *pb.Statement) {
			s.Claims = c.statement(0).Claims
			s.Claims.Tctx.Tenant = "globex"
		})
	}, want: tenant.ChainBroken, hop: 2},
}

var h4 = []attack{
	{name: "H4 the last signer is not the TLS peer", call: calls, do: func(_ testing.TB, c *capture) {
		c.want.Peer = c.by[1].Certificates
	}, want: tenant.SignerNotPeer, hop: 2},
	{name: "H4 the last hop names the TLS peer and another signed it", call: calls, do: func(_ testing.TB, c *capture) {
		c.by[2] = c.by[1]
		c.sign(2)
	}, want: tenant.SignatureInvalid, hop: 2, proof: true},
	{name: "H4 the peer's intermediates, though its leaf signed an earlier hop too", call: again, do: func(_ testing.TB, c *capture) {
		c.want.Peer = []*x509.Certificate{c.want.Peer[0], newCA(root()).cert}
	}, want: tenant.SVIDMalformed, hop: 2, proof: true},
	{name: "H4 an earlier hop signed by another than it names", call: calls, do: func(_ testing.TB, c *capture) {
		c.by[0] = path("gateway")[0]
		c.sign(0)
	}, want: tenant.SignatureInvalid, hop: 0, proof: true},
}

// at makes the call be verified at another time.
func at(d time.Duration) func(testing.TB, *capture) {
	return func(_ testing.TB, c *capture) { c.want.Now = noon.Add(d) }
}

func second(d time.Duration) uint64 { return uint64(noon.Add(d).Unix()) }

// expiring changes the exp of statement i and of those after it.
func expiring(c *capture, i int, d time.Duration) {
	for j := i; j <= c.last(); j++ {
		c.edit(j, func(s *pb.Statement) { s.Exp = second(d) })
	}
	c.seal(i)
}

// issued changes the iat of statement i.
func issued(i int, d time.Duration) func(testing.TB, *capture) {
	return func(_ testing.TB, c *capture) { c.change(i, func(s *pb.Statement) { s.Iat = second(d) }) }
}

// certified gives hop i an SVID that differs from its own.
func certified(i int, change ...func(*x509.Certificate)) func(testing.TB, *capture) {
	return func(_ testing.TB, c *capture) {
		c.replace(i, root().issue(strings.TrimPrefix(c.by[i].ID.Path(), "/"), change...))
	}
}

// Certificates and times.
var h5 = []attack{
	{name: "H5 the certificate of an earlier hop not yet valid", call: calls,
		do: certified(0, between(noon.Add(time.Second), noon.Add(time.Hour))), want: tenant.SVIDExpired, hop: 0, proof: true},
	{name: "H5 the certificate of the last hop not yet valid", call: calls,
		do: certified(2, between(noon.Add(time.Second), noon.Add(time.Hour))), want: tenant.SVIDExpired, hop: 2, proof: true},
	{name: "H5 the certificate of an earlier hop expired", call: calls, do: func(t testing.TB, c *capture) {
		// An exp beyond it would be refused for that, so the hops expired with it.
		certified(1, between(noon.Add(-time.Hour), noon.Add(-time.Second)))(t, c)
		c.edit(1, func(s *pb.Statement) { s.Iat = second(-10 * time.Second) })
		c.edit(2, func(s *pb.Statement) { s.Iat = second(-10 * time.Second) })
		expiring(c, 1, -time.Second)
	}, want: tenant.ContextExpired, hop: 1},
	{name: "H5 an intermediate of an earlier hop expired", call: calls, do: func(_ testing.TB, c *capture) {
		ca := newCA(root(), between(noon.Add(-time.Hour), noon.Add(-time.Second)))
		c.replace(0, ca.issue("gateway"))
	}, want: tenant.SVIDExpired, hop: 0, proof: true},
	{name: "H5 an intermediate of an earlier hop expires now", call: calls, do: func(_ testing.TB, c *capture) {
		// x509 holds NotAfter for the last valid second.
		ca := newCA(root(), between(noon.Add(-time.Hour), noon))
		c.replace(0, ca.issue("gateway"))
	}, want: tenant.SVIDExpired, hop: 0, proof: true},
	{name: "H5 an earlier hop of a bundle removed since", call: calls, do: func(_ testing.TB, c *capture) {
		c.want.Bundles = x509bundle.NewSet()
	}, want: tenant.SVIDUntrusted, hop: 0, proof: true},
	{name: "H5 I4 an earlier hop of an authority removed since, though the last is of another", call: calls, do: func(t testing.TB, c *capture) {
		other := newCA(nil)
		c.replace(0, other.issue("gateway"))
		c.want.Bundles = x509bundle.FromX509Authorities(c.want.Self.TrustDomain(), []*x509.Certificate{root().cert, other.cert})
		if _, err := c.verify(t); err != nil {
			t.Fatalf("before it was removed: %v", err)
		}
		c.want.Bundles = root().bundles()
	}, want: tenant.SVIDUntrusted, hop: 0, proof: true},
	{name: "H5 an earlier hop by another authority of the same name", call: calls, do: func(_ testing.TB, c *capture) {
		c.replace(1, newCA(nil).issue("orders"))
	}, want: tenant.SVIDUntrusted, hop: 1, proof: true},
	{name: "H5 the last hop by another authority of the same name", call: calls, do: func(_ testing.TB, c *capture) {
		c.replace(2, newCA(nil).issue("inventory"))
	}, want: tenant.SVIDUntrusted, hop: 2, proof: true},
	{name: "H5 exp beyond the NotAfter of its signer", call: calls,
		do: certified(1, between(noon.Add(-time.Hour), noon.Add(299*time.Second))), want: tenant.LifetimeExceeded, hop: 1},
	{name: "H5 exp beyond the claims", call: oneCall, do: func(_ testing.TB, c *capture) {
		expiring(c, 0, 301*time.Second)
	}, want: tenant.LifetimeExceeded, hop: 0},
	{name: "H5 exp beyond the hop before", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(0, func(s *pb.Statement) { s.Exp = second(299 * time.Second) })
	}, want: tenant.LifetimeExceeded, hop: 1},
	{name: "H5 iat before the hop before by more than the skew", call: calls,
		do: issued(1, -31*time.Second), want: tenant.TimeReversed, hop: 1},
	{name: "H5 iat before the claims by more than the skew", call: calls,
		do: issued(0, -31*time.Second), want: tenant.TimeReversed, hop: 0},
	{name: "H5 an earlier hop issued in the future", call: calls,
		do: issued(0, 31*time.Second), want: tenant.ContextNotYetValid, hop: 0},
	{name: "H5 the last hop issued in the future", call: calls,
		do: issued(2, 31*time.Second), want: tenant.ContextNotYetValid, hop: 2},
	{name: "H5 claims issued in the future", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(0, func(s *pb.Statement) { s.Claims.Iat = second(31 * time.Second) })
	}, want: tenant.ContextNotYetValid, hop: 0},
	{name: "H5 a last hop older than its freshness", call: calls,
		do: at(60*time.Second + time.Nanosecond), want: tenant.ContextStale, hop: 2},
	{name: "H5 expired claims", call: calls, do: func(_ testing.TB, c *capture) {
		c.change(0, func(s *pb.Statement) { s.Claims.Iat, s.Claims.Exp = second(-time.Minute), second(0) })
	}, want: tenant.ContextExpired, hop: 0},
	{name: "H5 an expired hop", call: calls, do: func(_ testing.TB, c *capture) {
		c.edit(1, func(s *pb.Statement) { s.Iat = second(-10 * time.Second) })
		c.edit(2, func(s *pb.Statement) { s.Iat = second(-10 * time.Second) })
		expiring(c, 1, 0)
	}, want: tenant.ContextExpired, hop: 1},
	{name: "H5 an expired last hop", call: calls, do: func(_ testing.TB, c *capture) {
		c.edit(2, func(s *pb.Statement) { s.Iat = second(-10 * time.Second) })
		expiring(c, 2, 0)
	}, want: tenant.ContextExpired, hop: 2},
}

// signature changes the signature of hop i.
func signature(i int, f func(c *capture, h *pb.Hop) []byte) func(testing.TB, *capture) {
	return func(_ testing.TB, c *capture) { c.hops.Hops[i].Signature = f(c, c.hops.Hops[i]) }
}

// rs signs a digest with the key of hop 1 and returns r and s, s as it comes.
func rs(c *capture, digest []byte) (r, s *big.Int) {
	key, ok := c.by[1].PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		panic("not an EC key")
	}
	r, s, err := ecdsa.Sign(rand.Reader, key, digest)
	if err != nil {
		panic(err)
	}
	return r, s
}

// p1363 returns r and s with the lower of s and n-s, size bytes each.
func p1363(r, s, n *big.Int, size int) []byte {
	if new(big.Int).Lsh(s, 1).Cmp(n) > 0 {
		s = new(big.Int).Sub(n, s)
	}
	b := make([]byte, 2*size)
	r.FillBytes(b[:size])
	s.FillBytes(b[size:])
	return b
}

// over signs other bytes than the profile's with the key of hop 1.
func over(message func(statement []byte) []byte) func(testing.TB, *capture) {
	return signature(1, func(c *capture, h *pb.Hop) []byte {
		sum := sha256.Sum256(message(h.Statement))
		r, s := rs(c, sum[:])
		return p1363(r, s, elliptic.P256().Params().N, 32)
	})
}

// tree changes the tree of hop 1.
func tree(f func(*pb.Hop)) func(testing.TB, *capture) {
	return func(_ testing.TB, c *capture) { f(c.hops.Hops[1]) }
}

// pssSignature signs hop 1 with RSASSA-PSS by other options than the profile's.
func pssSignature(opts *rsa.PSSOptions) func(testing.TB, *capture) {
	return signature(1, func(_ *capture, h *pb.Hop) []byte {
		digest := opts.Hash.New()
		digest.Write(signedAlone(Call, h.Statement))
		return must(rsa.SignPSS(rand.Reader, rsaKey(), opts.Hash, digest.Sum(nil), opts))
	})
}

// One algorithm and one encoding for each key.
var h6 = []attack{
	{name: "H6 (r, n-s)", call: calls, do: signature(1, func(_ *capture, h *pb.Hop) []byte {
		s := new(big.Int).SetBytes(h.Signature[32:])
		return append(h.Signature[:32:32], s.Sub(elliptic.P256().Params().N, s).FillBytes(make([]byte, 32))...)
	}), want: tenant.SignatureMalformed, hop: 1, proof: true},
	{name: "H6 (r, n-s) on P-384", call: withKey(p384), do: signature(1, func(_ *capture, h *pb.Hop) []byte {
		s := new(big.Int).SetBytes(h.Signature[48:])
		return append(h.Signature[:48:48], s.Sub(elliptic.P384().Params().N, s).FillBytes(make([]byte, 48))...)
	}), want: tenant.SignatureMalformed, hop: 1, proof: true},
	{name: "H6 DER where P1363 is due", call: calls, do: signature(1, func(c *capture, h *pb.Hop) []byte {
		digest := sha256.Sum256(signedAlone(Call, h.Statement))
		return must(c.by[1].PrivateKey.Sign(rand.Reader, digest[:], crypto.SHA256))
	}), want: tenant.SignatureMalformed, hop: 1, proof: true},
	{name: "H6 a byte short", call: calls, do: signature(1, func(_ *capture, h *pb.Hop) []byte {
		return h.Signature[:63]
	}), want: tenant.SignatureMalformed, hop: 1, proof: true},
	{name: "H6 a byte long", call: calls, do: signature(1, func(_ *capture, h *pb.Hop) []byte {
		return append(h.Signature, 0)
	}), want: tenant.SignatureMalformed, hop: 1, proof: true},
	{name: "H6 no signature", call: calls, do: signature(1, func(*capture, *pb.Hop) []byte {
		return nil
	}), want: tenant.SignatureMalformed, hop: 1, proof: true},
	{name: "H6 zeros", call: calls, do: signature(1, func(*capture, *pb.Hop) []byte {
		return make([]byte, 64) // CVE-2022-21449: r = s = 0 verified under any key
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 r is the order", call: calls, do: signature(1, func(_ *capture, h *pb.Hop) []byte {
		return append(elliptic.P256().Params().N.Bytes(), h.Signature[32:]...)
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 a bit of the last signature", call: calls, do: signature(2, func(_ *capture, h *pb.Hop) []byte {
		h.Signature[31] ^= 1
		return h.Signature
	}), want: tenant.SignatureInvalid, hop: 2, proof: true},
	{name: "H6 the signature of another hop", call: calls, do: signature(1, func(c *capture, _ *pb.Hop) []byte {
		return bytes.Clone(c.hops.Hops[0].Signature)
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 a P-384 signature under a P-256 key", call: calls, do: signature(1, func(_ *capture, h *pb.Hop) []byte {
		return must(sign(p384(), signedAlone(Call, h.Statement)))
	}), want: tenant.SignatureMalformed, hop: 1, proof: true},
	{name: "H6 SHA-384 under a P-256 key", call: calls, do: signature(1, func(c *capture, h *pb.Hop) []byte {
		digest := sha512.Sum384(signedAlone(Call, h.Statement))
		r, s := rs(c, digest[:])
		return p1363(r, s, elliptic.P256().Params().N, 32)
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 SHA-256 under a P-384 key", call: withKey(p384), do: signature(1, func(c *capture, h *pb.Hop) []byte {
		digest := sha256.Sum256(signedAlone(Call, h.Statement))
		r, s := rs(c, digest[:])
		return p1363(r, s, elliptic.P384().Params().N, 48)
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 PKCS#1 v1.5", call: withKey(rsa2048), do: signature(1, func(_ *capture, h *pb.Hop) []byte {
		digest := sha256.Sum256(signedAlone(Call, h.Statement))
		return must(rsa.SignPKCS1v15(rand.Reader, rsaKey(), crypto.SHA256, digest[:]))
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 PSS with a salt of another length", call: withKey(rsa2048),
		do: pssSignature(&rsa.PSSOptions{SaltLength: 20, Hash: crypto.SHA256}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 PSS with SHA-384", call: withKey(rsa2048),
		do: pssSignature(&rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA384}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 a byte short under RSA", call: withKey(rsa2048), do: signature(1, func(_ *capture, h *pb.Hop) []byte {
		return h.Signature[1:]
	}), want: tenant.SignatureMalformed, hop: 1, proof: true},
	{name: "H6 a signature under the prefix of a message", call: calls, do: signature(1, func(c *capture, h *pb.Hop) []byte {
		return must(sign(c.by[1].PrivateKey, signedAlone(Message, h.Statement)))
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 a signature under the prefix of a grant", call: calls, do: signature(1, func(c *capture, h *pb.Hop) []byte {
		return must(sign(c.by[1].PrivateKey, signedAlone(Grant, h.Statement)))
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 a signature over the statement alone", call: calls, do: over(func(statement []byte) []byte {
		return statement
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 a signature over the root alone", call: calls, do: over(func(statement []byte) []byte {
		return signedAlone(Call, statement)[len(prefixes[Call])+4:]
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 a signature over a tree of two", call: calls, do: over(func(statement []byte) []byte {
		b := signedAlone(Call, statement)
		binary.BigEndian.PutUint32(b[len(prefixes[Call]):], 2)
		return b
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 a signature over the statement taken for a node", call: calls, do: over(func(statement []byte) []byte {
		node := sha256.Sum256(append([]byte{1}, statement...))
		return append(signedAlone(Call, statement)[:len(prefixes[Call])+4], node[:]...)
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 a JWS signature", call: calls, do: over(func(statement []byte) []byte {
		enc := base64.RawURLEncoding
		return []byte(enc.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." + enc.EncodeToString(statement))
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 a TLS signature", call: calls, do: over(func(statement []byte) []byte {
		transcript := sha256.Sum256(statement) // RFC 8446, section 4.4.3
		return slices.Concat(bytes.Repeat([]byte{0x20}, 64), []byte("TLS 1.3, client CertificateVerify\x00"), transcript[:])
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H6 a tree of none", call: calls, do: tree(func(h *pb.Hop) { h.TreeSize = 0 }), want: tenant.SignatureMalformed, hop: 1},
	{name: "H6 a tree of two", call: calls, do: tree(func(h *pb.Hop) { h.TreeSize = 2 }), want: tenant.SignatureMalformed, hop: 1},
	{name: "H6 another leaf of the tree", call: calls, do: tree(func(h *pb.Hop) { h.LeafIndex = 1 }), want: tenant.SignatureMalformed, hop: 1},
	{name: "H6 a path in a tree of one", call: calls, do: tree(func(h *pb.Hop) {
		h.InclusionPath = [][]byte{make([]byte, 32)}
	}), want: tenant.SignatureMalformed, hop: 1},
	{name: "H6 an empty path element in a tree of one", call: calls, do: tree(func(h *pb.Hop) {
		h.InclusionPath = [][]byte{{}}
	}), want: tenant.SignatureMalformed, hop: 1},
	{name: "H6 a signer's key on P-521", call: calls, do: keyed(func() crypto.Signer {
		return newKey(elliptic.P521())
	}), want: tenant.KeyUnsupported, hop: 1},
	{name: "H6 a signer's key on P-224", call: calls, do: keyed(func() crypto.Signer {
		return newKey(elliptic.P224())
	}), want: tenant.KeyUnsupported, hop: 1},
	{name: "H6 a signer's Ed25519 key", call: calls, do: keyed(func() crypto.Signer {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return must(key, err)
	}), want: tenant.KeyUnsupported, hop: 1},
	{name: "H6 a signer's RSA key of 1024 bits", call: calls, do: keyed(func() crypto.Signer {
		return must(rsa.GenerateKey(rand.Reader, 1024))
	}), want: tenant.KeyUnsupported, hop: 1},
	{name: "H6 a signer's RSA key of 4104 bits", call: calls, do: keyed(func() crypto.Signer {
		return longKey{new(big.Int).SetBit(big.NewInt(1), 4103, 1)}
	}), want: tenant.KeyUnsupported, hop: 1},
}

// keyed makes hop 1 name a certificate with a key of another kind.
func keyed(key func() crypto.Signer) func(testing.TB, *capture) {
	return func(_ testing.TB, c *capture) { c.replace(1, root().issueFor(key(), "orders")) }
}

// longKey has a public key that is too long, and no private one: to make one takes seconds.
type longKey struct{ n *big.Int }

func (k longKey) Public() crypto.PublicKey { return &rsa.PublicKey{N: k.n, E: 65537} }
func (longKey) Sign(_ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("no private key")
}

// unknown is a field that no message has: number 1000, a varint.
var unknown = []byte{0xc0, 0x3e, 0x01}

// unknownIn puts an unknown field into a message of statement i.
func unknownIn(i int, m func(*pb.Statement) proto.Message) func(testing.TB, *capture) {
	return func(_ testing.TB, c *capture) {
		c.change(i, func(s *pb.Statement) { m(s).ProtoReflect().SetUnknown(unknown) })
	}
}

// raw changes the bytes of statement 1, which begins 08 01 (version) 10 01 (kind) 18 01 (index) 22 20 (prev).
func raw(f func(b []byte) []byte) func(testing.TB, *capture) {
	return func(t testing.TB, c *capture) {
		if b := c.hops.Hops[1].Statement; !bytes.HasPrefix(b, []byte{0x08, 1, 0x10, 1, 0x18, 1, 0x22, 32}) {
			t.Fatalf("the statement begins % x", b[:8])
		}
		// Those after it must not be decoded with it, so they are linked here.
		c.hops.Hops[1].Statement = f(bytes.Clone(c.hops.Hops[1].Statement))
		c.seal(1)
	}
}

// swap replaces bytes of statement 0 by others, once.
func swap(from, to string) func(testing.TB, *capture) {
	return func(t testing.TB, c *capture) {
		c.changeRaw(0, func(b []byte) []byte {
			if !bytes.Contains(b, []byte(from)) {
				t.Fatalf("no %q in the statement", from)
			}
			return bytes.Replace(b, []byte(from), []byte(to), 1)
		})
	}
}

// claims changes the claims.
func claims(f func(*pb.Claims)) func(testing.TB, *capture) {
	return func(_ testing.TB, c *capture) { c.change(0, func(s *pb.Statement) { f(s.Claims) }) }
}

// statement changes statement 1.
func statement(f func(*pb.Statement)) func(testing.TB, *capture) {
	return func(_ testing.TB, c *capture) { c.change(1, f) }
}

// called changes the method of the last hop, for the receiver too.
func called(method string) func(testing.TB, *capture) {
	return func(_ testing.TB, c *capture) {
		c.want.Target = method
		c.change(c.last(), func(s *pb.Statement) { s.Target = method })
	}
}

// text changes the metadata values.
func text(f func(*Metadata)) func(testing.TB, *capture) {
	return func(_ testing.TB, c *capture) { c.text = f }
}

// One encoding of everything.
var h7 = func() []attack {
	// malformed is refused with ContextMalformed.
	type malformed struct {
		name string
		call func(testing.TB) *capture
		hop  int
		do   func(testing.TB, *capture)
	}
	long := strings.Repeat("x", 513)
	many := func(prefix string) (list []string) {
		for i := range 65 {
			list = append(list, prefix+string(rune('0'+i/10))+string(rune('0'+i%10)))
		}
		return list
	}
	table := []malformed{
		// Unknown fields.
		{"an unknown field in HopChain", calls, -1, func(_ testing.TB, c *capture) { c.hops.ProtoReflect().SetUnknown(unknown) }},
		{"an unknown field in Hop", calls, -1, func(_ testing.TB, c *capture) { c.hops.Hops[0].ProtoReflect().SetUnknown(unknown) }},
		{"an unknown field in CertificateChains", calls, -1, func(_ testing.TB, c *capture) { c.certs.ProtoReflect().SetUnknown(unknown) }},
		{"an unknown field in CertificateChain", calls, -1, func(_ testing.TB, c *capture) { c.certs.Chains[0].ProtoReflect().SetUnknown(unknown) }},
		{"an unknown field in Statement", calls, 1, unknownIn(1, func(s *pb.Statement) proto.Message { return s })},
		{"an unknown field in Claims", calls, 0, unknownIn(0, func(s *pb.Statement) proto.Message { return s.Claims })},
		{"an unknown field in tctx", calls, 0, unknownIn(0, func(s *pb.Statement) proto.Message { return s.Claims.Tctx })},
		{"an unknown field in rctx", calls, 0, unknownIn(0, func(s *pb.Statement) proto.Message { return s.Claims.Rctx })},
		{"an unknown field in an attribute", calls, 0, unknownIn(0, func(s *pb.Statement) proto.Message { return s.Claims.Tctx.Attributes[0] })},
		{"an unknown field in parent", calls, 0, unknownIn(0, func(s *pb.Statement) proto.Message { return s.Claims.Parent })},
		{"an unknown field in elevation", calls, 0, unknownIn(0, func(s *pb.Statement) proto.Message { return s.Claims.Elevation })},
		{"an unknown field in narrowing", narrowed, 0, unknownIn(0, func(s *pb.Statement) proto.Message { return s.Narrowing })},
		{"an unknown field in the scopes of a narrowing", narrowed, 0, unknownIn(0, func(s *pb.Statement) proto.Message { return s.Narrowing.Scope })},
		{"an unknown field in the methods of a narrowing", narrowed, 0, unknownIn(0, func(s *pb.Statement) proto.Message { return s.Narrowing.Methods })},

		// Encodings that are not the canonical one.
		{"a field twice", calls, 1, raw(func(b []byte) []byte { return append([]byte{0x08, 1}, b...) })},
		{"a field twice, first with another value", calls, 1, raw(func(b []byte) []byte { return append([]byte{0x08, 2}, b...) })},
		{"fields out of order", calls, 1, raw(func(b []byte) []byte { b[0], b[2] = b[2], b[0]; return b })},
		{"a field at the end that belongs at the start", calls, 1, raw(func(b []byte) []byte { return append(b[2:], b[:2]...) })},
		{"a varint that is not minimal", calls, 1, raw(func(b []byte) []byte { return append([]byte{0x08, 0x81, 0x00}, b[2:]...) })},
		{"a tag that is not minimal", calls, 1, raw(func(b []byte) []byte { return append([]byte{0x88, 0x00}, b[1:]...) })},
		{"a length that is not minimal", calls, 1, raw(func(b []byte) []byte { return slices.Insert(b, 8, 0x00) })},
		{"a number over 32 bits", calls, 1, raw(func(b []byte) []byte {
			return append([]byte{0x08, 0x81, 0x80, 0x80, 0x80, 0x10}, b[2:]...)
		})},
		{"a default value written out", calls, 0, func(_ testing.TB, c *capture) {
			c.changeRaw(0, func(b []byte) []byte { return slices.Insert(b, 4, 0x18, 0) }) // index 0
		}},
		{"another wire type", calls, 1, raw(func(b []byte) []byte { return append([]byte{0x0d, 1, 0, 0, 0}, b[2:]...) })},
		{"a byte more", calls, 1, raw(func(b []byte) []byte { return append(b, 0) })},
		{"a byte less", calls, 1, raw(func(b []byte) []byte { return b[:len(b)-1] })},
		{"a group", calls, 1, raw(func(b []byte) []byte { return append(b, 0xa3, 0x06, 0xa4, 0x06) })},
		{"an empty statement", calls, -1, func(_ testing.TB, c *capture) {
			c.text = func(m *Metadata) { m.Hops = encodeText("", []byte{0x0a, 2, 0x0a, 0}) }
		}}, // hops{statement: ""} written out
		{"invalid UTF-8", calls, 0, swap("tx-canary", "tx-\xffanary")},
		{"an overlong form of UTF-8", calls, 0, swap("tx-canary", "tx-\xc0\xafnary")},
		{"a NUL", calls, 0, swap("tx-canary", "tx-\x00anary")},
		{"a C1 control character", calls, 0, swap("tx-canary", "tx-\u0085nary")},

		// Text.
		{"padding", calls, -1, text(func(m *Metadata) { m.Hops += "=" })},
		{"a line end inside", calls, -1, text(func(m *Metadata) { m.Hops = m.Hops[:4] + "\n" + m.Hops[4:] })},
		{"a carriage return at the end", calls, -1, text(func(m *Metadata) { m.Hops += "\r" })},
		{"a space", calls, -1, text(func(m *Metadata) { m.Hops = " " + m.Hops })},
		{"base64url", calls, -1, func(_ testing.TB, c *capture) {
			c.text = func(m *Metadata) {
				m.Hops = base64.RawURLEncoding.EncodeToString(must(textEncoding.DecodeString(m.Hops)))
			}
		}},
		{"a bit to spare", calls, -1, func(_ testing.TB, c *capture) {
			for len(toText(c.hops))%4 == 0 {
				c.change(0, func(s *pb.Statement) { s.Claims.Sub += "x" })
			}
			c.text = func(m *Metadata) {
				m.Hops = m.Hops[:len(m.Hops)-1] + alphabet[strings.IndexByte(alphabet, m.Hops[len(m.Hops)-1])+1:][:1]
			}
		}},
		{"padding of the certificates", calls, -1, text(func(m *Metadata) { m.Certs += "=" })},
		{"certificates that are no message", calls, -1, text(func(m *Metadata) { m.Certs = encodeText("", []byte{0}) })},

		// Statements.
		{"no signer", calls, 1, statement(func(s *pb.Statement) { s.X5TS256 = nil })},
		{"a short signer", calls, 1, statement(func(s *pb.Statement) { s.X5TS256 = s.X5TS256[:31] })},
		{"a long signer", calls, 1, statement(func(s *pb.Statement) { s.X5TS256 = append(s.X5TS256, 0) })},
		{"a short jti", calls, 1, statement(func(s *pb.Statement) { s.Jti = s.Jti[:15] })},
		{"a long jti", calls, 1, statement(func(s *pb.Statement) { s.Jti = append(s.Jti, 0) })},
		{"a long prev", calls, 2, func(_ testing.TB, c *capture) {
			c.change(2, func(s *pb.Statement) { s.Prev = append(s.Prev, 0) })
		}},
		{"a call without a binding", calls, 1, statement(func(s *pb.Statement) { s.Binding = nil })},
		{"a long binding", calls, 1, statement(func(s *pb.Statement) { s.Binding = append(s.Binding, 0) })},
		{"a grant with a binding", granted, 0, func(_ testing.TB, c *capture) {
			c.change(0, func(s *pb.Statement) { s.Binding = make([]byte, 32) })
		}},
		{"a grant with a target", granted, 0, func(_ testing.TB, c *capture) {
			c.change(0, func(s *pb.Statement) { s.Target = "/a.B/C" })
		}},
		{"a call without a target", calls, 1, statement(func(s *pb.Statement) { s.Target = "" })},
		{"a target without its slash", calls, 1, statement(func(s *pb.Statement) { s.Target = "a.B/C" })},
		{"a target with two slashes", calls, 1, statement(func(s *pb.Statement) { s.Target = "//a.B/C" })},
		{"a target with three parts", calls, 1, statement(func(s *pb.Statement) { s.Target = "/a.B/C/D" })},
		{"a target with an escape", calls, 1, statement(func(s *pb.Statement) { s.Target = "/a.B%2fC/D" })},
		{"a target with an empty part", calls, 1, statement(func(s *pb.Statement) { s.Target = "/a..B/C" })},
		{"a target with a wildcard", calls, 1, statement(func(s *pb.Statement) { s.Target = "/a.B/*" })},
		{"a long target", calls, 1, statement(func(s *pb.Statement) { s.Target = "/a.B/" + long[5:] + "x" })},
		{"no aud", calls, 1, statement(func(s *pb.Statement) { s.Aud = "" })},
		{"an aud that is no SPIFFE ID", calls, 1, statement(func(s *pb.Statement) { s.Aud = "https://prod.example/orders" })},
		{"an aud in upper case", calls, 1, statement(func(s *pb.Statement) { s.Aud = "spiffe://PROD.example/orders" })},
		{"an aud with dots", calls, 1, statement(func(s *pb.Statement) { s.Aud = "spiffe://prod.example/a/../orders" })},
		{"an aud that is a trust domain", calls, 1, statement(func(s *pb.Statement) { s.Aud = "spiffe://prod.example" })},
		{"an aud of 2049 bytes", calls, 1, statement(func(s *pb.Statement) {
			s.Aud = "spiffe://prod.example/" + strings.Repeat("x", 2049-len("spiffe://prod.example/"))
		})},
		{"a message without a target", calls, 1, statement(func(s *pb.Statement) { s.Kind, s.Target = pb.Kind_KIND_MESSAGE, "" })},
		{"a message without an aud", calls, 1, statement(func(s *pb.Statement) { s.Kind, s.Aud = pb.Kind_KIND_MESSAGE, "" })},
		{"a message with a long aud", calls, 1, statement(func(s *pb.Statement) { s.Kind, s.Aud = pb.Kind_KIND_MESSAGE, long })},
		{"no iat", calls, 1, statement(func(s *pb.Statement) { s.Iat = 0 })},
		{"no exp", calls, 1, statement(func(s *pb.Statement) { s.Exp = 0 })},
		{"an exp that is the iat", calls, 1, statement(func(s *pb.Statement) { s.Exp = s.Iat })},
		{"an exp after the year 9999", calls, 1, statement(func(s *pb.Statement) { s.Exp = maxSeconds + 1 })},
		{"an exp that is negative as an int64", calls, 1, statement(func(s *pb.Statement) { s.Exp = 1<<64 - 1 })},

		// Narrowings.
		{"unsorted scopes in a narrowing", narrowed, 0, func(_ testing.TB, c *capture) {
			c.change(0, func(s *pb.Statement) { slices.Reverse(s.Narrowing.Scope.Values) })
		}},
		{"a method twice in a narrowing", narrowed, 1, func(_ testing.TB, c *capture) {
			c.change(1, func(s *pb.Statement) {
				s.Narrowing.Methods.Values = append(s.Narrowing.Methods.Values, s.Narrowing.Methods.Values...)
			})
		}},
		{"a narrowing to a service", narrowed, 0, func(_ testing.TB, c *capture) {
			c.change(0, func(s *pb.Statement) { s.Narrowing.Methods.Values = []string{"/stock.v1.Service/"} })
		}},
		{"a narrowing to 65 methods", narrowed, 0, func(_ testing.TB, c *capture) {
			c.change(0, func(s *pb.Statement) { s.Narrowing.Methods.Values = many("/a.B/M") })
		}},

		// Claims.
		{"no txn", calls, 0, claims(func(c *pb.Claims) { c.Txn = "" })},
		{"a long txn", calls, 0, claims(func(c *pb.Claims) { c.Txn = long })},
		{"no sub", calls, 0, claims(func(c *pb.Claims) { c.Sub = "" })},
		{"a long sub", calls, 0, claims(func(c *pb.Claims) { c.Sub = long })},
		{"a long iss", calls, 0, claims(func(c *pb.Claims) { c.Iss = long })},
		{"no tctx", calls, 0, claims(func(c *pb.Claims) { c.Tctx = nil })},
		{"no tenant", calls, 0, claims(func(c *pb.Claims) { c.Tctx.Tenant = "" })},
		{"a tenant in upper case", calls, 0, claims(func(c *pb.Claims) { c.Tctx.Tenant = "Acme" })},
		{"no tenant_uid", calls, 0, claims(func(c *pb.Claims) { c.Tctx.TenantUid = "" })},
		{"a long tenant_uid", calls, 0, claims(func(c *pb.Claims) { c.Tctx.TenantUid = long })},
		{"unsorted scopes", calls, 0, claims(func(c *pb.Claims) { slices.Reverse(c.Scope) })},
		{"a scope twice", calls, 0, claims(func(c *pb.Claims) { c.Scope = []string{"a", "a"} })},
		{"an empty scope", calls, 0, claims(func(c *pb.Claims) { c.Scope = []string{""} })},
		{"a scope with a space", calls, 0, claims(func(c *pb.Claims) { c.Scope = []string{"a b"} })},
		{"a scope with a quote", calls, 0, claims(func(c *pb.Claims) { c.Scope = []string{`a"b`} })},
		{"65 scopes", calls, 0, claims(func(c *pb.Claims) { c.Scope = many("s") })},
		{"unsorted attributes", calls, 0, claims(func(c *pb.Claims) { slices.Reverse(c.Tctx.Attributes) })},
		{"an attribute twice", calls, 0, claims(func(c *pb.Claims) { c.Rctx.Attributes = append(c.Rctx.Attributes, c.Rctx.Attributes...) })},
		{"an attribute without a name", calls, 0, claims(func(c *pb.Claims) { c.Rctx.Attributes[0].Name = "" })},
		{"an attribute with a long value", calls, 0, claims(func(c *pb.Claims) { c.Rctx.Attributes[0].Value = long })},
		{"65 attributes", calls, 0, claims(func(c *pb.Claims) {
			c.Rctx.Attributes = nil
			for _, name := range many("a") {
				c.Rctx.Attributes = append(c.Rctx.Attributes, &pb.Attribute{Name: name})
			}
		})},
		{"an rctx that says nothing", calls, 0, claims(func(c *pb.Claims) { c.Rctx.Attributes = nil })},
		{"claims without iat", calls, 0, claims(func(c *pb.Claims) { c.Iat = 0 })},
		{"claims without exp", calls, 0, claims(func(c *pb.Claims) { c.Exp = 0 })},
		{"claims with an exp after the year 9999", calls, 0, claims(func(c *pb.Claims) { c.Exp = maxSeconds + 1 })},
		{"a parent without txn", calls, 0, claims(func(c *pb.Claims) { c.Parent.Txn = "" })},
		{"a parent without statement", calls, 0, claims(func(c *pb.Claims) { c.Parent.Statement = nil })},
		{"an elevation without id", calls, 0, claims(func(c *pb.Claims) { c.Elevation.Id = "" })},
		{"a long elevation", calls, 0, claims(func(c *pb.Claims) { c.Elevation.Id = long })},
	}
	var out []attack
	for _, m := range table {
		out = append(out, attack{name: "H7 " + m.name, call: m.call, do: m.do, want: tenant.ContextMalformed, hop: m.hop})
	}
	return out
}()

// bare is the chain to put among certificates that were sent.
func bare(names ...string) (out []*pb.CertificateChain) {
	for _, svid := range path(names...) {
		out = append(out, certificateChain(svid.Certificates))
	}
	return out
}

// Budgets, and exactly the certificates that are due.
var h8 = []attack{
	{name: "H8 seven hops", call: calls, do: func(_ testing.TB, c *capture) {
		for len(c.hops.Hops) < 7 {
			c.hops.Hops = append(c.hops.Hops, c.hops.Hops[2])
		}
	}, want: tenant.ChainTooLong, hop: -1},
	{name: "H8 a thousand empty hops", call: calls, do: func(_ testing.TB, c *capture) {
		c.hops.Hops = slices.Repeat([]*pb.Hop{{}}, 1000)
	}, want: tenant.ChainTooLong, hop: -1},
	{name: "H8 a byte over budget", call: calls, do: text(func(m *Metadata) {
		m.Hops += strings.Repeat("A", MaxMetadata+1-len(m.Hops)-len(m.Certs))
	}), want: tenant.MetadataTooLarge, hop: -1},
	{name: "H8 certificates a byte over budget", call: calls, do: text(func(m *Metadata) {
		m.Certs += strings.Repeat("A", MaxMetadata+1-len(m.Hops)-len(m.Certs))
	}), want: tenant.MetadataTooLarge, hop: -1},
	{name: "H8 no certificates", call: calls, do: text(func(m *Metadata) { m.Certs = "" }), want: tenant.CertificateMissing, hop: 0},
	{name: "H8 a certificate missing", call: calls, do: func(_ testing.TB, c *capture) {
		c.certs.Chains = c.certs.Chains[:1]
	}, want: tenant.CertificateMissing, hop: 1},
	{name: "H8 a certificate that nobody refers to, at the end", call: calls, do: func(_ testing.TB, c *capture) {
		c.certs.Chains = append(c.certs.Chains, bare("billing")...)
	}, want: tenant.CertificateUnexpected, hop: -1},
	{name: "H8 a certificate that nobody refers to, at the start", call: calls, do: func(_ testing.TB, c *capture) {
		c.certs.Chains = append(bare("billing"), c.certs.Chains...)
	}, want: tenant.CertificateUnexpected, hop: 0},
	{name: "H8 a certificate with a chain of one hop", call: oneCall, do: func(_ testing.TB, c *capture) {
		c.certs.Chains = bare("billing")
	}, want: tenant.CertificateUnexpected, hop: -1},
	{name: "H8 the peer's certificate sent too", call: calls, do: func(_ testing.TB, c *capture) {
		c.certs.Chains = append(c.certs.Chains, certificateChain(c.by[2].Certificates))
	}, want: tenant.CertificateUnexpected, hop: -1},
	{name: "H8 a certificate twice", call: calls, do: func(_ testing.TB, c *capture) {
		c.certs.Chains = slices.Insert(c.certs.Chains, 1, c.certs.Chains[0])
	}, want: tenant.CertificateUnexpected, hop: 1},
	{name: "H8 certificates out of order", call: calls, do: func(_ testing.TB, c *capture) {
		slices.Reverse(c.certs.Chains)
	}, want: tenant.CertificateUnexpected, hop: 0},
	{name: "H8 three intermediates", call: calls, do: func(_ testing.TB, c *capture) {
		c.replace(1, newCA(newCA(newCA(root()))).issue("orders"))
	}, want: tenant.CertificateUnexpected, hop: 1},
	{name: "H8 three intermediates of the peer", call: calls, do: func(_ testing.TB, c *capture) {
		c.replace(2, newCA(newCA(newCA(root()))).issue("inventory"))
	}, want: tenant.SVIDMalformed, hop: 2, proof: true},
	{name: "H8 a chain of no certificates", call: calls, do: func(_ testing.TB, c *capture) {
		c.certs.Chains[0].Certificates = nil
	}, want: tenant.CertificateUnexpected, hop: 0},
	{name: "H8 a certificate that is none", call: calls, do: func(_ testing.TB, c *capture) {
		c.certs.Chains[0].Certificates[0] = []byte("certificate")
	}, want: tenant.ContextMalformed, hop: 0},
	{name: "H8 an empty certificate", call: calls, do: func(_ testing.TB, c *capture) {
		c.certs.Chains[0].Certificates[0] = nil
	}, want: tenant.ContextMalformed, hop: 0},
	{name: "H8 bytes after a certificate", call: calls, do: func(_ testing.TB, c *capture) {
		c.certs.Chains[0].Certificates[0] = append(bytes.Clone(c.certs.Chains[0].Certificates[0]), 0)
	}, want: tenant.ContextMalformed, hop: 0},
	{name: "H8 a certificate without a SPIFFE ID", call: calls,
		do: certified(1, func(c *x509.Certificate) { c.URIs = nil }), want: tenant.SVIDMalformed, hop: 1},
	{name: "H8 a certificate with another URI scheme", call: calls, do: certified(1, func(c *x509.Certificate) {
		c.URIs[0].Scheme = "https"
	}), want: tenant.SVIDMalformed, hop: 1},
	{name: "H8 a certificate with two URI SANs", call: calls, do: certified(1, func(c *x509.Certificate) {
		c.URIs = append(c.URIs, must(url.Parse("spiffe://prod.example/admin")))
	}), want: tenant.SVIDMalformed, hop: 1},
	{name: "H8 a certificate of a trust domain", call: calls, do: certified(1, func(c *x509.Certificate) {
		c.URIs[0] = must(url.Parse("spiffe://prod.example"))
	}), want: tenant.SVIDMalformed, hop: 1},
	{name: "H8 a certificate with a SPIFFE ID of 2049 bytes", call: calls, do: certified(1, func(c *x509.Certificate) {
		c.URIs[0].Path += strings.Repeat("x", 2049-len(c.URIs[0].String()))
	}), want: tenant.SVIDMalformed, hop: 1},
	{name: "H8 a certificate of a CA", call: calls, do: certified(1, func(c *x509.Certificate) {
		c.IsCA = true
	}), want: tenant.SVIDMalformed, hop: 1},
	{name: "H8 a certificate without digitalSignature", call: calls, do: certified(1, func(c *x509.Certificate) {
		c.KeyUsage = x509.KeyUsageKeyEncipherment
	}), want: tenant.SVIDMalformed, hop: 1},
	{name: "H8 a certificate with keyCertSign", call: calls, do: certified(1, func(c *x509.Certificate) {
		c.KeyUsage |= x509.KeyUsageCertSign
	}), want: tenant.SVIDMalformed, hop: 1},
	{name: "H8 a certificate with cRLSign", call: calls, do: certified(1, func(c *x509.Certificate) {
		c.KeyUsage |= x509.KeyUsageCRLSign
	}), want: tenant.SVIDMalformed, hop: 1},
}

// grown is calls, but each hop was signed as leaf 3 of a tree of 8.
func grown(t testing.TB) *capture {
	c := calls(t)
	for i := range c.hops.Hops {
		c.grow(i, i, Call, 3, 8)
	}
	return c
}

// regrown signs hop 1 in another tree, and then changes it.
func regrown(index, size int, f func(*pb.Hop)) func(testing.TB, *capture) {
	return func(_ testing.TB, c *capture) {
		c.grow(1, 1, Call, index, size)
		f(c.hops.Hops[1])
	}
}

// A statement's place in a tree, and the signature of the tree.
var h11 = []attack{
	{name: "H11 the index of the sibling", call: grown, do: tree(func(h *pb.Hop) { h.LeafIndex = 2 }), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H11 the index of a leaf in the other half", call: grown, do: tree(func(h *pb.Hop) { h.LeafIndex = 7 }), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H11 an index that is the size", call: grown, do: tree(func(h *pb.Hop) { h.LeafIndex = 8 }), want: tenant.SignatureMalformed, hop: 1},
	{name: "H11 an index beyond the size", call: grown, do: tree(func(h *pb.Hop) { h.LeafIndex = 3 + 8 }), want: tenant.SignatureMalformed, hop: 1},
	{name: "H11 an index with a shorter path", call: calls, do: regrown(0, 3, func(h *pb.Hop) { h.LeafIndex = 2 }), want: tenant.SignatureMalformed, hop: 1},
	{name: "H11 a size of 0", call: grown, do: tree(func(h *pb.Hop) { h.TreeSize = 0 }), want: tenant.SignatureMalformed, hop: 1},
	{name: "H11 a size of 257, signed", call: calls, do: regrown(0, 257, func(*pb.Hop) {}), want: tenant.SignatureMalformed, hop: 1},
	{name: "H11 another size with as long a path", call: grown, do: tree(func(h *pb.Hop) { h.TreeSize = 7 }), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H11 a size of one with a path", call: grown, do: tree(func(h *pb.Hop) { h.TreeSize, h.LeafIndex = 1, 0 }), want: tenant.SignatureMalformed, hop: 1},
	{name: "H11 no path", call: grown, do: tree(func(h *pb.Hop) { h.InclusionPath = nil }), want: tenant.SignatureMalformed, hop: 1},
	{name: "H11 a hash less", call: grown, do: tree(func(h *pb.Hop) { h.InclusionPath = h.InclusionPath[:2] }), want: tenant.SignatureMalformed, hop: 1},
	{name: "H11 a hash more", call: grown, do: tree(func(h *pb.Hop) {
		h.InclusionPath = append(h.InclusionPath, make([]byte, 32))
	}), want: tenant.SignatureMalformed, hop: 1},
	{name: "H11 a hash of 31 bytes", call: grown, do: tree(func(h *pb.Hop) { h.InclusionPath[1] = h.InclusionPath[1][:31] }), want: tenant.SignatureMalformed, hop: 1},
	{name: "H11 a hash of 33 bytes", call: grown, do: tree(func(h *pb.Hop) {
		h.InclusionPath[1] = append(h.InclusionPath[1], 0)
	}), want: tenant.SignatureMalformed, hop: 1},
	{name: "H11 a bit of the path", call: grown, do: tree(func(h *pb.Hop) { h.InclusionPath[1][0] ^= 1 }), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H11 a path from the root", call: grown, do: tree(func(h *pb.Hop) { slices.Reverse(h.InclusionPath) }), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H11 a node taken for the leaf", call: grown, do: tree(func(h *pb.Hop) {
		h.TreeSize, h.LeafIndex, h.InclusionPath = 4, 1, h.InclusionPath[1:]
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H11 a statement that is two hashes", call: grown, do: tree(func(h *pb.Hop) {
		h.Statement = slices.Concat(h.InclusionPath[0], h.InclusionPath[1])
	}), want: tenant.ContextMalformed, hop: 1},
	{name: "H11 another statement in the place", call: grown, do: func(_ testing.TB, c *capture) {
		c.edit(2, func(s *pb.Statement) { s.Jti[0] ^= 1 })
	}, want: tenant.SignatureInvalid, hop: 2, proof: true},
	{name: "H11 a tree that another signer signed", call: grown, do: func(_ testing.TB, c *capture) {
		c.grow(1, 0, Call, 3, 8)
	}, want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H11 a tree of messages", call: grown, do: func(_ testing.TB, c *capture) {
		c.grow(1, 1, Message, 3, 8)
	}, want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H11 a tree of grants", call: grown, do: func(_ testing.TB, c *capture) {
		c.grow(1, 1, Grant, 3, 8)
	}, want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H11 the signature of another tree", call: grown, do: signature(1, func(c *capture, _ *pb.Hop) []byte {
		return must(sign(c.by[1].PrivateKey, signedBytes(Call, 8, hash{})))
	}), want: tenant.SignatureInvalid, hop: 1, proof: true},
	{name: "H9 garbage for a signature that was verified", call: grown, do: signature(2, func(_ *capture, h *pb.Hop) []byte {
		return append([]byte{h.Signature[0] ^ 1}, h.Signature[1:]...)
	}), want: tenant.SignatureInvalid, hop: 2, proof: true},
	{name: "H9 the signature that was verified of another hop", call: again, do: signature(0, func(c *capture, _ *pb.Hop) []byte {
		return c.hops.Hops[2].Signature // by the same signer
	}), want: tenant.SignatureInvalid, hop: 0, proof: true},
	{name: "H9 a certificate that was verified, with others behind it", call: calls, do: func(_ testing.TB, c *capture) {
		c.certs.Chains[0].Certificates = append(c.certs.Chains[0].Certificates, c.certs.Chains[1].Certificates[0])
	}, want: tenant.SVIDMalformed, hop: 0, proof: true},
}

// What stands at the edge of what is refused must pass.
func TestEdges(t *testing.T) {
	for _, e := range []struct {
		name string
		call func(testing.TB) *capture
		do   func(testing.TB, *capture)
	}{
		// The numbers are SPEC.md's, not the constants that are tested.
		{"iat before the hop before by the skew", calls, issued(1, -30*time.Second)},
		{"iat before the claims by the skew", calls, issued(0, -30*time.Second)},
		{"an earlier hop issued in the future by the skew", calls, issued(0, 30*time.Second)},
		{"the last hop issued in the future by the skew", calls, issued(2, 30*time.Second)},
		{"claims issued in the future by the skew", calls, claims(func(c *pb.Claims) { c.Iat = second(30 * time.Second) })},
		{"a last hop as old as its freshness", calls, at(60 * time.Second)},
		{"an earlier hop older than its freshness", calls, func(t testing.TB, c *capture) {
			issued(2, 2*time.Minute)(t, c)
			at(2*time.Minute)(t, c)
		}},
		{"claims in their last nanosecond", calls, func(t testing.TB, c *capture) {
			issued(2, 5*time.Minute-time.Second)(t, c)
			at(5*time.Minute-time.Nanosecond)(t, c)
		}},
		{"exp at the NotAfter of its signer", calls, certified(1, between(noon.Add(-time.Hour), noon.Add(5*time.Minute)))},
		{"a certificate valid from now", calls, certified(0, between(noon, noon.Add(time.Hour)))},
		{"an exp in the year 9999", oneCall, func(_ testing.TB, c *capture) {
			c.replace(0, newCA(root()).issue("gateway", between(noon, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC))))
			c.change(0, func(s *pb.Statement) { s.Claims.Exp, s.Exp = maxSeconds, maxSeconds })
		}},
		{"two intermediates", calls, func(_ testing.TB, c *capture) {
			c.replace(1, newCA(newCA(root())).issue("orders"))
			c.replace(2, newCA(newCA(root())).issue("inventory"))
		}},
		{"a grant at index 0", granted, func(testing.TB, *capture) {}},
		{"hops in trees", grown, func(testing.TB, *capture) {}},
		{"the last of 256 leaves", calls, regrown(255, 256, func(*pb.Hop) {})},
		{"a narrowing that narrows nothing", calls, statement(func(s *pb.Statement) { s.Narrowing = &pb.Narrowing{} })},
		{"a narrowing of methods that leaves out its own", calls, statement(func(s *pb.Statement) {
			s.Narrowing = &pb.Narrowing{Methods: &pb.MethodSet{Values: []string{"/stock.v1.Service/Do"}}}
		})},
		{"no optional claim", calls, claims(func(c *pb.Claims) {
			c.Iss, c.Scope, c.Tctx.Classification, c.Tctx.Attributes = "", nil, 0, nil
			c.Rctx, c.Parent, c.Elevation = nil, nil, nil
		})},
		{"a txn of 512 bytes", oneCall, claims(func(c *pb.Claims) { c.Txn = strings.Repeat("x", 512) })},
		{"64 scopes", oneCall, claims(func(c *pb.Claims) {
			c.Scope = nil
			for i := range 64 {
				c.Scope = append(c.Scope, fmt.Sprintf("%02d", i))
			}
		})},
		{"64 attributes", oneCall, claims(func(c *pb.Claims) {
			c.Rctx.Attributes = nil
			for i := range 64 {
				c.Rctx.Attributes = append(c.Rctx.Attributes, &pb.Attribute{Name: fmt.Sprintf("%02d", i)})
			}
		})},
		{"a scope of 512 bytes", oneCall, claims(func(c *pb.Claims) { c.Scope = []string{strings.Repeat("x", 512)} })},
		{"the characters at the ends of a scope's ranges", oneCall, claims(func(c *pb.Claims) { c.Scope = []string{"!#[]~"} })},
		{"a target of 512 bytes", oneCall, called("/a/" + strings.Repeat("x", 509))},
		{"the characters at the ends of a name's ranges", oneCall, called("/09.AZ.az_/_")},
		{"an aud of 2048 bytes", oneCall, func(_ testing.TB, c *capture) {
			prefix := "spiffe://prod.example/"
			c.want.Self = spiffeid.RequireFromString(prefix + strings.Repeat("x", 2048-len(prefix)))
			c.change(0, func(s *pb.Statement) { s.Aud = c.want.Self.String() })
		}},
	} {
		t.Run(e.name, func(t *testing.T) {
			c := e.call(t)
			e.do(t, c)
			if _, err := c.verify(t); err != nil {
				t.Error(err)
			}
		})
	}
}

// The budget counts both keys, as text.
func TestBudgetEdge(t *testing.T) {
	c := oneCall(t)
	c.text = func(m *Metadata) { m.Hops, m.Certs = strings.Repeat("A", MaxMetadata-4), "AAAA" }
	if _, err := c.verify(t); tenant.ReasonOf(err) != tenant.ContextMalformed {
		t.Errorf("as much as the budget: %v, want that it is read and %s", err, tenant.ContextMalformed)
	}
	c.text = func(m *Metadata) { m.Hops, m.Certs = strings.Repeat("A", MaxMetadata-3), "AAAA" }
	if _, err := c.verify(t); tenant.ReasonOf(err) != tenant.MetadataTooLarge {
		t.Errorf("a byte more: %v, want %s", err, tenant.MetadataTooLarge)
	}
}
