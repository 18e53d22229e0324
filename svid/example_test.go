package svid_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// A server and a client that know each other by their SPIFFE IDs. Outside of
// tests, svid.NewSource takes the place of the two workloads.
func Example() {
	d, err := devdomain.New(devdomain.Config{TrustDomain: "prod.example"})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	gateway, err := d.Workload("spiffe://prod.example/gateway")
	if err != nil {
		log.Fatal(err)
	}
	inventory, err := d.Workload("spiffe://prod.example/inventory")
	if err != nil {
		log.Fatal(err)
	}

	creds := svid.NewServerCredentials(inventory)
	srv := grpc.NewServer(grpc.Creds(creds), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			p, _ := peer.FromContext(ctx)
			if conn, ok := creds.Conn(p.AuthInfo); ok && conn.Check() == nil {
				fmt.Println("called by", conn.PeerID())
			}
			return next(ctx, req)
		}))
	healthpb.RegisterHealthServer(srv, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Stop()

	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(
		svid.NewClientCredentials(gateway, svid.Expect("spiffe://prod.example/inventory"))))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("answered:", resp.GetStatus())
	// Output:
	// called by spiffe://prod.example/gateway
	// answered: SERVING
}
