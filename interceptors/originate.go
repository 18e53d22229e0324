package interceptors

import (
	"context"
	"crypto/rand"
	"slices"

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
	c := &call{point: audit.Originate, asserted: claims}
	out, err := g.originate(ctx, claims, c)
	if err == nil {
		err = g.audit.Allow(ctx, c.event())
	}
	if err != nil {
		_ = g.refuse(ctx, c, err)
		return nil, err
	}
	return out, nil
}

func (g *Guard) originate(ctx context.Context, claims *hop.Claims, c *call) (context.Context, error) {
	if claims == nil {
		return nil, tenant.Deny(tenant.ContextMissing, "no claims to originate")
	}
	if mint.From(ctx) != nil {
		return nil, tenant.Deny(tenant.ContextPresent, "the context carries a tenant already")
	}
	p, err := g.policy()
	if err != nil {
		return nil, err
	}
	snap, err := g.cfg.Source.Snapshot()
	if err != nil {
		return nil, err
	}
	self := snap.SVID.ID
	c.peer = self.String()

	claims = claims.Clone()
	slices.Sort(claims.Scopes)
	claims.Scopes = slices.Compact(claims.Scopes)
	if claims.Transaction == "" {
		claims.Transaction = rand.Text()
	}
	if claims.TenantUID == "" {
		claims.TenantUID, _ = p.TenantUID(claims.Tenant) // if it is not listed, policy refuses below
	}
	claims.IssuedAt = g.cfg.Clock()
	latest := claims.IssuedAt.Add(p.MaxTTL(self))
	if claims.Expires.IsZero() || claims.Expires.After(latest) {
		claims.Expires = latest
	}
	rule, err := p.MayOriginate(self, claims)
	c.rules = []string{rule}
	if err != nil {
		return nil, err
	}
	chain, err := hop.Begin(claims)
	if err != nil {
		return nil, err
	}
	c.chain = chain
	return mint.With(ctx, c.newRecord(nil, func() error {
		return g.mayStillOriginate(chain, p)
	})), nil
}

// mayStillOriginate says whether a chain that was begun under one policy may
// still be used.
func (g *Guard) mayStillOriginate(chain *hop.Chain, decided *policy.Policy) error {
	p, err := g.policy()
	if err != nil {
		return err
	}
	if err := chain.Valid(g.cfg.Clock()); err != nil {
		return err
	}
	if p == decided {
		return nil
	}
	snap, err := g.cfg.Source.Snapshot()
	if err != nil {
		return err
	}
	_, err = p.MayOriginate(snap.SVID.ID, chain.Claims())
	return err
}
