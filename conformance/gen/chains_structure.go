package main

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
)

func other(names ...string) *call {
	claims := someClaims()
	claims.Txn = "01JNA8RZ4E6T0V2X8B4D6F8H0Z"
	return newCall(claims, workloads(names...))
}

func second7(i *identity) *identity { // another SVID of the same workload
	r := root()
	return r.issueFor(p256("second "+i.id), i.id[len("spiffe://prod.example"):])
}

func granting(s *pb.Statement) {
	s.Kind, s.Target, s.Binding = pb.Kind_KIND_GRANT, "", nil
}

// handedOn: a context that was handed on, and is used elsewhere.
var handedOn = []chain{
	{"H1", "Replayed by another workload of the trust domain.", "one-hop", func(c *call) {
		c.input["peer"] = base64s(workloads("billing")[0].chain)
	}, "SIGNER_NOT_PEER", 0},
	{"H1", "A chain of three replayed by another workload.", "three-hops", func(c *call) {
		c.input["peer"] = base64s(workloads("billing")[0].chain)
	}, "SIGNER_NOT_PEER", 2},
	{"H1", "Replayed by the receiver's own SVID.", "three-hops", func(c *call) {
		c.input["peer"] = base64s(workloads("stock")[0].chain)
	}, "SIGNER_NOT_PEER", 2},
	{"H1", "Replayed by another SVID of the same workload.", "one-hop", func(c *call) {
		c.input["peer"] = base64s(second7(c.by[0]).chain)
	}, "SIGNER_NOT_PEER", 0},
	{"H1", "Another workload adds its hop to a chain that was handed to inventory.", "three-hops", func(c *call) {
		c.replace(2, workloads("billing")[0])
	}, "AUDIENCE_MISMATCH", 1},
	{"H1", "A workload of another trust domain with the same path adds its hop.", "federated", func(c *call) {
		c.replace(1, partner().issue("/orders"))
	}, "AUDIENCE_MISMATCH", 0},
	{"H1", "On another connection.", "three-hops", set("binding", "00"+"11223344556677889900112233445566778899001122334455667788990011"), "CHANNEL_MISMATCH", 2},
	{"H1", "On the connection of the hop before.", "three-hops", func(c *call) {
		b := randomly("connection 1")
		c.input["binding"] = hexOf(b[:])
	}, "CHANNEL_MISMATCH", 2},
	{"H1", "For another method of the service.", "three-hops", set("method", "/stock.v1.Service/Delete"), "TARGET_MISMATCH", 2},
	{"H1", "For a method in another case.", "three-hops", set("method", "/stock.v1.Service/do"), "TARGET_MISMATCH", 2},
	{"H1", "To another callee.", "three-hops", set("self", "spiffe://prod.example/stockroom"), "AUDIENCE_MISMATCH", 2},
	{"H1", "To the callee's namesake in another trust domain.", "three-hops", set("self", "spiffe://test.example/stock"), "AUDIENCE_MISMATCH", 2},
	{"H1", "A grant used by another than its aud.", "granted", func(c *call) {
		c.replace(1, workloads("billing")[0])
	}, "AUDIENCE_MISMATCH", 0},
	{"H1", "A grant at index 1.", "three-hops", changed(1, granting), "KIND_MISMATCH", 1},
	{"H1", "A grant presented as a call.", "one-hop", changed(0, granting), "KIND_MISMATCH", 0},
	{"H1", "Without a peer.", "three-hops", set("peer", []any{}), "PEER_UNAUTHENTICATED", -1},
}

