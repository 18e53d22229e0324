package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"

	"github.com/tenantmesh/tenantmesh/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// numbered is a document by which method n may be called, and no other.
func numbered(n int) string {
	return fmt.Sprintf(`version: 1
trust_domains: [{name: td.example}]
workloads:
  - {name: a, match: spiffe://td.example/a, tenants: ["*"], calls: [/p.S/*]}
methods:
  - {match: /p.S/M%d, callers: [a]}
tenants: {acme: {uid: u1}}
`, n)
}

func numberedPolicy(t testing.TB, n int) *Policy {
	t.Helper()
	p, err := Parse("p.yaml", []byte(numbered(n)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// may is the reason why method n may not be called, "" if it may.
func may(p *Policy, n int) tenant.Reason {
	d := p.Admit(fmt.Sprintf("/p.S/M%d", n), nil, spiffeid.RequireFromString("spiffe://td.example/a"))
	if d.Err() == nil {
		return ""
	}
	return tenant.ReasonOf(d.Err())
}

// inForce asserts that the policy of the number decides, 0 for none.
func inForce(t *testing.T, s Source, n int) {
	t.Helper()
	p := s.Current()
	if got := may(p, n); n > 0 && got != "" {
		t.Errorf("policy %d is not in force: %s by version %q", n, got, p.Version())
	}
	if got := may(p, 99); n == 0 && got != tenant.PolicyUnavailable {
		t.Errorf("the reason is %q by version %q, want %s", got, p.Version(), tenant.PolicyUnavailable)
	}
}

// records are what was logged.
type records chan slog.Record

func (r records) Enabled(context.Context, slog.Level) bool        { return true }
func (r records) Handle(_ context.Context, rec slog.Record) error { r <- rec; return nil }
func (r records) WithAttrs([]slog.Attr) slog.Handler              { return r }
func (r records) WithGroup(string) slog.Handler                   { return r }

func (r records) option() WatchOption { return WithLogger(slog.New(r)) }

// alarms returns how many errors were logged since it was last asked.
func (r records) alarms() (n int) {
	for {
		select {
		case rec := <-r:
			if rec.Level >= slog.LevelError {
				n++
			}
		default:
			return n
		}
	}
}

// next waits until something of the level is logged.
func (r records) next(t *testing.T, level slog.Level) slog.Record {
	t.Helper()
	for late := time.After(20 * time.Second); ; {
		select {
		case rec := <-r:
			if rec.Level == level {
				return rec
			}
		case <-late:
			t.Fatalf("nothing of level %s is logged", level)
		}
	}
}

// fakeOrigin is an Origin that a test tells what to answer. Its Next has
// nothing to say, unless it is woken.
type fakeOrigin struct {
	load   func(context.Context) (*Policy, error)
	wake   chan struct{}
	loads  atomic.Int32
	closed atomic.Int32

	mu     sync.Mutex
	policy *Policy
	err    error
}

func (o *fakeOrigin) set(p *Policy, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.policy, o.err = p, err
}

func (o *fakeOrigin) Load(ctx context.Context) (*Policy, error) {
	o.loads.Add(1)
	if o.load != nil {
		return o.load(ctx)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.policy, o.err
}

func (o *fakeOrigin) Next(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-o.wake:
	}
}

func (o *fakeOrigin) Close() error {
	o.closed.Add(1)
	return nil
}

// watched runs a test in a bubble, with a Watcher whose policy is number 1.
func watched(t *testing.T, name string, test func(t *testing.T, w *Watcher, o *fakeOrigin, r records), opts ...WatchOption) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o, r := &fakeOrigin{policy: numberedPolicy(t, 1), wake: make(chan struct{})}, make(records, 100)
			w, err := Watch(t.Context(), o, append(opts, r.option())...)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			inForce(t, w, 1)
			r.alarms()
			test(t, w, o, r)
		})
	})
}

// pass lets time pass in a bubble.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble
	synctest.Wait()
}

var errBroken = errors.New("p.yaml:1:1: broken")

