package leaf_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
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

// vector is one of certificates.json.
type vector struct {
	ok      bool
	chain   [][]byte
	bundles *x509bundle.Set
	now     time.Time
}

func vectorChains(f *testing.F) (out []vector) {
	f.Helper()
	list, err := vectors.Read("../../conformance/vectors/certificates.json") // fails if it is empty
	if err != nil {
		f.Fatal(err)
	}
	inputs, err := vectors.Inputs[struct {
		Chain   [][]byte
		Bundles map[string][][]byte
		Now     int64
	}]("../../conformance/vectors/certificates.json")
	if err != nil {
		f.Fatal(err)
	}
	for i, in := range inputs {
		set := x509bundle.NewSet()
		for name, roots := range in.Bundles {
			set.Add(x509bundle.FromX509Authorities(spiffeid.RequireTrustDomainFromString(name), certificates(roots...)))
		}
		out = append(out, vector{list[i].OK != nil, in.Chain, set, time.Unix(in.Now, 0)})
	}
	return out
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

// Of all chains, exactly those that stand in a vector verify; the others are
// refused for a reason of SVIDs.
func FuzzVerify(f *testing.F) {
	known := vectorChains(f)
	for i, v := range known {
		chain := append(slices.Clone(v.chain), nil, nil, nil)
		f.Add(i, chain[0], chain[1], chain[2])
	}
	f.Fuzz(func(t *testing.T, i int, one, two, three []byte) {
		if i < 0 || i >= len(known) {
			return
		}
		chain := certificates(one, two, three)
		v, err := leaf.Verify(chain, known[i].bundles, known[i].now)
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
		for _, k := range known {
			if k.ok && len(chain) == len(k.chain) && slices.EqualFunc(chain, k.chain, func(c *x509.Certificate, der []byte) bool { return bytes.Equal(c.Raw, der) }) {
				return
			}
		}
		t.Fatalf("verified, and stands in no vector: %s", base64.StdEncoding.EncodeToString(chain[0].Raw))
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
		for _, cert := range certificates(v.chain...) {
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
