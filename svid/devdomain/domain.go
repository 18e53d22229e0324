// Package devdomain is an embedded SPIFFE trust domain for development and
// tests: a CA in memory, an agent with the SPIFFE Workload API (X.509-SVIDs and
// JWT-SVIDs), rotation of leaves and roots, federation, and faults on request. It
// answers clients as a SPIRE agent does.
//
//	d, err := devdomain.New(devdomain.Config{TrustDomain: "prod.example", Dir: dir})
//	defer d.Close()
//	w, err := d.Workload("spiffe://prod.example/gateway", devdomain.WithUID(1001))
//	// SPIFFE_ENDPOINT_SOCKET=d.Addr() for processes with the uid 1001
//
// The agent's socket tells workloads apart by their uid. Each workload has a
// socket of its own too, [Workload.Addr]; who may open it is that workload.
//
// [Domain.IssueRaw] signs anything: this is no CA for production.
package devdomain

import (
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
)

// Config is what a [Domain] is made of.
type Config struct {
	// TrustDomain is the name, such as "prod.example". It is required.
	TrustDomain string
	// Dir is where the sockets are; it is created if it is missing, so that
	// other uids can reach the agent's socket in it but see nothing else. Keep it
	// short: the path of a unix socket has at most 107 bytes. If it is empty
	// there are no sockets, and [Workload.Snapshot] is the only way in.
	Dir string
	// Listen opens the sockets in Dir in another way than as unix sockets, such
	// as in memory for a testing/synctest bubble. There, only the workloads' own
	// sockets serve anyone.
	Listen func(path string) (net.Listener, error)
	// TTL is how long leaves live; 0 means 1 hour. They are issued anew at half of it.
	TTL time.Duration
	// KeyType is the type of all keys; "" means [ECP256].
	KeyType KeyType
	// Intermediates is how many intermediate CAs stand between root and leaves.
	Intermediates int
	// Clock is the time that certificates and JWTs are issued by; nil means
	// [time.Now]. JWTs are validated by [time.Now] in any case.
	Clock func() time.Time
	// Logger is where rotations are logged; nil means nowhere.
	Logger *slog.Logger
}

// Domain is a trust domain. It is safe for concurrent use.
type Domain struct {
	td    spiffeid.TrustDomain
	cfg   Config
	jwt   jwtAuthority
	agent *endpoint // nil without Dir

	mu        sync.Mutex
	closed    bool
	roots     []*root     // oldest first
	workloads []*Workload // in the order of their registration
	federated map[spiffeid.TrustDomain]*Domain
	endpoints []*endpoint
	stopped   bool          // by StopAgent
	fault     codes.Code    // by Fail
	changed   chan struct{} // closed on the next change of what the agent says

	// public has a lock of its own, so that two domains that federate with each
	// other never hold both their mu.
	public struct {
		sync.Mutex
		bundle    *spiffebundle.Bundle // never changed once it is here
		followers map[*Domain]struct{}
	}
}

