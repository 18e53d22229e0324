package mesh

import (
	"context"
	"sync"

	"github.com/tenantmesh/tenantmesh/audit"
)

// Trail is a part of a workload's audit trail.
type Trail struct {
	// Events are denials, and what was allowed while [Process.Trace] was on: a
	// load would fill the memory else. [Process.Edges] counts them all.
	Events []audit.Event
	// Next is the place after the last of them.
	Next int
	// Dropped says that events between the place asked for and the first of
	// Events are gone.
	Dropped bool
}

// maxTrail is how many events are kept.
const maxTrail = 1 << 16

// trail keeps a process's events. It implements [audit.Sink].
type trail struct {
	self string

	mu     sync.Mutex
	events []audit.Event
	first  int // the place of events[0]
	all    bool
	counts map[edgeKey]*Edge
}

type edgeKey struct{ peer, tenant string }

func newTrail(self string) *trail { return &trail{self: self, counts: map[edgeKey]*Edge{}} }

// Record implements [audit.Sink].
func (t *trail) Record(_ context.Context, e audit.Event) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Point == audit.Server {
		k := edgeKey{peer: e.Peer}
		if e.Proven {
			k.tenant = e.Tenant
		}
		n := t.counts[k]
		if n == nil {
			n = &Edge{From: k.peer, To: t.self, Tenant: k.tenant}
			t.counts[k] = n
		}
		if e.Allowed {
			n.Allowed++
		} else {
			n.Refused++
		}
	}
	if e.Allowed && !t.all {
		return nil
	}
	if len(t.events) == maxTrail {
		t.events = append(t.events[:0], t.events[maxTrail/2:]...)
		t.first += maxTrail / 2
	}
	t.events = append(t.events, e)
	return nil
}

func (t *trail) from(after int) Trail {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := Trail{Next: t.first + len(t.events), Dropped: after < t.first}
	if i := max(after-t.first, 0); i < len(t.events) {
		out.Events = append(out.Events, t.events[i:]...)
	}
	return out
}

func (t *trail) edges() []Edge {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Edge
	for _, e := range t.counts {
		out = append(out, *e)
	}
	return out
}
