package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
)

func second(d time.Duration) uint64 { return uint64(noon.Add(d).Unix()) } //nolint:gosec // after 1970

// someClaims has every claim but parent and elevation, which policy refuses.
func someClaims() *pb.Claims {
	return &pb.Claims{
		Txn:   "01JNA8RZ4E6T0V2X8B4D6F8H0K",
		Sub:   "alice",
		Iss:   "https://login.example",
		Scope: []string{"orders.read", "orders.write", "stock.read"},
		Tctx: &pb.TransactionContext{
			Tenant: "acme", TenantUid: "01J9ZK3V5Q8W7RBNXH2C4D6E8F", Classification: 2,
			Attributes: []*pb.Attribute{{Name: "cost-center", Value: "7"}, {Name: "region", Value: "eu"}},
		},
		Rctx: &pb.RequestContext{Attributes: []*pb.Attribute{{Name: "ip", Value: "192.0.2.1"}}},
		Iat:  second(0),
		Exp:  second(5 * time.Minute),
	}
}

// allClaims has every claim, and an attribute without a value.
func allClaims() *pb.Claims {
	c := someClaims()
	parent := sha256.Sum256([]byte("parent"))
	c.Tctx.Attributes = slices.Insert(c.Tctx.Attributes, 1, &pb.Attribute{Name: "empty"})
	c.Parent = &pb.Parent{Txn: "01JNA8RZ4E6T0V2X8B4D6F8H0A", Statement: parent[:]}
	c.Elevation = &pb.Elevation{Id: "elevation-7"}
	return c
}

// call is a call as a wire tap has it, and what its receiver knows. Its
// methods change it, with the keys of the signers where those are needed.
type call struct {
	hops  *pb.HopChain
	certs *pb.CertificateChains
	by    []*identity // the signer of each hop
	input object      // all inputs but hops and certs
	// text changes the metadata values, if set.
	text func(hops, certs *any)
}

// workloads returns an SVID for each name.
func workloads(names ...string) (out []*identity) {
	for _, name := range names {
		out = append(out, root().issue("/"+name))
	}
	return out
}

func methodOf(id string) string {
	return id[strings.LastIndexByte(id, '/'):] + ".v1.Service/Do"
}

// newCall hands the claims from each workload of the path to the next, all of
// them at noon. The last is the receiver.
func newCall(claims *pb.Claims, path []*identity, change ...func(i int, s *pb.Statement)) *call {
	c := &call{hops: new(pb.HopChain), certs: new(pb.CertificateChains), by: path[:len(path)-1]}
	for i, callee := range path[1:] {
		jti := randomly(fmt.Sprintf("jti %s %d", claims.Txn, i))
		binding := randomly(fmt.Sprintf("connection %d", i))
		s := &pb.Statement{
			Version: 1, Kind: pb.Kind_KIND_CALL, Index: uint32(i),
			X5TS256: path[i].thumbprint(), Aud: callee.id, Target: methodOf(callee.id),
			Binding: binding[:], Iat: second(0), Exp: claims.Exp, Jti: jti[:16],
		}
		if i == 0 {
			s.Claims = claims
		}
		for _, f := range change {
			f(i, s)
		}
		c.hops.Hops = append(c.hops.Hops, &pb.Hop{Statement: marshal(s), TreeSize: 1})
	}
	c.seal(0)
	var seen []*identity
	for _, i := range c.by[:c.last()] {
		if !slices.ContainsFunc(seen, func(o *identity) bool { return bytes.Equal(o.chain[0], i.chain[0]) }) {
			seen = append(seen, i)
			c.certs.Chains = append(c.certs.Chains, &pb.CertificateChain{Certificates: i.chain})
		}
	}
	c.input = object{"bundles": bundles(root()), "now": noon.Unix()}
	last := c.statement(c.last())
	c.input["self"], c.input["method"], c.input["binding"] = last.Aud, last.Target, hexOf(last.Binding)
	c.input["peer"] = base64s(c.by[c.last()].chain)
	return c
}

func marshal(m proto.Message) []byte {
	return must(proto.MarshalOptions{Deterministic: true}.Marshal(m))
}

// last returns the index of the last hop.
func (c *call) last() int { return len(c.hops.Hops) - 1 }

