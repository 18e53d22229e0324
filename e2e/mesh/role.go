package mesh

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/rpc"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/e2e/internal/pipes"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
)

// processVar is the environment variable that makes a program a process of the
// mesh. It holds an [Env] as JSON.
const processVar = "TENANTMESH_MESH_PROCESS"

// Node is the role of a workload that serves and calls as its description says,
// and generates load.
const Node = "node"

// Role is what a process of the mesh does. It returns the receiver of what
// [Process.Ask] asks for, as net/rpc has it, once the process is ready. It is
// over when ctx ends.
type Role func(ctx context.Context, env *Env) (receiver any, err error)

// Main is to be called first in main or TestMain of a program that starts a
// mesh: in a process of the mesh it does what the workload's role is, and does
// not return. Roles beside [Node] are given by name.
func Main(roles ...map[string]Role) {
	text := os.Getenv(processVar)
	if text == "" {
		return
	}
	all := map[string]Role{Node: runNode}
	for _, more := range roles {
		for name, r := range more {
			all[name] = r
		}
	}
	if err := runProcess(text, all); err != nil {
		fmt.Fprintln(os.Stderr, "mesh:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runProcess serves the driver on stdin and stdout until stdin closes, so that no
// process outlives it.
func runProcess(text string, roles map[string]Role) error {
	env := &Env{}
	if err := json.Unmarshal([]byte(text), env); err != nil {
		return err
	}
	env.offset.Store(int64(env.ClockOffset))
	env.trail = newTrail(env.Workload.Name)
	role := roles[env.Workload.Role]
	if role == nil {
		return fmt.Errorf("no role %q", env.Workload.Role)
	}
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	in, out := os.Stdin, os.Stdout
	os.Stdout = os.Stderr // nothing that is printed gets between the answers

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := &control{env: env, ready: make(chan struct{})}
	srv := rpc.NewServer()
	if err := srv.RegisterName("Process", c); err != nil {
		return err
	}
	started := make(chan struct{})
	go func() {
		defer close(started)
		receiver, err := role(ctx, env)
		if err == nil && receiver != nil {
			err = srv.RegisterName("Role", receiver)
		}
		c.err = err
		close(c.ready)
	}()
	srv.ServeConn(pipes.Conn{ReadCloser: in, Out: out})
	cancel()
	<-started
	return env.close()
}

// Env is what a process of the mesh knows of it.
type Env struct {
	Workload Workload
	// ID is the SPIFFE ID that its SVID should have.
	ID string
	// Listen is the address to listen on.
	Listen string
	// PolicyFile is the path of its policy.
	PolicyFile string
	// Socket is the address of its Workload API.
	Socket string
	// Peers are all workloads of the mesh by name, itself too.
	Peers map[string]Peer
	// Seed makes the records of this mesh differ from those of others.
	Seed string
	// ClockOffset is what its clock is off by, to begin with.
	ClockOffset time.Duration
	// MaxConnectionAge bounds the age of connections to it.
	MaxConnectionAge time.Duration

	offset  atomic.Int64
	trail   *trail
	policy  *policy.Watcher
	source  *svid.Source
	guard   *interceptors.Guard
	node    *node
	closing []func() error
}

// Peer is how a workload is reached.
type Peer struct {
	ID, Addr, Service string
	Calls             []Call
	Anew              bool
}

// Now is the process's clock. It may be off on purpose.
func (e *Env) Now() time.Time { return time.Now().Add(time.Duration(e.offset.Load())) }

// Audit takes the process's decisions, for [Process.Trail].
func (e *Env) Audit() audit.Sink { return e.trail }

// Source returns the workload's identity, for which it waits if it must.
func (e *Env) Source(ctx context.Context) (*svid.Source, error) {
	if e.source != nil {
		return e.source, nil
	}
	var err error
	if e.source, err = svid.NewSource(ctx, svid.WithSocket(e.Socket), svid.WithTimeout(time.Minute)); err != nil {
		return nil, err
	}
	e.closing = append(e.closing, e.source.Close)
	return e.source, nil
}

// Guard returns the workload's guard, with its identity and its policy.
func (e *Env) Guard(ctx context.Context) (*interceptors.Guard, error) {
	if e.guard != nil {
		return e.guard, nil
	}
	source, err := e.Source(ctx)
	if err != nil {
		return nil, err
	}
	var opts []policy.WatchOption
	if e.Workload.MaxPolicyAge > 0 {
		opts = append(opts, policy.WithMaxStale(e.Workload.MaxPolicyAge))
	}
	if e.policy, err = policy.WatchFile(ctx, e.PolicyFile, opts...); err != nil {
		return nil, err
	}
	e.closing = append(e.closing, e.policy.Close)
	e.guard, err = interceptors.New(interceptors.Config{
		Source: source, Policy: e.policy, Audit: e.trail, Clock: e.Now,
		MaxConnectionAge: cmp.Or(e.Workload.MaxConnectionAge, e.MaxConnectionAge),
	})
	if err == nil {
		e.closing = append(e.closing, e.guard.Close)
	}
	return e.guard, err
}

func (e *Env) close() error {
	var errs []error
	for i := len(e.closing) - 1; i >= 0; i-- {
		errs = append(errs, e.closing[i]())
	}
	return errors.Join(errs...)
}

// control answers what the driver asks of every process.
type control struct {
	env   *Env
	ready chan struct{} // closed once err is valid
	err   error
}

// None is what net/rpc is given where nothing is to be said.
type None struct{}

// Ready returns once the role is ready.
func (c *control) Ready(None, *None) error {
	<-c.ready
	return c.err
}

// Trail returns the events from a place on.
func (c *control) Trail(after int, reply *Trail) error {
	*reply = c.env.trail.from(after)
	return nil
}

// Edges returns what was decided as a server.
func (c *control) Edges(_ None, reply *[]Edge) error {
	*reply = c.env.trail.edges()
	return nil
}

// Handled returns how often a handler ran.
func (c *control) Handled(_ None, reply *Handled) error {
	if c.env.node != nil {
		*reply = c.env.node.handled.get()
	}
	return nil
}

// Trace says whether the trail keeps what is allowed, too.
func (c *control) Trace(on bool, _ *None) error {
	c.env.trail.mu.Lock()
	defer c.env.trail.mu.Unlock()
	c.env.trail.all = on
	return nil
}

// SetClock sets what the clock is off by.
func (c *control) SetClock(offset time.Duration, _ *None) error {
	c.env.offset.Store(int64(offset))
	return nil
}

// Reload reads the policy and returns the version in force.
func (c *control) Reload(_ None, version *string) error {
	<-c.ready
	if c.env.policy == nil {
		return errors.New("no policy is watched")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := c.env.policy.Reload(ctx)
	*version = c.env.policy.Current().Version()
	return err
}

// Status returns how the process is doing.
func (c *control) Status(_ None, reply *Status) error {
	<-c.ready
	reply.Goroutines = runtime.NumGoroutine()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	reply.Heap = m.HeapAlloc
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return err
	}
	reply.CPU = time.Duration(use.Utime.Nano() + use.Stime.Nano())
	if e := c.env; e.policy != nil {
		s := e.policy.Status()
		reply.PolicyVersion = e.policy.Current().Version()
		if s.Err != nil {
			reply.PolicyError = s.Err.Error()
		}
	}
	if e := c.env; e.source != nil {
		if snap, err := e.source.Snapshot(); err == nil {
			leaf := snap.SVID.Certificates[0]
			reply.ID, reply.Serial = snap.SVID.ID.String(), leaf.SerialNumber.Text(16)
			reply.NotBefore, reply.NotAfter = leaf.NotBefore, leaf.NotAfter
			reply.Issuer = string(leaf.AuthorityKeyId)
			for _, b := range snap.Bundles.Bundles() {
				reply.Roots += len(b.X509Authorities())
				reply.TrustDomains = append(reply.TrustDomains, b.TrustDomain().Name())
			}
		}
	}
	return nil
}

// Status is how a process is doing.
type Status struct {
	// ID and the others are of the SVID in use; zero while there is none.
	ID, Serial          string
	NotBefore, NotAfter time.Time
	// Issuer is the authority key identifier.
	Issuer string
	// TrustDomains are those of the bundles, Roots how many there are in all.
	TrustDomains []string
	Roots        int

	PolicyVersion, PolicyError string

	Goroutines int
	Heap       uint64
	// CPU is the time of the processor used so far.
	CPU time.Duration
}
