package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// The messages of SPEC.md, section 4.
var (
	attributeSchema = schema{
		1: {name: "name", kind: text},
		2: {name: "value", kind: text, empty: true},
	}
	claimsSchema = schema{
		1: {name: "txn", kind: text},
		2: {name: "sub", kind: text},
		3: {name: "iss", kind: text, empty: true},
		4: {name: "scope", kind: text, list: true},
		5: {name: "tctx", kind: nested, schema: schema{
			1: {name: "tenant", kind: text, size: 63},
			2: {name: "tenant_uid", kind: text},
			3: {name: "classification", kind: number32},
			4: {name: "attributes", kind: nested, list: true, schema: attributeSchema},
		}},
		6: {name: "rctx", kind: nested, schema: schema{
			1: {name: "attributes", kind: nested, list: true, schema: attributeSchema},
		}},
		7: {name: "iat", kind: number64},
		8: {name: "exp", kind: number64},
		9: {name: "parent", kind: nested, schema: schema{
			1: {name: "txn", kind: text},
			2: {name: "statement", kind: octets, size: 32},
		}},
		10: {name: "elevation", kind: nested, schema: schema{
			1: {name: "id", kind: text},
		}},
	}
	setSchema       = schema{1: {name: "values", kind: text, list: true}}
	statementSchema = schema{
		1:  {name: "version", kind: number32},
		2:  {name: "kind", kind: number32},
		3:  {name: "index", kind: number32},
		4:  {name: "prev", kind: octets, size: 32},
		5:  {name: "x5t_s256", kind: octets, size: 32},
		6:  {name: "aud", kind: text, size: 2048},
		7:  {name: "target", kind: text, empty: true},
		8:  {name: "binding", kind: octets, size: 32},
		9:  {name: "iat", kind: number64},
		10: {name: "exp", kind: number64},
		11: {name: "jti", kind: octets, size: 16},
		12: {name: "claims", kind: nested, schema: claimsSchema},
		13: {name: "narrowing", kind: nested, schema: schema{
			1: {name: "scope", kind: nested, schema: setSchema},
			2: {name: "methods", kind: nested, schema: setSchema},
		}},
	}
	hopChainSchema = schema{1: {name: "hops", kind: nested, list: true, schema: schema{
		1: {name: "statement", kind: octets},
		2: {name: "signature", kind: octets},
		3: {name: "tree_size", kind: number32},
		4: {name: "leaf_index", kind: number32},
		5: {name: "inclusion_path", kind: octets, list: true, size: 32},
	}}}
	certificatesSchema = schema{1: {name: "chains", kind: nested, list: true, schema: schema{
		1: {name: "certificates", kind: octets, list: true},
	}}}
)

var kinds = map[uint64]string{1: "call", 2: "message", 3: "grant"}

// A signed is a hop: a statement with the bytes that were signed, and their signature.
type signed struct {
	message
	raw, signature []byte
	place          message // the hop's other fields: its place in the tree
}

func (h signed) kind() string     { return kinds[h.number(2)] }
func (h signed) signer() [32]byte { return [32]byte(h.bytes(5)) }

// certificates has the leaves that were sent, by their thumbprints.
type certificates map[[32]byte]*x509.Certificate

func readHops(value string) ([]signed, error) {
	b, err := fromText(value)
	if err != nil {
		return nil, err
	}
	chain, err := parse(b, hopChainSchema)
	if err != nil {
		return nil, err
	}
	if n := len(chain[1]); n < 1 || n > 6 {
		return nil, fmt.Errorf("%d hops, not 1 to 6", n)
	}
	var hops []signed
	for i, v := range chain[1] {
		h := signed{raw: v.msg.bytes(1), signature: v.msg.bytes(2), place: v.msg}
		if _, ok := h.root(); !ok {
			return nil, fmt.Errorf("hop %d: not a place in a tree", i)
		}
		if h.message, err = parse(h.raw, statementSchema); err != nil {
			return nil, fmt.Errorf("hop %d: %w", i, err)
		}
		if err := h.checkForm(); err != nil {
			return nil, fmt.Errorf("hop %d: %w", i, err)
		}
		hops = append(hops, h)
	}
	return hops, nil
}