// New returns a trust domain with a new root.
func New(cfg Config) (*Domain, error) {
	td, err := spiffeid.TrustDomainFromString(cfg.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("devdomain: trust domain %q: %w", cfg.TrustDomain, err)
	}
	if cfg.TTL < 0 || cfg.Intermediates < 0 {
		return nil, fmt.Errorf("devdomain: a TTL of %s and %d intermediates", cfg.TTL, cfg.Intermediates)
	}
	if cfg.TTL == 0 {
		cfg.TTL = time.Hour
	}
	if cfg.KeyType == "" {
		cfg.KeyType = ECP256
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Dir != "" && cfg.Listen == nil {
		if cfg.Dir, err = filepath.Abs(cfg.Dir); err == nil {
			err = os.MkdirAll(cfg.Dir, 0o711) //nolint:gosec // other uids go through it
		}
		if err != nil {
			return nil, fmt.Errorf("devdomain: %w", err)
		}
	}
	d := &Domain{
		td:        td,
		cfg:       cfg,
		federated: map[spiffeid.TrustDomain]*Domain{},
		changed:   make(chan struct{}),
	}
	if d.jwt, err = newJWTAuthority(cfg.KeyType); err != nil {
		return nil, err
	}
	first, err := d.newRoot()
	if err != nil {
		return nil, err
	}
	first.State = Active
	d.roots = []*root{first}
	d.public.followers = map[*Domain]struct{}{}
	d.public.bundle = d.bundle()
	if cfg.Dir != "" {
		// '+' is in no SPIFFE ID, so no workload's socket has this name.
		d.agent, err = d.open(td.Name()+"+.sock", 0o777, newAgentAPI(d), callerCredentials())
		if err != nil {
			return nil, err
		}
	}
	return d, nil
}

// TrustDomain returns the trust domain.
func (d *Domain) TrustDomain() spiffeid.TrustDomain { return d.td }

// Addr returns the address of the agent's socket, in the form that
// SPIFFE_ENDPOINT_SOCKET has; "" if [Config].Dir is empty. There, a caller is
// every workload that is registered with the caller's uid.
func (d *Domain) Addr() string { return d.agent.addr() }

// Bundle returns the X.509 roots as they are now.
func (d *Domain) Bundle() *x509bundle.Bundle { return d.published().X509Bundle() }

// JWTBundle returns the keys that verify the trust domain's JWT-SVIDs.
func (d *Domain) JWTBundle() *jwtbundle.Bundle { return d.published().JWTBundle() }

func (d *Domain) published() *spiffebundle.Bundle {
	d.public.Lock()
	defer d.public.Unlock()
	return d.public.bundle
}

// Federate gives the bundle of other, and its changes, to this domain's
// workloads. It is one way: other does not learn of this domain.
func (d *Domain) Federate(other *Domain) {
	if other == d {
		return
	}
	other.public.Lock()
	other.public.followers[d] = struct{}{}
	other.public.Unlock()

	d.mu.Lock()
	defer d.mu.Unlock()
	d.federated[other.td] = other
	d.publish()
}

// Unfederate takes the bundle of the trust domain td away from this domain's
// workloads.
func (d *Domain) Unfederate(td string) {
	name, err := spiffeid.TrustDomainFromString(td)
	if err != nil {
		return // nothing is federated under such a name
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if other := d.federated[name]; other != nil {
		other.unfollow(d)
		delete(d.federated, name)
		d.publish()
	}
}

// Close ends the agent, removes its sockets and stops rotation. It may be
// called again.
func (d *Domain) Close() error {
	d.mu.Lock()
	for _, w := range d.workloads {
		w.timer.Stop()
	}
	d.closed = true
	for _, other := range d.federated {
		other.unfollow(d)
	}
	d.mu.Unlock()
	d.StopAgent()
	return nil
}

var errClosed = errors.New("devdomain: the domain is closed")

func (d *Domain) unfollow(follower *Domain) {
	d.public.Lock()
	defer d.public.Unlock()
	delete(d.public.followers, follower)
}

// spread makes the roots public, and tells the workloads here and in the
// domains that federate with this one. d.mu is not held.
func (d *Domain) spread() {
	d.mu.Lock()
	d.public.Lock()
	d.public.bundle = d.bundle()
	followers := make([]*Domain, 0, len(d.public.followers))
	for f := range d.public.followers {
		followers = append(followers, f)
	}
	d.public.Unlock()
	d.publish()
	d.mu.Unlock()

	for _, f := range followers {
		f.mu.Lock()
		f.publish()
		f.mu.Unlock()
	}
}

// bundle returns the roots and the JWT key; d.mu is held or d is new.
func (d *Domain) bundle() *spiffebundle.Bundle {
	b := spiffebundle.New(d.td)
	for _, r := range d.roots {
		b.AddX509Authority(r.cert)
	}
	b.SetJWTAuthorities(map[string]crypto.PublicKey{d.jwt.id: d.jwt.key.Public()})
	return b
}

// bundles returns the own bundle and the federated ones that one of the
// workloads gets; d.mu is held.
func (d *Domain) bundles(is ...*Workload) *spiffebundle.Set {
	set := spiffebundle.NewSet(d.published())
	for name, other := range d.federated {
		if slices.ContainsFunc(is, func(w *Workload) bool { return !w.choosy || slices.Contains(w.federates, name.Name()) }) {
			set.Add(other.published())
		}
	}
	return set
}

// publish tells every workload what is true now; d.mu is held.
func (d *Domain) publish() {
	if d.closed {
		return
	}
	for _, w := range d.workloads {
		w.update()
	}
	d.wake()
}

// wake tells the agent's streams that something changed; d.mu is held.
func (d *Domain) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}
