package main

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"math/big"
	"net/url"
	"strings"
	"time"
)

// authority is a CA of a trust domain.
type authority struct {
	domain string
	cert   *x509.Certificate
	key    crypto.Signer
	chain  [][]byte // what a leaf brings along: none for a root
}

// newCA returns a root, or below parent an intermediate, valid from a year
// before noon to a year after it.
func newCA(parent *authority, domain, name string, change ...func(*x509.Certificate)) *authority {
	id := sha256.Sum256([]byte(domain + " " + name))
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: domain}},
		NotBefore:             noon.AddDate(-1, 0, 0),
		NotAfter:              noon.AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SubjectKeyId:          id[:20],
	}
	for _, f := range change {
		f(template)
	}
	key := p256("CA " + domain + " " + name)
	if parent == nil {
		return &authority{domain: domain, cert: certify(template, template, key.Public(), key), key: key}
	}
	cert := certify(template, parent.cert, key.Public(), parent.key)
	return &authority{domain, cert, key, append([][]byte{cert.Raw}, parent.chain...)}
}

// The roots: prod.example is the own trust domain, partner.example is
// federated, and nobody knows the others.
func root() *authority    { return newCA(nil, "prod.example", "root") }
func partner() *authority { return newCA(nil, "partner.example", "root") }
func rogue() *authority   { return newCA(nil, "prod.example", "rogue") }

// identity is an X.509-SVID with its key.
type identity struct {
	id    string
	key   crypto.Signer
	chain [][]byte // DER, leaf first
}

// issue returns an SVID of a workload, valid for an hour around noon.
func (a *authority) issue(path string, change ...func(*x509.Certificate)) *identity {
	return a.issueFor(p256("workload "+a.domain+path), path, change...)
}

func (a *authority) issueFor(key crypto.Signer, path string, change ...func(*x509.Certificate)) *identity {
	template := &x509.Certificate{
		Subject:               pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}}, // as SPIRE has it
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: a.domain, Path: path}},
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
	return &identity{"spiffe://" + a.domain + path, key, append([][]byte{cert.Raw}, a.chain...)}
}

// certify signs with RFC 6979, and with a serial number that is made of what
// is signed.
func certify(template, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	template.SerialNumber = big.NewInt(1)
	first := must(x509.CreateCertificate(nil, template, parent, pub, by))
	sum := sha256.Sum256(first)
	template.SerialNumber = new(big.Int).SetUint64(binary.BigEndian.Uint64(sum[:]) | 1)
	return must(x509.ParseCertificate(must(x509.CreateCertificate(nil, template, parent, pub, by))))
}

func (i *identity) thumbprint() []byte {
	sum := sha256.Sum256(i.chain[0])
	return sum[:]
}

// base64s returns certificates as vectors have them.
func base64s(chain [][]byte) []any {
	list := []any{}
	for _, der := range chain {
		list = append(list, base64.StdEncoding.EncodeToString(der))
	}
	return list
}

// bundles returns the roots by trust domain as vectors have them.
func bundles(roots ...*authority) object {
	o := object{}
	for _, r := range roots {
		list, _ := o[r.domain].([]any)
		o[r.domain] = append(list, base64s([][]byte{r.cert.Raw})...)
	}
	return o
}

// Changes of certificates.

func between(from, to time.Time) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to }
}

// san puts exactly these URIs into the SAN, which CreateCertificate would
// write as net/url sees them.
func san(uris ...string) func(*x509.Certificate) {
	var names []asn1.RawValue
	for _, u := range uris {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(u)})
	}
	value := must(asn1.Marshal(names))
	return func(c *x509.Certificate) {
		c.URIs = nil
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
	}
}

// sized returns a SPIFFE ID of so many bytes.
func sized(n int) string {
	const head = "spiffe://prod.example/"
	return head + strings.Repeat("x", n-len(head))
}
