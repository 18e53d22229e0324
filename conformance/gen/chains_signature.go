package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"slices"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
)

// signature replaces the signature of hop 1.
func signature(f func(c *call, h *pb.Hop) []byte) func(*call) {
	return func(c *call) { c.hops.Hops[1].Signature = f(c, c.hops.Hops[1]) }
}

// rs replaces the numbers of hop 1's signature; nil keeps one.
func rs(change func(r, s, n *big.Int)) func(*call) {
	return signature(func(c *call, h *pb.Hop) []byte {
		curve := c.by[1].key.(*ecdsa.PrivateKey).Curve //nolint:errcheck // the base has such a key
		half := len(h.Signature) / 2
		r, s := new(big.Int).SetBytes(h.Signature[:half]), new(big.Int).SetBytes(h.Signature[half:])
		change(r, s, curve.Params().N)
		return concat(curve, r, s)
	})
}

// over signs other bytes than the profile's with the key of hop 1.
func over(message func(statement []byte) []byte) func(*call) {
	return signature(func(c *call, h *pb.Hop) []byte { return sign(c.by[1].key, message(h.Statement)) })
}

// hashed signs the profile's bytes with another hash.
func hashed(hash crypto.Hash) func(*call) {
	return signature(func(c *call, h *pb.Hop) []byte {
		key := c.by[1].key.(*ecdsa.PrivateKey) //nolint:errcheck // the base has such a key
		r, s := ecdsaSign(key, hash, signedBytes(pb.Kind_KIND_CALL, h.Statement))
		return p1363(key.Curve, r, s)
	})
}

// salted signs with RSASSA-PSS by other parameters than the profile's.
func salted(hash, mgf crypto.Hash, salt int) func(*call) {
	return signature(func(_ *call, h *pb.Hop) []byte {
		return pssSign(rsaKeys["workload"], hash, mgf, salt, signedBytes(pb.Kind_KIND_CALL, h.Statement))
	})
}

var b64 = base64.RawURLEncoding

