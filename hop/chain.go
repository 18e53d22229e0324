package hop

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/internal/leaf"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Chain is a hop chain that [Verify] found good, or the beginning of one. It is
// immutable; the zero Chain holds no claims and signs nothing.
type Chain struct {
	claims *Claims
	hops   []signed
	scopes []string // in force after all narrowings
	// What goes before the next hop on the wire: the encoded hops, what they came as, and the
	// certificates of their signers, as text that is made when it is needed.
	sent string
	came Metadata
	text *lazyText
}

type lazyText struct {
	once  sync.Once
	certs string
}

// String names the tenant, the transaction and the number of hops, and no other
// claim, so that a chain may be logged.
func (c Chain) String() string {
	if c.claims == nil {
		return "no claims"
	}
	return fmt.Sprintf("%s, %d hops", c.claims, len(c.hops))
}

// GoString keeps %#v from printing what String leaves out.
func (c Chain) GoString() string { return "hop.Chain{" + c.String() + "}" }

// signed is one verified hop.
type signed struct {
	sealed
	root      hash // of its tree
	statement *Statement
	by        *signer
	known     bool // that the signature verifies
	signer    *leaf.Verified
}

// sum is what the next statement has as prev.
func (h *sealed) sum() hash { return hashOf("", h.encoded) }

// proof returns what the signature's verification depends on.
func (h *signed) proof() proof {
	return proof{h.statement.Signer, h.statement.Kind, h.size, h.root, h.signature}
}

// signer is the certificates of a signer.
type signer struct {
	chain      string              // the encoding of their CertificateChain
	certs      []*x509.Certificate // leaf first
	thumbprint hash                // of the leaf
	id         spiffeid.ID
	malformed  error // the leaf has not the form of an SVID
	verified   atomic.Pointer[verified]
	kept       atomic.Bool // by a Cache
	onward     atomic.Pointer[onward]
}

// onward is the certificates with which the last chain goes on that a signer brought: those that
// came with it, and the signer's own. Most of its chains came the same way.
type onward struct{ came, text string }

func newSigner(chain string, certs []*x509.Certificate) *signer {
	s := &signer{chain: chain, certs: certs, thumbprint: leaf.Thumbprint(certs[0])}
	s.id, s.malformed = leaf.ID(certs[0])
	return s
}

// verified is a signer that chains to the bundles of a generation.
type verified struct {
	generation uint64
	*leaf.Verified
}

// verify is [leaf.Verify]. What was found before holds as long as the bundles are
// the same and the certificates valid.
func (s *signer) verify(want *Expected) (*leaf.Verified, error) {
	if v := s.verified.Load(); v != nil && want.Generation != 0 && v.generation == want.Generation && v.Valid(want.Now) == nil {
		return v.Verified, nil
	}
	v, err := leaf.Verify(s.certs, want.Bundles, want.Now)
	if err != nil {
		return nil, err
	}
	s.verified.Store(&verified{want.Generation, v})
	return v, nil
}

// Begin returns a chain of no hops that holds the claims, for the workload
// that originates them. It fails with [tenant.ContextMalformed] where the
// claims have no encoding.
func Begin(c *Claims) (*Chain, error) {
	c = c.Clone()
	c.IssuedAt, c.Expires = c.IssuedAt.Truncate(time.Second).UTC(), c.Expires.Truncate(time.Second).UTC()
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Chain{claims: c, scopes: c.Scopes}, nil
}

// Claims returns a copy of the claims, and nil for the zero Chain.
func (c *Chain) Claims() *Claims {
	if c.claims == nil {
		return nil
	}
	return c.claims.Clone()
}

// View returns the claims that the chain itself holds, and nil for the zero Chain. They
// are shared and must not be changed; [Chain.Claims] returns claims that may be.
func (c *Chain) View() *Claims { return c.claims }

// Scopes returns a copy of the scopes in force: those of the claims, as the
// hops narrowed them.
func (c *Chain) Scopes() []string { return slices.Clone(c.scopes) }

// Step is one verified hop of a chain.
type Step struct {
	// Signer is the workload that signed it.
	Signer spiffeid.ID
	// Kind says how it was handed over.
	Kind Kind
	// Target is the method, subject or topic that it was handed over with.
	Target string
}

// Path returns the hops, oldest first. A chain that was only begun has none.
func (c *Chain) Path() []Step {
	steps := make([]Step, 0, len(c.hops))
	for _, h := range c.hops {
		steps = append(steps, Step{h.signer.ID, h.statement.Kind, h.statement.Target})
	}
	return steps
}

// Valid says whether the chain may still be used at now: its claims and hops
// have not expired, nor has the certificate of any signer. It fails with
// [tenant.ContextExpired] or [tenant.SVIDExpired], and for the zero Chain with
// [tenant.ContextMissing].
func (c *Chain) Valid(now time.Time) error {
	if c.claims == nil {
		return tenant.Deny(tenant.ContextMissing, "the zero chain")
	}
	if !now.Before(c.claims.Expires) {
		return tenant.Deny(tenant.ContextExpired, "the claims expired at %s", c.claims.Expires.Format(time.RFC3339))
	}
	for i, h := range c.hops {
		if !now.Before(h.statement.Expires) {
			return tenant.Deny(tenant.ContextExpired, "the statement expired at %s", h.statement.Expires.Format(time.RFC3339)).AtHop(i)
		}
		if err := h.signer.Valid(now); err != nil {
			return atHop(err, i)
		}
	}
	return nil
}

// Until returns the first time at which [Chain.Valid] fails.
func (c *Chain) Until() time.Time {
	if c.claims == nil {
		return time.Time{}
	}
	until := c.claims.Expires
	for _, h := range c.hops {
		until = earlier(earlier(until, h.statement.Expires), h.signer.NotAfter)
	}
	return until
}

