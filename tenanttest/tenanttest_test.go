package tenanttest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tenantmesh/tenantmesh/tenant"
	"github.com/tenantmesh/tenantmesh/tenanttest"
)

func ExampleContext() {
	ctx := tenanttest.Context(context.Background(), tenanttest.Claims{Tenant: "acme", Scopes: []string{"orders.read"}})
	tc, err := tenant.Require(ctx)
	fmt.Println(tc.Tenant(), tc.TenantUID(), tc.HasScope("orders.read"), err)
	// Output: acme uid-acme true <nil>
}

func TestContextExpires(t *testing.T) {
	ctx := tenanttest.Context(t.Context(), tenanttest.Claims{Tenant: "acme", Expires: time.Now()})
	if _, err := tenant.Require(ctx); tenant.ReasonOf(err) != tenant.ContextExpired || tenant.ReasonOf(tenant.Refused(ctx)) != tenant.ContextExpired {
		t.Errorf("got %v", err)
	}
}
