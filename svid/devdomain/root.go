package devdomain

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// Authority is an X.509 root of the trust domain, as `spire-server
// localauthority x509 show` has it.
type Authority struct {
	// ID is the root's subject key identifier in lower-case hex.
	ID string
	// State is where in its life the root is.
	State AuthorityState
	// Tainted says that nothing that the root signed is to be used any longer,
	// though workloads trust it still.
	Tainted bool
}

// AuthorityState is where in its life a root is.
type AuthorityState string

// A root is prepared, so that all learn of it; then active, so that it signs;
// then old, when another is active.
const (
	Prepared AuthorityState = "prepared"
	Active   AuthorityState = "active"
	Old      AuthorityState = "old"
)

// root is a root, and the CA below it that signs leaves.
type root struct {
	Authority
	cert   *x509.Certificate
	issuer *authority
}

// Authorities returns the roots in the bundle, oldest first.
func (d *Domain) Authorities() []Authority {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]Authority, len(d.roots))
	for i, r := range d.roots {
		all[i] = r.Authority
	}
	return all
}

// PrepareAuthority adds a new root to the bundle and returns its ID. It is the
// first step of a root's rotation: workloads trust the new root before anyone
// presents a leaf of it.
func (d *Domain) PrepareAuthority() (string, error) {
	r, err := d.newRoot()
	if err != nil {
		return "", err
	}
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return "", errClosed
	}
	d.roots = append(d.roots, r)
	d.mu.Unlock()
	d.spread()
	return r.ID, nil
}

// ActivateAuthority makes a prepared root sign from now on. Workloads notice
// nothing: they get leaves of it when theirs are due.
func (d *Domain) ActivateAuthority(id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	next, err := d.root(id)
	if err != nil {
		return err
	}
	if next.State != Prepared {
		return fmt.Errorf("devdomain: only a prepared authority can be activated, %s is %s", id, next.State)
	}
	d.active().State = Old
	next.State = Active
	return nil
}

// TaintAuthority has all leaves that an old root signed issued anew. The root
// stays in the bundle.
func (d *Domain) TaintAuthority(id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	old, err := d.root(id)
	if err != nil {
		return err
	}
	if old.State != Old {
		return fmt.Errorf("devdomain: only an old authority can be tainted, %s is %s", id, old.State)
	}
	old.Tainted = true
	for _, w := range d.workloads {
		if w.svid != nil && w.signer == old {
			if err := w.reissue(); err != nil {
				return err
			}
		}
	}
	return nil
}

// RevokeAuthority takes a tainted root out of the bundle: its leaves are
// untrusted from then on.
func (d *Domain) RevokeAuthority(id string) error {
	d.mu.Lock()
	old, err := d.root(id)
	if err == nil && !old.Tainted {
		err = fmt.Errorf("devdomain: only a tainted authority can be revoked, %s is %s", id, old.State)
	}
	if err == nil {
		d.roots = slices.DeleteFunc(d.roots, func(r *root) bool { return r == old })
	}
	d.mu.Unlock()
	if err == nil {
		d.spread()
	}
	return err
}

// RotateRoot prepares and activates a new root and taints the others, at once:
// a workload learns of the root when its stream does, so that for a moment one
// may present a leaf that another cannot check yet.
func (d *Domain) RotateRoot() error {
	id, err := d.PrepareAuthority()
	if err == nil {
		err = d.ActivateAuthority(id)
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range d.Authorities() {
		if a.State == Old {
			errs = append(errs, d.TaintAuthority(a.ID))
		}
	}
	return errors.Join(errs...)
}

// DropOldRoots revokes all tainted roots: the second half of
// [Domain.RotateRoot].
func (d *Domain) DropOldRoots() {
	for _, a := range d.Authorities() {
		if a.Tainted {
			_ = d.RevokeAuthority(a.ID) // gone already, if at all
		}
	}
}

// root returns the root with the ID; d.mu is held.
func (d *Domain) root(id string) (*root, error) {
	if d.closed {
		return nil, errClosed
	}
	for _, r := range d.roots {
		if r.ID == id {
			return r, nil
		}
	}
	return nil, fmt.Errorf("devdomain: there is no authority %q", id)
}

// active returns the root that signs; d.mu is held.
func (d *Domain) active() *root {
	return d.roots[slices.IndexFunc(d.roots, func(r *root) bool { return r.State == Active })]
}

// newRoot returns a prepared root that nobody knows of yet.
func (d *Domain) newRoot() (*root, error) {
	now := d.cfg.Clock()
	top, err := newCA(nil, d.td, d.cfg.KeyType, now)
	if err != nil {
		return nil, err
	}
	r := &root{cert: top.cert, Authority: Authority{ID: hex.EncodeToString(top.cert.SubjectKeyId), State: Prepared}}
	r.issuer, err = top.below(d.cfg.Intermediates, d.td, d.cfg.KeyType, now)
	return r, err
}
