package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// issuer is an authorization server without users: whoever holds its stdin may
// have any token, and nobody else.
type issuer struct {
	url    string
	key    jose.JSONWebKey
	signer jose.Signer
}

// runIssuer serves discovery and keys until ctx ends. The command
//
//	mint <tenant> <subject> <lifetime>
//
// on stdin is answered with an access token (RFC 9068).
func runIssuer(ctx context.Context, args []string) error {
	o := newOptions("issuer")
	is, err := newIssuer()
	if err != nil {
		return err
	}
	listening := make(chan struct{})
	ctx, err = o.parse(ctx, args, func(ctx context.Context, words []string) (string, error) {
		select {
		case <-listening:
			return is.mint(words)
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})
	if err != nil {
		return err
	}
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return err
	}
	is.url = "http://" + lis.Addr().String()
	close(listening)
	srv := &http.Server{Handler: is.routes(), ReadHeaderTimeout: 5 * time.Second}
	return serveHTTP(ctx, srv, lis)
}

func newIssuer() (*issuer, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key := jose.JSONWebKey{Key: private, KeyID: rand.Text(), Algorithm: string(jose.ES256), Use: "sig"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, new(jose.SignerOptions).WithType("at+jwt"))
	if err != nil {
		return nil, err
	}
	return &issuer{key: key, signer: signer}, nil
}

// routes serves OpenID Connect Discovery 1.0 and the JWK Set.
func (is *issuer) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{
			"issuer":                                is.url,
			"jwks_uri":                              is.url + "/jwks",
			"response_types_supported":              []string{"token"},
			"subject_types_supported":               []string{"public"},
			"id_token_signing_alg_values_supported": []string{"ES256"},
		})
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{is.key.Public()}})
	})
	return mux
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that has gone misses nothing
}

func (is *issuer) mint(words []string) (string, error) {
	if len(words) != 4 || words[0] != "mint" {
		return "", errors.New("the command is: mint <tenant> <subject> <lifetime>")
	}
	life, err := time.ParseDuration(words[3])
	if err != nil {
		return "", fmt.Errorf("the lifetime: %w", err)
	}
	now := time.Now()
	payload, err := json.Marshal(map[string]any{
		"iss": is.url, "aud": audience, "sub": words[2], "tenant": words[1], "scope": "orders.read",
		"iat": now.Unix(), "exp": now.Add(life).Unix(), "jti": rand.Text(), "client_id": "quickstart",
	})
	if err != nil {
		return "", err
	}
	jws, err := is.signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}
