// Package tenanttest is for the tests of programs that use the kit: it makes
// contexts that carry a tenant as if a call had proven it, and has the suites that
// adapters of the data layer must pass. Import it in tests only.
package tenanttest

import (
	"context"
	"time"

	"github.com/tenantmesh/tenantmesh/internal/mint"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Claims are what a test says of a call. Zero fields get values that are good enough.
type Claims struct {
	// Tenant is the tenant's ID, and UID its uid: "uid-" and the ID if empty.
	Tenant, UID string
	// Subject and Transaction are those of the claims.
	Subject, Transaction string
	// Scopes are the scopes, sorted.
	Scopes []string
	// Expires is when the claims end: in 5 minutes if zero.
	Expires time.Time
}

// Context returns a copy of ctx that carries c as a verified tenant context, until c.Expires.
func Context(ctx context.Context, c Claims) context.Context {
	f := &mint.Facts{
		Tenant: c.Tenant, TenantUID: c.UID, Subject: c.Subject, Transaction: c.Transaction, Scopes: c.Scopes,
		IssuedAt: time.Now(), Expires: c.Expires,
	}
	if f.TenantUID == "" {
		f.TenantUID = "uid-" + c.Tenant
	}
	if f.Expires.IsZero() {
		f.Expires = f.IssuedAt.Add(5 * time.Minute)
	}
	return mint.With(ctx, &mint.Record{Facts: f, Holder: holder(f.Expires)})
}

// holder lets a context be used until its time.
type holder time.Time

// Valid implements mint.Holder.
func (h holder) Valid() error {
	if !time.Now().Before(time.Time(h)) {
		return tenant.Deny(tenant.ContextExpired, "the claims have expired")
	}
	return nil
}

// Refused implements mint.Holder.
func (h holder) Refused() error { return h.Valid() }
