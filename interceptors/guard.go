// Package interceptors holds the [Guard], which puts the checks of SPEC.md into
// a gRPC server and signs what a gRPC client sends.
//
//	guard, err := interceptors.New(interceptors.Config{Source: src, Policy: pol, Audit: sink})
//	srv := grpc.NewServer(guard.ServerOptions()...)
//	conn, err := grpc.NewClient(target, guard.DialOptions(svid.Expect("spiffe://prod.example/inventory"))...)
//
// No single interceptor is exported, so that a server cannot be half wired.
// Options compose with others by their order: recovery and logging of
// go-grpc-middleware belong before the guard's, validation of requests after.
package interceptors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Config is what a [Guard] needs. Source, Policy and Audit are required.
type Config struct {
	// Source is the workload's own identity, usually a [*svid.Source].
	Source svid.Snapshotter
	// Policy says who may act for whom. While it has no policy in force,
	// everything is denied with [tenant.PolicyUnavailable].
	Policy policy.Source
	// Audit takes one event for each decision.
	Audit audit.Sink
	// Clock tells the time of all checks; nil stands for [time.Now].
	Clock func() time.Time
	// Logger takes faults of the kit itself; nil stands for [slog.Default].
	Logger *slog.Logger
	// Authorizer decides about calls that the policy allows, if it is not nil.
	Authorizer policy.Authorizer
	// Observe names methods whose decisions are not enforced yet.
	Observe *Observe
	// MaxConnectionAge is how long a server lets a connection live before it
	// asks the client for a new one, so that both sides present their newest
	// SVIDs. Calls that run then have half of it again, at least a second;
	// streams that run longer are cut and must be opened anew. 0 stands for a
	// sixth of the SVID's lifetime, at most 30 minutes.
	MaxConnectionAge time.Duration
	// MaxBatch is how many statements of concurrent calls one signature is made
	// for, at most [hop.MaxTree]. 0 stands for 32; 1 signs for each call alone.
	MaxBatch int
}

// Guard holds the tenant to the calls of one workload, as server and as
// client. It is safe for concurrent use.
type Guard struct {
	cfg       Config
	audit     audit.Recorder
	contracts sync.Map // method → *contract
	watch     watch
	// What is kept for all connections: proofs, and how many have slots.
	proofs, slots atomic.Int64
	verified      hop.Cache
	signing       signing
	closed        atomic.Bool
}

// New returns a Guard, or an error that names what the configuration lacks.
func New(cfg Config) (*Guard, error) {
	switch {
	case cfg.Source == nil:
		return nil, errors.New("interceptors: Config.Source is missing: who is this workload? See svid.NewSource")
	case cfg.Policy == nil:
		return nil, errors.New("interceptors: Config.Policy is missing: who may act for whom? See policy.LoadFile")
	case cfg.Audit == nil:
		return nil, errors.New("interceptors: Config.Audit is missing: where do decisions go? See audit.NewSlog")
	case cfg.MaxConnectionAge < 0:
		return nil, errors.New("interceptors: Config.MaxConnectionAge is negative")
	case cfg.MaxBatch < 0 || cfg.MaxBatch > hop.MaxTree:
		return nil, fmt.Errorf("interceptors: Config.MaxBatch is not within 0 and %d", hop.MaxTree)
	}
	if err := cfg.Observe.check(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	// Without a Clock of ours it reads the time once for an event, not twice.
	recorder := audit.Recorder{Sink: cfg.Audit, Clock: cfg.Clock, Logger: cfg.Logger}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if o := cfg.Observe; o != nil {
		cfg.Logger.Warn("tenantmesh: decisions about these methods are recorded and NOT enforced", "methods", o.Methods, "until", o.Until)
	}
	g := &Guard{cfg: cfg, audit: recorder}
	g.watch.g = g
	g.signing.maxBatch = cfg.MaxBatch
	return g, nil
}

// Close makes the guard deny everything from now on. It closes none of what
// the configuration handed in.
func (g *Guard) Close() error {
	g.closed.Store(true)
	return nil
}

// policy returns the policy in force.
func (g *Guard) policy() (*policy.Policy, error) {
	if g.closed.Load() {
		return nil, tenant.Deny(tenant.PolicyUnavailable, "the guard is closed")
	}
	if p := g.cfg.Policy.Current(); p != nil {
		return p, nil
	}
	return nil, tenant.Deny(tenant.PolicyUnavailable, "no policy is in force")
}

// maxHeaderList bounds all headers of a call, in bytes as HTTP/2 counts them
// (RFC 9113, section 6.5.2): the kit's 7 KiB and as much for the application.
const maxHeaderList = 16 << 10

// ServerOptions returns what makes a gRPC server check every call: transport
// credentials, the check at header time, unary and stream interceptors,
// header limits, the answer to unknown methods, and the age of connections.
func (g *Guard) ServerOptions() []grpc.ServerOption {
	s := &server{g: g, creds: svid.NewServerCredentials(g.cfg.Source,
		svid.WithClock(g.cfg.Clock), svid.WithRefused(g.refusedHandshake))}
	age := g.connectionAge()
	return []grpc.ServerOption{
		grpc.Creds(s.creds),
		grpc.InTapHandle(s.tap),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
		grpc.MaxHeaderListSize(maxHeaderList),
		grpc.UnknownServiceHandler(s.unknown),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: age, MaxConnectionAgeGrace: max(age/2, leastAge)}),
	}
}

