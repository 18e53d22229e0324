package interceptors

import (
	"context"
	"sync"
	"time"
)

// tick is how often the watch looks at open streams.
const tick = 250 * time.Millisecond

// watch ends open streams, idle ones too, that may not go on: one goroutine for
// all, which runs while there are any. At each tick it asks those again whose
// time has come, and all of them if policy or identity changed.
type watch struct {
	g *Guard

	mu      sync.Mutex
	open    map[stream]time.Time // until when nothing but policy and identity may end it
	running bool
}

// stream is an open stream.
type stream interface {
	// mayGoOn says whether it may.
	mayGoOn() error
	// until is when it may not, if nothing but time changes; isTimed says that
	// it may be earlier.
	until() time.Time
	isTimed() bool
	// end ends it for the reason in err, and returns what is left to record.
	end(err error) *refusal
}

// add watches a stream until it is removed.
func (w *watch) add(s stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open = map[stream]time.Time{}
	}
	w.open[s] = s.until()
	if !w.running {
		w.running = true
		go w.run()
	}
}

func (w *watch) remove(s stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, s)
}

// run looks after the streams until there are none.
func (w *watch) run() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var was state // none is like this one, so at first all are asked
	for range ticker.C {
		is, _, _ := w.g.state() // in the state of an error all are denied
		due, more := w.due(is != was || is == state{}, w.g.cfg.Clock())
		if !more {
			return
		}
		was = is
		var ended []*refusal
		for _, s := range due {
			if err := s.mayGoOn(); err != nil {
				if r := s.end(err); r != nil {
					ended = append(ended, r)
				}
			}
		}
		if len(ended) > 0 {
			go func() { // a slow sink delays no other stream's end
				for _, r := range ended {
					w.g.audit.Refuse(context.Background(), r.event, r.cause)
				}
			}()
		}
	}
}

// due returns the streams that are to be asked, and whether there are any.
func (w *watch) due(all bool, now time.Time) (due []stream, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.open) == 0 {
		w.running = false
		return nil, false
	}
	for s, until := range w.open {
		if all || s.isTimed() || !now.Before(until) {
			due = append(due, s)
		}
	}
	return due, true
}
