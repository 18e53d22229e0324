package hop

import (
	"crypto/x509"
	"encoding/base64"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tenantmesh/tenantmesh/internal/leaf"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// The messages of proto/tenantmesh/v1/hop.proto, read and written by hand: a
// chain is parsed for each call, and reflection took three quarters of that.
// Readers take what they know and pass over all else. That this was everything, in
// the one encoding that it has, is found by writing it again (encodes).

// appendVarint appends a field, unless it is 0.
func appendVarint(b []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

// appendBytes appends a field, unless it is empty.
func appendBytes[T string | []byte](b []byte, n protowire.Number, v T) []byte {
	if len(v) == 0 {
		return b
	}
	return appendElement(b, n, v)
}

// appendElement appends one of a repeated field, empty or not.
func appendElement[T string | []byte](b []byte, n protowire.Number, v T) []byte {
	b = protowire.AppendTag(b, n, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(v)))
	return append(b, v...)
}

func appendStrings(b []byte, n protowire.Number, values []string) []byte {
	for _, v := range values {
		b = appendElement(b, n, v)
	}
	return b
}

// appendMessage appends a message, empty or not, which body writes.
func appendMessage(b []byte, n protowire.Number, body func([]byte) []byte) []byte {
	b = protowire.AppendTag(b, n, protowire.BytesType)
	at := len(b)
	b = body(b)
	var length [5]byte
	return slices.Insert(b, at, protowire.AppendVarint(length[:0], uint64(len(b)-at))...) //nolint:gosec // not negative
}

// fields calls f with each field of a message: its number, and its value, of which
// the other form is zero. It reports whether it could read the message to its end.
func fields(m string, f func(n int, v uint64, text string)) bool {
	varint := func() (v uint64, ok bool) {
		v, size := protowire.ConsumeVarint([]byte(m[:min(len(m), 10)]))
		if size < 0 {
			return 0, false
		}
		m = m[size:]
		return v, true
	}
	for m != "" {
		tag, hasTag := varint()
		v, ok := varint()
		text := ""
		n, t := protowire.DecodeTag(tag)
		switch {
		case !hasTag || !ok:
			return false
		case t == protowire.BytesType && v <= uint64(len(m)):
			text, m, v = m[:v], m[v:], 0
		case t != protowire.VarintType:
			return false
		}
		f(int(n), v, text)
	}
	return true
}

// append appends the encoding of s.
func (s *Statement) append(b []byte) []byte {
	b = appendVarint(b, 1, Version)
	b = appendVarint(b, 2, uint64(s.Kind))  //nolint:gosec // an enum is extended by its sign
	b = appendVarint(b, 3, uint64(s.Index)) //nolint:gosec // check bounds it
	if s.Index > 0 {
		b = appendElement(b, 4, s.Prev[:])
	}
	b = appendElement(b, 5, s.Signer[:])
	b = appendBytes(b, 6, s.Audience)
	b = appendBytes(b, 7, s.Target)
	if s.Kind != Grant {
		b = appendElement(b, 8, s.Binding[:])
	}
	b = appendVarint(b, 9, seconds(s.IssuedAt))
	b = appendVarint(b, 10, seconds(s.Expires))
	b = appendElement(b, 11, s.TokenID[:])
	if s.Claims != nil {
		b = appendMessage(b, 12, s.Claims.append)
	}
	if s.Narrowing != nil {
		b = appendMessage(b, 13, s.Narrowing.append)
	}
	return b
}

func (n *Narrowing) append(b []byte) []byte {
	for i, set := range [][]string{n.Scopes, n.Methods} {
		if set != nil {
			b = appendMessage(b, protowire.Number(i+1), func(b []byte) []byte { return appendStrings(b, 1, set) })
		}
	}
	return b
}

func (c *Claims) append(b []byte) []byte {
	b = appendBytes(b, 1, c.Transaction)
	b = appendBytes(b, 2, c.Subject)
	b = appendBytes(b, 3, c.Issuer)
	b = appendStrings(b, 4, c.Scopes)
	b = appendMessage(b, 5, func(b []byte) []byte {
		b = appendBytes(b, 1, c.Tenant.String())
		b = appendBytes(b, 2, c.TenantUID)
		b = appendVarint(b, 3, uint64(c.Classification))
		return appendAttributes(b, 4, c.Attributes)
	})
	if len(c.Request) > 0 {
		b = appendMessage(b, 6, func(b []byte) []byte { return appendAttributes(b, 1, c.Request) })
	}
	b = appendVarint(b, 7, seconds(c.IssuedAt))
	b = appendVarint(b, 8, seconds(c.Expires))
	if p := c.Parent; p != nil {
		b = appendMessage(b, 9, func(b []byte) []byte { return appendElement(appendBytes(b, 1, p.Transaction), 2, p.Statement[:]) })
	}
	if c.Elevation != "" {
		b = appendMessage(b, 10, func(b []byte) []byte { return appendBytes(b, 1, c.Elevation) })
	}
	return b
}

func appendAttributes(b []byte, n protowire.Number, attributes map[string]string) []byte {
	names := make([]string, 0, 16) // on the stack, if they are no more
	for name := range attributes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b = appendMessage(b, n, func(b []byte) []byte { return appendBytes(appendBytes(b, 1, name), 2, attributes[name]) })
	}
	return b
}

