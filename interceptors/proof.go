package interceptors

import (
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
	chain    *hop.Chain
	question policy.Call // but for its time
	path     []string    // SPIFFE IDs of the signers
	// generation of the bundles that the signers were found to chain to.
	generation atomic.Uint64
	// said is what the last policy made of it.
	said atomic.Pointer[said]
}

// said is what a policy says of a proof.
type said struct {
	policy *policy.Policy
	facts  *mint.Facts
	rule   string // the places that decided
}

func newProof(chain *hop.Chain, generation uint64, method string, declared *policy.Declared) *proof {
	p := &proof{chain: chain, path: signers(chain), question: policy.Call{
		Method: method, Declared: declared, Path: chain.Path(), Claims: chain.Claims(), Scopes: chain.Scopes(),
	}}
	p.generation.Store(generation)
	return p
}

// valid says whether the chain still holds: its times, and, where the bundles
// are others, its signers.
func (p *proof) valid(snap *svid.Snapshot, now time.Time) error {
	if err := p.chain.Valid(now); err != nil {
		return err
	}
	if p.generation.Load() == snap.Generation {
		return nil
	}
	if err := p.chain.Trusted(snap.Bundles, now); err != nil {
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
	s := &said{pol, newFacts(p.chain, d.Workloads()), strings.Join(d.Rules(), " ")}
	p.said.Store(s)
	return s
}

// newFacts turns a chain into what handlers see of it. Of its signers, policy
// may have named only the first.
func newFacts(chain *hop.Chain, workloads []string) *mint.Facts {
	claims := chain.Claims()
	f := &mint.Facts{
		Tenant:         claims.Tenant.String(),
		TenantUID:      claims.TenantUID,
		Subject:        claims.Subject,
		Issuer:         claims.Issuer,
		Transaction:    claims.Transaction,
		Scopes:         chain.Scopes(),
		Classification: claims.Classification,
		Attributes:     claims.Attributes,
		Request:        claims.Request,
		IssuedAt:       claims.IssuedAt,
		Expires:        claims.Expires,
		Elevation:      claims.Elevation,
	}
	for i, s := range chain.Path() {
		step := mint.Step{SPIFFEID: s.Signer, Method: s.Target}
		if i < len(workloads) {
			step.Workload = workloads[i]
		}
		f.Path = append(f.Path, step)
	}
	return f
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

// proofs are those of one connection. A connection that brings more than there
// is room for takes it from its own.
type proofs struct {
	of *usage

	mu sync.Mutex
	m  map[proofKey]*proof
}

// usage counts the proofs of a connection, for its guard.
type usage struct {
	all *atomic.Int64 // the guard's
	own int64
}

// proofs returns those of a connection.
func (g *Guard) proofs(conn *svid.Conn) *proofs {
	p, _ := conn.Attached(func() any {
		p := &proofs{of: &usage{all: &g.kept}, m: map[proofKey]*proof{}}
		// They go with the connection, whenever gRPC lets go of it.
		runtime.AddCleanup(p, func(u *usage) { u.all.Add(-u.own) }, p.of)
		return p
	}).(*proofs)
	return p
}

func (p *proofs) get(k proofKey) *proof {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.m[k]
}

func (p *proofs) add(k proofKey, v *proof) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.m[k]; !known {
		if n := len(p.m); n >= maxProofs || n >= leastProofs && p.of.all.Load() >= mostProofs {
			for old := range p.m { // any
				delete(p.m, old)
				break
			}
		} else {
			p.of.own++
			p.of.all.Add(1)
		}
	}
	p.m[k] = v
}
