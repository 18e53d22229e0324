package devdomain

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// backdate makes certificates valid a little before they are issued, as SPIRE
// does, for clocks that lag behind; those that live shortly, half their TTL.
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

// WithKey sets the leaf's key; without it, a new one of [Config].KeyType.
func WithKey(key crypto.Signer) LeafOption {
	return func(c *leafConfig) { c.key = key }
}

// WithIntermediates puts n new intermediate CAs between the root and the leaf,
// below those that [Config].Intermediates asks for.
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
// leaf first, and the leaf's key. Of a leaf that crypto/x509 does not parse, only
// Raw, NotBefore and NotAfter are set.
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
	issuer, err := d.active().issuer.below(cfg.intermediates, d.td, d.cfg.KeyType, now)
	if err != nil {
		return nil, nil, err
	}
	if cfg.notAfter.IsZero() {
		cfg.notBefore, cfg.notAfter = now.Add(-min(backdate, d.cfg.TTL/2)), now.Add(d.cfg.TTL)
	}
	if cfg.key == nil {
		if cfg.key, err = d.cfg.KeyType.generate(); err != nil {
			return nil, nil, err
		}
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
	der, err := certify(template, issuer, cfg.key)
	if err != nil {
		return nil, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil { // it was to be wrong: a peer must see it all the same
		leaf = &x509.Certificate{Raw: der, NotBefore: template.NotBefore, NotAfter: template.NotAfter}
	}
	return append([]*x509.Certificate{leaf}, issuer.chain...), cfg.key, nil
}

// below returns a CA that is n new intermediates further down.
func (a *authority) below(n int, td spiffeid.TrustDomain, kt KeyType, now time.Time) (*authority, error) {
	for range n {
		ca, err := newCA(a, td, kt, now)
		if err != nil {
			return nil, err
		}
		ca.chain = append([]*x509.Certificate{ca.cert}, a.chain...)
		a = ca
	}
	return a, nil
}

// newCA returns a CA below parent; without one, a root.
func newCA(parent *authority, td spiffeid.TrustDomain, kt KeyType, now time.Time) (*authority, error) {
	key, err := kt.generate()
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
	der, err := certify(template, parent, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("devdomain: %w", err)
	}
	return &authority{cert: cert, key: key}, nil
}

// certify signs template for key; without a parent, by key itself.
func certify(template *x509.Certificate, parent *authority, key crypto.Signer) ([]byte, error) {
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
	return der, nil
}
