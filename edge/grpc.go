package edge

import (
	"context"
	"errors"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// UnaryServerInterceptor returns an interceptor for a listener that external
// clients call with a bearer token, as the metadata key authorization. It does
// for calls what [HTTP] does for requests, to their metadata too. A token that
// is not accepted is UNAUTHENTICATED with a fixed text, or UNAVAILABLE if the
// issuer's keys cannot be had. A refusal that the handler returns becomes a status
// too, and is recorded; that of [tenant.Require] does whatever the handler returns.
//
// Such a listener is a server of its own, beside the one with the guard's
// options. It panics if v or o is nil.
func UnaryServerInterceptor(v *Verifier, o Originator) grpc.UnaryServerInterceptor {
	mustHave(v, o)
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		c, err := v.call(ctx, o, info.FullMethod)
		if err != nil {
			return nil, err
		}
		resp, err := handler(c.ctx, req)
		if err := c.answered(err); err != nil {
			return nil, err
		}
		return resp, nil
	}
}

// StreamServerInterceptor is [UnaryServerInterceptor] for streams. The token is
// checked when the stream opens. Once the token or the tenant context made of
// it has expired, no message is received or sent any more; the stream ends with
// that, whatever the handler returns, and it is recorded.
func StreamServerInterceptor(v *Verifier, o Originator) grpc.StreamServerInterceptor {
	mustHave(v, o)
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		c, err := v.call(ss.Context(), o, info.FullMethod)
		if err != nil {
			return err
		}
		return c.answered(handler(srv, &stream{ss, c}))
	}
}

func mustHave(v *Verifier, o Originator) {
	if v == nil || o == nil {
		panic("edge: an interceptor needs a Verifier and an Originator")
	}
}

// call is a call that was let in.
type call struct {
	v   *Verifier
	ctx context.Context // holds the tenant
	r   request
	d   verdict

	expired atomic.Bool // the token, on an open stream
}

// call lets a call in, or returns the status that refuses it.
func (v *Verifier) call(ctx context.Context, o Originator, method string) (*call, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	r := request{method, headers(md)}
	stripped := metadata.NewIncomingContext(ctx, metadata.MD(r.headers.forHandler()))
	out, d, err := v.enter(stripped, o, r)
	if err != nil {
		return nil, noRetry(stripped, statusOf(err, d.proven))
	}
	return &call{v: v, ctx: out, r: r, d: d}, nil
}

// answered returns how a call ends whose handler returned err: with its
// refusal, if it was refused since, whatever the handler made of it.
func (c *call) answered(err error) error {
	var e *tenant.Error
	if refused := c.refused(); refused != nil {
		e = asError(refused)
	} else if !errors.As(err, &e) {
		return err
	}
	c.v.audit().Refuse(c.ctx, c.r.event(c.d), e)
	return noRetry(c.ctx, interceptors.Status(e))
}

// refused returns why the call was refused after it had been let in, or nil.
func (c *call) refused() error {
	if c.expired.Load() {
		return tenant.Deny(tenant.TokenExpired, "expired on an open stream")
	}
	return tenant.Refused(c.ctx)
}

// noRetry tells the client not to retry what is unavailable (gRFC A6).
func noRetry(ctx context.Context, err error) error {
	if status.Code(err) == codes.Unavailable {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "-1"))
	}
	return err
}

// stream is a stream whose context holds the tenant.
type stream struct {
	grpc.ServerStream
	c *call
}

func (s *stream) Context() context.Context { return s.c.ctx }

func (s *stream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.c.valid()
}

func (s *stream) SendMsg(m any) error {
	if err := s.c.valid(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

// valid says whether the token, and the context that was made of it, still are.
func (c *call) valid() error {
	if !c.v.cfg.Clock().Before(c.d.claims.Expires.Add(c.v.cfg.Leeway)) {
		c.expired.Store(true)
	}
	if err := c.refused(); err != nil {
		return err
	}
	if _, ok := tenant.FromContext(c.ctx); !ok {
		return nil // the Originator is not a guard
	}
	_, err := tenant.Require(c.ctx)
	return err
}

// statusOf returns the status of a refusal. A client whose token the issuer did
// not sign, or that is not accepted as it is, gets one of two fixed texts.
func statusOf(err error, proven bool) error {
	err = interceptors.Status(err)
	switch code := status.Code(err); {
	case proven && code != codes.Unauthenticated:
		return err
	case code == codes.Unavailable:
		return status.Error(code, "unavailable")
	}
	return status.Error(codes.Unauthenticated, "unauthenticated")
}
