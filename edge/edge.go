// Package edge is where a tenant enters the mesh: an external bearer token
// (OAuth 2.0 access token, RFC 9068; or an OpenID Connect token, as
// configured) is verified and becomes the claims of a new hop chain.
//
//	v, err := edge.NewVerifier(edge.Config{
//		Issuers: []edge.Issuer{{URL: "https://login.example", Audience: "https://api.example"}},
//		Audit:   sink,
//	})
//	http.ListenAndServeTLS(addr, cert, key, edge.HTTP(v, guard, mux))
//
// Signatures and keys are go-jose's work. What stands here is the strictness
// around it, after RFC 8725 (JSON Web Token Best Current Practices): one
// serialization, one encoding, exact member names, one key, one algorithm, one
// audience. Every check has its own reason, Token… or [tenant.KeysUnavailable].
//
// A token comes in the Authorization header and from nowhere else; query and
// form are never read (RFC 6750, sections 2.2 and 2.3 are not supported). The
// tenant comes from the token and from nowhere else. Neither the token nor
// anything by which the client names a tenant reaches the handler: see [HTTP].
//
// With grpc-gateway, put the edge in front of it: edge.HTTP(v, guard, gatewayMux).
// A grpc-gateway in front of the interceptors passes Authorization on by itself; a
// header matcher that passes it too doubles it, and the edge refuses the two. A matcher that
// passes Connection on breaks calls: HTTP/2 has no such field (RFC 9113, section 8.2.2).
package edge

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Issuer is one authorization server, and which of its tokens are accepted.
type Issuer struct {
	// URL is the exact iss claim. It is https, without query and fragment
	// (RFC 8414, section 2). No two issuers have the same.
	URL string
	// JWKSURL is where the issuer's JWK Set (RFC 7517) is; empty: as the
	// issuer's discovery document says (OpenID Connect Discovery 1.0,
	// section 4), whose issuer must be exactly URL.
	JWKSURL string
	// Audience is the one value that aud must have. It must be set.
	Audience string
	// Algorithms are the ones accepted (RFC 7518, section 3.1; RFC 8037); empty:
	// RS256, PS256 and ES256. Only RS*, PS*, ES* and EdDSA may stand here.
	Algorithms []string
	// Type is the typ header that tokens must have, compared without case and
	// without a leading "application/" (RFC 7515, section 4.1.9); empty:
	// "at+jwt", the access token of RFC 9068.
	Type string
	// TenantClaim names the member of the claims that holds the tenant ID, a
	// string; empty: "tenant". Nested members are not supported: let the issuer
	// map them to the top level.
	TenantClaim string
	// ScopeClaim names the member that holds the scopes, as a string separated by
	// single spaces (RFC 8693, section 4.2) or as an array of strings; empty:
	// "scope". A token without it has no scopes.
	ScopeClaim string
	// Tenants are those that the issuer is accepted for; nil: whichever the
	// policy binds. An empty list that is not nil is an error.
	Tenants []tenant.ID
	// MaxLifetime is the longest exp − iat accepted; 0: 24 hours.
	MaxLifetime time.Duration
}

// KeyLimits bounds the fetching of keys. Keys are fetched when they are first
// needed, when a token names an unknown kid, and when they are older than
// RefreshAfter; never for a token as such. Zero values are the defaults.
type KeyLimits struct {
	// RefreshInterval is the least time between two fetches from one issuer,
	// successful or not; 0: 30 s.
	RefreshInterval time.Duration
	// RefreshAfter is the age from which keys are fetched again, so that a
	// withdrawn key is known to be; 0: 15 minutes.
	RefreshAfter time.Duration
	// MaxKeyAge is the age up to which the last good keys are used while the
	// issuer cannot be reached or answers garbage; 0: 6 hours. From then on
	// tokens are refused with [tenant.KeysUnavailable].
	MaxKeyAge time.Duration
	// Timeout is the time that one fetch may take; 0: 5 s.
	Timeout time.Duration
	// MaxDocument is the largest document read, in bytes; 0: 256 KiB.
	MaxDocument int64
	// MaxKeys is the most keys in a JWK Set; 0: 64. A larger one is refused
	// as a whole.
	MaxKeys int
}

// Config makes a [Verifier]. Zero values are the strict ones.
type Config struct {
	// Issuers are the accepted ones; at least one.
	Issuers []Issuer
	// Client fetches documents; nil: one with timeouts. Its CheckRedirect is
	// replaced: only redirects within the same scheme and host are followed, three at most.
	Client *http.Client
	// Clock returns the time; nil: [time.Now].
	Clock func() time.Time
	// Leeway is how far the issuer's clock may be off: it is granted to exp, nbf
	// and iat alike. It is 0 unless set, and 60 s at the most. Claims expire at the
	// token's exp in any case.
	Leeway time.Duration
	// MaxToken is the largest token, in bytes; 0: 16 KiB.
	MaxToken int
	// Keys bounds the fetching of keys.
	Keys KeyLimits
	// Audit takes an event for each token that is refused, and for each accepted
	// one whose client asserts another tenant beside it. It must be set.
	Audit audit.Sink
	// Logger takes failures to fetch keys and to record events; nil: [slog.Default].
	Logger *slog.Logger
	// InsecureHTTPLoopback lets issuers be reached at http://localhost,
	// 127.0.0.1 or [::1], for tests. It is logged at start.
	InsecureHTTPLoopback bool
}

var (
	// accepted are the algorithms that may be allowed: signatures by asymmetric keys.
	accepted = []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
	defaultAlgorithms = []string{"RS256", "PS256", "ES256"}
)

