package interceptors

import (
	"context"
	"strings"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/fields"
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

// tap runs when the headers of a call are there and before its message is
// read, in the connection's own goroutine: checks 1 and 2, nothing that waits.
func (s *server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	c := &inbound{Context: ctx, call: call{
		g: s.g, point: audit.Server, method: info.FullMethodName, contract: s.g.contract(info.FullMethodName), headers: info.Header,
	}}
	c.observed = s.g.cfg.Observe.covers(c.method, s.g.cfg.Clock)
	if err := s.admit(c); err != nil {
		if codeOf(tenant.ReasonOf(err)) != codes.Unavailable {
			return ctx, c.refuse(ctx, err)
		}
		c.unavailable = err
		hideSecurityKeys(info.Header) // they may not have been read yet
	}
	return c, nil
}

// admit makes checks 1 and 2 of SPEC.md, section 6.
func (s *server) admit(c *inbound) error {
	p, ok := peer.FromContext(c.Context)
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

	var err error
	if c.policy, err = s.g.policy(); err != nil {
		return err
	}
	if err := c.contract.err; err != nil {
		return tenant.Deny(tenant.MessageUncheckable, "%w", err)
	}
	admission := c.policy.Admit(c.method, c.contract.declared, conn.PeerID())
	if err := admission.Err(); err != nil && !c.overlook(err) {
		return err
	}
	if c.exempt = admission.Exempt(); c.exempt {
		c.rule = strings.Join(admission.Rules(), " ")
	}
	if c.metadata, err = hop.ParseMetadata(c.headers); err != nil {
		return err
	}
	// From handlers, so that none copies them to another call; there are no variants of them.
	delete(c.headers, hop.HopsKey)
	delete(c.headers, hop.CertsKey)
	c.have = s.g.received(conn)
	if c.metadata, err = c.have.slots.Load().Resolve(c.metadata); err != nil {
		return err
	}
	if c.metadata.Hops == "" && !c.exempt {
		err := tenant.Deny(tenant.ContextMissing, "the call carries no %s", hop.HopsKey)
		if !c.overlook(err) {
			return err
		}
	}
	return nil
}

// enter makes the other checks and returns the call, and its context for the
// handler.
func (s *server) enter(ctx context.Context) (context.Context, *inbound, error) {
	c, ok := ctx.Value(inboundKey{}).(*inbound)
	if !ok {
		// The call came by a way on which the tap did not run.
		c := &call{g: s.g, point: audit.Server}
		c.method, _ = grpc.Method(ctx)
		return nil, nil, c.refuse(ctx, tenant.Deny(tenant.PeerUnauthenticated, "the call was not checked at header time"))
	}
	if c.entered.Swap(true) {
		return nil, nil, c.refuse(ctx, tenant.Deny(tenant.Internal, "an interceptor before the guard's gave it the context of another call"))
	}
	err := s.authorize(c)
	if err == nil {
		err = c.allow(ctx)
	}
	if err == nil {
		// Recording takes time. What is acknowledged to be in force by now counts.
		err = c.valid()
	}
	if err != nil {
		return nil, nil, noRetry(ctx, c.refuse(ctx, err))
	}
	c.letIn = true
	// A context from elsewhere in this process never stands in for the call's.
	if mint.From(ctx) != c.record {
		ctx = mint.With(ctx, c.record)
	}
	if logging.ExtractFields(ctx) != nil { // there is a logging interceptor before us
		known := logging.Fields{"peer.spiffe_id", c.peer}
		if c.record != nil {
			known = append(known, "tenant.id", c.record.Tenant, "tenant.txn", c.record.Transaction)
		}
		logging.AddFields(ctx, known)
	}
	return ctx, c, nil
}

// authorize makes checks 3 to 6.
func (s *server) authorize(c *inbound) error {
	if c.unavailable != nil {
		return c.unavailable
	}
	is, err := s.g.now()
	if err != nil {
		return err
	}
	c.policy = is.policy
	if c.exempt || c.metadata.Hops == "" { // the latter is overlooked
		c.decided.Store(is.policy)
		return nil
	}
	p, err := s.prove(c, &is)
	if err != nil {
		if c.overlook(err) {
			c.decided.Store(is.policy)
			return nil
		}
		return err
	}
	c.proof, c.chain, c.claims, c.path = p, p.chain, p.question.Claims, p.path
	return c.hold(&is)
}

// hold asks policy about what was proven, and holds what handlers get of it.
func (c *inbound) hold(is *moment) error {
	p := c.proof
	var d policy.Decision
	if err := c.decide(is, &d); err != nil && !c.overlook(err) {
		return err
	}
	c.goOn(is.policy, &d)
	said := p.by(is.policy, &d)
	c.rule = said.rule
	c.held = mint.Record{Facts: &said.facts, Holder: c, Carrier: &p.carried}
	c.record = &c.held
	return nil
}

// prove makes checks 3 and 4: anew, or, for bytes that were proven on this
// connection before, of what may have changed since.
func (s *server) prove(c *inbound, is *moment) (*proof, error) {
	known, key := c.have, proofKey{c.method, c.metadata.Hops, c.metadata.Certs}
	if p := known.get(key); p != nil {
		if err := p.chain.Timely(is.now); err != nil {
			return nil, err
		}
		return p, p.trusted(is.snap, is.now)
	}
	chain, err := hop.Verify(c.metadata, hop.Expected{
		Kind:    hop.Call,
		Peer:    c.conn.PeerChain(),
		Self:    c.conn.Local().ID,
		Target:  c.method,
		Binding: c.conn.Binding(),
		Bundles: is.snap.Bundles,
		Now:     is.now,

		Generation: is.snap.Generation,
		Cache:      &s.g.verified,
	})
	if err != nil {
		return nil, err
	}
	p := newProof(chain, is.snap.Generation, c.method, c.contract.declared)
	known.add(key, p)
	return p, nil
}

// noRetry tells the client not to retry what is unavailable (gRFC A6, server
// pushback).
func noRetry(ctx context.Context, err error) error {
	if status.Code(err) == codes.Unavailable {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "-1"))
	}
	return err
}

