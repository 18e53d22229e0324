package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Load is what several workloads generate at once.
type Load struct {
	Name string
	// By says what each workload does, by its name.
	By map[string]Generate
}

// RunningLoad is a load that runs. It is safe for concurrent use.
type RunningLoad struct {
	m      *Mesh
	began  time.Time
	cancel context.CancelFunc
	done   chan struct{} // closed when it is over
	err    error         // valid then

	mu      sync.Mutex
	result  LoadResult
	seconds []*second
	pending []Refusal // that nothing explains yet
	windows []*window
	last    time.Time // the end of the last refusal
	by      map[string]*part
}

// part is what one workload did.
type part struct{ calls, refused uint64 }

type second struct {
	right, refused uint64
	latency        Histogram
}

// window is a time in which something is broken.
type window struct{ from, to time.Time }

// settle is how long after its end a fault may still show: connections are made
// anew with growing pauses.
const settle = 2 * time.Second

// often is how often workloads are asked how their load goes.
const often = 100 * time.Millisecond

// StartLoad starts a load. It is over when all its workloads have made their
// calls, or by [RunningLoad.Stop].
func (m *Mesh) StartLoad(ctx context.Context, l Load) (*RunningLoad, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &RunningLoad{m: m, began: time.Now(), cancel: cancel, done: make(chan struct{}), by: map[string]*part{},
		result: LoadResult{Name: l.Name, Refusals: map[string]uint64{}, Latency: map[Shape]*Histogram{}}}
	names := slices.Sorted(maps.Keys(l.By))
	for _, name := range names {
		p := m.Process(name)
		if p == nil {
			cancel()
			return nil, fmt.Errorf("mesh: no workload %q", name)
		}
		if err := p.Ask(ctx, "Generate", l.By[name], &None{}); err != nil {
			cancel()
			return nil, err
		}
	}
	go r.follow(ctx, names)
	return r, nil
}

func (r *RunningLoad) follow(ctx context.Context, names []string) {
	defer close(r.done)
	tick := time.NewTicker(often)
	defer tick.Stop()
	running := slices.Clone(names)
	for len(running) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			for _, name := range names { // their calls end in a while, and count
				end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
				err := r.m.Process(name).Ask(end, "StopLoad", None{}, &None{})
				if err == nil {
					_, err = r.take(end, name)
				}
				cancel()
				r.err = errors.Join(r.err, err)
			}
			return
		}
		for _, name := range slices.Clone(running) {
			over, err := r.take(ctx, name)
			if err != nil && ctx.Err() == nil {
				r.err = errors.Join(r.err, err)
				over = true
			}
			if over && ctx.Err() == nil {
				running = slices.DeleteFunc(running, func(n string) bool { return n == name })
			}
		}
	}
}

// take asks a workload what happened.
func (r *RunningLoad) take(ctx context.Context, name string) (over bool, err error) {
	var p Progress
	if err := r.m.Process(name).Ask(ctx, "Progress", None{}, &p); err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &r.result
	out.Calls += p.Calls
	out.Right += p.Right
	out.Wrong += p.Wrong
	if r.by[name] == nil {
		r.by[name] = &part{}
	}
	r.by[name].calls += p.Calls
	r.by[name].refused += uint64(len(p.Refusals))
	if lost := int64(p.Calls) - int64(p.Right) - int64(p.Wrong) - int64(len(p.Refusals)); lost != 0 { //nolint:gosec // few
		out.Lost += uint64(max(lost, -lost)) //nolint:gosec // not negative
	}
	for _, d := range p.Details {
		r.detail("wrong: " + d)
	}
	at := int(time.Since(r.began) / time.Second)
	for len(r.seconds) <= at {
		r.seconds = append(r.seconds, &second{})
	}
	s := r.seconds[at]
	s.right += p.Right
	s.refused += uint64(len(p.Refusals))
	for shape, h := range p.Latency {
		if out.Latency[shape] == nil {
			out.Latency[shape] = &Histogram{}
		}
		out.Latency[shape].Merge(h)
		s.latency.Merge(h)
	}
	for _, f := range p.Refusals {
		out.Refusals[f.Key]++
		if f.Ended.After(r.last) {
			r.last = f.Ended
		}
		if !r.explained(f) {
			r.pending = append(r.pending, f)
		}
	}
	return p.Running == 0, nil
}

