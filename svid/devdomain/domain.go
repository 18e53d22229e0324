// Package devdomain is an embedded SPIFFE trust domain for development and
// tests: a CA in memory, a Workload API on a unix socket for each workload,
// rotation and federation. A Workload API client cannot tell it from a SPIRE
// agent.
//
//	d, err := devdomain.New(devdomain.Config{TrustDomain: "prod.example", Dir: dir})
//	defer d.Close()
//	w, err := d.Workload("spiffe://prod.example/gateway")
//	// SPIFFE_ENDPOINT_SOCKET=w.Addr() for the process
//
// Whoever opens a workload's socket is that workload, and [Domain.IssueRaw]
// signs anything: this is no CA for production.
package devdomain

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Config is what a [Domain] is made of.
type Config struct {
	// TrustDomain is the name, such as "prod.example". It is required.
	TrustDomain string
	// Dir is where the workloads' sockets are; it is created if it is missing.
	// Keep it short: the path of a unix socket has at most 107 bytes. If it is
	// empty there are no sockets, and [Workload.Snapshot] is the only way in,
	// as a test on in-memory connections or in a testing/synctest bubble needs it.
	Dir string
	// TTL is how long leaves live; 0 means 1 hour. They are issued anew at half of it.
	TTL time.Duration
	// Clock is the time that certificates are issued by; nil means [time.Now].
	Clock func() time.Time
	// Logger is where rotations are logged; nil means nowhere.
	Logger *slog.Logger
}

// Domain is a trust domain. It is safe for concurrent use.
type Domain struct {
	td  spiffeid.TrustDomain
	cfg Config

	mu        sync.Mutex
	closed    bool
	roots     []*authority // the last one issues
	workloads map[spiffeid.ID]*Workload
	federated map[spiffeid.TrustDomain]*Domain

	// public has a lock of its own, so that two domains that federate with each
	// other never hold both their mu.
	public struct {
		sync.Mutex
		bundle    *x509bundle.Bundle // never changed once it is here
		followers map[*Domain]struct{}
	}
}

// New returns a trust domain with a new root.
func New(cfg Config) (*Domain, error) {
	td, err := spiffeid.TrustDomainFromString(cfg.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("devdomain: trust domain %q: %w", cfg.TrustDomain, err)
	}
	if cfg.TTL < 0 {
		return nil, fmt.Errorf("devdomain: a TTL of %s", cfg.TTL)
	}
	if cfg.TTL == 0 {
		cfg.TTL = time.Hour
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Dir != "" {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("devdomain: %w", err)
		}
	}
	root, err := newRoot(td, cfg.Clock())
	if err != nil {
		return nil, err
	}
	d := &Domain{
		td:        td,
		cfg:       cfg,
		roots:     []*authority{root},
		workloads: map[spiffeid.ID]*Workload{},
		federated: map[spiffeid.TrustDomain]*Domain{},
	}
	d.public.followers = map[*Domain]struct{}{}
	d.public.bundle = d.bundle()
	return d, nil
}

// TrustDomain returns the trust domain.
func (d *Domain) TrustDomain() spiffeid.TrustDomain { return d.td }

// Bundle returns the roots as they are now.
func (d *Domain) Bundle() *x509bundle.Bundle {
	d.public.Lock()
	defer d.public.Unlock()
	return d.public.bundle.Clone()
}

// RotateRoot adds a new root to the bundle, and then issues all leaves by it.
// The old roots stay until [Domain.DropOldRoots]. A workload learns of the root
// when its stream does, so that for a moment one may present a leaf that
// another cannot check yet.
func (d *Domain) RotateRoot() error {
	root, err := newRoot(d.td, d.cfg.Clock())
	if err != nil {
		return err
	}
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return errClosed
	}
	d.roots = append(d.roots, root)
	d.mu.Unlock()
	d.spread()

	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed // reissue would start timers again
	}
	for _, w := range d.workloads {
		if w.own == nil {
			continue // removed
		}
		if err := w.reissue(); err != nil {
			return err
		}
	}
	return nil
}

// DropOldRoots takes all roots but the newest out of the bundle. Leaves issued
// before the last [Domain.RotateRoot] are untrusted from then on.
func (d *Domain) DropOldRoots() {
	d.mu.Lock()
	d.roots = slices.Clone(d.roots[len(d.roots)-1:])
	d.mu.Unlock()
	d.spread()
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

// Close ends all Workload APIs, removes their sockets and stops rotation. It
// may be called again.
func (d *Domain) Close() error {
	d.mu.Lock()
	workloads := make([]*Workload, 0, len(d.workloads))
	for _, w := range d.workloads {
		workloads = append(workloads, w)
		if w.timer != nil {
			w.timer.Stop()
		}
	}
	if !d.closed {
		d.closed = true
		for _, other := range d.federated {
			other.unfollow(d)
		}
	}
	d.mu.Unlock()

	for _, w := range workloads {
		w.stop() // outside mu: its streams may be taking it
	}
	return nil
}

var errClosed = errors.New("devdomain: the domain is closed")

func (d *Domain) unfollow(follower *Domain) {
	d.public.Lock()
	defer d.public.Unlock()
	delete(d.public.followers, follower)
}

// spread makes the roots public, and tells the workloads here and in the
// domains that federate with this one.
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

// bundle returns the roots; d.mu is held or d is new.
func (d *Domain) bundle() *x509bundle.Bundle {
	certs := make([]*x509.Certificate, len(d.roots))
	for i, r := range d.roots {
		certs[i] = r.cert
	}
	return x509bundle.FromX509Authorities(d.td, certs)
}

// bundles returns the own bundle and the federated ones; d.mu is held.
func (d *Domain) bundles() *x509bundle.Set {
	set := x509bundle.NewSet(d.Bundle())
	for _, other := range d.federated {
		set.Add(other.Bundle())
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
}
