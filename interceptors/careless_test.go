package interceptors_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// careless is a service whose handlers go wrong in the middle of a call: then
// they do one thing that the guard refuses, and make of that what they like.
type careless struct {
	grpc_testing.UnimplementedTestServiceServer
	wrong  func() // what takes the context's validity away
	mend   func() // and gives it back
	do     string
	self   *grpc.ClientConn
	shape  shape
	answer func(error) error
	seen   chan []error // what the handler got: of the thing itself, and of what it tried after mend
}

func (c *careless) handle(ctx context.Context, recv, send func() error) error {
	things := map[string]func() error{
		"Require": func() error { _, err := tenant.Require(ctx); return err },
		"Call":    func() error { return c.shape.call(ctx, c.self) },
		"RecvMsg": recv,
		"SendMsg": send,
	}
	c.wrong()
	err := things[c.do]()
	seen := []error{err}
	c.mend()
	for _, f := range []func() error{recv, send} {
		if f != nil {
			seen = append(seen, f())
		}
	}
	c.seen <- seen // the client may know the end already
	return c.answer(err)
}

func (c *careless) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return &grpc_testing.SimpleResponse{}, c.handle(ctx, nil, nil)
}

func (c *careless) StreamingOutputCall(_ *grpc_testing.StreamingOutputCallRequest, ss grpc_testing.TestService_StreamingOutputCallServer) error {
	return c.handle(ss.Context(), nil, func() error { return ss.Send(&grpc_testing.StreamingOutputCallResponse{}) })
}

func (c *careless) StreamingInputCall(ss grpc_testing.TestService_StreamingInputCallServer) error {
	return c.handle(ss.Context(), func() error { _, err := ss.Recv(); return err },
		func() error { return ss.SendAndClose(&grpc_testing.StreamingInputCallResponse{}) })
}

func (c *careless) FullDuplexCall(ss grpc_testing.TestService_FullDuplexCallServer) error {
	return c.handle(ss.Context(), func() error { _, err := ss.Recv(); return err },
		func() error { return ss.Send(&grpc_testing.StreamingOutputCallResponse{}) })
}

// TestCareless: what the guard refused in a call is how the call ends, whatever
// the handler makes of it, and on a stream no message passes any more.
func TestCareless(t *testing.T) {
	answers := map[string]func(error) error{
		"nothing":        func(error) error { return nil },
		"the error":      func(err error) error { return err },
		"it wrapped":     func(err error) error { return fmt.Errorf("orders: %w", err) },
		"another status": func(err error) error { return status.Errorf(codes.Aborted, "orders: %v", err) },
		"another error":  func(error) error { return errors.New("orders") },
	}
	for _, row := range []struct {
		name, do string
		shapes   []shape // that can do it
		later    time.Duration
		want     tenant.Reason
	}{
		{"T9 Require", "Require", shapes, 10 * time.Minute, tenant.ContextExpired},
		{"T9 signing", "Call", shapes, 10 * time.Minute, tenant.ContextExpired},
		{"T9 RecvMsg", "RecvMsg", shapes[2:], 10 * time.Minute, tenant.ContextExpired},
		{"T9 SendMsg", "SendMsg", shapes[1:], 10 * time.Minute, tenant.ContextExpired},
		{"I5 RecvMsg", "RecvMsg", shapes[2:], 3 * time.Minute, tenant.SVIDExpired},
		{"I5 SendMsg", "SendMsg", shapes[1:], 3 * time.Minute, tenant.SVIDExpired},
	} {
		for name, answer := range answers {
			attacktest.Run(&account, t, row.name+" refused, and the handler returns "+name, row.shapes, func(t *testing.T, s shape) {
				m := newMesh(t)
				c := &careless{do: row.do, shape: s, answer: answer, seen: make(chan []error, 1)}
				c.wrong, c.mend = func() { m.clock.advance(row.later) }, func() { m.clock.advance(-row.later) }
				c.self = m.dial(m.guard.DialOptions(svid.Expect(id("target")))...)
				_, m.addr = m.serveAs(c, m.guard.ServerOptions()...)
				if row.want == tenant.SVIDExpired {
					m.svids["gateway"] = m.issue("gateway", attacktest.Valid(-time.Minute, 2*time.Minute))
				}
				g, cc := m.client("gateway")
				err := s.call(acme(t, g), cc)
				if reason(err) != row.want || status.Code(err) != codes.Unauthenticated {
					t.Errorf("the call ends with %v, want %s", err, row.want)
				}
				events := m.audit.take()
				if last := events[len(events)-1]; len(events) < 2 || !events[0].Allowed || last.Allowed || last.Reason != row.want {
					t.Errorf("audit: %+v, want a call allowed and then refused for %s", events, row.want)
				}
				for _, err := range <-c.seen {
					if reason(err) != row.want && !errors.Is(err, io.EOF) { // the client sends one message
						t.Errorf("the handler got %v, want %s", err, row.want)
					}
				}
			})
		}
	}
}
