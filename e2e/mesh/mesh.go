package mesh

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Options say where a mesh runs.
type Options struct {
	// SPIRE is the directory with the programs spire-server and spire-agent; ""
	// for the embedded trust domain. Real SPIRE needs root.
	SPIRE string
	// Loopback puts all workloads on the loopback, also where namespaces can be had.
	Loopback bool
	// MaxConnectionAge bounds the age of connections; 0 stands for a sixth of the
	// shortest TTL.
	MaxConnectionAge time.Duration
	// Log takes progress, in lines; nil for none.
	Log func(format string, args ...any)
}

// Mesh is a running mesh. It is safe for concurrent use.
type Mesh struct {
	desc    Description
	opts    Options
	dir     string // gone at the end
	exe     string
	net     *network // nil: the loopback
	seed    string
	domains map[string]Domain
	all     []*Process
	proxies []*Proxy
	mu      sync.Mutex
	closed  bool

	counting sync.Mutex
	edges    map[Edge]*Edge // of processes that are gone; the key has no numbers
}

// firstUID is the first of the uids that workloads have.
const firstUID = 47001

// dirPrefix, a pid and random digits name the directory of a run.
const dirPrefix = "tenantmesh-mesh-"

// Start starts a mesh and waits until all its workloads are ready. If it fails,
// or ctx ends before that, nothing of it is left.
func Start(ctx context.Context, d Description, opts Options) (*Mesh, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	if opts.Log == nil {
		opts.Log = func(string, ...any) {}
	}
	if err := sweep(); err != nil {
		opts.Log("what an earlier run left could not be removed: %v", err)
	}
	dir, err := os.MkdirTemp("", dirPrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return nil, err
	}
	m := &Mesh{desc: d, opts: opts, dir: dir, seed: rand.Text(), domains: map[string]Domain{}, edges: map[Edge]*Edge{}}
	if err := m.start(ctx); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Mesh) start(ctx context.Context) error {
	root := os.Geteuid() == 0
	if err := m.lay(root); err != nil {
		return err
	}
	if !m.opts.Loopback {
		var err error
		if m.net, err = newNetwork(ctx); err != nil {
			m.opts.Log("no network namespaces, all is on the loopback: %v", err)
		}
	}
	if m.opts.MaxConnectionAge == 0 {
		shortest := slices.MinFunc(m.desc.TrustDomains, func(a, b TrustDomain) int { return cmp.Compare(a.ttl(), b.ttl()) })
		m.opts.MaxConnectionAge = max(shortest.ttl()/6, time.Second)
	}
	peers := map[string]Peer{}
	for _, w := range m.desc.Workloads {
		p, err := m.make(ctx, w)
		if err != nil {
			return err
		}
		p.env.Peers = peers
		peers[w.Name] = p.peer()
		m.all = append(m.all, p)
	}
	if err := m.startDomains(ctx); err != nil {
		return err
	}
	for _, as := range []bool{false, true} { // who shares an identity needs it to be there
		for _, p := range m.all {
			if (p.env.Workload.As != "") != as {
				continue
			}
			if err := m.register(ctx, p); err != nil {
				return err
			}
		}
	}
	for _, p := range m.all {
		if err := p.Launch(); err != nil {
			return err
		}
	}
	for _, p := range m.all {
		if err := p.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Add adds a workload to the running mesh, and waits until it is ready. Those
// that are there do not call it.
func (m *Mesh) Add(ctx context.Context, w Workload) (*Process, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errors.New("mesh: it is closed")
	}
	d := m.desc
	d.Workloads = append(slices.Clone(d.Workloads), w)
	if err := d.Check(); err != nil {
		return nil, err
	}
	m.desc = d
	p, err := m.make(ctx, w)
	if err != nil {
		return nil, err
	}
	p.env.Peers = map[string]Peer{w.Name: p.peer()}
	for _, other := range m.all {
		p.env.Peers[other.Name()] = other.peer()
	}
	m.all = append(m.all, p)
	if err := m.register(ctx, p); err != nil {
		return nil, err
	}
	return p, p.Start(ctx)
}

// make readies all that a process needs but its identity.
func (m *Mesh) make(ctx context.Context, w Workload) (*Process, error) {
	w.Role = cmp.Or(w.Role, Node)
	number := len(m.all)
	p := &Process{m: m, env: &Env{
		Workload: w, ID: m.desc.id(&w), Seed: m.seed, MaxConnectionAge: m.opts.MaxConnectionAge,
		PolicyFile: filepath.Join(m.dir, "policy", w.Name, "tenantmesh.yaml"),
	}}
	if os.Geteuid() == 0 {
		p.uid = cmp.Or(w.UID, firstUID+uint32(number)) //nolint:gosec // few
	}
	if err := m.place(ctx, p, number+1); err != nil {
		return nil, err
	}
	return p, m.writePolicy(p)
}

// register gives a process its identity, or that of the one that it is as.
func (m *Mesh) register(ctx context.Context, p *Process) error {
	d := m.domainOf(p)
	if as := m.find(p.env.Workload.As); as != nil {
		p.uid = as.uid
	} else if err := d.Register(ctx, p); err != nil {
		return err
	}
	p.env.Socket = d.socket(p)
	return nil
}

// peer is how others reach the workload.
func (p *Process) peer() Peer {
	w := p.env.Workload
	return Peer{ID: p.env.ID, Addr: p.env.Listen, Service: w.Service, Calls: w.Calls, Anew: w.Anew}
}

// lay makes the directories, and puts this program where all uids reach it.
func (m *Mesh) lay(root bool) error {
	if root {
		if err := os.Chmod(m.dir, 0o711); err != nil { //nolint:gosec // workloads have uids of their own
			return err
		}
	}
	for _, name := range []string{"log", "policy"} {
		if err := os.Mkdir(filepath.Join(m.dir, name), 0o755); err != nil { //nolint:gosec // workloads have uids of their own
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	m.exe = self
	if !root {
		return nil
	}
	m.exe = filepath.Join(m.dir, "workload")
	in, err := os.Open(self)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(m.exe, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755) //nolint:gosec // workloads have uids of their own
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// place gives a workload the address where it listens.
func (m *Mesh) place(ctx context.Context, p *Process, number int) error {
	if m.net != nil {
		var err error
		if p.host, err = m.net.host(ctx, number); err != nil {
			return err
		}
		p.env.Listen = net.JoinHostPort(p.host.addr.String(), "8443")
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.env.Listen = l.Addr().String() // taken again in a moment
	return l.Close()
}

func (m *Mesh) writePolicy(p *Process) error {
	// A folder of its own: watchers are told of all that happens there.
	if err := os.Mkdir(filepath.Dir(p.env.PolicyFile), 0o755); err != nil { //nolint:gosec // workloads have uids of their own
		return err
	}
	return p.WritePolicy(p.policy())
}

func (p *Process) policy() string { return cmp.Or(p.env.Workload.Policy, p.m.desc.Policy) }

// WritePolicy puts another document in the place of the workload's policy, at
// once and whole; "" stands for the one that it began with.
func (p *Process) WritePolicy(doc string) error {
	doc = cmp.Or(doc, p.policy())
	tmp := p.env.PolicyFile + ".new"
	if err := os.WriteFile(tmp, []byte(doc), 0o644); err != nil { //nolint:gosec // workloads have uids of their own
		return err
	}
	return os.Rename(tmp, p.env.PolicyFile)
}

// RemovePolicy takes the workload's policy away.
func (p *Process) RemovePolicy() error { return os.Remove(p.env.PolicyFile) }

func (m *Mesh) startDomains(ctx context.Context) error {
	for _, td := range m.desc.TrustDomains {
		var err error
		switch {
		case td.Agent != "":
			m.domains[td.Name] = external{td}
		case m.opts.SPIRE != "":
			err = newSPIRE(ctx, m, td)
		default:
			err = newEmbedded(m, td)
		}
		if err != nil {
			return fmt.Errorf("mesh: %s: %w", td.Name, err)
		}
	}
	for _, td := range m.desc.TrustDomains {
		if td.Agent != "" {
			continue
		}
		for _, other := range td.Federates {
			if err := m.domains[td.Name].Federate(ctx, other); err != nil {
				return err
			}
		}
	}
	return nil
}

// ttl returns how long SVIDs live.
func (td TrustDomain) ttl() time.Duration { return cmp.Or(td.TTL, time.Minute) }

// Process returns the workload of a name, nil if there is none.
func (m *Mesh) Process(name string) *Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.find(name)
}

// find is Process; m.mu is held, or m is new.
func (m *Mesh) find(name string) *Process {
	i := slices.IndexFunc(m.all, func(p *Process) bool { return p.Name() == name })
	if i < 0 {
		return nil
	}
	return m.all[i]
}

// Processes returns all workloads.
func (m *Mesh) Processes() []*Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.all)
}

// Domain returns the trust domain of a name, nil if there is none.
func (m *Mesh) Domain(name string) Domain { return m.domains[name] }

func (m *Mesh) domainOf(p *Process) Domain {
	return m.domains[spiffeid.RequireFromString(p.ID()).TrustDomain().Name()]
}

// Describe says in words where SVIDs come from, whether that is SPIRE, and how
// workloads reach each other.
func (m *Mesh) Describe() (domain string, spire bool, network string) {
	for _, name := range slices.Sorted(maps.Keys(m.domains)) {
		domain, spire = m.domains[name].describe(), m.domains[name].real()
	}
	network = "the loopback"
	if m.net != nil {
		network = "a network namespace for each workload"
	}
	return domain, spire, network
}

// Dir returns the mesh's directory, with the workloads' logs in log. It is gone
// when the mesh is closed.
func (m *Mesh) Dir() string { return m.dir }

// Gateway returns the address at which the workloads reach the machine itself,
// as for a server in the driver's process.
func (m *Mesh) Gateway() string {
	if m.net == nil {
		return "127.0.0.1"
	}
	return m.net.bridge.String()
}

// Workloads describes all workloads for the report.
func (m *Mesh) Workloads() []WorkloadInfo {
	var out []WorkloadInfo
	for _, p := range m.Processes() {
		i := WorkloadInfo{Name: p.Name(), ID: p.ID(), Addr: p.Addr(), Service: p.Service(), Starts: p.Starts()}
		for _, c := range p.env.Workload.Calls {
			i.Calls = append(i.Calls, c.To)
		}
		out = append(out, i)
	}
	return out
}

// NameOf returns the name of the workload with an ID, or the ID.
func (m *Mesh) NameOf(id string) string {
	for _, p := range m.Processes() {
		if p.ID() == id {
			return p.Name()
		}
	}
	return id
}

// Edges returns who called whom for which tenant, by the audit trails of those
// who were called. Of a process that was killed, it has what was known then.
func (m *Mesh) Edges(ctx context.Context) ([]Edge, error) {
	all := map[Edge]*Edge{}
	m.counting.Lock()
	for k, e := range m.edges {
		sum := *e
		all[k] = &sum
	}
	m.counting.Unlock()
	for _, p := range m.Processes() {
		if p.env.Workload.Command != nil {
			continue
		}
		edges, err := p.Edges(ctx)
		if err != nil {
			return nil, err
		}
		sum(all, edges)
	}
	var out []Edge
	for _, e := range all {
		e.From = m.NameOf(e.From)
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b Edge) int {
		return cmp.Or(strings.Compare(a.From, b.From), strings.Compare(a.To, b.To), strings.Compare(a.Tenant, b.Tenant))
	})
	return out, nil
}

// sum adds edges to all.
func sum(all map[Edge]*Edge, edges []Edge) {
	for _, e := range edges {
		k := Edge{From: e.From, To: e.To, Tenant: e.Tenant}
		n := all[k]
		if n == nil {
			n = &Edge{From: e.From, To: e.To, Tenant: e.Tenant}
			all[k] = n
		}
		n.Allowed += e.Allowed
		n.Refused += e.Refused
	}
}

// remember keeps the edges of a process that is about to end.
func (m *Mesh) remember(p *Process) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if edges, err := p.Edges(ctx); err == nil {
		m.counting.Lock()
		defer m.counting.Unlock()
		sum(m.edges, edges)
	}
}

