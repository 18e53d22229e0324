package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
)

// rsaKeys are the keys in testdata, by the names of their files.
var rsaKeys map[string]*rsa.PrivateKey

func loadKeys(dir string) {
	rsaKeys = make(map[string]*rsa.PrivateKey)
	for _, name := range []string{"issuer-1", "issuer-2", "workload", "short"} {
		block, _ := pem.Decode(must(os.ReadFile(filepath.Join(dir, "testdata", "rsa-"+name+".pem"))))
		rsaKeys[name] = must(x509.ParsePKCS1PrivateKey(block.Bytes))
	}
}

// ecKey returns the key on the curve that is made of a name.
func ecKey(curve elliptic.Curve, name string) *ecdsa.PrivateKey {
	sum := sha512.Sum512([]byte("tenantmesh conformance " + name))
	scalar := make([]byte, (curve.Params().BitSize+7)/8)
	copy(scalar[1:], sum[:]) // less than the order, for its first byte is 0
	return must(ecdsa.ParseRawPrivateKey(curve, scalar))
}

func p256(name string) crypto.Signer { return ecKey(elliptic.P256(), name) }

func ed25519Key(name string) ed25519.PrivateKey {
	sum := sha256.Sum256([]byte("tenantmesh conformance " + name))
	return ed25519.NewKeyFromSeed(sum[:])
}

// randomly returns bytes that are made of a name.
func randomly(name string) [32]byte { return sha256.Sum256([]byte("tenantmesh conformance " + name)) }

func digest(h crypto.Hash, message []byte) []byte {
	w := h.New()
	w.Write(message)
	return w.Sum(nil)
}

// ecdsaSign returns a signature by RFC 6979, as r and s.
func ecdsaSign(key *ecdsa.PrivateKey, h crypto.Hash, message []byte) (r, s *big.Int) {
	var sig struct{ R, S *big.Int }
	must(asn1.Unmarshal(must(key.Sign(nil, digest(h, message), h)), &sig))
	return sig.R, sig.S
}

// p1363 returns r and s as the profile has them, with the lower of s and n-s.
func p1363(curve elliptic.Curve, r, s *big.Int) []byte {
	if n := curve.Params().N; new(big.Int).Lsh(s, 1).Cmp(n) > 0 {
		s = new(big.Int).Sub(n, s)
	}
	return concat(curve, r, s)
}

func concat(curve elliptic.Curve, r, s *big.Int) []byte {
	size := (curve.Params().BitSize + 7) / 8
	b := make([]byte, 2*size)
	r.FillBytes(b[:size])
	s.FillBytes(b[size:])
	return b
}

// pssSign signs with RSASSA-PSS (RFC 8017, sections 8.1.1 and 9.1.1) and a
// salt that is made of the message, which crypto/rsa does not let one choose.
func pssSign(key *rsa.PrivateKey, h, mgf crypto.Hash, saltLength int, message []byte) []byte {
	seed := sha512.Sum512(message)
	salt := seed[:saltLength]
	bits := key.N.BitLen() - 1
	size, hashed := (bits+7)/8, h.Size()
	sum := digest(h, append(append(make([]byte, 8), digest(h, message)...), salt...))
	db := make([]byte, size-hashed-1)
	db[len(db)-saltLength-1] = 1
	copy(db[len(db)-saltLength:], salt)
	var mask []byte
	for i := uint32(0); len(mask) < len(db); i++ {
		mask = append(mask, digest(mgf, binary.BigEndian.AppendUint32(append([]byte(nil), sum...), i))...)
	}
	for i := range db {
		db[i] ^= mask[i]
	}
	db[0] &= 0xff >> (8*size - bits)
	em := slices.Concat(db, sum, []byte{0xbc})
	m := new(big.Int).Exp(new(big.Int).SetBytes(em), key.D, key.N)
	return m.FillBytes(make([]byte, key.Size()))
}
