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

	mu   sync.Mutex
	open map[stream]time.Time // until when nothing but policy and identity may end it
	idle chan struct{}        // closed when there are none any more
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
	if len(w.open) == 0 {
		w.open, w.idle = map[stream]time.Time{}, make(chan struct{})
		go w.run(w.idle)
	}
	w.open[s] = s.until()
}

func (w *watch) remove(s stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, open := w.open[s]; !open {
		return
	}
	delete(w.open, s)
	if len(w.open) == 0 {
		close(w.idle)
	}
}

// run looks after the streams until there are none.
func (w *watch) run(idle <-chan struct{}) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var was moment // none is like this one, so at first all are asked
	for {
		select {
		case <-idle:
			return
		case <-ticker.C:
		}
		is, err := w.g.now()
		all := err != nil || is.policy != was.policy || is.snap.Generation != was.snap.Generation
		was = is
		var ended []*refusal
		for _, s := range w.due(all, w.g.cfg.Clock()) {
			if err := s.mayGoOn(); err != nil {
				if r := s.end(err); r != nil {
					ended = append(ended, r)
				}
			}
		}
		if len(ended) > 0 {
			go func() { // a slow sink delays no other stream's end
				for _, r := range ended {
					r.record(context.Background())
				}
			}()
		}
	}
}

// due returns the streams that are to be asked.
func (w *watch) due(all bool, now time.Time) (due []stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s, until := range w.open {
		if all || s.isTimed() || !now.Before(until) {
			due = append(due, s)
		}
	}
	return due
}
