package hop

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/internal/leaf"
	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
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
	c, err := parse(m.Hops)
	if err != nil {
		return nil, err
	}
	if err := c.checkLast(want); err != nil {
		return nil, err
	}
	if err := c.resolveSigners(m.Certs, want.Peer); err != nil {
		return nil, err
	}
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
	if err := c.checkProofs(want); err != nil {
		return nil, err
	}
	c.claims, c.scopes = c.hops[0].statement.Claims, scopes
	return c, nil
}

// UnverifiedClaims returns the claims that metadata hold, or nil if there are
// none to be read. Nothing about them is proven: they are for the audit trail of
// a refusal, and for nothing else.
func UnverifiedClaims(m Metadata) *Claims {
	if m.checkSize() != nil {
		return nil
	}
	c, err := parse(m.Hops)
	if err != nil {
		return nil
	}
	return c.hops[0].statement.Claims
}

// parse reads the hops and checks what needs no more than their statements:
// kinds, indices, prev, jti.
func parse(text string) (*Chain, error) {
	m := new(pb.HopChain)
	if err := decodeText(text, m); err != nil {
		return nil, err
	}
	if len(m.Hops) == 0 {
		return nil, tenant.Deny(tenant.ContextMissing, "no hops") // the empty text is a chain that has none
	}
	if len(m.Hops) > MaxHops {
		return nil, tenant.Deny(tenant.ChainTooLong, "%d hops, at most %d are allowed", len(m.Hops), MaxHops)
	}
	c := &Chain{hops: make([]signed, len(m.Hops))}
	for i, h := range m.Hops {
		s, err := ParseStatement(h.Statement)
		if err != nil {
			return nil, atHop(err, i)
		}
		if h.TreeSize != 1 || h.LeafIndex != 0 || len(h.InclusionPath) != 0 {
			return nil, tenant.Deny(tenant.SignatureMalformed, "only trees of one statement are accepted").AtHop(i)
		}
		if s.Index != i {
			return nil, tenant.Deny(tenant.ChainBroken, "a statement with index %d", s.Index).AtHop(i)
		}
		if i > 0 && s.Prev != sha256.Sum256(m.Hops[i-1].Statement) {
			return nil, tenant.Deny(tenant.ChainBroken, "prev is not the statement before").AtHop(i)
		}
		for _, before := range c.hops[:i] {
			if before.statement.TokenID == s.TokenID {
				return nil, tenant.Deny(tenant.TokenIDRepeated, "a jti of an earlier hop").AtHop(i)
			}
		}
		c.hops[i] = signed{hop: h, statement: s}
	}
	return c, nil
}

// checkLast checks that the last hop was made by this peer, for this workload,
// method and connection.
func (c *Chain) checkLast(want Expected) error {
	i := len(c.hops) - 1
	last := c.hops[i].statement
	switch {
	case last.Kind != want.Kind:
		return tenant.Deny(tenant.KindMismatch, "a %s where a %s is due", last.Kind, want.Kind).AtHop(i)
	case last.Signer != leaf.Thumbprint(want.Peer[0]):
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

// resolveSigners gives each hop its signer's certificates: the peer's for the
// last, those that were sent for the others. Exactly the certificates that are
// needed are accepted, in the order of their first hop.
func (c *Chain) resolveSigners(text string, peer []*x509.Certificate) error {
	m := new(pb.CertificateChains)
	if err := decodeText(text, m); err != nil {
		return err
	}
	known := make(map[[sha256.Size]byte][]*x509.Certificate)
	last := len(c.hops) - 1
	for i := range c.hops[:last] {
		h := &c.hops[i]
		if h.certs = known[h.statement.Signer]; h.certs != nil {
			continue
		}
		if len(known) == len(m.Chains) {
			return tenant.Deny(tenant.CertificateMissing, "the signer's certificates were not sent").AtHop(i)
		}
		certs, err := parseCertificates(m.Chains[len(known)])
		if err != nil {
			return atHop(err, i)
		}
		if leaf.Thumbprint(certs[0]) != h.statement.Signer {
			return tenant.Deny(tenant.CertificateUnexpected, "the next certificate is not this signer's").AtHop(i)
		}
		known[h.statement.Signer] = certs
		h.certs = certs
	}
	if len(known) != len(m.Chains) {
		return tenant.Deny(tenant.CertificateUnexpected, "certificates of no signer")
	}
	c.hops[last].certs = peer
	return nil
}

func parseCertificates(m *pb.CertificateChain) ([]*x509.Certificate, error) {
	if n := len(m.Certificates); n == 0 || n > 1+leaf.MaxIntermediates {
		return nil, tenant.Deny(tenant.CertificateUnexpected, "a leaf and at most %d intermediates, not %d certificates", leaf.MaxIntermediates, n)
	}
	var certs []*x509.Certificate
	for _, der := range m.Certificates {
		cert, err := x509.ParseCertificate(der) // fails for trailing bytes too
		if err != nil {
			return nil, malformed("certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// checkHandovers checks that the signers' leaves are SVIDs, and that each hop
// was handed to the signer of the next.
func (c *Chain) checkHandovers() error {
	for i := range c.hops {
		h := &c.hops[i]
		id, err := leaf.ID(h.certs[0])
		if err != nil {
			return atHop(err, i)
		}
		h.signer = &leaf.Verified{ID: id, Leaf: h.certs[0]} // its times come with its proof
	}
	for i := range c.hops[1:] {
		s, next := c.hops[i].statement, c.hops[i+1].signer.ID.String()
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
		if s.Expires.After(h.certs[0].NotAfter) {
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

// checkProofs verifies the certificate and the signature of every hop.
func (c *Chain) checkProofs(want Expected) error {
	known := make(map[*x509.Certificate]*leaf.Verified) // by the leaf as it was sent: the peer's comes with a chain of its own
	for i := range c.hops {
		h := &c.hops[i]
		signer := known[h.certs[0]]
		if signer == nil {
			var err error
			if signer, err = leaf.Verify(h.certs, want.Bundles, want.Now); err != nil {
				return atHop(err, i)
			}
			known[h.certs[0]] = signer
		}
		h.signer = signer
		if err := verify(signer.Leaf.PublicKey, h.statement.Kind, h.hop.Statement, h.hop.Signature); err != nil {
			return atHop(err, i)
		}
	}
	return nil
}

// atHop names the hop at fault in err.
func atHop(err error, i int) error {
	e := tenant.Deny(tenant.Internal, "%w", err) // should it be none of ours
	errors.As(err, &e)
	return e.AtHop(i)
}
