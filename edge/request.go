package edge

import (
	"context"
	"slices"
	"strings"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/claimed"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Originator starts hop chains. The interceptors' Guard is one: it decides by
// policy, records the decision, and returns a context that holds the verified
// tenant context. Its errors are [*tenant.Error].
type Originator interface {
	Originate(ctx context.Context, c *hop.Claims) (context.Context, error)
}

// headers are those of a request: an http.Header or a metadata.MD.
type headers map[string][]string

// request is what HTTP and gRPC requests have in common.
type request struct {
	method  string // for the audit event
	headers headers
}

// event returns what an audit event says of the request.
func (r request) event(d verdict) audit.Event {
	return audit.Event{
		Point: audit.Edge, Method: r.method, Proven: d.proven, Tenant: d.tenant, Subject: d.subject,
		Claimed: claimed.Tenants(r.headers, d.tenant),
	}
}

// enter verifies the request's token and originates its claims. It returns what
// is known about the token even if it is refused.
func (v *Verifier) enter(ctx context.Context, o Originator, r request) (_ context.Context, d verdict, err error) {
	token, err := r.headers.bearer()
	if err == nil {
		d, err = v.verify(ctx, token)
	}
	event := r.event(d)
	if err == nil && event.Claimed != "" {
		err = v.audit().Allow(ctx, event)
	}
	if err != nil {
		e := asError(err)
		v.audit().Refuse(ctx, event, e)
		return ctx, d, e
	}
	ctx, err = o.Originate(ctx, d.claims)
	if err != nil {
		return ctx, d, asError(err)
	}
	return ctx, d, nil
}

// bearer returns the one bearer token (RFC 6750, section 2.1).
func (h headers) bearer() (string, error) {
	var values []string
	for name, v := range h {
		if strings.EqualFold(name, "authorization") {
			values = append(values, v...)
		}
	}
	if len(values) == 0 {
		return "", tenant.Deny(tenant.TokenMissing, "no Authorization")
	}
	if len(values) > 1 {
		return "", tenant.Deny(tenant.TokenMalformed, "several Authorizations")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "bearer") {
		return "", tenant.Deny(tenant.TokenMissing, "Authorization of another scheme than Bearer")
	}
	return strings.TrimLeft(token, " "), nil // what is more than one token does not decode
}

// forHandler returns a copy without what no handler may see: credentials,
// the mesh's own keys, and what names a tenant.
func (h headers) forHandler() headers {
	out := make(headers, len(h))
	for name, values := range h {
		if !hidden(name) && !claimed.Names(name) {
			out[name] = slices.Clone(values)
		}
	}
	return out
}

// hidden says whether a header carries a credential or a key of the mesh.
func hidden(name string) bool {
	plain, _ := claimed.Plain(name)
	return plain == "authorization" || strings.HasPrefix(plain, "tenantmesh-")
}
