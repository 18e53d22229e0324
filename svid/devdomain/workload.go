package devdomain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"

	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// maxSocket is the longest path of a unix socket: sun_path less its NUL.
const maxSocket = 107

// Workload is a registered workload and its Workload API. It is an
// [svid.Snapshotter], so that a test in the same process needs no socket. It is
// safe for concurrent use.
type Workload struct {
	d    *Domain
	id   spiffeid.ID
	path string // of the socket, or ""

	server *grpc.Server
	served chan struct{} // closed when server has ended

	// All below is guarded by d.mu.
	own        *x509svid.SVID // nil when removed
	snap       *svid.Snapshot // nil when removed
	generation uint64
	changed    chan struct{} // closed on the next change
	timer      *time.Timer
}

var _ svid.Snapshotter = (*Workload)(nil)

// Workload registers a workload of this trust domain, issues its first SVID and
// serves its Workload API. For a workload that was removed, it registers the
// same one again.
func (d *Domain) Workload(id string) (*Workload, error) {
	name, err := d.member(id)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	if w := d.workloads[name]; w != nil {
		if w.own != nil {
			return nil, fmt.Errorf("devdomain: %s is registered already", name)
		}
		return w, w.reissue()
	}
	w := &Workload{d: d, id: name, changed: make(chan struct{})}
	if d.cfg.Dir != "" {
		if err := w.serve(); err != nil {
			return nil, err
		}
	}
	d.workloads[name] = w
	return w, w.reissue()
}

// ID returns the workload's SPIFFE ID.
func (w *Workload) ID() spiffeid.ID { return w.id }

// Addr returns the address of the workload's Workload API, in the form that
// SPIFFE_ENDPOINT_SOCKET has; "" if [Config].Dir is empty.
func (w *Workload) Addr() string {
	if w.path == "" {
		return ""
	}
	return (&url.URL{Scheme: "unix", Path: w.path}).String()
}

// Snapshot returns the workload's identity as it is now. It fails with
// [tenant.IdentityUnavailable] after [Workload.Remove]. After [Domain.Close] it
// stays as it was last, as with an agent that is gone.
func (w *Workload) Snapshot() (*svid.Snapshot, error) {
	snap, _ := w.state()
	if snap == nil {
		return nil, tenant.Deny(tenant.IdentityUnavailable, "%s: no identity issued", w.id)
	}
	return snap, nil
}

// Changed returns a channel that is closed when the identity changes next. Ask
// for it before [Workload.Snapshot].
func (w *Workload) Changed() <-chan struct{} {
	_, changed := w.state()
	return changed
}

// Rotate issues a new leaf with a new key and sends it to all streams.
func (w *Workload) Rotate() error {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	switch {
	case w.d.closed:
		return errClosed
	case w.own == nil:
		return fmt.Errorf("devdomain: %s was removed", w.id)
	}
	return w.reissue()
}

// Remove deletes the registration: the Workload API answers PermissionDenied,
// also on streams that are open. What was issued stays valid until it expires.
// [Domain.Workload] registers it again.
func (w *Workload) Remove() {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.own = nil
	w.update()
}

// state returns the identity, nil if there is none, and what is closed when it changes.
func (w *Workload) state() (*svid.Snapshot, <-chan struct{}) {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	return w.snap, w.changed
}

// reissue gives the workload a new SVID and sets the next rotation; d.mu is held.
func (w *Workload) reissue() error {
	own, err := w.d.issue(w.id, leafConfig{})
	if err != nil {
		return err
	}
	w.own = own
	w.update()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timer = time.AfterFunc(w.d.cfg.TTL/2, func() {
		// An error here means that it was removed or that all is over.
		if err := w.Rotate(); err != nil {
			w.d.cfg.Logger.Debug("no rotation", "id", w.id.String(), "error", err)
		}
	})
	w.d.cfg.Logger.Info("issued", "id", w.id.String(), "not_after", own.Certificates[0].NotAfter)
	return nil
}

// update makes what is true now the workload's snapshot; d.mu is held.
func (w *Workload) update() {
	w.snap = nil
	if w.own != nil {
		w.generation++
		w.snap = &svid.Snapshot{SVID: w.own, Bundles: w.d.bundles(), Generation: w.generation}
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// serve opens the socket and serves the Workload API on it.
func (w *Workload) serve() error {
	dir, err := filepath.Abs(w.d.cfg.Dir)
	if err != nil {
		return fmt.Errorf("devdomain: %w", err)
	}
	// '+' is in no SPIFFE ID, so no two workloads share a file.
	name := strings.ReplaceAll(strings.TrimPrefix(w.id.Path(), "/"), "/", "+") + ".sock"
	path := filepath.Join(dir, name)
	if len(path) > maxSocket {
		return fmt.Errorf("devdomain: the socket's path has %d bytes, a unix socket's at most %d; choose a shorter Dir: %s", len(path), maxSocket, path)
	}
	l, err := listen(path)
	if err != nil {
		return fmt.Errorf("devdomain: %w", err)
	}
	w.path, w.server, w.served = path, newAPI(w), make(chan struct{})
	go func() {
		defer close(w.served)
		_ = w.server.Serve(l) // ends by Stop
	}()
	return nil
}

// listen opens a socket that only our own uid may use.
func listen(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		// A process that was killed leaves its socket behind.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c, dialErr := new(net.Dialer).DialContext(ctx, "unix", path)
		if dialErr == nil {
			c.Close()
			return nil, fmt.Errorf("another process serves it: %w", err)
		}
		if !errors.Is(dialErr, syscall.ECONNREFUSED) {
			return nil, err
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// stop ends the Workload API and waits for it.
func (w *Workload) stop() {
	if w.server == nil {
		return
	}
	w.server.Stop() // its listener removes the socket
	<-w.served
}
