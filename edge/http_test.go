package edge_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/edge"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// handler counts requests and keeps the last.
type handler struct {
	calls int
	last  *http.Request
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.calls, h.last = h.calls+1, r
	w.WriteHeader(http.StatusNoContent)
}

func get(token string) *http.Request {
	r := httptest.NewRequest("GET", "/orders/7?access_token=query", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

// asJSON renders events as the slog sink does.
func asJSON(list ...audit.Event) string {
	var b bytes.Buffer
	sink := audit.NewSlog(slog.NewJSONHandler(&b, nil))
	for _, e := range list {
		sink.Record(context.Background(), e)
	}
	return b.String()
}

// wantDenied fails the test unless exactly one denial was recorded, with the reason.
func (w *world) wantDenied(t *testing.T, token, method string, want tenant.Reason) audit.Event {
	t.Helper()
	list := w.sink.take()
	if len(list) != 1 {
		t.Fatalf("events are %v, want one", list)
	}
	e := list[0]
	if e.Allowed || e.Reason != want || e.Point != audit.Edge || e.Method != method || len(e.DecisionID) < 20 || !e.Time.Equal(w.clock.Now()) {
		t.Errorf("the event is %+v, want %s at %s", e, want, method)
	}
	if !e.Proven && (e.Tenant != "" || e.Subject != "") {
		t.Errorf("the event has unproven claims: %+v", e)
	}
	noLeak(t, token, asJSON(e), w.log.String())
	return e
}

const fixedBody = `{"title":"Unauthorized","status":401}`

func TestHTTPRefuses(t *testing.T) {
	w, one, two := mesh(t)
	o, next := new(originator), new(handler)
	h := edge.HTTP(w.v, o, next)
	for _, a := range attacktest.TokenAttacks(one, two) {
		t.Run(a.Name, func(t *testing.T) {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, get(a.Token))
			w.wantDenied(t, a.Token, "GET /orders/7", a.Want)
			if a.Want == tenant.TokenTenant {
				if rec.Code != 403 || rec.Body.String() != `{"title":"Forbidden","status":403,"reason":"TOKEN_TENANT"}` {
					t.Errorf("answered %d %s", rec.Code, rec.Body)
				}
			} else if rec.Code != 401 || rec.Body.String() != fixedBody || rec.Header().Get("WWW-Authenticate") != `Bearer error="invalid_token"` {
				t.Errorf("answered %d %v %s", rec.Code, rec.Header(), rec.Body)
			}
			noLeak(t, a.Token, rec.Body.String())
		})
	}
	if next.calls != 0 || o.last.Load() != nil {
		t.Error("a refused token got further")
	}
}

func TestHTTPAuthorization(t *testing.T) {
	w, one, _ := mesh(t)
	next := new(handler)
	h := edge.HTTP(w.v, new(originator), next)
	good := one.Good(nil)
	for _, c := range []struct {
		name   string
		values []string
		want   tenant.Reason // "" if accepted
	}{
		{"Bearer", []string{"Bearer " + good}, ""},
		{"bearer", []string{"bearer " + good}, ""},
		{"BEARER and spaces", []string{"BEARER   " + good}, ""},
		{"none, and one in the query", nil, tenant.TokenMissing},
		{"empty", []string{""}, tenant.TokenMissing},
		{"Basic", []string{"Basic dXNlcjpwYXNz"}, tenant.TokenMissing},
		{"DPoP", []string{"DPoP " + good}, tenant.TokenMissing},
		{"the token alone", []string{good}, tenant.TokenMissing},
		{"scheme alone", []string{"Bearer"}, tenant.TokenMissing},
		{"tab", []string{"Bearer\t" + good}, tenant.TokenMissing},
		{"twice", []string{"Bearer " + good, "Bearer " + good}, tenant.TokenMalformed},
		{"two schemes", []string{"Basic dXNlcjpwYXNz", "Bearer " + good}, tenant.TokenMalformed},
		{"joined by a comma", []string{"Bearer " + good + ", Bearer " + good}, tenant.TokenMalformed},
		{"parameters", []string{"Bearer " + good + " realm=x"}, tenant.TokenMalformed},
		{"quoted", []string{`Bearer "` + good + `"`}, tenant.TokenMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.sink.take()
			calls := next.calls
			r := httptest.NewRequest("POST", "/orders?access_token="+good, strings.NewReader("access_token="+good))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header["Authorization"] = c.values
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if c.want == "" {
				if rec.Code != 204 || next.calls != calls+1 {
					t.Errorf("answered %d", rec.Code)
				}
				return
			}
			w.wantDenied(t, good, "POST /orders", c.want)
			challenge := `Bearer error="invalid_token"`
			if c.want == tenant.TokenMissing {
				challenge = `Bearer`
			}
			if rec.Code != 401 || rec.Body.String() != fixedBody || rec.Header().Get("WWW-Authenticate") != challenge || next.calls != calls {
				t.Errorf("answered %d %v %s", rec.Code, rec.Header(), rec.Body)
			}
		})
	}
}