// Origin returns the parent that claims have which are derived from the chain.
// A chain that was only begun is no parent: it returns nil.
func (c *Chain) Origin() *Parent {
	if len(c.hops) == 0 {
		return nil
	}
	return &Parent{c.claims.Transaction, c.hops[len(c.hops)-1].sum()}
}

// Trusted says whether the certificates of all signers chain to the bundles at
// now. It is to be asked again when the bundles have changed. Chains that were verified with
// one [Cache] ask once for each signer and generation, as [Expected] has it. It fails as [Verify] does for a signer.
func (c *Chain) Trusted(bundles x509bundle.Source, generation uint64, now time.Time) error {
	want := &Expected{Bundles: bundles, Generation: generation, Now: now}
	for i, h := range c.hops {
		if _, err := h.by.verify(want); err != nil {
			return atHop(err, i)
		}
	}
	return nil
}

// Handover says to whom a chain is handed, and how.
type Handover struct {
	// Kind, Audience, Target and Binding are as in [Statement].
	Kind     Kind
	Audience string
	Target   string
	Binding  [32]byte
	// Narrowing bounds what comes after; nil leaves what was allowed.
	Narrowing *Narrowing
	// Now is the time of signing.
	Now time.Time
	// Rand makes the jti; nil stands for crypto/rand.
	Rand io.Reader
}

// Sign adds a hop to the chain with the workload's own SVID and returns the
// result for the wire; the chain itself stays as it was. The statement expires
// with the claims, the hop before it or the signer's certificate, whichever is
// first. It fails with [tenant.IdentityUnavailable] where that has passed for the
// certificate or there is none, with [tenant.ChainTooLong],
// [tenant.MetadataTooLarge], [tenant.ScopeWidened] or [tenant.MethodNarrowed], as
// [Chain.Valid] and [Statement.Marshal] do, with [tenant.KeyUnsupported], and with
// [tenant.Internal] where the key does not sign.
func (c *Chain) Sign(svid *x509svid.SVID, to Handover) (Metadata, error) {
	return (&Signer{SVID: svid, MaxBatch: 1}).Sign(context.Background(), c, to)
}

// next returns the statement by which s hands the chain on.
func (s *Signer) next(c *Chain, to Handover) (*Statement, error) {
	svid := s.SVID
	if len(c.hops) >= MaxHops {
		return nil, tenant.Deny(tenant.ChainTooLong, "a chain has at most %d hops", MaxHops)
	}
	if err := c.Valid(to.Now); err != nil {
		return nil, err
	}
	if svid == nil || len(svid.Certificates) == 0 || svid.PrivateKey == nil {
		return nil, tenant.Deny(tenant.IdentityUnavailable, "no SVID to sign with")
	}
	own := svid.Certificates[0]
	if !to.Now.Before(own.NotAfter) {
		return nil, tenant.Deny(tenant.IdentityUnavailable, "the SVID of this connection expired at %s", own.NotAfter.Format(time.RFC3339))
	}
	s.once.Do(func() { s.thumbprint = leaf.Thumbprint(own) })
	next := &Statement{
		Kind:      to.Kind,
		Index:     len(c.hops),
		Signer:    s.thumbprint,
		Audience:  to.Audience,
		Target:    to.Target,
		Binding:   to.Binding,
		IssuedAt:  to.Now.Truncate(time.Second),
		Expires:   earlier(c.claims.Expires, own.NotAfter),
		Narrowing: to.Narrowing,
	}
	random := to.Rand
	if random == nil {
		random = rand.Reader
	}
	if _, err := io.ReadFull(random, next.TokenID[:]); err != nil {
		return nil, tenant.Deny(tenant.Internal, "no randomness: %w", err)
	}
	if next.Index == 0 {
		next.Claims = c.claims
	} else {
		last := c.hops[next.Index-1]
		next.Prev = last.sum()
		next.Expires = earlier(next.Expires, last.statement.Expires)
	}
	if _, err := narrow(append(c.statements(), next)); err != nil {
		return nil, err
	}
	return next, nil
}

// encode returns the chain with one more hop for the wire.
func (c *Chain) encode(next *sealed) Metadata {
	m := Metadata{Certs: c.certs()}
	scratch(func(b []byte) []byte {
		whole := len(c.sent) / 3 // four characters for three bytes: of these it stays as it is
		b = appendMessage(append(b, c.sent[3*whole:]...), 1, next.append)
		m.Hops = encodeText(c.came.Hops[:4*whole], b)
		return b
	})
	return m
}

func (c *Chain) certs() string {
	if len(c.hops) == 0 {
		return ""
	}
	c.text.once.Do(func() {
		last := c.hops[len(c.hops)-1].by
		o := last.onward.Load()
		if o == nil || o.came != c.came.Certs {
			o = &onward{c.came.Certs, c.encodeCerts()}
			last.onward.Store(o)
		}
		c.text.certs = o.text
	})
	return c.text.certs
}

// encodeCerts returns the certificates of all signers for the wire, each once, in
// the order of their first hop.
func (c *Chain) encodeCerts() string {
	var b []byte
	seen := make(map[hash]bool)
	for _, h := range c.hops {
		if s := h.statement.Signer; !seen[s] {
			seen[s] = true
			b = appendElement(b, 1, h.by.chain)
		}
	}
	return encodeText("", b)
}

func (c *Chain) statements() []*Statement {
	out := make([]*Statement, 0, len(c.hops)+1)
	for _, h := range c.hops {
		out = append(out, h.statement)
	}
	return out
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
