package hop

import (
	"crypto/sha256"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
)

// batches returns n calls over so many hops that differ in their last, whose
// statements were signed size at a time.
func batches(t testing.TB, depth, size, n int) (calls []Metadata, want Expected) {
	t.Helper()
	p := path(names[:depth+1]...)
	chain, err := Begin(goodClaims())
	if depth > 1 {
		chain, err = send(t, goodClaims(), p[:depth], nil).verify(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	callee := p[depth]
	to := Handover{Kind: Call, Audience: callee.ID.String(), Target: methodOf(callee), Binding: [32]byte{1}, Now: noon}
	for len(calls) < n {
		b := new(batch)
		var hops []*sealed
		for range min(size, n-len(calls)) {
			s, err := chain.next(p[depth-1], to)
			if err != nil {
				t.Fatal(err)
			}
			hops = append(hops, &sealed{encoded: string(must(s.Marshal()))})
			b.leaves = append(b.leaves, leafHash(hops[len(hops)-1].encoded))
		}
		if b.sign(p[depth-1].PrivateKey, Call); b.err != nil {
			t.Fatal(b.err)
		}
		for i, h := range hops {
			b.seal(h, i)
			calls = append(calls, chain.encode(h))
		}
	}
	return calls, Expected{
		Kind: Call, Peer: p[depth-1].Certificates, Self: callee.ID, Target: to.Target, Binding: to.Binding, Bundles: root().bundles(), Now: noon,
	}
}

var _ = sha256.Sum256
var _ = proto.Marshal
var _ pb.Kind
