package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
)

// statementObject returns a statement as vectors have it.
func statementObject(s *pb.Statement) object {
	o := object{
		"kind": map[pb.Kind]string{1: "call", 2: "message", 3: "grant"}[s.Kind], "index": s.Index,
		"x5t_s256": hexOf(s.X5TS256), "aud": s.Aud, "iat": s.Iat, "exp": s.Exp, "jti": hexOf(s.Jti),
	}
	if len(s.Prev) > 0 {
		o["prev"] = hexOf(s.Prev)
	}
	if s.Target != "" {
		o["target"] = s.Target
	}
	if len(s.Binding) > 0 {
		o["binding"] = hexOf(s.Binding)
	}
	if s.Claims != nil {
		o["claims"] = claimsObject(s.Claims)
	}
	if n := s.Narrowing; n != nil {
		narrowing := object{}
		if n.Scope != nil {
			narrowing["scope"] = append([]string{}, n.Scope.Values...)
		}
		if n.Methods != nil {
			narrowing["methods"] = append([]string{}, n.Methods.Values...)
		}
		o["narrowing"] = narrowing
	}
	return o
}

// statementBases are statements that are good: of the calls in chains.json.
func statementBases() (ids []string, by map[string]*pb.Statement) {
	three, granted, narrowed := threeHops(), bases[5].call(), bases[6].call()
	message := three.statement(1)
	payload := sha256.Sum256([]byte("payload"))
	message.Kind, message.Aud, message.Target, message.Binding = pb.Kind_KIND_MESSAGE, "orders", "orders.placed.eu", payload[:]
	return []string{"first", "next", "grant", "message", "narrowing", "all-claims"}, map[string]*pb.Statement{
		"first": three.statement(0), "next": three.statement(1), "grant": granted.statement(0), "message": message,
		"narrowing": narrowed.statement(1), "all-claims": newCall(allClaims(), workloads("gateway", "orders")).statement(0),
	}
}

// fault is a vector of statements.json.
type fault struct {
	lines, comment string
	base           string
	do             func(*pb.Statement)
	reason         string // empty: it is none
}

// rawFault changes the bytes of a statement; they are malformed afterwards.
type rawFault struct {
	comment string
	base    string
	do      func([]byte) []byte
}

func statementVectors() []vectors.Vector {
	ids, good := statementBases()
	input := func(b []byte) object { return object{"statement": hexOf(b)} }
	from := make(map[string]vectors.Vector)
	var out []vectors.Vector
	for _, id := range ids {
		s := good[id]
		from[id] = base(id, "A good statement: "+id+".", input(marshal(s)), statementObject(s))
		out = append(out, from[id])
	}
	for _, f := range statementFaults() {
		s := proto.CloneOf(good[f.base])
		f.do(s)
		var ok object
		if f.reason == "" {
			ok = statementObject(s)
		}
		out = append(out, derived(f.lines, f.comment, from[f.base], input(marshal(s)), ok, f.reason, -1))
	}
	for _, f := range rawFaults {
		out = append(out, derived("H7", f.comment, from[f.base], input(f.do(marshal(good[f.base]))), nil, "CONTEXT_MALFORMED", -1))
	}
	return out
}

// called writes another sub.
func called(sub string) func([]byte) []byte {
	return func(b []byte) []byte {
		if !bytes.Contains(b, []byte("alice")) || len(sub) != len("alice") {
			panic("no alice in the statement, or another length")
		}
		return bytes.Replace(b, []byte("alice"), []byte(sub), 1)
	}
}

