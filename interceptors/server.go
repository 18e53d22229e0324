package interceptors

import (
	"context"
	"sync/atomic"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/mint"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// server is the guard in one gRPC server.
type server struct {
	g     *Guard
	creds *svid.Credentials
}

type callKey struct{}

// tap runs when the headers of a call are there and before its message is
// read, in the connection's own goroutine: checks 1 and 2, nothing that waits.
func (s *server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	c := &call{point: audit.Server, method: info.FullMethodName}
	if err := s.admit(ctx, info.Header, c); err != nil {
		if codeOf(tenant.ReasonOf(err)) != codes.Unavailable {
			return ctx, s.g.refuse(ctx, c, err)
		}
		c.unavailable = err
	}
	return context.WithValue(withoutSecurityKeys(ctx, info.Header), callKey{}, c), nil
}

// admit makes checks 1 and 2 of SPEC.md, section 6.
func (s *server) admit(ctx context.Context, header metadata.MD, c *call) error {
	p, ok := peer.FromContext(ctx)
	if !ok || p.AuthInfo == nil {
		return tenant.Deny(tenant.PeerUnauthenticated, "a connection without authentication")
	}
	conn, ok := s.creds.Conn(p.AuthInfo)
	if !ok {
		return tenant.Deny(tenant.PeerUnauthenticated, "a connection that the kit's credentials did not make")
	}
	if err := conn.Check(); err != nil {
		return err
	}
	c.conn, c.peer = conn, conn.PeerID().String()
	c.headers = header

	var err error
	if c.policy, err = s.g.policy(); err != nil {
		return err
	}
	admission, err := c.policy.Admit(c.method, conn.PeerID())
	if err != nil {
		return err
	}
	c.exempt, c.rules = admission.Exempt, admission.Rules
	if c.metadata, err = hop.ParseMetadata(header); err != nil {
		return err
	}
	if c.metadata.Hops == "" && !c.exempt {
		return tenant.Deny(tenant.ContextMissing, "the call carries no %s", hop.HopsKey)
	}
	return nil
}

// decide makes the other checks and returns the context for the handler.
func (s *server) decide(ctx context.Context) (context.Context, *call, error) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		// The call came by a way on which the tap did not run.
		c = &call{point: audit.Server}
		c.method, _ = grpc.Method(ctx)
		return nil, nil, s.g.refuse(ctx, c, tenant.Deny(tenant.PeerUnauthenticated, "the call was not checked at header time"))
	}
	if err := s.authorize(c); err != nil {
		return nil, nil, s.refuse(ctx, c, err)
	}
	if err := s.g.audit.Allow(ctx, c.event()); err != nil {
		return nil, nil, s.refuse(ctx, c, err)
	}
	fields := logging.Fields{"peer.spiffe_id", c.peer}
	// A context from elsewhere in this process never stands in for the call's.
	ctx = mint.Without(ctx)
	if c.record != nil {
		ctx = mint.With(ctx, c.record)
		fields = append(fields, "tenant.id", c.record.Tenant, "tenant.txn", c.record.Transaction)
	}
	logging.AddFields(ctx, fields) // for the logging interceptor before us
	return logging.InjectFields(ctx, fields), c, nil
}

// authorize makes checks 3 to 6.
func (s *server) authorize(c *call) error {
	if c.unavailable != nil || c.exempt {
		return c.unavailable
	}
	snap, err := s.g.cfg.Source.Snapshot()
	if err != nil {
		return err
	}
	chain, err := hop.Verify(c.metadata, hop.Expected{
		Kind:    hop.Call,
		Peer:    c.conn.PeerChain(),
		Self:    c.conn.Local().ID,
		Target:  c.method,
		Binding: c.conn.Binding(),
		Bundles: snap.Bundles,
		Now:     s.g.cfg.Clock(),
	})
	if err != nil {
		return err
	}
	c.chain = chain
	question := policy.Call{Method: c.method, Path: signers(chain), Claims: chain.Claims(), Scopes: chain.Scopes()}
	answer, err := c.policy.Authorize(question)
	if err != nil {
		return err
	}
	c.rules = answer.Rules

	// What was decided above holds for this policy and these bundles.
	var decided atomic.Pointer[decidedBy]
	decided.Store(&decidedBy{c.policy, snap.Generation})
	c.record = c.newRecord(answer.Workloads, func() error {
		return s.stillValid(chain, question, &decided)
	})
	return nil
}

