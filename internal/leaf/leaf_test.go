package leaf_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"github.com/tenantmesh/tenantmesh/internal/leaf"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func domain(t *testing.T, name string) *devdomain.Domain {
	t.Helper()
	d, err := devdomain.New(devdomain.Config{TrustDomain: name, Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func raw(t *testing.T, d *devdomain.Domain, template func(*x509.Certificate), opts ...devdomain.LeafOption) []*x509.Certificate {
	t.Helper()
	chain, _, err := d.IssueRaw(template, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func wantReason(t *testing.T, err error, want tenant.Reason) {
	t.Helper()
	if got := tenant.ReasonOf(err); got != want {
		t.Errorf("reason %q, want %q (%v)", got, want, err)
	}
}

func parse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestWrongLeaves is I1 and I2.
func TestWrongLeaves(t *testing.T) {
	d := domain(t, "prod.example")
	for _, l := range devdomain.WrongLeaves() {
		t.Run(l.Name, func(t *testing.T) {
			chain, _, err := l.Issue(d)
			if err != nil {
				t.Fatal(err)
			}
			_, err = leaf.Verify(chain, d.Bundle(), now)
			wantReason(t, err, tenant.SVIDMalformed)
		})
	}
}

func TestLongestID(t *testing.T) {
	d := domain(t, "prod.example")
	long := "spiffe://prod.example/" + strings.Repeat("a", leaf.MaxID-len("spiffe://prod.example/"))
	chain := raw(t, d, func(c *x509.Certificate) { c.URIs[0] = parse(t, long) })
	if v, err := leaf.Verify(chain, d.Bundle(), now); err != nil || v.ID.String() != long {
		t.Errorf("an ID of %d bytes: %v", leaf.MaxID, err)
	}
}

// TestUnspelled: a certificate that was not parsed, or not well, has no SAN to
// compare with.
func TestUnspelled(t *testing.T) {
	good := *raw(t, domain(t, "prod.example"), nil)[0]
	for name, extensions := range map[string][]pkix.Extension{
		"I2 no extension":         nil,
		"I2 an extension of junk": {{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 0x7f}}},
	} {
		t.Run(name, func(t *testing.T) {
			cert := good
			cert.Extensions = extensions
			_, err := leaf.ID(&cert)
			wantReason(t, err, tenant.SVIDMalformed)
		})
	}
}

func TestThumbprint(t *testing.T) {
	cert := raw(t, domain(t, "prod.example"), nil)[0]
	if leaf.Thumbprint(cert) != sha256.Sum256(cert.Raw) {
		t.Error("not x5t#S256")
	}
}

func TestKeys(t *testing.T) {
	d := domain(t, "prod.example")
	ec := func(c elliptic.Curve) crypto.Signer {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	rsaKey := func(bits int) crypto.Signer {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		key  crypto.Signer
		want tenant.Reason
	}{
		{"P-256", ec(elliptic.P256()), ""},
		{"P-384", ec(elliptic.P384()), ""},
		{"RSA 2048", rsaKey(2048), ""},
		{"H6 P-224", ec(elliptic.P224()), tenant.KeyUnsupported},
		{"H6 P-521", ec(elliptic.P521()), tenant.KeyUnsupported},
		{"H6 RSA 1024", rsaKey(1024), tenant.KeyUnsupported},
		{"H6 Ed25519", ed, tenant.KeyUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := leaf.Verify(raw(t, d, nil, devdomain.WithKey(tt.key)), d.Bundle(), now)
			wantReason(t, err, tt.want)
		})
	}
}

// TestKeySizes needs no keys that take long to make.
func TestKeySizes(t *testing.T) {
	for bits, want := range map[uint]tenant.Reason{2047: tenant.KeyUnsupported, 2048: "", 4096: "", 4097: tenant.KeyUnsupported} {
		t.Run(fmt.Sprintf("H6 RSA %d", bits), func(t *testing.T) {
			n := new(big.Int).Lsh(big.NewInt(1), bits-1)
			wantReason(t, leaf.CheckKey(&rsa.PublicKey{N: n, E: 65537}), want)
		})
	}
}

func TestVerify(t *testing.T) {
	d, other := domain(t, "prod.example"), domain(t, "partner.example")
	bundles := x509bundle.NewSet(d.Bundle(), other.Bundle())
	good := raw(t, d, nil)
	three := raw(t, d, nil, devdomain.WithIntermediates(3))
	to := good[0].NotAfter

	// Its issuer expires before it does.
	early := raw(t, d, nil, devdomain.WithIntermediates(2), devdomain.ValidFrom(now.Add(-time.Minute), now.Add(100*365*24*time.Hour)))
	root := d.Bundle().X509Authorities()[0].NotAfter

	for _, tt := range []struct {
		name    string
		chain   []*x509.Certificate
		bundles x509bundle.Source
		now     time.Time
		want    tenant.Reason
	}{
		{"good", good, bundles, now, ""},
		{"two intermediates", raw(t, d, nil, devdomain.WithIntermediates(2)), bundles, now, ""},
		{"none", nil, bundles, now, tenant.SVIDMalformed},
		{"H8 intermediates out of order", []*x509.Certificate{early[0], early[2], early[1]}, bundles, now, tenant.SVIDMalformed},
		{"H8 three intermediates", three, bundles, now, tenant.SVIDMalformed},
		{"an intermediate is missing", three[:2], bundles, now, tenant.SVIDUntrusted},
		{"no bundle of its trust domain", good, other.Bundle(), now, tenant.SVIDUntrusted},
		{"no bundles", good, nil, now, tenant.SVIDUntrusted},
		{"a trust domain signs for another", raw(t, other, func(c *x509.Certificate) { c.URIs[0] = parse(t, "spiffe://prod.example/gateway") }), bundles, now, tenant.SVIDUntrusted},
		{"H5 first instant", good, bundles, good[0].NotBefore, ""},
		{"H5 not yet valid", good, bundles, good[0].NotBefore.Add(-1), tenant.SVIDExpired},
		{"H5 last instant", good, bundles, to.Add(-1), ""},
		{"H5 expired", good, bundles, to, tenant.SVIDExpired},
		{"H5 an expired issuer", early, bundles, root.Add(time.Second), tenant.SVIDExpired},
		{"H5 expired and untrusted", good, other.Bundle(), to, tenant.SVIDUntrusted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := leaf.Verify(tt.chain, tt.bundles, tt.now)
			wantReason(t, err, tt.want)
			if (v == nil) != (err != nil) {
				t.Errorf("%v beside the error %v", v, err)
			}
		})
	}

	t.Run("H9 Valid says the same as Verify", func(t *testing.T) {
		v, err := leaf.Verify(early, bundles, now)
		if err != nil {
			t.Fatal(err)
		}
		if !v.NotAfter.Equal(root) {
			t.Errorf("valid until %s, though the root expires at %s", v.NotAfter, root)
		}
		for _, at := range []time.Time{v.NotBefore.Add(-1), v.NotBefore, now, v.NotAfter.Add(-1), v.NotAfter, v.NotAfter.Add(time.Hour)} {
			_, cold := leaf.Verify(early, bundles, at)
			if warm := v.Valid(at); tenant.ReasonOf(cold) != tenant.ReasonOf(warm) {
				t.Errorf("at %s: cold %v, warm %v", at, cold, warm)
			}
		}
	})
}