// rawFaults: encodings that are not the canonical one. "next" begins
// 08 01 (version) 10 01 (kind) 18 01 (index) 22 20 (prev).
var rawFaults = []rawFault{
	{"A field twice.", "next", func(b []byte) []byte { return append([]byte{0x08, 1}, b...) }},
	{"A field twice, first with another value.", "next", func(b []byte) []byte { return append([]byte{0x08, 2}, b...) }},
	{"The claims in two parts, which protobuf merges.", "first", func(b []byte) []byte { return append(b, 0x62, 0) }},
	{"Fields out of order.", "next", func(b []byte) []byte { b[0], b[2] = b[2], b[0]; return b }},
	{"A field at the end that belongs at the start.", "next", func(b []byte) []byte { return append(b[2:], b[:2]...) }},
	{"A varint that is not minimal.", "next", func(b []byte) []byte { return append([]byte{0x08, 0x81, 0}, b[2:]...) }},
	{"A tag that is not minimal.", "next", func(b []byte) []byte { return append([]byte{0x88, 0}, b[1:]...) }},
	{"A length that is not minimal.", "next", func(b []byte) []byte { return slices.Concat(b[:7], []byte{0xa0, 0}, b[8:]) }},
	{"A version over 32 bits.", "next", func(b []byte) []byte { return append([]byte{0x08, 0x81, 0x80, 0x80, 0x80, 0x10}, b[2:]...) }},
	{"A kind over 32 bits.", "next", func(b []byte) []byte {
		return slices.Concat(b[:2], []byte{0x10, 0x81, 0x80, 0x80, 0x80, 0x10}, b[4:])
	}},
	{"A varint of eleven bytes.", "next", func(b []byte) []byte {
		return slices.Concat([]byte{0x08, 0x81}, bytes.Repeat([]byte{0x80}, 9), []byte{0}, b[2:])
	}},
	{"An index of 0 written out.", "first", func(b []byte) []byte { return slices.Insert(b, 4, 0x18, 0) }},
	{"Another wire type.", "next", func(b []byte) []byte { return append([]byte{0x0d, 1, 0, 0, 0}, b[2:]...) }},
	{"A zero byte more.", "next", func(b []byte) []byte { return append(b, 0) }},
	{"A byte less.", "next", func(b []byte) []byte { return b[:len(b)-1] }},
	{"An unknown field at the end.", "next", func(b []byte) []byte { return append(b, unknown...) }},
	{"A group.", "next", func(b []byte) []byte { return append(b, 0xa3, 0x06, 0xa4, 0x06) }},
	{"A field of number 0.", "next", func(b []byte) []byte { return append(b, 0x00, 0x01) }},
	{"A length beyond the end.", "next", func(b []byte) []byte { return append(b, 0x6a, 0x7f) }},
	{"Invalid UTF-8.", "first", called("al\xffce")},
	{"An overlong form of UTF-8.", "first", called("al\xc0\xafe")},
	{"A surrogate in UTF-8.", "first", called("\xed\xa0\x80ce")},
	{"A NUL.", "first", called("al\x00ce")},
	{"A C1 control character.", "first", called("al\u0085e")},
}

