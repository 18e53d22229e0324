package hop

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// heldKey signs when it is let to.
type heldKey struct {
	crypto.Signer
	asked   chan struct{}     // gets one for each signature that is asked for
	release chan func() error // gives what to do before it
}

func (k *heldKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.asked <- struct{}{}
	if err := (<-k.release)(); err != nil {
		return nil, err
	}
	return k.Signer.Sign(random, digest, opts)
}

// rig is a signer whose key waits, and a chain to sign.
type rig struct {
	*Signer
	key   *heldKey
	chain *Chain
	to    Handover
	want  Expected
}

func newRig(t testing.TB) *rig {
	t.Helper()
	p := path("gateway", "orders")
	key := &heldKey{p[0].PrivateKey, make(chan struct{}), make(chan func() error)}
	chain, err := Begin(goodClaims())
	if err != nil {
		t.Fatal(err)
	}
	to := Handover{Kind: Call, Audience: p[1].ID.String(), Target: methodOf(p[1]), Binding: [32]byte{1}, Now: noon}
	return &rig{
		Signer: &Signer{SVID: &x509svid.SVID{ID: p[0].ID, Certificates: p[0].Certificates, PrivateKey: key}},
		key:    key, chain: chain, to: to,
		want: Expected{Kind: Call, Peer: p[0].Certificates, Self: p[1].ID, Target: to.Target, Binding: to.Binding, Bundles: root().bundles(), Now: noon},
	}
}

// signed is what became of a call of Sign.
type outcome struct {
	m        Metadata
	err      error
	panicked any
}

// sign signs n statements at once, and returns when all of them wait for the key or for each other.
func (r *rig) sign(ctx context.Context, n int) <-chan outcome {
	out := make(chan outcome, n)
	for range n {
		go func() {
			var o outcome
			defer func() {
				o.panicked = recover()
				out <- o
			}()
			o.m, o.err = r.Sign(ctx, r.chain, r.to)
		}()
	}
	synctest.Wait()
	return out
}

// let lets the key make a signature.
func (r *rig) let(do func() error) {
	<-r.key.asked
	r.key.release <- do
}

func nothing() error { return nil }

// verified fails the test unless the outcome is metadata that verify, and returns the size of the tree.
func (r *rig) verified(t *testing.T, o outcome) uint32 {
	t.Helper()
	if o.err != nil || o.panicked != nil {
		t.Fatalf("%v, %v", o.err, o.panicked)
	}
	if _, err := Verify(o.m, r.want); err != nil {
		t.Fatal(err)
	}
	return must(parseHops(nil, must(decodeText(o.m.Hops))))[0].size
}

// What waits while a signature is made is signed together.
func TestSignTogether(t *testing.T) {
	for _, tt := range []struct {
		name  string
		most  int
		waits int
		trees []uint32 // of how many of those that waited
	}{
		{"one", 0, 1, []uint32{1}},
		{"seven", 0, 7, []uint32{7}},
		{"more than a batch", 0, 40, []uint32{32, 8}},
		{"a limit", 4, 6, []uint32{4, 2}},
		{"a limit beyond the trees", 1000, 300, []uint32{256, 44}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.MaxBatch = tt.most
				first := r.sign(t.Context(), 1)
				others := r.sign(t.Context(), tt.waits)
				r.let(nothing)
				if n := r.verified(t, <-first); n != 1 {
					t.Errorf("who waited for nobody is in a tree of %d", n)
				}
				for range tt.trees {
					r.let(nothing)
				}
				got := map[uint32]int{}
				for range tt.waits {
					got[r.verified(t, <-others)]++
				}
				for _, n := range tt.trees {
					if got[n] != int(n) {
						t.Errorf("sizes of trees: %v, want %v", got, tt.trees)
					}
				}
			})
		})
	}
}

// A MaxBatch of 1 signs each statement alone, and side by side.
func TestSignUnbatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.MaxBatch = 1
		out := r.sign(t.Context(), 3)
		for range 3 {
			<-r.key.asked
		}
		for range 3 {
			r.key.release <- nothing
		}
		for range 3 {
			if n := r.verified(t, <-out); n != 1 {
				t.Errorf("a tree of %d", n)
			}
		}
	})
}

