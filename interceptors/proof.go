package interceptors

import (
	"hash/maphash"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/mint"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
)

// proof is a chain that was verified on a connection for a method. Calls that
// bring the same bytes share it. What may have changed since is checked at
// each: times, bundles, policy.
type proof struct {
	carried
	question policy.Call // but for its time
	path     []string    // SPIFFE IDs of the signers
	// generation of the bundles that the signers were found to chain to.
	generation atomic.Uint64
	// said is what the last policy made of it; for most that is the first.
	said  atomic.Pointer[said]
	taken atomic.Bool // first
	first said
}

// said is what a policy says of a proof.
type said struct {
	policy *policy.Policy
	facts  mint.Facts
	rule   string // the places that decided
}

func newProof(chain *hop.Chain, generation uint64, method string, declared *policy.Declared) *proof {
	p := &proof{carried: carried{chain: chain}, question: policy.Call{
		Method: method, Declared: declared, Path: chain.Path(), Claims: chain.View(), Scopes: chain.Scopes(),
	}}
	p.path = signers(p.question.Path)
	p.generation.Store(generation)
	return p
}

// valid says whether the chain may still be used: its times, and its signers.
func (p *proof) valid(snap *svid.Snapshot, now time.Time) error {
	if err := p.chain.Valid(now); err != nil {
		return err
	}
	return p.trusted(snap, now)
}

// trusted says whether the signers chain to the bundles, if those are others now.
func (p *proof) trusted(snap *svid.Snapshot, now time.Time) error {
	if p.generation.Load() == snap.Generation {
		return nil
	}
	if err := p.chain.Trusted(snap.Bundles, snap.Generation, now); err != nil {
		return err
	}
	p.generation.Store(snap.Generation)
	return nil
}

// by returns what is said of the proof by a policy that made the decision.
func (p *proof) by(pol *policy.Policy, d *policy.Decision) *said {
	if s := p.said.Load(); s != nil && s.policy == pol {
		return s
	}
	s := &p.first
	if p.taken.Swap(true) {
		s = new(said)
	}
	s.policy, s.rule = pol, strings.Join(d.Rules(), " ")
	setFacts(&s.facts, &p.question, d.Workloads())
	p.said.Store(s)
	return s
}

// setFacts turns what policy was asked into what handlers see of it; the two share
// what neither changes. Of the signers, policy may have named only the first.
func setFacts(f *mint.Facts, q *policy.Call, workloads []string) {
	claims := q.Claims
	*f = mint.Facts{
		Tenant:         claims.Tenant.String(),
		TenantUID:      claims.TenantUID,
		Subject:        claims.Subject,
		Issuer:         claims.Issuer,
		Transaction:    claims.Transaction,
		Scopes:         q.Scopes,
		Classification: claims.Classification,
		Attributes:     claims.Attributes,
		Request:        claims.Request,
		Path:           make([]mint.Step, 0, len(q.Path)),
		IssuedAt:       claims.IssuedAt,
		Expires:        claims.Expires,
		Elevation:      claims.Elevation,
	}
	for i, s := range q.Path {
		step := mint.Step{SPIFFEID: s.Signer, Method: s.Target}
		if i < len(workloads) {
			step.Workload = workloads[i]
		}
		f.Path = append(f.Path, step)
	}
}

// proofKey is what a proof is known by, on its connection: the method, and the
// exact bytes that were received.
type proofKey struct{ method, hops, certs string }

// How many proofs are kept: on a connection, on each even if the guard has no
// room left, and by a guard. One takes up to 4 KiB, so that a guard's take some
// 50 MB.
const (
	maxProofs   = 1024
	leastProofs = 8
	mostProofs  = 12 << 10
)

// received is what a server keeps for a connection: its proofs, and its slots. A
// connection that brings more proofs than there is room for takes it from its own.
type received struct {
	of     *usage
	offers atomic.Int32 // of slots that are still to be made
	slots  atomic.Pointer[hop.Slots]

	mu sync.Mutex
	m  map[proofKey]*proof
	// seen has a tag for some keys that came once.
	seen *[maxProofs]uint32
}

// usage counts what a connection has of what its guard keeps.
type usage struct {
	g      *Guard
	proofs int64
	slots  int64 // 1, if any
}

// received returns what is kept for a connection.
func (g *Guard) received(conn *svid.Conn) *received {
	r, _ := conn.Attached(func() any {
		r := &received{of: &usage{g: g}, m: map[proofKey]*proof{}}
		r.offers.Store(maxOffers)
		// It goes with the connection, whenever gRPC lets go of it.
		runtime.AddCleanup(r, func(u *usage) {
			u.g.proofs.Add(-u.proofs)
			u.g.slots.Add(-u.slots)
		}, r.of)
		return r
	}).(*received)
	return r
}

// What is offered to a connection, in how many of its first answers, and to how
// many connections at a time: some 32 MB.
var slotsOffered = hop.Offer{Slots: 1024, Bytes: 1 << 20}

const (
	maxOffers   = 64
	mostSlotted = 32
)

// offer returns the slots to offer in an answer on the connection, if any are.
func (r *received) offer() (value string, ok bool) {
	if r.offers.Load() <= 0 || r.offers.Add(-1) < 0 {
		return "", false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slots.Load() == nil {
		if r.of.g.slots.Add(1) > mostSlotted {
			r.of.g.slots.Add(-1)
			return "", false
		}
		r.of.slots = 1
		r.slots.Store(hop.NewSlots(slotsOffered))
	}
	return slotsOffered.String(), true
}

func (r *received) get(k proofKey) *proof {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.m[k]
}

// add keeps a proof, if it was added before: most come once, and would only fill the memory.
func (r *received) add(k proofKey, p *proof) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.again(k) {
		return
	}
	if _, known := r.m[k]; !known {
		if n := len(r.m); n >= maxProofs || n >= leastProofs && r.of.g.proofs.Load() >= mostProofs {
			for old := range r.m { // any
				delete(r.m, old)
				break
			}
		} else {
			r.of.proofs++
			r.of.g.proofs.Add(1)
		}
	}
	r.m[k] = p
}

// again reports whether it was asked for the key before, as far as it remembers. r.mu is held.
func (r *received) again(k proofKey) bool {
	if r.seen == nil {
		r.seen = new([maxProofs]uint32)
	}
	sum := maphash.Comparable(seed, k)
	at, tag := sum%maxProofs, uint32(sum>>32)
	was := r.seen[at]
	r.seen[at] = tag
	return was == tag
}

var seed = maphash.MakeSeed()
