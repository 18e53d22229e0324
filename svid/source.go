package svid

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/internal/leaf"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Source is the workload's identity as the SPIFFE Workload API streams it. It
// is safe for concurrent use.
//
// If the Workload API goes away, the Source keeps the last identity and goes
// on trying. If the Workload API says that the workload has no identity any
// longer (PermissionDenied), the Source drops it, as the SPIFFE Workload API,
// section 5.2.1, asks.
type Source struct {
	addr string
	log  *slog.Logger

	client *workloadapi.Client
	cancel context.CancelFunc
	done   chan struct{} // closed when the watch has ended
	close  sync.Once
	closed error

	mu         sync.Mutex
	snap       *Snapshot // nil without an identity
	err        error     // why there is none, or the last failure of the watch
	generation uint64
	lost       bool          // the watch failed since the last update
	changed    chan struct{} // closed on the next change
}

var _ Snapshotter = (*Source)(nil)

// Option changes a [Source].
type Option func(*options)

type options struct {
	addr    string
	timeout time.Duration
	log     *slog.Logger
}

// WithSocket sets the address of the Workload API, such as
// "unix:///run/spire/agent.sock" (SPIFFE Workload Endpoint, section 4). Without
// it, the environment variable SPIFFE_ENDPOINT_SOCKET has it.
func WithSocket(addr string) Option { return func(o *options) { o.addr = addr } }

// WithTimeout sets how long [NewSource] waits for the first identity. Without
// it, 30 seconds.
func WithTimeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

// WithLogger sets where updates and losses of the identity are logged. Without
// it, [slog.Default].
func WithLogger(log *slog.Logger) Option { return func(o *options) { o.log = log } }

// NewSource connects to the Workload API and waits until it has an identity. An
// address that is missing or malformed fails at once; all else, an agent that is
// not up yet included, is tried again until the timeout or the end of ctx. The
// error has the reason [tenant.IdentityUnavailable], and names the address, our
// uid, the last failure and what to check next. ctx ends the wait, not the Source.
func NewSource(ctx context.Context, opts ...Option) (*Source, error) {
	o := options{timeout: 30 * time.Second, log: slog.Default()}
	for _, opt := range opts {
		opt(&o)
	}
	addr, err := address(o.addr)
	if err != nil {
		return nil, err
	}
	client, err := workloadapi.New(context.Background(),
		workloadapi.WithAddr(addr),
		workloadapi.WithBackoffStrategy(retries{}),
		// Without this, gRPC itself would wait up to two minutes to reconnect.
		workloadapi.WithDialOptions(grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstRetry, Multiplier: 2, Jitter: 0.2, MaxDelay: lastRetry},
			MinConnectTimeout: 5 * time.Second,
		})))
	if err != nil {
		return nil, tenant.Deny(tenant.IdentityUnavailable, "the Workload API at %s: %w", addr, err)
	}

	watchCtx, cancel := context.WithCancel(context.Background())
	s := &Source{addr: addr, log: o.log, client: client, cancel: cancel,
		done: make(chan struct{}), changed: make(chan struct{})}
	go s.watch(watchCtx)

	start := time.Now()
	wait, stop := context.WithTimeout(ctx, o.timeout)
	defer stop()
	for {
		changed := s.Changed()
		if _, err := s.Snapshot(); err == nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-wait.Done():
			last := s.lastError()
			s.Close()
			return nil, diagnose(addr, time.Since(start), last, context.Cause(ctx))
		}
	}
}

// Snapshot returns the identity of the last update. It fails with
// [tenant.IdentityUnavailable] once the Source is closed or the Workload API
// has withdrawn the identity.
func (s *Source) Snapshot() (*Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.snap != nil:
		return s.snap, nil
	case s.err != nil:
		return nil, tenant.Deny(tenant.IdentityUnavailable, "no identity from %s: %w", s.addr, s.err)
	}
	return nil, tenant.Deny(tenant.IdentityUnavailable, "no identity from %s yet", s.addr)
}

// ID returns the workload's SPIFFE ID; the zero ID while there is no identity.
func (s *Source) ID() spiffeid.ID {
	snap, err := s.Snapshot()
	if err != nil {
		return spiffeid.ID{}
	}
	return snap.SVID.ID
}

// Changed returns a channel that is closed when the identity changes next. Ask
// for it before [Source.Snapshot], so that no change falls between the two.
func (s *Source) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Close ends the watch and drops the identity. It may be called again.
func (s *Source) Close() error {
	s.close.Do(func() {
		s.cancel()
		<-s.done
		s.closed = s.client.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.drop(errClosed)
	})
	return s.closed
}

var errClosed = errors.New("the source is closed")

// watch follows the Workload API until ctx ends.
func (s *Source) watch(ctx context.Context) {
	defer close(s.done)
	for {
		// The client's own loop gives up on Canceled and InvalidArgument, which an
		// agent that restarts may well answer.
		_ = s.client.WatchX509Context(ctx, watcher{s})
		select {
		case <-ctx.Done():
			return
		case <-time.After(lastRetry):
		}
	}
}

func (s *Source) lastError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// drop takes the identity away; s.mu is held.
func (s *Source) drop(why error) {
	s.snap, s.err = nil, why
	close(s.changed)
	s.changed = make(chan struct{})
}

// watcher receives what the Workload API says; it keeps that off Source's API.
type watcher struct{ s *Source }

// OnX509ContextUpdate takes a new identity.
func (w watcher) OnX509ContextUpdate(x *workloadapi.X509Context) {
	own := x.DefaultSVID()
	if _, err := leaf.ID(own.Certificates[0]); err != nil {
		w.OnX509ContextWatchError(fmt.Errorf("the agent gave an SVID that this profile does not allow: %w", err))
		return
	}
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation++
	s.snap = &Snapshot{SVID: own, Bundles: x.Bundles, Generation: s.generation}
	s.err, s.lost = nil, false
	close(s.changed)
	s.changed = make(chan struct{})
	s.log.Info("identity updated", "id", own.ID.String(), "not_after", own.Certificates[0].NotAfter,
		"trust_domains", x.Bundles.Len(), "generation", s.generation)
}

// OnX509ContextWatchError notes a failure, and drops the identity if the
// failure is that there is none.
func (w watcher) OnX509ContextWatchError(err error) {
	if status.Code(err) == codes.Canceled { // by Close
		return
	}
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	if s.snap == nil {
		return
	}
	if status.Code(err) == codes.PermissionDenied {
		s.log.Error("identity withdrawn", "id", s.snap.SVID.ID.String(), "socket", s.addr, "error", err)
		s.drop(err)
		return
	}
	if !s.lost { // once per outage
		s.lost = true
		s.log.Warn("the Workload API is away; keeping the last identity", "id", s.snap.SVID.ID.String(),
			"not_after", s.snap.SVID.Certificates[0].NotAfter, "socket", s.addr, "error", err)
	}
}

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// retries waits longer each time, from firstRetry to lastRetry. The agent is on
// this machine and serves few, so it need not be spared more.
type retries struct{}

// NewBackoff implements [workloadapi.BackoffStrategy].
func (retries) NewBackoff() workloadapi.Backoff { return &retry{firstRetry} }

type retry struct{ next time.Duration }

// Next returns how long to wait.
func (r *retry) Next() time.Duration {
	d := r.next
	r.next = min(2*d, lastRetry)
	return d
}

// Reset starts anew.
func (r *retry) Reset() { r.next = firstRetry }
