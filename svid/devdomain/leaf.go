package devdomain

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// backdate makes certificates valid a little before they are issued, as SPIRE
// does, for clocks that lag behind.
const backdate = 10 * time.Second

// rootTTL is how long roots live: long, so that leaves expire before them.
const rootTTL = 10 * 365 * 24 * time.Hour

// authority is a key that issues certificates.
type authority struct {
	cert  *x509.Certificate
	key   crypto.Signer
	chain []*x509.Certificate // what a leaf brings along: none for a root
}

// LeafOption changes how [Domain.Issue] and [Domain.IssueRaw] issue.
type LeafOption func(*leafConfig)

type leafConfig struct {
	notBefore, notAfter time.Time
	key                 crypto.Signer
	intermediates       int
}

// ValidFrom sets when the leaf becomes valid and when it expires, to the second.
func ValidFrom(notBefore, notAfter time.Time) LeafOption {
	return func(c *leafConfig) { c.notBefore, c.notAfter = notBefore, notAfter }
}

// WithKey sets the leaf's key; without it, a new one on P-256.
func WithKey(key crypto.Signer) LeafOption {
	return func(c *leafConfig) { c.key = key }
}

// WithIntermediates puts n new intermediate CAs between the root and the leaf.
func WithIntermediates(n int) LeafOption {
	return func(c *leafConfig) { c.intermediates = n }
}

// Issue issues an SVID that no Workload API hands out. The ID is one of this
// trust domain.
func (d *Domain) Issue(id string, opts ...LeafOption) (*x509svid.SVID, error) {
	name, err := d.member(id)
	if err != nil {
		return nil, err
	}
	var cfg leafConfig
	for _, opt := range opts {
		opt(&cfg)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.issue(name, cfg)
}

// IssueRaw signs a certificate that is an SVID of the workload /raw but for
// what template changes in it, however wrong that is. It returns the chain, the
// leaf first, and the leaf's key.
func (d *Domain) IssueRaw(template func(*x509.Certificate), opts ...LeafOption) ([]*x509.Certificate, crypto.Signer, error) {
	id, err := spiffeid.FromPath(d.td, "/raw")
	if err != nil {
		return nil, nil, fmt.Errorf("devdomain: %w", err)
	}
	var cfg leafConfig
	for _, opt := range opts {
		opt(&cfg)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sign(id, cfg, template)
}

// member parses the SPIFFE ID of a workload of this trust domain.
func (d *Domain) member(id string) (spiffeid.ID, error) {
	name, err := spiffeid.FromString(id)
	switch {
	case err != nil:
		return spiffeid.ID{}, fmt.Errorf("devdomain: %q: %w", id, err)
	case !name.MemberOf(d.td) || name.Path() == "":
		return spiffeid.ID{}, fmt.Errorf("devdomain: %s is no workload of the trust domain %s", name, d.td)
	}
	return name, nil
}

// issue issues an SVID; d.mu is held.
func (d *Domain) issue(id spiffeid.ID, cfg leafConfig) (*x509svid.SVID, error) {
	chain, key, err := d.sign(id, cfg, nil)
	if err != nil {
		return nil, err
	}
	return &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}, nil
}

// sign issues a leaf; d.mu is held.
func (d *Domain) sign(id spiffeid.ID, cfg leafConfig, change func(*x509.Certificate)) ([]*x509.Certificate, crypto.Signer, error) {
	now := d.cfg.Clock()
	issuer := d.roots[len(d.roots)-1]
	for range cfg.intermediates {
		next, err := newIntermediate(issuer, d.td, now)
		if err != nil {
			return nil, nil, err
		}
		issuer = next
	}
	if cfg.notAfter.IsZero() {
		cfg.notBefore, cfg.notAfter = now.Add(-backdate), now.Add(d.cfg.TTL)
	}
	if cfg.key == nil {
		key, err := newKey()
		if err != nil {
			return nil, nil, err
		}
		cfg.key = key
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}},
		URIs:                  []*url.URL{id.URL()},
		NotBefore:             cfg.notBefore,
		NotAfter:              cfg.notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if change != nil {
		change(template)
	}
	leaf, err := certify(template, issuer, cfg.key)
	if err != nil {
		return nil, nil, err
	}
	return append([]*x509.Certificate{leaf}, issuer.chain...), cfg.key, nil
}

func newRoot(td spiffeid.TrustDomain, now time.Time) (*authority, error) {
	return newCA(nil, td, now)
}

func newIntermediate(parent *authority, td spiffeid.TrustDomain, now time.Time) (*authority, error) {
	ca, err := newCA(parent, td, now)
	if err != nil {
		return nil, err
	}
	ca.chain = append([]*x509.Certificate{ca.cert}, slices.Clone(parent.chain)...)
	return ca, nil
}

func newCA(parent *authority, td spiffeid.TrustDomain, now time.Time) (*authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{Country: []string{"US"}, Organization: []string{"SPIFFE"}},
		URIs:                  []*url.URL{td.ID().URL()},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(rootTTL),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	cert, err := certify(template, parent, key)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, key: key}, nil
}

// certify signs template for key; without a parent, by key itself.
func certify(template *x509.Certificate, parent *authority, key crypto.Signer) (*x509.Certificate, error) {
	if template.SerialNumber == nil {
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
		if err != nil {
			return nil, fmt.Errorf("devdomain: %w", err)
		}
		template.SerialNumber = serial.Add(serial, big.NewInt(1)) // positive (RFC 5280, section 4.1.2.2)
	}
	// Names repeat, so the serial tells CAs apart.
	if template.IsCA && template.Subject.SerialNumber == "" {
		template.Subject.SerialNumber = template.SerialNumber.String()
	}
	if parent == nil {
		parent = &authority{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	if err != nil {
		return nil, fmt.Errorf("devdomain: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("devdomain: %w", err)
	}
	return cert, nil
}

func newKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("devdomain: %w", err)
	}
	return key, nil
}
