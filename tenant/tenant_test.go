package tenant_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/internal/mint"
	"github.com/tenantmesh/tenantmesh/internal/vectors"
	"github.com/tenantmesh/tenantmesh/tenant"
)

func ExampleParseID() {
	id, err := tenant.ParseID("acme")
	fmt.Println(id, err)
	_, err = tenant.ParseID("Acme")
	fmt.Println(tenant.ReasonOf(err))
	// Output:
	// acme <nil>
	// TENANT_NOT_BOUND
}

func ExampleRequire() {
	// A context.Context that no interceptor put a tenant into has none.
	_, err := tenant.Require(context.Background())
	fmt.Println(err)
	// Output:
	// tenantmesh: CONTEXT_MISSING: no verified tenant context here
}

var (
	ids    = []string{"acme", "a1", "00", "zz", "99", "01j9zk3v5q8w7rbnxh2c4d6e8f", "a-b_c", strings.Repeat("a", 63)}
	notIDs = []string{
		"", "*", "0", ".", "..", "%2e", "a|b", "a:b", "ac\x00me", "Acme", "acmé", "аcme", " acme", "acme ", "-a", "a-", "_a", "a_",
		"a.b", "a/b", "a*", "{tenant}", strings.Repeat("a", 64), "a",
	}
)

func TestParseID(t *testing.T) {
	for _, s := range ids {
		if id, err := tenant.ParseID(s); err != nil || id.String() != s || id.IsZero() {
			t.Errorf("ParseID(%q) = %v, %v", s, id, err)
		}
	}
	for _, s := range notIDs {
		t.Run(fmt.Sprintf("P4 %q", s), func(t *testing.T) {
			if id, err := tenant.ParseID(s); tenant.ReasonOf(err) != tenant.TenantNotBound || !id.IsZero() {
				t.Errorf("got %v, %v", id, err)
			}
		})
	}
}

// What parses is exactly what was written, and of the form that ID promises.
func FuzzParseID(f *testing.F) {
	claims, err := vectors.Inputs[struct {
		Claims struct{ Tctx struct{ Tenant string } }
	}]("../conformance/vectors/claims.json") // fails if it is empty
	if err != nil {
		f.Fatal(err)
	}
	for _, v := range claims {
		f.Add(v.Claims.Tctx.Tenant)
	}
	for _, s := range append(slices.Clone(ids), notIDs...) {
		f.Add(s)
	}
	form := regexp.MustCompile(`\A[a-z0-9][a-z0-9_-]{0,61}[a-z0-9]\z`)
	f.Fuzz(func(t *testing.T, s string) {
		id, err := tenant.ParseID(s)
		if good := form.MatchString(s); good != (err == nil) || good != (id.String() == s && s != "") {
			t.Fatalf("ParseID(%q) = %q, %v", s, id, err)
		}
		if err != nil && (tenant.ReasonOf(err) != tenant.TenantNotBound || !id.IsZero()) {
			t.Fatalf("ParseID(%q) = %q, %v", s, id, err)
		}
	})
}

// holder says what it holds of a record.
type holder struct{ invalid, refused error }

func (h *holder) Valid() error   { return h.invalid }
func (h *holder) Refused() error { return h.refused }

func record() *mint.Record {
	return &mint.Record{Facts: &mint.Facts{
		Tenant: "acme", TenantUID: "uid", Subject: "canary-sub", Issuer: "canary-iss", Transaction: "txn",
		Scopes: []string{"a", "b"}, Classification: 2,
		Attributes: map[string]string{"k": "canary-attr"}, Request: map[string]string{"r": "canary-rctx"},
		Path:     []mint.Step{{SPIFFEID: spiffeid.RequireFromString("spiffe://prod.example/gateway"), Workload: "gateway", Method: "/s/M"}},
		IssuedAt: time.Unix(1, 0), Expires: time.Unix(2, 0), Elevation: "canary-elevation",
	}, Holder: &holder{}}
}

