package edge_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantmesh/tenantmesh/edge"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// attack is a token that must be refused, and the reason.
type attack struct {
	name  string
	token string
	want  tenant.Reason
	local bool // cannot be sent as a gRPC metadata value
}

// mesh is the world of the attacks: two issuers, one of them with a limited
// set of tenants.
func mesh(t testing.TB) (*world, *issuer, *issuer) {
	rsa0, rsa1, ec := rsaKeys[0](), rsaKeys[1](), ecKey()
	enc := jwk("enc", "", rsa0.Public())
	enc.Use = "enc"
	one := newIssuer(t,
		jwk("k1", "RS256", rsa0.Public()),
		jwk("any", "", rsa0.Public()),
		jwk("e1", "ES256", ec.Public()),
		jwk("dup", "RS256", rsa0.Public()), jwk("dup", "RS256", rsa1.Public()),
		jwk("same", "RS256", rsa0.Public()), jwk("same", "RS256", rsa0.Public()),
		jose.JSONWebKey{KeyID: "sym", Algorithm: "HS256", Key: []byte(strings.Repeat("s", 32))},
		jwk("private", "RS256", rsa0),
		jwk("small", "RS256", smallRSA().Public()),
		jwk("huge", "RS256", &rsa.PublicKey{N: new(big.Int).SetBit(rsa0.N, 4096, 1), E: 65537}),
		jwk("wrongalg", "ES256", rsa0.Public()),
		jwk("twoalgs", "RS256", rsa0.Public()), jwk("twoalgs", "PS256", rsa0.Public()),
		withOps(jwk("ops", "RS256", rsa0.Public()), "encrypt"),
		withOps(jwk("verify", "RS256", rsa0.Public()), "verify"),
		map[string]any{"kty": "XYZ", "kid": "unknown-kty"},
		enc,
	)
	two := newIssuer(t, jwk("k1", "RS256", rsa1.Public()))
	acme, _ := tenant.ParseID("acme")
	w := newWorld(t, edge.Config{
		Issuers: []edge.Issuer{
			{URL: one.URL, Audience: audience},
			{URL: two.URL, Audience: audience, Tenants: []tenant.ID{acme}, Type: "JWT"},
		},
		Leeway: 10 * time.Second,
	})
	return w, one, two
}