// structure: the hops of a chain are what they were, in their order.
var structure = []chain{
	{"H2", "The first hop removed.", "three-hops", func(c *call) {
		c.hops.Hops, c.certs.Chains = c.hops.Hops[1:], c.certs.Chains[1:]
	}, "CHAIN_BROKEN", 0},
	{"H2", "A middle hop removed.", "three-hops", func(c *call) {
		c.hops.Hops, c.certs.Chains = slices.Delete(c.hops.Hops, 1, 2), c.certs.Chains[:1]
	}, "CHAIN_BROKEN", 1},
	{"H2", "A middle hop removed by the last signer.", "three-hops", func(c *call) {
		c.hops.Hops, c.by = slices.Delete(c.hops.Hops, 1, 2), slices.Delete(slices.Clone(c.by), 1, 2)
		c.certs.Chains = c.certs.Chains[:1]
		c.edit(1, func(s *pb.Statement) { s.Index = 1 })
		c.relink(0)
		c.sign(1)
	}, "AUDIENCE_MISMATCH", 0},
	{"H2", "The last hop removed.", "three-hops", func(c *call) {
		c.hops.Hops, c.certs.Chains = c.hops.Hops[:2], c.certs.Chains[:1]
	}, "SIGNER_NOT_PEER", 1},
	{"H2", "All hops removed, and an empty value sent.", "one-hop", func(c *call) {
		c.text = func(hops, _ *any) { *hops = "" }
	}, "CONTEXT_MALFORMED", -1},
	{"H2", "All hops removed.", "three-hops", func(c *call) {
		c.text = func(hops, _ *any) { *hops = nil }
	}, "CONTEXT_MISSING", -1},
	{"H2", "A hop inserted from another transaction.", "three-hops", func(c *call) {
		c.hops.Hops = slices.Insert(c.hops.Hops, 1, other("gateway", "orders", "inventory").hops.Hops[1])
	}, "CHAIN_BROKEN", 1},
	{"H2", "A hop inserted by its signer and the one after.", "three-hops", func(c *call) {
		mallory := workloads("mallory")[0]
		c.hops.Hops = slices.Insert(c.hops.Hops, 2, proto.CloneOf(c.hops.Hops[1]))
		c.by = slices.Insert(slices.Clone(c.by), 2, mallory)
		c.certs.Chains = append(c.certs.Chains, nil)
		c.edit(2, func(s *pb.Statement) { s.Index, s.Jti = 2, make([]byte, 16) })
		c.edit(3, func(s *pb.Statement) { s.Index = 3 })
		c.relink(1)
		c.replace(2, mallory)
	}, "AUDIENCE_MISMATCH", 1},
	{"H2", "Hops reordered.", "three-hops", func(c *call) {
		h := c.hops.Hops
		h[0], h[1] = h[1], h[0]
	}, "CHAIN_BROKEN", 0},
	{"H2", "The first hop duplicated.", "three-hops", func(c *call) {
		c.hops.Hops = slices.Insert(c.hops.Hops, 1, c.hops.Hops[0])
	}, "CHAIN_BROKEN", 1},
	{"H2", "The last hop duplicated.", "three-hops", func(c *call) {
		c.hops.Hops = append(c.hops.Hops, c.hops.Hops[2])
	}, "CHAIN_BROKEN", 3},
	{"H2", "A jti repeated.", "three-hops", func(c *call) {
		jti := c.statement(0).Jti
		c.change(2, func(s *pb.Statement) { s.Jti = jti })
	}, "TOKEN_ID_REPEATED", 2},
	{"H2", "An index skipped.", "three-hops", changed(1, func(s *pb.Statement) { s.Index = 2 }), "CHAIN_BROKEN", 1},
	{"H2", "An index beyond every chain.", "three-hops", changed(1, func(s *pb.Statement) { s.Index = 1<<32 - 1 }), "CHAIN_BROKEN", 1},
	{"H2", "The prev of another statement.", "three-hops", func(c *call) {
		c.edit(1, func(s *pb.Statement) { s.Prev[0] ^= 1 })
		c.seal(1)
	}, "CHAIN_BROKEN", 1},
	{"H2", "The prev of the statement before the one before.", "three-hops", func(c *call) {
		prev := c.statement(1).Prev
		c.change(2, func(s *pb.Statement) { s.Prev = prev })
	}, "CHAIN_BROKEN", 2},
	{"H2", "No prev at index 1.", "three-hops", changed(1, func(s *pb.Statement) { s.Prev = nil }), "CHAIN_BROKEN", 1},
	{"H2", "A prev at index 0.", "three-hops", changed(0, func(s *pb.Statement) { s.Prev = make([]byte, 32) }), "CHAIN_BROKEN", 0},
	{"H2", "The tail spliced from another transaction.", "three-hops", func(c *call) {
		c.hops.Hops[2] = other("gateway", "orders", "inventory", "stock").hops.Hops[2]
	}, "CHAIN_BROKEN", 2},
	{"H2", "The first statement of another transaction.", "three-hops", func(c *call) {
		c.hops.Hops[0] = other("gateway", "orders", "inventory", "stock").hops.Hops[0]
	}, "CHAIN_BROKEN", 1},
	{"H2", "The claims exchanged.", "three-hops", func(c *call) {
		c.edit(0, func(s *pb.Statement) { s.Claims.Tctx.Tenant = "globex" })
	}, "CHAIN_BROKEN", 1},
	{"H2 H3", "The tenant exchanged by all signers but the first.", "three-hops", func(c *call) {
		c.edit(0, func(s *pb.Statement) { s.Claims.Tctx.Tenant = "globex" })
		c.relink(0)
		c.sign(1)
		c.sign(2)
	}, "SIGNATURE_INVALID", 0},
	{"H2", "Claims at index 1.", "three-hops", changed(1, func(s *pb.Statement) { s.Claims = someClaims() }), "CHAIN_BROKEN", 1},
	{"H2", "No claims at index 0.", "three-hops", changed(0, func(s *pb.Statement) { s.Claims = nil }), "CHAIN_BROKEN", 0},
	{"H2", "A message presented as a call.", "three-hops", changed(2, func(s *pb.Statement) { s.Kind = pb.Kind_KIND_MESSAGE }), "KIND_MISMATCH", 2},
	{"H2", "A call after a message.", "three-hops", changed(1, func(s *pb.Statement) { s.Kind = pb.Kind_KIND_MESSAGE }), "KIND_MISMATCH", 1},
	{"H2", "No kind.", "three-hops", changed(1, func(s *pb.Statement) { s.Kind = 0 }), "KIND_MISMATCH", 1},
	{"H2", "An unknown kind.", "three-hops", changed(1, func(s *pb.Statement) { s.Kind = 4 }), "KIND_MISMATCH", 1},
	{"H2", "A kind of -1.", "three-hops", changed(1, func(s *pb.Statement) { s.Kind = -1 }), "KIND_MISMATCH", 1},
	{"H2", "Another version.", "three-hops", changed(1, func(s *pb.Statement) { s.Version = 2 }), "VERSION_UNSUPPORTED", 1},
	{"H2", "No version.", "three-hops", changed(0, func(s *pb.Statement) { s.Version = 0 }), "VERSION_UNSUPPORTED", 0},
}

