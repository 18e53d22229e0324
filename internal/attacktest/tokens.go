package attacktest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantmesh/tenantmesh/tenant"
)

const (
	// Audience is that of all tokens.
	Audience = "https://api.example"
	// TokenCanary stands in every token, in claims and headers that go nowhere (M6).
	TokenCanary = "c4n4ry"
)

// RSAKeys are those of the issuers; like the others, they are dear to make.
var (
	RSAKeys  = [2]func() *rsa.PrivateKey{sync.OnceValue(newRSA), sync.OnceValue(newRSA)}
	ECKey    = sync.OnceValue(func() *ecdsa.PrivateKey { return Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	smallRSA = sync.OnceValue(func() *rsa.PrivateKey { return Must(rsa.GenerateKey(rand.Reader, 1024)) }) //nolint:gosec // it is an attack
)

func newRSA() *rsa.PrivateKey { return Must(rsa.GenerateKey(rand.Reader, 2048)) }

// TokenClaims are the members of a token's payload; a nil value removes one.
type TokenClaims map[string]any

// Issuer is an authorization server, as a handler for its documents. It is safe
// for concurrent use.
type Issuer struct {
	// URL is its iss.
	URL string
	// Now is the time by which it makes tokens.
	Now func() time.Time
	// Fetches counts those of the JWK Set.
	Fetches atomic.Int32

	mux  *http.ServeMux
	jwks atomic.Value // http.HandlerFunc
}

// NewIssuer returns an issuer that publishes keys. Its URL is to be set.
func NewIssuer(now func() time.Time, keys ...any) *Issuer {
	is := &Issuer{Now: now, mux: http.NewServeMux()}
	is.mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": is.URL, "jwks_uri": is.URL + "/jwks", "scopes_supported": []string{"openid"}})
	})
	is.mux.HandleFunc("/jwks", func(w http.ResponseWriter, r *http.Request) {
		is.Fetches.Add(1)
		is.Answers()(w, r)
	})
	is.Publish(keys...)
	return is
}

// ServeHTTP implements [http.Handler].
func (is *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) { is.mux.ServeHTTP(w, r) }

// Publish sets the JWK Set. A key is a jose.JSONWebKey, or anything that
// marshals to one.
func (is *Issuer) Publish(keys ...any) {
	if keys == nil {
		keys = []any{}
	}
	body := Must(json.Marshal(map[string]any{"keys": keys}))
	is.Answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
}

// Answer makes h answer for the JWK Set.
func (is *Issuer) Answer(h http.HandlerFunc) { is.jwks.Store(h) }

// Answers returns what answers for the JWK Set.
func (is *Issuer) Answers() http.HandlerFunc {
	return is.jwks.Load().(http.HandlerFunc) //nolint:errcheck // Answer puts nothing else there
}

// JWK returns a public key for signatures.
func JWK(kid, alg string, public any) jose.JSONWebKey {
	return jose.JSONWebKey{KeyID: kid, Algorithm: alg, Use: "sig", Key: public}
}

// Payload returns the claims of a good token, changed as told.
func (is *Issuer) Payload(change TokenClaims) TokenClaims {
	c := TokenClaims{
		"iss": is.URL, "sub": "user-7", "aud": Audience, "tenant": "acme",
		"iat": is.Now().Unix(), "exp": is.Now().Add(time.Hour).Unix(),
		"scope": "orders.write orders.read orders.read", "email": TokenCanary + "@example.com",
		"realm": map[string]any{"roles": []string{TokenCanary}},
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// Header returns the header of a good token, changed as told.
func (is *Issuer) Header(change TokenClaims) TokenClaims {
	h := TokenClaims{"alg": "RS256", "kid": "k1", "typ": "at+jwt", "note": TokenCanary}
	maps.Copy(h, change)
	maps.DeleteFunc(h, func(_ string, v any) bool { return v == nil })
	return h
}

// Token returns a token signed by go-jose.
func (is *Issuer) Token(alg jose.SignatureAlgorithm, kid string, key any, change TokenClaims) string {
	opts := (&jose.SignerOptions{}).WithType("at+jwt").WithHeader("kid", kid)
	s := Must(jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts))
	return Must(Must(s.Sign(Must(json.Marshal(is.Payload(change))))).CompactSerialize())
}

// Good returns a token that is accepted but for the change.
func (is *Issuer) Good(change TokenClaims) string {
	return is.Token(jose.RS256, "k1", RSAKeys[0](), change)
}

// Headed returns a good token with another header, signed all the same.
func (is *Issuer) Headed(change TokenClaims) string {
	return SignToken(string(Must(json.Marshal(is.Header(change)))), string(Must(json.Marshal(is.Payload(nil)))))
}

// SignToken signs any two texts with RS256, as no library would.
func SignToken(header, payload string) string {
	return SignTokenBy(RSAKeys[0](), header, payload)
}

// SignTokenBy signs with a key.
func SignTokenBy(key *rsa.PrivateKey, header, payload string) string {
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	sum := sha256.Sum256([]byte(input))
	return input + "." + b64(Must(rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])))
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// TokenAttack is a token that must be refused, and the reason.
type TokenAttack struct {
	Name  string
	Token string
	Want  tenant.Reason
	Local bool // it cannot be sent as a gRPC metadata value
}