// Cut takes the workload off the network, or puts it back. Without namespaces
// it fails.
func (m *Mesh) Cut(ctx context.Context, p *Process, out bool) error {
	if p.host == nil {
		return errors.New("mesh: without network namespaces there is no link to cut")
	}
	return p.host.cut(ctx, out)
}

// HasLinks says whether [Mesh.Cut] works.
func (m *Mesh) HasLinks() bool { return m.net != nil }

// Close ends all processes and removes what they left. It may be called again.
func (m *Mesh) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	stopped := make([]error, len(m.all))
	var stopping sync.WaitGroup
	for i, p := range m.all {
		stopping.Go(func() { stopped[i] = p.Stop() })
	}
	stopping.Wait()
	errs := []error{errors.Join(stopped...)}
	for _, x := range m.proxies {
		x.close()
	}
	for _, d := range slices.Sorted(maps.Keys(m.domains)) {
		errs = append(errs, m.domains[d].close())
	}
	errs = append(errs, m.net.close(), os.RemoveAll(m.dir))
	return errors.Join(errs...)
}

// sweep removes what runs left that were killed with SIGKILL.
func sweep() error {
	errs := []error{sweepNetworks()}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	errs = append(errs, err)
	for _, dir := range dirs {
		text, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		if pid, err := strconv.Atoi(text); err == nil && !alive(pid) {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// accepts waits until the workload accepts connections.
func (p *Process) accepts(ctx context.Context) error {
	const often = 20 * time.Millisecond
	for {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", p.Addr())
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.exited():
			return fmt.Errorf("mesh: %s has ended; it said last: %s", p.Name(), lastLine(filepath.Join(p.m.dir, "log", p.Name()+".jsonl")))
		case <-time.After(often):
		case <-ctx.Done():
			return fmt.Errorf("mesh: %s does not accept connections: %w", p.Name(), context.Cause(ctx))
		}
	}
}

func (p *Process) exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	return p.run.exited
}
