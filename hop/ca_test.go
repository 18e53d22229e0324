package hop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// noon is when the calls of these tests are made. All times are inputs of this
// package, so that its tests need no clock; svid/devdomain issues for today.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// ca is a certificate authority of one trust domain.
type ca struct {
	cert  *x509.Certificate
	key   crypto.Signer
	chain []*x509.Certificate // what a leaf brings along: none for a root
}

// newCA returns a root, or below parent an intermediate, valid from a year
// before noon to a year after it.
func newCA(parent *ca, change ...func(*x509.Certificate)) *ca {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "CA"},
		URIs:                  []*url.URL{must(url.Parse("spiffe://prod.example"))},
		NotBefore:             noon.AddDate(-1, 0, 0),
		NotAfter:              noon.AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	for _, f := range change {
		f(template)
	}
	key := newKey(elliptic.P256())
	if parent == nil {
		return &ca{cert: certify(template, template, key.Public(), key), key: key}
	}
	cert := certify(template, parent.cert, key.Public(), parent.key)
	return &ca{cert: cert, key: key, chain: append([]*x509.Certificate{cert}, parent.chain...)}
}

// issue returns an SVID of the workload with a new key on P-256, valid for an
// hour around noon.
func (a *ca) issue(name string, change ...func(*x509.Certificate)) *x509svid.SVID {
	return a.issueFor(newKey(elliptic.P256()), name, change...)
}

func (a *ca) issueFor(key crypto.Signer, name string, change ...func(*x509.Certificate)) *x509svid.SVID {
	id := spiffeid.RequireFromString("spiffe://prod.example/" + name)
	template := &x509.Certificate{
		Subject:               pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}}, // as SPIRE has it
		URIs:                  []*url.URL{id.URL()},
		NotBefore:             noon.Add(-time.Hour / 2),
		NotAfter:              noon.Add(time.Hour / 2),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, f := range change {
		f(template)
	}
	cert := certify(template, a.cert, key.Public(), a.key)
	return &x509svid.SVID{ID: id, Certificates: append([]*x509.Certificate{cert}, a.chain...), PrivateKey: key}
}

// bundles returns a source that knows the CA alone.
func (a *ca) bundles() x509bundle.Source {
	td := spiffeid.RequireTrustDomainFromString("prod.example")
	return x509bundle.FromX509Authorities(td, []*x509.Certificate{a.cert})
}

func certify(template, parent *x509.Certificate, key crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	template.SerialNumber = must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)))
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, parent, key, by))))
}

func newKey(curve elliptic.Curve) *ecdsa.PrivateKey {
	return must(ecdsa.GenerateKey(curve, rand.Reader))
}

// must panics where building what a test works on fails.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// between makes a certificate valid from a to b.
func between(a, b time.Time) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = a, b }
}