// PublishForAttacks makes two issuers publish the keys that TokenAttacks needs. The second is to be accepted for acme
// alone, with tokens of type JWT.
func PublishForAttacks(one, two *Issuer) {
	rsa0, rsa1, ec := RSAKeys[0](), RSAKeys[1](), ECKey()
	enc := JWK("enc", "", rsa0.Public())
	enc.Use = "enc"
	one.Publish(
		JWK("k1", "RS256", rsa0.Public()),
		JWK("any", "", rsa0.Public()),
		JWK("e1", "ES256", ec.Public()),
		JWK("dup", "RS256", rsa0.Public()), JWK("dup", "RS256", rsa1.Public()),
		JWK("same", "RS256", rsa0.Public()), JWK("same", "RS256", rsa0.Public()),
		jose.JSONWebKey{KeyID: "sym", Algorithm: "HS256", Key: []byte(strings.Repeat("s", 32))},
		JWK("private", "RS256", rsa0),
		JWK("small", "RS256", smallRSA().Public()),
		JWK("huge", "RS256", &rsa.PublicKey{N: new(big.Int).SetBit(rsa0.N, 4096, 1), E: 65537}),
		JWK("wrongalg", "ES256", rsa0.Public()),
		JWK("twoalgs", "RS256", rsa0.Public()), JWK("twoalgs", "PS256", rsa0.Public()),
		withOps(JWK("ops", "RS256", rsa0.Public()), "encrypt"),
		withOps(JWK("verify", "RS256", rsa0.Public()), "verify"),
		map[string]any{"kty": "XYZ", "kid": "unknown-kty"},
		enc,
	)
	two.Publish(JWK("k1", "RS256", rsa1.Public()))
}