// decidedBy names what a decision was made by.
type decidedBy struct {
	policy     *policy.Policy
	generation uint64
}

// stillValid says whether a context that was verified may still be used.
func (s *server) stillValid(chain *hop.Chain, question policy.Call, decided *atomic.Pointer[decidedBy]) error {
	p, err := s.g.policy()
	if err != nil {
		return err
	}
	snap, err := s.g.cfg.Source.Snapshot()
	if err != nil {
		return err
	}
	now := s.g.cfg.Clock()
	if err := chain.Valid(now); err != nil {
		return err
	}
	before := decided.Load()
	if before.generation != snap.Generation {
		if err := chain.Trusted(snap.Bundles, now); err != nil {
			return err
		}
	}
	if before.policy != p {
		if _, err := p.Authorize(question); err != nil {
			return err
		}
	}
	decided.Store(&decidedBy{p, snap.Generation})
	return nil
}

// refuse is the guard's, with word to the client not to retry what is unavailable
// (gRFC A6, server pushback).
func (s *server) refuse(ctx context.Context, c *call, err error) error {
	st := s.g.refuse(ctx, c, err)
	if status.Code(st) == codes.Unavailable {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "-1"))
	}
	return st
}

// answered returns how a call ends whose handler returned err: with the guard's
// refusal, if there was one since, whatever the handler made of it.
func (s *server) answered(ctx context.Context, c *call, err error) error {
	if refused := c.kept(); refused != nil {
		return s.refuse(ctx, c, refused)
	}
	if tenant.ReasonOf(err) == "" {
		return err
	}
	return s.refuse(ctx, c, err)
}

func (s *server) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, c, err := s.decide(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := handler(ctx, req)
	if err := s.answered(ctx, c, err); err != nil {
		return nil, err
	}
	return resp, nil
}

func (s *server) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, c, err := s.decide(ss.Context())
	if err != nil {
		return err
	}
	return s.answered(ctx, c, handler(srv, &serverStream{ServerStream: ss, ctx: ctx, c: c}))
}

// unknown answers for methods that are not registered, should the policy cover
// one: exactly as for those that it does not cover.
func (s *server) unknown(_ any, ss grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(ss)
	return tenant.Deny(tenant.MethodNotCovered, "%s is not registered", method)
}

// serverStream asks at each message whether the peer and the context are
// still valid. Once they were not, no message passes any more.
type serverStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // grpc.ServerStream is how streams carry theirs
	c   *call
}

func (s *serverStream) Context() context.Context { return s.ctx }

func (s *serverStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.stillValid() // it may have waited long
}

func (s *serverStream) SendMsg(m any) error {
	if err := s.stillValid(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

func (s *serverStream) stillValid() error {
	if err := s.c.kept(); err != nil {
		return err
	}
	if err := s.c.keep(s.c.conn.Check()); err != nil || s.c.record == nil {
		return err
	}
	return s.c.record.Valid()
}

// withoutSecurityKeys hides the kit's keys from handlers, so that none copies
// them to another call.
func withoutSecurityKeys(ctx context.Context, header metadata.MD) context.Context {
	clean := make(metadata.MD, len(header))
	for key, values := range header {
		if !hop.IsMetadataKey(key) {
			clean[key] = values
		}
	}
	return metadata.NewIncomingContext(ctx, clean)
}
