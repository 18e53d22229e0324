// Quickstart shows a tenant's calls pass from an HTTP gateway through two gRPC
// services, and attacks on them refused, each for its reason.
//
//	quickstart
//
// runs the demo: it starts itself once for each role, as processes of their
// own, drives them as a client would and prints a line for each step. The same
// roles can be started by hand, against a SPIRE agent as well; see README.md.
//
//	quickstart orders --listen 127.0.0.1:0 --policy tenantmesh.yaml …
//
// What to copy is in inventory.go (a server), orders.go (a server that calls
// others), gateway.go (where tenants enter) and tenantmesh.yaml (the policy).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// trustDomain is what all of the demo belongs to.
const trustDomain = "prod.example"

// The workloads' SPIFFE IDs.
const (
	gatewayID   = "spiffe://" + trustDomain + "/gateway"
	ordersID    = "spiffe://" + trustDomain + "/orders"
	inventoryID = "spiffe://" + trustDomain + "/inventory"
	notifierID  = "spiffe://" + trustDomain + "/notifier"
)

// roles are the processes that the demo consists of. The driver starts them.
var roles = map[string]func(context.Context, []string) error{
	"issuer":       runIssuer,
	"trust-domain": runTrustDomain,
	"gateway":      runGateway,
	"orders":       runOrders,
	"inventory":    runInventory,
	"intruder":     runIntruder,
}

func main() {
	// Also when the terminal goes: there are processes and files to take along.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// When who reads our output goes, writing fails. Nobody is notified of this signal: a
	// connection that the other end has closed would raise it too.
	signal.Ignore(syscall.SIGPIPE)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return
	case errors.Is(err, errSteps): // the lines above say it
	default:
		fmt.Fprintln(os.Stderr, "quickstart:", err)
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return runDemo(ctx, args)
	}
	role, ok := roles[args[0]]
	if !ok {
		return fmt.Errorf("there is no role %q; it is one of issuer, trust-domain, gateway, orders, inventory, intruder, or none for the demo", args[0])
	}
	// Decisions go to stdout, the log to stderr, both as lines of JSON.
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	return role(ctx, args[1:])
}
