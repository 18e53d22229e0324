package rls

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Key signs proofs. It does not show in any format, and the zero Key signs none.
type Key struct {
	id     string
	secret []byte
	macs   *sync.Pool // of hash.Hash, each keyed
}

// secretLen is the length of a key's secret in bytes.
const secretLen = 32

var keyID = regexp.MustCompile(`\A[a-z0-9][a-z0-9_-]{0,31}\z`)

// NewKey makes a random key with an ID of 1 to 32 of a-z, 0-9 and, behind the first, '_' and '-'.
func NewKey(id string) (Key, error) {
	secret := make([]byte, secretLen)
	_, _ = rand.Read(secret) // it never fails
	return ParseKey(id + ":" + hex.EncodeToString(secret))
}

// ParseKey reads a key from what [Key.Text] wrote: its ID, ":" and 64 hexadecimal digits.
func ParseKey(text string) (Key, error) {
	id, digits, _ := strings.Cut(strings.TrimSuffix(text, "\n"), ":")
	secret, err := hex.DecodeString(digits)
	if err != nil || len(secret) != secretLen || !keyID.MatchString(id) {
		return Key{}, errors.New("rls: a key is an ID of a-z, 0-9, '_' and '-', then ':' and 64 hexadecimal digits") // says nothing of the text
	}
	return Key{id, secret, &sync.Pool{New: func() any { return hmac.New(sha256.New, secret) }}}, nil
}

// ID returns the key's ID.
func (k Key) ID() string { return k.id }

// IsZero reports whether k is the zero Key.
func (k Key) IsZero() bool { return k.id == "" }

// Text returns the key for a file that only its workloads may read.
func (k Key) Text() string { return k.id + ":" + hex.EncodeToString(k.secret) }

// InsertSQL returns the statement that makes the database accept proofs by k.
// The owner of the schema tenantmesh runs it, where statements are not logged.
func (k Key) InsertSQL() string {
	return fmt.Sprintf(`INSERT INTO tenantmesh.keys (id, secret) VALUES ('%s', '\x%x');`, k.id, k.secret)
}

// DeleteSQL returns the statement that ends the acceptance of proofs by k.
func (k Key) DeleteSQL() string {
	return fmt.Sprintf(`DELETE FROM tenantmesh.keys WHERE id = '%s';`, k.id)
}

// Format implements [fmt.Formatter] so that no verb shows the secret.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "rls.Key(%s)", k.id) }

// validUID reports whether s has the form of a uid in the policy: nothing in it
// ends a field of a proof.
func validUID(s string) bool {
	if len(s) == 0 || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != ':' && c != '-' {
			return false
		}
	}
	return true
}

// proof is the statement that the database verifies:
//
//	1/KEY/EXPIRY/NONCE/TENANT/UID/MAC
//
// EXPIRY in seconds since 1970, MAC the hexadecimal HMAC-SHA-256 of all before its slash.
func (k Key) proof(expires time.Time, tenant, uid string) string {
	b := make([]byte, 0, 256)
	b = append(b, "1/"...)
	b = append(b, k.id...)
	b = append(b, '/')
	b = strconv.AppendInt(b, expires.Add(time.Second-1).Unix(), 10) // rounded up
	b = append(b, '/')
	b = append(b, rand.Text()...)
	b = append(b, '/')
	b = append(b, tenant...)
	b = append(b, '/')
	b = append(b, uid...)
	return k.sign(b)
}

// sign returns b with a slash and its MAC.
func (k Key) sign(b []byte) string {
	mac := k.macs.Get().(hash.Hash) //nolint:errcheck // the pool makes no other
	defer k.macs.Put(mac)
	mac.Reset()
	mac.Write(b)
	var sum [sha256.Size]byte
	return string(hex.AppendEncode(append(b, '/'), mac.Sum(sum[:0])))
}
