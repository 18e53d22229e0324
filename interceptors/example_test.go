package interceptors_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// A server and a client, each with an SVID of its own. Programs get theirs from
// svid.NewSource; here an embedded trust domain issues them.
func Example() {
	domain, err := devdomain.New(devdomain.Config{TrustDomain: "prod.example"})
	check(err)
	defer func() { _ = domain.Close() }()
	pol, err := policy.Parse("tenantmesh.yaml", []byte(`
version: 1
trust_domains: [{name: prod.example}]
workloads:
  - {name: gateway, match: spiffe://prod.example/gateway, tenants: ["*"], originate: {scopes: [health.read]}, calls: [/grpc.health.v1.Health/Check]}
  - {name: orders, match: spiffe://prod.example/orders, tenants: ["*"]}
methods:
  - {match: /grpc.health.v1.Health/Check, callers: [gateway], scopes: [health.read]}
tenants:
  acme: {uid: "1"}
`))
	check(err)
	guard := func(id string) *interceptors.Guard {
		workload, err := domain.Workload(id)
		check(err)
		g, err := interceptors.New(interceptors.Config{Source: workload, Policy: pol, Audit: audit.NewSlog(slog.DiscardHandler)})
		check(err)
		return g
	}

	orders := guard("spiffe://prod.example/orders")
	srv := grpc.NewServer(orders.ServerOptions()...)
	healthpb.RegisterHealthServer(srv, health{})
	fmt.Println(interceptors.ReasonOf(orders.Check(srv))) // Health has more methods than the policy covers
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go func() { _ = srv.Serve(lis) }()
	defer srv.Stop()

	gateway := guard("spiffe://prod.example/gateway")
	conn, err := grpc.NewClient(lis.Addr().String(), gateway.DialOptions(svid.Expect("spiffe://prod.example/orders"))...)
	check(err)
	defer func() { _ = conn.Close() }()
	acme, err := tenant.ParseID("acme")
	check(err)
	ctx, err := gateway.Originate(context.Background(), &hop.Claims{Tenant: acme, Subject: "alice", Scopes: []string{"health.read"}})
	check(err)
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	check(err)
	_, err = healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(interceptors.ReasonOf(err))
	// Output:
	// METHOD_NOT_COVERED
	// acme for alice, by [gateway]
	// CONTEXT_MISSING
}

type health struct {
	healthpb.UnimplementedHealthServer
}

func (health) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	tc, err := tenant.Require(ctx)
	if err != nil {
		return nil, err
	}
	var path []string
	for _, step := range tc.Path() {
		path = append(path, step.Name)
	}
	fmt.Println(tc.Tenant(), "for", tc.Subject()+", by", path)
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
