package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A kind says how a field is written and read.
type kind int

const (
	number32 kind = iota // a varint of at most 32 bits
	number64             // a varint
	octets               // length-delimited bytes
	text                 // length-delimited UTF-8
	nested               // a length-delimited message
)

// A field is a row of a table in SPEC.md, section 4.
type field struct {
	name   string
	kind   kind
	list   bool   // repeated
	size   int    // octets: the exact length, if not 0; text: the greatest length, if not 512
	empty  bool   // text: may be absent or empty
	schema schema // nested: its fields
}

// A schema has the fields of a message by their numbers.
type schema map[uint64]field

// A message has the values of the fields that stood in it.
type message map[uint64][]value

// A value is the value of a field, in the member that its kind calls for.
type value struct {
	number uint64
	bytes  []byte
	msg    message
}

func (m message) has(n uint64) bool      { return len(m[n]) > 0 }
func (m message) number(n uint64) uint64 { return m.first(n).number }
func (m message) bytes(n uint64) []byte  { return m.first(n).bytes }
func (m message) text(n uint64) string   { return string(m.first(n).bytes) }
func (m message) msg(n uint64) message   { return m.first(n).msg }

func (m message) first(n uint64) value {
	if !m.has(n) {
		return value{}
	}
	return m[n][0]
}

func (m message) texts(n uint64) []string {
	out := make([]string, 0, len(m[n]))
	for _, v := range m[n] {
		out = append(out, string(v.bytes))
	}
	return out
}

// parse reads the canonical encoding of a message and refuses every other.
func parse(b []byte, s schema) (message, error) {
	m := message{}
	last := uint64(0)
	for len(b) > 0 {
		tag, rest, err := varint(b)
		if err != nil {
			return nil, err
		}
		b = rest
		n, wireType := tag>>3, tag&7
		f, ok := s[n]
		switch {
		case !ok:
			return nil, fmt.Errorf("unknown field %d", n)
		case n < last:
			return nil, fmt.Errorf("%s stands after a field with a greater number", f.name)
		case n == last && !f.list:
			return nil, fmt.Errorf("%s stands twice", f.name)
		}
		last = n
		var v value
		v, b, err = f.read(wireType, b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		m[n] = append(m[n], v)
		if len(m[n]) > 64 {
			return nil, fmt.Errorf("%s has more than 64 entries", f.name)
		}
	}
	for n, f := range s {
		if f.kind == text && !f.list && !f.empty && !m.has(n) {
			return nil, fmt.Errorf("%s is missing", f.name)
		}
	}
	return m, nil
}

// read reads one value of f from the start of b and returns what follows it.
func (f field) read(wireType uint64, b []byte) (v value, rest []byte, err error) {
	n, b, err := varint(b)
	if err != nil {
		return v, nil, err
	}
	if f.kind == number32 || f.kind == number64 {
		switch {
		case wireType != 0:
			return v, nil, fmt.Errorf("wire type %d", wireType)
		case n == 0:
			return v, nil, errors.New("its default value is written out")
		case f.kind == number32 && n > 1<<32-1:
			return v, nil, errors.New("more than 32 bits")
		}
		return value{number: n}, b, nil
	}
	if wireType != 2 {
		return v, nil, fmt.Errorf("wire type %d", wireType)
	}
	if n > uint64(len(b)) {
		return v, nil, errors.New("cut short")
	}
	v.bytes, rest = b[:n], b[n:]
	switch {
	case f.kind == nested:
		v.msg, err = parse(v.bytes, f.schema)
	case n == 0 && !f.list:
		err = errors.New("its default value is written out")
	case f.kind == octets && f.size != 0 && len(v.bytes) != f.size:
		err = fmt.Errorf("%d bytes instead of %d", len(v.bytes), f.size)
	case f.kind == text:
		err = f.checkText(string(v.bytes))
	}
	return v, rest, err
}

func (f field) checkText(s string) error {
	limit := 512
	if f.size != 0 {
		limit = f.size
	}
	switch {
	case s == "" && !f.empty:
		return errors.New("empty")
	case len(s) > limit:
		return fmt.Errorf("%d bytes, more than %d", len(s), limit)
	case !utf8.ValidString(s):
		return errors.New("not UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		return errors.New("a control character")
	}
	return nil
}

// varint reads a base-128 varint: seven bits a byte, the lowest first, the top bit set in all but the last.
func varint(b []byte) (n uint64, rest []byte, err error) {
	for i, c := range b {
		if i == 9 && c > 1 {
			return 0, nil, errors.New("a varint of more than 64 bits")
		}
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				return 0, nil, errors.New("a varint that is not minimal")
			}
			return n, b[i+1:], nil
		}
	}
	return 0, nil, errors.New("cut short")
}

var textEncoding = base64.NewEncoding("!#$&'()*+;<>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^`bdfghjklmnqvwxyz{|}~").
	WithPadding(base64.NoPadding).Strict()

// fromText reads a metadata value as SPEC.md, section 3 has it. The standard library skips line ends,
// which are no characters of the alphabet.
func fromText(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("a line end in a value")
	}
	return textEncoding.DecodeString(s)
}
