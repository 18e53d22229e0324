package interceptors_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// bubble is a mesh in a testing/synctest bubble, whose time is everybody's.
type bubble struct {
	t       *testing.T
	domain  *devdomain.Domain
	partner *devdomain.Domain
	self    *devdomain.Workload
	policy  *source
	audit   *trail
	lis     *bufconn.Listener
	// handler runs for streams, after which they wait for the client.
	handler func(context.Context)
}

// newBubble returns a mesh. With a ttl, the server's SVID lives that long, and is
// not renewed; without, SVIDs live for an hour. Claims live for 4 minutes.
func newBubble(t *testing.T, ttl time.Duration) *bubble {
	b := &bubble{t: t, policy: new(source), audit: newTrail(), handler: func(context.Context) {}}
	for name, d := range map[string]**devdomain.Domain{"prod.example": &b.domain, "partner.example": &b.partner} {
		var err error
		if *d, err = devdomain.New(devdomain.Config{TrustDomain: name, TTL: ttl}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = (*d).Close() })
	}
	b.domain.Federate(b.partner)
	b.partner.Federate(b.domain)
	b.policy.p.Store(parsePolicy(t, document))
	b.self = b.workload(b.domain, id("target"))
	lis := bufconn.Listen(1 << 20)
	b.lis = lis
	var src svid.Snapshotter = b.self
	if ttl > 0 {
		own, err := b.domain.Issue(id("target"))
		if err != nil {
			t.Fatal(err)
		}
		src = attacktest.Identity(own, x509bundle.NewSet(b.domain.Bundle()))
	}
	srv := grpc.NewServer(b.guard(src, b.audit).ServerOptions()...)
	grpc_testing.RegisterTestServiceServer(srv, &idle{b: b})
	go func() { _ = srv.Serve(lis) }()
	t.Cleanup(srv.Stop)
	return b
}

func (b *bubble) workload(d *devdomain.Domain, id string) *devdomain.Workload {
	b.t.Helper()
	w, err := d.Workload(id)
	if err != nil {
		b.t.Fatal(err)
	}
	return w
}

func (b *bubble) guard(src svid.Snapshotter, sink *trail) *interceptors.Guard {
	b.t.Helper()
	g, err := interceptors.New(interceptors.Config{
		Source: src, Policy: b.policy, Audit: sink, Logger: slog.New(slog.DiscardHandler), MaxConnectionAge: 24 * time.Hour,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return g
}

// client returns a connection by an identity, and a context for acme.
func (b *bubble) client(src svid.Snapshotter) (context.Context, *grpc.ClientConn, *interceptors.Guard) {
	b.t.Helper()
	g := b.guard(src, newTrail())
	cc, err := grpc.NewClient("passthrough:target", append(g.DialOptions(svid.Expect(id("target"))),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return b.lis.DialContext(ctx) }))...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = cc.Close() })
	c := claims("acme")
	ctx, err := g.Originate(b.t.Context(), c)
	if err != nil {
		b.t.Fatal(err)
	}
	return ctx, cc, g
}

// unwatched returns a connection by an identity that signs for acme and looks
// after none of its streams, so that the server must.
func (b *bubble) unwatched(src svid.Snapshotter) *grpc.ClientConn {
	b.t.Helper()
	snap, err := src.Snapshot()
	if err != nil {
		b.t.Fatal(err)
	}
	creds := svid.NewClientCredentials(src, svid.Expect(id("target")))
	cc, err := grpc.NewClient("passthrough:target", grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return b.lis.DialContext(ctx) }),
		grpc.WithPerRPCCredentials(attacktest.NewCredential(creds, unwatched(snap.SVID, "acme"))))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// unwatched signs honestly for a tenant, and nobody looks after what is called
