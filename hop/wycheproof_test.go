package hop

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// wycheproofTest is a test of Wycheproof's groups for verification.
type wycheproofTest struct {
	TcID    int
	Comment string
	Msg     string
	Sig     string
	Result  string
}

// wycheproof calls check with every test of a file: the key, the message and the signature.
func wycheproof(t *testing.T, file string, check func(t *testing.T, pub crypto.PublicKey, valid bool, message, signature []byte)) {
	t.Helper()
	var doc struct {
		NumberOfTests int
		TestGroups    []struct {
			PublicKeyDer string
			Tests        []wycheproofTest
		}
	}
	if err := vectors.Wycheproof(t.Context(), file, &doc); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range doc.TestGroups {
		pub := must(x509.ParsePKIXPublicKey(must(hex.DecodeString(g.PublicKeyDer))))
		for _, c := range g.Tests {
			n++
			if c.Result != "valid" && c.Result != "invalid" {
				t.Fatalf("%d: an unknown result %q", c.TcID, c.Result)
			}
			t.Run(fmt.Sprintf("H6 %d %s", c.TcID, c.Comment), func(t *testing.T) {
				check(t, pub, c.Result == "valid", must(hex.DecodeString(c.Msg)), must(hex.DecodeString(c.Sig)))
			})
		}
	}
	if n == 0 || n != doc.NumberOfTests {
		t.Errorf("%d tests, want %d", n, doc.NumberOfTests)
	}
	t.Logf("%s: %d tests", file, n)
}

func TestWycheproofP256(t *testing.T) {
	order := elliptic.P256().Params().N
	wycheproof(t, "ecdsa_secp256r1_sha256_p1363_test.json", func(t *testing.T, pub crypto.PublicKey, valid bool, message, signature []byte) {
		err := verify(pub, message, signature)
		if !valid {
			refused(t, err)
			return
		}
		s := new(big.Int).SetBytes(signature[32:])
		if new(big.Int).Lsh(s, 1).Cmp(order) > 0 { // of (r, s) and (r, n-s), this profile has one
			if tenant.ReasonOf(err) != tenant.SignatureMalformed {
				t.Errorf("the higher s: %v, want %s", err, tenant.SignatureMalformed)
			}
			lower := slices.Concat(signature[:32], s.Sub(order, s).FillBytes(make([]byte, 32)))
			err = verify(pub, message, lower)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// DER is not the profile's encoding, however good it is.
func TestWycheproofP256DER(t *testing.T) {
	wycheproof(t, "ecdsa_secp256r1_sha256_test.json", func(t *testing.T, pub crypto.PublicKey, _ bool, message, signature []byte) {
		refused(t, verify(pub, message, signature))
	})
}

func TestWycheproofP384(t *testing.T) {
	order := elliptic.P384().Params().N
	wycheproof(t, "ecdsa_secp384r1_sha384_p1363_test.json", func(t *testing.T, pub crypto.PublicKey, valid bool, message, signature []byte) {
		err := verify(pub, message, signature)
		switch {
		case !valid:
			refused(t, err)
		case new(big.Int).Lsh(new(big.Int).SetBytes(signature[48:]), 1).Cmp(order) > 0:
			if tenant.ReasonOf(err) != tenant.SignatureMalformed {
				t.Errorf("the higher s: %v, want %s", err, tenant.SignatureMalformed)
			}
		case err != nil:
			t.Error(err)
		}
	})
}

func TestWycheproofPSS(t *testing.T) {
	for _, file := range []string{"rsa_pss_2048_sha256_mgf1_32_test.json", "rsa_pss_3072_sha256_mgf1_32_test.json", "rsa_pss_4096_sha256_mgf1_32_test.json"} {
		wycheproof(t, file, func(t *testing.T, pub crypto.PublicKey, valid bool, message, signature []byte) {
			if err := verify(pub, message, signature); valid && err != nil {
				t.Error(err)
			} else if !valid {
				refused(t, err)
			}
		})
	}
}

// Other parameters than the profile's are refused, valid as they may be.
func TestWycheproofPSSOtherParameters(t *testing.T) {
	for _, file := range []string{"rsa_pss_2048_sha256_mgf1_0_test.json", "rsa_pss_2048_sha1_mgf1_20_test.json", "rsa_pss_2048_sha384_mgf1_48_test.json"} {
		wycheproof(t, file, func(t *testing.T, pub crypto.PublicKey, _ bool, message, signature []byte) {
			err := verify(pub, message, signature)
			if strings.HasSuffix(t.Name(), "H6_69_s_len_changed_to_32") { // the salt of the profile after all
				if err != nil {
					t.Error(err)
				}
				return
			}
			refused(t, err)
		})
	}
}

func refused(t *testing.T, err error) {
	t.Helper()
	if r := tenant.ReasonOf(err); r != tenant.SignatureMalformed && r != tenant.SignatureInvalid {
		t.Errorf("%v, want a signature refused", err)
	}
}
