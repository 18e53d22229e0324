package devdomain

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/url"
	"strings"
)

// WrongLeaf is a leaf that is no X.509-SVID in one way, though a trusted root
// signed it. Whatever verifies leaves refuses it with [tenant.SVIDMalformed].
type WrongLeaf struct {
	// Name says what is wrong, after the line of attack: I1 for the form of the
	// certificate, I2 for the spelling of the SPIFFE ID, I7 for a path that leaves
	// its place (CVE-2021-27099).
	Name   string
	change change
}

// change makes a leaf of the trust domain wrong.
type change func(td string, c *x509.Certificate)

// Issue has d sign the leaf, and returns the chain, the leaf first, and the
// leaf's key, as [Domain.IssueRaw] does.
func (l WrongLeaf) Issue(d *Domain) ([]*x509.Certificate, crypto.Signer, error) {
	return d.IssueRaw(func(c *x509.Certificate) { l.change(d.td.Name(), c) })
}

// WrongLeaves returns a leaf for each way in which one can be wrong, for tests of
// what verifies leaves.
func WrongLeaves() []WrongLeaf {
	return []WrongLeaf{
		{"I1 two URI SANs", func(td string, c *x509.Certificate) {
			c.URIs = append(c.URIs, &url.URL{Scheme: "spiffe", Host: td, Path: "/b"})
		}},
		{"I1 no URI SAN", func(_ string, c *x509.Certificate) { c.URIs = nil }},
		{"I1 identity in the subject alone", func(td string, c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: c.URIs[0].String()}
			c.URIs = nil
			c.DNSNames = []string{"raw." + td}
		}},
		{"I1 a CA leaf", func(_ string, c *x509.Certificate) { c.IsCA = true }},
		{"I1 no digitalSignature", func(_ string, c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }},
		{"I1 no key usage", func(_ string, c *x509.Certificate) { c.KeyUsage = 0 }},
		{"I1 keyCertSign", func(_ string, c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }},
		{"I1 cRLSign", func(_ string, c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }},
		{"I1 no path", uri("spiffe://%s")},
		{"I2 2,049 bytes", func(td string, c *x509.Certificate) {
			start := "spiffe://" + td + "/"
			putURI(c, start+strings.Repeat("a", 2049-len(start)))
		}},
		{"I2 upper case scheme", uri("SPIFFE://%s/gateway")},
		{"I2 upper case trust domain", func(td string, c *x509.Certificate) {
			putURI(c, "spiffe://"+strings.ToUpper(td)+"/gateway")
		}},
		{"I2 %2e", uri("spiffe://%s/%%2e")},
		{"I2 %67", uri("spiffe://%s/%%67ateway")},
		{"I2 dot", uri("spiffe://%s/./gateway")},
		{"I2 dot dot", uri("spiffe://%s/a/../gateway")},
		{"I2 double slash", uri("spiffe://%s//gateway")},
		{"I2 trailing slash", uri("spiffe://%s/gateway/")},
		{"I2 port", uri("spiffe://%s:443/gateway")},
		{"I2 user info", uri("spiffe://root@%s/gateway")},
		{"I2 query", uri("spiffe://%s/gateway?a")},
		{"I2 empty query", uri("spiffe://%s/gateway?")},
		{"I2 fragment", uri("spiffe://%s/gateway#a")},
		{"I2 empty fragment", uri("spiffe://%s/gateway#")},
		{"I2 opaque", uri("spiffe:%s/gateway")},
		{"I2 another scheme", uri("https://%s/gateway")},
		{"I2 encoded look-alike", uri("spiffe://%s/g%%D0%%B0teway")},
		{"I2 look-alike", uri("spiffe://%s/g\u0430teway")}, // a Cyrillic letter
		{"I7 path escape", uri("spiffe://%s/tenant/acme/../globex/runner/1")},
		{"I7 encoded path escape", uri("spiffe://%s/tenant/acme/%%2e%%2e/globex/runner/1")},
		{"I7 encoded slash", uri("spiffe://%s/tenant/acme%%2frunner/1")},
	}
}

// uri makes the URI SAN what format makes of the trust domain.
func uri(format string) change {
	return func(td string, c *x509.Certificate) { putURI(c, fmt.Sprintf(format, td)) }
}

// putURI puts exactly these bytes into the URI SAN (RFC 5280, section 4.2.1.6),
// where x509.CreateCertificate would write what net/url makes of them.
func putURI(c *x509.Certificate, uri string) {
	// Bytes are always marshalled.
	value, _ := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}})
	c.URIs = nil
	c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
}