// Statements of two kinds have signatures of their own.
func TestSignKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		call := r.sign(t.Context(), 1)
		calls := r.sign(t.Context(), 2)
		r.to.Kind, r.to.Target, r.to.Binding = Grant, "", [32]byte{}
		grant := r.sign(t.Context(), 1)
		// Both signatures are being made.
		<-r.key.asked
		<-r.key.asked
		grants := r.sign(t.Context(), 2)
		r.key.release <- nothing
		r.key.release <- nothing
		r.let(nothing)
		r.let(nothing)
		r.verified(t, <-call)
		for range 2 {
			if n := r.verified(t, <-calls); n != 2 {
				t.Errorf("a call in a tree of %d", n)
			}
		}
		r.want.Kind, r.want.Target, r.want.Binding = Grant, "", [32]byte{}
		r.verified(t, <-grant)
		for range 2 {
			if n := r.verified(t, <-grants); n != 2 {
				t.Errorf("a grant in a tree of %d", n)
			}
		}
	})
}

// A signer that is busy lets others run before it signs; one that is not signs at once.
func TestSignBusy(t *testing.T) {
	asked := 0
	r := newRig(t)
	r.SVID.PrivateKey = r.key.Signer
	r.Busy = func() bool { asked++; return asked < 3 }
	m, err := r.Sign(t.Context(), r.chain, r.to)
	if r.verified(t, outcome{m: m, err: err}); asked != 3 {
		t.Errorf("asked %d times whether it is busy, want 3", asked)
	}
	r.Busy = func() bool { asked++; return true }
	asked = 0
	if _, err = r.Sign(t.Context(), r.chain, r.to); err != nil || asked != yields {
		t.Errorf("asked %d times: %v, want %d", asked, err, yields)
	}
}

// H11: nobody's end is the others'.
func TestSignCancelled(t *testing.T) {
	t.Run("H11 who waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			first := r.sign(t.Context(), 1)
			ctx, cancel := context.WithCancel(t.Context())
			gone := r.sign(ctx, 2)
			others := r.sign(t.Context(), 3)
			cancel()
			for range 2 {
				if o := <-gone; !errors.Is(o.err, context.Canceled) {
					t.Errorf("%v, want %v", o.err, context.Canceled)
				}
			}
			r.let(nothing)
			r.verified(t, <-first)
			r.let(nothing)
			for range 3 {
				if n := r.verified(t, <-others); n != 5 {
					t.Errorf("a tree of %d, want those 5 that waited", n)
				}
			}
		})
	})
	t.Run("H11 who signs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			first := r.sign(t.Context(), 1)
			ctx, cancel := context.WithCancel(t.Context())
			leader := r.sign(ctx, 1)
			r.let(nothing)
			r.verified(t, <-first)
			<-r.key.asked // the leader's
			others := r.sign(t.Context(), 3)
			cancel()
			synctest.Wait()
			r.key.release <- nothing
			r.verified(t, <-leader)
			r.let(nothing)
			for range 3 {
				r.verified(t, <-others)
			}
		})
	})
	t.Run("H11 all who wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			first := r.sign(t.Context(), 1)
			ctx, cancel := context.WithCancel(t.Context())
			gone := r.sign(ctx, 2)
			cancel()
			<-gone
			<-gone
			r.let(nothing)
			r.verified(t, <-first)
			late := r.sign(t.Context(), 1)
			r.let(nothing)
			if n := r.verified(t, <-late); n != 3 {
				t.Errorf("a tree of %d, want 3", n)
			}
		})
	})
}

