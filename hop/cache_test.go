package hop

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/quick"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// proven is a hop with a signature by key, or with garbage.
func proven(key crypto.Signer, garbage bool) *signed {
	h := &signed{sealed: sealed{encoded: "statement", size: 1}, statement: &Statement{Kind: Call}}
	h.root, _ = h.sealed.root()
	h.signature = string(must(sign(key, signedBytes(Call, 1, h.root))))
	if garbage {
		h.signature = h.signature[:63] + string([]byte{h.signature[63] ^ 1})
	}
	return h
}

// H9: of two different inputs of a verification, neither answers for the other.
func TestCacheKeys(t *testing.T) {
	type input struct {
		Signer, Root hash
		Kind         Kind
		Size         uint32
		Signature    string
	}
	key := func(in input) proof {
		h := &signed{sealed: sealed{size: in.Size, signature: in.Signature}, root: in.Root, statement: &Statement{Kind: in.Kind, Signer: in.Signer}}
		return h.proof()
	}
	// Inputs that differ, and those that differ in one thing only.
	if err := quick.Check(func(a, b input) bool {
		one := []input{a, a, a, a, a, a}
		one[1].Signer, one[2].Root, one[3].Kind, one[4].Size, one[5].Signature = b.Signer, b.Root, b.Kind, b.Size, b.Signature
		for i, x := range one {
			for _, y := range one[:i] {
				if (key(x) == key(y)) != (x == y) {
					return false
				}
			}
		}
		return (key(a) == key(b)) == (a == b)
	}, nil); err != nil {
		t.Error(err)
	}
	// Certificates are told apart also by where one ends and the next begins.
	chain := func(ders []string) string { return string(appendStrings(nil, 1, ders)) }
	if err := quick.Check(func(a, b []string, i uint8) bool {
		joined := strings.Join(a, "")
		cut := int(i) % (len(joined) + 1)
		for _, b := range [][]string{b, {joined}, {joined[:cut], joined[cut:]}, append(slices.Clone(a), "")} {
			if (chain(a) == chain(b)) != slices.Equal(a, b) {
				return false
			}
		}
		return true
	}, nil); err != nil {
		t.Error(err)
	}
}

// A failure is not remembered, and a success not for a different signature.
func TestCacheSuccessOnly(t *testing.T) {
	key := newKey(elliptic.P256())
	c := new(Cache)
	for _, tt := range []struct {
		name    string
		garbage bool
		want    tenant.Reason
	}{{"garbage", true, tenant.SignatureInvalid}, {"good", false, ""}, {"good again", false, ""}, {"H9 garbage when warm", true, tenant.SignatureInvalid}} {
		h := proven(key, tt.garbage)
		if err := c.verify("peer", key.Public(), h); tenant.ReasonOf(err) != tt.want {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if c.proven(h) != (tt.want == "") {
			t.Errorf("%s: proven is %v", tt.name, c.proven(h))
		}
	}
	if n := len(c.flights); n != 0 {
		t.Errorf("%d verifications are under way still", n)
	}
	h := proven(key, false)
	if err := c.verify("peer", key.Public(), h); err != nil {
		t.Fatal(err)
	}
	if err := c.verify("peer", nil, h); err != nil {
		t.Errorf("what was verified is verified again: %v", err)
	}
}

// Of calls that ask for the same at once, one verifies; the others believe it if
// it succeeds, and themselves only if it fails.
func TestCacheFlight(t *testing.T) {
	for _, tt := range []struct {
		name        string
		ok, garbage bool
		want        tenant.Reason
	}{
		{"what succeeds counts for all", true, true, ""}, // nobody else looks at it
		{"H11 another's failure counts for nobody else", false, false, ""},
		{"H11 a forged root fails for all", false, true, tenant.SignatureInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				key := newKey(elliptic.P256())
				h := proven(key, tt.garbage)
				f := &flight{done: make(chan struct{})}
				c := &Cache{flights: map[proof]*flight{h.proof(): f}}
				out := make(chan error)
				for range 8 {
					go func() { out <- c.verify("peer", key.Public(), h) }()
				}
				synctest.Wait()
				// A call that asks for something else does not wait.
				if err := c.verify("peer", key.Public(), proven(key, !tt.garbage)); (err != nil) == tt.garbage {
					t.Errorf("another signature: %v", err)
				}
				f.ok = tt.ok
				close(f.done)
				for range 8 {
					if err := <-out; tenant.ReasonOf(err) != tt.want {
						t.Errorf("%v, want %q", err, tt.want)
					}
				}
			})
		})
	}
}

