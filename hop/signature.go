package hop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha512" // for P-384
	"encoding/binary"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/tenantmesh/tenantmesh/internal/leaf"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// prefixes keep a signature of one kind from being one of another, of a JWS
// (whose input starts "eyJ") or of TLS (whose input starts with 0x20).
var prefixes = map[Kind]string{
	Call:    "tenantmesh-v1-call\x00",
	Message: "tenantmesh-v1-message\x00",
	Grant:   "tenantmesh-v1-grant\x00",
}

// signedBytes returns what is signed: the prefix of the kind of all statements of
// a tree, the number of its leaves, and its root.
func signedBytes(kind Kind, size uint32, root hash) []byte {
	b := make([]byte, 0, 64)
	b = append(b, prefixes[kind]...)
	b = binary.BigEndian.AppendUint32(b, size)
	return append(b, root[:]...)
}

// algorithm is what follows from a certificate's key, and from nothing else.
type algorithm struct {
	hash crypto.Hash
	size int      // of a signature in bytes
	n    *big.Int // the order of the curve; nil for RSA
}

// algorithmOf returns the algorithm of a key that the profile allows, or fails
// with [tenant.KeyUnsupported].
func algorithmOf(pub crypto.PublicKey) (algorithm, error) {
	err := leaf.CheckKey(pub)
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		size := (k.Curve.Params().BitSize + 7) / 8
		hash := crypto.SHA256
		if size == 48 {
			hash = crypto.SHA384
		}
		return algorithm{hash, 2 * size, k.Curve.Params().N}, err
	case *rsa.PublicKey:
		return algorithm{crypto.SHA256, k.Size(), nil}, err
	}
	return algorithm{}, err
}

func (a algorithm) digest(message []byte) []byte {
	h := a.hash.New()
	h.Write(message)
	return h.Sum(nil)
}

// pss is RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes,
// PS256 of RFC 7518, section 3.5.
var pss = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}

// sign signs the bytes of a tree. An ECDSA signature is r and s, each of the curve's
// size (IEEE P1363), with the lower of s and n-s.
func sign(key crypto.Signer, message []byte) ([]byte, error) {
	alg, err := algorithmOf(key.Public())
	if err != nil {
		return nil, err
	}
	var opts crypto.SignerOpts = alg.hash
	if alg.n == nil {
		opts = pss
	}
	signature, err := key.Sign(rand.Reader, alg.digest(message), opts)
	if err != nil {
		return nil, tenant.Deny(tenant.Internal, "the key does not sign: %w", err)
	}
	if alg.n == nil {
		return signature, nil
	}
	return alg.fromDER(signature)
}

// fromDER returns an ECDSA signature in the encoding of this profile.
func (a algorithm) fromDER(der []byte) ([]byte, error) {
	var r, s big.Int
	var inner cryptobyte.String
	input := cryptobyte.String(der)
	if !input.ReadASN1(&inner, asn1.SEQUENCE) || !input.Empty() ||
		!inner.ReadASN1Integer(&r) || !inner.ReadASN1Integer(&s) || !inner.Empty() ||
		max(r.BitLen(), s.BitLen()) > 8*a.size/2 {
		return nil, tenant.Deny(tenant.Internal, "the key's signature is not that of an EC key in DER")
	}
	if a.isHigh(&s) {
		s.Sub(a.n, &s)
	}
	out := make([]byte, a.size)
	r.FillBytes(out[:a.size/2])
	s.FillBytes(out[a.size/2:])
	return out, nil
}

// verify checks a signature over the bytes of a tree. It fails with
// [tenant.KeyUnsupported], [tenant.SignatureMalformed] or [tenant.SignatureInvalid].
func verify(pub crypto.PublicKey, message, signature []byte) error {
	alg, err := algorithmOf(pub)
	if err != nil {
		return err
	}
	if len(signature) != alg.size {
		return tenant.Deny(tenant.SignatureMalformed, "the key signs with %d bytes, not %d", alg.size, len(signature))
	}
	digest := alg.digest(message)
	ok := false
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		r := new(big.Int).SetBytes(signature[:alg.size/2])
		s := new(big.Int).SetBytes(signature[alg.size/2:])
		if alg.isHigh(s) {
			return tenant.Deny(tenant.SignatureMalformed, "the signature has the higher of s and n-s")
		}
		ok = ecdsa.Verify(k, digest, r, s)
	case *rsa.PublicKey:
		ok = rsa.VerifyPSS(k, alg.hash, digest, signature, pss) == nil
	}
	if !ok {
		return tenant.Deny(tenant.SignatureInvalid, "the signature does not verify")
	}
	return nil
}

// isHigh reports whether s is more than half of the curve's order.
func (a algorithm) isHigh(s *big.Int) bool {
	return new(big.Int).Lsh(s, 1).Cmp(a.n) > 0
}
