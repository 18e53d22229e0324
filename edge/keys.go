package edge

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// key is a public key of an issuer, and the algorithms that it may be used with.
type key struct {
	public     crypto.PublicKey
	algorithms []string
}

// keySet holds the keys of one issuer. At most one fetch runs at a time, in a
// goroutine of its own, so that no caller's cancellation stops another's.
type keySet struct {
	issuer   *Issuer
	limits   KeyLimits
	client   *http.Client
	clock    func() time.Time
	log      *slog.Logger
	loopback bool

	ctx    context.Context // ends with the Verifier
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	keys    map[string]key // by kid; nil until a fetch succeeded
	fetched time.Time      // when the fetch of keys began
	tried   time.Time      // when the last fetch began
	failing bool           // the last fetch failed
	flight  chan struct{}  // closed when the running fetch ends; nil if none runs
	closed  bool
}

// find returns the key that the issuer names kid. It waits for a running fetch
// if there is no such key, or if the keys are due and the issuer can, as far
// as is known, be reached.
func (s *keySet) find(ctx context.Context, kid string) (key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.get(kid)
	if age := s.clock().Sub(s.fetched); err != nil || age < 0 || age >= s.limits.RefreshAfter {
		s.start()
	}
	if flight := s.flight; flight != nil && (err != nil || !s.failing) {
		s.mu.Unlock()
		select {
		case <-flight:
		case <-ctx.Done():
		}
		s.mu.Lock()
		k, err = s.get(kid)
	}
	return k, err
}

// get returns a key that may still be used. s.mu is held.
func (s *keySet) get(kid string) (key, error) {
	if s.keys == nil || s.clock().Sub(s.fetched) >= s.limits.MaxKeyAge {
		return key{}, tenant.Deny(tenant.KeysUnavailable, "the keys of %s cannot be had", s.issuer.URL)
	}
	k, ok := s.keys[kid]
	if !ok {
		return key{}, tenant.Deny(tenant.TokenKeyUnknown, "no key of %s has the token's kid", s.issuer.URL)
	}
	return k, nil
}

// start begins a fetch unless one runs or the last one is too recent. s.mu is held.
func (s *keySet) start() {
	now := s.clock()
	since := now.Sub(s.tried)
	if s.flight != nil || s.closed || since >= 0 && since < s.limits.RefreshInterval {
		return
	}
	s.tried = now
	s.flight = make(chan struct{})
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, s.limits.Timeout)
		defer cancel()
		keys, err := s.fetch(ctx)
		if err != nil {
			s.log.Warn("tenantmesh: the keys of an issuer cannot be fetched", "issuer", s.issuer.URL, "err", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil {
			s.keys, s.fetched = keys, now
		}
		s.failing = err != nil
		close(s.flight)
		s.flight = nil
	})
}

// close ends a running fetch and lets none begin.
func (s *keySet) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
}

// fetch gets the issuer's keys, if need be by way of its discovery document.
func (s *keySet) fetch(ctx context.Context) (map[string]key, error) {
	from := s.issuer.JWKSURL
	if from == "" {
		m, err := s.document(ctx, strings.TrimSuffix(s.issuer.URL, "/")+"/.well-known/openid-configuration", "issuer", "jwks_uri")
		if err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
		if iss, err := m.text("issuer"); err != nil || iss != s.issuer.URL {
			return nil, errors.New("discovery: the document is another issuer's")
		}
		if from, err = m.text("jwks_uri"); err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
		if _, err := checkURL(from, s.loopback); err != nil {
			return nil, fmt.Errorf("discovery: jwks_uri: %w", err)
		}
	}
	m, err := s.document(ctx, from, "keys")
	if err != nil {
		return nil, fmt.Errorf("JWK Set: %w", err)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(m["keys"], &list); err != nil || list == nil {
		return nil, errors.New("JWK Set: keys is not a list")
	}
	if len(list) > s.limits.MaxKeys {
		return nil, fmt.Errorf("JWK Set: %d keys, more than %d", len(list), s.limits.MaxKeys)
	}
	return usable(list), nil
}

// document fetches one JSON object.
func (s *keySet) document(ctx context.Context, from string, names ...string) (members, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, s.limits.MaxDocument+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > s.limits.MaxDocument {
		return nil, fmt.Errorf("more than %d bytes", s.limits.MaxDocument)
	}
	m, err := parseObject(body, 16*maxItems, names...)
	if err != nil {
		return nil, errors.New("not a JSON object in strict form")
	}
	return m, nil
}

// usable returns, by kid, the keys that can verify signatures. As RFC 7517,
// section 5 has it, others are ignored: of other kinds, private, symmetric, for
// another use. A kid that two different keys have names neither.
func usable(list []json.RawMessage) map[string]key {
	keys := make(map[string]key)
	var ambiguous []string
	for _, raw := range list {
		kid, k, ok := parseKey(raw)
		if !ok {
			continue
		}
		if old, dup := keys[kid]; dup && !old.equal(k) {
			ambiguous = append(ambiguous, kid)
		}
		keys[kid] = k
	}
	for _, kid := range ambiguous {
		delete(keys, kid)
	}
	return keys
}

func (k key) equal(o key) bool {
	p, ok := k.public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && p.Equal(o.public) && slices.Equal(k.algorithms, o.algorithms)
}

func parseKey(raw json.RawMessage) (kid string, k key, ok bool) {
	m, err := parseObject(raw, maxItems, "kty", "kid", "use", "alg", "key_ops")
	if err != nil {
		return "", key{}, false
	}
	if ops, ok := m["key_ops"]; ok {
		var list []string
		if json.Unmarshal(ops, &list) != nil || !slices.Contains(list, "verify") {
			return "", key{}, false
		}
	}
	var jwk jose.JSONWebKey
	if jwk.UnmarshalJSON(raw) != nil || !clean(jwk.KeyID) || jwk.KeyID == "" || jwk.Use != "" && jwk.Use != "sig" {
		return "", key{}, false
	}
	algs := algorithms(jwk.Key)
	if jwk.Algorithm != "" {
		if !slices.Contains(algs, jwk.Algorithm) {
			return "", key{}, false
		}
		algs = []string{jwk.Algorithm}
	}
	return jwk.KeyID, key{jwk.Key, algs}, len(algs) > 0
}

// algorithms returns those that a key of this type and size can be used with
// (RFC 7518, section 3.1; RFC 8037, section 3.1). RSA keys have 2048 bits at
// least (RFC 7518, section 3.3) and 4096 at most, which is go-jose's own limit
// unless the process raises it. Private and symmetric keys have none: a
// published one proves nothing.
func algorithms(public any) []string {
	switch p := public.(type) {
	case *rsa.PublicKey:
		if n := p.N.BitLen(); n >= 2048 && n <= 4096 {
			return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
		}
	case *ecdsa.PublicKey:
		switch p.Curve {
		case elliptic.P256():
			return []string{"ES256"}
		case elliptic.P384():
			return []string{"ES384"}
		case elliptic.P521():
			return []string{"ES512"}
		}
	case ed25519.PublicKey:
		return []string{"EdDSA"}
	}
	return nil
}
