// Package mint is the one door through which a verified tenant context is
// made. Package tenant reads what mint put into a context.Context and offers no
// constructor of its own, so that only the importers of this package, which
// arch_test.go lists, can say "this tenant is proven".
package mint

import (
	"context"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Record is a verified tenant context: what was verified, which many calls may
// share, and the call that holds it. It is immutable.
type Record struct {
	*Facts
	// Holder is asked at every use. A nil Holder denies.
	Holder Holder
	// Carrier is what a further hop is added to. Only the package that made
	// the record reads it.
	Carrier any
}

// Facts are what was verified. They are immutable.
type Facts struct {
	Tenant         string
	TenantUID      string
	Subject        string
	Issuer         string // the external issuer that vouched for Subject; empty if none did
	Transaction    string
	Scopes         []string
	Classification uint32
	Attributes     map[string]string // tctx
	Request        map[string]string // rctx
	Path           []Step
	IssuedAt       time.Time
	Expires        time.Time
	Elevation      string // the identifier of the elevation in use; empty if none
}

// Holder is the call that holds a record.
type Holder interface {
	// Valid says whether the record may still be used, so that a handler that
	// runs on past the claims' expiry stops.
	Valid() error
	// Refused returns the first error that Valid gave, or nil.
	Refused() error
}

// Step is one hop of the path: who signed, and what was called with it.
type Step struct {
	SPIFFEID spiffeid.ID
	Workload string // the policy's name for the signer
	Method   string
}

// Key is what a context.Context is asked for by [From]. It answers with a
// *Record, nil for none.
type Key struct{}

// With returns a copy of ctx that carries r.
func With(ctx context.Context, r *Record) context.Context {
	return context.WithValue(ctx, Key{}, r)
}

// Without returns a copy of ctx that carries no record, whatever ctx carries.
func Without(ctx context.Context) context.Context { return With(ctx, nil) }

// From returns the record that ctx carries, or nil.
func From(ctx context.Context) *Record {
	r, _ := ctx.Value(Key{}).(*Record)
	return r
}