func statementFaults() []fault {
	const malformed = "CONTEXT_MALFORMED"
	long := strings.Repeat("x", 513)
	many := func(prefix string) (list []string) {
		for i := range 65 {
			list = append(list, fmt.Sprintf("%s%02d", prefix, i))
		}
		return list
	}
	h7 := func(comment, base string, do func(*pb.Statement)) fault {
		return fault{"H7", comment, base, do, malformed}
	}
	target := func(comment, target string) fault {
		return fault{"H7 M4", comment, "next", func(s *pb.Statement) { s.Target = target }, malformed}
	}
	aud := func(comment, aud string) fault {
		return fault{"H7 I2", comment, "next", func(s *pb.Statement) { s.Aud = aud }, malformed}
	}
	claims := func(comment string, do func(*pb.Claims)) fault {
		return h7(comment, "all-claims", func(s *pb.Statement) { do(s.Claims) })
	}
	return []fault{
		{"H7", "A txn of 512 bytes.", "first", func(s *pb.Statement) { s.Claims.Txn = long[1:] }, ""},
		{"H7", "64 scopes.", "first", func(s *pb.Statement) { s.Claims.Scope = many("s")[:64] }, ""},
		{"H7", "A binding of zeros.", "next", func(s *pb.Statement) { s.Binding = zero32 }, ""},
		{"H7", "The highest index.", "next", func(s *pb.Statement) { s.Index = 5 }, ""},
		{"I2", "An aud of 2048 bytes.", "next", func(s *pb.Statement) { s.Aud = sized(2048) }, ""},

		{"H2", "Another version.", "next", func(s *pb.Statement) { s.Version = 2 }, "VERSION_UNSUPPORTED"},
		{"H2", "No version.", "next", func(s *pb.Statement) { s.Version = 0 }, "VERSION_UNSUPPORTED"},
		{"H2", "A statement that says nothing.", "next", func(s *pb.Statement) { proto.Reset(s) }, "VERSION_UNSUPPORTED"},
		{"H2", "No kind.", "next", func(s *pb.Statement) { s.Kind = 0 }, "KIND_MISMATCH"},
		{"H2", "An unknown kind.", "next", func(s *pb.Statement) { s.Kind = 4 }, "KIND_MISMATCH"},
		{"H2", "A kind of -1.", "next", func(s *pb.Statement) { s.Kind = -1 }, "KIND_MISMATCH"},
		{"H1 H2", "A grant at index 1.", "next", granting, "KIND_MISMATCH"},
		{"H2", "An index beyond every chain.", "next", func(s *pb.Statement) { s.Index = 6 }, "CHAIN_BROKEN"},
		{"H2", "A prev at index 0.", "first", func(s *pb.Statement) { s.Prev = zero32 }, "CHAIN_BROKEN"},
		{"H2", "No prev at index 1.", "next", func(s *pb.Statement) { s.Prev = nil }, "CHAIN_BROKEN"},
		{"H2", "Claims at index 1.", "next", func(s *pb.Statement) { s.Claims = someClaims() }, "CHAIN_BROKEN"},
		{"H2", "No claims at index 0.", "first", func(s *pb.Statement) { s.Claims = nil }, "CHAIN_BROKEN"},

		h7("No signer.", "next", func(s *pb.Statement) { s.X5TS256 = nil }),
		h7("A signer of 31 bytes.", "next", func(s *pb.Statement) { s.X5TS256 = s.X5TS256[:31] }),
		h7("A signer of 33 bytes.", "next", func(s *pb.Statement) { s.X5TS256 = append(s.X5TS256, 0) }),
		h7("No jti.", "next", func(s *pb.Statement) { s.Jti = nil }),
		h7("A jti of 15 bytes.", "next", func(s *pb.Statement) { s.Jti = s.Jti[:15] }),
		h7("A jti of 17 bytes.", "next", func(s *pb.Statement) { s.Jti = append(s.Jti, 0) }),
		h7("A prev of 33 bytes.", "next", func(s *pb.Statement) { s.Prev = append(s.Prev, 0) }),
		h7("A call without a binding.", "next", func(s *pb.Statement) { s.Binding = nil }),
		h7("A binding of 31 bytes.", "next", func(s *pb.Statement) { s.Binding = s.Binding[:31] }),
		h7("A message without a binding.", "message", func(s *pb.Statement) { s.Binding = nil }),
		h7("A grant with a binding.", "grant", func(s *pb.Statement) { s.Binding = zero32 }),
		h7("A grant with a target.", "grant", func(s *pb.Statement) { s.Target = "/a.B/C" }),
		h7("A message without a target.", "message", func(s *pb.Statement) { s.Target = "" }),
		h7("A message without an aud.", "message", func(s *pb.Statement) { s.Aud = "" }),
		h7("A message with an aud of 513 bytes.", "message", func(s *pb.Statement) { s.Aud = long }),
		h7("No iat.", "next", func(s *pb.Statement) { s.Iat = 0 }),
		h7("No exp.", "next", func(s *pb.Statement) { s.Exp = 0 }),
		h7("An exp that is the iat.", "next", func(s *pb.Statement) { s.Exp = s.Iat }),
		h7("An exp after the year 9999.", "next", func(s *pb.Statement) { s.Exp = 253402300800 }),
		h7("An exp that is negative as an int64.", "next", func(s *pb.Statement) { s.Exp = 1<<64 - 1 }),
		h7("An iat that is negative as an int64.", "next", func(s *pb.Statement) { s.Iat = 1 << 63 }),

		target("No target.", ""),
		target("A target without its slash.", "a.B/C"),
		target("A target with two slashes before it.", "//a.B/C"),
		target("A target with two slashes inside.", "/a.B//C"),
		target("A target with three parts.", "/a.B/C/D"),
		target("A target with an escape.", "/a.B%2fC/D"),
		target("A target with a query.", "/a.B/C?d"),
		target("A target with a fragment.", "/a.B/C#d"),
		target("A target with an empty part.", "/a..B/C"),
		target("A target with a wildcard.", "/a.B/*"),
		target("A target with a hyphen.", "/a-b.B/C"),
		target("A target of 513 bytes.", "/a.B/"+long[5:]),

		aud("No aud.", ""),
		aud("An aud that is no SPIFFE ID.", "https://prod.example/orders"),
		aud("An aud in upper case.", "spiffe://PROD.example/orders"),
		aud("An aud with two dots.", "spiffe://prod.example/a/../orders"),
		aud("An aud with two slashes.", "spiffe://prod.example//orders"),
		aud("An aud with a trailing slash.", "spiffe://prod.example/orders/"),
		aud("An aud with a port.", "spiffe://prod.example:443/orders"),
		aud("An aud with user info.", "spiffe://root@prod.example/orders"),
		aud("An aud with a query.", "spiffe://prod.example/orders?a"),
		aud("An aud with an escape.", "spiffe://prod.example/%6frders"),
		aud("An aud with a look-alike.", "spiffe://prod.example/оrders"),
		aud("An aud that is a trust domain.", "spiffe://prod.example"),
		aud("An aud of 2049 bytes.", sized(2049)),

		h7("Unsorted scopes in a narrowing.", "narrowing", func(s *pb.Statement) { s.Narrowing.Scope.Values = []string{"b", "a"} }),
		h7("A scope that is none in a narrowing.", "narrowing", func(s *pb.Statement) { s.Narrowing.Scope.Values = []string{"a b"} }),
		h7("A method twice in a narrowing.", "narrowing", func(s *pb.Statement) { s.Narrowing.Methods.Values = []string{"/a.B/C", "/a.B/C"} }),
		h7("A narrowing to a service.", "narrowing", func(s *pb.Statement) { s.Narrowing.Methods.Values = []string{"/a.B/"} }),
		h7("A narrowing to a wildcard.", "narrowing", func(s *pb.Statement) { s.Narrowing.Methods.Values = []string{"/a.B/*"} }),
		h7("A narrowing to 65 methods.", "narrowing", func(s *pb.Statement) { s.Narrowing.Methods.Values = many("/a.B/M") }),
		h7("An unknown field in a narrowing.", "narrowing", func(s *pb.Statement) { s.Narrowing.ProtoReflect().SetUnknown(unknown) }),
		h7("An unknown field in the scopes of a narrowing.", "narrowing", func(s *pb.Statement) { s.Narrowing.Scope.ProtoReflect().SetUnknown(unknown) }),
		h7("An unknown field in the methods of a narrowing.", "narrowing", func(s *pb.Statement) { s.Narrowing.Methods.ProtoReflect().SetUnknown(unknown) }),

		claims("No txn.", func(c *pb.Claims) { c.Txn = "" }),
		claims("A txn of 513 bytes.", func(c *pb.Claims) { c.Txn = long }),
		claims("No sub.", func(c *pb.Claims) { c.Sub = "" }),
		claims("A sub of 513 bytes.", func(c *pb.Claims) { c.Sub = long }),
		claims("An iss of 513 bytes.", func(c *pb.Claims) { c.Iss = long }),
		claims("No tctx.", func(c *pb.Claims) { c.Tctx = nil }),
		claims("No tenant.", func(c *pb.Claims) { c.Tctx.Tenant = "" }),
		claims("A tenant in upper case.", func(c *pb.Claims) { c.Tctx.Tenant = "Acme" }),
		claims("A tenant of one letter.", func(c *pb.Claims) { c.Tctx.Tenant = "a" }),
		claims("A tenant that ends with a hyphen.", func(c *pb.Claims) { c.Tctx.Tenant = "acme-" }),
		claims("A tenant with a dot.", func(c *pb.Claims) { c.Tctx.Tenant = "ac.me" }),
		claims("A tenant of 64 bytes.", func(c *pb.Claims) { c.Tctx.Tenant = long[:64] }),
		claims("No tenant_uid.", func(c *pb.Claims) { c.Tctx.TenantUid = "" }),
		claims("Unsorted scopes.", func(c *pb.Claims) { slices.Reverse(c.Scope) }),
		claims("A scope twice.", func(c *pb.Claims) { c.Scope = []string{"a", "a"} }),
		claims("An empty scope.", func(c *pb.Claims) { c.Scope = []string{""} }),
		claims("A scope with a space.", func(c *pb.Claims) { c.Scope = []string{"a b"} }),
		claims("A scope with a quote.", func(c *pb.Claims) { c.Scope = []string{`a"b`} }),
		claims("A scope with a back slash.", func(c *pb.Claims) { c.Scope = []string{`a\b`} }),
		claims("A scope with a letter outside ASCII.", func(c *pb.Claims) { c.Scope = []string{"ä"} }),
		claims("65 scopes.", func(c *pb.Claims) { c.Scope = many("s") }),
		claims("Unsorted attributes.", func(c *pb.Claims) { slices.Reverse(c.Tctx.Attributes) }),
		claims("An attribute twice.", func(c *pb.Claims) { c.Rctx.Attributes = append(c.Rctx.Attributes, c.Rctx.Attributes...) }),
		claims("An attribute without a name.", func(c *pb.Claims) { c.Rctx.Attributes[0].Name = "" }),
		claims("An attribute with a value of 513 bytes.", func(c *pb.Claims) { c.Rctx.Attributes[0].Value = long }),
		claims("65 attributes.", func(c *pb.Claims) {
			c.Rctx.Attributes = nil
			for _, name := range many("a") {
				c.Rctx.Attributes = append(c.Rctx.Attributes, &pb.Attribute{Name: name})
			}
		}),
		claims("An rctx that says nothing.", func(c *pb.Claims) { c.Rctx.Attributes = nil }),
		claims("Claims without iat.", func(c *pb.Claims) { c.Iat = 0 }),
		claims("Claims without exp.", func(c *pb.Claims) { c.Exp = 0 }),
		claims("Claims whose exp is their iat.", func(c *pb.Claims) { c.Exp = c.Iat }),
		claims("Claims with an exp after the year 9999.", func(c *pb.Claims) { c.Exp = 253402300800 }),
		claims("A parent without txn.", func(c *pb.Claims) { c.Parent.Txn = "" }),
		claims("A parent without statement.", func(c *pb.Claims) { c.Parent.Statement = nil }),
		claims("An elevation without id.", func(c *pb.Claims) { c.Elevation.Id = "" }),
		claims("An elevation of 513 bytes.", func(c *pb.Claims) { c.Elevation.Id = long }),
		claims("An unknown field in claims.", func(c *pb.Claims) { c.ProtoReflect().SetUnknown(unknown) }),
		claims("An unknown field in tctx.", func(c *pb.Claims) { c.Tctx.ProtoReflect().SetUnknown(unknown) }),
		claims("An unknown field in rctx.", func(c *pb.Claims) { c.Rctx.ProtoReflect().SetUnknown(unknown) }),
		claims("An unknown field in an attribute.", func(c *pb.Claims) { c.Tctx.Attributes[0].ProtoReflect().SetUnknown(unknown) }),
		claims("An unknown field in parent.", func(c *pb.Claims) { c.Parent.ProtoReflect().SetUnknown(unknown) }),
		claims("An unknown field in elevation.", func(c *pb.Claims) { c.Elevation.ProtoReflect().SetUnknown(unknown) }),
	}
}
