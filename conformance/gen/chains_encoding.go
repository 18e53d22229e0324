package main

import (
	"bytes"
	"crypto/x509"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
)

// unknown is a field that no message has: number 1000, a varint.
var unknown = []byte{0xc0, 0x3e, 0x01}

func unknownIn(m func(c *call) proto.Message) func(*call) {
	return func(c *call) { m(c).ProtoReflect().SetUnknown(unknown) }
}

// hopsText and certsText change a metadata value.
func hopsText(f func(string) any) func(*call) {
	return func(c *call) { c.text = func(hops, _ *any) { *hops = f((*hops).(string)) } } //nolint:errcheck // text is a string
}

func certsText(f func(string) any) func(*call) {
	return func(c *call) { c.text = func(_, certs *any) { *certs = f((*certs).(string)) } } //nolint:errcheck // text is a string
}

// rawHop changes the encoding of the last field of HopChain, which is hop 2.
func rawHop(f func(head, hop []byte) []byte) func(*call) {
	return hopsText(func(s string) any {
		b := must(textEncoding.DecodeString(s))
		whole := new(pb.HopChain)
		check(proto.Unmarshal(b, whole))
		last := marshal(whole.Hops[len(whole.Hops)-1])
		return textEncoding.EncodeToString(f(b[:len(b)-len(last)], last))
	})
}

// encodings: one encoding of everything. What may be wrong with one statement
// is in statements.json.
var encodings = []chain{
	{"H7", "An unknown field in HopChain.", "three-hops", unknownIn(func(c *call) proto.Message { return c.hops }), "CONTEXT_MALFORMED", -1},
	{"H7", "An unknown field in Hop.", "three-hops", unknownIn(func(c *call) proto.Message { return c.hops.Hops[0] }), "CONTEXT_MALFORMED", -1},
	{"H7", "An unknown field in CertificateChains.", "three-hops", unknownIn(func(c *call) proto.Message { return c.certs }), "CONTEXT_MALFORMED", -1},
	{"H7", "An unknown field in CertificateChain.", "three-hops", unknownIn(func(c *call) proto.Message { return c.certs.Chains[0] }), "CONTEXT_MALFORMED", -1},
	{"H7", "An unknown field in a statement, signed.", "three-hops", changed(1, func(s *pb.Statement) { s.ProtoReflect().SetUnknown(unknown) }), "CONTEXT_MALFORMED", 1},
	{"H7", "A leaf_index of 0 written out.", "three-hops", rawHop(func(head, hop []byte) []byte {
		head[len(head)-2] += 2 // the length of the hop, of which this is the lower byte
		return append(append(head, hop...), 0x20, 0)
	}), "CONTEXT_MALFORMED", -1},
	{"H7", "The fields of a hop in another order.", "three-hops", rawHop(func(head, hop []byte) []byte {
		return append(append(head, hop[len(hop)-2:]...), hop[:len(hop)-2]...)
	}), "CONTEXT_MALFORMED", -1},
	{"H7", "A tree_size of two bytes.", "three-hops", rawHop(func(head, hop []byte) []byte {
		head[len(head)-2]++
		return append(append(head, hop[:len(hop)-1]...), 0x81, 0)
	}), "CONTEXT_MALFORMED", -1},
	{"H7", "A byte less.", "three-hops", rawHop(func(head, hop []byte) []byte { return append(head, hop[:len(hop)-1]...) }), "CONTEXT_MALFORMED", -1},
	{"H7", "A zero byte at the end.", "three-hops", rawHop(func(head, hop []byte) []byte { return append(append(head, hop...), 0) }), "CONTEXT_MALFORMED", -1},
	{"H7", "A hop without a statement, written out.", "one-hop", hopsText(func(string) any { return textEncoding.EncodeToString([]byte{0x0a, 2, 0x0a, 0}) }), "CONTEXT_MALFORMED", -1},
	{"H7", "Padding.", "three-hops", hopsText(func(s string) any { return s + "=" }), "CONTEXT_MALFORMED", -1},
	{"H7", "A line end inside.", "three-hops", hopsText(func(s string) any { return s[:4] + "\n" + s[4:] }), "CONTEXT_MALFORMED", -1},
	{"H7", "A carriage return at the end.", "three-hops", hopsText(func(s string) any { return s + "\r" }), "CONTEXT_MALFORMED", -1},
	{"H7", "A space before it.", "three-hops", hopsText(func(s string) any { return " " + s }), "CONTEXT_MALFORMED", -1},
	{"H7", "Base64url.", "three-hops", hopsText(func(s string) any { return b64.EncodeToString(must(textEncoding.DecodeString(s))) }), "CONTEXT_MALFORMED", -1},
	{"H7", "An unused bit that is set.", "three-hops", func(c *call) {
		for len(text(c.hops))%4 == 0 {
			c.change(0, func(s *pb.Statement) { s.Claims.Sub += "x" })
		}
		hopsText(func(s string) any {
			last := strings.IndexByte(alphabet, s[len(s)-1])
			return s[:len(s)-1] + alphabet[last+1:last+2]
		})(c)
	}, "CONTEXT_MALFORMED", -1},
	{"H7", "Padding of the certificates.", "three-hops", certsText(func(s string) any { return s + "=" }), "CONTEXT_MALFORMED", -1},
	{"H7", "Certificates that are no message.", "three-hops", certsText(func(string) any { return textEncoding.EncodeToString([]byte{0}) }), "CONTEXT_MALFORMED", -1},
}

