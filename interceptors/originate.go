package interceptors

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/mint"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Originate starts a chain: it returns a copy of ctx that carries claims for
// the calls made with it, if policy lets this workload originate them. The
// caller must have proven what the claims say, as package edge does.
//
// Of the claims, the tenant and the subject are required. A Transaction and a
// TenantUID that are empty are filled in, scopes are sorted, IssuedAt is now,
// and Expires is as asked but no later than the policy's max_ttl from now.
//
// It fails with a [*tenant.Error]: [tenant.ContextMissing] without claims,
// [tenant.ContextPresent] where ctx carries a tenant already, or the reason why
// policy refuses.
func (g *Guard) Originate(ctx context.Context, claims *hop.Claims) (context.Context, error) {
	o := &origination{call: call{g: g, point: audit.Originate, claims: claims}}
	return o.begin(ctx, func(*moment) error {
		if mint.From(ctx) != nil {
			return tenant.Deny(tenant.ContextPresent, "the context carries a tenant already")
		}
		return nil
	})
}

// OriginateAnew is [Guard.Originate] for a workload at a boundary: it starts a
// chain that is derived from the one that ctx carries, for callees that shall
// or can not verify the hops before this workload. Policy must let it do so for
// each trust domain on that chain's path (originate: from). The claims name the
// chain as their parent; they must be for its tenant, with no scope and no
// classification beyond it, and they expire with it at the latest.
//
// Beside the reasons of Originate it fails as [tenant.Require] does, and with
// [tenant.OriginationNotAllowed], [tenant.ScopeWidened] or
// [tenant.ClassificationNotAllowed] for claims beyond their parent.
func (g *Guard) OriginateAnew(ctx context.Context, claims *hop.Claims) (context.Context, error) {
	o := &origination{call: call{g: g, point: audit.Originate, claims: claims}}
	return o.begin(mint.Without(ctx), func(is *moment) (err error) {
		var from *carried
		if o.parent, from, err = is.outgoing(ctx); err != nil {
			return err
		}
		o.from = from.chain
		return o.derive()
	})
}

// origination is a chain that is started, what it stands on, and what is carried of it.
type origination struct {
	call                // policy is the one that allowed it
	asked  hop.Claims   // as completed
	parent *mint.Record // nil unless it is derived
	from   *hop.Chain

	onward carried
	facts  mint.Facts
	held   mint.Record
}

func (o *origination) begin(ctx context.Context, prepare func(is *moment) error) (context.Context, error) {
	err := o.originate(prepare)
	if err == nil {
		err = o.allow(ctx)
	}
	if err != nil {
		_ = o.refuse(ctx, err)
		return nil, err
	}
	o.onward.chain = o.chain
	setFacts(&o.facts, &policy.Call{Claims: o.claims, Scopes: o.claims.Scopes}, nil)
	o.held = mint.Record{Facts: &o.facts, Holder: o, Carrier: &o.onward}
	return mint.With(ctx, &o.held), nil
}

func (o *origination) originate(prepare func(is *moment) error) error {
	if o.claims == nil {
		return tenant.Deny(tenant.ContextMissing, "no claims to originate")
	}
	is, err := o.g.now()
	if err != nil {
		return err
	}
	self := is.snap.SVID.ID
	o.peer, o.policy = self.String(), is.policy

	o.asked = *o.claims
	claims := &o.asked
	o.claims = claims
	claims.Scopes = slices.Clone(claims.Scopes)
	slices.Sort(claims.Scopes)
	claims.Scopes = slices.Compact(claims.Scopes)
	if claims.Transaction == "" {
		claims.Transaction = rand.Text()
	}
	if claims.TenantUID == "" {
		claims.TenantUID, _ = is.policy.TenantUID(claims.Tenant) // if it is not listed, policy refuses below
	}
	claims.IssuedAt = is.now
	latest := claims.IssuedAt.Add(is.policy.MaxTTL(self))
	if claims.Expires.IsZero() || claims.Expires.After(latest) {
		claims.Expires = latest
	}
	if err := prepare(&is); err != nil {
		return err
	}
	leave := o.decide(is.policy, self)
	o.rule = strings.Join(leave.Rules(), " ")
	if err := leave.Err(); err != nil {
		return err
	}
	if o.chain, err = hop.Begin(claims); err != nil {
		return err
	}
	o.claims = o.chain.View() // no part of which is the caller's
	return nil
}

// derive makes the claims those of a chain derived from another.
func (o *origination) derive() error {
	c, p := o.claims, o.from.View()
	switch {
	case c.Tenant != p.Tenant || c.TenantUID != p.TenantUID:
		return tenant.Deny(tenant.OriginationNotAllowed, "the claims are for another tenant than their parent")
	case slices.ContainsFunc(c.Scopes, func(s string) bool { return !slices.Contains(o.from.Scopes(), s) }):
		return tenant.Deny(tenant.ScopeWidened, "a scope that the parent does not hold")
	case c.Classification > p.Classification:
		return tenant.Deny(tenant.ClassificationNotAllowed, "the claims reach to %d, their parent to %d", c.Classification, p.Classification)
	case o.from.Origin() == nil:
		return tenant.Deny(tenant.ContextPresent, "the context's chain was started here and handed over by nobody")
	}
	c.Parent = o.from.Origin()
	if until := o.from.Until(); until.Before(c.Expires) {
		c.Expires = until
	}
	return nil
}

func (o *origination) decide(p *policy.Policy, self spiffeid.ID) policy.Decision {
	var from []hop.Step
	if o.from != nil {
		from = o.from.Path()
	}
	return p.MayOriginate(self, o.claims, from)
}

// Valid implements [mint.Holder].
func (o *origination) Valid() error { return o.keep(o.valid()) }

// Refused implements [mint.Holder].
func (o *origination) Refused() error { return o.kept() }

// valid says whether the chain may still be used now.
func (o *origination) valid() error {
	is, err := o.g.now()
	if err != nil {
		return err
	}
	return o.validAt(&is)
}

// validAt says whether the chain may still be used.
func (o *origination) validAt(is *moment) error {
	if o.parent != nil {
		if err := is.valid(o.parent.Holder); err != nil {
			return err
		}
	}
	if err := o.chain.Valid(is.now); err != nil {
		return err
	}
	if is.policy == o.policy {
		return nil
	}
	leave := o.decide(is.policy, is.snap.SVID.ID)
	return leave.Err()
}
