package interceptors

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/claimed"
	"github.com/tenantmesh/tenantmesh/internal/mint"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// call is what is known of one call while it is decided.
type call struct {
	point  audit.Point
	method string

	conn    *svid.Conn
	peer    string // proven, or empty
	policy  *policy.Policy
	exempt  bool
	rules   []string
	headers map[string][]string // as received

	metadata hop.Metadata
	asserted *hop.Claims // to be originated
	chain    *hop.Chain
	record   *mint.Record

	// unavailable is a refusal that waits for the interceptor, which can tell
	// the client not to retry.
	unavailable error

	// refused is the guard's first refusal after it had let the call in.
	refused atomic.Pointer[error]
}

// keep remembers err, if it is the guard's first refusal of a call that it had
// let in: nothing that the handler does undoes it.
func (c *call) keep(err error) error {
	if err != nil {
		c.refused.CompareAndSwap(nil, &err)
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

// event returns the audit event of c's decision.
func (c *call) event() audit.Event {
	e := audit.Event{
		Point:  c.point,
		Peer:   c.peer,
		Method: c.method,
		Rule:   strings.Join(c.rules, " "),
	}
	claims := c.asserted
	switch {
	case c.chain != nil:
		claims, e.Proven = c.chain.Claims(), true
		for _, s := range c.chain.Path() {
			e.Path = append(e.Path, s.Signer.String())
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

// refuse records that c is refused because of err and returns the status for
// the caller.
func (g *Guard) refuse(ctx context.Context, c *call, err error) error {
	var cause *tenant.Error
	if !errors.As(err, &cause) {
		cause = tenant.Deny(tenant.Internal, "%w", err)
	}
	id := g.audit.Refuse(ctx, c.event(), cause)
	if c.point == audit.Server && c.peer == "" {
		return unauthenticated
	}
	return statusOf(cause, id)
}

// newRecord turns the call's chain into what handlers see of it. valid asks
// everything again that may have changed: time, bundles, policy.
func (c *call) newRecord(workloads []string, valid func() error) *mint.Record {
	claims := c.chain.Claims()
	r := &mint.Record{
		Tenant:         claims.Tenant.String(),
		TenantUID:      claims.TenantUID,
		Subject:        claims.Subject,
		Issuer:         claims.Issuer,
		Transaction:    claims.Transaction,
		Scopes:         c.chain.Scopes(),
		Classification: claims.Classification,
		Attributes:     claims.Attributes,
		Request:        claims.Request,
		IssuedAt:       claims.IssuedAt,
		Expires:        claims.Expires,
		Elevation:      claims.Elevation,
		Valid:          func() error { return c.keep(valid()) },
		Refused:        c.kept,
		Carrier:        c.chain,
	}
	for i, s := range c.chain.Path() {
		r.Path = append(r.Path, mint.Step{SPIFFEID: s.Signer.String(), Workload: workloads[i], Method: s.Target})
	}
	return r
}

// signers returns who signed the hops of chain, oldest first.
func signers(chain *hop.Chain) []spiffeid.ID {
	var ids []spiffeid.ID
	for _, s := range chain.Path() {
		ids = append(ids, s.Signer)
	}
	return ids
}
