package hop_test

import (
	"crypto/sha256"
	"fmt"
	"log"
	"time"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// The gateway begins a chain and hands it to orders, with all but one scope
// withheld from what orders may do with it.
func Example() {
	domain, err := devdomain.New(devdomain.Config{TrustDomain: "prod.example"})
	if err != nil {
		log.Fatal(err)
	}
	defer domain.Close()
	gateway, err := domain.Issue("spiffe://prod.example/gateway")
	if err != nil {
		log.Fatal(err)
	}
	orders, err := domain.Issue("spiffe://prod.example/orders")
	if err != nil {
		log.Fatal(err)
	}
	acme, err := tenant.ParseID("acme")
	if err != nil {
		log.Fatal(err)
	}
	now := time.Now()
	exporter := sha256.Sum256([]byte("the TLS exporter of the connection"))

	// At the gateway.
	chain, err := hop.Begin(&hop.Claims{
		Transaction: "01JQ0000000000000000000000",
		Tenant:      acme,
		TenantUID:   "01J90000000000000000000000",
		Subject:     "alice",
		Scopes:      []string{"orders.read", "orders.write"},
		IssuedAt:    now,
		Expires:     now.Add(5 * time.Minute),
	})
	if err != nil {
		log.Fatal(err)
	}
	metadata, err := chain.Sign(gateway, hop.Handover{
		Kind:      hop.Call,
		Audience:  orders.ID.String(),
		Target:    "/orders.v1.Orders/Place",
		Binding:   exporter,
		Narrowing: &hop.Narrowing{Scopes: []string{"orders.read"}},
		Now:       now,
	})
	if err != nil {
		log.Fatal(err)
	}

	// At orders.
	received, err := hop.Verify(metadata, hop.Expected{
		Kind:    hop.Call,
		Peer:    gateway.Certificates,
		Self:    orders.ID,
		Target:  "/orders.v1.Orders/Place",
		Binding: exporter,
		Bundles: domain.Bundle(),
		Now:     now,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(received.Claims().Tenant, received.Claims().Subject, received.Scopes())
	for _, step := range received.Path() {
		fmt.Println(step.Signer, "called", step.Target)
	}

	// Nobody else can use it, not even on the same connection.
	_, err = hop.Verify(metadata, hop.Expected{
		Kind:    hop.Call,
		Peer:    orders.Certificates,
		Self:    orders.ID,
		Target:  "/orders.v1.Orders/Place",
		Binding: exporter,
		Bundles: domain.Bundle(),
		Now:     now,
	})
	fmt.Println(tenant.ReasonOf(err))

	// Output:
	// acme alice [orders.read]
	// spiffe://prod.example/gateway called /orders.v1.Orders/Place
	// SIGNER_NOT_PEER
}
