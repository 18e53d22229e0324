package interceptors

import (
	"sync"
	"time"

	"github.com/tenantmesh/tenantmesh/policy"
)

// tick is how often the watch looks at open streams.
const tick = 250 * time.Millisecond

// watch ends open streams, idle ones too, that may not go on: one goroutine for
// all, which runs while there are any. At each tick it asks those again whose
// time has come, and all of them if policy or identity changed.
type watch struct {
	g *Guard

	mu      sync.Mutex
	open    map[*watched]struct{}
	running bool
}

// watched is an open stream.
type watched struct {
	// valid says whether it may go on.
	valid func() error
	// end ends it for the reason in err.
	end func(err error)
	// until is when something about it expires.
	until time.Time
	// always says that time alone may change what is decided.
	always bool
}

// add watches a stream until the returned function is called.
func (w *watch) add(s *watched) (remove func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open = map[*watched]struct{}{}
	}
	w.open[s] = struct{}{}
	if !w.running {
		w.running = true
		go w.run()
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.open, s)
	}
}

// run looks after the streams until there are none.
func (w *watch) run() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var last state // no state is like this one, so all are asked at first
	for {
		<-ticker.C
		now := w.g.state()
		due, more := w.due(now != last, w.g.cfg.Clock())
		if !more {
			return
		}
		last = now
		for _, s := range due {
			if err := s.valid(); err != nil {
				s.end(err)
			}
		}
	}
}

// due returns the streams that are to be asked, and whether there are any.
func (w *watch) due(all bool, now time.Time) (due []*watched, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.open) == 0 {
		w.running = false
		return nil, false
	}
	for s := range w.open {
		if all || s.always || !now.Before(s.until) {
			due = append(due, s)
		}
	}
	return due, true
}

// state is what decisions stand on, besides time.
type state struct {
	policy     *policy.Policy
	generation uint64
}

// state returns the one of now; without a policy or an identity it is one in
// which everything is denied.
func (g *Guard) state() state {
	var s state
	s.policy, _ = g.policy()
	if snap, err := g.cfg.Source.Snapshot(); err == nil {
		s.generation = snap.Generation
	}
	return s
}
