package edge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/edge"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
)

// guard stands for an *interceptors.Guard, which needs a SPIFFE Workload API.
type guard struct{}

func (guard) Originate(ctx context.Context, c *hop.Claims) (context.Context, error) {
	fmt.Println("originate for tenant", c.Tenant, "and subject", c.Subject, "with", c.Scopes)
	return ctx, nil
}

func Example() {
	// An authorization server.
	var login *httptest.Server
	login = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			json.NewEncoder(w).Encode(map[string]string{"issuer": login.URL, "jwks_uri": login.URL + "/jwks"})
		case "/jwks":
			json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{KeyID: "2027", Algorithm: "ES256", Use: "sig", Key: attacktest.ECKey().Public()}}})
		}
	}))
	defer login.Close()

	v, err := edge.NewVerifier(edge.Config{
		Issuers:              []edge.Issuer{{URL: login.URL, Audience: "https://api.example"}},
		Audit:                audit.NewSlog(slog.DiscardHandler),
		Logger:               slog.New(slog.DiscardHandler),
		InsecureHTTPLoopback: true, // the server above has no TLS
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	handler := edge.HTTP(v, guard{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Authorization is %q here", r.Header.Get("Authorization"))
	}))

	// A client with a token, which also asserts another tenant.
	options := (&jose.SignerOptions{}).WithType("at+jwt").WithHeader("kid", "2027")
	signer, _ := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: attacktest.ECKey()}, options)
	claims, _ := json.Marshal(map[string]any{
		"iss": login.URL, "sub": "ana", "aud": "https://api.example", "tenant": "acme", "scope": "orders.read",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	})
	jws, _ := signer.Sign(claims)
	token, _ := jws.CompactSerialize()
	for _, authorization := range []string{"Bearer " + token, "Bearer eyJhbGciOiJub25lIn0.e30."} {
		r := httptest.NewRequest("GET", "/orders", nil)
		r.Header.Set("Authorization", authorization)
		r.Header.Set("X-Tenant-Id", "globex")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		body, _ := io.ReadAll(w.Body)
		fmt.Println(w.Code, string(body))
	}
	// Output:
	// originate for tenant acme and subject ana with [orders.read]
	// 200 Authorization is "" here
	// 401 {"title":"Unauthorized","status":401}
}
