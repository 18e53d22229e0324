package svid_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// TestDay is I5 over a day of fake time, with SVIDs of one hour that rotate by
// themselves and connections of a quarter of that.
func TestDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDomain(t, devdomain.Config{TTL: time.Hour})
		gateway, inventory := newWorkload(t, d, gatewayID), newWorkload(t, d, inventoryID)
		server := svid.NewServerCredentials(inventory)
		l := bufconn.Listen(1 << 16)
		srv := grpc.NewServer(append(checkCalls(server),
			grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 15 * time.Minute, MaxConnectionAgeGrace: time.Minute}))...)
		healthpb.RegisterHealthServer(srv, health.NewServer())
		served := make(chan struct{})
		go func() { defer close(served); srv.Serve(l) }()
		conn, err := grpc.NewClient("passthrough:inventory",
			grpc.WithTransportCredentials(svid.NewClientCredentials(gateway, svid.Expect(inventoryID))),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		first, err := gateway.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); time.Since(start) < 24*time.Hour; time.Sleep(time.Minute) { //nolint:forbidigo // The bubble's time, not ours.
			if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
				t.Fatalf("I5 after %s a call was lost: %v", time.Since(start), err)
			}
		}
		if last, _ := gateway.Snapshot(); last.Generation-first.Generation < 40 {
			t.Errorf("only %d rotations", last.Generation-first.Generation)
		}
		conn.Close()
		srv.Stop()
		<-served
	})
}
