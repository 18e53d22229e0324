package edge

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// stricter are Wycheproof's valid JWS that are refused here on purpose.
var stricter = map[int]string{
	346: "the key is for PS256, the token is by PS384", 350: "the key is for PS256, the token is by PS384",
	347: "the key's alg is ES521, which there is not", 351: "the key's alg is ES521, which there is not",
}

// TestWycheproofJWS: T1, T2 and T4. The payloads are not claims, so what is
// tested is all that comes before claims are read.
func TestWycheproofJWS(t *testing.T) {
	var doc struct {
		NumberOfTests int
		TestGroups    []struct {
			Comment         string
			Public, Private json.RawMessage
			Tests           []struct {
				TcID            int
				Comment, Result string
				JWS             json.RawMessage
			}
		}
	}
	if err := vectors.Wycheproof(t.Context(), "json_web_signature_test.json", &doc); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range doc.TestGroups {
		set := g.Public
		if set == nil {
			set = g.Private // symmetric
		}
		for _, c := range g.Tests {
			n++
			t.Run(fmt.Sprintf("%s %d %s", g.Comment, c.TcID, c.Comment), func(t *testing.T) {
				token := string(c.JWS)
				if s := ""; json.Unmarshal(c.JWS, &s) == nil {
					token = s
				}
				err := verifyJWS(t, set, token)
				why := stricter[c.TcID]
				if strings.Contains(string(set), `"oct"`) {
					why = "no symmetric key is ever a key"
				}
				switch {
				case c.Result == "valid" && why == "" && err != nil:
					t.Error(err)
				case c.Result != "valid" || why != "":
					if tenant.ReasonOf(err) == "" {
						t.Errorf("accepted, though %s %s", c.Result, why)
					}
				}
			})
		}
	}
	if n == 0 || n != doc.NumberOfTests {
		t.Errorf("%d tests, want %d", n, doc.NumberOfTests)
	}
	t.Logf("%d tests", n)
}

// verifyJWS does what Verifier.verify does, but for reading the payload and
// demanding a typ, which these JWS do not have.
func verifyJWS(t *testing.T, key json.RawMessage, token string) error {
	t.Helper()
	raw, _, err := decode(token, 16<<10)
	if err != nil {
		return err
	}
	header, err := parseObject(raw, maxParams, headerNames...)
	if err != nil {
		return err
	}
	for _, name := range refusedHeaders {
		if _, ok := header[name]; ok {
			return tenant.Deny(tenant.TokenHeader, "the header has %s", name)
		}
	}
	is := &Issuer{URL: "https://login.example", Type: "jwt"}
	for _, alg := range accepted {
		is.Algorithms = append(is.Algorithms, string(alg))
	}
	header["typ"] = json.RawMessage(`"JWT"`)
	s := &keySet{issuer: is, clock: time.Now, keys: usable([]json.RawMessage{key}), fetched: time.Now(), closed: true}
	if err := s.limits.complete(); err != nil {
		t.Fatal(err)
	}
	_, err = s.verify(t.Context(), token, header)
	return err
}