// The bounds of a connection's age.
const leastAge, mostAge = time.Second, 30 * time.Minute

// connectionAge ends a connection, after a grace of half its age for the calls
// that still run, before the SVIDs presented on it expire: at the handshake
// they have at least some 40 % of their lifetime left, since SPIRE renews them
// with 45 to 55 % left and takes some seconds to.
func (g *Guard) connectionAge() time.Duration {
	if g.cfg.MaxConnectionAge > 0 {
		return g.cfg.MaxConnectionAge
	}
	snap, err := svid.Current(g.cfg.Source)
	if err != nil {
		return mostAge
	}
	leaf := snap.SVID.Certificates[0]
	return min(max(leaf.NotAfter.Sub(leaf.NotBefore)/6, leastAge), mostAge)
}

// DialOptions returns what makes a gRPC client sign every call, for a server
// that expect allows. The client checks the server's SVID at each call too.
func (g *Guard) DialOptions(expect svid.Expectation) []grpc.DialOption {
	c := &client{g: g, creds: svid.NewClientCredentials(g.cfg.Source, expect,
		svid.WithClock(g.cfg.Clock), svid.WithRefused(g.refusedHandshake))}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(c.creds),
		grpc.WithPerRPCCredentials(c),
		grpc.WithChainUnaryInterceptor(c.unary),
		grpc.WithChainStreamInterceptor(c.stream),
		grpc.WithMaxHeaderListSize(maxHeaderList),
	}
}

// Check fails with a list unless the policy in force covers every method that
// srv has registered, be it with rules or an exemption, and the options in the
// methods' .proto files agree with it and with themselves. It is to be called
// after the last registration and before srv serves.
func (g *Guard) Check(srv interface {
	GetServiceInfo() map[string]grpc.ServiceInfo
}) error {
	p, err := g.policy()
	if err != nil {
		return err
	}
	var faults []string
	for service, info := range srv.GetServiceInfo() {
		for _, m := range info.Methods {
			full := "/" + service + "/" + m.Name
			c := g.contract(full)
			d := p.Covers(full, c.declared)
			switch {
			case c.err != nil:
				faults = append(faults, full+": "+c.err.Error())
			case d.Err() != nil:
				faults = append(faults, full+": "+asError(d.Err()).Detail)
			}
		}
	}
	if len(faults) == 0 {
		return nil
	}
	slices.Sort(faults)
	return tenant.Deny(tenant.MethodNotCovered, "these methods cannot be served:\n\t%s", strings.Join(faults, "\n\t"))
}

// refusedHandshake records a connection that was refused before any call.
func (g *Guard) refusedHandshake(remote net.Addr, err error) {
	c := &call{g: g, point: audit.Handshake}
	if remote != nil {
		c.method = "handshake with " + remote.String()
	}
	_ = c.refuse(context.Background(), err)
}
