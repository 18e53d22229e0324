package policy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Origin is where a [Watcher] gets its policy from. [WatchFile] has one for
// files, package natssource one for NATS; a [Reloader] helps to make others.
// An Origin that is an [io.Closer] is closed with its Watcher.
type Origin interface {
	// Load returns the policy as it is there now. It is asked often, so where
	// nothing changed it returns the same without compiling it again. It may be
	// called while Next runs, but not while it runs itself. It returns soon
	// after ctx is done.
	Load(ctx context.Context) (*Policy, error)
	// Next returns when there may be something new, when it is time to confirm
	// what there is, or at once when ctx is done.
	Next(ctx context.Context)
}

// WatchOption changes how a [Watcher] works.
type WatchOption func(*Watcher)

// WithMaxStale sets how long a policy stays in force that its origin has not
// confirmed since, because it cannot be reached or holds a broken document.
// After that everything is denied until it does. It is more than 0; without it,
// [DefaultMaxStale].
func WithMaxStale(d time.Duration) WatchOption { return func(w *Watcher) { w.maxStale = d } }

// DefaultMaxStale is how long an unconfirmed policy stays in force.
const DefaultMaxStale = 24 * time.Hour

// WithLogger sets where changes and failures are logged, failures at level
// Error. Without it, [slog.Default].
func WithLogger(log *slog.Logger) WatchOption { return func(w *Watcher) { w.log = log } }

// retryAfter is how soon a load that failed is tried again, whatever the origin
// says.
const retryAfter = 2 * time.Second

// Watcher is a [Source] whose policy follows its origin. A document that does
// not load leaves the old policy in force. It is safe for concurrent use. A nil
// and a zero Watcher have no policy, so that everything is denied.
type Watcher struct {
	origin   Origin
	maxStale time.Duration
	log      *slog.Logger

	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	done     chan struct{} // closed when the watch has ended
	closeErr error

	loading chan struct{} // one place: for the load that runs

	current atomic.Pointer[Policy] // in force; nil when stale or closed

	mu     sync.Mutex // never held while the origin is asked: to expire must not wait for it
	last   *Policy    // loaded last
	status Status
	stale  *time.Timer
	wake   context.CancelFunc // ends the wait for what is next
}

// Status is how a [Watcher] is doing.
type Status struct {
	// Version of the policy that was loaded last.
	Version string
	// Since is when it was loaded; Confirmed is when the origin last said that
	// it is still the one.
	Since, Confirmed time.Time
	// Err is why the origin's document could not be loaded; nil if the last
	// attempt succeeded.
	Err error
	// Stale says that the policy was not confirmed for too long, and that
	// everything is denied.
	Stale bool
}

// Watch loads the first policy from an origin and follows it until the Watcher
// is closed. It fails where the first document does not load. ctx ends the wait
// for that one, not the Watcher.
func Watch(ctx context.Context, origin Origin, opts ...WatchOption) (*Watcher, error) {
	w := &Watcher{
		origin: origin, maxStale: DefaultMaxStale, log: slog.Default(),
		done: make(chan struct{}), loading: make(chan struct{}, 1), wake: func() {},
	}
	for _, opt := range opts {
		opt(w)
	}
	w.ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := w.start(ctx); err != nil {
		w.cancel()
		return nil, errors.Join(err, w.closeOrigin())
	}
	go w.follow()
	return w, nil
}

func (w *Watcher) start(ctx context.Context) error {
	if w.maxStale <= 0 {
		return fmt.Errorf("policy: a policy cannot stay in force for %s: WithMaxStale takes more than 0", w.maxStale)
	}
	return w.Reload(ctx)
}

func (w *Watcher) follow() {
	defer close(w.done)
	for w.next() {
		_ = w.Reload(w.ctx) // a failure is logged, and in the status
	}
	w.loading <- struct{}{} // for good: nothing is loaded from a closed origin
	w.closeErr = w.closeOrigin()
	w.stale.Stop()
	w.current.Store(nil)
}

