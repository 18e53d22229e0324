package edge

import (
	"encoding/json"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// maxMethod is the most bytes of a request's method and path in an event.
const maxMethod = 512

// HTTP returns a handler that lets only requests with a valid bearer token
// through to next, with the context that o made of it.
//
// What next gets is a copy of the request without the Authorization header,
// without the mesh's own keys (tenantmesh-*), and without the headers by which
// clients name a tenant (X-Tenant-Id, X-Tenant, X-Org-Id, Tenant-Id, Tenant,
// and Grpc-Metadata-* and Grpcgateway-* with "tenant" in them), and without
// trailers: none of them has a say, and a handler that copies headers hands none
// on. If one of those headers names another tenant than the token, that is audited.
//
// A refusal is a problem document (RFC 9457). If the token is not accepted, it
// is always the same: 401, with WWW-Authenticate as RFC 6750, section 3 has
// it, or 503 with Retry-After if the issuer's keys cannot be had. A valid token
// that is not allowed is told the stable reason, as "reason": 403 if policy or
// the issuer's Tenants refuse it, 503 if policy or audit cannot be had.
//
// HTTP panics if v, o or next is nil.
func HTTP(v *Verifier, o Originator, next http.Handler) http.Handler {
	if v == nil || o == nil || next == nil {
		panic("edge: HTTP needs a Verifier, an Originator and a Handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := r.Method + " " + r.URL.EscapedPath()
		ctx, d, err := v.enter(r.Context(), o, request{method[:min(len(method), maxMethod)], headers(r.Header)})
		if err != nil {
			refuse(w, err, d.proven)
			return
		}
		r = r.WithContext(ctx)
		r.Header = http.Header(headers(r.Header).forHandler())
		r.Trailer = nil
		next.ServeHTTP(w, r)
	})
}

// problem is the body of a refusal.
type problem struct {
	Title  string        `json:"title"`
	Status int           `json:"status"`
	Reason tenant.Reason `json:"reason,omitempty"`
}

func refuse(w http.ResponseWriter, err error, proven bool) {
	h := w.Header()
	p := problem{Status: http.StatusInternalServerError}
	told := statusOf(err, proven)
	switch status.Code(told) {
	case codes.Unauthenticated:
		p.Status = http.StatusUnauthorized
		h.Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		if tenant.ReasonOf(err) == tenant.TokenMissing {
			h.Set("WWW-Authenticate", `Bearer`) // RFC 6750, section 3.1: without an error code
		}
	case codes.PermissionDenied, codes.InvalidArgument: // an argument of ours, so not a bad request
		p.Status = http.StatusForbidden
	case codes.Unavailable:
		p.Status = http.StatusServiceUnavailable
		h.Set("Retry-After", "5")
	}
	p.Title = http.StatusText(p.Status)
	p.Reason = interceptors.ReasonOf(told)
	body, _ := json.Marshal(p) // strings and a number
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}
