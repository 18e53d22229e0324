package hop

import (
	"crypto"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// names are of the workloads that benchmarks and trees of several hops go through.
var names = []string{"gateway", "orders", "inventory", "stock"}

// counting counts the signatures of a key.
type counting struct {
	crypto.Signer
	n *atomic.Int64
}

func (k counting) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.n.Add(1)
	return k.Signer.Sign(random, digest, opts)
}

// BenchmarkSign signs the third hop of a chain, alone and with others.
func BenchmarkSign(b *testing.B) {
	p := path(names...)
	chain, err := send(b, goodClaims(), p[:3], nil).verify(b)
	if err != nil {
		b.Fatal(err)
	}
	to := Handover{Kind: Call, Audience: p[3].ID.String(), Target: methodOf(p[3]), Binding: [32]byte{1}, Now: noon}
	for _, v := range []struct {
		name           string
		callers, batch int
	}{{"alone", 1, 0}, {"32 callers", 32, 0}, {"32 callers, unbatched", 32, 1}} {
		b.Run(v.name, func(b *testing.B) {
			var signatures, left atomic.Int64
			svid := &x509svid.SVID{ID: p[2].ID, Certificates: p[2].Certificates, PrivateKey: counting{p[2].PrivateKey, &signatures}}
			s := &Signer{SVID: svid, MaxBatch: v.batch, Busy: func() bool { return v.callers > 1 }}
			left.Store(int64(b.N))
			b.ReportAllocs()
			b.ResetTimer()
			var all sync.WaitGroup
			for range v.callers {
				all.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := s.Sign(b.Context(), chain, to); err != nil {
							b.Error(err)
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/float64(signatures.Load()), "statements/signature")
		})
	}
}

// BenchmarkVerify verifies fresh last hops of chains: without a cache, and with
// one that knows the hops before, for signatures of one statement and of eight.
func BenchmarkVerify(b *testing.B) {
	for _, depth := range []int{1, 3} {
		for _, v := range []struct {
			name   string
			cached bool
			batch  int
		}{{"cold", false, 1}, {"warm", true, 1}, {"warm, of eight", true, 8}} {
			b.Run(fmt.Sprintf("depth %d/%s", depth, v.name), func(b *testing.B) {
				b.ReportAllocs()
				var cache *Cache
				var calls []Metadata
				var want Expected
				for n := 0; b.Loop(); n++ {
					if n%1024 == 0 {
						b.StopTimer()
						calls, want = batches(b, depth, v.batch, 1024)
						if cache = nil; v.cached {
							cache = new(Cache)
						}
						want.Cache, want.Generation = cache, 1
						b.StartTimer()
					}
					if _, err := Verify(calls[n%1024], want); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