// H11: many calls present a forged root while others present the good one.
func TestCacheForgedRoot(t *testing.T) {
	calls, want := batches(t, 1, 8, 8)
	want.Cache, want.Generation = new(Cache), 1
	var all sync.WaitGroup
	for i := range 64 {
		m := calls[i%8]
		forged := i%2 == 0
		if forged {
			hops := new(pb.HopChain)
			if err := fromText(m.Hops, hops); err != nil {
				t.Fatal(err)
			}
			hops.Hops[0].Signature[63] ^= 1
			m.Hops = toText(hops)
		}
		all.Go(func() {
			_, err := Verify(m, want)
			if reason := tenant.ReasonOf(err); forged && reason != tenant.SignatureInvalid || !forged && err != nil {
				t.Errorf("forged %v: %v", forged, err)
			}
		})
	}
	all.Wait()
	if n := len(want.Cache.signatures.all); n != 1 {
		t.Errorf("%d signatures are remembered, want the one", n)
	}
}

// What the bundles, the clock and the call say is asked each time.
func TestCacheForgetsNoCheck(t *testing.T) {
	p := append(path("gateway", "orders", "inventory"), root().issue("stock"))
	p[0] = root().issue("gateway", between(noon, noon.Add(20*time.Second)))
	c := send(t, goodClaims(), p, nil)
	m, want := c.metadata(t), c.want
	want.Cache, want.Generation = new(Cache), 1
	for _, tt := range []struct {
		name   string
		change func(*Expected)
		want   tenant.Reason
	}{
		{"as it was", func(*Expected) {}, ""},
		{"H5 before", func(e *Expected) { e.Now = noon.Add(-time.Second) }, tenant.SVIDExpired},
		{"P2 I4 an authority removed", func(e *Expected) { e.Bundles, e.Generation = newCA(nil).bundles(), 2 }, tenant.SVIDUntrusted},
		{"back again", func(e *Expected) { e.Generation = 3 }, ""},
		{"bundles of no generation", func(e *Expected) { e.Generation = 0 }, ""},
		{"I4 others of no generation", func(e *Expected) { e.Bundles, e.Generation = newCA(nil).bundles(), 0 }, tenant.SVIDUntrusted},
		{"H5 I5 later", func(e *Expected) { e.Now = noon.Add(20 * time.Second) }, tenant.ContextExpired},
		{"H1 another method", func(e *Expected) { e.Target = "/a.B/C" }, tenant.TargetMismatch},
		{"H1 another connection", func(e *Expected) { e.Binding[0] ^= 1 }, tenant.ChannelMismatch},
		{"H1 another receiver", func(e *Expected) { e.Self = p[0].ID }, tenant.AudienceMismatch},
		{"H4 the peer with another intermediate", func(e *Expected) {
			e.Peer = []*x509.Certificate{e.Peer[0], newCA(root()).cert}
		}, tenant.SVIDMalformed},
		{"H4 another peer", func(e *Expected) { e.Peer = p[0].Certificates }, tenant.SignerNotPeer},
		{"as it was, again", func(*Expected) {}, ""},
	} {
		e := want
		tt.change(&e)
		if _, err := Verify(m, e); tenant.ReasonOf(err) != tt.want {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if n := len(want.Cache.signers.all); n != 3 {
		t.Errorf("%d signers are remembered, want 3", n)
	}
	unnumbered := want
	unnumbered.Cache, unnumbered.Generation = new(Cache), 0
	if _, err := Verify(m, unnumbered); err != nil {
		t.Error(err)
	}
	if n := len(unnumbered.Cache.signers.all) + len(unnumbered.Cache.peers.all); n != 0 {
		t.Errorf("%d signers and peers are remembered of bundles without a generation", n)
	}
	if n := len(want.Cache.peers.all); n != 1 {
		t.Errorf("%d peers are remembered, want 1", n)
	}
	if n := len(want.Cache.prefixes.all); n != 1 {
		t.Errorf("the hops before the last are remembered %d times, want 1", n)
	}
}

// A peer takes room from itself only, and all together have no more than there is.
func TestStore(t *testing.T) {
	const most = 16
	s := new(store[string, int])
	add := func(peer string, n int) {
		for i := range n {
			s.add(peer, fmt.Sprint(peer, i), i, most)
		}
	}
	count := func(peer string) (n int) {
		for k := range s.all {
			if strings.HasPrefix(k, peer) {
				n++
			}
		}
		if n != len(s.of[peer]) {
			t.Errorf("%d entries of %s, %d are counted", n, peer, len(s.of[peer]))
		}
		return n
	}
	add("quiet", 2)
	add("flood", 1000)
	if q, f := count("quiet"), count("flood"); q != 2 || f != most/4 {
		t.Errorf("after a flood %d entries of another and %d of its own, want 2 and %d", q, f, most/4)
	}
	for _, peer := range []string{"b", "c", "d", "e"} {
		add(peer, most/4)
	}
	if n := len(s.all); n != most {
		t.Errorf("%d entries, want %d", n, most)
	}
	if n := count("quiet"); n != 2 {
		t.Errorf("%d entries of who has the fewest, want 2", n)
	}
	for i := range 1000 { // peers that have one each: one of the first that had any gives way
		s.add(fmt.Sprint("peer", i), fmt.Sprint("peer", i), i, most)
	}
	if n := len(s.all); n != most {
		t.Errorf("%d entries, want %d", n, most)
	}
	for peer, own := range s.of {
		if len(own) == 0 {
			t.Errorf("%s is known without an entry", peer)
		}
	}
	before := len(s.of)
	s.add("another", slices.Sorted(maps.Keys(s.all))[0], 0, most) // is there
	if len(s.of) != before {
		t.Error("an entry has two owners")
	}
}

// Hops proven side by side are refused as they are one after the other.
func TestSideBySide(t *testing.T) {
	for _, processors := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(processors), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
			for _, broken := range [][]int{{}, {0}, {1}, {2}, {0, 2}, {1, 2}, {0, 1, 2}} {
				c := calls(t)
				for _, i := range broken {
					c.hops.Hops[i].Signature[63] ^= 1
				}
				_, err := Verify(c.metadata(t), c.want)
				if n := proving.Load(); n != 0 {
					t.Errorf("%d hops are being proven still", n)
				}
				if len(broken) == 0 {
					if err != nil {
						t.Error(err)
					}
					continue
				}
				var e *tenant.Error
				if hopOf(err, &e) != broken[0] || e.Reason != tenant.SignatureInvalid {
					t.Errorf("%v broken: %v, want %s at hop %d", broken, err, tenant.SignatureInvalid, broken[0])
				}
			}
		})
	}
}