func bare(names ...string) (out []*pb.CertificateChain) {
	for _, i := range workloads(names...) {
		out = append(out, &pb.CertificateChain{Certificates: i.chain})
	}
	return out
}

// three has three intermediates.
func three(path string) *identity {
	return newCA(newCA(newCA(root(), "prod.example", "one"), "prod.example", "two"), "prod.example", "three").issue(path)
}

// der changes the leaf among the certificates of the first signer.
func der(f func([]byte) []byte) func(*call) {
	return func(c *call) {
		c.certs.Chains[0] = &pb.CertificateChain{Certificates: [][]byte{f(bytes.Clone(c.by[0].chain[0]))}}
	}
}

// budgets, and exactly the certificates that are due.
var budgets = []chain{
	{"H8", "Seven hops.", "three-hops", func(c *call) {
		for len(c.hops.Hops) < 7 {
			c.hops.Hops = append(c.hops.Hops, c.hops.Hops[2])
		}
	}, "CHAIN_TOO_LONG", -1},
	{"H8", "A thousand empty hops.", "three-hops", func(c *call) {
		c.text = func(hops, _ *any) {
			*hops = []any{[]any{textEncoding.EncodeToString([]byte{0x0a, 0, 0x0a, 0, 0x0a, 0}), 333}, []any{textEncoding.EncodeToString([]byte{0x0a, 0}), 1}}
		}
	}, "CHAIN_TOO_LONG", -1},
	{"H8", "A byte over budget.", "three-hops", func(c *call) {
		c.text = func(hops, certs *any) {
			n := len((*hops).(string)) + len((*certs).(string)) //nolint:errcheck // texts are strings
			*hops = []any{[]any{*hops, 1}, []any{"A", 7169 - n}}
		}
	}, "METADATA_TOO_LARGE", -1},
	{"H8", "Certificates a byte over budget.", "three-hops", func(c *call) {
		c.text = func(hops, certs *any) {
			n := len((*hops).(string)) + len((*certs).(string)) //nolint:errcheck // texts are strings
			*certs = []any{[]any{*certs, 1}, []any{"A", 7169 - n}}
		}
	}, "METADATA_TOO_LARGE", -1},
	{"H8", "No certificates.", "three-hops", certsText(func(string) any { return "" }), "CERTIFICATE_MISSING", 0},
	{"H8", "A certificate missing.", "three-hops", func(c *call) { c.certs.Chains = c.certs.Chains[:1] }, "CERTIFICATE_MISSING", 1},
	{"H8", "A certificate that nobody refers to, at the end.", "three-hops", func(c *call) {
		c.certs.Chains = append(c.certs.Chains, bare("billing")...)
	}, "CERTIFICATE_UNEXPECTED", -1},
	{"H8", "A certificate that nobody refers to, at the start.", "three-hops", func(c *call) {
		c.certs.Chains = append(bare("billing"), c.certs.Chains...)
	}, "CERTIFICATE_UNEXPECTED", 0},
	{"H8", "A certificate with a chain of one hop.", "one-hop", func(c *call) { c.certs.Chains = bare("billing") }, "CERTIFICATE_UNEXPECTED", -1},
	{"H8", "The peer's certificate sent too.", "three-hops", func(c *call) {
		c.certs.Chains = append(c.certs.Chains, bare("inventory")...)
	}, "CERTIFICATE_UNEXPECTED", -1},
	{"H8", "A certificate twice.", "three-hops", func(c *call) {
		c.certs.Chains = slices.Insert(c.certs.Chains, 1, c.certs.Chains[0])
	}, "CERTIFICATE_UNEXPECTED", 1},
	{"H8", "Certificates out of order.", "three-hops", func(c *call) { slices.Reverse(c.certs.Chains) }, "CERTIFICATE_UNEXPECTED", 0},
	{"H8", "Three intermediates.", "three-hops", func(c *call) { c.replace(1, three("/orders")) }, "CERTIFICATE_UNEXPECTED", 1},
	{"H8", "Three intermediates of the peer.", "three-hops", func(c *call) { c.replace(2, three("/inventory")) }, "SVID_MALFORMED", 2},
	{"H8", "A thumbprint that no certificate has.", "three-hops", func(c *call) {
		c.change(0, func(s *pb.Statement) { s.X5TS256 = randomBytes("nobody") })
	}, "CERTIFICATE_UNEXPECTED", 0},
	{"H8", "The intermediates of an earlier signer missing.", "intermediates", func(c *call) {
		c.certs.Chains[0].Certificates = c.certs.Chains[0].Certificates[:1]
	}, "SVID_UNTRUSTED", 0},
	{"H8", "The intermediates of an earlier signer in the wrong order.", "intermediates", func(c *call) {
		slices.Reverse(c.certs.Chains[0].Certificates[1:])
	}, "SVID_MALFORMED", 0},
	{"H8", "An intermediate that an earlier signer does not need.", "three-hops", func(c *call) {
		c.certs.Chains[1].Certificates = append(c.certs.Chains[1].Certificates, newCA(root(), "prod.example", "one").cert.Raw)
	}, "SVID_MALFORMED", 1},
	{"H8", "A chain of no certificates.", "three-hops", func(c *call) { c.certs.Chains[0] = new(pb.CertificateChain) }, "CERTIFICATE_UNEXPECTED", 0},
	{"H7 H8", "A certificate that is none.", "three-hops", der(func([]byte) []byte { return []byte("certificate") }), "CONTEXT_MALFORMED", 0},
	{"H7 H8", "An empty certificate.", "three-hops", der(func([]byte) []byte { return nil }), "CONTEXT_MALFORMED", 0},
	{"H7 H8", "A byte after a certificate.", "three-hops", der(func(b []byte) []byte { return append(b, 0) }), "CONTEXT_MALFORMED", 0},
	{"I1", "An earlier signer's certificate without a SPIFFE ID.", "three-hops", certified(1, func(c *x509.Certificate) { c.URIs = nil }), "SVID_MALFORMED", 1},
	{"I1", "An earlier signer's certificate with two URI SANs.", "three-hops", certified(1, san("spiffe://prod.example/orders", "spiffe://prod.example/admin")), "SVID_MALFORMED", 1},
	{"I1", "An earlier signer's certificate of a trust domain.", "three-hops", certified(1, san("spiffe://prod.example")), "SVID_MALFORMED", 1},
	{"I1", "An earlier signer's certificate of a CA.", "three-hops", certified(1, func(c *x509.Certificate) { c.IsCA = true }), "SVID_MALFORMED", 1},
	{"I1", "An earlier signer's certificate without digitalSignature.", "three-hops", certified(1, func(c *x509.Certificate) {
		c.KeyUsage = x509.KeyUsageKeyEncipherment
	}), "SVID_MALFORMED", 1},
	{"I2", "An earlier signer's SPIFFE ID of 2049 bytes.", "three-hops", certified(1, san(sized(2049))), "SVID_MALFORMED", 1},
	{"I2", "An earlier signer's SPIFFE ID with a trailing slash.", "three-hops", certified(1, san("spiffe://prod.example/orders/")), "SVID_MALFORMED", 1},
}

