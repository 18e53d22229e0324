package devdomain_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// TestAuthority follows a root's rotation as a workload sees it, and a workload
// of a domain that federates with this one.
func TestAuthority(t *testing.T) {
	d := newDomain(t, devdomain.Config{Dir: socketDir(t)})
	partner := newDomain(t, devdomain.Config{TrustDomain: "partner.example", Dir: socketDir(t)})
	partner.Federate(d)
	w, removed := newWorkload(t, d, gatewayID), newWorkload(t, d, "spiffe://prod.example/removed")
	removed.Remove()
	u := watch(t, w.Addr())
	abroad := watch(t, newWorkload(t, partner, "spiffe://partner.example/a").Addr())
	first, _ := u.next(t), abroad.next(t)
	old := d.Authorities()[0].ID

	state := func(want ...devdomain.Authority) {
		t.Helper()
		if got := d.Authorities(); !slices.Equal(got, want) {
			t.Errorf("the authorities are %v, want %v", got, want)
		}
	}
	state(devdomain.Authority{ID: old, State: devdomain.Active})
	refused := func(text string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v does not say %q", err, text)
		}
	}

	next, err := d.PrepareAuthority()
	if err != nil {
		t.Fatal(err)
	}
	state(devdomain.Authority{ID: old, State: devdomain.Active}, devdomain.Authority{ID: next, State: devdomain.Prepared})
	prepared := u.next(t)
	if n := roots(t, prepared, d.TrustDomain()); n != 2 || !sameSVID(first, prepared) {
		t.Errorf("prepared: %d roots, same leaf %t", n, sameSVID(first, prepared))
	}
	if n := roots(t, abroad.next(t), d.TrustDomain()); n != 2 {
		t.Errorf("prepared: %d roots abroad", n)
	}
	refused("only an old authority can be tainted", d.TaintAuthority(next))
	refused("only an old authority can be tainted", d.TaintAuthority(old))
	refused("only a prepared authority can be activated", d.ActivateAuthority(old))
	refused("only a tainted authority can be revoked", d.RevokeAuthority(old))

	if err := d.ActivateAuthority(next); err != nil {
		t.Fatal(err)
	}
	state(devdomain.Authority{ID: old, State: devdomain.Old}, devdomain.Authority{ID: next, State: devdomain.Active})
	refused("only a tainted authority can be revoked", d.RevokeAuthority(old))

	if err := d.TaintAuthority(old); err != nil {
		t.Fatal(err)
	}
	state(devdomain.Authority{ID: old, State: devdomain.Old, Tainted: true}, devdomain.Authority{ID: next, State: devdomain.Active})
	tainted := u.next(t) // activation sent nothing
	if n := roots(t, tainted, d.TrustDomain()); n != 2 || sameSVID(prepared, tainted) {
		t.Errorf("tainted: %d roots, same leaf %t", n, sameSVID(prepared, tainted))
	}
	verify(t, tainted)
	if _, _, err := x509svid.Verify(first.DefaultSVID().Certificates, tainted.Bundles); err != nil {
		t.Errorf("tainted, and at once untrusted: %v", err)
	}
	// Nothing that the root signed is left, so there is nothing to issue anew.
	if err := d.TaintAuthority(old); err != nil {
		t.Error(err)
	}
	if err := d.RevokeAuthority(old); err != nil {
		t.Fatal(err)
	}
	state(devdomain.Authority{ID: next, State: devdomain.Active})
	revoked := u.next(t)
	verify(t, revoked)
	if n := roots(t, revoked, d.TrustDomain()); n != 1 || !sameSVID(tainted, revoked) {
		t.Errorf("revoked: %d roots, same leaf %t", n, sameSVID(tainted, revoked))
	}
	if _, _, err := x509svid.Verify(first.DefaultSVID().Certificates, revoked.Bundles); err == nil {
		t.Error("a leaf of the revoked root is trusted")
	}
	if n := roots(t, abroad.next(t), d.TrustDomain()); n != 1 {
		t.Errorf("revoked: %d roots abroad", n)
	}
	if _, err := removed.Snapshot(); err == nil {
		t.Error("a removed workload got a leaf")
	}

	d.Close()
	_, closed := d.PrepareAuthority()
	for _, err := range []error{closed, d.ActivateAuthority(next), d.TaintAuthority(next), d.RevokeAuthority(next)} {
		refused("closed", err)
	}
}

// TestAuthorityUnknown: an authority that is not there is none.
func TestAuthorityUnknown(t *testing.T) {
	d := newDomain(t, devdomain.Config{})
	for _, id := range []string{"", "0a"} {
		if err := errors.Join(d.ActivateAuthority(id), d.TaintAuthority(id), d.RevokeAuthority(id)); err == nil || strings.Count(err.Error(), "there is no authority") != 3 {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func roots(t *testing.T, c *workloadapi.X509Context, td spiffeid.TrustDomain) int {
	t.Helper()
	b, ok := c.Bundles.Get(td)
	if !ok {
		t.Fatalf("no bundle of %s", td)
	}
	return len(b.X509Authorities())
}

func sameSVID(a, b *workloadapi.X509Context) bool {
	return a.DefaultSVID().Certificates[0].Equal(b.DefaultSVID().Certificates[0])
}
