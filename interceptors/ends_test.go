package interceptors

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// nowhere is a sink that costs nothing.
type nowhere struct{}

func (nowhere) Record(context.Context, audit.Event) error { return nil }

// ends are the two ends of a connection, without gRPC between them.
type ends struct {
	client *client
	server *server
	// What gRPC tells either of the connection.
	toClient credentials.RequestInfo
	toServer *peer.Peer
}

const endsMethod = "/grpc.testing.TestService/UnaryCall"

func newEnds(b *testing.B, tenants int) *ends {
	b.Helper()
	d, err := devdomain.New(devdomain.Config{TrustDomain: "prod.example", Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	var listed strings.Builder
	for i := range tenants {
		fmt.Fprintf(&listed, "  tenant-%03d: {uid: '%d'}\n", i, i)
	}
	pol, err := policy.Parse("p.yaml", []byte(`version: 1
trust_domains: [{name: prod.example}]
workloads:
  - {name: gateway, match: spiffe://prod.example/gateway, tenants: ["*"], calls: [/grpc.testing.TestService/*], originate: {scopes: [orders.read]}}
  - {name: target, match: spiffe://prod.example/target, tenants: ["*"]}
methods:
  - {match: /grpc.testing.TestService/*, callers: [gateway], scopes: [orders.read]}
tenants:
`+listed.String()))
	if err != nil {
		b.Fatal(err)
	}
	guard := func(name string) *Guard {
		w, err := d.Workload("spiffe://prod.example/" + name)
		if err != nil {
			b.Fatal(err)
		}
		src, err := svid.NewSource(b.Context(), svid.WithSocket(w.Addr()), svid.WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = src.Close() })
		g, err := New(Config{Source: src, Policy: pol, Audit: nowhere{}, MaxConnectionAge: time.Hour})
		if err != nil {
			b.Fatal(err)
		}
		return g
	}
	e := &ends{client: &client{g: guard("gateway")}, server: &server{g: guard("target")}}
	e.client.creds = svid.NewClientCredentials(e.client.g.cfg.Source, svid.Expect("spiffe://prod.example/target"))
	e.server.creds = svid.NewServerCredentials(e.server.g.cfg.Source)

	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer lis.Close()
	raw, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	accepted, err := lis.Accept()
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		conn, info, err := e.server.creds.ServerHandshake(accepted)
		if err == nil {
			b.Cleanup(func() { _ = conn.Close() })
			e.toServer = &peer.Peer{AuthInfo: info}
		}
		done <- err
	}()
	conn, info, err := e.client.creds.ClientHandshake(b.Context(), "", raw)
	if err == nil {
		err = <-done
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	e.toClient = credentials.RequestInfo{Method: endsMethod, AuthInfo: info}
	return e
}

var message = &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: make([]byte, 100)}}

// send has the client's end make what it sends.
func (e *ends) send(ctx context.Context) (md map[string]string, err error) {
	reply := new(grpc_testing.SimpleResponse)
	err = e.client.unary(ctx, endsMethod, message, reply, nil, func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) (err error) {
		md, err = e.client.GetRequestMetadata(credentials.NewContextWithRequestInfo(ctx, e.toClient))
		return err
	})
	return md, err
}

// receive has the server's end take it.
func (e *ends) receive(md map[string]string) error {
	header := metadata.MD{":authority": {"x"}, "content-type": {"application/grpc"}, "user-agent": {"grpc-go/1.85.0"}}
	for k, v := range md {
		header[k] = []string{v}
	}
	ctx, err := e.server.tap(peer.NewContext(context.Background(), e.toServer), &tap.Info{FullMethodName: endsMethod, Header: header})
	if err != nil {
		return err
	}
	_, err = e.server.unary(ctx, message, nil, func(ctx context.Context, req any) (any, error) {
		_, err := tenant.Require(ctx)
		return &grpc_testing.SimpleResponse{}, err
	})
	return err
}

// BenchmarkEnds measures what either end of a call does, without gRPC between them: for a context that was
// sent before and for a new one, whose signature and its verification each stand for themselves here.
func BenchmarkEnds(b *testing.B) {
	e := newEnds(b, 1000)
	originate := func(i int) context.Context {
		id, err := tenant.ParseID(fmt.Sprintf("tenant-%03d", i%1000))
		if err != nil {
			b.Fatal(err)
		}
		ctx, err := e.client.g.Originate(context.Background(), &hop.Claims{Tenant: id, Subject: "alice", Scopes: []string{"orders.read"}})
		if err != nil {
			b.Fatal(err)
		}
		return ctx
	}
	send := func(ctx context.Context) map[string]string {
		md, err := e.send(ctx)
		if err != nil {
			b.Fatal(err)
		}
		return md
	}
	receive := func(md map[string]string) {
		if err := e.receive(md); err != nil {
			b.Fatal(err)
		}
	}
	ctx := originate(0)
	md := send(ctx)
	for range 2 { // a server keeps what comes again
		receive(md)
	}
	b.Run("originate", func(b *testing.B) { timed(b, func(i int) int { return i }, func(i int) { originate(i) }) })
	b.Run("client/warm", func(b *testing.B) {
		timed(b, func(int) context.Context { return ctx }, func(c context.Context) { send(c) })
	})
	b.Run("client/fresh", func(b *testing.B) { timed(b, originate, func(c context.Context) { send(c) }) })
	b.Run("server/warm", func(b *testing.B) { timed(b, func(int) map[string]string { return md }, receive) })
	b.Run("server/fresh", func(b *testing.B) {
		timed(b, func(i int) map[string]string { return send(originate(i)) }, receive)
	})
}

// timed measures what do takes with a value of its own each time.
func timed[T any](b *testing.B, prepare func(i int) T, do func(T)) {
	b.ReportAllocs()
	ready := make([]T, 0, 1024)
	for i := range b.N {
		if len(ready) == 0 {
			b.StopTimer()
			for len(ready) < cap(ready) {
				ready = append(ready, prepare(i+len(ready)))
			}
			b.StartTimer()
		}
		last := len(ready) - 1
		do(ready[last])
		ready = ready[:last]
	}
}
