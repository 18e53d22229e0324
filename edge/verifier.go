package edge

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Verifier verifies external tokens. It is safe for concurrent use. The zero
// Verifier accepts nothing.
type Verifier struct {
	cfg  Config
	sets map[string]*keySet // by issuer
}

// NewVerifier returns a Verifier, or an error if the configuration is unsafe
// or contradicts itself. It fetches nothing yet. Close it when done.
func NewVerifier(cfg Config) (*Verifier, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if cfg.InsecureHTTPLoopback {
		cfg.Logger.Warn("tenantmesh: InsecureHTTPLoopback is set: issuers on this host may be reached without TLS")
	}
	v := &Verifier{cfg: cfg, sets: make(map[string]*keySet)}
	client := newClient(cfg.Client)
	for i := range cfg.Issuers {
		is := &cfg.Issuers[i]
		s := &keySet{issuer: is, limits: cfg.Keys, client: client, clock: cfg.Clock, log: cfg.Logger, loopback: cfg.InsecureHTTPLoopback}
		s.ctx, s.cancel = context.WithCancel(context.Background())
		v.sets[is.URL] = s
	}
	return v, nil
}

// Close ends fetches of keys that still run, and waits for them. Afterwards
// keys that are known are used until they are too old, and none are fetched.
func (v *Verifier) Close() error {
	for _, s := range v.sets {
		s.close()
	}
	return nil
}

// Verify verifies a token and returns its claims: Tenant, Subject, Issuer,
// Scopes and Expires; what remains is for the originating guard to set. It
// records nothing. Its errors are [*tenant.Error], with a reason that begins
// with Token, or [tenant.KeysUnavailable]; they hold nothing of the token.
//
// Encoding and header are checked before a key is looked for. The claims are
// read from the bytes that the signature covers; before, only iss is, to choose
// the keys.
func (v *Verifier) Verify(ctx context.Context, token string) (*hop.Claims, error) {
	d, err := v.verify(ctx, token)
	if err != nil {
		return nil, err
	}
	return d.claims, nil
}

// audit records decisions.
func (v *Verifier) audit() audit.Recorder {
	return audit.Recorder{Sink: v.cfg.Audit, Clock: v.cfg.Clock, Logger: v.cfg.Logger}
}

// verdict is what is known about a token, also if it was refused.
type verdict struct {
	proven          bool // the issuer signed the token
	tenant, subject string
	claims          *hop.Claims // only if accepted
}

func (v *Verifier) verify(ctx context.Context, token string) (verdict, error) {
	var d verdict
	if v == nil || v.cfg.Clock == nil {
		return d, tenant.Deny(tenant.TokenIssuer, "no issuer is configured")
	}
	rawHeader, rawPayload, err := decode(token, v.cfg.MaxToken)
	if err != nil {
		return d, err
	}
	header, err := parseObject(rawHeader, maxParams, headerNames...)
	if err != nil {
		return d, err
	}
	for _, name := range refusedHeaders {
		if _, ok := header[name]; ok {
			return d, tenant.Deny(tenant.TokenHeader, "the header has %s", name)
		}
	}
	iss, err := peekIssuer(rawPayload)
	if err != nil {
		return d, err
	}
	set := v.sets[iss]
	if set == nil {
		return d, tenant.Deny(tenant.TokenIssuer, "the issuer is not configured")
	}
	payload, err := set.verify(ctx, token, header)
	if err != nil {
		return d, err
	}
	d.proven = true
	m, err := parseObject(payload, maxItems, set.issuer.claimNames()...)
	if err != nil {
		return d, err
	}
	d.claims, err = set.issuer.claims(m, v.cfg.Clock(), v.cfg.Leeway)
	d.subject, _ = m.text("sub")
	if s, _ := m.text(set.issuer.TenantClaim); s != "" {
		if id, err := tenant.ParseID(s); err == nil {
			d.tenant = id.String()
		}
	}
	return d, err
}

