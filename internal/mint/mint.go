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

// Record is the content of a verified tenant context. It is immutable after
// [With] has put it into a context.
type Record struct {
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

	// Valid says whether the record may still be used; it is asked at every
	// use, so that a handler that runs on past the claims' expiry stops.
	// A nil Valid denies.
	Valid func() error
	// Refused returns the first error that Valid gave, or nil.
	Refused func() error

	// Carrier is what a further hop is added to. Only the package that made
	// the record reads it.
	Carrier any
}

// Step is one hop of the path: who signed, and what was called with it.
type Step struct {
	SPIFFEID spiffeid.ID
	Workload string // the policy's name for the signer
	Method   string
}

type key struct{}

// With returns a copy of ctx that carries r.
func With(ctx context.Context, r *Record) context.Context {
	return context.WithValue(ctx, key{}, r)
}

// Without returns a copy of ctx that carries no record, whatever ctx carries.
func Without(ctx context.Context) context.Context {
	return context.WithValue(ctx, key{}, (*Record)(nil))
}

// From returns the record that ctx carries, or nil.
func From(ctx context.Context) *Record {
	r, _ := ctx.Value(key{}).(*Record)
	return r
}
