// Package leaf checks X.509-SVIDs as the SPIFFE X509-SVID standard asks and
// this profile narrows it. The connection's peer and the signers of a chain
// pass through the same checks.
package leaf

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// MaxIntermediates is how many intermediates may follow a leaf.
const MaxIntermediates = 2

// MaxID is the longest SPIFFE ID in bytes (SPIFFE-ID standard, section 2.3).
const MaxID = 2048

// Verified is an SVID that was checked, and the time within which the whole
// chain to the root is valid.
type Verified struct {
	ID                  spiffeid.ID
	Leaf                *x509.Certificate
	NotBefore, NotAfter time.Time
}

// Valid says whether v is valid at now.
func (v *Verified) Valid(now time.Time) error {
	switch {
	case now.Before(v.NotBefore):
		return tenant.Deny(tenant.SVIDExpired, "%s is not valid before %s", v.ID, v.NotBefore.Format(time.RFC3339))
	case !now.Before(v.NotAfter):
		return tenant.Deny(tenant.SVIDExpired, "%s expired at %s", v.ID, v.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// Thumbprint returns the SHA-256 of the certificate's DER, x5t#S256 as
// RFC 7515, section 4.1.8 has it.
func Thumbprint(cert *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(cert.Raw) }

// ID returns the SPIFFE ID of a leaf that has the form of an X.509-SVID
// (X509-SVID, sections 2, 4 and 5), or fails with [tenant.SVIDMalformed] or
// [tenant.KeyUnsupported]. It says nothing of the leaf's validity or issuer.
func ID(cert *x509.Certificate) (spiffeid.ID, error) {
	bad := func(format string, args ...any) (spiffeid.ID, error) {
		return spiffeid.ID{}, tenant.Deny(tenant.SVIDMalformed, format, args...)
	}
	if len(cert.URIs) != 1 {
		return bad("a leaf has exactly one URI SAN, this one %d", len(cert.URIs))
	}
	if n := len(cert.URIs[0].String()); n > MaxID {
		return bad("a SPIFFE ID has at most %d bytes, this one %d", MaxID, n)
	}
	id, err := x509svid.IDFromCert(cert)
	switch {
	case err != nil:
		return bad("the URI SAN is not a SPIFFE ID: %w", err)
	case !hasURI(cert, id.String()):
		// net/url folds the scheme's case and drops an empty fragment.
		return bad("the URI SAN is not spelled as the SPIFFE ID %s", id)
	case id.Path() == "":
		return bad("%s names a trust domain, not a workload", id)
	case cert.IsCA:
		return bad("%s: a leaf is not a CA", id)
	case cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return bad("%s: a leaf has the key usage digitalSignature", id)
	case cert.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return bad("%s: a leaf may not have the key usages keyCertSign or cRLSign", id)
	}
	if err := CheckKey(cert.PublicKey); err != nil {
		return spiffeid.ID{}, err
	}
	return id, nil
}

// hasURI reports whether cert has a URI SAN (RFC 5280, section 4.2.1.6) that
// is uri byte by byte.
func hasURI(cert *x509.Certificate, uri string) bool {
	return slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool {
		if !e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			return false
		}
		var names []asn1.RawValue // none, if they cannot be read
		_, _ = asn1.Unmarshal(e.Value, &names)
		return slices.ContainsFunc(names, func(n asn1.RawValue) bool {
			return n.Class == asn1.ClassContextSpecific && n.Tag == 6 && string(n.Bytes) == uri
		})
	})
}

// CheckKey fails with [tenant.KeyUnsupported] for a key that is not P-256, P-384 or
// RSA of 2048 to 4096 bits.
func CheckKey(pub any) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
		return tenant.Deny(tenant.KeyUnsupported, "an EC key is on P-256 or P-384, this one on %s", k.Curve.Params().Name)
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= 2048 && n <= 4096 {
			return nil
		}
		return tenant.Deny(tenant.KeyUnsupported, "an RSA key has 2048 to 4096 bits, this one %d", k.N.BitLen())
	}
	return tenant.Deny(tenant.KeyUnsupported, "a key of type %T", pub)
}

// Verify checks a chain, the leaf first, at now against the bundle of the
// leaf's own trust domain. It fails with [tenant.SVIDMalformed],
// [tenant.KeyUnsupported], [tenant.SVIDExpired] or [tenant.SVIDUntrusted].
func Verify(chain []*x509.Certificate, bundles x509bundle.Source, now time.Time) (*Verified, error) {
	if len(chain) == 0 {
		return nil, tenant.Deny(tenant.SVIDMalformed, "no certificate")
	}
	if len(chain) > 1+MaxIntermediates {
		return nil, tenant.Deny(tenant.SVIDMalformed, "a leaf and at most %d intermediates, not %d certificates", MaxIntermediates, len(chain))
	}
	id, err := ID(chain[0])
	if err != nil {
		return nil, err
	}
	_, chains, err := x509svid.Verify(chain, bundles, x509svid.WithTime(now))
	if err != nil {
		// crypto/x509 reports an expired issuer as an unknown one. If all was well
		// when the chain came into force, time is what is wrong with it, and
		// [Verified.Valid] would say so too.
		then, _ := window(chain)
		if _, _, before := x509svid.Verify(chain, bundles, x509svid.WithTime(then)); before == nil {
			return nil, tenant.Deny(tenant.SVIDExpired, "%s: %w", id, err)
		}
		return nil, tenant.Deny(tenant.SVIDUntrusted, "%s: %w", id, err)
	}
	v := &Verified{ID: id, Leaf: chain[0]}
	for _, path := range chains {
		// crypto/x509 takes intermediates in any order, and ones that nobody needs;
		// here the path is what was presented, and then the root. Of several, the one
		// that holds longest counts.
		presented := slices.EqualFunc(path[:min(len(path), len(chain))], chain, (*x509.Certificate).Equal)
		if from, to := window(path); presented && to.After(v.NotAfter) {
			v.NotBefore, v.NotAfter = from, to
		}
	}
	if v.NotAfter.IsZero() {
		return nil, tenant.Deny(tenant.SVIDMalformed, "%s: its certificates are not each issued by the next", id)
	}
	if err := v.Valid(now); err != nil {
		return nil, err
	}
	return v, nil
}

// window returns the time in which every certificate of chain is valid.
func window(chain []*x509.Certificate) (from, to time.Time) {
	from, to = chain[0].NotBefore, chain[0].NotAfter
	for _, c := range chain[1:] {
		if c.NotBefore.After(from) {
			from = c.NotBefore
		}
		if c.NotAfter.Before(to) {
			to = c.NotAfter
		}
	}
	return from, to
}