// with it.
func unwatched(own *x509svid.SVID, tenant string) attacktest.Forgery {
	return func(binding [32]byte, method string) (map[string]string, error) {
		chain, err := hop.Begin(claims(tenant))
		if err != nil {
			return nil, err
		}
		md, err := chain.Sign(own, hop.Handover{Kind: hop.Call, Audience: id("target"), Target: method, Binding: binding, Now: time.Now()})
		return map[string]string{hop.HopsKey: md.Hops}, err
	}
}

// idle is a service whose streams are open and say nothing.
type idle struct {
	grpc_testing.UnimplementedTestServiceServer
	b *bubble
}

func (s *idle) StreamingOutputCall(_ *grpc_testing.StreamingOutputCallRequest, ss grpc_testing.TestService_StreamingOutputCallServer) error {
	if err := ss.Send(&grpc_testing.StreamingOutputCallResponse{}); err != nil {
		return err
	}
	s.b.handler(ss.Context())
	<-ss.Context().Done()
	return ss.Context().Err()
}

func (s *idle) StreamingInputCall(ss grpc_testing.TestService_StreamingInputCallServer) error {
	s.b.handler(ss.Context())
	for {
		if _, err := ss.Recv(); err != nil {
			return err
		}
	}
}

func (s *idle) FullDuplexCall(ss grpc_testing.TestService_FullDuplexCallServer) error {
	s.b.handler(ss.Context())
	for {
		if _, err := ss.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := ss.Send(&grpc_testing.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

// openers open a stream of each shape, say something on it, and return how to
// wait for its end and how to say more.
var openers = map[string]func(context.Context, *grpc.ClientConn) (end func() error, say func() error, err error){
	"server stream": func(ctx context.Context, cc *grpc.ClientConn) (func() error, func() error, error) {
		s, err := grpc_testing.NewTestServiceClient(cc).StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		return func() error { return drain(s.Recv) }, nil, err
	},
	"client stream": func(ctx context.Context, cc *grpc.ClientConn) (func() error, func() error, error) {
		s, err := grpc_testing.NewTestServiceClient(cc).StreamingInputCall(ctx)
		if err == nil {
			err = s.Send(&grpc_testing.StreamingInputCallRequest{})
		}
		return func() error { return s.RecvMsg(new(grpc_testing.StreamingInputCallResponse)) },
			func() error { return s.Send(&grpc_testing.StreamingInputCallRequest{}) }, err
	},
	"bidi stream": func(ctx context.Context, cc *grpc.ClientConn) (func() error, func() error, error) {
		s, err := grpc_testing.NewTestServiceClient(cc).FullDuplexCall(ctx)
		if err == nil {
			err = s.Send(&grpc_testing.StreamingOutputCallRequest{})
		}
		if err == nil {
			_, err = s.Recv()
		}
		return func() error { return drain(s.Recv) },
			func() error { return s.Send(&grpc_testing.StreamingOutputCallRequest{}) }, err
	},
}

// ends returns how a stream ends, if it does within a second of the bubble's time.
func ends(end func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- end() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Second):
		return errors.New("it is still open after a second")
	}
}

// narrowed pushes the policy with a change.
func narrowed(old, instead string) func(*bubble) {
	return func(b *bubble) {
		doc := strings.Replace(document, old, instead, 1)
		if doc == document {
			panic(old)
		}
		b.policy.p.Store(parsePolicy(b.t, doc))
	}
}

// TestS2: whatever a stream stands on, when it goes, the stream ends within a
// second, be it idle or not, for the recorded reason.
func TestS2(t *testing.T) {
	for _, tt := range []struct {
		name   string
		caller string
		cause  func(*bubble)
		want   tenant.Reason
		ttl    time.Duration
	}{
		{"claims expire", "gateway", func(*bubble) { time.Sleep(4 * time.Minute) }, tenant.ContextExpired, 0},  //nolint:forbidigo // The bubble's time.
		{"the peer's SVID expires", "short", func(*bubble) { time.Sleep(time.Minute) }, tenant.SVIDExpired, 0}, //nolint:forbidigo // The bubble's time.
		{"a root is withdrawn", "old", func(b *bubble) {
			if err := b.domain.RotateRoot(); err != nil {
				b.t.Fatal(err)
			}
			b.domain.DropOldRoots()
		}, tenant.SVIDUntrusted, 0},
		{"I4 a trust domain is no longer federated", "partner", func(b *bubble) { b.domain.Unfederate("partner.example") }, tenant.SVIDUntrusted, 0},
		{"policy no longer binds the caller", "gateway", narrowed("match: spiffe://prod.example/gateway\n    tenants: [\"*\"]", "match: spiffe://prod.example/gateway\n    tenants: [globex]"), tenant.TenantNotBound, 0},
		{"policy denies the caller", "gateway", narrowed("methods:\n", "  - name: no\n    match: spiffe://prod.example/gateway\n    deny: true\nmethods:\n"), tenant.WorkloadDenied, 0},
		{"policy has a condition", "gateway", narrowed("FullDuplexCall\n", "FullDuplexCall\n    when: 'tenant.id != \"acme\"'\n"), tenant.ConditionNotMet, 0},
		{"a condition on time", "gateway", func(b *bubble) {
			at := time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
			narrowed("FullDuplexCall\n", "FullDuplexCall\n    when: 'now < timestamp(\""+at+"\")'\n")(b)
			time.Sleep(time.Minute) //nolint:forbidigo // The bubble's time.
		}, tenant.ConditionNotMet, 0},
		{"D10 the tenant is created anew", "gateway", narrowed("acme-uid-1", "acme-uid-2"), tenant.TenantReplaced, 0},
		{"P6 policy goes", "gateway", func(b *bubble) { b.policy.p.Store(nil) }, tenant.PolicyUnavailable, 0},
		{"the server's identity goes", "gateway", func(b *bubble) { b.self.Remove() }, tenant.IdentityUnavailable, 0},
		{"I5 the server's SVID of the connection expires", "old", func(*bubble) { time.Sleep(time.Minute) }, tenant.IdentityUnavailable, time.Minute}, //nolint:forbidigo // The bubble's time.
	} {
		for shape, open := range openers {
			if strings.Contains(tt.name, "condition") && shape != "bidi stream" {
				continue // it stands at that method alone
			}
			for _, active := range []bool{false, true} {
				t.Run(fmt.Sprintf("S2 %s/%s active=%t", tt.name, shape, active), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						b := newBubble(t, tt.ttl)
						var src svid.Snapshotter
						switch tt.caller {
						case "partner":
							src = b.workload(b.partner, "spiffe://partner.example/app")
						case "gateway":
							src = b.workload(b.domain, id("gateway"))
						default: // one that does not rotate
							ttl := time.Hour
							if tt.caller == "short" {
								ttl = time.Minute
							}
							own, err := b.domain.Issue(id("gateway"), devdomain.ValidFrom(time.Now(), time.Now().Add(ttl)))
							if err != nil {
								t.Fatal(err)
							}
							snap, err := b.self.Snapshot()
							if err != nil {
								t.Fatal(err)
							}
							src = attacktest.Identity(own, snap.Bundles)
						}
						end, say, err := open(t.Context(), b.unwatched(src))
						if err != nil {
							t.Fatal(err)
						}
						synctest.Wait()
						b.audit.take()
						var talk sync.WaitGroup
						if active && say != nil {
							talk.Go(func() {
								for say() == nil {
									time.Sleep(100 * time.Millisecond) //nolint:forbidigo // The bubble's time.
								}
							})
						}
						tt.cause(b)
						err = ends(end)
						if got := interceptors.ReasonOf(err); got != tt.want {
							t.Errorf("the caller sees %v, want %s", err, tt.want)
						}
						talk.Wait()
						synctest.Wait()
						if e := b.audit.take(); len(e) != 1 || e[0].Allowed || e[0].Reason != tt.want || e[0].Tenant != "acme" {
							t.Errorf("audit: %+v, want one refusal for %s", e, tt.want)
						}
					})
				})
			}
		}
	}
}