// verify checks the header against what the issuer is accepted with, and the
// signature with the one key that the header names. It returns what was signed.
func (s *keySet) verify(ctx context.Context, token string, header members) ([]byte, error) {
	alg, err := header.text("alg")
	if err != nil || !slices.Contains(s.issuer.Algorithms, alg) {
		return nil, tenant.Deny(tenant.TokenAlgorithm, "the algorithm is not allowed for %s", s.issuer.URL)
	}
	typ, err := header.text("typ")
	if err != nil || mediaType(typ) != s.issuer.Type {
		return nil, tenant.Deny(tenant.TokenType, "%s is accepted with typ %s only", s.issuer.URL, s.issuer.Type)
	}
	kid, err := header.text("kid")
	if err != nil {
		return nil, tenant.Deny(tenant.TokenKeyUnknown, "the header has no usable kid")
	}
	k, err := s.find(ctx, kid)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(k.algorithms, alg) {
		return nil, tenant.Deny(tenant.TokenAlgorithm, "the key is for another algorithm")
	}
	// go-jose's errors may quote the token, so they go no further.
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		return nil, tenant.Deny(tenant.TokenMalformed, "not a JWS")
	}
	payload, err := jws.Verify(k.public)
	if err != nil || !saltFits(k.public, alg, token) {
		return nil, tenant.Deny(tenant.TokenSignature, "the signature does not verify")
	}
	return payload, nil
}

func (is *Issuer) claimNames() []string {
	return append(slices.Clone(claimNames), is.TenantClaim, is.ScopeClaim)
}

// claims reads the claims from signed members.
func (is *Issuer) claims(m members, now time.Time, leeway time.Duration) (*hop.Claims, error) {
	if iss, err := m.text("iss"); err != nil || iss != is.URL {
		return nil, tenant.Deny(tenant.TokenIssuer, "the signed iss is another")
	}
	aud, err := m.audience()
	if err != nil {
		return nil, err
	}
	if aud != is.Audience {
		return nil, tenant.Deny(tenant.TokenAudience, "for another audience")
	}
	exp, err := is.times(m, now, leeway)
	if err != nil {
		return nil, err
	}
	sub, err := m.text("sub")
	if err != nil {
		return nil, err
	}
	scopes, err := m.scopes(is.ScopeClaim)
	if err != nil {
		return nil, err
	}
	name, err := m.text(is.TenantClaim)
	if err != nil {
		return nil, err
	}
	id, err := tenant.ParseID(name)
	if err != nil {
		return nil, tenant.Deny(tenant.TokenTenant, "%s is not a tenant ID", is.TenantClaim)
	}
	if is.Tenants != nil && !slices.Contains(is.Tenants, id) {
		return nil, tenant.Deny(tenant.TokenTenant, "%s is not accepted for the tenant", is.URL)
	}
	return &hop.Claims{Tenant: id, Subject: sub, Issuer: is.URL, Scopes: scopes, Expires: exp}, nil
}

// times checks exp, iat and nbf, and returns exp (RFC 7519, sections 4.1.4 to
// 4.1.6): at exp a token is no longer valid, at nbf and iat it is.
func (is *Issuer) times(m members, now time.Time, leeway time.Duration) (time.Time, error) {
	var none time.Time
	exp, err := m.date("exp", early)
	if err != nil {
		return none, err
	}
	iat, err := m.date("iat", late)
	if err != nil {
		return none, err
	}
	nbf := iat
	if _, ok := m["nbf"]; ok {
		if nbf, err = m.date("nbf", late); err != nil {
			return none, tenant.Deny(tenant.TokenMalformed, "nbf is not a date")
		}
	}
	switch {
	case !now.Before(exp.Add(leeway)):
		return none, tenant.Deny(tenant.TokenExpired, "expired")
	case iat.After(now.Add(leeway)), nbf.After(now.Add(leeway)):
		return none, tenant.Deny(tenant.TokenNotYetValid, "issued, or valid only, in the future")
	case exp.Sub(iat) > is.MaxLifetime:
		return none, tenant.Deny(tenant.TokenExpired, "made to live longer than %v", is.MaxLifetime)
	}
	return exp, nil
}

// asError returns err as a *tenant.Error; another error is a fault of ours.
func asError(err error) *tenant.Error {
	var e *tenant.Error
	if errors.As(err, &e) {
		return e
	}
	return tenant.Deny(tenant.Internal, "not a tenant error: %w", err)
}