func (c *call) statement(i int) *pb.Statement {
	s := new(pb.Statement)
	_ = proto.Unmarshal(c.hops.Hops[i].Statement, s) // attacks have statements that are none
	return s
}

// edit changes statement i and nothing else: no signature, and no prev.
func (c *call) edit(i int, f func(*pb.Statement)) {
	s := new(pb.Statement)
	check(proto.Unmarshal(c.hops.Hops[i].Statement, s))
	f(s)
	c.hops.Hops[i].Statement = marshal(s)
}

// relink sets prev of the hops after i.
func (c *call) relink(i int) {
	for i++; i < len(c.hops.Hops); i++ {
		prev := sha256.Sum256(c.hops.Hops[i-1].Statement)
		c.edit(i, func(s *pb.Statement) { s.Prev = prev[:] })
	}
}

// sign signs statement i anew.
func (c *call) sign(i int) {
	h := c.hops.Hops[i]
	h.Signature = sign(c.by[i].key, signedBytes(c.statement(i).Kind, h.Statement))
}

// seal signs hop i and those after it, which refer to it: what the workloads
// from i on can do together.
func (c *call) seal(i int) {
	c.relink(i)
	for ; i < len(c.hops.Hops); i++ {
		c.sign(i)
	}
}

// change changes statement i, and seals.
func (c *call) change(i int, f func(*pb.Statement)) {
	c.edit(i, f)
	c.seal(i)
}

// replace makes hop i be signed by another.
func (c *call) replace(i int, by *identity) {
	c.by = slices.Clone(c.by)
	c.by[i] = by
	if i == c.last() {
		c.input["peer"] = base64s(by.chain)
	} else {
		c.certs.Chains[i] = &pb.CertificateChain{Certificates: by.chain}
	}
	c.change(i, func(s *pb.Statement) { s.X5TS256 = by.thumbprint() })
}

// vector returns the inputs of the call.
func (c *call) vector() object {
	hops, certs := any(text(c.hops)), any(text(c.certs))
	if c.text != nil {
		c.text(&hops, &certs)
	}
	in := object{}
	for k, v := range c.input {
		in[k] = v
	}
	if hops != nil {
		in["hops"] = hops
	}
	if certs != "" {
		in["certs"] = certs
	}
	return in
}

// ok returns what a receiver knows of the call once it was verified.
func (c *call) ok() object {
	claims := c.statement(0).Claims
	scopes := claims.Scope
	var path []string
	for i, by := range c.by {
		path = append(path, by.id)
		if n := c.statement(i).Narrowing; n != nil && n.Scope != nil {
			scopes = n.Scope.Values
		}
	}
	return object{
		"tenant": claims.Tctx.Tenant, "sub": claims.Sub, "txn": claims.Txn,
		"scopes": append([]string{}, scopes...), "path": path,
	}
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

const alphabet = "!#$&'()*+;<>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^`bdfghjklmnqvwxyz{|}~"

var textEncoding = base64.NewEncoding(alphabet).WithPadding(base64.NoPadding)

func text(m proto.Message) string { return textEncoding.EncodeToString(marshal(m)) }

var prefixes = map[pb.Kind]string{
	pb.Kind_KIND_CALL:    "tenantmesh-v1-call\x00",
	pb.Kind_KIND_MESSAGE: "tenantmesh-v1-message\x00",
	pb.Kind_KIND_GRANT:   "tenantmesh-v1-grant\x00",
}

// signedBytes is what SPEC.md, section 5, has signed for a tree of one.
func signedBytes(kind pb.Kind, statement []byte) []byte {
	root := sha256.Sum256(append([]byte{0}, statement...))
	b := binary.BigEndian.AppendUint32([]byte(prefixes[kind]), 1)
	return append(b, root[:]...)
}

// sign signs as SPEC.md, section 5, has it. Keys that cannot sign so, which
// attacks have, give zeros.
func sign(key crypto.Signer, message []byte) []byte {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		hash := crypto.SHA256
		if k.Curve == elliptic.P384() {
			hash = crypto.SHA384
		}
		r, s := ecdsaSign(k, hash, message)
		return p1363(k.Curve, r, s)
	case *rsa.PrivateKey:
		return pssSign(k, crypto.SHA256, crypto.SHA256, 32, message)
	}
	return make([]byte, 64)
}