// TokenAttacks returns the tokens that must be refused, by two issuers with
// PublishForAttacks, of which the verifier has a leeway of 10 seconds.
func TokenAttacks(is, two *Issuer) []TokenAttack {
	rsa0, rsa1, ec := RSAKeys[0](), RSAKeys[1](), ECKey()
	spki := Must(x509.MarshalPKIXPublicKey(rsa0.Public()))
	good := is.Good(nil)
	part := strings.Split(good, ".")
	header := string(Must(json.Marshal(is.Header(nil))))
	payload := string(Must(json.Marshal(is.Payload(nil))))
	// with returns a signed token whose payload has one more member, as text.
	with := func(member string) string { return SignToken(header, strings.TrimSuffix(payload, "}")+","+member+"}") }
	withHeader := func(member string) string { return SignToken(strings.TrimSuffix(header, "}")+","+member+"}", payload) }
	unsigned := func(h TokenClaims) string {
		return b64(Must(json.Marshal(is.Header(h)))) + "." + part[1]
	}
	at := func(d time.Duration) int64 { return is.Now().Add(d).Unix() }
	// The last character of a 256-byte signature carries 4 bits that must be 0.
	nonCanonical := good[:len(good)-1] + string(good[len(good)-1]+1)

	return []TokenAttack{
		{"T1 alg none", unsigned(TokenClaims{"alg": "none"}) + ".", tenant.TokenAlgorithm, false},
		{"T1 alg none with a signature", is.Headed(TokenClaims{"alg": "none"}), tenant.TokenAlgorithm, false},
		{"T1 alg None", unsigned(TokenClaims{"alg": "None"}) + ".", tenant.TokenAlgorithm, false},
		{"T1 alg absent", is.Headed(TokenClaims{"alg": nil}), tenant.TokenAlgorithm, false},
		{"T1 alg of another type", is.Headed(TokenClaims{"alg": []string{"RS256"}}), tenant.TokenAlgorithm, false},
		{"T1 HS256 keyed with the public key", is.Token(jose.HS256, "k1", spki, nil), tenant.TokenAlgorithm, false},
		{"T1 HS256 with a symmetric key of the set", is.Token(jose.HS256, "sym", []byte(strings.Repeat("s", 32)), nil), tenant.TokenAlgorithm, false},
		{"T1 RSA key under ES256", is.Headed(TokenClaims{"alg": "ES256"}), tenant.TokenAlgorithm, false},
		{"T1 EC key under RS256", is.Token(jose.ES256, "k1", ec, nil), tenant.TokenAlgorithm, false},
		{"T1 RS384 outside the allow-list", is.Token(jose.RS384, "any", rsa0, nil), tenant.TokenAlgorithm, false},
		{"T1 PS256 with a key for RS256", is.Token(jose.PS256, "k1", rsa0, nil), tenant.TokenAlgorithm, false},

		{"T2 jwk", withHeader(`"jwk":` + string(Must(json.Marshal(JWK("k1", "RS256", rsa0.Public()))))), tenant.TokenHeader, false},
		{"T2 jku", is.Headed(TokenClaims{"jku": is.URL + "/jwks"}), tenant.TokenHeader, false},
		{"T2 x5u", is.Headed(TokenClaims{"x5u": is.URL + "/cert"}), tenant.TokenHeader, false},
		{"T2 x5c", is.Headed(TokenClaims{"x5c": []string{"MIIB"}}), tenant.TokenHeader, false},
		{"T2 x5t", is.Headed(TokenClaims{"x5t": "AAAA"}), tenant.TokenHeader, false},
		{"T2 x5t#S256", is.Headed(TokenClaims{"x5t#S256": "AAAA"}), tenant.TokenHeader, false},
		{"T2 unknown crit", is.Headed(TokenClaims{"crit": []string{"exp"}, "exp": 1}), tenant.TokenHeader, false},
		{"T2 empty crit", is.Headed(TokenClaims{"crit": []string{}}), tenant.TokenHeader, false},
		{"T2 b64", is.Headed(TokenClaims{"b64": false}), tenant.TokenHeader, false},
		{"T2 unknown kid", is.Headed(TokenClaims{"kid": TokenCanary}), tenant.TokenKeyUnknown, false},
		{"T2 kid absent", is.Headed(TokenClaims{"kid": nil}), tenant.TokenKeyUnknown, false},
		{"T2 kid empty", is.Headed(TokenClaims{"kid": ""}), tenant.TokenKeyUnknown, false},
		{"T2 no trying of every key", is.Token(jose.RS256, "any", rsa1, nil), tenant.TokenSignature, false},
		{"T2 same kid at two issuers", is.Token(jose.RS256, "k1", rsa1, nil), tenant.TokenSignature, false},
		{"T2 a kid of another issuer", SignToken(`{"alg":"RS256","kid":"any","typ":"JWT"}`, string(Must(json.Marshal(two.Payload(nil))))), tenant.TokenKeyUnknown, false},
		{"T2 two keys of one kid, the first", is.Token(jose.RS256, "dup", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 two keys of one kid, the second", is.Token(jose.RS256, "dup", rsa1, nil), tenant.TokenKeyUnknown, false},
		{"T2 an encryption key", is.Token(jose.RS256, "enc", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 one key of one kid with two algorithms", is.Token(jose.RS256, "twoalgs", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 a key for another operation", is.Token(jose.RS256, "ops", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 a published private key", is.Token(jose.RS256, "private", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 a short RSA key", is.Token(jose.RS256, "small", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 a huge RSA key", is.Token(jose.RS256, "huge", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 a key whose alg is not its type's", is.Token(jose.RS256, "wrongalg", rsa0, nil), tenant.TokenKeyUnknown, false},
		{"T2 a symmetric key under RS256", is.Token(jose.RS256, "sym", rsa0, nil), tenant.TokenKeyUnknown, false},

		{"T3 ID token", is.Headed(TokenClaims{"typ": "JWT"}), tenant.TokenType, false},
		{"T3 no typ", is.Headed(TokenClaims{"typ": nil}), tenant.TokenType, false},
		{"T3 Txn-Token", is.Headed(TokenClaims{"typ": "txntoken+jwt"}), tenant.TokenType, false},
		{"T3 WIT", is.Headed(TokenClaims{"typ": "wit+jwt"}), tenant.TokenType, false},
		{"T3 logout token", is.Headed(TokenClaims{"typ": "logout+jwt"}), tenant.TokenType, false},
		{"T3 typ in full width", is.Headed(TokenClaims{"typ": "ａt+jwt"}), tenant.TokenType, false},
		{"T3 access token where JWT is configured", two.Headed(nil), tenant.TokenType, false},
		{"T3 JWT-SVID", SignToken(`{"alg":"RS256","kid":"k1","typ":"JWT"}`, `{"sub":"spiffe://prod.example/orders","aud":["`+Audience+`"],"exp":`+fmt.Sprint(at(time.Minute))+`}`), tenant.TokenClaimMissing, false},

		{"T4 JSON serialization", Must(jose.ParseSignedCompact(good, []jose.SignatureAlgorithm{jose.RS256})).FullSerialize(), tenant.TokenMalformed, false},
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
		{"T4 payload not an object", SignToken(header, `["acme"]`), tenant.TokenMalformed, false},
		{"T4 payload null", SignToken(header, `null`), tenant.TokenClaimMissing, false},
		{"T4 header null", SignToken(`null`, payload), tenant.TokenMalformed, false},
		{"T4 a header with a name that is no text", SignToken(`{1:2}`, payload), tenant.TokenMalformed, false},
		{"T4 two payloads", SignToken(header, payload+payload), tenant.TokenMalformed, false},
		{"T4 payload not UTF-8", with("\"x\":\"\xff\""), tenant.TokenMalformed, false},
		{"T4 lone surrogate", is.HeadedWith(`"sub":"\ud800x"`), tenant.TokenMalformed, false},
		{"T4 control character in sub", is.Good(TokenClaims{"sub": "a\x00b"}), tenant.TokenMalformed, false},

		{"T5 duplicate claim", with(`"tenant":"globex"`), tenant.TokenMalformed, false},
		{"T5 duplicate claim, the same", with(`"tenant":"acme"`), tenant.TokenMalformed, false},
		{"T5 duplicate claim, escaped", with(`"t\u0065nant":"globex"`), tenant.TokenMalformed, false},
		{"T5 duplicate unknown claim", with(`"` + TokenCanary + `":1,"` + TokenCanary + `":1`), tenant.TokenMalformed, false},
		{"T5 duplicate in depth", with(`"x":[{"y":{"a":1,"a":2}}]`), tenant.TokenMalformed, false},
		{"T5 duplicate header parameter", withHeader(`"kid":"any"`), tenant.TokenMalformed, false},
		{"T5 Sub", with(`"Sub":"root"`), tenant.TokenMalformed, false},
		{"T5 TENANT", with(`"TENANT":"globex"`), tenant.TokenMalformed, false},
		{"T5 Sub alone", is.Renamed("sub", "Sub"), tenant.TokenMalformed, false},
		{"T5 ſub", with(`"ſub":"root"`), tenant.TokenMalformed, false},
		{"T5 ſcope", with(`"ſcope":"orders.admin"`), tenant.TokenMalformed, false},
		{"T5 Kelvin sign in kid", withHeader(`"\u212aid":"any"`), tenant.TokenMalformed, false},
		{"T5 JKU", withHeader(`"JKU":"` + is.URL + `"`), tenant.TokenMalformed, false},

		{"T6 no iss", is.Good(TokenClaims{"iss": nil}), tenant.TokenClaimMissing, false},
		{"T6 no iat", is.Good(TokenClaims{"iat": nil}), tenant.TokenClaimMissing, false},
		{"T6 no exp", is.Good(TokenClaims{"exp": nil}), tenant.TokenClaimMissing, false},
		{"T6 no aud", is.Good(TokenClaims{"aud": nil}), tenant.TokenClaimMissing, false},
		{"T6 no sub", is.Good(TokenClaims{"sub": nil}), tenant.TokenClaimMissing, false},
		{"T6 no tenant", is.Good(TokenClaims{"tenant": nil}), tenant.TokenClaimMissing, false},
		{"T6 empty sub", is.Good(TokenClaims{"sub": ""}), tenant.TokenClaimMissing, false},
		{"T6 empty tenant", is.Good(TokenClaims{"tenant": ""}), tenant.TokenClaimMissing, false},
		{"T6 empty aud", is.Good(TokenClaims{"aud": []string{}}), tenant.TokenClaimMissing, false},
		{"T6 sub null", is.HeadedWith(`"sub":null`), tenant.TokenClaimMissing, false},
		{"T6 exp null", is.HeadedWith(`"exp":null`), tenant.TokenClaimMissing, false},
		{"T6 exp a string", is.Good(TokenClaims{"exp": fmt.Sprint(at(time.Hour))}), tenant.TokenClaimMissing, false},
		{"T6 exp negative", is.Good(TokenClaims{"exp": -1}), tenant.TokenClaimMissing, false},
		{"T6 exp beyond all dates", is.HeadedWith(`"exp":1e300`), tenant.TokenClaimMissing, false},
		{"T6 exp beyond all numbers", is.HeadedWith(`"exp":1e999`), tenant.TokenClaimMissing, false},
		{"T6 tenant a list", is.Good(TokenClaims{"tenant": []string{"acme"}}), tenant.TokenClaimMissing, false},
		{"T6 sub a number", is.Good(TokenClaims{"sub": 7}), tenant.TokenClaimMissing, false},
		{"T6 exp at the edge of the leeway", is.Good(TokenClaims{"iat": at(-time.Hour), "exp": at(-10 * time.Second)}), tenant.TokenExpired, false},
		{"T6 exp a fraction past the edge", is.Good(TokenClaims{"iat": at(-time.Hour), "exp": float64(at(-10*time.Second)) + 0.9}), tenant.TokenExpired, false},
		{"T6 iat in the future", is.Good(TokenClaims{"iat": at(11 * time.Second)}), tenant.TokenNotYetValid, false},
		{"T6 iat a fraction in the future", is.Good(TokenClaims{"iat": float64(at(10*time.Second)) + 0.1}), tenant.TokenNotYetValid, false},
		{"T6 iat in the future, nbf not", is.Good(TokenClaims{"iat": at(11 * time.Second), "nbf": at(0)}), tenant.TokenNotYetValid, false},
		{"T6 nbf in the future", is.Good(TokenClaims{"nbf": at(11 * time.Second)}), tenant.TokenNotYetValid, false},
		{"T6 nbf a string", is.Good(TokenClaims{"nbf": "0"}), tenant.TokenMalformed, false},
		{"T6 lives longer than 24 hours", is.Good(TokenClaims{"exp": at(24*time.Hour + time.Second)}), tenant.TokenExpired, false},
		{"T6 scope of another type", is.Good(TokenClaims{"scope": 7}), tenant.TokenMalformed, false},
		{"T6 scope with two spaces", is.Good(TokenClaims{"scope": "a  b"}), tenant.TokenMalformed, false},

		{"T7 another audience", is.Good(TokenClaims{"aud": "https://" + TokenCanary + ".example"}), tenant.TokenAudience, false},
		{"T7 audience in another case", is.Good(TokenClaims{"aud": "https://API.example"}), tenant.TokenAudience, false},
		{"T7 audience with a slash", is.Good(TokenClaims{"aud": Audience + "/"}), tenant.TokenAudience, false},
		{"T7 several audiences", is.Good(TokenClaims{"aud": []string{Audience, "https://other.example"}}), tenant.TokenAudience, false},
		{"T7 one audience twice", is.Good(TokenClaims{"aud": []string{Audience, Audience}}), tenant.TokenAudience, false},
		{"T7 unknown issuer", is.Good(TokenClaims{"iss": "https://" + TokenCanary + ".example"}), tenant.TokenIssuer, false},
		{"T7 issuer with a slash", is.Good(TokenClaims{"iss": is.URL + "/"}), tenant.TokenIssuer, false},
		{"T7 issuer outside the tenants it is accepted for", SignTokenBy(rsa1, `{"alg":"RS256","kid":"k1","typ":"JWT"}`, string(Must(json.Marshal(two.Payload(TokenClaims{"tenant": "globex"}))))), tenant.TokenTenant, false},
		{"T7 tenant in upper case", is.Good(TokenClaims{"tenant": "ACME"}), tenant.TokenTenant, false},
		{"T7 tenant star", is.Good(TokenClaims{"tenant": "*"}), tenant.TokenTenant, false},
		{"T7 tenant with a path", is.Good(TokenClaims{"tenant": "acme/" + TokenCanary}), tenant.TokenTenant, false},

		{"T8 over-long", good + strings.Repeat("A", 16<<10), tenant.TokenTooLarge, false},
		{"T8 a megabyte of dots", strings.Repeat(".", 1<<20), tenant.TokenTooLarge, true},
		{"T8 16 KiB of dots", strings.Repeat(".", 16<<10), tenant.TokenMalformed, false},
		{"T8 deep arrays", b64([]byte(header)) + "." + b64([]byte(strings.Repeat("[", 10<<10))) + ".AAAA", tenant.TokenMalformed, false},
		{"T8 deep objects", b64([]byte(header)) + "." + b64([]byte(strings.Repeat(`{"a":`, 2<<10))) + ".AAAA", tenant.TokenMalformed, false},
		// The claims are the outermost level.
		{"T8 nested 17 deep", is.Good(TokenClaims{"x": Nested(16)}), tenant.TokenMalformed, false},
		{"T8 nested 17 deep, behind a quote", with(`"x":["\"",` + string(Must(json.Marshal(Nested(15)))) + `]`), tenant.TokenMalformed, false},
		{"T8 a long sub", is.Good(TokenClaims{"sub": strings.Repeat("s", 513)}), tenant.TokenMalformed, false},
		{"T8 deep header", b64([]byte(strings.Repeat("[", 10<<10))) + ".e30.AAAA", tenant.TokenMalformed, false},
		{"T8 deep inside strings", b64([]byte(header)) + "." + b64([]byte(`{"a\\":"\\\"","b":`+strings.Repeat("[", 10<<10))) + ".AAAA", tenant.TokenMalformed, false},
		{"T5 very many values, unsigned", b64([]byte(header)) + "." + b64([]byte(`{"iss":"`+is.URL+`","x":[`+strings.Repeat("0,", 5<<10)+"0]}")) + ".AAAA", tenant.TokenSignature, false},
		{"T5 very many members, unsigned", b64([]byte(header)) + "." + b64([]byte(`{"iss":"`+is.URL+`",`+manyMembers(1100)[1:])) + ".AAAA", tenant.TokenSignature, false},
		{"T8 very many header parameters", b64([]byte(manyMembers(1100))) + "." + part[1] + ".AAAA", tenant.TokenMalformed, false},
		{"T5 too many claims", SignToken(header, strings.TrimSuffix(payload, "}")+","+manyMembers(1100)[1:]), tenant.TokenMalformed, false},
	}
}

// withOps returns the key with key_ops (RFC 7517, section 4.3).
func withOps(k jose.JSONWebKey, ops ...string) map[string]any {
	var m map[string]any
	if err := json.Unmarshal(Must(json.Marshal(k)), &m); err != nil {
		panic(err)
	}
	m["key_ops"] = ops
	return m
}

// HeadedWith returns a good token in which a member is replaced by text.
func (is *Issuer) HeadedWith(member string) string {
	name := strings.SplitN(member, `"`, 3)[1]
	payload := string(Must(json.Marshal(is.Payload(TokenClaims{name: nil}))))
	return SignToken(string(Must(json.Marshal(is.Header(nil)))), strings.TrimSuffix(payload, "}")+","+member+"}")
}

// Renamed returns a good token in which a claim has another name.
func (is *Issuer) Renamed(from, to string) string {
	return is.Good(TokenClaims{to: is.Payload(nil)[from], from: nil})
}

// Nested returns lists, one in another.
func Nested(depth int) any {
	var v any = TokenCanary
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
