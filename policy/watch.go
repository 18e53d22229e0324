package policy

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Origin is where a [Watcher] gets documents from. [WatchFile] has one for
// files, package natssource one for NATS.
type Origin interface {
	// Load returns the policy as it is there now. It is asked often, so where
	// nothing changed it should return the same without compiling it again.
	Load(ctx context.Context) (*Policy, error)
	// Next returns when there may be something new, when it is time to ask
	// again, or when ctx is done.
	Next(ctx context.Context)
	// An Origin that is an [io.Closer] is closed with its Watcher.
}

// WatchOption changes how a [Watcher] works.
type WatchOption func(*Watcher)

// WithMaxStale sets how long a policy stays in force that its origin has not
// confirmed since, because it cannot be reached or holds a broken document.
// After that everything is denied until it does. Without it, [DefaultMaxStale].
func WithMaxStale(d time.Duration) WatchOption { return func(w *Watcher) { w.maxStale = d } }

// DefaultMaxStale is how long an unconfirmed policy stays in force.
const DefaultMaxStale = 24 * time.Hour

// WithLogger sets where changes and failures are logged, failures at level
// Error. Without it, [slog.Default].
func WithLogger(log *slog.Logger) WatchOption { return func(w *Watcher) { w.log = log } }

// Watcher is a [Source] whose policy follows its origin. A document that does
// not load leaves the old policy in force. It is safe for concurrent use.
type Watcher struct {
	origin   Origin
	maxStale time.Duration
	log      *slog.Logger
	cancel   context.CancelFunc
	done     chan struct{}

	current atomic.Pointer[Policy] // in force; nil when stale

	mu     sync.Mutex
	last   *Policy // loaded last
	status Status
	stale  *time.Timer
}

// Status is how a [Watcher] is doing.
type Status struct {
	// Version of the policy that was loaded last.
	Version string
	// Since is when it came into force; Confirmed is when the origin last said
	// that it is still the one.
	Since, Confirmed time.Time
	// Err is why the origin's document could not be loaded; nil if the last
	// attempt succeeded.
	Err error
	// Stale says that the policy was not confirmed for too long, and that
	// everything is denied.
	Stale bool
}

// Watch loads the first policy from an origin and follows it until ctx ends or
// the Watcher is closed; what was loaded last stays in force then, until it is
// stale. It fails where the first document does not load.
func Watch(ctx context.Context, origin Origin, opts ...WatchOption) (*Watcher, error) {
	w := &Watcher{origin: origin, maxStale: DefaultMaxStale, log: slog.Default(), done: make(chan struct{})}
	for _, opt := range opts {
		opt(w)
	}
	w.stale = time.AfterFunc(w.maxStale, w.expire)
	if err := w.Reload(ctx); err != nil {
		w.stale.Stop()
		w.closeOrigin()
		return nil, err
	}
	ctx, w.cancel = context.WithCancel(ctx)
	go func() {
		defer close(w.done)
		defer w.closeOrigin()
		for ctx.Err() == nil {
			if origin.Next(ctx); ctx.Err() == nil {
				_ = w.Reload(ctx) // logged, and in the status
			}
		}
	}()
	return w, nil
}

// Current returns the policy in force, nil if it is stale.
func (w *Watcher) Current() *Policy { return w.current.Load() }

// Status says how the Watcher is doing.
func (w *Watcher) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// Reload loads the document now. When it returns nil, what the origin held is
// in force: no decision by an older one is handed out any more.
func (w *Watcher) Reload(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, err := w.origin.Load(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		if w.status.Err == nil || w.status.Err.Error() != err.Error() {
			w.log.Error("the policy could not be loaded; the old one stays in force", "version", w.status.Version,
				"confirmed", w.status.Confirmed, "denies_all_after", w.status.Confirmed.Add(w.maxStale), "err", err)
		}
		w.status.Err = err
		return err
	}
	now := time.Now()
	if w.last == nil || w.last.version != p.version {
		w.last = p
		w.status.Since = now
		w.log.Info("a policy came into force", "version", p.version)
	}
	w.status = Status{Version: w.last.version, Since: w.status.Since, Confirmed: now}
	w.stale.Reset(w.maxStale)
	w.current.Store(w.last)
	return nil
}

// expire takes a policy out of force that was not confirmed for too long.
func (w *Watcher) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.status.Confirmed) < w.maxStale {
		return // confirmed meanwhile
	}
	w.status.Stale = true
	w.current.Store(nil)
	w.log.Error("the policy was not confirmed for too long: everything is denied", "version", w.status.Version,
		"confirmed", w.status.Confirmed, "err", w.status.Err)
}

func (w *Watcher) closeOrigin() {
	if c, ok := w.origin.(io.Closer); ok {
		if err := c.Close(); err != nil {
			w.log.Warn("closing the policy's origin", "err", err)
		}
	}
}

// Close ends the watch. It may be called again.
func (w *Watcher) Close() error {
	w.cancel()
	<-w.done
	return nil
}