const maxLeeway = time.Minute

// complete returns a copy of c with defaults in place, or why c is unsafe or
// contradicts itself.
func (c Config) complete() (Config, error) {
	if len(c.Issuers) == 0 {
		return c, errors.New("edge: no issuer")
	}
	if c.Audit == nil {
		return c, errors.New("edge: Audit is not set")
	}
	if c.Leeway < 0 || c.Leeway > maxLeeway {
		return c, fmt.Errorf("edge: a Leeway of %v is not within 0 and %v", c.Leeway, maxLeeway)
	}
	if c.MaxToken < 0 {
		return c, errors.New("edge: MaxToken is negative")
	}
	if c.MaxToken == 0 {
		c.MaxToken = 16 << 10
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if err := c.Keys.complete(); err != nil {
		return c, err
	}
	c.Issuers = slices.Clone(c.Issuers)
	seen := make(map[string]bool)
	for i := range c.Issuers {
		is := &c.Issuers[i]
		if err := is.complete(c.InsecureHTTPLoopback); err != nil {
			return c, fmt.Errorf("edge: issuer %q: %w", is.URL, err)
		}
		if seen[is.URL] {
			return c, fmt.Errorf("edge: issuer %q stands twice", is.URL)
		}
		seen[is.URL] = true
	}
	return c, nil
}

func (l *KeyLimits) complete() error {
	if min(l.RefreshInterval, l.RefreshAfter, l.MaxKeyAge, l.Timeout) < 0 || l.MaxDocument < 0 || l.MaxKeys < 0 {
		return errors.New("edge: a key limit is negative")
	}
	orElse(&l.RefreshInterval, 30*time.Second)
	orElse(&l.RefreshAfter, 15*time.Minute)
	orElse(&l.MaxKeyAge, 6*time.Hour)
	orElse(&l.Timeout, 5*time.Second)
	orElse(&l.MaxDocument, 256<<10)
	orElse(&l.MaxKeys, 64)
	if l.RefreshInterval > l.RefreshAfter || l.RefreshAfter > l.MaxKeyAge {
		return errors.New("edge: key limits must grow: RefreshInterval, RefreshAfter, MaxKeyAge")
	}
	return nil
}

func (is *Issuer) complete(loopback bool) error {
	u, err := checkURL(is.URL, loopback)
	if err != nil {
		return err
	}
	if u.RawQuery != "" || u.ForceQuery {
		return errors.New("an issuer URL has no query")
	}
	if is.JWKSURL != "" {
		if _, err := checkURL(is.JWKSURL, loopback); err != nil {
			return fmt.Errorf("JWKSURL: %w", err)
		}
	}
	if strings.TrimSpace(is.Audience) == "" {
		return errors.New("no Audience")
	}
	if len(is.Algorithms) == 0 {
		is.Algorithms = defaultAlgorithms
	}
	for _, alg := range is.Algorithms {
		if !slices.Contains(accepted, jose.SignatureAlgorithm(alg)) {
			return fmt.Errorf("algorithm %q cannot be allowed", alg)
		}
	}
	is.Algorithms = slices.Clone(is.Algorithms)
	orElse(&is.Type, "at+jwt")
	if is.Type = mediaType(is.Type); is.Type == "" {
		return errors.New("the Type is not a media type")
	}
	orElse(&is.TenantClaim, "tenant")
	orElse(&is.ScopeClaim, "scope")
	names := append(slices.Clone(claimNames), is.TenantClaim, is.ScopeClaim)
	for i, n := range names {
		if slices.ContainsFunc(names[:i], func(o string) bool { return strings.EqualFold(n, o) }) {
			return fmt.Errorf("claim %q has two meanings", n)
		}
	}
	if is.Tenants != nil && len(is.Tenants) == 0 {
		return errors.New("an empty list of Tenants accepts nothing")
	}
	if slices.ContainsFunc(is.Tenants, tenant.ID.IsZero) {
		return errors.New("the zero ID is among the Tenants")
	}
	is.Tenants = slices.Clone(is.Tenants)
	if is.MaxLifetime < 0 {
		return errors.New("a negative MaxLifetime")
	}
	orElse(&is.MaxLifetime, 24*time.Hour)
	return nil
}

// checkURL parses the URL of a document and refuses what is not safe to fetch.
func checkURL(s string, loopback bool) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	local := slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname())
	switch {
	case u.Host == "" || u.Hostname() == "":
		return nil, errors.New("not an absolute URL")
	case u.User != nil || u.Fragment != "" || strings.Contains(s, "#"):
		return nil, errors.New("a URL here has neither user nor fragment")
	case u.Scheme == "https", u.Scheme == "http" && local && loopback:
		return u, nil
	case u.Scheme == "http" && local:
		return nil, errors.New("http needs InsecureHTTPLoopback")
	}
	return nil, errors.New("not an https URL")
}

// newClient returns the client that fetches documents, made from c.
func newClient(c *http.Client) *http.Client {
	if c == nil {
		c = &http.Client{Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    5 * time.Second,
			ResponseHeaderTimeout:  5 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives:      true, // a fetch is rare, and nothing is left behind
		}}
	}
	d := *c
	d.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if first := via[0].URL; len(via) > 3 || r.URL.Scheme != first.Scheme || r.URL.Host != first.Host {
			return errors.New("redirected elsewhere")
		}
		return nil
	}
	return &d
}

func orElse[T comparable](p *T, fallback T) {
	var zero T
	if *p == zero {
		*p = fallback
	}
}
