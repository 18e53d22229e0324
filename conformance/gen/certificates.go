package main

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"time"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
)

// publicKey is a key that signs nothing: only its certificate is looked at.
type publicKey struct {
	crypto.Signer
	public crypto.PublicKey
}

func (k publicKey) Public() crypto.PublicKey { return k.public }

// longRSA has 4104 bits.
func longRSA() crypto.Signer {
	n := new(big.Int).SetBit(big.NewInt(1), 4103, 1)
	return publicKey{public: &rsa.PublicKey{N: n, E: 65537}}
}

func certificateVectors() []vectors.Vector {
	r := root()
	input := func(i *identity) object {
		return object{"chain": base64s(i.chain), "bundles": bundles(r, partner()), "now": noon.Unix()}
	}
	ok := func(i *identity) object { return object{"id": i.id} }
	good := r.issue("/gateway")
	leaf := base("svid", "An SVID as SPIRE issues it.", input(good), ok(good))
	out := []vectors.Vector{leaf}
	positive := func(lines, comment string, i *identity, change func(object)) {
		in := input(i)
		if change != nil {
			change(in)
		}
		out = append(out, derived(lines, comment, leaf, in, ok(i), "", -1))
	}
	now := func(t time.Time) func(object) { return func(o object) { o["now"] = t.Unix() } }
	positive("", "A P-384 key.", r.issueFor(ecKey(elliptic.P384(), "p384"), "/gateway"), nil)
	positive("", "An RSA key of 2048 bits.", r.issueFor(rsaKeys["workload"], "/gateway"), nil)
	positive("", "Two intermediates.", newCA(newCA(r, "prod.example", "one"), "prod.example", "two").issue("/gateway"), nil)
	positive("", "The root behind its leaf.", &identity{id: good.id, chain: [][]byte{good.chain[0], r.cert.Raw}}, nil)
	positive("", "A federated trust domain.", partner().issue("/gateway"), nil)
	positive("I2", "A SPIFFE ID of 2048 bytes.", renamed(r.issue("/gateway", san(sized(2048))), sized(2048)), nil)
	positive("I2", "Every character that a path may have.", r.issue("/AZaz09.-_/..."), nil)
	positive("H5", "The second of NotBefore.", good, now(noon.Add(-time.Hour/2)))
	positive("H5", "The second before NotAfter.", good, now(noon.Add(time.Hour/2-time.Second)))

	refuse := func(lines, comment, reason string, i *identity, change func(object)) {
		in := input(i)
		if change != nil {
			change(in)
		}
		out = append(out, derived(lines, comment, leaf, in, nil, reason, -1))
	}
	for _, m := range []struct {
		comment string
		change  func(*x509.Certificate)
	}{
		{"Two URI SANs.", san("spiffe://prod.example/gateway", "spiffe://prod.example/admin")},
		{"The same URI SAN twice.", san("spiffe://prod.example/gateway", "spiffe://prod.example/gateway")},
		{"A SPIFFE ID, and a URI that is none.", san("spiffe://prod.example/gateway", "https://prod.example/")},
		{"No SAN.", func(c *x509.Certificate) { c.URIs = nil }},
		{"A CA leaf.", func(c *x509.Certificate) { c.IsCA = true }},
		{"No digitalSignature.", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }},
		{"No key usage.", func(c *x509.Certificate) { c.KeyUsage = 0 }},
		{"The key usage keyCertSign.", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }},
		{"The key usage cRLSign.", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }},
		{"A leaf without a path.", san("spiffe://prod.example")},
		{"The identity in the subject alone.", func(c *x509.Certificate) {
			c.URIs, c.Subject = nil, pkix.Name{CommonName: "spiffe://prod.example/gateway"}
		}},
		{"The identity as a DNS SAN.", func(c *x509.Certificate) {
			c.URIs, c.DNSNames = nil, []string{"gateway.prod.example"}
		}},
	} {
		refuse("I1", m.comment, "SVID_MALFORMED", r.issue("/gateway", m.change), nil)
	}
	for _, m := range []struct{ lines, comment, uri string }{
		{"I2", "2049 bytes.", sized(2049)},
		{"I2", "Upper case in the scheme.", "SPIFFE://prod.example/gateway"},
		{"I2", "Upper case in the trust domain.", "spiffe://PROD.example/gateway"},
		{"I2", "Another scheme.", "https://prod.example/gateway"},
		{"I2", "No authority.", "spiffe:prod.example/gateway"},
		{"I2", "An empty trust domain.", "spiffe:///gateway"},
		{"I2", "A port.", "spiffe://prod.example:443/gateway"},
		{"I2", "An empty port.", "spiffe://prod.example:/gateway"},
		{"I2", "User info.", "spiffe://root@prod.example/gateway"},
		{"I2", "A query.", "spiffe://prod.example/gateway?a"},
		{"I2", "An empty query.", "spiffe://prod.example/gateway?"},
		{"I2", "A fragment.", "spiffe://prod.example/gateway#a"},
		{"I2", "An empty fragment.", "spiffe://prod.example/gateway#"},
		{"I2", "An escaped look-alike.", "spiffe://prod.example/g%D0%B0teway"},
		{"I2", "An escaped letter.", "spiffe://prod.example/%67ateway"},
		{"I2", "A trailing slash.", "spiffe://prod.example/gateway/"},
		{"I2", "Two slashes.", "spiffe://prod.example//gateway"},
		{"I2", "A character that a path may not have.", "spiffe://prod.example/gate~way"},
		{"I2 I7", "A dot.", "spiffe://prod.example/./gateway"},
		{"I2 I7", "Two dots.", "spiffe://prod.example/tenant/acme/../globex"},
		{"I2 I7", "Two dots at the end.", "spiffe://prod.example/tenant/acme/.."},
		{"I2 I7", "Two dots escaped.", "spiffe://prod.example/tenant/acme/%2e%2e/globex"},
		{"I2 I7", "A dot escaped.", "spiffe://prod.example/%2e"},
		{"I2 I7", "A slash escaped.", "spiffe://prod.example/tenant/acme%2f..%2fglobex"},
		{"I2 I7", "A NUL escaped.", "spiffe://prod.example/gateway%00"},
		{"I2 I7", "A back slash.", `spiffe://prod.example/tenant\..\gateway`},
	} {
		refuse(m.lines, m.comment, "SVID_MALFORMED", r.issue("/gateway", san(m.uri)), nil)
	}
	refuse("H6", "A key on P-224.", "KEY_UNSUPPORTED", r.issueFor(ecKey(elliptic.P224(), "p224"), "/gateway"), nil)
	refuse("H6", "A key on P-521.", "KEY_UNSUPPORTED", r.issueFor(ecKey(elliptic.P521(), "p521"), "/gateway"), nil)
	refuse("H6", "An Ed25519 key.", "KEY_UNSUPPORTED", r.issueFor(ed25519Key("ed25519"), "/gateway"), nil)
	refuse("H6", "An RSA key of 1024 bits.", "KEY_UNSUPPORTED", r.issueFor(rsaKeys["short"], "/gateway"), nil)
	refuse("H6", "An RSA key of 4104 bits.", "KEY_UNSUPPORTED", r.issueFor(longRSA(), "/gateway"), nil)

	refuse("H5", "The second before NotBefore.", "SVID_EXPIRED", good, now(noon.Add(-time.Hour/2-time.Second)))
	refuse("H5 I5", "The second of NotAfter.", "SVID_EXPIRED", good, now(noon.Add(time.Hour/2)))
	refuse("H5 I5", "Long expired.", "SVID_EXPIRED", good, now(noon.AddDate(0, 1, 0)))
	refuse("H5 I5", "An intermediate that expired.", "SVID_EXPIRED",
		newCA(r, "prod.example", "early", between(noon.Add(-time.Hour), noon.Add(-time.Second))).issue("/gateway"), nil)
	refuse("H5 I5", "An intermediate in the second of its NotAfter.", "SVID_EXPIRED",
		newCA(r, "prod.example", "now", between(noon.Add(-time.Hour), noon)).issue("/gateway"), nil)
	refuse("H5", "An intermediate that is not valid yet.", "SVID_EXPIRED",
		newCA(r, "prod.example", "late", between(noon.Add(time.Second), noon.Add(time.Hour))).issue("/gateway"), nil)
	refuse("I5", "A root that expired.", "SVID_EXPIRED",
		r.issue("/gateway", between(noon, noon.AddDate(9, 0, 0))), now(noon.AddDate(2, 0, 0)))

	without := func(domain string) func(object) {
		return func(o object) {
			b := bundles(r, partner())
			delete(b, domain)
			o["bundles"] = b
		}
	}
	three := newCA(newCA(newCA(r, "prod.example", "one"), "prod.example", "two"), "prod.example", "three").issue("/gateway")
	two := newCA(newCA(r, "prod.example", "one"), "prod.example", "two").issue("/gateway")
	one := newCA(r, "prod.example", "one").issue("/gateway")
	refuse("H8", "Three intermediates.", "SVID_MALFORMED", three, nil)
	refuse("H8", "Intermediates in the wrong order.", "SVID_MALFORMED", &identity{chain: [][]byte{two.chain[0], two.chain[2], two.chain[1]}}, nil)
	refuse("H8", "An intermediate that nobody needs.", "SVID_MALFORMED", &identity{chain: [][]byte{good.chain[0], two.chain[2]}}, nil)
	refuse("H8", "An intermediate of another trust domain behind the leaf.", "SVID_MALFORMED", &identity{chain: [][]byte{good.chain[0], partner().cert.Raw}}, nil)
	refuse("H8", "An intermediate twice.", "SVID_MALFORMED", &identity{chain: append(one.chain, one.chain[1])}, nil)
	refuse("H8", "The root twice.", "SVID_MALFORMED", &identity{chain: [][]byte{good.chain[0], r.cert.Raw, r.cert.Raw}}, nil)
	refuse("H8", "The leaf twice.", "SVID_MALFORMED", &identity{chain: [][]byte{good.chain[0], good.chain[0]}}, nil)
	refuse("", "No certificate.", "SVID_MALFORMED", good, func(o object) { o["chain"] = []any{} })
	refuse("H5 I4", "No bundle of its trust domain.", "SVID_UNTRUSTED", good, without("prod.example"))
	refuse("H5 I4", "A trust domain that is no longer federated.", "SVID_UNTRUSTED", partner().issue("/gateway"), without("partner.example"))
	refuse("I4", "No bundles.", "SVID_UNTRUSTED", good, func(o object) { o["bundles"] = object{} })
	refuse("H5 I4", "An authority that was rotated out of the bundle.", "SVID_UNTRUSTED", good, func(o object) {
		b := bundles(rogue(), partner())
		o["bundles"] = b
	})
	refuse("H5", "Another authority of the same name.", "SVID_UNTRUSTED", rogue().issue("/gateway"), nil)
	refuse("I3 I7", "A federated trust domain signs for another.", "SVID_UNTRUSTED",
		partner().issue("/gateway", san("spiffe://prod.example/gateway")), nil)
	refuse("I3 I7", "A trust domain signs for a federated one.", "SVID_UNTRUSTED",
		r.issue("/gateway", san("spiffe://partner.example/gateway")), nil)
	refuse("I7", "A workload's key signs an SVID for another path.", "SVID_UNTRUSTED", bySVID(good), nil)
	refuse("I4 I7", "A bundle that stands under another trust domain's name.", "SVID_UNTRUSTED", good, func(o object) {
		b := bundles(r, partner())
		b["prod.example"], b["partner.example"] = b["partner.example"], b["prod.example"]
		o["bundles"] = b
	})
	refuse("", "A chain without one of its intermediates.", "SVID_UNTRUSTED", &identity{chain: [][]byte{two.chain[0], two.chain[2]}}, nil)
	refuse("", "A root in place of its leaf.", "SVID_MALFORMED", &identity{chain: [][]byte{r.cert.Raw}}, nil)
	refuse("", "A bit of the signature flipped.", "SVID_UNTRUSTED", &identity{chain: [][]byte{flipLast(good.chain[0])}}, nil)
	return out
}

func renamed(i *identity, id string) *identity { i.id = id; return i }

// bySVID returns an SVID that another SVID's key signed.
func bySVID(i *identity) *identity {
	signer := &authority{"prod.example", must(x509.ParseCertificate(i.chain[0])), i.key, i.chain}
	return signer.issue("/admin")
}

func flipLast(b []byte) []byte {
	b = append([]byte(nil), b...)
	b[len(b)-1] ^= 1
	return b
}