// widened: what a hop leaves never grows again.
var widened = []chain{
	{"H3", "A narrowing that says nothing.", "three-hops", changed(1, func(s *pb.Statement) { s.Narrowing = new(pb.Narrowing) }), "", -1},
	{"H3", "A narrowing to no scope, and to the methods after it.", "three-hops", changed(1, func(s *pb.Statement) {
		s.Narrowing = narrowing([]string{}, []string{"/stock.v1.Service/Do"})
	}), "", -1},
	{"H3", "The last hop narrows.", "three-hops", changed(2, func(s *pb.Statement) {
		s.Narrowing = narrowing([]string{"stock.read"}, []string{})
	}), "", -1},
	{"H3", "A scope that the claims do not hold.", "three-hops", changed(1, func(s *pb.Statement) {
		s.Narrowing = narrowing([]string{"orders.admin", "orders.read"}, nil)
	}), "SCOPE_WIDENED", 1},
	{"H3", "A scope of which the claims hold a prefix.", "three-hops", changed(0, func(s *pb.Statement) {
		s.Narrowing = narrowing([]string{"orders.read.all"}, nil)
	}), "SCOPE_WIDENED", 0},
	{"H3", "A scope that was narrowed away upstream.", "narrowed", changed(2, func(s *pb.Statement) {
		s.Narrowing = narrowing([]string{"orders.write"}, nil)
	}), "SCOPE_WIDENED", 2},
	{"H3", "A scope after all scopes were narrowed away.", "three-hops", func(c *call) {
		c.edit(1, func(s *pb.Statement) { s.Narrowing = narrowing([]string{}, nil) })
		c.edit(2, func(s *pb.Statement) { s.Narrowing = narrowing([]string{"orders.read"}, nil) })
		c.seal(1)
	}, "SCOPE_WIDENED", 2},
	{"H3", "A scope where the claims hold none.", "few-claims", changed(0, func(s *pb.Statement) {
		s.Narrowing = narrowing([]string{"orders.read"}, nil)
	}), "SCOPE_WIDENED", 0},
	{"H3", "A method that was narrowed away is called.", "narrowed", changed(0, func(s *pb.Statement) {
		s.Narrowing.Methods.Values = []string{"/stock.v1.Service/Do"}
	}), "METHOD_NARROWED", 1},
	{"H3", "A method that was narrowed away two hops upstream is called.", "three-hops", changed(0, func(s *pb.Statement) {
		s.Narrowing = narrowing(nil, []string{"/inventory.v1.Service/Do"})
	}), "METHOD_NARROWED", 2},
	{"H3", "A call after all methods were narrowed away.", "three-hops", changed(1, func(s *pb.Statement) {
		s.Narrowing = narrowing(nil, []string{})
	}), "METHOD_NARROWED", 2},
	{"H3", "A method allowed again that was narrowed away.", "narrowed", changed(2, func(s *pb.Statement) {
		s.Narrowing = narrowing(nil, []string{"/inventory.v1.Service/Do"})
	}), "SCOPE_WIDENED", 2},
	{"H3", "The tenant changed in the middle.", "three-hops", changed(2, func(s *pb.Statement) {
		s.Claims = someClaims()
		s.Claims.Tctx.Tenant = "globex"
	}), "CHAIN_BROKEN", 2},
	{"H3", "The subject changed by all signers but the first.", "three-hops", func(c *call) {
		c.edit(0, func(s *pb.Statement) { s.Claims.Sub = "root" })
		c.relink(0)
		c.sign(1)
		c.sign(2)
	}, "SIGNATURE_INVALID", 0},
}

