package hop

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/internal/leaf"
	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Version is the version of the wire format.
const Version = 1

// Kind says how a statement is handed over. The zero Kind is none.
type Kind int32

// The kinds of statement.
const (
	// Call is handed over by a gRPC call.
	Call Kind = Kind(pb.Kind_KIND_CALL)
	// Message is handed over by a message in a queue.
	Message Kind = Kind(pb.Kind_KIND_MESSAGE)
	// Grant is handed by an authority to the workload that asked for it.
	Grant Kind = Kind(pb.Kind_KIND_GRANT)
)

// String returns the kind's name in SPEC.md.
func (k Kind) String() string {
	switch k {
	case Call:
		return "call"
	case Message:
		return "message"
	case Grant:
		return "grant"
	}
	return "unknown kind"
}

// Statement is what one workload signs when it hands the claims to another.
type Statement struct {
	// Kind says how it is handed over.
	Kind Kind
	// Index is its place in the chain, from 0.
	Index int
	// Prev is the SHA-256 of the previous statement; zero at index 0.
	Prev [sha256.Size]byte
	// Signer is the thumbprint of the signer's leaf, x5t#S256.
	Signer [sha256.Size]byte
	// Audience is aud: the SPIFFE ID, or for a message the queue, that it is
	// handed to.
	Audience string
	// Target is the full gRPC method, or the subject or topic; empty for a grant.
	Target string
	// Binding is the TLS exporter of the connection (RFC 9266), or the SHA-256
	// of the payload; zero for a grant.
	Binding [32]byte
	// IssuedAt and Expires are iat and exp, in whole seconds.
	IssuedAt, Expires time.Time
	// TokenID is jti: 128 random bits.
	TokenID [16]byte
	// Claims stand at index 0 and nowhere else.
	Claims *Claims
	// Narrowing bounds what comes after; nil leaves what was allowed.
	Narrowing *Narrowing
}

// String says how and to whom s is handed over, and no claim, so that a
// statement may be logged.
func (s Statement) String() string {
	return fmt.Sprintf("%s %d to %s %s", s.Kind, s.Index, s.Audience, s.Target)
}

// GoString keeps %#v from printing what String leaves out.
func (s Statement) GoString() string { return "hop.Statement{" + s.String() + "}" }

// LogValue keeps handlers of slog from printing what String leaves out.
func (s Statement) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Marshal returns the one canonical encoding of s, or fails as
// [ParseStatement] does where s has none.
func (s *Statement) Marshal() ([]byte, error) {
	encoded, err := s.marshal()
	if err != nil {
		return nil, err
	}
	return []byte(encoded), nil
}

func (s *Statement) marshal() (encoded string, err error) {
	if err := s.check(); err != nil {
		return "", err
	}
	scratch(func(b []byte) []byte {
		b = s.append(b)
		encoded = string(b)
		return b
	})
	return encoded, nil
}

// ParseStatement parses the canonical encoding of a statement: what it returns
// marshals to b. It fails with [tenant.ContextMalformed],
// [tenant.VersionUnsupported], [tenant.KindMismatch] or [tenant.ChainBroken].
func ParseStatement(b []byte) (*Statement, error) {
	return parseStatement(string(b))
}