func randomBytes(name string) []byte {
	b := randomly(name)
	return b[:]
}

// headers: what else a call carries.
var headers = []chain{
	{"M2", "Headers that name another tenant change nothing.", "three-hops", set("headers", []any{
		[]any{"x-tenant-id", "globex"}, []any{"tenant", "globex"}, []any{"baggage", "tenant=globex"},
	}), "", -1},
	{"M2", "Headers of grpc-gateway that name another tenant change nothing.", "three-hops", set("headers", []any{
		[]any{"grpcgateway-x-tenant-id", "globex"}, []any{"grpc-metadata-x-tenant-id", "globex"}, []any{"grpcgateway-authorization", "Bearer globex"},
	}), "", -1},
	{"M2", "The x-tenant-id alone.", "one-hop", instead("x-tenant-id", "acme"), "CONTEXT_MISSING", -1},
	{"M2", "The tenant-id of grpc-gateway alone.", "one-hop", instead("grpcgateway-tenant-id", "acme"), "CONTEXT_MISSING", -1},
	{"M2", "The tenant of Grpc-Metadata alone.", "one-hop", instead("grpc-metadata-tenant", "acme"), "CONTEXT_MISSING", -1},
	{"M2", "Baggage alone.", "one-hop", instead("baggage", "tenant=acme,x-tenant-id=acme"), "CONTEXT_MISSING", -1},
	{"M2", "A bearer token alone.", "one-hop", instead("authorization", "Bearer eyJhbGciOiJub25lIn0.eyJ0ZW5hbnQiOiJhY21lIn0."), "CONTEXT_MISSING", -1},
	{"M1", "A -bin twin beside the key.", "three-hops", set("headers", []any{[]any{"tenantmesh-hops-bin", "CgIKAA"}}), "METADATA_AMBIGUOUS", -1},
	{"M1", "The key twice.", "three-hops", set("headers", []any{[]any{"tenantmesh-hops", "CgIKAA"}}), "METADATA_AMBIGUOUS", -1},
}

// instead sends a header in place of the hops.
func instead(name, value string) func(*call) {
	return func(c *call) {
		c.text = func(hops, _ *any) { *hops = nil }
		c.input["headers"] = []any{[]any{name, value}}
	}
}