// checkForm checks what section 4 says of a statement beyond its encoding.
func (h signed) checkForm() error {
	grant := h.kind() == "grant"
	switch {
	case h.number(1) != 1:
		return fmt.Errorf("version %d", h.number(1))
	case h.kind() == "":
		return fmt.Errorf("kind %d", h.number(2))
	case !h.has(5) || !h.has(11):
		return errors.New("x5t_s256 or jti is missing")
	case grant && (h.has(7) || h.has(8)):
		return errors.New("a grant with a target or a binding")
	case !grant && (!h.has(7) || !h.has(8)):
		return errors.New("no target or no binding")
	}
	lists := [][]string{h.msg(13).msg(1).texts(1), h.msg(13).msg(2).texts(1)}
	times := []message{{9: h.message[9], 10: h.message[10]}}
	if h.has(12) {
		c := h.msg(12)
		switch {
		case !c.has(5):
			return errors.New("claims without tctx")
		case c.has(6) && !c.msg(6).has(1):
			return errors.New("rctx without attributes")
		case c.has(9) && !c.msg(9).has(2):
			return errors.New("parent without statement")
		}
		lists = append(lists, c.texts(4), names(c.msg(5)[4]), names(c.msg(6)[1]))
		times = append(times, message{9: c[7], 10: c[8]})
	}
	for _, list := range lists {
		for i := 1; i < len(list); i++ {
			if list[i-1] >= list[i] {
				return errors.New("a list that is not sorted or has an entry twice")
			}
		}
	}
	for _, t := range times {
		if iat, exp := t.number(9), t.number(10); iat == 0 || exp <= iat || exp > 253402300799 {
			return errors.New("iat and exp out of range")
		}
	}
	return nil
}

func names(attributes []value) (out []string) {
	for _, a := range attributes {
		out = append(out, a.msg.text(1))
	}
	return out
}

func readCertificates(value string) (certificates, error) {
	certs := certificates{}
	if value == "" {
		return certs, nil
	}
	b, err := fromText(value)
	if err != nil {
		return nil, err
	}
	chains, err := parse(b, certificatesSchema)
	if err != nil {
		return nil, err
	}
	for i, chain := range chains[1] {
		if n := len(chain.msg[1]); n < 1 || n > 3 {
			return nil, fmt.Errorf("chain %d has %d certificates, not 1 to 3", i, n)
		}
		der := chain.msg.bytes(1)
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("chain %d: %w", i, err)
		}
		if len(leaf.URIs) != 1 || leaf.URIs[0].Scheme != "spiffe" {
			return nil, fmt.Errorf("chain %d: not an X.509-SVID", i)
		}
		certs[sha256.Sum256(der)] = leaf
	}
	return certs, nil
}

// check checks that the hops follow one another, and each signature whose certificate was sent.
func check(hops []signed, certs certificates) error {
	for i, h := range hops {
		var prev []byte
		if i > 0 {
			sum := sha256.Sum256(hops[i-1].raw)
			prev = sum[:]
		}
		leaf := certs[h.signer()]
		switch {
		case h.number(3) != uint64(i):
			return fmt.Errorf("hop %d: its index is %d", i, h.number(3))
		case !bytes.Equal(h.bytes(4), prev):
			return fmt.Errorf("hop %d: prev is not the statement before", i)
		case h.has(12) != (i == 0):
			return fmt.Errorf("hop %d: claims belong at index 0, and only there", i)
		case i > 0 && h.kind() == "grant":
			return fmt.Errorf("hop %d: a grant", i)
		case leaf == nil && i < len(hops)-1:
			return fmt.Errorf("hop %d: its signer's certificate was not sent", i)
		case leaf != nil && i > 0 && hops[i-1].text(6) != leaf.URIs[0].String():
			return fmt.Errorf("hop %d: the hop before was handed to another workload than its signer", i)
		case leaf != nil && !verifies(h, leaf):
			return fmt.Errorf("hop %d: wrong signature", i)
		}
	}
	return nil
}

