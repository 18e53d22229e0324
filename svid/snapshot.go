package svid

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// Snapshot is one consistent view of the workload's identity: what the Workload
// API said in one message. It and what it points to must not be changed.
type Snapshot struct {
	// SVID is the workload's own leaf, its chain and its key.
	SVID *x509svid.SVID
	// Bundles are the roots of the own and of the federated trust domains.
	Bundles *x509bundle.Set
	// Generation grows with each update. It is never 0.
	Generation uint64
}

// Snapshotter is where the identity comes from. [*Source] is one; tests have
// others.
type Snapshotter interface {
	// Snapshot returns the identity as it is now. It does not block, and fails
	// with [tenant.IdentityUnavailable] where there is none. The SVID may have
	// expired: who uses it checks that.
	Snapshot() (*Snapshot, error)
}

// Current returns the snapshot of src, complete, or an error with a
// [tenant.Reason]: [tenant.IdentityUnavailable] unless src gives another. src may be nil.
func Current(src Snapshotter) (*Snapshot, error) {
	if src == nil {
		return nil, tenant.Deny(tenant.IdentityUnavailable, "no source of identity")
	}
	snap, err := src.Snapshot()
	switch {
	case err != nil && tenant.ReasonOf(err) != "":
		return nil, err
	case err != nil:
		return nil, tenant.Deny(tenant.IdentityUnavailable, "%w", err)
	case snap == nil || snap.SVID == nil || len(snap.SVID.Certificates) == 0 || snap.Bundles == nil:
		return nil, tenant.Deny(tenant.IdentityUnavailable, "the source of identity gave an empty snapshot")
	}
	return snap, nil
}

// checkOwn fails with [tenant.IdentityUnavailable] unless every certificate
// of the workload's own SVID is valid at now.
func checkOwn(own *x509svid.SVID, now time.Time) error {
	for _, cert := range own.Certificates {
		switch {
		case now.Before(cert.NotBefore):
			return tenant.Deny(tenant.IdentityUnavailable, "our own SVID, %s, is not valid before %s",
				own.ID, cert.NotBefore.Format(time.RFC3339))
		case !now.Before(cert.NotAfter):
			return tenant.Deny(tenant.IdentityUnavailable, "our own SVID, %s, expired at %s: is the Workload API up?",
				own.ID, cert.NotAfter.Format(time.RFC3339))
		}
	}
	return nil
}
