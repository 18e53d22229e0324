package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/svid"
)

// upstream is the way by which tenant contexts come to the workload whose calls
// are measured: real calls, from workload to workload, each with a guard. They
// run in the client's process, and never while something is measured.
type upstream struct {
	ctx         context.Context //nolint:containedctx // of all its calls
	concurrency int
	gateway     *interceptors.Guard
	first       *grpc.ClientConn
	// last is the guard of the workload that they come to.
	last *interceptors.Guard

	mu  sync.Mutex
	got []context.Context
}

// newUpstream returns the way along path, from the one that originates.
func newUpstream(ctx context.Context, setup *Setup, path ...string) (*upstream, error) {
	u := &upstream{ctx: ctx, concurrency: setup.Concurrency}
	handle := u.receive
	var addr string
	for i := len(path) - 1; i >= 0; i-- {
		g, err := setup.guard(ctx, path[i], &counter{}, nil)
		if err != nil {
			return nil, err
		}
		if i == len(path)-1 {
			u.last = g
		} else {
			next, err := grpc.NewClient("passthrough:"+addr, g.DialOptions(svid.Expect(spiffeID(path[i+1])))...)
			if err != nil {
				return nil, err
			}
			u.gateway, u.first = g, next
			handle = func(ctx context.Context) error { return call(ctx, next, methods[0]) }
		}
		if i > 0 {
			srv := grpc.NewServer(g.ServerOptions()...)
			register(srv, handle)
			if addr, err = serve(srv); err != nil {
				return nil, err
			}
		}
	}
	return u, nil
}

// receive keeps the context of a call beyond its end: what is measured is a handler that calls on with the
// context that it got.
func (u *upstream) receive(ctx context.Context) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.got = append(u.got, lasting{values: ctx})
	return nil
}

// contexts returns n new ones, that came as concurrently as those that are
// measured.
func (u *upstream) contexts(n int) ([]context.Context, error) {
	var next atomic.Int64
	errs := make([]error, u.concurrency)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				ctx, err := originate(u.ctx, u.gateway, i)
				if err == nil {
					err = call(ctx, u.first, methods[0])
				}
				errs[w] = err
			}
		})
	}
	wg.Wait()
	got := u.got
	u.got = nil
	return got, errors.Join(errs...)
}

// lasting is a context that does not end.
type lasting struct{ values context.Context } //nolint:containedctx // it is a context

func (lasting) Deadline() (time.Time, bool) { return time.Time{}, false }
func (lasting) Done() <-chan struct{}       { return nil }
func (lasting) Err() error                  { return nil }
func (l lasting) Value(key any) any         { return l.values.Value(key) }
