package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tenantmesh/tenantmesh/interceptors"
)

// load is what is sent to a server, by whom and how.
type load struct {
	workload string
	guard    *interceptors.Guard // nil: mTLS alone
	opts     []grpc.DialOption   // of a peer

	// call makes the i-th call of a slice. A worker makes its calls one after the
	// other.
	call func(cc *grpc.ClientConn, worker, i int) error
	// prepare readies n calls before a slice; nil if nothing is to be readied.
	prepare func(n int) error
	// open is called once for a connection; nil if nothing is to be opened on it.
	open func(cc *grpc.ClientConn) error
}

// load returns what the setup names.
func (s *Setup) load(ctx context.Context, name string, m minter, c *clock) (*load, error) {
	switch name {
	case "plain":
		return plain(ctx), nil
	case "limit", "limit-fresh", "limit-signed":
		l := plain(ctx)
		l.opts = limitClient(m.limit(name))
		return l, nil
	case "plain-stream":
		return streams(ctx, s.Concurrency), nil
	case "warm", "warm-1000", "fresh", "fresh-twice", "stream":
		return s.originated(ctx, name, c)
	case "forwarded-fresh":
		return s.forwarded(ctx, 1, "gateway", "middle")
	case "depth3-fresh":
		// Each of the calls that share a context needs a hop of its own: they differ in the method.
		return s.forwarded(ctx, unaries, "gateway", "relay1", "relay2", "middle")
	case "depth3-warm":
		u, err := newUpstream(ctx, s, "gateway", "relay1", "relay2", "middle")
		if err != nil {
			return nil, err
		}
		contexts, err := u.contexts(1)
		if err != nil {
			return nil, err
		}
		return &load{workload: "middle", guard: u.last, call: func(cc *grpc.ClientConn, _, _ int) error {
			return call(contexts[0], cc, methods[0])
		}}, nil
	case "jwt", "jwt-3":
		token, err := m.nest(0, map[string]int{"jwt": 1, "jwt-3": 3}[name])
		return plain(ctx, func(context.Context) (string, error) { return token, err }), err
	case "jwt-fresh":
		var n atomic.Int64
		return plain(ctx, func(context.Context) (string, error) { return m.mint(int(n.Add(1)), "") }), nil
	case "jwt-3-fresh":
		return nested(ctx, m), nil
	default:
		return nil, fmt.Errorf("no load %q", name)
	}
}

// plain calls without a guard, with a token if there is one to bear.
func plain(ctx context.Context, tokens ...bearer) *load {
	l := &load{workload: "gateway", call: func(cc *grpc.ClientConn, _, _ int) error { return call(ctx, cc, methods[0]) }}
	for _, t := range tokens {
		l.opts = append(l.opts, grpc.WithPerRPCCredentials(t))
	}
	return l
}

// streams keeps a stream open for each worker; a call is a message there and
// back.
func streams(ctx context.Context, n int) *load {
	open := make([]grpc.ClientStream, n)
	return &load{
		workload: "gateway",
		open: func(cc *grpc.ClientConn) (err error) {
			for i := 0; i < n && err == nil; i++ {
				open[i], err = cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, chat)
			}
			return err
		},
		call: func(_ *grpc.ClientConn, worker, _ int) error {
			if err := open[worker].SendMsg(payload); err != nil {
				return err
			}
			return open[worker].RecvMsg(new(wrapperspb.BytesValue))
		},
	}
}

// originated calls with claims that the caller originates: new ones for each
// call, or some that are used again and again.
func (s *Setup) originated(ctx context.Context, name string, c *clock) (*load, error) {
	g, err := s.guard(ctx, "gateway", &counter{}, c.now)
	if err != nil {
		return nil, err
	}
	if name == "fresh" || name == "fresh-twice" {
		var n atomic.Int64
		return &load{workload: "gateway", guard: g, call: func(cc *grpc.ClientConn, _, _ int) error {
			ctx, err := originate(ctx, g, int(n.Add(1)))
			if err == nil && name == "fresh-twice" {
				err = call(ctx, cc, methods[0])
			}
			if err != nil {
				return err
			}
			return call(ctx, cc, methods[0])
		}}, nil
	}
	contexts := make([]context.Context, map[string]int{"warm": 1, "stream": 1, "warm-1000": tenants}[name])
	for i := range contexts {
		if contexts[i], err = originate(ctx, g, i); err != nil {
			return nil, err
		}
	}
	if name == "stream" {
		l := streams(contexts[0], s.Concurrency)
		l.guard = g
		return l, nil
	}
	return &load{
		workload: "gateway",
		guard:    g,
		open: func(cc *grpc.ClientConn) (err error) { // each is known before anything is measured
			for i := 0; i < len(contexts) && err == nil; i++ {
				err = call(contexts[i], cc, methods[0])
			}
			return err
		},
		call: func(cc *grpc.ClientConn, _, i int) error { return call(contexts[i%len(contexts)], cc, methods[0]) },
	}, nil
}

// forwarded calls with contexts that came along a path, each for share calls.
func (s *Setup) forwarded(ctx context.Context, share int, path ...string) (*load, error) {
	u, err := newUpstream(ctx, s, path...)
	if err != nil {
		return nil, err
	}
	var shared []sharedContext
	return &load{
		workload: path[len(path)-1],
		guard:    u.last,
		prepare: func(n int) error {
			contexts, err := u.contexts((n + share - 1) / share)
			shared = make([]sharedContext, len(contexts))
			for i := range contexts {
				shared[i].ctx = contexts[i]
				shared[i].left.Store(int32(share)) //nolint:gosec // few
			}
			return err
		},
		call: func(cc *grpc.ClientConn, _, i int) error { return call(shared[i/share].take(), cc, methods[i%share]) },
	}, nil
}

// sharedContext is the context of some calls. As in a service, it goes when they have it.
type sharedContext struct {
	ctx  context.Context
	left atomic.Int32
}

func (s *sharedContext) take() context.Context {
	ctx := s.ctx
	if s.left.Add(-1) == 0 {
		s.ctx = nil
	}
	return ctx
}

// nested is a service in the middle that mints a token for each call, into which
// it puts the two that it was called with. As many calls share those as in
// depth3-fresh.
func nested(ctx context.Context, m minter) *load {
	type earlierKey struct{}
	l := plain(ctx, func(ctx context.Context) (string, error) {
		earlier, _ := ctx.Value(earlierKey{}).(string)
		return m.mint(0, earlier)
	})
	var contexts []context.Context
	l.prepare = func(n int) error {
		contexts = make([]context.Context, (n+unaries-1)/unaries)
		for i := range contexts {
			earlier, err := m.nest(0, 2)
			if err != nil {
				return err
			}
			contexts[i] = context.WithValue(ctx, earlierKey{}, earlier)
		}
		return nil
	}
	l.call = func(cc *grpc.ClientConn, _, i int) error { return call(contexts[i/unaries], cc, methods[0]) }
	return l
}
