package interceptors

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tenantmesh/tenantmesh/internal/mint"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// inbound is a call that arrives at a server, and its context.Context: all that
// the guard knows of a call is one allocation.
type inbound struct {
	context.Context
	call
	conn  *svid.Conn
	have  *received // for conn
	proof *proof    // nil: exempt, or overlooked
	// held is what handlers get, once the call is let in.
	held  mint.Record
	letIn bool

	// unavailable is a refusal that waits for the interceptor, which can tell
	// the client not to retry.
	unavailable error

	entered atomic.Bool // by the interceptor
	// decided is the policy by which the call may go on; timed says that its
	// answer may change with time alone.
	decided atomic.Pointer[policy.Policy]
	timed   atomic.Bool
}

type inboundKey struct{}

// Value answers with the call itself, and with what it holds.
func (c *inbound) Value(key any) any {
	switch key.(type) {
	case inboundKey:
		return c
	case mint.Key:
		if !c.letIn {
			return (*mint.Record)(nil)
		}
		return c.record
	}
	return c.Context.Value(key)
}

// state is what decisions are made by, besides time.
type state struct {
	policy     *policy.Policy
	generation uint64 // of the identity and the bundles
}

// state returns the one of now: the policy and the identity in force.
func (g *Guard) state() (state, *svid.Snapshot, error) {
	p, err := g.policy()
	if err != nil {
		return state{}, nil, err
	}
	snap, err := svid.Current(g.cfg.Source)
	if err != nil {
		return state{}, nil, err
	}
	return state{p, snap.Generation}, snap, nil
}

// decide asks policy, and the other authorizer.
func (c *inbound) decide(p *policy.Policy, now time.Time) (policy.Decision, error) {
	if c.proof == nil {
		d := p.Admit(c.method, c.contract.declared, c.conn.PeerID())
		return d, d.Err()
	}
	q := c.proof.question
	q.Time = now
	d := p.Decide(&q)
	c.timed.Store(d.Conditional())
	if err := d.Err(); err != nil {
		return d, err
	}
	// A caller may have been taken over, and hand us what it must not.
	if err := p.MayHave(q.Claims.Tenant, c.conn.Local().ID); err != nil {
		return d, err
	}
	if a := c.g.cfg.Authorizer; a != nil {
		return d, c.ask(a, q)
	}
	return d, nil
}

// ask asks the other authorizer, which gets a copy: what is proven stays as it is.
func (c *inbound) ask(a policy.Authorizer, q policy.Call) error {
	q.Claims, q.Scopes, q.Path = q.Claims.Clone(), slices.Clone(q.Scopes), slices.Clone(q.Path)
	err := a.Authorize(c, &q)
	if err != nil && tenant.ReasonOf(err) == "" {
		return tenant.Deny(tenant.AuthorizerDenied, "%w", err)
	}
	return err
}

// Valid implements [mint.Holder]: it asks again what may have changed.
func (c *inbound) Valid() error { return c.keep(c.valid()) }

// Refused implements [mint.Holder].
func (c *inbound) Refused() error { return c.kept() }

// valid says whether the call may still go on: time, bundles, policy.
func (c *inbound) valid() error {
	is, snap, err := c.g.state()
	if err != nil {
		return err
	}
	now := c.g.cfg.Clock()
	if c.proof != nil {
		if err := c.proof.valid(snap, now); err != nil {
			return err
		}
	}
	if is.policy == c.decided.Load() && !c.timed.Load() {
		return nil
	}
	if _, err := c.decide(is.policy, now); err != nil && !(c.observed && isObservable(tenant.ReasonOf(err))) {
		return err
	}
	c.decided.Store(is.policy)
	return nil
}

// mayGoOn implements [stream].
func (c *inbound) mayGoOn() error {
	if err := c.conn.Check(); err != nil {
		return err
	}
	return c.valid()
}

// until implements [stream].
func (c *inbound) until() time.Time {
	until := c.conn.Until()
	if c.proof != nil && c.proof.chain.Until().Before(until) {
		until = c.proof.chain.Until()
	}
	return until
}

// isTimed implements [stream].
func (c *inbound) isTimed() bool { return c.timed.Load() }
