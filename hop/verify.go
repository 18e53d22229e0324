package hop

import (
	"crypto/x509"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// The times of the format.
const (
	// Skew is how far clocks may differ: an iat may lie this far in the
	// future, or before the iat of what it follows.
	Skew = 30 * time.Second
	// Freshness is how old the last hop may be.
	Freshness = 60 * time.Second
)

// Expected is what the verifier knows of the place where a chain arrived.
type Expected struct {
	// Kind of the last hop.
	Kind Kind
	// Peer holds the certificates that the TLS peer presented, leaf first.
	Peer []*x509.Certificate
	// Self is the verifier's own identity, the last aud.
	Self spiffeid.ID
	// Target is the method that was called.
	Target string
	// Binding is the exporter of the connection.
	Binding [32]byte
	// Bundles are those of all signers' trust domains.
	Bundles x509bundle.Source
	// Generation tells Bundles from others that the Cache is used with. Nothing
	// is remembered of certificates where it is 0.
	Generation uint64
	// Cache, if not nil, spares verifying again what was verified before.
	Cache *Cache
	// Now is the time of verification.
	Now time.Time
}

// Verify checks a chain as SPEC.md, section 6, has it: the structure first,
// then the certificates and signatures of all hops. Whether the signers may act for the
// tenant is policy's to say. Its errors are a [*tenant.Error] whose Hop names
// the hop at fault.
func Verify(m Metadata, want Expected) (*Chain, error) {
	if err := m.checkSize(); err != nil {
		return nil, err
	}
	if len(want.Peer) == 0 {
		return nil, tenant.Deny(tenant.PeerUnauthenticated, "a chain is verified against the peer that presented it")
	}
	c, before, err := parse(m.Hops, want.Cache)
	if err != nil {
		return nil, err
	}
	peer := want.peer()
	if err := c.checkLast(want, peer); err != nil {
		return nil, err
	}
	if before == nil || before.text.Value() != m.Certs { // else they are those of before
		if before, err = nil, c.resolveSigners(m.Certs, want); err != nil {
			return nil, err
		}
	}
	c.hops[len(c.hops)-1].by = peer
	if err := c.checkHandovers(); err != nil {
		return nil, err
	}
	if err := c.checkTimes(want.Now); err != nil {
		return nil, err
	}
	scopes, err := narrow(c.statements())
	if err != nil {
		return nil, err
	}
	if err := c.checkProofs(&want); err != nil {
		return nil, err
	}
	c.claims, c.scopes, c.came, c.text = c.hops[0].statement.Claims, scopes, m, new(lazyText)
	c.remember(&want, before != nil)
	return c, nil
}

// UnverifiedClaims returns the claims that metadata hold, or nil if there are
// none to be read. Nothing about them is proven: they are for the audit trail of
// a refusal, and for nothing else.
func UnverifiedClaims(m Metadata) *Claims {
	if m.checkSize() != nil {
		return nil
	}
	c, _, err := parse(m.Hops, nil)
	if err != nil {
		return nil
	}
	return c.hops[0].statement.Claims
}

// parse reads the hops and checks what needs no more than their statements and
// places in their trees: kinds, indices, prev, jti. It returns which of the hops it found to be remembered.
func parse(text string, cache *Cache) (*Chain, *prefix, error) {
	m, err := decodeText(text)
	if err != nil {
		return nil, nil, err
	}
	n, last := lastElement(m)
	hops := make([]signed, 0, min(n, MaxHops))
	before := cache.prefix(m[:last])
	if before != nil {
		hops = append(hops, before.hops...)
	} else {
		last = 0
	}
	known := len(hops)
	if hops, err = parseHops(hops, m[last:]); err != nil {
		return nil, nil, err
	}
	if len(hops) == 0 {
		return nil, nil, tenant.Deny(tenant.ContextMissing, "no hops") // the empty text is a chain that has none
	}
	if len(hops) > MaxHops {
		return nil, nil, tenant.Deny(tenant.ChainTooLong, "%d hops, at most %d are allowed", len(hops), MaxHops)
	}
	for i := known; i < len(hops); i++ {
		h := &hops[i]
		s, err := parseStatement(h.encoded)
		if err != nil {
			return nil, nil, atHop(err, i)
		}
		var ok bool
		if h.root, ok = h.sealed.root(); !ok {
			return nil, nil, tenant.Deny(tenant.SignatureMalformed, "not a place in a tree of at most %d statements", MaxTree).AtHop(i)
		}
		if s.Index != i {
			return nil, nil, tenant.Deny(tenant.ChainBroken, "a statement with index %d", s.Index).AtHop(i)
		}
		if i > 0 && s.Prev != prev(hops[:i], before) {
			return nil, nil, tenant.Deny(tenant.ChainBroken, "prev is not the statement before").AtHop(i)
		}
		for _, before := range hops[:i] {
			if before.statement.TokenID == s.TokenID {
				return nil, nil, tenant.Deny(tenant.TokenIDRepeated, "a jti of an earlier hop").AtHop(i)
			}
		}
		h.statement = s
	}
	return &Chain{hops: hops, sent: m}, before, nil
}

// prev returns what follows hops as prev.
func prev(hops []signed, known *prefix) hash {
	if known != nil && len(hops) == len(known.hops) {
		return known.sum
	}
	return hops[len(hops)-1].sum()
}

// checkLast checks that the last hop was made by this peer, for this workload,
// method and connection.
func (c *Chain) checkLast(want Expected, peer *signer) error {
	i := len(c.hops) - 1
	last := c.hops[i].statement
	switch {
	case last.Kind != want.Kind:
		return tenant.Deny(tenant.KindMismatch, "a %s where a %s is due", last.Kind, want.Kind).AtHop(i)
	case last.Signer != peer.thumbprint:
		return tenant.Deny(tenant.SignerNotPeer, "the last hop was not signed by the TLS peer").AtHop(i)
	case last.Audience != want.Self.String():
		return tenant.Deny(tenant.AudienceMismatch, "handed to %s, not to this workload", last.Audience).AtHop(i)
	case last.Target != want.Target:
		return tenant.Deny(tenant.TargetMismatch, "made for %s", last.Target).AtHop(i)
	case last.Binding != want.Binding || want.Kind != Grant && want.Binding == [32]byte{}: // zero is no exporter
		return tenant.Deny(tenant.ChannelMismatch, "made for another connection").AtHop(i)
	}
	return nil
}

// resolveSigners gives each hop but the last its signer's certificates, which were
// sent. Exactly the certificates that are needed are accepted, in the order of their first hop.
func (c *Chain) resolveSigners(text string, want Expected) error {
	m, err := decodeText(text)
	if err != nil {
		return err
	}
	chains, err := parseChains(m)
	if err != nil {
		return err
	}
	for i := range c.hops[:len(c.hops)-1] {
		h := &c.hops[i]
		if h.by = c.signerBefore(i); h.by != nil {
			continue
		}
		if len(chains) == 0 {
			return tenant.Deny(tenant.CertificateMissing, "the signer's certificates were not sent").AtHop(i)
		}
		if h.by, err = want.signer(chains[0].encoding, chains[0].parse); err != nil {
			return atHop(err, i)
		}
		if h.by.thumbprint != h.statement.Signer {
			return tenant.Deny(tenant.CertificateUnexpected, "the next certificate is not this signer's").AtHop(i)
		}
		chains = chains[1:]
	}
	if len(chains) > 0 {
		return tenant.Deny(tenant.CertificateUnexpected, "certificates of no signer")
	}
	return nil
}

// peer returns the signer that presented the chain.
func (e *Expected) peer() *signer {
	if s := e.Cache.peer(e); s != nil {
		return s
	}
	var encoding []byte
	for _, cert := range e.Peer {
		encoding = appendElement(encoding, 1, cert.Raw)
	}
	if s := e.cached(string(encoding)); s != nil {
		return s
	}
	return newSigner(string(encoding), e.Peer)
}

// cached returns the signer with the certificates of a CertificateChain, if it is remembered.
func (e *Expected) cached(encoding string) *signer {
	if e.Cache == nil || e.Generation == 0 {
		return nil
	}
	s, _ := e.Cache.signers.get(encoding)
	return s
}

// signer returns the signer with the certificates of a CertificateChain, which
// parse parses.
func (e *Expected) signer(encoding string, parse func() ([]*x509.Certificate, error)) (*signer, error) {
	if s := e.cached(encoding); s != nil {
		return s, nil
	}
	certs, err := parse()
	if err != nil {
		return nil, err
	}
	return newSigner(strings.Clone(encoding), certs), nil // without the metadata around it
}

// signerBefore returns the signer of hop i if it signed one of those before, too.
func (c *Chain) signerBefore(i int) *signer {
	for _, h := range c.hops[:i] {
		if h.statement.Signer == c.hops[i].statement.Signer {
			return h.by
		}
	}
	return nil
}

// checkHandovers checks that the signers' leaves are SVIDs, and that each hop
// was handed to the signer of the next.
func (c *Chain) checkHandovers() error {
	for i, h := range c.hops {
		if h.by.malformed != nil {
			return atHop(h.by.malformed, i)
		}
	}
	for i := range c.hops[1:] {
		s, next := c.hops[i].statement, c.hops[i+1].by.id.String()
		// Who may sign after a message is for a policy that knows queues to say.
		if s.Kind == Message {
			return tenant.Deny(tenant.KindMismatch, "a message before a call").AtHop(i)
		}
		if s.Audience != next {
			return tenant.Deny(tenant.AudienceMismatch, "handed to %s, used by %s", s.Audience, next).AtHop(i)
		}
	}
	return nil
}

// Timely says whether [Verify] would find the times of a chain that it found
// good before to be so at now: those of its claims and statements, the last one's
// freshness, and those of its signers' certificates.
func (c *Chain) Timely(now time.Time) error {
	if len(c.hops) == 0 {
		return tenant.Deny(tenant.ContextMissing, "no hops")
	}
	if err := c.checkTimes(now); err != nil {
		return err
	}
	return c.Valid(now)
}

// checkTimes checks the times of the claims and of the statements against now,
// each other and the signers' certificates.
func (c *Chain) checkTimes(now time.Time) error {
	claims := c.hops[0].statement.Claims
	if err := checkWindow(claims.IssuedAt, claims.Expires, now); err != nil {
		return atHop(err, 0)
	}
	issued, expires := claims.IssuedAt, claims.Expires
	for i, h := range c.hops {
		s := h.statement
		if err := checkWindow(s.IssuedAt, s.Expires, now); err != nil {
			return atHop(err, i)
		}
		if s.IssuedAt.Add(Skew).Before(issued) {
			return tenant.Deny(tenant.TimeReversed, "issued before what it follows").AtHop(i)
		}
		if s.Expires.After(expires) {
			return tenant.Deny(tenant.LifetimeExceeded, "expires after what it follows").AtHop(i)
		}
		if s.Expires.After(h.by.certs[0].NotAfter) {
			return tenant.Deny(tenant.LifetimeExceeded, "expires after its signer's certificate").AtHop(i)
		}
		issued, expires = s.IssuedAt, s.Expires
	}
	if age := now.Sub(issued); age > Freshness {
		return tenant.Deny(tenant.ContextStale, "the last hop is %s old", age.Truncate(time.Second)).AtHop(len(c.hops) - 1)
	}
	return nil
}

func checkWindow(issued, expires, now time.Time) error {
	switch {
	case issued.After(now.Add(Skew)):
		return tenant.Deny(tenant.ContextNotYetValid, "issued at %s", issued.Format(time.RFC3339))
	case !now.Before(expires):
		return tenant.Deny(tenant.ContextExpired, "expired at %s", expires.Format(time.RFC3339))
	}
	return nil
}

// narrow returns the scopes that are left after all narrowings. It checks that
// none allows more than what came before it, and that each hop's method is one
// that the hops before it leave.
func narrow(statements []*Statement) (scopes []string, err error) {
	scopes = statements[0].Claims.Scopes
	var methods []string
	bounded := false // whether methods says anything
	for i, s := range statements {
		if bounded && s.Kind == Call && !slices.Contains(methods, s.Target) {
			return nil, tenant.Deny(tenant.MethodNarrowed, "%s was narrowed away upstream", s.Target).AtHop(i)
		}
		n := s.Narrowing
		if n == nil {
			continue
		}
		if n.Scopes != nil {
			if !isSubset(n.Scopes, scopes) {
				return nil, tenant.Deny(tenant.ScopeWidened, "a scope that was not held").AtHop(i)
			}
			scopes = n.Scopes
		}
		if n.Methods != nil {
			if bounded && !isSubset(n.Methods, methods) {
				return nil, tenant.Deny(tenant.ScopeWidened, "a method that was narrowed away").AtHop(i)
			}
			methods, bounded = n.Methods, true
		}
	}
	return scopes, nil
}

func isSubset(a, b []string) bool {
	return !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
}

// proving counts the hops that are being proven in this process.
var proving atomic.Int32

// checkProofs verifies the certificate and the signature of every hop: side by side,
// if there is more than one new signature and processors are idle.
func (c *Chain) checkProofs(want *Expected) error {
	fresh := 0
	for i := range c.hops {
		h := &c.hops[i]
		if h.known = h.known || want.Cache.proven(h); !h.known {
			fresh++
		}
	}
	if fresh > 1 && int(proving.Load()) < runtime.GOMAXPROCS(0)-1 {
		return c.proveSideBySide(want)
	}
	for i := range c.hops {
		if err := c.prove(i, want); err != nil {
			return atHop(err, i)
		}
	}
	return nil
}

func (c *Chain) proveSideBySide(want *Expected) error {
	var errs [MaxHops]error
	var all sync.WaitGroup
	for i := range c.hops {
		all.Go(func() { errs[i] = c.prove(i, want) })
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			return atHop(err, i)
		}
	}
	return nil
}

