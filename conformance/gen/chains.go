package main

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"slices"
	"time"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
)

// chain is a vector of chains.json: a base that is changed. It is positive if
// reason is empty.
type chain struct {
	lines, comment string
	base           string
	do             func(*call)
	reason         string
	hop            int // -1: none is named
}

// bases are the calls that others start from: gateway → orders → inventory → stock
// unless their comment says otherwise.
var bases = []struct {
	id, comment string
	call        func() *call
}{
	{"three-hops", "gateway → orders → inventory → stock.", threeHops},
	{"one-hop", "gateway → orders.", func() *call { return newCall(someClaims(), workloads("gateway", "orders")) }},
	{"six-hops", "The longest chain. A workload may stand on it again.", func() *call {
		return newCall(short(), workloads("gateway", "orders", "gateway", "orders", "gateway", "orders", "stock"))
	}},
	{"all-claims", "Every claim.", func() *call { return newCall(allClaims(), workloads("gateway", "orders")) }},
	{"few-claims", "No optional claim.", func() *call { return newCall(short(), workloads("gateway", "orders")) }},
	{"granted", "A grant by an authority to the gateway, which then calls orders.", func() *call {
		return newCall(someClaims(), workloads("tts", "gateway", "orders"), func(i int, s *pb.Statement) {
			if i == 0 {
				s.Kind, s.Target, s.Binding = pb.Kind_KIND_GRANT, "", nil
			}
		})
	}},
	{"narrowed", "Scopes and methods are narrowed by the first and the second hop.", func() *call {
		return newCall(someClaims(), workloads("gateway", "orders", "inventory", "stock"), func(i int, s *pb.Statement) {
			switch i {
			case 0:
				s.Narrowing = narrowing([]string{"orders.read", "orders.write"}, []string{"/inventory.v1.Service/Do", "/stock.v1.Service/Do"})
			case 1:
				s.Narrowing = narrowing([]string{"orders.read"}, []string{"/stock.v1.Service/Do"})
			}
		})
	}},
	{"p384", "The second signer has a key on P-384.", withKey(ecKeyOn(elliptic.P384()))},
	{"rsa", "The second signer has an RSA key of 2048 bits.", withKey(func() crypto.Signer { return rsaKeys["workload"] })},
	{"intermediates", "Two intermediates of an earlier signer, and one of the peer.", func() *call {
		r := root()
		return newCall(someClaims(), []*identity{
			newCA(newCA(r, "prod.example", "one"), "prod.example", "two").issue("/gateway"),
			newCA(r, "prod.example", "one").issue("/orders"), r.issue("/stock"),
		})
	}},
	{"federated", "The first signer is of a federated trust domain.", func() *call {
		c := newCall(someClaims(), []*identity{partner().issue("/gateway"), root().issue("/orders"), root().issue("/stock")})
		c.input["bundles"] = bundles(root(), partner())
		return c
	}},
	{"policy", "gateway → orders → inventory by a policy.", func() *call {
		c := newCall(policyClaims(), workloads("gateway", "orders", "inventory"))
		c.input["policy"] = policyText
		return c
	}},
	{"policy-runner", "A tenant's own workload, whose SPIFFE ID names the tenant → orders → inventory.", func() *call {
		claims := policyClaims()
		claims.Iss, claims.Scope = "", []string{"orders.read"}
		c := newCall(claims, []*identity{root().issue("/tenant/acme/runner/7"), root().issue("/orders"), root().issue("/inventory")})
		c.input["policy"] = policyText
		return c
	}},
}

func threeHops() *call {
	return newCall(someClaims(), workloads("gateway", "orders", "inventory", "stock"))
}

func short() *pb.Claims {
	return &pb.Claims{
		Txn: "01JNA8RZ4E6T0V2X8B4D6F8H0K", Sub: "alice", Tctx: &pb.TransactionContext{Tenant: "acme", TenantUid: "01J9ZK3V5Q8W7RBNXH2C4D6E8F"},
		Iat: second(0), Exp: second(5 * time.Minute),
	}
}

func ecKeyOn(curve elliptic.Curve) func() crypto.Signer {
	return func() crypto.Signer { return ecKey(curve, curve.Params().Name) }
}

func withKey(key func() crypto.Signer) func() *call {
	return func() *call {
		path := workloads("gateway", "orders", "inventory", "stock")
		path[1] = root().issueFor(key(), "/orders")
		return newCall(someClaims(), path)
	}
}

// narrowing bounds scopes and methods; nil leaves what was allowed.
func narrowing(scopes, methods []string) *pb.Narrowing {
	n := new(pb.Narrowing)
	if scopes != nil {
		n.Scope = &pb.ScopeSet{Values: scopes}
	}
	if methods != nil {
		n.Methods = &pb.MethodSet{Values: methods}
	}
	return n
}

func chainVectors() []vectors.Vector {
	from := make(map[string]vectors.Vector)
	build := make(map[string]func() *call)
	var out []vectors.Vector
	for _, b := range bases {
		c := b.call()
		from[b.id], build[b.id] = base(b.id, b.comment, c.vector(), c.ok()), b.call
		out = append(out, from[b.id])
	}
	for _, t := range slices.Concat(handedOn, structure, widened, peers, times, signatures, trees, encodings, budgets, headers, policies) {
		c := build[t.base]()
		t.do(c)
		var ok object
		if t.reason == "" {
			ok = c.ok()
		}
		out = append(out, derived(t.lines, t.comment, from[t.base], c.vector(), ok, t.reason, t.hop))
	}
	return out
}

// Changes of calls.

// set replaces an input.
func set(name string, value any) func(*call) {
	return func(c *call) { c.input[name] = value }
}

func changed(i int, f func(*pb.Statement)) func(*call) {
	return func(c *call) { c.change(i, f) }
}

// issued changes the iat of statement i.
func issued(i int, d time.Duration) func(*call) {
	return changed(i, func(s *pb.Statement) { s.Iat = second(d) })
}

// at makes the call be verified at another time.
func at(d time.Duration) func(*call) {
	return func(c *call) { c.input["now"] = noon.Add(d).Unix() }
}

// expiring changes the exp of statement i and of those after it.
func expiring(c *call, i int, d time.Duration) {
	for j := i; j <= c.last(); j++ {
		c.edit(j, func(s *pb.Statement) { s.Exp = second(d) })
	}
	c.seal(i)
}

// certified gives hop i another certificate of the same workload.
func certified(i int, change ...func(*x509.Certificate)) func(*call) {
	return func(c *call) {
		path := c.by[i].id[len("spiffe://prod.example"):]
		c.replace(i, root().issue(path, change...))
	}
}

// keyed gives orders, which signs hop 1, another key.
func keyed(key func() crypto.Signer) func(*call) {
	return func(c *call) { c.replace(1, root().issueFor(key(), "/orders")) }
}
