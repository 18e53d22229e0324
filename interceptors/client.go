package interceptors

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/mint"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// client is the guard in one gRPC client. The interceptors run once per call
// and decide; the credential runs once per attempt, when the connection is
// known, and signs.
type client struct {
	g     *Guard
	creds *svid.Credentials
}

type outgoingKey struct{}

func (c *client) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, err := c.prepare(ctx, method)
	if err != nil {
		return err
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

func (c *client) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, err := c.prepare(ctx, method)
	if err != nil {
		return nil, err
	}
	return open(ctx, desc, cc, method, opts...)
}

// prepare decides whether the call may leave, and leaves word for the
// credential.
func (c *client) prepare(ctx context.Context, method string) (context.Context, error) {
	out := &call{point: audit.Client, method: method}
	if err := c.decide(ctx, out); err != nil {
		return nil, c.g.refuse(ctx, out, err)
	}
	return context.WithValue(ctx, outgoingKey{}, out), nil
}

func (c *client) decide(ctx context.Context, out *call) error {
	md, _ := metadata.FromOutgoingContext(ctx)
	for key := range md {
		if hop.IsMetadataKey(key) {
			return tenant.Deny(tenant.MetadataAmbiguous, "the application set %q, which is the kit's to set", key)
		}
	}
	p, err := c.g.policy()
	if err != nil {
		return err
	}
	snap, err := c.g.cfg.Source.Snapshot()
	if err != nil {
		return err
	}
	leave := p.MayCall(snap.SVID.ID, out.method, nil)
	if err := leave.Err(); err != nil {
		return err
	}
	out.exempt, out.rules = leave.Exempt(), leave.Rules()
	if out.exempt {
		return nil
	}
	r := mint.From(ctx)
	if r == nil {
		return tenant.Deny(tenant.ContextMissing, "the call's context.Context carries no tenant: pass on the one that the handler got, or originate")
	}
	chain, ok := r.Carrier.(*hop.Chain)
	if !ok {
		return tenant.Deny(tenant.Internal, "a context of another maker")
	}
	out.chain, out.record = chain, r
	return r.Valid()
}

// GetRequestMetadata implements [credentials.PerRPCCredentials]: it signs for
// the server and the connection of this attempt.
func (c *client) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	out, ok := ctx.Value(outgoingKey{}).(*call)
	if !ok {
		out = &call{point: audit.Client}
		return nil, credentialStatus(c.g.refuse(ctx, out, tenant.Deny(tenant.Internal, "the call did not pass the guard's interceptors")))
	}
	md, err := c.sign(ctx, out)
	if err != nil {
		return nil, credentialStatus(c.g.refuse(ctx, out, err))
	}
	return md, nil
}

func (c *client) sign(ctx context.Context, out *call) (map[string]string, error) {
	info, ok := credentials.RequestInfoFromContext(ctx)
	if !ok {
		return nil, tenant.Deny(tenant.PeerUnauthenticated, "nothing is known of the connection")
	}
	conn, ok := c.creds.Conn(info.AuthInfo)
	if !ok {
		return nil, tenant.Deny(tenant.PeerUnauthenticated, "a connection that the kit's credentials did not make")
	}
	if err := conn.Check(); err != nil {
		return nil, err
	}
	if info.Method != out.method {
		return nil, tenant.Deny(tenant.TargetMismatch, "decided for %s, sent as %s", out.method, info.Method)
	}
	if out.exempt {
		return nil, nil
	}
	if err := out.record.Valid(); err != nil { // an attempt may come late
		return nil, err
	}
	m, err := out.chain.Sign(conn.Local(), hop.Handover{
		Kind:     hop.Call,
		Audience: conn.PeerID().String(),
		Target:   out.method,
		Binding:  conn.Binding(),
		Now:      c.g.cfg.Clock(),
	})
	if err != nil {
		return nil, err
	}
	md := map[string]string{hop.HopsKey: m.Hops}
	if m.Certs != "" {
		md[hop.CertsKey] = m.Certs
	}
	return md, nil
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials].
func (c *client) RequireTransportSecurity() bool { return true }