// root returns the root of the tree that h is a leaf of (SPEC.md, section 5).
func (h signed) root() (root [32]byte, ok bool) {
	size, at, path := h.place.number(3), h.place.number(4), h.place[5]
	if size == 0 || size > 256 || at >= size {
		return root, false
	}
	root = sha256.Sum256(append([]byte{0}, h.raw...))
	for last := size - 1; last > 0; at, last = at/2, last/2 {
		if at == last && at%2 == 0 {
			continue // the last of an odd number: it has no sibling
		}
		if len(path) == 0 {
			return root, false
		}
		left, right := root[:], path[0].bytes
		if at%2 == 1 {
			left, right = right, left
		}
		root = sha256.Sum256(slices.Concat([]byte{1}, left, right))
		path = path[1:]
	}
	return root, len(path) == 0
}

// verifies checks the signature of h (SPEC.md, section 5).
func verifies(h signed, leaf *x509.Certificate) bool {
	root, _ := h.root()
	input := append([]byte("tenantmesh-v1-"+h.kind()), 0)
	input = binary.BigEndian.AppendUint32(input, uint32(h.place.number(3))) //nolint:gosec // root bounds it
	input = append(input, root[:]...)
	digest := sha256.Sum256(input)
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPSS(key, crypto.SHA256, digest[:], h.signature, &rsa.PSSOptions{SaltLength: 32}) == nil
	case *ecdsa.PublicKey:
		hash := digest[:]
		switch key.Curve {
		case elliptic.P256():
		case elliptic.P384():
			sum := sha512.Sum384(input)
			hash = sum[:]
		default:
			return false
		}
		half := key.Curve.Params().BitSize / 8
		if len(h.signature) != 2*half {
			return false
		}
		r, s := new(big.Int).SetBytes(h.signature[:half]), new(big.Int).SetBytes(h.signature[half:])
		low := new(big.Int).Lsh(s, 1).Cmp(key.Curve.Params().N) < 0
		return low && ecdsa.Verify(key, hash, r, s)
	}
	return false
}

// describe returns the claims, one a line, and then the hops.
func describe(hops []signed, certs certificates) string {
	var out strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&out, "  %-20s %s\n", name, fmt.Sprintf(format, args...))
	}
	attributes := func(name string, list []value) {
		for _, a := range list {
			line(name, "%s=%s", a.msg.text(1), a.msg.text(2))
		}
	}
	c := hops[0].msg(12)
	tctx := c.msg(5)
	fmt.Fprintln(&out, "claims")
	line("txn", "%s", c.text(1))
	line("sub", "%s", c.text(2))
	if c.has(3) {
		line("iss", "%s", c.text(3))
	}
	line("scope", "%s", list(c.texts(4)))
	line("tenant", "%s", tctx.text(1))
	line("tenant_uid", "%s", tctx.text(2))
	line("classification", "%d", tctx.number(3))
	attributes("tctx", tctx[4])
	attributes("rctx", c.msg(6)[1])
	line("iat", "%s", second(c.number(7)))
	line("exp", "%s", second(c.number(8)))
	if c.has(9) {
		line("parent", "%s, statement %x", c.msg(9).text(1), c.msg(9).bytes(2))
	}
	if c.has(10) {
		line("elevation", "%s", c.msg(10).text(1))
	}
	for _, h := range hops {
		fmt.Fprintf(&out, "hop %d\n", h.number(3))
		line("kind", "%s", h.kind())
		if leaf := certs[h.signer()]; leaf != nil {
			line("signer", "%s", leaf.URIs[0])
			line("signature", "verifies under the certificate that was sent")
		} else {
			line("signer", "the TLS peer (thumbprint %x)", h.signer())
			line("signature", "not checked: its certificate is that of the connection")
		}
		line("aud", "%s", h.text(6))
		if h.has(7) {
			line("target", "%s", h.text(7))
		}
		line("iat", "%s", second(h.number(9)))
		line("exp", "%s", second(h.number(10)))
		if n := h.msg(13); n.has(1) {
			line("narrowed to scopes", "%s", list(n.msg(1).texts(1)))
		}
		if n := h.msg(13); n.has(2) {
			line("narrowed to methods", "%s", list(n.msg(2).texts(1)))
		}
	}
	return out.String()
}

func list(values []string) string {
	if len(values) == 0 {
		return "none"
	}
	return strings.Join(slices.Clone(values), " ")
}

func second(n uint64) string {
	return time.Unix(int64(n), 0).UTC().Format(time.RFC3339) //nolint:gosec // checkForm bounds it
}
