package interceptors_test

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// counting is a sink that costs nothing.
type counting struct{}

func (counting) Record(context.Context, audit.Event) error { return nil }

// BenchmarkCall compares a unary call between two guards with the same call
// between the same credentials alone, client and server in one process. e2e/bench
// measures it properly.
func BenchmarkCall(b *testing.B) {
	d, err := devdomain.New(devdomain.Config{TrustDomain: "prod.example"})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	src := map[string]*devdomain.Workload{}
	for _, name := range []string{"gateway", "target"} {
		if src[name], err = d.Workload(id(name)); err != nil {
			b.Fatal(err)
		}
	}
	guard := func(name string) *interceptors.Guard {
		g, err := interceptors.New(interceptors.Config{
			Source: src[name], Policy: parsePolicy(b, document), Audit: counting{}, Logger: slog.New(slog.DiscardHandler), MaxConnectionAge: time.Hour,
		})
		if err != nil {
			b.Fatal(err)
		}
		return g
	}
	client := guard("gateway")
	expect := svid.Expect(id("target"))
	for _, v := range []struct {
		name   string
		server []grpc.ServerOption
		client []grpc.DialOption
	}{
		{"floor", []grpc.ServerOption{grpc.Creds(svid.NewServerCredentials(src["target"]))},
			[]grpc.DialOption{grpc.WithTransportCredentials(svid.NewClientCredentials(src["gateway"], expect))}},
		{"warm", guard("target").ServerOptions(), client.DialOptions(expect)},
		{"fresh", guard("target").ServerOptions(), client.DialOptions(expect)},
	} {
		b.Run(v.name, func(b *testing.B) {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			srv := grpc.NewServer(v.server...)
			grpc_testing.RegisterTestServiceServer(srv, &silent{})
			go func() { _ = srv.Serve(lis) }()
			defer srv.Stop()
			cc, err := grpc.NewClient("passthrough:"+lis.Addr().String(), v.client...)
			if err != nil {
				b.Fatal(err)
			}
			defer cc.Close()
			c := claims("acme")
			ctx, err := client.Originate(b.Context(), c)
			if err != nil {
				b.Fatal(err)
			}
			in := &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: make([]byte, 100)}}
			call := func() {
				if v.name == "fresh" {
					if ctx, err = client.Originate(b.Context(), c); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := grpc_testing.NewTestServiceClient(cc).UnaryCall(ctx, in); err != nil {
					b.Fatal(err)
				}
			}
			for range 10 {
				call()
			}
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
}

// silent is a service whose handlers do nothing.
type silent struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (silent) UnaryCall(_ context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return &grpc_testing.SimpleResponse{Payload: in.Payload}, nil
}