func TestHTTPHeaders(t *testing.T) {
	w, one, _ := mesh(t)
	o, next := new(originator), new(handler)
	h := edge.HTTP(w.v, o, next)
	for _, c := range []struct{ name, header, value, claimed string }{
		{"M2 X-Tenant-Id", "X-Tenant-Id", "globex", "globex"},
		{"M2 X-Tenant", "X-Tenant", "globex", "globex"},
		{"M2 X-Org-Id", "X-Org-Id", "globex", "globex"},
		{"M2 Tenant-Id", "Tenant-Id", "globex", "globex"},
		{"M2 Tenant", "Tenant", "globex", "globex"},
		{"M2 X_Tenant_Id", "X_Tenant_Id", "globex", "globex"},
		{"M2 Grpc-Metadata-X-Tenant-Id", "Grpc-Metadata-X-Tenant-Id", "globex", "globex"},
		{"M2 Grpcgateway-Tenant", "Grpcgateway-Tenant", "globex", "globex"},
		{"M2 what is no tenant", "X-Tenant-Id", "../" + canary, "(not a tenant ID)"},
		{"M2 the same tenant", "X-Tenant-Id", "acme", ""},
		{"M2 baggage", "Baggage", "tenant=globex", ""},
		{"M3 Tenantmesh-Hops", "Tenantmesh-Hops", "CAES", ""},
		{"M3 Grpc-Metadata-Tenantmesh-Hops", "Grpc-Metadata-Tenantmesh-Hops", "CAES", ""},
		{"M3 Grpc-Metadata-Authorization", "Grpc-Metadata-Authorization", canary, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.sink.take()
			r := get(one.Good(nil))
			r.Header.Set(c.header, c.value)
			r.Header.Set("Accept-Language", "mi")
			r.Trailer = http.Header{c.header: {c.value}}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if rec.Code != 204 || o.last.Load().Tenant.String() != "acme" {
				t.Fatalf("answered %d", rec.Code)
			}
			list := w.sink.take()
			if c.claimed == "" && len(list) != 0 {
				t.Errorf("events are %+v", list)
			}
			if c.claimed != "" && (len(list) != 1 || list[0].Claimed != c.claimed || !list[0].Allowed || list[0].Tenant != "acme" || !list[0].Proven) {
				t.Errorf("events are %+v, want one that names %q", list, c.claimed)
			}
			noLeak(t, one.Good(nil), asJSON(list...), w.log.String())
			got := next.last.Header
			if got.Get("Authorization") != "" || got.Get("Accept-Language") != "mi" || c.header != "Baggage" && len(got) != 1 {
				t.Errorf("the handler sees %v", got)
			}
			if next.last.Trailer != nil {
				t.Errorf("the handler sees trailers %v", next.last.Trailer)
			}
			if r.Header.Get("Authorization") == "" {
				t.Error("the caller's request was changed")
			}
			if next.last.Context().Value(originatedKey{}) == nil {
				t.Error("the handler does not have the originated context")
			}
		})
	}
}

