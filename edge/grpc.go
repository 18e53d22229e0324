package edge

import (
	"context"
	"time"

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
// issuer's keys cannot be had.
//
// Such a listener is a server of its own, beside the one with the guard's
// options. It panics if v or o is nil.
func UnaryServerInterceptor(v *Verifier, o Originator) grpc.UnaryServerInterceptor {
	mustHave(v, o)
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, _, err := v.call(ctx, o, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
}

// StreamServerInterceptor is [UnaryServerInterceptor] for streams. The token is
// checked when the stream opens. Once the token or the tenant context made of
// it has expired, no message is received or sent any more.
func StreamServerInterceptor(v *Verifier, o Originator) grpc.StreamServerInterceptor {
	mustHave(v, o)
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, exp, err := v.call(ss.Context(), o, info.FullMethod)
		if err != nil {
			return err
		}
		return handler(srv, &stream{ss, ctx, v, exp})
	}
}

func mustHave(v *Verifier, o Originator) {
	if v == nil || o == nil {
		panic("edge: an interceptor needs a Verifier and an Originator")
	}
}

// call lets a call in, or returns the status that refuses it, and the token's exp.
func (v *Verifier) call(ctx context.Context, o Originator, method string) (context.Context, time.Time, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	r := request{method, headers(md)}
	stripped := metadata.NewIncomingContext(ctx, metadata.MD(r.headers.forHandler()))
	ctx, c, proven, err := v.enter(stripped, o, r)
	if err != nil {
		err = statusOf(err, proven)
		if status.Code(err) == codes.Unavailable {
			_ = grpc.SetTrailer(stripped, metadata.Pairs("grpc-retry-pushback-ms", "-1")) // gRFC A6: do not retry
		}
		return stripped, time.Time{}, err
	}
	return ctx, c.Expires, nil
}

// stream is a stream whose context holds the tenant.
type stream struct {
	grpc.ServerStream
	ctx context.Context
	v   *Verifier
	exp time.Time
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.valid()
}

func (s *stream) SendMsg(m any) error {
	if err := s.valid(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

func (s *stream) valid() error {
	if !s.v.cfg.Clock().Before(s.exp.Add(s.v.cfg.Leeway)) {
		return interceptors.Status(tenant.Deny(tenant.TokenExpired, "expired on an open stream"))
	}
	if _, ok := tenant.FromContext(s.ctx); ok {
		if _, err := tenant.Require(s.ctx); err != nil {
			return interceptors.Status(asError(err))
		}
	}
	return nil
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