func (r *RunningLoad) detail(text string) {
	if len(r.result.Details) < maxDetails {
		r.result.Details = append(r.result.Details, text)
	}
}

// explained says whether something was broken while the call ran; r.mu is held.
func (r *RunningLoad) explained(f Refusal) bool {
	return slices.ContainsFunc(r.windows, func(w *window) bool {
		return f.Ended.After(w.from) && (w.to.IsZero() || f.Began.Before(w.to.Add(settle)))
	})
}

// Break says that something is broken from now on until the returned function
// is called: calls may fail then, with a status.
func (r *RunningLoad) Break() (mended func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := &window{from: time.Now()}
	r.windows = append(r.windows, w)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if w.to.IsZero() {
			w.to = time.Now()
		}
	}
}

// Counts are those of a load so far.
type Counts struct {
	Calls, Right, Refused, Wrong uint64
	Refusals                     map[string]uint64
	// LastRefusal is when the last call ended that failed.
	LastRefusal time.Time
	// By is how many calls each workload made, RefusedTo how many of them failed.
	By, RefusedTo map[string]uint64
}

// Since returns what happened since other counts.
func (c Counts) Since(other Counts) Counts {
	less := func(a, b map[string]uint64) map[string]uint64 {
		out := map[string]uint64{}
		for k, n := range a {
			if n > b[k] {
				out[k] = n - b[k]
			}
		}
		return out
	}
	c.Calls, c.Right, c.Refused, c.Wrong = c.Calls-other.Calls, c.Right-other.Right, c.Refused-other.Refused, c.Wrong-other.Wrong
	c.Refusals, c.By, c.RefusedTo = less(c.Refusals, other.Refusals), less(c.By, other.By), less(c.RefusedTo, other.RefusedTo)
	return c
}

// Counts returns what happened so far.
func (r *RunningLoad) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := Counts{
		Calls: r.result.Calls, Right: r.result.Right, Refused: r.result.Refused(), Wrong: r.result.Wrong,
		Refusals: maps.Clone(r.result.Refusals), LastRefusal: r.last, By: map[string]uint64{}, RefusedTo: map[string]uint64{},
	}
	for name, p := range r.by {
		c.By[name], c.RefusedTo[name] = p.calls, p.refused
	}
	return c
}

// Began returns when the load was started.
func (r *RunningLoad) Began() time.Time { return r.began }

// Done is closed when the load is over.
func (r *RunningLoad) Done() <-chan struct{} { return r.done }

// Stop ends the load, waits for the calls that run, and returns what it came to.
func (r *RunningLoad) Stop() (LoadResult, error) {
	r.cancel()
	return r.Wait()
}

// Wait waits until the load is over and returns what it came to.
func (r *RunningLoad) Wait() (LoadResult, error) {
	<-r.done
	r.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &r.result
	out.Took = time.Since(r.began)
	for _, f := range r.pending {
		if !r.explained(f) { // at its end the fault may not have been known yet
			out.Unexplained++
			r.detail("refused while nothing was broken: " + f.Key + ": " + f.Text)
		}
	}
	r.pending = nil
	out.Timeline = nil
	for i, s := range r.seconds {
		out.Timeline = append(out.Timeline, Second{
			At: time.Duration(i) * time.Second, Right: s.right, Refused: s.refused,
			P50: s.latency.Quantile(0.5), P99: s.latency.Quantile(0.99),
		})
	}
	return *out, r.err
}
