package interceptors

import (
	"sync/atomic"
	"time"

	"github.com/tenantmesh/tenantmesh/internal/mint"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
)

// moment is what decisions are made by: the policy and the identity in force, and the time.
type moment struct {
	g      *Guard
	policy *policy.Policy
	snap   *svid.Snapshot
	now    time.Time
}

// now returns the moment of now.
func (g *Guard) now() (moment, error) {
	p, err := g.policy()
	if err != nil {
		return moment{}, err
	}
	snap, err := svid.Current(g.cfg.Source)
	if err != nil {
		return moment{}, err
	}
	return moment{g, p, snap, g.cfg.Clock()}, nil
}

// valid asks the holder of a record, which may be another guard's.
func (is *moment) valid(h mint.Holder) error {
	switch h := h.(type) {
	case *inbound:
		if h.g == is.g {
			return h.keep(h.validAt(is))
		}
	case *origination:
		if h.g == is.g {
			return h.keep(h.validAt(is))
		}
	}
	return h.Valid()
}

// isTimed says that what the holder answers may change before its chain ends, while the policy and
// the identity that are in force here do not: with time, or because it is another guard's.
func (is *moment) isTimed(h mint.Holder) bool {
	switch h := h.(type) {
	case *inbound:
		return h.g != is.g || h.isTimedBy(is.policy)
	case *origination:
		return h.g != is.g || h.parent != nil && is.isTimed(h.parent.Holder)
	}
	return true
}

// clearance is the last answer to whether a stream may go on, if it was yes: it stands until the
// policy or the identity change, or its time is over.
type clearance struct{ last atomic.Pointer[cleared] }

type cleared struct {
	moment
	conn  *svid.Conn
	until time.Time
}

// stands reports whether the answer is the same as it was.
func (c *clearance) stands(is *moment, conn *svid.Conn) bool {
	was := c.last.Load()
	return was != nil && was.conn == conn && was.policy == is.policy && was.snap == is.snap && is.now.Before(was.until) &&
		!is.now.Before(was.now) // or the clock was set back
}

// note keeps a yes.
func (c *clearance) note(is *moment, conn *svid.Conn, until time.Time) {
	c.last.Store(&cleared{*is, conn, until})
}