// peers: who signed the last hop, and who may stand on the path.
var peers = []chain{
	{"H4", "The peer signed the hop before.", "three-hops", func(c *call) {
		c.input["peer"] = base64s(c.by[1].chain)
	}, "SIGNER_NOT_PEER", 2},
	{"H4", "The peer signed the first hop.", "three-hops", func(c *call) {
		c.input["peer"] = base64s(c.by[0].chain)
	}, "SIGNER_NOT_PEER", 2},
	{"H4", "The last hop names the peer, and another signed it.", "three-hops", func(c *call) {
		c.by = slices.Clone(c.by)
		c.by[2] = c.by[1]
		c.sign(2)
	}, "SIGNATURE_INVALID", 2},
	{"H4", "An earlier hop signed by another than it names.", "three-hops", func(c *call) {
		c.by = slices.Clone(c.by)
		c.by[0] = second7(c.by[0])
		c.sign(0)
	}, "SIGNATURE_INVALID", 0},
	{"H4", "The intermediates of the peer come before its leaf.", "intermediates", func(c *call) {
		chain := slices.Clone(c.by[1].chain)
		slices.Reverse(chain)
		c.input["peer"] = base64s(chain)
	}, "SIGNER_NOT_PEER", 1},
	{"H4", "An intermediate of the peer that nobody needs, though its leaf signed earlier hops too.", "six-hops", func(c *call) {
		c.input["peer"] = base64s([][]byte{c.by[5].chain[0], newCA(root(), "prod.example", "one").cert.Raw})
	}, "SVID_MALFORMED", 5},
	{"H4", "The peer lacks an intermediate, though it came with an earlier hop of the same leaf.", "six-hops", func(c *call) {
		orders := newCA(root(), "prod.example", "one").issue("/orders")
		c.replace(1, orders)
		for _, i := range []int{3, 5} {
			c.by[i] = orders
			c.edit(i, func(s *pb.Statement) { s.X5TS256 = orders.thumbprint() })
		}
		c.seal(1)
		c.input["peer"] = base64s(orders.chain[:1])
	}, "SVID_UNTRUSTED", 5},
}

const minute = time.Minute