func TestHTTPOriginateFails(t *testing.T) {
	w, one, _ := mesh(t)
	for _, c := range []struct {
		err    error
		status int
		reason string
	}{
		{tenant.Deny(tenant.TenantNotBound, "detail "+canary), 403, "TENANT_NOT_BOUND"},
		{tenant.Deny(tenant.OriginationNotAllowed, ""), 403, "ORIGINATION_NOT_ALLOWED"},
		{tenant.Deny(tenant.ContextPresent, ""), 403, "CONTEXT_PRESENT"},
		{tenant.Deny(tenant.PolicyUnavailable, ""), 503, "POLICY_UNAVAILABLE"},
		{tenant.Deny(tenant.AuditUnavailable, ""), 503, "AUDIT_UNAVAILABLE"},
		{errors.New(canary), 500, "INTERNAL"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			next := new(handler)
			rec := httptest.NewRecorder()
			edge.HTTP(w.v, &originator{err: c.err}, next).ServeHTTP(rec, get(one.Good(nil)))
			if rec.Code != c.status || !strings.Contains(rec.Body.String(), `"reason":"`+c.reason+`"`) || next.calls != 0 {
				t.Errorf("answered %d %s", rec.Code, rec.Body)
			}
			if (rec.Header().Get("Retry-After") != "") != (c.status == 503) {
				t.Errorf("headers are %v", rec.Header())
			}
			noLeak(t, "", rec.Body.String())
		})
	}
}

func TestHTTPKeysUnavailable(t *testing.T) {
	w, is, token := oneIssuer(t)
	is.Answer(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	rec := httptest.NewRecorder()
	edge.HTTP(w.v, new(originator), new(handler)).ServeHTTP(rec, get(token))
	w.wantDenied(t, token, "GET /orders/7", tenant.KeysUnavailable)
	if rec.Code != 503 || rec.Header().Get("Retry-After") == "" || rec.Body.String() != `{"title":"Service Unavailable","status":503}` {
		t.Errorf("answered %d %v %s", rec.Code, rec.Header(), rec.Body)
	}
}

// A sink that fails lets nothing through that would be refused, and refuses
// what it had to record.
func TestHTTPSinkFails(t *testing.T) {
	w, one, _ := mesh(t)
	w.sink.fail = errors.New("disk full")
	o, next := new(originator), new(handler)
	h := edge.HTTP(w.v, o, next)

	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, get(one.Good(claims{"aud": "x"})))
	if rec.Code != 401 {
		t.Errorf("a bad token is answered %d", rec.Code)
	}
	rec = httptest.NewRecorder()
	r := get(one.Good(nil))
	r.Header.Set("X-Tenant-Id", "globex")
	h.ServeHTTP(rec, r)
	if rec.Code != 503 || !strings.Contains(rec.Body.String(), "AUDIT_UNAVAILABLE") {
		t.Errorf("a mismatch is answered %d %s", rec.Code, rec.Body)
	}
	if next.calls != 0 || o.last.Load() != nil {
		t.Error("the request got further")
	}
}

// A client that goes away does not keep a denial from being recorded.
func TestHTTPCancelledIsRecorded(t *testing.T) {
	w, one, _ := mesh(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sink := &contextSink{}
	v, err := edge.NewVerifier(edge.Config{Issuers: []edge.Issuer{{URL: one.URL, Audience: audience}}, Audit: sink, InsecureHTTPLoopback: true, Clock: w.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	edge.HTTP(v, new(originator), new(handler)).ServeHTTP(httptest.NewRecorder(), get("a.b.c").WithContext(ctx))
	if sink.err != nil || sink.n != 1 {
		t.Errorf("%d events, context %v", sink.n, sink.err)
	}
}

type contextSink struct {
	n   int
	err error
}

func (s *contextSink) Record(ctx context.Context, _ audit.Event) error {
	s.n, s.err = s.n+1, ctx.Err()
	return s.err
}

func TestPanicsWithoutParts(t *testing.T) {
	for name, f := range map[string]func(){
		"HTTP":                    func() { edge.HTTP(nil, new(originator), new(handler)) },
		"UnaryServerInterceptor":  func() { edge.UnaryServerInterceptor(new(edge.Verifier), nil) },
		"StreamServerInterceptor": func() { edge.StreamServerInterceptor(nil, new(originator)) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}
