// Package tenant holds the words that every other package speaks: the tenant
// [ID], the verified [Context] of a call, and the typed [Error] with its
// [Reason].
//
// A Context can only be read out of a context.Context into which the
// interceptors put it after verification. There is no constructor and there are
// no exported fields; the zero value denies.
//
//	tc, err := tenant.Require(ctx)
//	if err != nil {
//		return nil, err // the interceptors turn it into a status
//	}
//	rows := store.List(tc.Tenant())
package tenant

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/internal/mint"
)

// ID names a tenant. It is 2 to 63 bytes of a-z, 0-9, '-' and '_' that start
// and end with a letter or digit, so that it stands unescaped in a SPIFFE path
// segment, a NATS subject, a Redis key and a DNS label's place. The zero ID names no
// tenant. IDs compare with ==.
type ID struct{ s string }

// ParseID returns the ID that s names. It never folds case nor trims: what is
// not exactly an ID is an error.
func ParseID(s string) (ID, error) {
	if len(s) < 2 || len(s) > 63 {
		return ID{}, Deny(TenantNotBound, "a tenant ID has 2 to 63 bytes, this one %d", len(s))
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		inner := i > 0 && i < len(s)-1
		if !alnum && (!inner || c != '-' && c != '_') {
			return ID{}, Deny(TenantNotBound, "a tenant ID holds a-z, 0-9 and, inside, '-' and '_'; byte %d is %q", i, c)
		}
	}
	return ID{s}, nil
}

// String returns the ID as it was parsed, and "" for the zero ID.
func (id ID) String() string { return id.s }

// IsZero reports whether id names no tenant.
func (id ID) IsZero() bool { return id.s == "" }

// Step is one hop of a call's path.
type Step struct {
	// Workload is the SPIFFE ID that signed the hop.
	Workload spiffeid.ID
	// Name is the policy's name for the workload.
	Name string
	// Method is the full gRPC method that was called with the hop.
	Method string
}

// Context is the verified tenant context of a call: its claims, and the path
// they came by. The zero Context holds no tenant. A Context is immutable and
// safe for concurrent use.
type Context struct{ r *mint.Record }

// FromContext returns the tenant context that ctx carries. It says what was
// verified, not that it is still valid: use [Require] to act on it.
func FromContext(ctx context.Context) (Context, bool) {
	r := mint.From(ctx)
	if r == nil || r.Facts == nil {
		return Context{}, false
	}
	return Context{r}, true
}

// Require returns the tenant context that ctx carries, if it is still valid:
// its claims have not expired, nor has any certificate on its path. It fails
// with [ContextMissing] or with the reason why it is no longer valid.
func Require(ctx context.Context) (Context, error) {
	r := mint.From(ctx)
	if r == nil || r.Holder == nil || r.Facts == nil || r.Tenant == "" {
		return Context{}, Deny(ContextMissing, "no verified tenant context here")
	}
	if err := r.Holder.Valid(); err != nil {
		return Context{}, err
	}
	return Context{r}, nil
}

// Refused returns the first error with which [Require] refused the tenant
// context that ctx carries, or nil. A server ends the call with it, whatever
// the handler made of it.
func Refused(ctx context.Context) error {
	if r := mint.From(ctx); r != nil && r.Holder != nil {
		return r.Holder.Refused()
	}
	return nil
}

// Owns fails with [TenantMismatch] unless ctx carries a valid tenant context
// of exactly the given tenant. It is for the moment when a record was read and
// its owner is known. Hand its error to nobody outside: to a caller, a record
// of another tenant must look like one that does not exist.
func Owns(ctx context.Context, owner ID) error {
	tc, err := Require(ctx)
	if err != nil {
		return err
	}
	if owner.IsZero() || owner.s != tc.r.Tenant {
		return Deny(TenantMismatch, "the record belongs to another tenant")
	}
	return nil
}

// Tenant returns the tenant; the zero ID for the zero Context.
func (c Context) Tenant() ID {
	if c.r == nil {
		return ID{}
	}
	return ID{c.r.Tenant}
}

// TenantUID returns the identifier that tells the tenant from others of the
// same ID before or after it.
func (c Context) TenantUID() string { return c.get().TenantUID }

// Subject returns the sub claim: the user or workload on whose behalf the call is made.
func (c Context) Subject() string { return c.get().Subject }

// Issuer returns the external issuer that vouched for the subject, or "".
func (c Context) Issuer() string { return c.get().Issuer }

// Transaction returns the txn claim, which all calls of one chain share.
func (c Context) Transaction() string { return c.get().Transaction }

// Scopes returns a copy of the scopes in force, sorted: those of the claims as
// the hops narrowed them.
func (c Context) Scopes() []string { return slices.Clone(c.get().Scopes) }

// HasScope reports whether the scope is in force.
func (c Context) HasScope(scope string) bool {
	_, ok := slices.BinarySearch(c.get().Scopes, scope)
	return ok
}

// Classification returns the classification of the claims; 0 is the lowest.
func (c Context) Classification() uint32 { return c.get().Classification }

// Attribute returns an attribute of the transaction context (tctx).
func (c Context) Attribute(name string) (string, bool) {
	v, ok := c.get().Attributes[name]
	return v, ok
}

// RequestAttribute returns an attribute of the request context (rctx).
func (c Context) RequestAttribute(name string) (string, bool) {
	v, ok := c.get().Request[name]
	return v, ok
}

// Path returns the hops that the context came by, the originating workload
// first. Where a workload has just originated the context, it is empty.
func (c Context) Path() []Step {
	steps := make([]Step, 0, len(c.get().Path))
	for _, s := range c.get().Path {
		steps = append(steps, Step{Workload: s.SPIFFEID, Name: s.Workload, Method: s.Method})
	}
	return steps
}

// IssuedAt returns the iat of the claims.
func (c Context) IssuedAt() time.Time { return c.get().IssuedAt }

// Expires returns the exp of the claims.
func (c Context) Expires() time.Time { return c.get().Expires }

// Elevation returns the identifier of the elevation by which the tenant is
// reached, or "" where the bindings allow it.
func (c Context) Elevation() string { return c.get().Elevation }

// IsZero reports whether c holds no tenant.
func (c Context) IsZero() bool { return c.r == nil }

// String names the tenant, the transaction and the path. It holds no claim
// besides, so that a Context may be logged.
func (c Context) String() string {
	if c.r == nil {
		return "no tenant"
	}
	var b strings.Builder
	b.WriteString("tenant " + c.r.Tenant + " txn " + c.r.Transaction)
	for _, s := range c.r.Path {
		b.WriteString(" " + s.SPIFFEID.String())
	}
	return b.String()
}

// GoString keeps %#v from printing what String leaves out.
func (c Context) GoString() string { return "tenant.Context{" + c.String() + "}" }

// get returns the facts, or empty ones for the zero Context.
func (c Context) get() *mint.Facts {
	if c.r == nil {
		return &none
	}
	return c.r.Facts
}

var none mint.Facts
