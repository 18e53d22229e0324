package interceptors

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// standing is what lets a call that was let in go on. It asks again what may
// have changed since: time, bundles, policy.
type standing struct {
	g        *Guard
	ctx      context.Context //nolint:containedctx // it lives as long as its call
	conn     *svid.Conn
	chain    *hop.Chain  // nil: exempt
	question policy.Call // where there is a chain
	observed bool
	// decided is what the last decision was made by.
	decided atomic.Pointer[state]
	// timed says that its answer may change with time alone.
	timed atomic.Bool
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
func (s *standing) decide(p *policy.Policy, now time.Time) (policy.Decision, error) {
	if s.chain == nil {
		d := p.Admit(s.question.Method, s.question.Declared, s.conn.PeerID())
		return d, d.Err()
	}
	q := s.question
	q.Time = now
	d := p.Decide(&q)
	s.timed.Store(d.Conditional())
	if err := d.Err(); err != nil {
		return d, err
	}
	if a := s.g.cfg.Authorizer; a != nil {
		if err := a.Authorize(s.ctx, &q); err != nil {
			if tenant.ReasonOf(err) == "" {
				err = tenant.Deny(tenant.AuthorizerDenied, "%w", err)
			}
			return d, err
		}
	}
	return d, nil
}

// valid says whether the context that was verified may still be used.
func (s *standing) valid() error {
	is, snap, err := s.g.state()
	if err != nil {
		return err
	}
	was := *s.decided.Load()
	now := s.g.cfg.Clock()
	if s.chain != nil {
		if err := s.chain.Valid(now); err != nil {
			return err
		}
		if is.generation != was.generation {
			if err := s.chain.Trusted(snap.Bundles, now); err != nil {
				return err
			}
		}
	}
	if is.policy != was.policy || s.timed.Load() {
		if _, err := s.decide(is.policy, now); err != nil && !(s.observed && isObservable(tenant.ReasonOf(err))) {
			return err
		}
	}
	if is != was {
		s.decided.Store(&is)
	}
	return nil
}

// mayGoOn is valid, and that the connection may still be used.
func (s *standing) mayGoOn() error {
	if err := s.conn.Check(); err != nil {
		return err
	}
	return s.valid()
}

// until returns when mayGoOn fails, if nothing but time changes.
func (s *standing) until() time.Time {
	until := s.conn.Until()
	if s.chain != nil && s.chain.Until().Before(until) {
		until = s.chain.Until()
	}
	return until
}

func (s *standing) isTimed() bool { return s.timed.Load() }
