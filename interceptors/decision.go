package interceptors

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"

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
}

// event returns the audit event of c's decision.
func (g *Guard) event(c *call) audit.Event {
	e := audit.Event{
		Time:       g.cfg.Clock(),
		DecisionID: rand.Text(),
		Point:      c.point,
		Peer:       c.peer,
		Method:     c.method,
		Rule:       strings.Join(c.rules, " "),
	}
	claims := c.asserted
	switch {
	case c.chain != nil:
		claims, e.Proven = c.chain.Claims(), true
		for _, s := range c.chain.Path() {
			e.Path = append(e.Path, s.Signer.String())
		}
	case claims == nil:
		claims = hop.UnverifiedClaims(c.metadata)
	}
	if claims != nil {
		e.Tenant, e.Subject, e.Transaction = claims.Tenant.String(), claims.Subject, claims.Transaction
	}
	e.Claimed = claimed.Tenant(c.headers, e.Tenant)
	return e
}

// allow records that c is allowed, and fails if that cannot be recorded.
func (g *Guard) allow(ctx context.Context, c *call) error {
	e := g.event(c)
	e.Allowed = true
	if err := g.cfg.Audit.Record(ctx, e); err != nil {
		return tenant.Deny(tenant.AuditUnavailable, "%w", err)
	}
	return nil
}

// refuse records that c is refused because of err and returns the status for
// the caller.
func (g *Guard) refuse(ctx context.Context, c *call, err error) error {
	var cause *tenant.Error
	if !errors.As(err, &cause) {
		cause = tenant.Deny(tenant.Internal, "%w", err)
	}
	e := g.event(c)
	e.Reason, e.Detail = cause.Reason, cause.Error()
	if cause.Rule != "" {
		e.Rule = cause.Rule
	}
	if err := g.cfg.Audit.Record(context.WithoutCancel(ctx), e); err != nil {
		// It is refused either way.
		g.cfg.Logger.ErrorContext(ctx, "tenantmesh: a refusal could not be recorded",
			"reason", string(cause.Reason), "decision_id", e.DecisionID, "err", err)
	}
	if c.point == audit.Server && c.peer == "" {
		return unauthenticated
	}
	return statusOf(cause, e.DecisionID)
}

// newRecord turns a chain into what handlers see of it. Valid asks everything
// again that may have changed: time, bundles, policy.
func (g *Guard) newRecord(chain *hop.Chain, workloads []string, valid func() error) *mint.Record {
	claims := chain.Claims()
	r := &mint.Record{
		Tenant:         claims.Tenant.String(),
		TenantUID:      claims.TenantUID,
		Subject:        claims.Subject,
		Issuer:         claims.Issuer,
		Transaction:    claims.Transaction,
		Scopes:         chain.Scopes(),
		Classification: claims.Classification,
		Attributes:     claims.Attributes,
		Request:        claims.Request,
		IssuedAt:       claims.IssuedAt,
		Expires:        claims.Expires,
		Elevation:      claims.Elevation,
		Valid:          valid,
		Carrier:        chain,
	}
	for i, s := range chain.Path() {
		r.Path = append(r.Path, mint.Step{SPIFFEID: s.Signer, Workload: workloads[i], Method: s.Target})
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