// TestDeafHandler: a handler that does not listen delays no end of its stream.
func TestDeafHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 0)
		release := make(chan struct{})
		b.handler = func(context.Context) { <-release }
		defer close(release)
		cc := b.unwatched(b.workload(b.domain, id("gateway")))
		s, err := grpc_testing.NewTestServiceClient(cc).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.policy.p.Store(parsePolicy(t, strings.Replace(document, "acme-uid-1", "acme-uid-2", 1)))
		if err := ends(func() error { _, err := s.Recv(); return err }); interceptors.ReasonOf(err) != tenant.TenantReplaced {
			t.Errorf("S2 got %v", err)
		}
	})
}

// TestSlowSink: a sink that hangs delays the end of no other stream.
func TestSlowSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 0)
		var streams []grpc_testing.TestService_FullDuplexCallClient
		for _, w := range []*devdomain.Workload{b.workload(b.partner, "spiffe://partner.example/app"), b.workload(b.domain, id("gateway"))} {
			s, err := grpc_testing.NewTestServiceClient(b.unwatched(w)).FullDuplexCall(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, s)
		}
		synctest.Wait()
		b.audit.hang()
		doc := document
		for i, change := range [][2]string{{"spiffe://partner.example/app", "spiffe://partner.example/other"}, {"acme-uid-1", "acme-uid-2"}} {
			doc = strings.Replace(doc, change[0], change[1], 1)
			b.policy.p.Store(parsePolicy(t, doc))
			want := []tenant.Reason{tenant.WorkloadUnknown, tenant.TenantReplaced}[i]
			if err := ends(func() error { _, err := streams[i].Recv(); return err }); interceptors.ReasonOf(err) != want {
				t.Errorf("S2 stream %d: %v, want %s", i, err, want)
			}
		}
		time.Sleep(time.Minute) //nolint:forbidigo // The bubble's time, in which the sink's runs out.
	})
}

