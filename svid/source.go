package svid

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
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
// longer (PermissionDenied), or none with the hint that was asked for, the
// Source drops it, as the SPIFFE Workload API, section 5.2.1, asks.
//
// An SVID is used until it expires. One that has not been renewed when it
// should have been is logged as an error, once, and once more when it expires;
// [Source.Status] tells a program the same.
type Source struct {
	addr string
	hint string
	log  *slog.Logger

	client *workloadapi.Client
	cancel context.CancelFunc
	done   chan struct{} // closed when the watch has ended
	close  sync.Once
	closed error

	snap atomic.Pointer[Snapshot] // nil without an identity; stored only with mu held

	mu         sync.Mutex
	err        error // why there is none, or the last failure since the last update
	generation uint64
	lost       bool          // the watch failed since the last update
	changed    chan struct{} // closed on the next change
	alarmed    stage         // what was logged of the SVID's age
	alarm      *time.Timer   // looks at the SVID's age again
}

var _ Snapshotter = (*Source)(nil)

// Option changes a [Source].
type Option func(*options)

type options struct {
	addr    string
	hint    string
	timeout time.Duration
	log     *slog.Logger
	dial    []grpc.DialOption // tests have other ways to the Workload API
}

// WithSocket sets the address of the Workload API, such as
// "unix:///run/spire/agent.sock" (SPIFFE Workload Endpoint, section 4). Without
// it, the environment variable SPIFFE_ENDPOINT_SOCKET has it.
func WithSocket(addr string) Option { return func(o *options) { o.addr = addr } }

// WithHint makes the Source use the SVID that the registration entry's hint
// names, such as "internal" (SPIFFE Workload API, section 5.2.1). Without it,
// the Source uses the first SVID, which is the default one (section 5.3).
func WithHint(hint string) Option { return func(o *options) { o.hint = hint } }

// WithTimeout sets how long [NewSource] waits for the first identity. Without
// it, 30 seconds.
func WithTimeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

// WithLogger sets where updates and losses of the identity are logged. Without
// it, [slog.Default].
func WithLogger(log *slog.Logger) Option { return func(o *options) { o.log = log } }

// NewSource connects to the Workload API and waits until it has an identity. An
// address that is missing or malformed fails at once; all else, an agent that is
// not up yet or has no SVID with the hint yet included, is tried again until the
// timeout or the end of ctx. The error has the reason
// [tenant.IdentityUnavailable], and names the address, our uid, the last failure
// and what to check next. ctx ends the wait, not the Source.
func NewSource(ctx context.Context, opts ...Option) (*Source, error) {
	o := options{timeout: 30 * time.Second, log: slog.Default()}
	for _, opt := range opts {
		opt(&o)
	}
	addr, client, err := connect(o)
	if err != nil {
		return nil, err
	}
	watchCtx, cancel := context.WithCancel(context.Background())
	s := &Source{addr: addr, hint: o.hint, log: o.log, client: client, cancel: cancel,
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
	if snap := s.snap.Load(); snap != nil {
		return snap, nil
	}
	if err := s.lastError(); err != nil {
		// Not wrapped: the agent's status is not to become that of a call.
		return nil, tenant.Deny(tenant.IdentityUnavailable, "no identity from %s: %v", s.addr, err)
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
		s.err = errClosed
		s.set(nil)
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
		_ = s.client.WatchX509Context(ctx, watcher{s, ctx})
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

// set makes snap the identity, nil for none; s.mu is held.
func (s *Source) set(snap *Snapshot) {
	if was := s.snap.Swap(snap); was == nil || snap == nil || !sameLeaf(was, snap) {
		s.alarmed = fresh
	}
	close(s.changed)
	s.changed = make(chan struct{})
	s.watchAge()
}

// watcher receives what the Workload API says; it keeps that off Source's API.
type watcher struct {
	s   *Source
	ctx context.Context
}

// OnX509ContextUpdate takes a new identity. Agents repeat themselves, such as
// when another SVID of the workload's rotates; that is no change.
func (w watcher) OnX509ContextUpdate(x *workloadapi.X509Context) {
	s := w.s
	own, err := pick(x.SVIDs, s.hint)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.withdraw(err)
		return
	}
	last := s.snap.Load()
	if _, bad := leaf.ID(own.Certificates[0]); bad != nil {
		err = fmt.Errorf("the agent gave an SVID that this profile does not allow: %w", bad)
		if last == nil {
			s.err = err
			return
		}
		// The last one still holds; what else the agent says counts.
		s.log.Error("keeping the last SVID", "id", last.SVID.ID.String(), "socket", s.addr, "error", err)
		own = last.SVID
	}
	back := s.lost
	s.err, s.lost = err, false
	next := &Snapshot{SVID: own, Bundles: x.Bundles, Generation: s.generation + 1}
	if last != nil && sameLeaf(last, next) && sameBundles(last, next) {
		if back {
			s.log.Info("the Workload API is back", "id", own.ID.String(), "socket", s.addr)
		}
		return
	}
	s.generation++
	s.set(next)
	s.log.Info("identity updated", "id", own.ID.String(), "not_after", own.Certificates[0].NotAfter,
		"trust_domains", x.Bundles.Len(), "generation", s.generation)
}

func sameLeaf(a, b *Snapshot) bool { return a.SVID.Certificates[0].Equal(b.SVID.Certificates[0]) }

func sameBundles(a, b *Snapshot) bool {
	return slices.EqualFunc(a.Bundles.Bundles(), b.Bundles.Bundles(), (*x509bundle.Bundle).Equal)
}

// OnX509ContextWatchError notes a failure, and drops the identity if the
// failure is that there is none.
func (w watcher) OnX509ContextWatchError(err error) {
	if w.ctx.Err() != nil { // by Close
		return
	}
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if status.Code(err) == codes.PermissionDenied {
		s.withdraw(err)
		return
	}
	s.err = err
	if last := s.snap.Load(); last != nil && !s.lost { // once per outage
		s.lost = true
		s.log.Warn("the Workload API is away; keeping the last identity", "id", last.SVID.ID.String(),
			"not_after", last.SVID.Certificates[0].NotAfter, "socket", s.addr, "error", err)
	}
}

// withdraw drops the identity, since the Workload API says that there is none;
// s.mu is held.
func (s *Source) withdraw(why error) {
	s.err = why
	last := s.snap.Load()
	if last == nil {
		return
	}
	s.log.Error("identity withdrawn", "id", last.SVID.ID.String(), "socket", s.addr, "error", why)
	s.set(nil)
}

// errNoHint says that no SVID has the hint that was asked for.
var errNoHint = errors.New("no SVID has the hint")

// pick returns the SVID with the hint, or without a hint the first. The client
// has seen to it that there is one, and that no hint stands twice.
func pick(svids []*x509svid.SVID, hint string) (*x509svid.SVID, error) {
	if hint == "" {
		return svids[0], nil
	}
	var others []string
	for _, s := range svids {
		if s.Hint == hint {
			return s, nil
		}
		others = append(others, fmt.Sprintf("%q (%s)", s.Hint, s.ID))
	}
	return nil, fmt.Errorf("%w %q; there are %s", errNoHint, hint, strings.Join(others, ", "))
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