// answered returns how a call ends whose handler returned err: with the guard's
// refusal, if there was one since, whatever the handler made of it.
func (c *inbound) answered(ctx context.Context, err error) error {
	if refused := c.kept(); refused != nil {
		err = refused
	}
	if tenant.ReasonOf(err) == "" {
		return err
	}
	r, first := c.tell(err)
	if first {
		r.record(ctx)
	}
	return noRetry(ctx, r.status)
}

func (s *server) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, c, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	if req, err = c.check(ctx, req, fields.ServerReceives); err != nil {
		return nil, c.answered(ctx, err)
	}
	resp, err := handler(ctx, req)
	if err == nil {
		resp, err = c.check(ctx, resp, fields.ServerSends)
	}
	if err := c.answered(ctx, err); err != nil {
		return nil, err
	}
	// Not before: a refusal with headers would not be retried (gRFC A6).
	if value, ok := c.have.offer(); ok {
		_ = grpc.SetHeader(ctx, metadata.Pairs(hop.SlotsKey, value)) // else there is another time
	}
	return resp, nil
}

func (s *server) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, c, err := s.enter(ss.Context())
	if err != nil {
		return err
	}
	stream := &serverStream{ServerStream: ss, inbound: c, ctx: ctx}
	// gRPC has no other way to end a stream whose handler waits.
	if stream.writer, _ = grpc.ServerTransportStreamFromContext(ctx).(statusWriter); stream.writer == nil {
		return c.answered(ctx, tenant.Deny(tenant.Internal, "this version of grpc-go, or an interceptor before the guard's, hides the stream"))
	}
	s.g.watch.add(stream)
	defer s.g.watch.remove(stream)
	return c.answered(ctx, handler(srv, stream))
}

// statusWriter is gRPC's own stream on a server: WriteStatus ends it.
type statusWriter interface {
	WriteStatus(*status.Status) error
}

// unknown answers for methods that are not registered, should the policy cover
// one: exactly as for those that it does not cover.
func (s *server) unknown(_ any, ss grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(ss)
	return tenant.Deny(tenant.MethodNotCovered, "%s is not registered", method)
}

// serverStream asks at each message whether the stream may go on, and holds
// the message to its .proto. The first that may not pass ends the stream.
type serverStream struct {
	grpc.ServerStream
	*inbound
	ctx    context.Context // grpc.ServerStream is how streams carry theirs
	writer statusWriter
	clearance
}

func (s *serverStream) Context() context.Context { return s.ctx }

func (s *serverStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		if refused := s.kept(); refused != nil {
			return refused // that is why
		}
		return err
	}
	_, err := s.pass(m, fields.ServerReceives) // it may have waited long
	return err
}

func (s *serverStream) SendMsg(m any) error {
	out, err := s.pass(m, fields.ServerSends)
	if err != nil {
		return err
	}
	return s.ServerStream.SendMsg(out)
}

// mayGoOn implements [stream].
func (s *serverStream) mayGoOn() error {
	is, err := s.g.now()
	if err != nil || s.stands(&is, s.conn) {
		return err
	}
	if err := s.conn.CheckAt(is.snap, is.now); err != nil {
		return err
	}
	if err := s.validAt(&is); err != nil {
		return err
	}
	if !s.isTimedBy(is.policy) {
		s.note(&is, s.conn, s.until())
	}
	return nil
}

// pass returns what passes of a message.
func (s *serverStream) pass(m any, at fields.Point) (out any, err error) {
	if err = s.kept(); err == nil {
		err = s.mayGoOn()
	}
	if err == nil {
		out, err = s.check(s.ctx, m, at)
	}
	if err != nil {
		if r, first := s.tell(err); first {
			r.record(s.ctx)
			s.write(r)
		}
	}
	return out, err
}

// end implements [stream].
func (s *serverStream) end(err error) *refusal {
	r, first := s.tell(err)
	if !first {
		return nil
	}
	s.write(r)
	return r
}

// write ends the stream. It fails where the connection is gone, and so is the stream.
func (s *serverStream) write(r *refusal) {
	_ = s.writer.WriteStatus(status.Convert(noRetry(s.ctx, r.status)))
}

// hideSecurityKeys takes the kit's keys, and what one could take for them, out of what other
// interceptors see.
func hideSecurityKeys(header metadata.MD) {
	for key := range header {
		if hop.IsMetadataKey(key) {
			delete(header, key)
		}
	}
}