// TestClientEndsStreams is S2 at the client, for a server that checks nothing:
// what its streams stand on goes, and they end.
func TestClientEndsStreams(t *testing.T) {
	for name, tt := range map[string]struct {
		cause func(*bubble)
		want  tenant.Reason
	}{
		"claims expire": {func(*bubble) { time.Sleep(4 * time.Minute) }, tenant.ContextExpired}, //nolint:forbidigo // The bubble's time.
		"a root is withdrawn": {func(b *bubble) {
			if err := b.domain.RotateRoot(); err != nil {
				b.t.Fatal(err)
			}
			b.domain.DropOldRoots()
		}, tenant.SVIDUntrusted},
		"P6 policy goes": {func(b *bubble) { b.policy.p.Store(nil) }, tenant.PolicyUnavailable},
		"H4 policy denies the callee": {
			narrowed("methods:\n", "  - name: no\n    match: spiffe://prod.example/target\n    deny: true\nmethods:\n"), tenant.WorkloadDenied,
		},
	} {
		for shape, open := range openers {
			t.Run("S2 "+name+"/"+shape, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBubble(t, 0)
					own, err := b.domain.Issue(id("target"))
					if err != nil {
						t.Fatal(err)
					}
					snap, err := b.self.Snapshot()
					if err != nil {
						t.Fatal(err)
					}
					b.lis = bufconn.Listen(1 << 20)
					srv := grpc.NewServer(grpc.Creds(svid.NewServerCredentials(attacktest.Identity(own, snap.Bundles))))
					grpc_testing.RegisterTestServiceServer(srv, &idle{b: b})
					go func() { _ = srv.Serve(b.lis) }()
					defer srv.Stop()
					ctx, cc, _ := b.client(b.workload(b.domain, id("gateway")))
					end, say, err := open(ctx, cc)
					if err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					tt.cause(b)
					err = ends(end)
					if got := interceptors.ReasonOf(err); got != tt.want {
						t.Errorf("the caller sees %v, want %s", err, tt.want)
					}
					if say != nil {
						if err := say(); interceptors.ReasonOf(err) != tt.want {
							t.Errorf("and more is sent: %v", err)
						}
					}
				})
			})
		}
	}
}