func TestContext(t *testing.T) {
	ctx := mint.With(t.Context(), record())
	tc, err := tenant.Require(ctx)
	if err != nil {
		t.Fatal(err)
	}
	attr, ok := tc.Attribute("k")
	rctx, rok := tc.RequestAttribute("r")
	if tc.Tenant().String() != "acme" || tc.TenantUID() != "uid" || tc.Subject() != "canary-sub" || tc.Issuer() != "canary-iss" ||
		tc.Transaction() != "txn" || tc.Classification() != 2 || attr != "canary-attr" || !ok || rctx != "canary-rctx" || !rok ||
		!tc.HasScope("a") || tc.HasScope("c") || tc.Elevation() != "canary-elevation" || tc.IsZero() ||
		tc.IssuedAt() != time.Unix(1, 0) || tc.Expires() != time.Unix(2, 0) {
		t.Errorf("got %v", tc)
	}
	if p := tc.Path(); len(p) != 1 || p[0].Workload.String() != "spiffe://prod.example/gateway" || p[0].Name != "gateway" || p[0].Method != "/s/M" {
		t.Errorf("path %v", p)
	}
	if _, ok := tc.Attribute("r"); ok {
		t.Error("an attribute of the request is one of the transaction")
	}
	if _, ok := tc.RequestAttribute("k"); ok {
		t.Error("an attribute of the transaction is one of the request")
	}
	if got, want := tc.String(), "tenant acme txn txn spiffe://prod.example/gateway"; got != want {
		t.Errorf("it prints as %q, want %q", got, want)
	}
	tc.Scopes()[0] = "z"
	if !tc.HasScope("a") {
		t.Error("a caller changed the scopes")
	}
	t.Run("M6 no claim shows in formats", func(t *testing.T) {
		for _, f := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			for _, v := range []any{tc, &tc, []any{tc}} {
				if s := fmt.Sprintf(f, v); strings.Contains(s, "canary") {
					t.Errorf("%s shows %s", f, s)
				}
			}
		}
	})
	t.Run("a context may be hidden", func(t *testing.T) {
		if tc, ok := tenant.FromContext(mint.Without(ctx)); ok || !tc.IsZero() {
			t.Errorf("got %v", tc)
		}
	})
	t.Run("a task that outlives its call keeps the tenant", func(t *testing.T) {
		if _, err := tenant.Require(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
}

func TestZeroDenies(t *testing.T) {
	noHolder, noTenant, noFacts := record(), record(), record()
	noHolder.Holder, noTenant.Tenant, noFacts.Facts = nil, "", nil
	for name, ctx := range map[string]context.Context{
		"no record": t.Context(), "nil record": mint.With(t.Context(), nil), "zero record": mint.With(t.Context(), &mint.Record{}),
		"no holder": mint.With(t.Context(), noHolder), "no tenant": mint.With(t.Context(), noTenant), "no facts": mint.With(t.Context(), noFacts),
	} {
		if tc, ok := tenant.FromContext(ctx); ok && tc.IsZero() || strings.HasSuffix(name, "record") && ok || name == "no facts" && ok {
			t.Errorf("%s: there is %v", name, tc)
		}
		if tc, err := tenant.Require(ctx); tenant.ReasonOf(err) != tenant.ContextMissing || !tc.IsZero() {
			t.Errorf("%s: got %v, %v", name, tc, err)
		}
	}
	var zero tenant.Context
	if zero.Tenant() != (tenant.ID{}) || zero.Subject() != "" || len(zero.Path()) != 0 || zero.HasScope("") || zero.String() != "no tenant" {
		t.Errorf("the zero Context says %v", zero)
	}
	expired := record()
	expired.Holder = &holder{invalid: tenant.Deny(tenant.ContextExpired, "past exp")}
	if _, err := tenant.Require(mint.With(t.Context(), expired)); tenant.ReasonOf(err) != tenant.ContextExpired {
		t.Errorf("T9 past exp: got %v", err)
	}
}

func TestRefused(t *testing.T) {
	first := tenant.Deny(tenant.ContextExpired, "past exp")
	r := record()
	for _, ctx := range []context.Context{t.Context(), mint.With(t.Context(), r), mint.Without(mint.With(t.Context(), r))} {
		if err := tenant.Refused(ctx); err != nil {
			t.Errorf("got %v where nothing was refused", err)
		}
	}
	r.Holder = &holder{refused: first}
	if err := tenant.Refused(mint.With(t.Context(), r)); !errors.Is(err, first) {
		t.Errorf("got %v", err)
	}
}

func TestOwns(t *testing.T) {
	ctx := mint.With(t.Context(), record())
	acme, _ := tenant.ParseID("acme")
	globex, _ := tenant.ParseID("globex")
	if err := tenant.Owns(ctx, acme); err != nil {
		t.Error(err)
	}
	for name, owner := range map[string]tenant.ID{"another tenant": globex, "the zero ID": {}} {
		if err := tenant.Owns(ctx, owner); tenant.ReasonOf(err) != tenant.TenantMismatch {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := tenant.Owns(t.Context(), acme); tenant.ReasonOf(err) != tenant.ContextMissing {
		t.Errorf("no context: got %v", err)
	}
}

func TestError(t *testing.T) {
	cause := errors.New("cause")
	err := error(tenant.Deny(tenant.SVIDUntrusted, "not good: %w", cause).AtHop(2))
	if !errors.Is(err, cause) || !errors.Is(err, &tenant.Error{Reason: tenant.SVIDUntrusted}) || errors.Is(err, &tenant.Error{Reason: tenant.SVIDExpired}) {
		t.Errorf("errors.Is fails on %v", err)
	}
	for _, other := range []error{
		&tenant.Error{Reason: tenant.SVIDUntrusted, Detail: "not good: cause"}, &tenant.Error{Reason: tenant.SVIDUntrusted, Err: cause}, errors.New("other"),
	} {
		if errors.Is(err, other) {
			t.Errorf("%#v is taken for a question after the reason", other)
		}
	}
	for want, err := range map[string]error{
		"tenantmesh: SVID_UNTRUSTED (hop 2): not good: cause": err,
		"tenantmesh: SVID_UNTRUSTED (hop 0): detail":          tenant.Deny(tenant.SVIDUntrusted, "detail").AtHop(0),
		"tenantmesh: SVID_UNTRUSTED: detail":                  tenant.Deny(tenant.SVIDUntrusted, "detail"),
		"tenantmesh: SVID_UNTRUSTED":                          &tenant.Error{Reason: tenant.SVIDUntrusted, Hop: -1},
	} {
		if got := err.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if tenant.ReasonOf(fmt.Errorf("wrapped: %w", err)) != tenant.SVIDUntrusted || tenant.ReasonOf(cause) != "" {
		t.Error("ReasonOf looks in the wrong place")
	}
}
