package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"math/big"
	"slices"
	"strings"
)

const (
	issuer1  = "https://login.example"
	issuer2  = "https://id.partner.example"
	audience = "https://api.example"
)

// jwk returns a public key as a JWK (RFC 7517), with members added; a nil one
// is removed.
func jwk(kid, alg string, public any, more ...any) object {
	o := object{"kid": kid, "use": "sig"}
	if alg != "" {
		o["alg"] = alg
	}
	switch k := public.(type) {
	case *rsa.PublicKey:
		o["kty"], o["n"], o["e"] = "RSA", b64.EncodeToString(k.N.Bytes()), b64.EncodeToString(big.NewInt(int64(k.E)).Bytes())
	case *ecdsa.PublicKey:
		size := (k.Curve.Params().BitSize + 7) / 8
		point := must(k.Bytes())[1:]
		o["kty"], o["crv"] = "EC", k.Curve.Params().Name
		o["x"], o["y"] = b64.EncodeToString(point[:size]), b64.EncodeToString(point[size:])
	}
	maps.Copy(o, members(more).object())
	return present(o)
}

// jws signs any two texts as RFC 7515, section 7.1, has it. What alg says is
// what is done, whatever the header says.
func jws(header, payload, alg string, key any) string {
	input := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(payload))
	return input + "." + b64.EncodeToString(jwsSignature(input, alg, key))
}

func jwsSignature(input, alg string, key any) []byte {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		hash := crypto.SHA256
		if strings.HasSuffix(alg, "384") {
			hash = crypto.SHA384
		}
		if alg == "PS256 without a salt" {
			return pssSign(k, hash, hash, 0, []byte(input))
		}
		if strings.HasPrefix(alg, "PS") {
			return pssSign(k, hash, hash, hash.Size(), []byte(input))
		}
		return must(rsa.SignPKCS1v15(nil, k, hash, digest(hash, []byte(input))))
	case *ecdsa.PrivateKey:
		r, s := ecdsaSign(k, crypto.SHA256, []byte(input))
		return concat(k.Curve, r, s)
	case []byte:
		mac := hmac.New(sha256.New, k)
		mac.Write([]byte(input))
		return mac.Sum(nil)
	}
	return nil
}

// members are names and values of a JSON object; later ones replace earlier ones.
type members []any

func (m members) object() object {
	o := object{}
	for pair := range slices.Chunk(m, 2) {
		o[pair[0].(string)] = pair[1] //nolint:errcheck // names and values alternate
	}
	return o
}

// present returns the object without the members that are nil.
func present(o object) object {
	maps.DeleteFunc(o, func(_ string, v any) bool { return v == nil })
	return o
}

// header and payload return the texts of a good token, changed.
func header(change ...any) string {
	return string(compact(present(append(members{"alg", "RS256", "kid", "k1", "typ", "at+jwt"}, change...).object())))
}

func payload(change ...any) string {
	return string(compact(present(append(members{
		"iss", issuer1, "sub", "user-7", "aud", audience, "tenant", "acme",
		"iat", noon.Unix(), "exp", noon.Unix() + 3600, "scope", "orders.write orders.read orders.read",
		"email", "user-7@example.com",
	}, change...).object())))
}

func rsa1() *rsa.PrivateKey    { return rsaKeys["issuer-1"] }
func rsa2() *rsa.PrivateKey    { return rsaKeys["issuer-2"] }
func ec1() *ecdsa.PrivateKey   { return ecKey(elliptic.P256(), "issuer-1") }
func rs256(h, p string) string { return jws(h, p, "RS256", rsa1()) }

// tokenInput is two issuers, the second of which is accepted for one tenant and
// with another type of token.
func tokenInput(token any) object {
	spki := object{"kty": "oct", "kid": "sym", "alg": "HS256", "k": b64.EncodeToString([]byte(strings.Repeat("s", 32)))}
	pub, pub2 := &rsa1().PublicKey, &rsa2().PublicKey
	keys := []any{
		jwk("k1", "RS256", pub), jwk("any", "", pub), jwk("e1", "ES256", &ec1().PublicKey),
		jwk("dup", "RS256", pub), jwk("dup", "RS256", pub2),
		jwk("same", "RS256", pub), jwk("same", "RS256", pub),
		jwk("two", "RS256", pub), jwk("two", "PS256", pub),
		jwk("enc", "", pub, "use", "enc"), jwk("ops", "", pub, "use", nil, "key_ops", []string{"encrypt"}),
		jwk("verify", "", pub, "use", nil, "key_ops", []string{"verify"}),
		jwk("short", "RS256", &rsaKeys["short"].PublicKey), jwk("wrong", "ES256", pub), spki,
		object{"kty": "XYZ", "kid": "unknown"},
	}
	return object{
		"token": token, "now": noon.Unix(), "leeway": 10,
		"issuers": object{
			issuer1: object{"audience": audience, "jwks": object{"keys": keys}},
			issuer2: object{"audience": audience, "type": "JWT", "tenants": []string{"acme"},
				"jwks": object{"keys": []any{jwk("k1", "RS256", pub2)}}},
		},
	}
}

func tokenOK(change ...any) object {
	return append(members{
		"iss", issuer1, "sub", "user-7", "tenant", "acme", "scopes", []string{"orders.read", "orders.write"}, "exp", noon.Unix() + 3600,
	}, change...).object()
}

// raw adds a member to a JSON object, as text.
func raw(o, member string) string { return strings.TrimSuffix(o, "}") + "," + member + "}" }

func jsonText(v any) string { return string(must(json.Marshal(v))) }
