package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

const (
	trustDomain = "bench.example"
	scope       = "echo.call"
	tenants     = 1000
	// life is how long connections and leaves live: longer than any measurement.
	life = 12 * time.Hour
)

// workloads are those of the mesh, in the order of a call's path.
var workloads = []string{"gateway", "relay1", "relay2", "middle", "target"}

func spiffeID(workload string) string { return "spiffe://" + trustDomain + "/" + workload }

func tenantName(i int) string { return fmt.Sprintf("tenant-%03d", i%tenants) }

// meshPolicy is the policy in force in all processes.
func meshPolicy() (*policy.Policy, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\ntrust_domains: [{name: %s}]\nworkloads:\n", trustDomain)
	for _, w := range workloads {
		fmt.Fprintf(&b, "  - {name: %s, match: %q, tenants: ['*'], calls: [/%s/*]", w, spiffeID(w), serviceName)
		if w == "gateway" {
			fmt.Fprintf(&b, ", originate: {scopes: [%s]}", scope)
		}
		b.WriteString("}\n")
	}
	fmt.Fprintf(&b, "methods:\n  - {match: /%s/*, callers: [%s], scopes: [%s]}\ntenants:\n",
		serviceName, strings.Join(workloads[:len(workloads)-1], ", "), scope)
	for i := range tenants {
		fmt.Fprintf(&b, "  %s: {uid: '%d'}\n", tenantName(i), i)
	}
	return policy.Parse("bench.yaml", []byte(b.String()))
}

// Setup is what a process is told to be.
type Setup struct {
	Sockets map[string]string // workload → its Workload API
	Server  string            // what the server checks: see [Server.options]
	Load    string            // what the client sends: see [Client.load]
	// Baseline is what is sent to the floor.
	Baseline    string
	Concurrency int
	// Unbatched makes guards sign each statement by itself.
	Unbatched bool
	// TokenKey signs the peers' tokens: a P-256 key in PKCS #8.
	TokenKey []byte
	// The server's addresses, for the client.
	FloorAddr, VariantAddr string
}

// source returns a workload's identity, from its Workload API.
func (s *Setup) source(ctx context.Context, workload string) (*svid.Source, error) {
	return svid.NewSource(ctx, svid.WithSocket(s.Sockets[workload]), svid.WithLogger(slog.New(slog.DiscardHandler)))
}

// guard returns the guard of a workload. A nil clock is the time.
func (s *Setup) guard(ctx context.Context, workload string, sink audit.Sink, clock func() time.Time) (*interceptors.Guard, error) {
	src, err := s.source(ctx, workload)
	if err != nil {
		return nil, err
	}
	pol, err := meshPolicy()
	if err != nil {
		return nil, err
	}
	batch := 0
	if s.Unbatched {
		batch = 1
	}
	return interceptors.New(interceptors.Config{Source: src, Policy: pol, Audit: sink, Clock: clock, MaxConnectionAge: life, MaxBatch: batch})
}

// clock goes only while the variant is measured, so that what a guard does every
// few seconds is done as often as by a client that never pauses.
type clock struct{ behind atomic.Int64 }

// mostBehind is well below the age at which a server takes a hop for stale.
const mostBehind = 30 * time.Second

func (c *clock) now() time.Time { return time.Now().Add(-time.Duration(c.behind.Load())) }

// skip takes out a pause, as far as that is allowed.
func (c *clock) skip(pause time.Duration) {
	c.behind.Store(min(c.behind.Load()+int64(pause), int64(mostBehind)))
}

// counter is an audit sink that counts.
type counter struct{ events atomic.Int64 }

func (c *counter) Record(context.Context, audit.Event) error {
	c.events.Add(1)
	return nil
}

// jsonSink writes each event as a line of JSON, with a write of its own, to
// where it takes no room.
func jsonSink() (audit.Sink, error) {
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return audit.NewSlog(slog.NewJSONHandler(f, nil)), nil
}

// originate returns a context with new claims of the i-th tenant.
func originate(ctx context.Context, g *interceptors.Guard, i int) (context.Context, error) {
	id, err := tenant.ParseID(tenantName(i))
	if err != nil {
		return nil, err
	}
	return g.Originate(ctx, &hop.Claims{Tenant: id, Subject: "alice", Scopes: []string{scope}})
}
