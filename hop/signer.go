package hop

import (
	"context"
	"crypto"
	"runtime"
	"sync"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// Signer signs with one SVID. Statements of a kind that wait while it makes a
// signature get the next one together, each with its place in a Merkle tree
// (SPEC.md, section 5). Another SVID, also the same workload's next one, is for
// another Signer. It is safe for concurrent use, and not to be copied.
type Signer struct {
	// SVID is what it signs with.
	SVID *x509svid.SVID
	// MaxBatch is the most statements of one signature, at most [MaxTree]. 0 stands for 32, whose paths take
	// 170 bytes; 1 signs each statement alone.
	MaxBatch int
	// Busy reports whether other calls are under way, whose statements may be
	// about to come. While it does, a signature waits until they had a chance to.
	// Nil stands for never.
	Busy func() bool

	once       sync.Once
	thumbprint hash         // of the SVID's leaf
	queues     [Grant]queue // by kind: a signature is for statements of one
}

// queue holds the statements of a kind that wait.
type queue struct {
	once sync.Once
	turn chan struct{} // to sign: one at a time has it
	mu   sync.Mutex
	open *batch // takes more statements; nil if there is none
}

// batch is statements that are signed together. Those who brought them wait until it
// is done, or until one of them has the turn to sign.
type batch struct {
	leaves []hash

	done      chan struct{} // closed once what follows is set
	tree      hashTree
	signature string
	err       error
}

const (
	defaultBatch = 32
	// yields is how often a signer that is busy lets others run before it signs. Timers
	// overshoot, and waits that follow the rate of calls have two stable states.
	yields = 3
)

// Sign is [Chain.Sign] by s. It also fails with the error of ctx, where ctx ends while the
// statement waits for a signature. A signature once begun is made, also for the
// others, whatever becomes of ctx.
func (s *Signer) Sign(ctx context.Context, c *Chain, to Handover) (Metadata, error) {
	next, err := s.next(c, to)
	if err != nil {
		return Metadata{}, err
	}
	encoded, err := next.marshal()
	if err != nil {
		return Metadata{}, err
	}
	h, seal := &sealed{encoded: encoded}, s.together
	if s.MaxBatch == 1 {
		seal = s.alone
	}
	if err := seal(ctx, next.Kind, h); err != nil {
		return Metadata{}, err
	}
	m := c.encode(h)
	if len(h.path) > 0 && m.checkSize() != nil { // its place among the others is too much
		if err := s.alone(ctx, next.Kind, h); err != nil {
			return Metadata{}, err
		}
		m = c.encode(h)
	}
	if err := m.checkSize(); err != nil {
		return Metadata{}, err
	}
	return m, nil
}

// alone seals a statement with a signature of its own.
func (s *Signer) alone(_ context.Context, kind Kind, h *sealed) error {
	b := &batch{leaves: []hash{leafHash(h.encoded)}}
	if b.sign(s.SVID.PrivateKey, kind); b.err == nil {
		b.seal(h, 0)
	}
	return b.err
}

// together seals a statement with those that wait, or are about to come.
func (s *Signer) together(ctx context.Context, kind Kind, h *sealed) error {
	q := &s.queues[kind-1]
	q.once.Do(func() { q.turn = make(chan struct{}, 1) })
	b, i := q.join(leafHash(h.encoded), s.most())
	select {
	case <-b.done:
	case q.turn <- struct{}{}:
		s.lead(q, b, kind)
	case <-ctx.Done():
		return ctx.Err()
	}
	if b.err == nil {
		b.seal(h, i)
	}
	return b.err
}

// most is the most statements of a batch.
func (s *Signer) most() int {
	if s.MaxBatch <= 0 {
		return defaultBatch
	}
	return min(s.MaxBatch, MaxTree)
}

// join puts a leaf into the open batch, and returns its place there.
func (q *queue) join(leaf hash, most int) (b *batch, i int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open == nil {
		q.open = &batch{done: make(chan struct{})}
	}
	b, i = q.open, len(q.open.leaves)
	b.leaves = append(b.leaves, leaf)
	if len(b.leaves) == most {
		q.open = nil
	}
	return b, i
}

// shut makes a batch take no more statements.
func (q *queue) shut(b *batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open == b {
		q.open = nil
	}
}

// lead signs a batch, unless that is done, and passes the turn on. Should the key panic, the
// others do not wait for ever.
func (s *Signer) lead(q *queue, b *batch, kind Kind) {
	defer func() { <-q.turn }()
	select {
	case <-b.done:
		return
	default:
	}
	defer close(b.done)
	for range yields {
		if s.Busy == nil || !s.Busy() {
			break
		}
		runtime.Gosched()
	}
	q.shut(b)
	b.sign(s.SVID.PrivateKey, kind)
}

// sign signs the root of the batch, which takes no more statements.
func (b *batch) sign(key crypto.Signer, kind Kind) {
	b.tree, b.err = newHashTree(b.leaves), errKey
	signature, err := sign(key, signedBytes(kind, b.size(), b.tree.root()))
	b.signature, b.err = string(signature), err
}

var errKey = tenant.Deny(tenant.Internal, "the key panicked")

// seal completes the statement at place i.
func (b *batch) seal(h *sealed, i int) {
	h.signature, h.size, h.index, h.path = b.signature, b.size(), uint32(i), b.tree.path(i) //nolint:gosec // at most MaxTree
}

func (b *batch) size() uint32 { return uint32(len(b.leaves)) } //nolint:gosec // at most MaxTree
