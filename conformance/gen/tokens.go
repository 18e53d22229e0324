package main

import (
	"crypto/x509"
	"fmt"
	"strings"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
)

type list = []any

func tokenVectors() []vectors.Vector {
	now := noon.Unix()
	good := rs256(header(), payload())
	part := strings.Split(good, ".")
	first := base("access-token", "An access token (RFC 9068).", tokenInput(good), tokenOK())
	out := []vectors.Vector{first}
	accept := func(lines, comment string, token any, ok object) {
		out = append(out, derived(lines, comment, first, tokenInput(token), ok, "", -1))
	}
	refuse := func(lines, comment, reason string, token any) {
		out = append(out, derived(lines, comment, first, tokenInput(token), nil, reason, -1))
	}
	headed := func(lines, comment, reason string, change ...any) {
		refuse(lines, comment, reason, rs256(header(change...), payload()))
	}
	claims := func(lines, comment, reason string, change ...any) {
		refuse(lines, comment, reason, rs256(header(), payload(change...)))
	}
	with := func(lines, comment, member string) {
		refuse(lines, comment, "TOKEN_MALFORMED", rs256(header(), raw(payload(), member)))
	}
	by2 := func(change ...any) string {
		return jws(header("typ", "JWT"), payload(append([]any{"iss", issuer2}, change...)...), "RS256", rsa2())
	}

	accept("", "ES256.", jws(header("alg", "ES256", "kid", "e1"), payload(), "ES256", ec1()), tokenOK())
	accept("", "PS256, with a key that names no algorithm.", jws(header("alg", "PS256", "kid", "any"), payload(), "PS256", rsa1()), tokenOK())
	accept("", "A key for verifying.", rs256(header("kid", "verify"), payload()), tokenOK())
	accept("", "A key that is listed twice.", rs256(header("kid", "same"), payload()), tokenOK())
	accept("T3", "A typ with its application/, in another case.", rs256(header("typ", "application/AT+JWT"), payload()), tokenOK())
	accept("T6", "An exp just within the leeway.", rs256(header(), payload("iat", now-3600, "exp", now-9)), tokenOK("exp", now-9))
	accept("T6", "An iat at the edge of the leeway.", rs256(header(), payload("iat", now+10)), tokenOK())
	accept("T6", "An nbf at the edge of the leeway.", rs256(header(), payload("nbf", now+10)), tokenOK())
	accept("T6", "A fraction of a second in exp.", rs256(header(), payload("exp", float64(now)+3600.5)), tokenOK())
	accept("T6", "A life of exactly 24 hours.", rs256(header(), payload("exp", now+86400)), tokenOK("exp", now+86400))
	accept("T7", "A list of one audience.", rs256(header(), payload("aud", list{audience})), tokenOK())
	accept("T7", "A tenant that the issuer is accepted for.", by2(), tokenOK("iss", issuer2))
	accept("T5", "Case variants of a claim that means nothing.", rs256(header(), payload("Email", "x")), tokenOK())

	// T1
	unsigned := func(alg any) string { return b64.EncodeToString([]byte(header("alg", alg))) + "." + part[1] + "." }
	spki := must(x509.MarshalPKIXPublicKey(&rsa1().PublicKey))
	refuse("T1", "The alg none.", "TOKEN_ALGORITHM", unsigned("none"))
	refuse("T1", "The alg none with a capital.", "TOKEN_ALGORITHM", unsigned("None"))
	headed("T1", "The alg none with a signature.", "TOKEN_ALGORITHM", "alg", "none")
	headed("T1", "No alg.", "TOKEN_ALGORITHM", "alg", nil)
	headed("T1", "An alg that is a list.", "TOKEN_ALGORITHM", "alg", list{"RS256"})
	headed("T1", "An alg in lower case.", "TOKEN_ALGORITHM", "alg", "rs256")
	refuse("T1", "HS256 keyed with the public key.", "TOKEN_ALGORITHM", jws(header("alg", "HS256"), payload(), "HS256", spki))
	refuse("T1", "HS256 with a symmetric key of the set.", "TOKEN_ALGORITHM",
		jws(header("alg", "HS256", "kid", "sym"), payload(), "HS256", []byte(strings.Repeat("s", 32))))
	headed("T1", "An RSA key under ES256.", "TOKEN_ALGORITHM", "alg", "ES256")
	refuse("T1", "An EC key under RS256.", "TOKEN_ALGORITHM", jws(header("kid", "e1"), payload(), "ES256", ec1()))
	refuse("T1", "RS384, which is not among the algorithms accepted.", "TOKEN_ALGORITHM", jws(header("alg", "RS384", "kid", "any"), payload(), "RS384", rsa1()))
	refuse("T1", "PS256 with a key for RS256.", "TOKEN_ALGORITHM", jws(header("alg", "PS256"), payload(), "PS256", rsa1()))

	refuse("T1", "PS256 without a salt.", "TOKEN_SIGNATURE", jws(header("alg", "PS256", "kid", "any"), payload(), "PS256 without a salt", rsa1()))

	// T2
	headed("T2", "The header has jwk.", "TOKEN_HEADER", "jwk", jwk("k1", "RS256", &rsa1().PublicKey))
	headed("T2", "The header has jku.", "TOKEN_HEADER", "jku", issuer1+"/jwks")
	headed("T2", "The header has x5u.", "TOKEN_HEADER", "x5u", issuer1+"/cert")
	headed("T2", "The header has x5c.", "TOKEN_HEADER", "x5c", list{"MIIB"})
	headed("T2", "The header has x5t.", "TOKEN_HEADER", "x5t", "AAAA")
	headed("T2", "The header has x5t#S256.", "TOKEN_HEADER", "x5t#S256", "AAAA")
	headed("T2", "An unknown crit.", "TOKEN_HEADER", "crit", list{"exp"}, "exp", 1)
	headed("T2", "An empty crit.", "TOKEN_HEADER", "crit", list{})
	headed("T2", "The header has b64.", "TOKEN_HEADER", "b64", false)
	headed("T2", "An unknown kid.", "TOKEN_KEY_UNKNOWN", "kid", "other")
	headed("T2", "No kid.", "TOKEN_KEY_UNKNOWN", "kid", nil)
	headed("T2", "An empty kid.", "TOKEN_KEY_UNKNOWN", "kid", "")
	headed("T2", "A kid that is a number.", "TOKEN_KEY_UNKNOWN", "kid", 1)
	refuse("T2", "Another key than the kid's: not every key is tried.", "TOKEN_SIGNATURE", jws(header("kid", "any"), payload(), "RS256", rsa2()))
	refuse("T2", "The same kid at another issuer.", "TOKEN_SIGNATURE", jws(header(), payload(), "RS256", rsa2()))
	refuse("T2", "A kid of another issuer.", "TOKEN_KEY_UNKNOWN", rs256(header("kid", "any", "typ", "JWT"), payload("iss", issuer2)))
	refuse("T2", "A kid of two keys, the first.", "TOKEN_KEY_UNKNOWN", rs256(header("kid", "dup"), payload()))
	refuse("T2", "A kid of two keys, the second.", "TOKEN_KEY_UNKNOWN", jws(header("kid", "dup"), payload(), "RS256", rsa2()))
	headed("T2", "A kid of one key with two algorithms.", "TOKEN_KEY_UNKNOWN", "kid", "two")
	headed("T2", "A key for encryption.", "TOKEN_KEY_UNKNOWN", "kid", "enc")
	headed("T2", "A key for another operation.", "TOKEN_KEY_UNKNOWN", "kid", "ops")
	headed("T2", "A key whose alg is not its type's.", "TOKEN_KEY_UNKNOWN", "kid", "wrong")
	headed("T2", "A symmetric key under RS256.", "TOKEN_KEY_UNKNOWN", "kid", "sym")
	refuse("T2", "An RSA key of 1024 bits.", "TOKEN_KEY_UNKNOWN", jws(header("kid", "short"), payload(), "RS256", rsaKeys["short"]))
	refuse("T2", "A bit of the signature flipped.", "TOKEN_SIGNATURE", part[0]+"."+part[1]+".AAAA"+part[2][4:])
	refuse("T2", "The payload of another token.", "TOKEN_SIGNATURE", part[0]+"."+b64.EncodeToString([]byte(payload("tenant", "globex")))+"."+part[2])

	// T3
	headed("T3", "An ID token.", "TOKEN_TYPE", "typ", "JWT")
	headed("T3", "No typ.", "TOKEN_TYPE", "typ", nil)
	headed("T3", "A Txn-Token.", "TOKEN_TYPE", "typ", "txntoken+jwt")
	headed("T3", "A WIT.", "TOKEN_TYPE", "typ", "wit+jwt")
	headed("T3", "A logout token.", "TOKEN_TYPE", "typ", "logout+jwt")
	headed("T3", "A typ in full width.", "TOKEN_TYPE", "typ", "ａt+jwt")
	refuse("T3", "An access token where JWT is configured.", "TOKEN_TYPE", jws(header(), payload("iss", issuer2), "RS256", rsa2()))
	refuse("T3", "A JWT-SVID.", "TOKEN_CLAIM_MISSING", rs256(header("typ", "JWT"),
		fmt.Sprintf(`{"sub":"spiffe://prod.example/orders","aud":["%s"],"exp":%d}`, audience, now+60)))

	// T4
	refuse("T4", "JSON serialization, flattened.", "TOKEN_MALFORMED", jsonText(object{"protected": part[0], "payload": part[1], "signature": part[2]}))
	refuse("T4", "Padding.", "TOKEN_MALFORMED", good+"==")
	refuse("T4", "A space inside.", "TOKEN_MALFORMED", part[0]+". "+part[1]+"."+part[2])
	refuse("T4", "A space behind.", "TOKEN_MALFORMED", good+" ")
	refuse("T4", "A line end inside.", "TOKEN_MALFORMED", part[0]+"."+part[1][:8]+"\n"+part[1][8:]+"."+part[2])
	refuse("T4", "A line end behind.", "TOKEN_MALFORMED", good+"\r\n")
	refuse("T4", "An unused bit that is set.", "TOKEN_MALFORMED", good[:len(good)-1]+string(rune(good[len(good)-1]+1)))
	refuse("T4", "The standard alphabet.", "TOKEN_MALFORMED", part[0]+"."+part[1]+"."+strings.NewReplacer("-", "+", "_", "/").Replace(part[2]))
	refuse("T4", "Five parts, as a JWE has.", "TOKEN_MALFORMED", "e30.e30.e30.e30.e30")
	refuse("T4", "Two parts.", "TOKEN_MALFORMED", part[0]+"."+part[1])
	refuse("T4", "Two tokens.", "TOKEN_MALFORMED", good+", "+good)
	refuse("T4", "No payload.", "TOKEN_MALFORMED", part[0]+".."+part[2])
	refuse("T4", "No token.", "TOKEN_MISSING", "")
	refuse("T4", "A payload that is a list.", "TOKEN_MALFORMED", rs256(header(), `["acme"]`))
	refuse("T4", "A payload that is null.", "TOKEN_CLAIM_MISSING", rs256(header(), `null`))
	refuse("T4", "Two payloads.", "TOKEN_MALFORMED", rs256(header(), payload()+payload()))
	refuse("T4", "A header that is no JSON.", "TOKEN_MALFORMED", rs256("alg=RS256", payload()))
	with("T4", "Invalid UTF-8.", "\"x\":\"\xff\"")
	claims("T4", "A control character in sub.", "TOKEN_MALFORMED", "sub", "a\x00b")
	refuse("T4", "A lone surrogate in sub.", "TOKEN_MALFORMED", rs256(header(), raw(payload("sub", nil), `"sub":"\ud800x"`)))

	// T5
	with("T5", "A claim twice.", `"tenant":"globex"`)
	with("T5", "A claim twice, the same.", `"tenant":"acme"`)
	with("T5", "A claim twice, once escaped.", `"t\u0065nant":"globex"`)
	with("T5", "An unknown claim twice.", `"x":1,"x":1`)
	with("T5", "A member twice in depth.", `"x":[{"y":{"a":1,"a":2}}]`)
	with("T5", "Sub beside sub.", `"Sub":"root"`)
	with("T5", "TENANT beside tenant.", `"TENANT":"globex"`)
	with("T5", "A long s in sub.", `"ſub":"root"`)
	with("T5", "A long s in scope.", `"ſcope":"orders.admin"`)
	refuse("T5", "Sub in place of sub.", "TOKEN_MALFORMED", rs256(header(), payload("sub", nil, "Sub", "user-7")))
	refuse("T5", "A header parameter twice.", "TOKEN_MALFORMED", rs256(raw(header(), `"kid":"any"`), payload()))
	refuse("T5", "The Kelvin sign in kid.", "TOKEN_MALFORMED", rs256(raw(header(), `"\u212aid":"any"`), payload()))
	refuse("T5", "JKU.", "TOKEN_MALFORMED", rs256(raw(header(), `"JKU":"https://login.example"`), payload()))

	// T6
	for _, name := range []string{"iss", "iat", "exp", "aud", "sub", "tenant"} {
		claims("T6", "No "+name+".", "TOKEN_CLAIM_MISSING", name, nil)
	}
	const missing = "TOKEN_CLAIM_MISSING"
	claims("T6", "An empty sub.", missing, "sub", "")
	claims("T6", "An empty tenant.", missing, "tenant", "")
	claims("T6", "An empty list of audiences.", missing, "aud", list{})
	refuse("T6", "A sub of null.", missing, rs256(header(), raw(payload("sub", nil), `"sub":null`)))
	refuse("T6", "An exp of null.", missing, rs256(header(), raw(payload("exp", nil), `"exp":null`)))
	refuse("T6", "An exp beyond all dates.", missing, rs256(header(), raw(payload("exp", nil), `"exp":1e300`)))
	refuse("T6", "An exp beyond all numbers.", missing, rs256(header(), raw(payload("exp", nil), `"exp":1e999`)))
	claims("T6", "An exp that is a string.", missing, "exp", fmt.Sprint(now+3600))
	claims("T6", "A negative exp.", missing, "exp", -1)
	claims("T6", "A tenant that is a list.", missing, "tenant", list{"acme"})
	claims("T6", "A sub that is a number.", missing, "sub", 7)
	claims("T6", "An exp at the edge of the leeway.", "TOKEN_EXPIRED", "iat", now-3600, "exp", now-10)
	claims("T6", "An exp a fraction of a second past the edge.", "TOKEN_EXPIRED", "iat", now-3600, "exp", float64(now)-9.5)
	claims("T6", "An iat in the future.", "TOKEN_NOT_YET_VALID", "iat", now+11)
	claims("T6", "An iat a fraction of a second past the leeway.", "TOKEN_NOT_YET_VALID", "iat", float64(now)+10.5)
	claims("T6", "An iat in the future, and an nbf that is not.", "TOKEN_NOT_YET_VALID", "iat", now+11, "nbf", now)
	claims("T6", "An nbf in the future.", "TOKEN_NOT_YET_VALID", "nbf", now+11)
	claims("T6", "An nbf that is a string.", "TOKEN_MALFORMED", "nbf", "0")
	claims("T6", "A life longer than 24 hours.", "TOKEN_EXPIRED", "exp", now+86401)
	claims("T6", "A scope that is a number.", "TOKEN_MALFORMED", "scope", 7)
	claims("T6", "A scope with two spaces.", "TOKEN_MALFORMED", "scope", "a  b")

	// T7
	claims("T7", "Another audience.", "TOKEN_AUDIENCE", "aud", "https://other.example")
	claims("T7", "The audience in another case.", "TOKEN_AUDIENCE", "aud", "https://API.example")
	claims("T7", "The audience with a slash.", "TOKEN_AUDIENCE", "aud", audience+"/")
	claims("T7", "Several audiences.", "TOKEN_AUDIENCE", "aud", list{audience, "https://other.example"})
	claims("T7", "One audience twice.", "TOKEN_AUDIENCE", "aud", list{audience, audience})
	claims("T7", "An issuer that is not configured.", "TOKEN_ISSUER", "iss", "https://evil.example")
	claims("T7", "The issuer with a slash.", "TOKEN_ISSUER", "iss", issuer1+"/")
	claims("T7", "A tenant in upper case.", "TOKEN_TENANT", "tenant", "ACME")
	claims("T7", "A tenant that is a star.", "TOKEN_TENANT", "tenant", "*")
	claims("T7", "A tenant with a path.", "TOKEN_TENANT", "tenant", "acme/globex")
	refuse("T7", "An issuer outside the tenants that it is accepted for.", "TOKEN_TENANT", by2("tenant", "globex"))

	// T8
	times := func(s string, n int) list { return list{s, n} }
	refuse("T8", "A good token and 16 KiB.", "TOKEN_TOO_LARGE", list{times(good, 1), times("A", 16<<10)})
	refuse("T8", "A megabyte of dots.", "TOKEN_TOO_LARGE", list{times(".", 1<<20)})
	refuse("T8", "16 KiB of dots.", "TOKEN_MALFORMED", list{times(".", 16<<10)})
	refuse("T8", "Arrays in arrays in the payload.", "TOKEN_MALFORMED", list{times(part[0]+".", 1), times(b64.EncodeToString([]byte("[[[")), 3<<10), times(".AAAA", 1)})
	refuse("T8", "Objects in objects in the payload.", "TOKEN_MALFORMED",
		list{times(part[0]+".", 1), times(b64.EncodeToString([]byte(`{"a":{"b":{"c":`)), 512), times(".AAAA", 1)})
	refuse("T8", "Arrays in arrays in the header.", "TOKEN_MALFORMED", list{times(b64.EncodeToString([]byte("[[[")), 3<<10), times(".e30.AAAA", 1)})
	refuse("T8", "Brackets behind strings that look like their end.", "TOKEN_MALFORMED", list{
		times(part[0]+".", 1), times(b64.EncodeToString([]byte(`{"a\\":"\\\"", "b":`)), 1), times(b64.EncodeToString([]byte("[[[")), 3<<10), times(".AAAA", 1),
	})
	refuse("T8", "More values than a payload may have.", "TOKEN_MALFORMED",
		rs256(header(), raw(payload(), `"x":[`+strings.Repeat("0,", 1100)+`0]`)))

	// T10
	jwks := func(comment string, set any) {
		in := tokenInput(good)
		in["issuers"].(object)[issuer1] = object{"audience": audience, "jwks": set} //nolint:errcheck // tokenInput made it
		out = append(out, derived("T10", comment, first, in, nil, "KEYS_UNAVAILABLE", -1))
	}
	key := jsonText(jwk("k1", "RS256", &rsa1().PublicKey))
	jwks("A key set that is empty text.", "")
	jwks("A key set that is HTML.", "<html></html>")
	jwks("A key set cut short.", `{"keys":[`+key)
	jwks("A key set without keys.", object{})
	jwks("Keys that are no list.", object{"keys": jwk("k1", "RS256", &rsa1().PublicKey)})
	jwks("Keys twice.", `{"keys":[`+key+`],"keys":[]}`)
	jwks("Keys of null.", `{"keys":null}`)
	jwks("65 keys.", list{times(`{"keys":[`, 1), times(key+",", 64), times(key+"]}", 1)})
	jwks("A key set over 256 KiB.", list{times(" ", 256<<10), times(`{"keys":[`+key+`]}`, 1)})
	return out
}