// H11: a key that fails, or panics, leaves nobody waiting.
func TestSignFails(t *testing.T) {
	for name, panics := range map[string]bool{"H11 a panic": true, "H11 an error": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				first := r.sign(t.Context(), 1)
				others := r.sign(t.Context(), 5)
				r.let(nothing)
				r.verified(t, <-first)
				r.let(func() error {
					if panics {
						panic("no key")
					}
					return errors.New("no key")
				})
				panicked := 0
				for range 5 {
					o := <-others
					if o.panicked != nil {
						panicked++
					} else if tenant.ReasonOf(o.err) != tenant.Internal || o.m != (Metadata{}) {
						t.Errorf("%v, want %s", o.err, tenant.Internal)
					}
				}
				if want := map[bool]int{true: 1}[panics]; panicked != want {
					t.Errorf("%d of those who waited panicked, want %d: who called the key", panicked, want)
				}
				next := r.sign(t.Context(), 1)
				r.let(nothing)
				r.verified(t, <-next)
			})
		})
	}
}

// A statement that is too large with its path is signed once more, alone.
func TestSignPathTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		claims := goodClaims()
		var err error
		for i := 0; ; i++ { // fill what the budget leaves
			claims.Request["fill"+string(rune('a'+i/500))] += "x"
			var chain *Chain
			if chain, err = Begin(claims); err != nil {
				t.Fatal(err)
			}
			if _, err := chain.Sign(&x509svid.SVID{ID: r.SVID.ID, Certificates: r.SVID.Certificates, PrivateKey: r.key.Signer}, r.to); err != nil {
				break
			}
			r.chain = chain
		}
		first := r.sign(t.Context(), 1)
		others := r.sign(t.Context(), 3)
		for range 4 { // the first, the three together, each of two
			r.let(nothing)
		}
		r.let(func() error { return errors.New("no key") }) // the third
		r.verified(t, <-first)
		var failed int
		for range 3 {
			if o := <-others; tenant.ReasonOf(o.err) == tenant.Internal {
				failed++
			} else if n := r.verified(t, o); n != 1 {
				t.Errorf("a tree of %d", n)
			}
		}
		if failed != 1 {
			t.Errorf("%d failed, want the one that the key failed for", failed)
		}
	})
}

// A statement that is too large without a path is not signed once more.
func TestSignTooLarge(t *testing.T) {
	p := path("gateway", "orders")
	key := counting{p[0].PrivateKey, new(atomic.Int64)}
	claims := goodClaims()
	for i := range 12 {
		claims.Request[fmt.Sprint("fill", i)] = strings.Repeat("x", maxText)
	}
	chain := must(Begin(claims))
	s := &Signer{SVID: &x509svid.SVID{ID: p[0].ID, Certificates: p[0].Certificates, PrivateKey: key}}
	_, err := s.Sign(t.Context(), chain, Handover{Kind: Call, Audience: p[1].ID.String(), Target: methodOf(p[1]), Binding: [32]byte{1}, Now: noon})
	if tenant.ReasonOf(err) != tenant.MetadataTooLarge || key.n.Load() != 1 {
		t.Errorf("%v after %d signatures", err, key.n.Load())
	}
}

// Who gets the turn when the others have signed leaves it to the next.
func TestSignLate(t *testing.T) {
	r := newRig(t)
	q := &queue{turn: make(chan struct{}, 1)}
	b, _ := q.join(hash{}, 1)
	close(b.done)
	q.turn <- struct{}{}
	r.lead(q, b, Call) // the key would wait
	select {
	case q.turn <- struct{}{}:
	default:
		t.Error("the turn was not passed on")
	}
}

// Under -race: many callers at once, all of whose statements verify.
func TestSignConcurrently(t *testing.T) {
	r := newRig(t)
	r.SVID.PrivateKey = r.key.Signer
	r.Busy = func() bool { return true }
	r.want.Cache, r.want.Generation = new(Cache), 1
	var together atomic.Int64
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for range 20 {
				m, err := r.Sign(t.Context(), r.chain, r.to)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := Verify(m, r.want); err != nil {
					t.Error(err)
				}
				if must(parseHops(nil, must(decodeText(m.Hops))))[0].size > 1 {
					together.Add(1)
				}
			}
		})
	}
	all.Wait()
	if together.Load() == 0 {
		t.Error("no two statements were signed together")
	}
}
