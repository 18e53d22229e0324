package edge

import (
	"crypto"
	"crypto/rsa"
	_ "crypto/sha256" // for PS256
	_ "crypto/sha512" // for PS384 and PS512
	"encoding/base64"
	"strings"
)

// saltFits reports whether a signature by PS256, PS384 or PS512 has a salt as
// long as the hash, which RFC 7518, section 3.5, demands and go-jose does not.
// It is true of other algorithms, and false unless the signature verifies.
func saltFits(public crypto.PublicKey, alg, token string) bool {
	hash, ok := map[string]crypto.Hash{"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512}[alg]
	if !ok {
		return true
	}
	key, ok := public.(*rsa.PublicKey)
	dot := strings.LastIndexByte(token, '.')
	if !ok || dot < 0 {
		return false
	}
	signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
	if err != nil {
		return false
	}
	h := hash.New()
	h.Write([]byte(token[:dot]))
	return rsa.VerifyPSS(key, hash, h.Sum(nil), signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
}
