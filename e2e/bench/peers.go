package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/auth"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"google.golang.org/grpc"
)

// What people use for the same work: a tenant claim that is verified per call,
// over the same mTLS. Each is set up as its own documentation has it.

// tokenClaims are the claims of a token, as golang-jwt's documentation says to
// declare one's own.
type tokenClaims struct {
	Tenant      string   `json:"tenant"`
	Transaction string   `json:"txn"`
	Scopes      []string `json:"scope"`
	// Earlier is the token that the signer was called with.
	Earlier string `json:"earlier,omitempty"`
	jwt.RegisteredClaims
}

const keyID = "bench"

// minter signs tokens.
type minter struct{ key *ecdsa.PrivateKey }

// mint returns a new token about the i-th tenant.
func (m minter) mint(i int, earlier string) (string, error) {
	now := time.Now()
	t := jwt.NewWithClaims(jwt.SigningMethodES256, tokenClaims{
		Tenant: tenantName(i), Transaction: rand.Text(), Scopes: []string{scope}, Earlier: earlier,
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: spiffeID("gateway"), Subject: spiffeID("gateway"), Audience: jwt.ClaimStrings{spiffeID("target")},
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(5 * time.Minute)), ID: rand.Text(),
		},
	})
	t.Header["kid"] = keyID
	return t.SignedString(m.key)
}

// nest returns a token that holds n-1 earlier ones, each in the next.
func (m minter) nest(i, n int) (token string, err error) {
	for range n {
		if token, err = m.mint(i, token); err != nil {
			return "", err
		}
	}
	return token, nil
}

// bearer is how gRPC has clients send tokens (credentials.PerRPCCredentials).
type bearer func(context.Context) (string, error)

func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := b(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// verified is what a peer's check found, and what handlers read.
type verified struct {
	tenant string
	scopes []string
}

type verifiedKey struct{}

// check verifies a token.
type check func(ctx context.Context, token string) (verified, error)

// peerOptions make a server run c by go-grpc-middleware's auth interceptor.
func peerOptions(c check) []grpc.ServerOption {
	authenticate := func(ctx context.Context) (context.Context, error) {
		token, err := auth.AuthFromMD(ctx, "bearer")
		if err != nil {
			return nil, err
		}
		v, err := c(ctx, token)
		if err != nil {
			return nil, status.Errorf(codes.Unauthenticated, "invalid auth token: %v", err)
		}
		return context.WithValue(ctx, verifiedKey{}, v), nil
	}
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(auth.UnaryServerInterceptor(authenticate)),
		grpc.StreamInterceptor(auth.StreamServerInterceptor(authenticate)),
	}
}

// jwtCheck is golang-jwt's: depth tokens, each in the next.
func jwtCheck(pub crypto.PublicKey, depth int) check {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodES256.Alg()}),
		jwt.WithIssuer(spiffeID("gateway")), jwt.WithAudience(spiffeID("target")), jwt.WithIssuedAt(), jwt.WithExpirationRequired())
	keys := map[string]crypto.PublicKey{keyID: pub}
	keyOf := func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string)
		if key, ok := keys[id]; ok {
			return key, nil
		}
		return nil, errors.New("unknown kid")
	}
	return func(_ context.Context, token string) (verified, error) {
		var v verified
		for i := range depth {
			var claims tokenClaims
			if _, err := parser.ParseWithClaims(token, &claims, keyOf); err != nil {
				return verified{}, err
			}
			if i > 0 && claims.Tenant != v.tenant {
				return verified{}, errors.New("a token of another tenant")
			}
			v, token = verified{claims.Tenant, claims.Scopes}, claims.Earlier
		}
		return v, nil
	}
}

// spiffeCheck is go-spiffe's check of a JWT-SVID.
func spiffeCheck(pub crypto.PublicKey) (check, error) {
	td, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return nil, err
	}
	bundle := jwtbundle.FromJWTAuthorities(td, map[string]crypto.PublicKey{keyID: pub})
	return func(_ context.Context, token string) (verified, error) {
		s, err := jwtsvid.ParseAndValidate(token, bundle, []string{spiffeID("target")})
		if err != nil {
			return verified{}, err
		}
		tenant, _ := s.Claims["tenant"].(string)
		return verified{tenant: tenant}, nil
	}, nil
}

// opaCheck asks a prepared query about what another check verified: our policy
// in Rego.
func opaCheck(ctx context.Context, inner check) (check, error) {
	var listed strings.Builder
	for i := range tenants {
		fmt.Fprintf(&listed, "\t%q: true,\n", tenantName(i))
	}
	module := fmt.Sprintf(`package tenantmesh.bench

callers := {%q: {"tenants": "*", "calls": "/%s/"}}

tenants := {
%s}

default allow := false

allow if {
	caller := callers[input.caller]
	startswith(input.method, caller.calls)
	tenants[input.tenant]
	%q in input.scopes
}
`, spiffeID("gateway"), serviceName, listed.String(), scope)
	query, err := rego.New(rego.Query("data.tenantmesh.bench.allow"), rego.Module("bench.rego", module)).PrepareForEval(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, token string) (verified, error) {
		v, err := inner(ctx, token)
		if err != nil {
			return verified{}, err
		}
		method, _ := grpc.Method(ctx)
		var caller string
		if p, ok := peer.FromContext(ctx); ok {
			if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && info.SPIFFEID != nil {
				caller = info.SPIFFEID.String()
			}
		}
		result, err := query.Eval(ctx, rego.EvalInput(map[string]any{"caller": caller, "method": method, "tenant": v.tenant, "scopes": v.scopes}))
		if err != nil {
			return verified{}, err
		}
		if !result.Allowed() {
			return verified{}, errors.New("not allowed by policy")
		}
		return v, nil
	}, nil
}