// H9: whatever was verified before, and however often, the answer is the one
// without a cache.
func FuzzCache(f *testing.F) {
	calls := append(seeds(f), vectorCalls(f)...)
	warm := new(Cache)
	generation := func(g *golden) uint64 {
		return uint64(slices.IndexFunc(calls, func(other *golden) bool { return string(other.Authority) == string(g.Authority) }) + 1)
	}
	added := 0
	for i, g := range calls {
		want := g.expected()
		want.Cache, want.Generation = warm, generation(g)
		_, _ = Verify(Metadata{Hops: g.Hops, Certs: g.Certs}, want)
		hops, err := textEncoding.DecodeString(g.Hops)
		if err != nil {
			continue // a vector that is about this
		}
		if certs, err := textEncoding.DecodeString(g.Certs); err == nil {
			f.Add(i, hops, certs)
			added++
		}
	}
	if added == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, i int, hops, certs []byte) {
		if i < 0 || i >= len(calls) {
			return
		}
		m := Metadata{Hops: textEncoding.EncodeToString(hops), Certs: textEncoding.EncodeToString(certs)}
		want := calls[i].expected()
		chain, cold := Verify(m, want)
		want.Cache, want.Generation = warm, generation(calls[i])
		for range 2 {
			again, err := Verify(m, want)
			if fmt.Sprint(err) != fmt.Sprint(cold) || !sameChain(again, chain) {
				t.Fatalf("%v with a cache, %v without", err, cold)
			}
		}
	})
}

// The zero Cache remembers, and a nil one does not.
func TestNoCache(t *testing.T) {
	var none *Cache
	key := newKey(elliptic.P256())
	h := proven(key, false)
	if err := none.verify("peer", key.Public(), h); err != nil || none.proven(h) {
		t.Errorf("%v, proven %v", err, none.proven(h))
	}
	c := calls(t)
	c.want.Generation = 1
	if _, err := Verify(c.metadata(t), c.want); err != nil {
		t.Error(err)
	}
}

// TestOnward: of chains that a workload got by different ways, each goes on with the certificates of its own.
func TestOnward(t *testing.T) {
	p := path("gateway", "orders", "inventory", "stock")
	cache := new(Cache)
	for i, first := range []*x509svid.SVID{p[0], root().issue("portal"), p[0]} {
		chain := must(Begin(goodClaims()))
		way := append([]*x509svid.SVID{first}, p[1:]...)
		for hop, signer := range way[:len(way)-1] {
			callee := way[hop+1]
			m := must(chain.Sign(signer, Handover{Kind: Call, Audience: callee.ID.String(), Target: methodOf(callee), Binding: [32]byte{1}, Now: noon}))
			want := Expected{
				Kind: Call, Peer: signer.Certificates, Self: callee.ID, Target: methodOf(callee), Binding: [32]byte{1},
				Bundles: root().bundles(), Generation: 1, Now: noon,
			}
			if _, err := Verify(m, want); err != nil {
				t.Errorf("H9 chain %d at hop %d: %v", i, hop, err)
			}
			want.Cache = cache
			var err error
			if chain, err = Verify(m, want); err != nil {
				t.Fatalf("H9 chain %d at hop %d, with a cache: %v", i, hop, err)
			}
		}
	}
}
