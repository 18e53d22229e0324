package devdomain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Workload is a registered workload: a registration entry, in SPIRE's words. It
// is an [svid.Snapshotter], so that a test in the same process needs no socket.
// It is safe for concurrent use.
type Workload struct {
	d   *Domain
	id  spiffeid.ID
	own *endpoint // nil without Config.Dir

	// All below is guarded by d.mu.
	entry
	svid       *x509svid.SVID // nil when removed
	signer     *root          // of svid
	snap       *svid.Snapshot // nil when removed
	generation uint64
	changed    chan struct{} // closed on the next change
	timer      *time.Timer
}

var _ svid.Snapshotter = (*Workload)(nil)

// WorkloadOption says more of a workload that [Domain.Workload] registers.
type WorkloadOption func(*entry)

type entry struct {
	uids []uint32
	hint string
	// federates are the trust domains whose bundles it gets, if it is choosy.
	federates []string
	choosy    bool
}

// WithUID makes callers with the uid this workload at the agent's socket
// ([Domain.Addr]), like SPIRE's selector unix:uid. It may be given several times.
func WithUID(uid uint32) WorkloadOption {
	return func(e *entry) { e.uids = append(e.uids, uid) }
}

// WithHint sets the hint of the workload's SVIDs, by which a caller that is
// several workloads tells them apart. Of two with one hint, such a caller gets
// the one that was registered first.
func WithHint(hint string) WorkloadOption {
	return func(e *entry) { e.hint = hint }
}

// WithFederatesWith limits the federated trust domains whose bundles the
// workload gets to these, of those that [Domain.Federate] adds, like the
// federatesWith of SPIRE's registration entries. Without it, it gets all of them.
func WithFederatesWith(trustDomains ...string) WorkloadOption {
	return func(e *entry) { e.federates, e.choosy = append(e.federates, trustDomains...), true }
}

// Workload registers a workload of this trust domain and issues its first SVID.
// For a workload that was removed, it registers the same one again, with the
// options that are given now.
func (d *Domain) Workload(id string, opts ...WorkloadOption) (*Workload, error) {
	name, err := d.member(id)
	if err != nil {
		return nil, err
	}
	var e entry
	for _, opt := range opts {
		opt(&e)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	i := slices.IndexFunc(d.workloads, func(w *Workload) bool { return w.id == name })
	if i >= 0 {
		w := d.workloads[i]
		if w.svid != nil {
			return nil, fmt.Errorf("devdomain: %s is registered already", name)
		}
		w.entry = e
		return w, w.reissue()
	}
	w := &Workload{d: d, id: name, entry: e, changed: make(chan struct{})}
	w.timer = time.AfterFunc(d.cfg.TTL/2, w.renew)
	if d.cfg.Dir != "" {
		// '+' is in no SPIFFE ID, so no two workloads share a file.
		file := strings.ReplaceAll(strings.TrimPrefix(name.Path(), "/"), "/", "+") + ".sock"
		if w.own, err = d.open(file, 0o600, newOwnAPI(w), nil); err != nil {
			w.timer.Stop()
			return nil, err
		}
	}
	d.workloads = append(d.workloads, w)
	return w, w.reissue()
}

// ID returns the workload's SPIFFE ID.
func (w *Workload) ID() spiffeid.ID { return w.id }

// Addr returns the address of the workload's own socket, in the form that
// SPIFFE_ENDPOINT_SOCKET has; "" if [Config].Dir is empty.
func (w *Workload) Addr() string { return w.own.addr() }

// Snapshot returns the workload's identity as it is now. It fails with
// [tenant.IdentityUnavailable] after [Workload.Remove]. After [Domain.Close] it
// stays as it was last, as with an agent that is gone.
func (w *Workload) Snapshot() (*svid.Snapshot, error) {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	if w.snap == nil {
		return nil, tenant.Deny(tenant.IdentityUnavailable, "%s: no identity issued", w.id)
	}
	return w.snap, nil
}

// Changed returns a channel that is closed when the identity changes next. Ask
// for it before [Workload.Snapshot].
func (w *Workload) Changed() <-chan struct{} {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	return w.changed
}

// Rotate issues a new leaf with a new key and sends it to all streams.
func (w *Workload) Rotate() error {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	switch {
	case w.d.closed:
		return errClosed
	case w.svid == nil:
		return fmt.Errorf("devdomain: %s was removed", w.id)
	}
	return w.reissue()
}

// Remove deletes the registration: the Workload API has no such identity any
// longer, and answers PermissionDenied to a caller who has no other, also on
// streams that are open. What was issued stays valid until it expires.
// [Domain.Workload] registers it again.
func (w *Workload) Remove() {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	w.timer.Stop()
	w.svid = nil
	w.update()
	w.d.wake()
}

// renew is Rotate for the timer.
func (w *Workload) renew() {
	// An error here means that it was removed or that all is over.
	if err := w.Rotate(); err != nil {
		w.d.cfg.Logger.Debug("no rotation", "id", w.id.String(), "error", err)
	}
}

// reissue gives the workload a new SVID and sets the next rotation; d.mu is held.
func (w *Workload) reissue() error {
	own, err := w.d.issue(w.id, leafConfig{})
	if err != nil {
		return err
	}
	own.Hint = w.hint
	w.svid, w.signer = own, w.d.active()
	w.timer.Reset(w.d.cfg.TTL / 2)
	w.update()
	w.d.wake()
	w.d.cfg.Logger.Info("issued", "id", w.id.String(), "not_after", own.Certificates[0].NotAfter)
	return nil
}

// update makes what is true now the workload's snapshot; d.mu is held.
func (w *Workload) update() {
	w.snap = nil
	if w.svid != nil {
		w.generation++
		w.snap = &svid.Snapshot{SVID: w.svid, Bundles: x509Bundles(w.d.bundles(w)), Generation: w.generation}
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

func x509Bundles(set *spiffebundle.Set) *x509bundle.Set {
	bundles := x509bundle.NewSet()
	for _, b := range set.Bundles() {
		bundles.Add(b.X509Bundle())
	}
	return bundles
}