// prove verifies the certificate and, unless it is known, the signature of a hop.
func (c *Chain) prove(i int, want *Expected) (err error) {
	proving.Add(1)
	defer proving.Add(-1)
	h := &c.hops[i]
	if h.signer, err = h.by.verify(want); err != nil || h.known {
		return err
	}
	return want.Cache.verify(c.peer(), h.signer.Leaf.PublicKey, h)
}

// peer names the workload that brought the chain.
func (c *Chain) peer() string { return c.hops[len(c.hops)-1].by.id.String() }

// remember keeps what was found of a chain that verified, for the peer that
// brought it. Its last statement is no other chain's, most likely. known says that
// those before are kept already.
func (c *Chain) remember(want *Expected, known bool) {
	if want.Cache == nil || want.Generation == 0 {
		return
	}
	last, peer := len(c.hops)-1, c.peer()
	for i := range c.hops {
		if s := c.hops[i].by; !s.kept.Swap(true) {
			want.Cache.signers.add(peer, s.chain, s, maxSigners)
		}
	}
	if last > 0 && !known {
		_, at := lastElement(c.sent)
		p := &prefix{slices.Clone(c.hops[:last]), c.hops[last-1].sum(), unique.Make(c.came.Certs)}
		for i := range p.hops {
			p.hops[i].known = true
		}
		want.Cache.prefixes.add(peer, c.sent[:at], p, maxPrefixes)
	}
	if want.Cache.peer(want) == nil {
		want.Cache.peers.add(peer, want.Peer[0], &presented{want.Peer, c.hops[last].by}, maxSigners)
	}
}

// atHop names the hop at fault in err.
func atHop(err error, i int) error {
	e := tenant.Deny(tenant.Internal, "%w", err) // should it be none of ours
	errors.As(err, &e)
	return e.AtHop(i)
}