// next waits until the origin is to be asked again, and reports false when the
// Watcher is closed.
func (w *Watcher) next() bool {
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	w.mu.Lock()
	w.wake = cancel
	failed := w.status.Err != nil
	w.mu.Unlock()
	if failed {
		defer time.AfterFunc(retryAfter, cancel).Stop()
	}
	w.origin.Next(ctx)
	return w.ctx.Err() == nil
}

// Current returns the policy in force, nil if it is stale or the Watcher closed.
func (w *Watcher) Current() *Policy {
	if w == nil {
		return nil
	}
	return w.current.Load()
}

// Status says how the Watcher is doing.
func (w *Watcher) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// Reload loads the document now. When it returns nil, what the origin held when
// it was called, or something newer, is in force: no decision by an older one is
// handed out any more. It fails where the document does not load, where ctx ends
// first, and once the Watcher is closed.
func (w *Watcher) Reload(ctx context.Context) error {
	select {
	case w.loading <- struct{}{}:
		defer func() { <-w.loading }()
	case <-ctx.Done():
		return ctx.Err()
	case <-w.ctx.Done():
		return errors.New("policy: the Watcher is closed")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)() // Close need not wait for the origin
	p, err := w.origin.Load(ctx)
	switch {
	case err == nil && p.Current() == nil:
		err = errors.New("policy: the origin has none")
	case err != nil && ctx.Err() != nil:
		return ctx.Err() // the origin is not at fault
	}
	w.settle(p, err)
	return err
}

// settle takes what came of a load.
func (w *Watcher) settle(p *Policy, err error) {
	w.mu.Lock()
	before := w.status
	if err != nil {
		w.status.Err = err
		w.wake() // so that it is tried again, whoever asked
	} else {
		w.confirm(p)
	}
	after := w.status
	w.mu.Unlock() // a log that blocks must not keep a policy in force

	switch {
	case before.Version != after.Version:
		w.log.Info("a policy came into force", "version", after.Version)
	case err == nil && (before.Err != nil || before.Stale):
		w.log.Info("the policy is confirmed again", "version", after.Version)
	case err != nil && after.Version != "" && (before.Err == nil || before.Err.Error() != err.Error()): // without a version, Watch fails
		then := "the old one stays in force"
		if after.Stale {
			then = "everything is denied"
		}
		w.log.Error("the policy could not be loaded; "+then, "version", after.Version,
			"confirmed", after.Confirmed, "denies_all_after", after.Confirmed.Add(w.maxStale), "err", err)
	}
}

// confirm brings a policy into force, or keeps the one that is.
func (w *Watcher) confirm(p *Policy) {
	now := time.Now()
	w.status = Status{Version: p.version, Since: w.status.Since, Confirmed: now}
	if w.last == nil || w.last.version != p.version {
		w.last, w.status.Since = p, now
	}
	w.current.Store(w.last)
	if w.stale == nil {
		w.stale = time.AfterFunc(w.maxStale, w.expire)
	}
	w.stale.Reset(w.maxStale)
}

// expire takes a policy out of force that was not confirmed for too long.
func (w *Watcher) expire() {
	w.mu.Lock()
	if time.Since(w.status.Confirmed) < w.maxStale { // confirmed meanwhile
		w.mu.Unlock()
		return
	}
	w.status.Stale = true
	w.current.Store(nil)
	now := w.status
	w.mu.Unlock()
	w.log.Error("the policy was not confirmed for too long: everything is denied",
		"version", now.Version, "confirmed", now.Confirmed, "err", now.Err)
}

func (w *Watcher) closeOrigin() error {
	if c, ok := w.origin.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Close ends the watch, and a load that runs. Everything is denied from then on,
// since nothing confirms the policy any more. It may be called again.
func (w *Watcher) Close() error {
	w.cancel()
	<-w.done
	return w.closeErr
}