func attacks(is, two *issuer) []attack {
	rsa0, rsa1, ec := rsaKeys[0](), rsaKeys[1](), ecKey()
	spki := must(x509.MarshalPKIXPublicKey(rsa0.Public()))
	good := is.good(nil)
	part := strings.Split(good, ".")
	header := string(must(json.Marshal(is.header(nil))))
	payload := string(must(json.Marshal(is.payload(nil))))
	// with returns a signed token whose payload has one more member, as text.
	with := func(member string) string { return sign(header, strings.TrimSuffix(payload, "}")+","+member+"}") }
	withHeader := func(member string) string { return sign(strings.TrimSuffix(header, "}")+","+member+"}", payload) }
	unsigned := func(h claims) string {
		return b64(must(json.Marshal(is.header(h)))) + "." + part[1]
	}
	at := func(d time.Duration) int64 { return start.Add(d).Unix() }
	// The last character of a 256-byte signature carries 4 bits that must be 0.
	nonCanonical := good[:len(good)-1] + string(good[len(good)-1]+1)

	return []attack{
		{"T1 alg none", unsigned(claims{"alg": "none"}) + ".", tenant.TokenAlgorithm, false},
		{"T1 alg none with a signature", is.headed(claims{"alg": "none"}), tenant.TokenAlgorithm, false},
		{"T1 alg None", unsigned(claims{"alg": "None"}) + ".", tenant.TokenAlgorithm, false},
		{"T1 alg absent", is.headed(claims{"alg": nil}), tenant.TokenAlgorithm, false},
		{"T1 alg of another type", is.headed(claims{"alg": []string{"RS256"}}), tenant.TokenAlgorithm, false},
		{"T1 HS256 keyed with the public key", is.token(jose.HS256, "k1", spki, nil), tenant.TokenAlgorithm, false},
		{"T1 HS256 with a symmetric key of the set", is.token(jose.HS256, "sym", []byte(strings.Repeat("s", 32)), nil), tenant.TokenAlgorithm, false},
		{"T1 RSA key under ES256", is.headed(claims{"alg": "ES256"}), tenant.TokenAlgorithm, false},
		{"T1 EC key under RS256", is.token(jose.ES256, "k1", ec, nil), tenant.TokenAlgorithm, false},
		{"T1 RS384 outside the allow-list", is.token(jose.RS384, "any", rsa0, nil), tenant.TokenAlgorithm, false},
		{"T1 PS256 with a key for RS256", is.token(jose.PS256, "k1", rsa0, nil), tenant.TokenAlgorithm, false},

		{"T2 jwk", withHeader(`"jwk":` + string(must(json.Marshal(jwk("k1", "RS256", rsa0.Public()))))), tenant.TokenHeader, false},
		{"T2 jku", is.headed(claims{"jku": is.URL + "/jwks"}), tenant.TokenHeader, false},
		{"T2 x5u", is.headed(claims{"x5u": is.URL + "/cert"}), tenant.TokenHeader, false},
		{"T2 x5c", is.headed(claims{"x5c": []string{"MIIB"}}), tenant.TokenHeader, false},
		{"T2 x5t", is.headed(claims{"x5t": "AAAA"}), tenant.TokenHeader, false},
		{"T2 x5t#S256", is.headed(claims{"x5t#S256": "AAAA"}), tenant.TokenHeader, false},
		{"T2 unknown crit", is.headed(claims{"crit": []string{"exp"}, "exp": 1}), tenant.TokenHeader, false},
		{"T2 empty crit", is.headed(claims{"crit": []string{}}), tenant.TokenHeader, false},
		{"T2 b64", is.headed(claims{"b64": false}), tenant.TokenHeader, false},
		{"T2 unknown kid", is.headed(claims{"kid": canary}), tenant.TokenKeyUnknown, false},
		{"T2 kid absent", is.headed(claims{"kid": nil}), tenant.TokenKeyUnknown, false},
		{"T2 kid empty", is.headed(claims{"kid": ""}), tenant.TokenKeyUnknown, false},
		{"T2 no trying of every key", is.token(jose.RS256, "any", rsa1, nil), tenant.TokenSignature, false},
		{"T2 same kid at two issuers", is.token(jose.RS256, "k1", rsa1, nil), tenant.TokenSignature, false},
		{"T2 a kid of another issuer", sign(`{"alg":"RS256","kid":"any","typ":"JWT"}`, string(must(json.Marshal(two.payload(nil))))), tenant.TokenKeyUnknown, false},
		{"T2 two keys of one kid, the first", is.token(jose.RS256, "dup", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 two keys of one kid, the second", is.token(jose.RS256, "dup", rsa1, nil), tenant.TokenKeyUnknown, false},
		{"T2 an encryption key", is.token(jose.RS256, "enc", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 one key of one kid with two algorithms", is.token(jose.RS256, "twoalgs", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 a key for another operation", is.token(jose.RS256, "ops", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 a published private key", is.token(jose.RS256, "private", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 a short RSA key", is.token(jose.RS256, "small", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 a huge RSA key", is.token(jose.RS256, "huge", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 a key whose alg is not its type's", is.token(jose.RS256, "wrongalg", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 a symmetric key under RS256", is.token(jose.RS256, "sym", rsa0, nil), tenant.TokenKeyUnknown, false},

		{"T3 ID token", is.headed(claims{"typ": "JWT"}), tenant.TokenType, false},
		{"T3 no typ", is.headed(claims{"typ": nil}), tenant.TokenType, false},
		{"T3 Txn-Token", is.headed(claims{"typ": "txntoken+jwt"}), tenant.TokenType, false},
		{"T3 WIT", is.headed(claims{"typ": "wit+jwt"}), tenant.TokenType, false},
		{"T3 logout token", is.headed(claims{"typ": "logout+jwt"}), tenant.TokenType, false},
		{"T3 typ in full width", is.headed(claims{"typ": "ａt+jwt"}), tenant.TokenType, false},
		{"T3 access token where JWT is configured", two.headed(nil), tenant.TokenType, false},
		{"T3 JWT-SVID", sign(`{"alg":"RS256","kid":"k1","typ":"JWT"}`, `{"sub":"spiffe://prod.example/orders","aud":["`+audience+`"],"exp":`+fmt.Sprint(at(time.Minute))+`}`), tenant.TokenClaimMissing, false},

		{"T4 JSON serialization", must(jose.ParseSignedCompact(good, []jose.SignatureAlgorithm{jose.RS256})).FullSerialize(), tenant.TokenMalformed, false},
		{"T4 padding", part[0] + "." + part[1] + "." + part[2] + "==", tenant.TokenMalformed, false},
		{"T4 white space inside", part[0] + ". " + part[1] + "." + part[2], tenant.TokenMalformed, false},
		{"T4 white space behind", good + " ", tenant.TokenMalformed, false},
		{"T4 line break inside", part[0] + "." + part[1][:8] + "\n" + part[1][8:] + "." + part[2], tenant.TokenMalformed, true},
		{"T4 line break behind", good + "\r\n", tenant.TokenMalformed, true},
		{"T4 non-canonical base64url", nonCanonical, tenant.TokenMalformed, false},
		{"T4 standard base64", part[0] + "." + part[1] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(part[2]) + "/", tenant.TokenMalformed, false},
		{"T4 JWE", "e30.e30.e30.e30.e30", tenant.TokenMalformed, false},
		{"T4 two parts", part[0] + "." + part[1], tenant.TokenMalformed, false},
		{"T4 two tokens", good + ", " + good, tenant.TokenMalformed, false},
		{"T4 empty payload", part[0] + ".." + part[2], tenant.TokenMalformed, false},
		{"T4 payload not an object", sign(header, `["acme"]`), tenant.TokenMalformed, false},
		{"T4 payload null", sign(header, `null`), tenant.TokenClaimMissing, false},
		{"T4 header null", sign(`null`, payload), tenant.TokenMalformed, false},
		{"T4 a header with a name that is no text", sign(`{1:2}`, payload), tenant.TokenMalformed, false},
		{"T4 two payloads", sign(header, payload+payload), tenant.TokenMalformed, false},
		{"T4 payload not UTF-8", with("\"x\":\"\xff\""), tenant.TokenMalformed, false},
		{"T4 lone surrogate", is.headedWith(`"sub":"\ud800x"`), tenant.TokenMalformed, false},
		{"T4 control character in sub", is.good(claims{"sub": "a\x00b"}), tenant.TokenMalformed, false},

		{"T5 duplicate claim", with(`"tenant":"globex"`), tenant.TokenMalformed, false},
		{"T5 duplicate claim, the same", with(`"tenant":"acme"`), tenant.TokenMalformed, false},
		{"T5 duplicate claim, escaped", with(`"t\u0065nant":"globex"`), tenant.TokenMalformed, false},
		{"T5 duplicate unknown claim", with(`"` + canary + `":1,"` + canary + `":1`), tenant.TokenMalformed, false},
		{"T5 duplicate in depth", with(`"x":[{"y":{"a":1,"a":2}}]`), tenant.TokenMalformed, false},
		{"T5 duplicate header parameter", withHeader(`"kid":"any"`), tenant.TokenMalformed, false},
		{"T5 Sub", with(`"Sub":"root"`), tenant.TokenMalformed, false},
		{"T5 TENANT", with(`"TENANT":"globex"`), tenant.TokenMalformed, false},
		{"T5 Sub alone", is.renamed("sub", "Sub"), tenant.TokenMalformed, false},
		{"T5 ſub", with(`"ſub":"root"`), tenant.TokenMalformed, false},
		{"T5 ſcope", with(`"ſcope":"orders.admin"`), tenant.TokenMalformed, false},
		{"T5 Kelvin sign in kid", withHeader(`"\u212aid":"any"`), tenant.TokenMalformed, false},
		{"T5 JKU", withHeader(`"JKU":"` + is.URL + `"`), tenant.TokenMalformed, false},

		{"T6 no iss", is.good(claims{"iss": nil}), tenant.TokenClaimMissing, false},
		{"T6 no iat", is.good(claims{"iat": nil}), tenant.TokenClaimMissing, false},
		{"T6 no exp", is.good(claims{"exp": nil}), tenant.TokenClaimMissing, false},
		{"T6 no aud", is.good(claims{"aud": nil}), tenant.TokenClaimMissing, false},
		{"T6 no sub", is.good(claims{"sub": nil}), tenant.TokenClaimMissing, false},
		{"T6 no tenant", is.good(claims{"tenant": nil}), tenant.TokenClaimMissing, false},
		{"T6 empty sub", is.good(claims{"sub": ""}), tenant.TokenClaimMissing, false},
		{"T6 empty tenant", is.good(claims{"tenant": ""}), tenant.TokenClaimMissing, false},
		{"T6 empty aud", is.good(claims{"aud": []string{}}), tenant.TokenClaimMissing, false},
		{"T6 sub null", is.headedWith(`"sub":null`), tenant.TokenClaimMissing, false},
		{"T6 exp null", is.headedWith(`"exp":null`), tenant.TokenClaimMissing, false},
		{"T6 exp a string", is.good(claims{"exp": fmt.Sprint(at(time.Hour))}), tenant.TokenClaimMissing, false},
		{"T6 exp negative", is.good(claims{"exp": -1}), tenant.TokenClaimMissing, false},
		{"T6 exp beyond all dates", is.headedWith(`"exp":1e300`), tenant.TokenClaimMissing, false},
		{"T6 exp beyond all numbers", is.headedWith(`"exp":1e999`), tenant.TokenClaimMissing, false},
		{"T6 tenant a list", is.good(claims{"tenant": []string{"acme"}}), tenant.TokenClaimMissing, false},
		{"T6 sub a number", is.good(claims{"sub": 7}), tenant.TokenClaimMissing, false},
		{"T6 exp at the edge of the leeway", is.good(claims{"iat": at(-time.Hour), "exp": at(-10 * time.Second)}), tenant.TokenExpired, false},
		{"T6 exp a fraction past the edge", is.good(claims{"iat": at(-time.Hour), "exp": float64(at(-10*time.Second)) + 0.9}), tenant.TokenExpired, false},
		{"T6 iat in the future", is.good(claims{"iat": at(11 * time.Second)}), tenant.TokenNotYetValid, false},
		{"T6 iat a fraction in the future", is.good(claims{"iat": float64(at(10*time.Second)) + 0.1}), tenant.TokenNotYetValid, false},
		{"T6 iat in the future, nbf not", is.good(claims{"iat": at(11 * time.Second), "nbf": at(0)}), tenant.TokenNotYetValid, false},
		{"T6 nbf in the future", is.good(claims{"nbf": at(11 * time.Second)}), tenant.TokenNotYetValid, false},
		{"T6 nbf a string", is.good(claims{"nbf": "0"}), tenant.TokenMalformed, false},
		{"T6 lives longer than 24 hours", is.good(claims{"exp": at(24*time.Hour + time.Second)}), tenant.TokenExpired, false},
		{"T6 scope of another type", is.good(claims{"scope": 7}), tenant.TokenMalformed, false},
		{"T6 scope with two spaces", is.good(claims{"scope": "a  b"}), tenant.TokenMalformed, false},

		{"T7 another audience", is.good(claims{"aud": "https://" + canary + ".example"}), tenant.TokenAudience, false},
		{"T7 audience in another case", is.good(claims{"aud": "https://API.example"}), tenant.TokenAudience, false},
		{"T7 audience with a slash", is.good(claims{"aud": audience + "/"}), tenant.TokenAudience, false},
		{"T7 several audiences", is.good(claims{"aud": []string{audience, "https://other.example"}}), tenant.TokenAudience, false},
		{"T7 one audience twice", is.good(claims{"aud": []string{audience, audience}}), tenant.TokenAudience, false},
		{"T7 unknown issuer", is.good(claims{"iss": "https://" + canary + ".example"}), tenant.TokenIssuer, false},
		{"T7 issuer with a slash", is.good(claims{"iss": is.URL + "/"}), tenant.TokenIssuer, false},
		{"T7 issuer outside the tenants it is accepted for", signed(rsa1, b64([]byte(`{"alg":"RS256","kid":"k1","typ":"JWT"}`))+"."+b64(must(json.Marshal(two.payload(claims{"tenant": "globex"}))))), tenant.TokenTenant, false},
		{"T7 tenant in upper case", is.good(claims{"tenant": "ACME"}), tenant.TokenTenant, false},
		{"T7 tenant star", is.good(claims{"tenant": "*"}), tenant.TokenTenant, false},
		{"T7 tenant with a path", is.good(claims{"tenant": "acme/" + canary}), tenant.TokenTenant, false},

		{"T8 over-long", good + strings.Repeat("A", 16<<10), tenant.TokenTooLarge, false},
		{"T8 a megabyte of dots", strings.Repeat(".", 1<<20), tenant.TokenTooLarge, true},
		{"T8 16 KiB of dots", strings.Repeat(".", 16<<10), tenant.TokenMalformed, false},
		{"T8 deep arrays", b64([]byte(header)) + "." + b64([]byte(strings.Repeat("[", 10<<10))) + ".AAAA", tenant.TokenMalformed, false},
		{"T8 deep objects", b64([]byte(header)) + "." + b64([]byte(strings.Repeat(`{"a":`, 2<<10))) + ".AAAA", tenant.TokenMalformed, false},
		// The claims are the outermost level.
		{"T8 nested 17 deep", is.good(claims{"x": nested(16)}), tenant.TokenMalformed, false},
		{"T8 nested 17 deep, behind a quote", with(`"x":["\"",` + string(marshal(nested(15))) + `]`), tenant.TokenMalformed, false},
		{"T8 a long sub", is.good(claims{"sub": strings.Repeat("s", 513)}), tenant.TokenMalformed, false},
		{"T8 deep header", b64([]byte(strings.Repeat("[", 10<<10))) + ".e30.AAAA", tenant.TokenMalformed, false},
		{"T8 deep inside strings", b64([]byte(header)) + "." + b64([]byte(`{"a\\":"\\\"","b":`+strings.Repeat("[", 10<<10))) + ".AAAA", tenant.TokenMalformed, false},
		{"very many values, unsigned", b64([]byte(header)) + "." + b64([]byte(`{"iss":"`+is.URL+`","x":[`+strings.Repeat("0,", 5<<10)+"0]}")) + ".AAAA", tenant.TokenSignature, false},
		{"very many members, unsigned", b64([]byte(header)) + "." + b64([]byte(`{"iss":"`+is.URL+`",`+manyMembers(1100)[1:])) + ".AAAA", tenant.TokenSignature, false},
		{"T8 very many header parameters", b64([]byte(manyMembers(1100))) + "." + part[1] + ".AAAA", tenant.TokenMalformed, false},
		{"too many claims", sign(header, strings.TrimSuffix(payload, "}")+","+manyMembers(1100)[1:]), tenant.TokenMalformed, false},
	}
}

// withOps returns the key with key_ops (RFC 7517, section 4.3).
func withOps(k jose.JSONWebKey, ops ...string) map[string]any {
	var m map[string]any
	if err := json.Unmarshal(marshal(k), &m); err != nil {
		panic(err)
	}
	m["key_ops"] = ops
	return m
}

// headedWith returns a good token in which a member is replaced by text.
func (is *issuer) headedWith(member string) string {
	name := strings.SplitN(member, `"`, 3)[1]
	payload := string(must(json.Marshal(is.payload(claims{name: nil}))))
	return sign(string(must(json.Marshal(is.header(nil)))), strings.TrimSuffix(payload, "}")+","+member+"}")
}

// renamed returns a good token in which a claim has another name.
func (is *issuer) renamed(from, to string) string {
	return is.good(claims{to: is.payload(nil)[from], from: nil})
}

// nested returns lists, one in another.
func nested(depth int) any {
	var v any = canary
	for range depth {
		v = []any{v}
	}
	return v
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%d":0`, i)
	}
	return "{" + b.String()[1:] + "}"
}
