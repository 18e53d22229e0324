package interceptors

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/fields"
	"github.com/tenantmesh/tenantmesh/internal/mint"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// client is the guard in one gRPC client. The interceptors run once per call
// and decide; the credential runs once per attempt, when the connection is
// known, and signs.
type client struct {
	g     *Guard
	creds *svid.Credentials
	asks  atomic.Int32 // calls that are still to look for an offer of slots
}

// outbound is a call that leaves, and its context.Context.
type outbound struct {
	context.Context
	call
	carried *carried
	// attempt is the connection of the last attempt to send it.
	attempt atomic.Pointer[svid.Conn]
	// handed is the policy by which the callee got the context.
	handed atomic.Pointer[policy.Policy]

	streams bool // slots are for unary calls, whose end tells that the server has read them
	slots   [2]*hop.Slot
	filler  *hop.Filler // of slots
}

type outboundKey struct{}

// Value answers with the call itself.
func (c *outbound) Value(key any) any {
	if _, ok := key.(outboundKey); ok {
		return c
	}
	return c.Context.Value(key)
}

func (c *client) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	out, err := c.prepare(ctx, method)
	if err != nil {
		return err
	}
	if req, err = out.check(ctx, req, fields.ClientSends); err != nil {
		return out.refuse(ctx, err)
	}
	c.g.signing.calls.Add(1)
	defer c.g.signing.calls.Add(-1)
	var header *metadata.MD // nil: nobody asks
	if c.asks.Load() > 0 {
		header = new(metadata.MD)
		opts = append(slices.Clone(opts), grpc.Header(header))
	}
	err = invoke(out, method, req, reply, cc, opts...)
	out.over(err == nil)
	if err != nil {
		return err
	}
	if conn := out.attempt.Load(); header != nil && conn != nil {
		c.asks.Add(-1)
		c.sentOn(conn).learn(*header)
	}
	if _, err := out.check(ctx, reply, fields.ClientReceives); err != nil {
		empty(reply)
		return out.refuse(ctx, err)
	}
	return nil
}

// empty takes out of a message what its reader may not see.
func empty(m any) {
	if m, ok := m.(proto.Message); ok {
		proto.Reset(m)
	}
}

func (c *client) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	out, err := c.prepare(ctx, method)
	if err != nil {
		return nil, err
	}
	out.streams = true
	c.g.signing.calls.Add(1)
	defer c.g.signing.calls.Add(-1)
	ctx, cancel := context.WithCancel(out)
	cs, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &clientStream{ClientStream: cs, ctx: ctx, out: out, one: !desc.ServerStreams, cancel: cancel}
	c.g.watch.add(s)
	context.AfterFunc(ctx, func() { c.g.watch.remove(s) })
	return s, nil
}

// prepare decides whether the call may leave, and leaves word for the
// credential.
func (c *client) prepare(ctx context.Context, method string) (*outbound, error) {
	out := &outbound{Context: ctx, call: call{g: c.g, point: audit.Client, method: method, contract: c.g.contract(method)}}
	out.observed = c.g.cfg.Observe.covers(method, c.g.cfg.Clock)
	err := c.decide(ctx, out)
	if err == nil && out.overlooked != nil {
		err = out.allow(ctx)
	}
	if err != nil {
		return nil, out.refuse(ctx, err)
	}
	return out, nil
}

func (c *client) decide(ctx context.Context, out *outbound) error {
	md, _ := metadata.FromOutgoingContext(ctx)
	for key := range md {
		if hop.IsMetadataKey(key) {
			return tenant.Deny(tenant.MetadataAmbiguous, "the application set %q, which is the kit's to set", key)
		}
	}
	is, err := c.g.now()
	if err != nil {
		return err
	}
	out.policy = is.policy
	if err := out.contract.err; err != nil {
		return tenant.Deny(tenant.MessageUncheckable, "%w", err)
	}
	leave := is.policy.MayCall(is.snap.SVID.ID, out.method, out.contract.declared)
	if err := leave.Err(); err != nil && !out.overlook(err) {
		return err
	}
	if out.exempt = leave.Exempt(); out.exempt {
		return nil
	}
	r, carries, err := is.outgoing(ctx)
	if err != nil {
		if out.overlook(err) {
			return nil
		}
		return err
	}
	out.carried, out.chain, out.record = carries, carries.chain, r
	return nil
}

// outgoing returns the tenant context that a call is made with.
func (is *moment) outgoing(ctx context.Context) (*mint.Record, *carried, error) {
	r := mint.From(ctx)
	if r == nil {
		return nil, nil, tenant.Deny(tenant.ContextMissing, "the call's context.Context carries no tenant: pass on the one that the handler got, or originate")
	}
	c, ok := r.Carrier.(*carried)
	if !ok {
		return nil, nil, tenant.Deny(tenant.Internal, "a context of another maker")
	}
	return r, c, is.valid(r.Holder)
}

// GetRequestMetadata implements [credentials.PerRPCCredentials]: it signs for
// the server and the connection of this attempt.
func (c *client) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	out, ok := ctx.Value(outboundKey{}).(*outbound)
	if !ok {
		out := &call{g: c.g, point: audit.Client}
		return nil, credentialStatus(out.refuse(ctx, tenant.Deny(tenant.Internal, "the call did not pass the guard's interceptors")))
	}
	md, err := c.sign(ctx, out)
	if err != nil && errors.Is(err, ctx.Err()) { // it ended while the statement waited for its signature
		return nil, status.FromContextError(err).Err()
	}
	if err != nil {
		return nil, credentialStatus(out.refuse(ctx, err))
	}
	return md, nil
}

