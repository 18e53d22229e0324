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
	// decided is the last policy by which the call may go on whatever time it is. One whose answer
	// depends on time is never here, so that it is asked at each use.
	decided atomic.Pointer[policy.Policy]
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

// decide asks policy, whose decision goes to d, and the other authorizer.
func (c *inbound) decide(is *moment, d *policy.Decision) error {
	if c.proof == nil {
		*d = is.policy.Admit(c.method, c.contract.declared, c.conn.PeerID())
		return d.Err()
	}
	q := c.proof.question
	q.Time = is.now
	*d = is.policy.Decide(&q)
	if err := d.Err(); err != nil {
		return err
	}
	// A caller may have been taken over, and hand us what it must not.
	if err := is.policy.MayHave(q.Claims.Tenant, c.conn.Local().ID); err != nil {
		return err
	}
	if a := c.g.cfg.Authorizer; a != nil {
		return c.ask(a, q)
	}
	return nil
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

// valid says whether the call may still go on now.
func (c *inbound) valid() error {
	is, err := c.g.now()
	if err != nil {
		return err
	}
	return c.validAt(&is)
}

// Refused implements [mint.Holder].
func (c *inbound) Refused() error { return c.kept() }

// validAt says whether the call may still go on: time, bundles, policy.
func (c *inbound) validAt(is *moment) error {
	if c.proof != nil {
		if err := c.proof.valid(is.snap, is.now); err != nil {
			return err
		}
	}
	if !c.isTimedBy(is.policy) {
		return nil
	}
	var d policy.Decision
	if err := c.decide(is, &d); err != nil && !(c.observed && isObservable(tenant.ReasonOf(err))) {
		return err
	}
	c.goOn(is.policy, &d)
	return nil
}

// goOn notes a decision by which the call goes on.
func (c *inbound) goOn(pol *policy.Policy, d *policy.Decision) {
	if !d.Conditional() {
		c.decided.Store(pol)
	}
}

// isTimedBy says that a policy is to be asked at each use: it has not been yet, or its answer
// depends on the time.
func (c *inbound) isTimedBy(pol *policy.Policy) bool { return c.decided.Load() != pol }

// until implements [stream].
func (c *inbound) until() time.Time {
	until := c.conn.Until()
	if c.proof != nil && c.proof.chain.Until().Before(until) {
		until = c.proof.chain.Until()
	}
	return until
}

// isTimed implements [stream].
func (c *inbound) isTimed() bool {
	pol, err := c.g.policy()
	return err != nil || c.isTimedBy(pol)
}
