package interceptors

import (
	"context"
	"crypto/rand"
	"errors"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/claimed"
	"github.com/tenantmesh/tenantmesh/internal/fields"
	"github.com/tenantmesh/tenantmesh/internal/mint"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// call is what is known of one call while it is decided.
type call struct {
	g        *Guard
	point    audit.Point
	method   string
	contract *contract

	peer    string // proven, or empty
	policy  *policy.Policy
	exempt  bool
	rule    string              // the places that decided
	headers map[string][]string // as received

	metadata hop.Metadata
	chain    *hop.Chain
	record   *mint.Record
	// claims are those that are to be originated, or the chain's, and path is
	// who signed it, both if they are at hand.
	claims *hop.Claims
	path   []string

	// observed says that denials are not enforced; overlooked is the first that
	// was not.
	observed   bool
	overlooked error

	// refused is the guard's first refusal after it had let the call in; told is
	// what was said of it.
	refused atomic.Pointer[error]
	told    atomic.Pointer[refusal]
}

// keep remembers err, if it is the guard's first refusal of a call that it had
// let in: nothing that the handler does undoes it.
func (c *call) keep(err error) error {
	if err != nil {
		first := err // so that nothing is allocated without one
		c.refused.CompareAndSwap(nil, &first)
	}
	return err
}

// kept returns what keep remembers, or nil.
func (c *call) kept() error {
	if err := c.refused.Load(); err != nil {
		return *err
	}
	return nil
}

// overlook reports whether a denial is not to be enforced, and notes it.
func (c *call) overlook(err error) bool {
	if !c.observed || !isObservable(tenant.ReasonOf(err)) {
		return false
	}
	if c.overlooked == nil {
		c.overlooked = err
	}
	return true
}

// event returns the audit event of c's decision.
func (c *call) event() audit.Event {
	e := audit.Event{
		Point:   c.point,
		Peer:    c.peer,
		Method:  c.method,
		Rule:    c.rule,
		Policy:  c.policy.Version(),
		Observe: c.observed,
	}
	claims := c.claims
	switch {
	case c.chain != nil:
		e.Proven, e.Path = true, c.path
		if claims == nil {
			claims, e.Path = c.chain.View(), signers(c.chain.Path())
		}
	case claims == nil && !c.exempt: // what comes with an exempt call is nobody's word
		claims = hop.UnverifiedClaims(c.metadata)
	}
	if claims != nil {
		e.Tenant, e.Subject, e.Transaction = claims.Tenant.String(), claims.Subject, claims.Transaction
	}
	e.Claimed = claimed.Tenants(c.headers, e.Tenant)
	return e
}

// signers returns the SPIFFE IDs of those who signed the hops.
func signers(path []hop.Step) []string {
	ids := make([]string, 0, len(path))
	for _, s := range path {
		ids = append(ids, s.Signer.String())
	}
	return ids
}

// allow records that c is allowed, or that a denial of it is overlooked. If that
// fails, the call is refused.
func (c *call) allow(ctx context.Context) error {
	if c.overlooked != nil {
		return c.g.audit.Observe(ctx, c.event(), asError(c.overlooked))
	}
	return c.g.audit.Allow(ctx, c.event())
}

// refusal is a call that is refused.
type refusal struct {
	g      *Guard
	event  audit.Event
	cause  *tenant.Error
	status error // for the caller
}

// refusal makes what is said of a call that is refused because of err.
func (c *call) refusal(err error) *refusal {
	r := &refusal{g: c.g, event: c.event(), cause: asError(err)}
	r.event.DecisionID = rand.Text()
	var f *fields.Fault
	if errors.As(err, &f) {
		r.event.Field = f.Path
	}
	r.event.Alarm = errors.As(err, new(leak))
	switch {
	case c.point == audit.Server && c.peer == "":
		r.status = unauthenticated
	case r.cause.Reason == tenant.TenantMismatch && c.contract != nil:
		r.status = c.contract.absent()
	default:
		r.status = statusOf(r.cause, r.event.DecisionID)
	}
	return r
}

// tell makes what is said of a call that was let in and is refused because of
// err. Only who is first is to record it.
func (c *call) tell(err error) (r *refusal, first bool) {
	_ = c.keep(err)
	r = c.refusal(c.kept())
	if c.told.CompareAndSwap(nil, r) {
		return r, true
	}
	return c.told.Load(), false
}

func (r *refusal) record(ctx context.Context) { r.g.audit.Refuse(ctx, r.event, r.cause) }

// refuse records that c is refused because of err and returns the status for
// the caller.
func (c *call) refuse(ctx context.Context, err error) error {
	r := c.refusal(err)
	r.record(ctx)
	return r.status
}

// asError returns the error of the kit in err, or wraps it into one.
func asError(err error) *tenant.Error {
	var e *tenant.Error
	if !errors.As(err, &e) {
		return tenant.Deny(tenant.Internal, "%w", err)
	}
	return e
}

// leak is the fault of a message that another tenant's data was about to leave
// with, or came with.
type leak struct{ error }

func (l leak) Unwrap() error { return l.error }

// check holds a message of the call to its .proto at a point and returns what
// passes.
func (c *call) check(ctx context.Context, m any, at fields.Point) (any, error) {
	t, response := c.contract.in, at == fields.ServerSends || at == fields.ClientReceives
	if response {
		t = c.contract.out
	}
	if t == nil || c.record == nil { // exempt, or observed
		return m, nil
	}
	pm, ok := m.(proto.Message)
	if !ok {
		return nil, tenant.Deny(tenant.MessageUncheckable, "a message of type %T, which is no protobuf message", m)
	}
	out, err := t.Check(pm, at, fields.Limits{Tenant: c.record.Tenant, Classification: c.record.Classification})
	if err == nil {
		return out, nil
	}
	if response {
		err = leak{err}
	}
	if c.overlook(err) {
		r := c.refusal(err)
		return m, c.g.audit.Observe(ctx, r.event, r.cause)
	}
	return nil, err
}