func TestWatch(t *testing.T) {
	watched(t, "P1 a failure keeps the old policy and raises one alarm", func(t *testing.T, w *Watcher, o *fakeOrigin, r records) {
		confirmed := w.Status().Confirmed
		o.set(nil, errBroken)
		pass(time.Minute)
		if err := w.Reload(t.Context()); !errors.Is(err, errBroken) {
			t.Errorf("Reload: %v", err)
		}
		inForce(t, w, 1)
		if s := w.Status(); !errors.Is(s.Err, errBroken) || s.Stale || !s.Confirmed.Equal(confirmed) || s.Version != numberedPolicy(t, 1).Version() {
			t.Errorf("status %+v", s)
		}
		pass(10 * retryAfter)
		if n := r.alarms(); n != 1 {
			t.Errorf("%d alarms for one failure", n)
		}
		o.set(nil, errors.New("p.yaml:2:1: broken otherwise"))
		pass(10 * retryAfter)
		if n := r.alarms(); n != 1 {
			t.Errorf("%d alarms for another failure", n)
		}
		inForce(t, w, 1)
	})

	// grpc-go's file watcher gave up a reload that failed (its issue #9413).
	watched(t, "P1 a failure is tried again though the origin says nothing", func(t *testing.T, w *Watcher, o *fakeOrigin, _ records) {
		o.set(nil, errBroken)
		o.wake <- struct{}{}
		synctest.Wait()
		o.set(numberedPolicy(t, 2), nil)
		pass(retryAfter)
		inForce(t, w, 2)
		if s := w.Status(); s.Err != nil || s.Version != numberedPolicy(t, 2).Version() || !s.Since.Equal(time.Now()) {
			t.Errorf("status %+v", s)
		}
	})

	watched(t, "P1 unconfirmed for too long, everything is denied", func(t *testing.T, w *Watcher, o *fakeOrigin, r records) {
		o.set(nil, errBroken)
		pass(time.Hour - 1)
		inForce(t, w, 1)
		pass(1)
		inForce(t, w, 0)
		if s := w.Status(); !s.Stale {
			t.Errorf("status %+v", s)
		}
		if n := r.alarms(); n != 1 { // nobody asked for a load
			t.Errorf("%d alarms", n)
		}
		_ = w.Reload(t.Context())
		inForce(t, w, 0)
		o.set(numberedPolicy(t, 1), nil)
		if err := w.Reload(t.Context()); err != nil {
			t.Error(err)
		}
		inForce(t, w, 1)
		if s := w.Status(); s.Stale || s.Err != nil {
			t.Errorf("status %+v", s)
		}
		pass(time.Hour - 1)
		inForce(t, w, 1)
	}, WithMaxStale(time.Hour))

	watched(t, "P1 confirmed again and again, it stays", func(t *testing.T, w *Watcher, o *fakeOrigin, r records) {
		for range 100 {
			pass(time.Hour - 1)
			o.wake <- struct{}{}
			synctest.Wait()
		}
		inForce(t, w, 1)
		if n := r.alarms(); n != 0 {
			t.Errorf("%d alarms", n)
		}
		pass(time.Hour)
		inForce(t, w, 0)
	}, WithMaxStale(time.Hour))

	watched(t, "P1 an origin that hangs does not keep a policy in force", func(t *testing.T, w *Watcher, o *fakeOrigin, _ records) {
		o.load = func(ctx context.Context) (*Policy, error) { <-ctx.Done(); return nil, ctx.Err() }
		o.wake <- struct{}{}
		pass(time.Hour)
		inForce(t, w, 0)
		if s := w.Status(); !s.Stale {
			t.Errorf("status %+v", s)
		}
	}, WithMaxStale(time.Hour))

	watched(t, "P1 a log that blocks does not keep a policy in force", func(t *testing.T, w *Watcher, o *fakeOrigin, r records) {
		for len(r) < cap(r) {
			r <- slog.Record{}
		}
		o.set(nil, errBroken)
		o.wake <- struct{}{}
		pass(time.Hour)
		inForce(t, w, 0)
		r.alarms()
	}, WithMaxStale(time.Hour))

	watched(t, "P2 a load that began earlier does not win over a later one", func(t *testing.T, w *Watcher, o *fakeOrigin, _ records) {
		release := make(chan struct{})
		o.load = func(context.Context) (*Policy, error) {
			if o.loads.Load() > 2 {
				return numberedPolicy(t, 3), nil
			}
			<-release
			return numberedPolicy(t, 2), nil
		}
		for range 2 {
			go func() { _ = w.Reload(t.Context()) }()
			synctest.Wait()
		}
		close(release)
		synctest.Wait()
		inForce(t, w, 3)
	})

	watched(t, "P6 an origin without a policy has failed", func(t *testing.T, w *Watcher, o *fakeOrigin, _ records) {
		for _, p := range []*Policy{nil, {}} {
			o.set(p, nil)
			if err := w.Reload(t.Context()); err == nil || w.Status().Err == nil {
				t.Errorf("no error: %+v", w.Status())
			}
			inForce(t, w, 1)
		}
	})

	watched(t, "an end of the caller's context is no failure of the origin", func(t *testing.T, w *Watcher, o *fakeOrigin, r records) {
		o.load = func(ctx context.Context) (*Policy, error) { <-ctx.Done(); return nil, ctx.Err() }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 2 { // the second waits for the first
			go func() {
				if err := w.Reload(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			}()
		}
		pass(time.Second)
		if n := r.alarms(); n != 0 || w.Status().Err != nil {
			t.Errorf("%d alarms, status %+v", n, w.Status())
		}
	})

	watched(t, "closed", func(t *testing.T, w *Watcher, o *fakeOrigin, r records) {
		o.load = func(ctx context.Context) (*Policy, error) { <-ctx.Done(); return nil, ctx.Err() }
		go func() {
			if err := w.Reload(t.Context()); err == nil {
				t.Error("a load that was cut short succeeds")
			}
		}()
		synctest.Wait()
		for range 2 {
			go func() {
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		inForce(t, w, 0)
		o.load = nil
		if err := w.Reload(t.Context()); err == nil {
			t.Error("a closed Watcher loads")
		}
		inForce(t, w, 0)
		if n := o.closed.Load(); n != 1 {
			t.Errorf("the origin is closed %d times", n)
		}
		pass(2 * DefaultMaxStale)
		if n := r.alarms(); n != 0 {
			t.Errorf("%d alarms", n)
		}
	})
}

func TestWatchStart(t *testing.T) {
	good := numberedPolicy(t, 1)
	for _, tt := range []struct {
		name   string
		origin *fakeOrigin
		opts   []WatchOption
	}{
		{"P6 a broken document", &fakeOrigin{err: errBroken}, nil},
		{"P6 none", &fakeOrigin{}, nil},
		{"P6 a zero policy", &fakeOrigin{policy: &Policy{}}, nil},
		{"P6 MaxStale 0", &fakeOrigin{policy: good}, []WatchOption{WithMaxStale(0)}},
		{"P6 MaxStale below 0", &fakeOrigin{policy: good}, []WatchOption{WithMaxStale(-1)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := make(records, 100)
			w, err := Watch(t.Context(), tt.origin, append(tt.opts, r.option())...)
			if err == nil || w != nil {
				t.Fatalf("Watch: %v, %v", w, err)
			}
			inForce(t, w, 0)
			if n := tt.origin.closed.Load(); n != 1 {
				t.Errorf("the origin is closed %d times", n)
			}
			if n := r.alarms(); n != 0 {
				t.Errorf("%d alarms beside the error", n)
			}
		})
	}
	t.Run("P6 a zero Watcher", func(t *testing.T) { inForce(t, &Watcher{}, 0) })
	t.Run("P6 its context ends before there is one", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		o := &fakeOrigin{load: func(ctx context.Context) (*Policy, error) { cancel(); return nil, ctx.Err() }}
		if w, err := Watch(ctx, o); w != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("Watch: %v, %v", w, err)
		}
	})
	t.Run("its context ends afterwards", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			o := &fakeOrigin{policy: good, wake: make(chan struct{})}
			w, err := Watch(ctx, o, make(records, 100).option())
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			cancel()
			o.set(numberedPolicy(t, 2), nil)
			o.wake <- struct{}{}
			synctest.Wait()
			inForce(t, w, 2)
		})
	})
}

// TestWatchUnderLoad: every decision uses one version, and none an older one
// than was acknowledged (P2).
func TestWatchUnderLoad(t *testing.T) {
	const versions = 200
	policies := make([]*Policy, versions)
	for i := range policies {
		policies[i] = numberedPolicy(t, i)
	}
	o := &fakeOrigin{policy: policies[0]}
	w, err := Watch(t.Context(), o, WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var acknowledged atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				atLeast := int(acknowledged.Load())
				p := w.Current()
				var allowed []int
				for n := range versions {
					if may(p, n) == "" {
						allowed = append(allowed, n)
					}
				}
				if len(allowed) != 1 || allowed[0] < atLeast {
					t.Errorf("P2 methods %v are allowed after policy %d was acknowledged", allowed, atLeast)
					return
				}
			}
		})
	}
	for n, p := range policies {
		o.set(p, nil)
		if err := w.Reload(t.Context()); err != nil {
			t.Error(err)
		}
		acknowledged.Store(int64(n))
	}
	close(stop)
	wg.Wait()
}
