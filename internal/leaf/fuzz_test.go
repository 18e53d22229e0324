package leaf_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"maps"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/internal/leaf"
	"github.com/tenantmesh/tenantmesh/internal/vectors"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// vector is the input of one of certificates.json.
type vector struct {
	Chain   [][]byte
	Bundles map[string][][]byte
	Now     int64
}

func (v *vector) source() *x509bundle.Set {
	set := x509bundle.NewSet()
	for name, roots := range v.Bundles {
		set.Add(x509bundle.FromX509Authorities(spiffeid.RequireTrustDomainFromString(name), certificates(roots...)))
	}
	return set
}

func vectorChains(f *testing.F) []vector {
	f.Helper()
	list, err := vectors.Inputs[vector]("../../conformance/vectors/certificates.json") // fails if it is empty
	if err != nil {
		f.Fatal(err)
	}
	return list
}

// certificates returns those that parse, up to the first that does not.
func certificates(ders ...[]byte) (out []*x509.Certificate) {
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			break
		}
		out = append(out, cert)
	}
	return out
}

// What verifies was issued: it is made of certificates of the vectors. All else
// is refused for a reason of SVIDs.
func FuzzVerify(f *testing.F) {
	list := vectorChains(f)
	issued := map[string]bool{}
	for i, v := range list {
		chain := append(slices.Clone(v.Chain), nil, nil, nil)
		f.Add(i, chain[0], chain[1], chain[2])
		for _, der := range slices.Concat(v.Chain, slices.Concat(slices.Collect(maps.Values(v.Bundles))...)) {
			issued[string(der)] = true
		}
	}
	f.Fuzz(func(t *testing.T, i int, one, two, three []byte) {
		if i < 0 || i >= len(list) {
			return
		}
		chain := certificates(one, two, three)
		v, err := leaf.Verify(chain, list[i].source(), time.Unix(list[i].Now, 0))
		if err != nil {
			switch r := tenant.ReasonOf(err); r {
			case tenant.SVIDMalformed, tenant.KeyUnsupported, tenant.SVIDExpired, tenant.SVIDUntrusted:
			default:
				t.Fatalf("refused for %q: %v", r, err)
			}
			if v != nil {
				t.Fatal("an error came with an SVID")
			}
			return
		}
		for _, cert := range chain {
			if !issued[string(cert.Raw)] {
				t.Fatalf("nobody issued %s", base64.StdEncoding.EncodeToString(cert.Raw))
			}
		}
	})
}

// What is taken for a SPIFFE ID is spelled as the certificate has it.
func FuzzID(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	seeds := 0
	for _, v := range vectorChains(f) {
		for _, cert := range certificates(v.Chain...) {
			for _, uri := range cert.URIs {
				seeds++
				f.Add(uri.String())
			}
		}
	}
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, uri string) {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: now, NotAfter: now.Add(time.Hour)}
		sanOf(t, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)})(template)
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		id, err := leaf.ID(cert)
		if err != nil {
			wantReason(t, err, tenant.SVIDMalformed)
			return
		}
		if parsed, err := spiffeid.FromString(uri); err != nil || parsed != id || id.String() != uri || id.Path() == "" || len(uri) > leaf.MaxID {
			t.Fatalf("%q is taken for %q", uri, id)
		}
	})
}