// parseStatement is [ParseStatement]; the statement's strings are parts of m.
func parseStatement(m string) (*Statement, error) {
	s := new(Statement)
	var version uint32
	var prev, claims string
	hasClaims := false
	if !fields(m, func(n int, v uint64, text string) {
		switch n {
		case 1:
			version = uint32(v) //nolint:gosec // what is lost is missed when it is written again
		case 2:
			s.Kind = Kind(v) //nolint:gosec // as above
		case 3:
			s.Index = int(uint32(v)) //nolint:gosec // as above
		case 4:
			prev = text
			copy(s.Prev[:], text)
		case 5:
			copy(s.Signer[:], text)
		case 6:
			s.Audience = text
		case 7:
			s.Target = text
		case 8:
			copy(s.Binding[:], text)
		case 9:
			s.IssuedAt = fromSeconds(v)
		case 10:
			s.Expires = fromSeconds(v)
		case 11:
			copy(s.TokenID[:], text)
		case 12:
			claims, hasClaims = text, true
		case 13:
			s.Narrowing = parseNarrowing(text)
		}
	}) {
		return nil, malformed("not a statement")
	}
	if version != Version {
		return nil, tenant.Deny(tenant.VersionUnsupported, "statement of version %d", version)
	}
	if (s.Index == 0) != (prev == "") {
		return nil, tenant.Deny(tenant.ChainBroken, "prev stands everywhere but at index 0")
	}
	if hasClaims {
		var err error
		if s.Claims, err = parseClaims(claims); err != nil {
			return nil, err
		}
	}
	if !encodes(s.append, m) {
		return nil, malformed("not the canonical encoding of a statement")
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

func parseNarrowing(m string) *Narrowing {
	narrowing := new(Narrowing)
	fields(m, func(n int, _ uint64, text string) {
		switch n {
		case 1:
			narrowing.Scopes = parseStrings(text)
		case 2:
			narrowing.Methods = parseStrings(text)
		}
	})
	return narrowing
}

// parseStrings reads a message of nothing but strings. They may be none.
func parseStrings(m string) []string {
	values := []string{}
	fields(m, func(_ int, _ uint64, text string) { values = append(values, text) })
	return values
}

func parseClaims(m string) (*Claims, error) {
	c := new(Claims)
	var id string
	fields(m, func(n int, v uint64, text string) {
		switch n {
		case 1:
			c.Transaction = text
		case 2:
			c.Subject = text
		case 3:
			c.Issuer = text
		case 4:
			c.Scopes = append(c.Scopes, text)
		case 5:
			id = c.parseTenant(text)
		case 6:
			fields(text, func(_ int, _ uint64, text string) { parseAttribute(text, &c.Request) })
		case 7:
			c.IssuedAt = fromSeconds(v)
		case 8:
			c.Expires = fromSeconds(v)
		case 9:
			c.Parent = parseParent(text)
		case 10:
			fields(text, func(_ int, _ uint64, text string) { c.Elevation = text })
		}
	})
	var err error
	if c.Tenant, err = tenant.ParseID(id); err != nil {
		return nil, malformed("the tenant is not a tenant ID: %w", err)
	}
	return c, nil
}

// parseTenant reads tctx, and returns the tenant as it stands there.
func (c *Claims) parseTenant(m string) (id string) {
	fields(m, func(n int, v uint64, text string) {
		switch n {
		case 1:
			id = text
		case 2:
			c.TenantUID = text
		case 3:
			c.Classification = uint32(v) //nolint:gosec // what is lost is missed when it is written again
		case 4:
			parseAttribute(text, &c.Attributes)
		}
	})
	return id
}

func parseAttribute(m string, into *map[string]string) {
	var name, value string
	fields(m, func(n int, _ uint64, text string) {
		switch n {
		case 1:
			name = text
		case 2:
			value = text
		}
	})
	if *into == nil {
		*into = make(map[string]string)
	}
	(*into)[name] = value
}

func parseParent(m string) *Parent {
	p := new(Parent)
	fields(m, func(n int, _ uint64, text string) {
		switch n {
		case 1:
			p.Transaction = text
		case 2:
			copy(p.Statement[:], text)
		}
	})
	return p
}

// sealed is a Hop message: a statement as it was signed, and its proof.
type sealed struct {
	encoded     string // the statement
	signature   string
	size, index uint32   // of the tree, and in it
	path        []string // from the leaf's sibling to the root
}

func (h *sealed) append(b []byte) []byte {
	b = appendBytes(b, 1, h.encoded)
	b = appendBytes(b, 2, h.signature)
	b = appendVarint(b, 3, uint64(h.size))
	b = appendVarint(b, 4, uint64(h.index))
	return appendStrings(b, 5, h.path)
}

func (h *sealed) parse(m string) {
	fields(m, func(n int, v uint64, text string) {
		switch n {
		case 1:
			h.encoded = text
		case 2:
			h.signature = text
		case 3:
			h.size = uint32(v) //nolint:gosec // what is lost is missed when it is written again
		case 4:
			h.index = uint32(v) //nolint:gosec // as above
		case 5:
			if h.path == nil {
				h.path = make([]string, 0, 8) // as deep as trees mostly are
			}
			h.path = append(h.path, text)
		}
	})
}

// lastElement counts the hops of a HopChain, and says where the last begins if it
// has its one encoding.
func lastElement(m string) (n, at int) {
	size := 0
	fields(m, func(_ int, _ uint64, text string) {
		n++
		size = protowire.SizeTag(1) + protowire.SizeBytes(len(text))
	})
	return n, max(len(m)-size, 0)
}

// parseHops appends the hops of a HopChain to others.
func parseHops(hops []signed, m string) ([]signed, error) {
	others := len(hops)
	fields(m, func(_ int, _ uint64, text string) {
		hops = append(hops, signed{})
		hops[len(hops)-1].parse(text)
	})
	if !encodes(func(b []byte) []byte {
		for i := range hops[others:] {
			b = appendMessage(b, 1, hops[others+i].append)
		}
		return b
	}, m) {
		return nil, malformed("not the canonical encoding of a hop chain")
	}
	return hops, nil
}

// derChain is a CertificateChain message.
type derChain struct {
	encoding string
	ders     []string
}

// parseChains reads CertificateChains.
func parseChains(m string) ([]derChain, error) {
	var chains []derChain
	fields(m, func(_ int, _ uint64, text string) {
		chains = append(chains, derChain{text, parseStrings(text)})
	})
	if !encodes(func(b []byte) []byte {
		for _, c := range chains {
			b = appendMessage(b, 1, func(b []byte) []byte { return appendStrings(b, 1, c.ders) })
		}
		return b
	}, m) {
		return nil, malformed("not the canonical encoding of certificates")
	}
	return chains, nil
}

func (c derChain) parse() ([]*x509.Certificate, error) {
	if n := len(c.ders); n == 0 || n > 1+leaf.MaxIntermediates {
		return nil, tenant.Deny(tenant.CertificateUnexpected, "a leaf and at most %d intermediates, not %d certificates", leaf.MaxIntermediates, n)
	}
	var certs []*x509.Certificate
	for _, der := range c.ders {
		cert, err := x509.ParseCertificate([]byte(der)) // fails for trailing bytes too
		if err != nil {
			return nil, malformed("certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// encodes reports whether write appends m.
func encodes(write func([]byte) []byte, m string) (same bool) {
	scratch(func(b []byte) []byte {
		b = write(b)
		same = string(b) == m
		return b
	})
	return same
}

// alphabet of the metadata values: its characters take more than 8 bits on average in
// HPACK's Huffman code, so that neither end codes a value, which took a sixth of a fresh call.
const alphabet = "!#$&'()*+;<>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^`bdfghjklmnqvwxyz{|}~"

var textEncoding = base64.NewEncoding(alphabet).WithPadding(base64.NoPadding).Strict()

// encodeText and decodeText turn a message into the value of a metadata key
// and back, as SPEC.md, section 3, has it: no padding, and no bits to spare. What encodeText
// returns begins with text that is there already.
func encodeText(begun string, m []byte) (text string) {
	scratch(func(b []byte) []byte {
		b = textEncoding.AppendEncode(append(b, begun...), m)
		text = string(b)
		return b
	})
	return text
}

func decodeText(text string) (m string, err error) {
	scratch(func(b []byte) []byte {
		b = append(b, text...)
		if b, err = textEncoding.AppendDecode(b, b); err == nil {
			m = string(b[len(text):])
		}
		return b
	})
	// The decoder passes over line ends, hence the length.
	if err != nil || textEncoding.EncodedLen(len(m)) != len(text) {
		return "", malformed("not the text of a message")
	}
	return m, nil
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// scratch calls f with an empty buffer, for f to append to and return.
func scratch(f func(b []byte) []byte) {
	b, _ := buffers.Get().(*[]byte)
	*b = f((*b)[:0])
	buffers.Put(b)
}

func seconds(t time.Time) uint64     { return uint64(t.Unix()) } //nolint:gosec // isWindow bounds it
func fromSeconds(s uint64) time.Time { return time.Unix(int64(min(s, maxSeconds+1)), 0).UTC() }
