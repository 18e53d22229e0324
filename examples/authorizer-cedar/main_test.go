package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/tenant"
)

func Example() {
	if err := run(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// alice lists at acme                      allowed
	// alice creates without the scope          SCOPE_MISSING (the method requires the scope "orders.write") tenantmesh.yaml:18
	// bob lists at globex, suspended           allowed
	// bob creates there                        AUTHORIZER_DENIED (policy "suspended" forbids it) authorizer.cedar:22
	// carol on duty                            allowed
	// carol without a ticket                   AUTHORIZER_DENIED (policy "on-duty" forbids it) authorizer.cedar:11
	// dave lists at initech, unknown to Cedar  AUTHORIZER_DENIED (policy "suspended" cannot be evaluated) authorizer.cedar:22
}

func setUp(t *testing.T, policies string) (*policy.Policy, *authorizer) {
	t.Helper()
	pol, err := policy.Parse("tenantmesh.yaml", meshPolicy)
	if err != nil {
		t.Fatal(err)
	}
	auth, err := newAuthorizer("test.cedar", []byte(policies), billing)
	if err != nil {
		t.Fatal(err)
	}
	return pol, auth
}

func callOf(t *testing.T, pol *policy.Policy, s sample) *policy.Call {
	t.Helper()
	c, err := s.call(pol)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestBoth: either denies what the other allows.
func TestBoth(t *testing.T) {
	list := sample{from: "gateway", method: "List", tenant: "acme", subject: "alice", scopes: []string{"orders.read"}}
	create := list
	create.method = "Create"
	for _, tt := range []struct {
		name, policies string
		sample         sample
		want           tenant.Reason // "" is allowed
		rule           string
	}{
		{"both allow", "permit (principal, action, resource);", list, "", ""},
		{"only Cedar allows", "permit (principal, action, resource);", create, tenant.ScopeMissing, "tenantmesh.yaml:18"},
		{"only the policy allows", "permit (principal, action, resource);\nforbid (principal, action, resource);", list, tenant.AuthorizerDenied, "test.cedar:2"},
		{"Cedar says nothing", "", list, tenant.AuthorizerDenied, ""},
		{"another method", `permit (principal, action == Action::"/orders.v1.Orders/Create", resource);`, list, tenant.AuthorizerDenied, ""},
		{"the service", `permit (principal, action in Action::"/orders.v1.Orders/*", resource);`, list, "", ""},
		{"the tenant", `permit (principal, action, resource == Tenant::"acme");`, list, "", ""},
		{"another tenant", `permit (principal, action, resource == Tenant::"globex");`, list, tenant.AuthorizerDenied, ""},
		{"the trust domain", `permit (principal in TrustDomain::"prod.example", action, resource);`, list, "", ""},
		{"another trust domain", `permit (principal in TrustDomain::"partner.example", action, resource);`, list, tenant.AuthorizerDenied, ""},
		{
			"path and scopes", `permit (principal, action, resource) when {
				context.path == [Workload::"spiffe://prod.example/gateway"] && context.scopes.contains("orders.read") &&
				context.issuer == "https://login.example" && context.classification == 0 };`, list, "", "",
		},
		{
			"a policy that forbids and cannot be evaluated",
			"permit (principal, action, resource);\nforbid (principal, action, resource) when { context.tctx.limit == \"0\" };",
			list, tenant.AuthorizerDenied, "test.cedar:2",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pol, auth := setUp(t, tt.policies)
			err := decide(pol, auth, callOf(t, pol, tt.sample))
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			denial, ok := err.(*tenant.Error) //nolint:errorlint // as a Guard takes it
			if !ok || denial.Reason != tt.want || denial.Rule != tt.rule {
				t.Errorf("%v by %q, want %s by %q", err, denial.Rule, tt.want, tt.rule)
			}
		})
	}
}

func TestNothingVerified(t *testing.T) {
	_, auth := setUp(t, "permit (principal, action, resource);")
	if err := auth.Authorize(t.Context(), &policy.Call{Method: "/p.S/M"}); tenant.ReasonOf(err) != tenant.AuthorizerDenied {
		t.Error(err)
	}
}

func TestBrokenPolicies(t *testing.T) {
	if _, err := newAuthorizer("test.cedar", []byte("permit (principal, action);"), billing); err == nil || !strings.Contains(err.Error(), "test.cedar") {
		t.Errorf("%v", err)
	}
}

// TestConcurrent: a Guard asks for many calls at a time.
func TestConcurrent(t *testing.T) {
	pol, auth := setUp(t, string(cedarPolicies))
	call := callOf(t, pol, samples[0])
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if err := auth.Authorize(t.Context(), call); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
