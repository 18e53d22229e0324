package hop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"testing"
)

func BenchmarkRaw(b *testing.B) {
	key := newKey(elliptic.P256())
	sum := sha256.Sum256(nil)
	b.Run("sign", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ecdsa.SignASN1(rand.Reader, key, sum[:])
		}
	})
	sig, _ := ecdsa.SignASN1(rand.Reader, key, sum[:])
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ecdsa.VerifyASN1(&key.PublicKey, sum[:], sig)
		}
	})
	kb := make([]byte, 1024)
	b.Run("sha256-1k", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sha256.Sum256(kb)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	names := []string{"gateway", "orders", "inventory", "stock", "billing"}
	for depth := 1; depth <= 4; depth++ {
		c := send(b, goodClaims(), path(names[:depth+1]...), nil)
		m := c.metadata(b)
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Verify(m, c.want); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	names := []string{"gateway", "orders", "inventory", "stock", "billing"}
	for depth := 1; depth <= 4; depth++ {
		c := send(b, goodClaims(), path(names[:depth+1]...), nil)
		m := c.metadata(b)
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := parse(m.Hops, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSign(b *testing.B) {
	names := []string{"gateway", "orders", "inventory", "stock", "billing"}
	for depth := 1; depth <= 4; depth++ {
		p := path(names[:depth+1]...)
		chain, err := Begin(goodClaims())
		if depth > 1 {
			chain, err = send(b, goodClaims(), p[:depth], nil).verify(b)
		}
		if err != nil {
			b.Fatal(err)
		}
		to := Handover{Kind: Call, Audience: p[depth].ID.String(), Target: methodOf(p[depth]), Binding: [32]byte{1}, Now: noon}
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := chain.Sign(p[depth-1], to); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