func (c *client) sign(ctx context.Context, out *outbound) (map[string]string, error) {
	info, ok := credentials.RequestInfoFromContext(ctx)
	if !ok {
		return nil, tenant.Deny(tenant.PeerUnauthenticated, "nothing is known of the connection")
	}
	conn, ok := c.creds.Conn(info.AuthInfo)
	if !ok && c.creds.Closed(info.AuthInfo) {
		return nil, nil // nothing leaves on it; gRPC finds out and takes another connection
	}
	if !ok {
		return nil, tenant.Deny(tenant.PeerUnauthenticated, "a connection that the kit's credentials did not make")
	}
	is, err := c.g.now()
	if err == nil {
		err = conn.CheckAt(is.snap, is.now)
	}
	if err != nil {
		return nil, err
	}
	if info.Method != out.method {
		return nil, tenant.Deny(tenant.TargetMismatch, "decided for %s, sent as %s", out.method, info.Method)
	}
	out.attempt.Store(conn)
	if out.chain == nil { // exempt, or overlooked
		return nil, nil
	}
	if err := is.valid(out.record.Holder); err != nil { // an attempt may come late
		return nil, err
	}
	if err := out.mayHave(ctx, is.policy, conn.PeerID()); err != nil {
		return nil, err
	}
	out.over(false) // an attempt before
	slots := c.sentOn(conn).filler.Load()
	if md := out.carried.again(out, conn, slots, is.now); md != nil {
		return md, nil
	}
	m, err := c.g.signing.of(conn.Local()).Sign(ctx, out.chain, hop.Handover{
		Kind:     hop.Call,
		Audience: conn.PeerID().String(),
		Target:   out.method,
		Binding:  conn.Binding(),
		Now:      is.now,
	})
	if err != nil {
		return nil, err
	}
	return out.carried.add(out, conn, slots, is.now, m), nil
}

// mayHave says whether the callee may have the context.
func (c *outbound) mayHave(ctx context.Context, pol *policy.Policy, callee spiffeid.ID) error {
	if err := pol.MayHave(c.chain.View().Tenant, callee); err != nil {
		if !c.overlook(err) {
			return err
		}
		if err := c.g.audit.Observe(ctx, c.event(), asError(err)); err != nil {
			return err
		}
	}
	c.handed.Store(pol)
	return nil
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials].
func (c *client) RequireTransportSecurity() bool { return true }

// clientStream is [serverStream] at the other end.
type clientStream struct {
	grpc.ClientStream
	ctx    context.Context // Context of a ClientStream ends gRPC's retries
	out    *outbound
	one    bool // one message comes back
	cancel context.CancelFunc
	clearance
}

func (s *clientStream) SendMsg(m any) error {
	out, err := s.pass(m, fields.ClientSends)
	if err != nil {
		return err
	}
	return s.because(s.ClientStream.SendMsg(out))
}

func (s *clientStream) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		s.cancel()
		return s.because(err)
	}
	if _, err := s.pass(m, fields.ClientReceives); err != nil {
		empty(m)
		return err
	}
	if s.one {
		s.cancel()
	}
	return nil
}

// because returns why the stream ended, where it was us who ended it.
func (s *clientStream) because(err error) error {
	if told := s.out.told.Load(); told != nil && err != nil {
		return told.status
	}
	return err
}

// pass returns what passes of a message.
func (s *clientStream) pass(m any, at fields.Point) (any, error) {
	if told := s.out.told.Load(); told != nil {
		return nil, told.status
	}
	err := s.mayGoOn()
	if err == nil {
		m, err = s.out.check(s.ctx, m, at)
	}
	if err == nil {
		return m, nil
	}
	r, first := s.out.tell(err)
	if first {
		r.record(s.ctx)
		s.cancel()
	}
	return nil, r.status
}

// mayGoOn implements [stream].
func (s *clientStream) mayGoOn() error {
	conn := s.out.attempt.Load()
	if conn == nil {
		if s.out.record == nil {
			return nil
		}
		return s.out.record.Holder.Valid()
	}
	is, err := s.out.g.now()
	if err != nil || s.stands(&is, conn) {
		return err
	}
	if err := conn.CheckAt(is.snap, is.now); err != nil {
		return err
	}
	if s.out.record == nil {
		s.note(&is, conn, s.until())
		return nil
	}
	if by := s.out.handed.Load(); by != nil && by != is.policy {
		if err := s.out.mayHave(s.ctx, is.policy, conn.PeerID()); err != nil {
			return err
		}
	}
	if err := is.valid(s.out.record.Holder); err != nil {
		return err
	}
	if !is.isTimed(s.out.record.Holder) {
		s.note(&is, conn, s.until())
	}
	return nil
}

// until implements [stream].
func (s *clientStream) until() time.Time {
	var until time.Time // not known yet: asked at each tick
	if conn := s.out.attempt.Load(); conn != nil {
		until = conn.Until()
		if c := s.out.chain; c != nil && c.Until().Before(until) {
			until = c.Until()
		}
	}
	return until
}

// isTimed implements [stream]: conditions are for the server to ask.
func (*clientStream) isTimed() bool { return false }

// end implements [stream].
func (s *clientStream) end(err error) *refusal {
	r, first := s.out.tell(err)
	s.cancel()
	if !first {
		return nil
	}
	return r
}