// signatures: one algorithm and one encoding for each key.
var signatures = []chain{
	{"H6", "The higher of s and n-s.", "three-hops", rs(func(_, s, n *big.Int) { s.Sub(n, s) }), "SIGNATURE_MALFORMED", 1},
	{"H6", "The higher of s and n-s on P-384.", "p384", rs(func(_, s, n *big.Int) { s.Sub(n, s) }), "SIGNATURE_MALFORMED", 1},
	{"H6", "An s of half the order, and one.", "three-hops", rs(func(_, s, n *big.Int) { s.Rsh(n, 1).Add(s, big.NewInt(1)) }), "SIGNATURE_MALFORMED", 1},
	{"H6", "An s of half the order.", "three-hops", rs(func(_, s, n *big.Int) { s.Rsh(n, 1) }), "SIGNATURE_INVALID", 1},
	{"H6", "An s that is the order.", "three-hops", rs(func(_, s, n *big.Int) { s.Set(n) }), "SIGNATURE_MALFORMED", 1},
	{"H6", "An s of 1.", "three-hops", rs(func(_, s, _ *big.Int) { s.SetInt64(1) }), "SIGNATURE_INVALID", 1},
	{"H6", "An s of 0.", "three-hops", rs(func(_, s, _ *big.Int) { s.SetInt64(0) }), "SIGNATURE_INVALID", 1},
	{"H6", "An r of 0.", "three-hops", rs(func(r, _, _ *big.Int) { r.SetInt64(0) }), "SIGNATURE_INVALID", 1},
	{"H6", "Zeros (CVE-2022-21449).", "three-hops", rs(func(r, s, _ *big.Int) { r.SetInt64(0); s.SetInt64(0) }), "SIGNATURE_INVALID", 1},
	{"H6", "An r that is the order.", "three-hops", rs(func(r, _, n *big.Int) { r.Set(n) }), "SIGNATURE_INVALID", 1},
	{"H6", "An r that is the order less one.", "three-hops", rs(func(r, _, n *big.Int) { r.Sub(n, big.NewInt(1)) }), "SIGNATURE_INVALID", 1},
	{"H6", "An r of all ones.", "three-hops", rs(func(r, _, _ *big.Int) { r.Lsh(big.NewInt(1), 256).Sub(r, big.NewInt(1)) }), "SIGNATURE_INVALID", 1},
	{"H6", "Zeros on P-384.", "p384", rs(func(r, s, _ *big.Int) { r.SetInt64(0); s.SetInt64(0) }), "SIGNATURE_INVALID", 1},
	{"H6", "An r that is the order of P-384.", "p384", rs(func(r, _, n *big.Int) { r.Set(n) }), "SIGNATURE_INVALID", 1},
	{"H6", "The numbers exchanged.", "three-hops", signature(func(_ *call, h *pb.Hop) []byte {
		return slices.Concat([]byte{h.Signature[32] & 0x7f}, h.Signature[33:], []byte{h.Signature[0] & 0x7f}, h.Signature[1:32])
	}), "SIGNATURE_INVALID", 1},
	{"H6", "DER where P1363 is due.", "three-hops", signature(func(_ *call, h *pb.Hop) []byte {
		r, s := new(big.Int).SetBytes(h.Signature[:32]), new(big.Int).SetBytes(h.Signature[32:])
		return must(asn1.Marshal(struct{ R, S *big.Int }{r, s}))
	}), "SIGNATURE_MALFORMED", 1},
	{"H6", "A byte short.", "three-hops", signature(func(_ *call, h *pb.Hop) []byte { return h.Signature[:63] }), "SIGNATURE_MALFORMED", 1},
	{"H6", "A zero before it.", "three-hops", signature(func(_ *call, h *pb.Hop) []byte {
		return append([]byte{0}, h.Signature...)
	}), "SIGNATURE_MALFORMED", 1},
	{"H6", "A zero before each number.", "three-hops", signature(func(_ *call, h *pb.Hop) []byte {
		return slices.Concat([]byte{0}, h.Signature[:32], []byte{0}, h.Signature[32:])
	}), "SIGNATURE_MALFORMED", 1},
	{"H6", "No signature.", "three-hops", signature(func(*call, *pb.Hop) []byte { return nil }), "SIGNATURE_MALFORMED", 1},
	{"H6", "A bit of the peer's signature flipped.", "three-hops", func(c *call) {
		c.hops.Hops[2].Signature[31] ^= 1
	}, "SIGNATURE_INVALID", 2},
	{"H6", "The signature of another hop.", "three-hops", signature(func(c *call, _ *pb.Hop) []byte {
		return c.hops.Hops[0].Signature
	}), "SIGNATURE_INVALID", 1},
	{"H6", "A P-384 signature under a P-256 key.", "three-hops", signature(func(_ *call, h *pb.Hop) []byte {
		return sign(ecKey(elliptic.P384(), "P-384"), signedBytes(pb.Kind_KIND_CALL, h.Statement))
	}), "SIGNATURE_MALFORMED", 1},
	{"H6", "SHA-384 under a P-256 key.", "three-hops", hashed(crypto.SHA384), "SIGNATURE_INVALID", 1},
	{"H6", "SHA-256 under a P-384 key.", "p384", hashed(crypto.SHA256), "SIGNATURE_INVALID", 1},
	{"H6", "PKCS#1 v1.5.", "rsa", signature(func(_ *call, h *pb.Hop) []byte {
		sum := digest(crypto.SHA256, signedBytes(pb.Kind_KIND_CALL, h.Statement))
		return must(rsa.SignPKCS1v15(nil, rsaKeys["workload"], crypto.SHA256, sum))
	}), "SIGNATURE_INVALID", 1},
	{"H6", "PSS with a salt of 20 bytes.", "rsa", salted(crypto.SHA256, crypto.SHA256, 20), "SIGNATURE_INVALID", 1},
	{"H6", "PSS without a salt.", "rsa", salted(crypto.SHA256, crypto.SHA256, 0), "SIGNATURE_INVALID", 1},
	{"H6", "PSS with SHA-384.", "rsa", salted(crypto.SHA384, crypto.SHA384, 32), "SIGNATURE_INVALID", 1},
	{"H6", "PSS with SHA-384 in MGF1.", "rsa", salted(crypto.SHA256, crypto.SHA384, 32), "SIGNATURE_INVALID", 1},
	{"H6", "An RSA signature without its first byte.", "rsa", signature(func(_ *call, h *pb.Hop) []byte {
		return h.Signature[1:]
	}), "SIGNATURE_MALFORMED", 1},
	{"H6", "An RSA signature and the modulus, which verifies if it is reduced.", "rsa", signature(func(_ *call, h *pb.Hop) []byte {
		sum := new(big.Int).SetBytes(h.Signature)
		return sum.Add(sum, rsaKeys["workload"].N).FillBytes(make([]byte, 257))
	}), "SIGNATURE_MALFORMED", 1},
	{"H6", "An ECDSA signature under an RSA key.", "rsa", signature(func(c *call, _ *pb.Hop) []byte {
		return c.hops.Hops[0].Signature
	}), "SIGNATURE_MALFORMED", 1},
	{"H2 H6", "A signature under the prefix of a message.", "three-hops", over(func(statement []byte) []byte {
		return signedBytes(pb.Kind_KIND_MESSAGE, statement)
	}), "SIGNATURE_INVALID", 1},
	{"H2 H6", "A signature under the prefix of a grant.", "three-hops", over(func(statement []byte) []byte {
		return signedBytes(pb.Kind_KIND_GRANT, statement)
	}), "SIGNATURE_INVALID", 1},
	{"H2 H6", "A grant signed under the prefix of a call.", "granted", func(c *call) {
		c.hops.Hops[0].Signature = sign(c.by[0].key, signedBytes(pb.Kind_KIND_CALL, c.hops.Hops[0].Statement))
	}, "SIGNATURE_INVALID", 0},
	{"H6", "A signature under the prefix without its zero byte.", "three-hops", over(func(statement []byte) []byte {
		return bytes.Replace(signedBytes(pb.Kind_KIND_CALL, statement), []byte("call\x00"), []byte("call"), 1)
	}), "SIGNATURE_INVALID", 1},
	{"H6", "A signature over the statement alone.", "three-hops", over(func(statement []byte) []byte { return statement }), "SIGNATURE_INVALID", 1},
	{"H6", "A JWS signature.", "three-hops", over(func(statement []byte) []byte {
		return []byte(b64.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." + b64.EncodeToString(statement))
	}), "SIGNATURE_INVALID", 1},
	{"H6", "A TLS signature (RFC 8446, section 4.4.3).", "three-hops", over(func(statement []byte) []byte {
		transcript := sha256.Sum256(statement)
		return slices.Concat(bytes.Repeat([]byte{0x20}, 64), []byte("TLS 1.3, client CertificateVerify\x00"), transcript[:])
	}), "SIGNATURE_INVALID", 1},
	{"H6", "An earlier signer's key on P-521.", "three-hops", keyed(ecKeyOn(elliptic.P521())), "KEY_UNSUPPORTED", 1},
	{"H6", "An earlier signer's Ed25519 key.", "three-hops", keyed(func() crypto.Signer { return ed25519Key("ed25519") }), "KEY_UNSUPPORTED", 1},
	{"H6", "An earlier signer's RSA key of 1024 bits.", "three-hops", keyed(func() crypto.Signer { return rsaKeys["short"] }), "KEY_UNSUPPORTED", 1},
	{"H6", "An earlier signer's RSA key of 4104 bits.", "three-hops", keyed(longRSA), "KEY_UNSUPPORTED", 1},
}
