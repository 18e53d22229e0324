package leaf_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

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

// sanOf returns a change that puts exactly these names into the SAN.
func sanOf(t *testing.T, names ...asn1.RawValue) func(*x509.Certificate) {
	t.Helper()
	value, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) {
		c.URIs = nil
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
	}
}

// TestOtherNames: a name that is spelled right but is no URI counts for nothing.
func TestOtherNames(t *testing.T) {
	d := domain(t, "prod.example")
	right := []byte("spiffe://prod.example/gateway")
	for name, other := range map[string]asn1.RawValue{
		"I2 spelled right as an email address": {Class: asn1.ClassContextSpecific, Tag: 1, Bytes: right},
		"I2 spelled right outside of the tags": {Class: asn1.ClassUniversal, Tag: 6, Bytes: right},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte("SPIFFE://prod.example/gateway")}
			_, err := leaf.ID(raw(t, d, sanOf(t, wrong, other))[0])
			wantReason(t, err, tenant.SVIDMalformed)
		})
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
	two, three := raw(t, d, nil, devdomain.WithIntermediates(2)), raw(t, d, nil, devdomain.WithIntermediates(3))
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
		{"two intermediates", two, bundles, now, ""},
		{"the root beside them", append(raw(t, d, nil, devdomain.WithIntermediates(1)), d.Bundle().X509Authorities()...), bundles, now, ""},
		{"none", nil, bundles, now, tenant.SVIDMalformed},
		{"H8 three intermediates", three, bundles, now, tenant.SVIDMalformed},
		{"H8 intermediates out of order", []*x509.Certificate{two[0], two[2], two[1]}, bundles, now, tenant.SVIDMalformed},
		{"H8 an intermediate that nobody needs", []*x509.Certificate{good[0], two[1]}, bundles, now, tenant.SVIDMalformed},
		{"H8 two that nobody needs", []*x509.Certificate{good[0], two[1], two[2]}, bundles, now, tenant.SVIDMalformed},
		{"H8 the leaf twice", []*x509.Certificate{good[0], good[0]}, bundles, now, tenant.SVIDMalformed},
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

// A root that was renewed with its key stays in the bundle beside the new one
// for a while: a leaf is then valid by either.
func TestRenewedRoot(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certify := func(template *x509.Certificate, from, to time.Time) *x509.Certificate {
		t.Helper()
		template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(to.Unix()), from, to
		issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "root"}, SubjectKeyId: []byte{1}}
		der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	root := func(from, to time.Time) *x509.Certificate {
		return certify(&x509.Certificate{
			Subject: pkix.Name{CommonName: "root"}, SubjectKeyId: []byte{1}, KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		}, from, to)
	}
	first, second := root(now.Add(-2*time.Hour), now.Add(time.Hour)), root(now.Add(-time.Minute), now.Add(2*time.Hour))
	svid := certify(&x509.Certificate{
		URIs: []*url.URL{parse(t, "spiffe://prod.example/gateway")}, KeyUsage: x509.KeyUsageDigitalSignature,
	}, now.Add(-time.Hour), now.Add(3*time.Hour))

	td := spiffeid.RequireTrustDomainFromString("prod.example")
	for name, roots := range map[string][]*x509.Certificate{"old and new": {first, second}, "new and old": {second, first}} {
		v, err := leaf.Verify([]*x509.Certificate{svid}, x509bundle.FromX509Authorities(td, roots), now)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !v.NotBefore.Equal(second.NotBefore) || !v.NotAfter.Equal(second.NotAfter) {
			t.Errorf("%s: valid from %s to %s, want the path by the new root", name, v.NotBefore, v.NotAfter)
		}
	}
}

// The example of RFC 8705, appendix A.
func TestThumbprint(t *testing.T) {
	block, _ := pem.Decode([]byte(`-----BEGIN CERTIFICATE-----
MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAx
ODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqG
SM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ
/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwID
SQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOV
bUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=
-----END CERTIFICATE-----
`))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sum := leaf.Thumbprint(cert)
	if got, want := base64.RawURLEncoding.EncodeToString(sum[:]), "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"; got != want {
		t.Errorf("x5t#S256 is %s, want %s", got, want)
	}
}