// TestS3 opens 10,000 streams for two tenants and pushes a policy that binds
// nobody to one of them.
func TestS3(t *testing.T) {
	const streams, conns = 10_000, 20
	m := newMesh(t)
	b := &bubble{t: t, handler: func(context.Context) {}}
	_, m.addr = m.serveAs(&idle{b: b}, m.guard.ServerOptions()...)
	type open struct {
		tenant string
		s      grpc_testing.TestService_FullDuplexCallClient
	}
	all := make([]open, streams)
	own := m.svid("gateway")
	var wg sync.WaitGroup
	for i := range conns {
		name := []string{"acme", "globex"}[i%2]
		cc := m.attack(own, unwatched(own, name)) // so that it is the server that ends them
		wg.Go(func() {
			for j := i; j < streams; j += conns {
				s, err := grpc_testing.NewTestServiceClient(cc).FullDuplexCall(t.Context())
				if err == nil {
					err = s.Send(&grpc_testing.StreamingOutputCallRequest{})
				}
				if err == nil {
					_, err = s.Recv()
				}
				if err != nil {
					t.Error(err)
					return
				}
				all[j] = open{name, s}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	m.audit.take()
	start := time.Now()
	m.policy.p.Store(parsePolicy(t, strings.ReplaceAll(document, `tenants: ["*"]`, "tenants: [acme]")))
	for _, o := range all {
		if o.tenant == "acme" {
			continue
		}
		if _, err := o.s.Recv(); interceptors.ReasonOf(err) != tenant.TenantNotBound {
			t.Fatalf("S3 a stream that must end: %v", err)
		}
	}
	t.Logf("S3 %d streams ended within %s", streams/2, time.Since(start))
	for _, o := range all {
		if o.tenant != "acme" {
			continue
		}
		if err := o.s.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := o.s.Recv(); err != nil {
			t.Fatalf("S3 a stream that must live: %v", err)
		}
		if err := o.s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := o.s.Recv(); !errors.Is(err, io.EOF) {
			t.Fatalf("S3 a stream that must live ended with %v", err)
		}
	}
	refused := 0
	for refused < streams/2 {
		for _, e := range m.audit.await(t) {
			if e.Reason != tenant.TenantNotBound || e.Tenant != "globex" {
				t.Fatalf("S3 audit: %+v", e)
			}
			refused++
		}
	}
	if refused != streams/2 {
		t.Errorf("S3 audit: %d refusals", refused)
	}
}

// TestHiddenStream: where gRPC's own stream cannot be had, streams do not open.
func TestHiddenStream(t *testing.T) {
	m := newMesh(t)
	_, m.addr = m.serve(append([]grpc.ServerOption{grpc.ChainStreamInterceptor(
		func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return next(srv, hiding{ss})
		})}, m.guard.ServerOptions()...)...)
	g, cc := m.client("gateway")
	for _, s := range shapes[1:] {
		if err := s.call(acme(t, g), cc); status.Code(err) != codes.Internal {
			t.Errorf("%s: %v", s.name, err)
		}
		if runs := m.ran.take(); len(runs) > 0 {
			t.Errorf("%s: the handler ran", s.name)
		}
	}
}

type hiding struct{ grpc.ServerStream }

func (h hiding) Context() context.Context {
	return grpc.NewContextWithServerTransportStream(h.ServerStream.Context(), struct{ grpc.ServerTransportStream }{})
}