// check holds for every statement, signed or received.
func (s *Statement) check() error {
	if s.Index < 0 || s.Index >= MaxHops {
		return tenant.Deny(tenant.ChainBroken, "a statement with index %d", s.Index)
	}
	if (s.Index == 0) != (s.Claims != nil) {
		return tenant.Deny(tenant.ChainBroken, "claims stand at index 0 and nowhere else")
	}
	switch s.Kind {
	case Call:
		if !ValidMethod(s.Target) {
			return malformed("the target of a call is a full method")
		}
	case Message:
		if !isText(s.Target) {
			return malformed("the target of a message is a subject or topic")
		}
	case Grant:
		if s.Target != "" {
			return malformed("a grant has no target")
		}
		if s.Index != 0 {
			return tenant.Deny(tenant.KindMismatch, "a grant stands at index 0 only")
		}
	default:
		return tenant.Deny(tenant.KindMismatch, "a statement of kind %d", s.Kind)
	}
	if s.Kind == Message {
		if !isText(s.Audience) {
			return malformed("the aud of a message is a queue")
		}
	} else if id, err := spiffeid.FromString(s.Audience); err != nil || id.Path() == "" || len(s.Audience) > leaf.MaxID {
		return malformed("the aud is the SPIFFE ID of a workload")
	}
	if !isWindow(s.IssuedAt, s.Expires) {
		return malformed("a statement has an iat and a later exp")
	}
	if s.Claims != nil {
		if err := s.Claims.check(); err != nil {
			return err
		}
	}
	if n := s.Narrowing; n != nil {
		if !isSet(n.Scopes, isScope) || !isSet(n.Methods, ValidMethod) {
			return malformed("a narrowing holds sorted scopes and methods")
		}
	}
	return nil
}

// check holds for all claims, signed or received.
func (c *Claims) check() error {
	switch {
	case !isText(c.Transaction):
		return malformed("claims have a txn")
	case c.Tenant.IsZero() || !isText(c.TenantUID):
		return malformed("claims have a tenant and its uid")
	case !isText(c.Subject):
		return malformed("claims have a sub")
	case c.Issuer != "" && !isText(c.Issuer):
		return malformed("the iss is not text")
	case !isSet(c.Scopes, isScope):
		return malformed("the scopes are sorted scope-tokens, each once")
	case !isWindow(c.IssuedAt, c.Expires):
		return malformed("claims have an iat and a later exp")
	case c.Parent != nil && !isText(c.Parent.Transaction):
		return malformed("a parent has a txn")
	case c.Elevation != "" && !isText(c.Elevation):
		return malformed("the elevation is not text")
	}
	for _, attributes := range []map[string]string{c.Attributes, c.Request} {
		if len(attributes) > MaxList {
			return malformed("at most %d attributes", MaxList)
		}
		for k, v := range attributes {
			if !isText(k) || v != "" && !isText(v) {
				return malformed("an attribute is not text")
			}
		}
	}
	return nil
}

func malformed(format string, args ...any) error {
	return tenant.Deny(tenant.ContextMalformed, format, args...)
}

// isWindow reports whether iat and exp can stand in a statement or in claims.
func isWindow(iat, exp time.Time) bool {
	return iat.Unix() > 0 && iat.Unix() < exp.Unix() && exp.Unix() <= maxSeconds
}

// isSet reports whether v is sorted, holds each value once, and no more than
// maxList of them, all of which are ok.
func isSet(v []string, ok func(string) bool) bool {
	if len(v) > MaxList {
		return false
	}
	for i, s := range v {
		if !ok(s) || i > 0 && s <= v[i-1] {
			return false
		}
	}
	return true
}

// maxSeconds is the last second of the year 9999.
const maxSeconds = 253402300799

// isText reports whether s is text of 1 to maxText bytes without control characters.
func isText(s string) bool {
	return s != "" && len(s) <= maxText && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// isScope reports whether s is a scope-token (RFC 6749, section 3.3).
func isScope(s string) bool {
	return s != "" && len(s) <= maxText && !strings.ContainsFunc(s, func(r rune) bool {
		return r < 0x21 || r > 0x7e || r == '"' || r == '\\'
	})
}

// ValidMethod reports whether s is a full method, "/package.Service/Method",
// of at most 512 bytes: two protobuf names, with dots between their parts.
func ValidMethod(s string) bool {
	service, method, ok := strings.Cut(strings.TrimPrefix(s, "/"), "/")
	return ok && len(s) <= maxText && s[0] == '/' && isName(service) && isName(method)
}

// isName reports whether s is a protobuf name, with dots between its parts.
func isName(s string) bool {
	part := false // has begun
	for i := range len(s) {
		switch c := s[i]; {
		case c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z':
			part = true
		case c == '.' && part:
			part = false
		default:
			return false
		}
	}
	return part
}