// times: certificates, and what may follow what.
var times = []chain{
	{"H5", "An iat that lies before that of the hop before by the skew.", "three-hops", issued(1, -minute/2), "", -1},
	{"H5", "An iat that lies before that of the claims by the skew.", "three-hops", issued(0, -minute/2), "", -1},
	{"H5", "The last hop issued in the future by the skew.", "three-hops", issued(2, minute/2), "", -1},
	{"H5", "A last hop as old as its freshness.", "three-hops", at(minute), "", -1},
	{"H5", "An earlier hop older than the freshness.", "three-hops", func(c *call) {
		issued(2, 2*minute)(c)
		at(2 * minute)(c)
	}, "", -1},
	{"H5", "The second before the claims expire.", "three-hops", func(c *call) {
		issued(2, 5*minute-time.Second)(c)
		at(5*minute - time.Second)(c)
	}, "", -1},
	{"H5", "An exp at the NotAfter of its signer.", "three-hops", certified(1, between(noon.Add(-time.Hour), noon.Add(5*minute))), "", -1},
	{"H5", "A certificate that is valid from now on.", "three-hops", certified(0, between(noon, noon.Add(time.Hour))), "", -1},
	{"H5", "An exp in the last second of the year 9999.", "one-hop", func(c *call) {
		certified(0, between(noon, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)))(c)
		c.change(0, func(s *pb.Statement) { s.Claims.Exp, s.Exp = 253402300799, 253402300799 })
	}, "", -1},

	{"H5", "The certificate of an earlier signer is not valid yet.", "three-hops", certified(0, between(noon.Add(time.Second), noon.Add(time.Hour))), "SVID_EXPIRED", 0},
	{"H5", "The certificate of the peer is not valid yet.", "three-hops", certified(2, between(noon.Add(time.Second), noon.Add(time.Hour))), "SVID_EXPIRED", 2},
	{"H5", "The certificate of an earlier signer expired, and its statement with it.", "three-hops", func(c *call) {
		certified(1, between(noon.Add(-time.Hour), noon.Add(-time.Second)))(c)
		c.edit(1, func(s *pb.Statement) { s.Iat = second(-10 * time.Second) })
		c.edit(2, func(s *pb.Statement) { s.Iat = second(-10 * time.Second) })
		expiring(c, 1, -time.Second)
	}, "CONTEXT_EXPIRED", 1},
	{"H5", "An intermediate of an earlier signer expired.", "three-hops", func(c *call) {
		c.replace(0, newCA(root(), "prod.example", "early", between(noon.Add(-time.Hour), noon.Add(-time.Second))).issue("/gateway"))
	}, "SVID_EXPIRED", 0},
	{"H5", "An intermediate of an earlier signer in the second of its NotAfter.", "three-hops", func(c *call) {
		c.replace(0, newCA(root(), "prod.example", "now", between(noon.Add(-time.Hour), noon)).issue("/gateway"))
	}, "SVID_EXPIRED", 0},
	{"H5", "The bundle of the trust domain removed since.", "three-hops", set("bundles", object{}), "SVID_UNTRUSTED", 0},
	{"H5", "The bundle of the first signer's trust domain removed since.", "federated", func(c *call) {
		c.input["bundles"] = bundles(root())
	}, "SVID_UNTRUSTED", 0},
	{"H5", "An earlier signer's certificate by another authority of the same name.", "three-hops", func(c *call) {
		c.replace(1, rogue().issue("/orders"))
	}, "SVID_UNTRUSTED", 1},
	{"H5", "The peer's certificate by another authority of the same name.", "three-hops", func(c *call) {
		c.replace(2, rogue().issue("/inventory"))
	}, "SVID_UNTRUSTED", 2},
	{"H5", "An exp beyond the NotAfter of its signer.", "three-hops", certified(1, between(noon.Add(-time.Hour), noon.Add(299*time.Second))), "LIFETIME_EXCEEDED", 1},
	{"H5", "An exp beyond the claims.", "one-hop", func(c *call) { expiring(c, 0, 301*time.Second) }, "LIFETIME_EXCEEDED", 0},
	{"H5", "An exp beyond the hop before.", "three-hops", changed(0, func(s *pb.Statement) { s.Exp = second(299 * time.Second) }), "LIFETIME_EXCEEDED", 1},
	{"H5", "An iat before that of the hop before by more than the skew.", "three-hops", issued(1, -31*time.Second), "TIME_REVERSED", 1},
	{"H5", "An iat before that of the claims by more than the skew.", "three-hops", issued(0, -31*time.Second), "TIME_REVERSED", 0},
	{"H5", "An earlier hop issued in the future.", "three-hops", issued(0, 31*time.Second), "CONTEXT_NOT_YET_VALID", 0},
	{"H5", "The last hop issued in the future.", "three-hops", issued(2, 31*time.Second), "CONTEXT_NOT_YET_VALID", 2},
	{"H5", "Claims issued in the future.", "three-hops", changed(0, func(s *pb.Statement) { s.Claims.Iat = second(31 * time.Second) }), "CONTEXT_NOT_YET_VALID", 0},
	{"H5", "A last hop older than its freshness.", "three-hops", at(minute + time.Second), "CONTEXT_STALE", 2},
	{"H5", "Expired claims.", "three-hops", changed(0, func(s *pb.Statement) { s.Claims.Iat, s.Claims.Exp = second(-minute), second(0) }), "CONTEXT_EXPIRED", 0},
	{"H5", "The second in which everything expires.", "three-hops", at(5 * minute), "CONTEXT_EXPIRED", 0},
	{"H5", "An expired hop.", "three-hops", func(c *call) {
		c.edit(1, func(s *pb.Statement) { s.Iat = second(-10 * time.Second) })
		c.edit(2, func(s *pb.Statement) { s.Iat = second(-10 * time.Second) })
		expiring(c, 1, 0)
	}, "CONTEXT_EXPIRED", 1},
	{"H5", "An expired last hop.", "three-hops", func(c *call) {
		c.edit(2, func(s *pb.Statement) { s.Iat = second(-10 * time.Second) })
		expiring(c, 2, 0)
	}, "CONTEXT_EXPIRED", 2},
}
