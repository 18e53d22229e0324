package devdomain

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
)

// KeyType is a type of key, by the name that SPIRE's configuration has for it.
type KeyType string

// The types of keys that SPIRE's agent makes for workloads.
const (
	ECP256  KeyType = "ec-p256"
	ECP384  KeyType = "ec-p384"
	RSA2048 KeyType = "rsa-2048"
)

func (k KeyType) generate() (key crypto.Signer, err error) {
	switch k {
	case ECP256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECP384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		err = fmt.Errorf("%q is no key type", string(k))
	}
	if err != nil {
		return nil, fmt.Errorf("devdomain: %w", err)
	}
	return key, nil
}
