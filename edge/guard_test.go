package edge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/edge"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

const (
	gatewayID = "spiffe://prod.example/gateway"
	backendID = "spiffe://prod.example/backend"
)

// guarded is the edge with a real guard behind it: clients with tokens reach a
// gateway over HTTP and over gRPC, and the gateway calls a backend by mTLS.
// The gateway hands on all metadata that it is left with, as careless ones do.
type guarded struct {
	one, other *issuer // the policy knows only the first
	gateway    *world  // its sink takes what the edge and the guard record
	own        *clock  // of the gateway's guard
	backend    events
	far        *clock // of the backend's guard
	seen       *far
	grpc       testpb.TestServiceClient
	http       http.Handler
	next       http.Handler // behind the edge
	guard      *interceptors.Guard
	policy     fixed
}

// fixed is a policy that is never exchanged.
type fixed struct{ p *policy.Policy }

func (f fixed) Current() *policy.Policy { return f.p }

const guardedPolicy = `
version: 1
trust_domains:
  - name: prod.example
workloads:
  - name: gateway
    match: spiffe://prod.example/gateway
    tenants: [acme, globex]
    originate: {issuers: [%q], scopes: ["orders.*"], subjects: ["user-*"], max_ttl: 5m}
    calls: [/grpc.testing.TestService/*]
  - name: forwarder
    match: spiffe://prod.example/forwarder
    tenants: [acme, globex]
    calls: [/grpc.testing.TestService/*]
  - name: backend
    match: spiffe://prod.example/backend
    tenants: [acme, globex]
methods:
  - match: /grpc.testing.TestService/*
    callers: [gateway]
tenants:
  acme: {uid: acme-uid-1}
  globex: {uid: globex-uid-1}
  umbrella: {uid: umbrella-uid-1}
`

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	now := time.Now().Truncate(time.Second)
	g := &guarded{own: newClock(), far: newClock(), seen: new(far)}
	public := jwk("k1", "RS256", rsaKeys[0]().Public())
	g.one, g.other = newIssuer(t, public), newIssuer(t, public)
	g.gateway = newWorld(t, edge.Config{Issuers: []edge.Issuer{
		{URL: g.one.URL, Audience: audience},
		{URL: g.other.URL, Audience: audience},
	}})
	for _, c := range []*clock{g.gateway.clock, g.own, g.far} {
		c.Set(now)
	}
	var err error
	if g.policy.p, err = policy.Parse("policy.yaml", fmt.Appendf(nil, guardedPolicy, g.one.URL)); err != nil {
		t.Fatal(err)
	}
	domain, err := devdomain.New(devdomain.Config{TrustDomain: "prod.example"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { domain.Close() })

	backend := g.newGuard(t, domain, backendID, &g.backend, g.far)
	addr := listen(t, g.seen, backend.ServerOptions()...)
	g.guard = g.newGuard(t, domain, gatewayID, &g.gateway.sink, g.own)
	conn, err := grpc.NewClient("passthrough:///"+addr, g.guard.DialOptions(svid.Expect(backendID))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	toBackend := testpb.NewTestServiceClient(conn)
	g.grpc = serveWith(t, g.gateway.v, g.guard, &proxy{backend: toBackend})
	g.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, s := range shapes {
			if r.URL.Path == "/"+s.method {
				if err := s.call(r.Context(), toBackend); err != nil {
					t.Errorf("the backend answers %v", err)
				}
			}
		}
	})
	g.http = edge.HTTP(g.gateway.v, g.guard, g.next)
	return g
}

func (g *guarded) newGuard(t *testing.T, domain *devdomain.Domain, id string, sink audit.Sink, c *clock) *interceptors.Guard {
	t.Helper()
	w, err := domain.Workload(id)
	if err != nil {
		t.Fatal(err)
	}
	guard, err := interceptors.New(interceptors.Config{
		Source: w, Policy: g.policy, Audit: sink, Clock: c.Now,
		Logger: slog.New(slog.DiscardHandler), MaxConnectionAge: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { guard.Close() })
	return guard
}

func listen(t *testing.T, impl testpb.TestServiceServer, options ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(options...)
	testpb.RegisterTestServiceServer(srv, impl)
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	return l.Addr().String()
}

// token returns one that the first issuer made now, for an hour.
func (g *guarded) token(change claims) string { return g.by(g.one, change) }

func (g *guarded) by(is *issuer, change claims) string {
	now := g.gateway.clock.Now()
	c := claims{"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "scope": "orders.read"}
	for k, v := range change {
		c[k] = v
	}
	return is.Good(c)
}

// far is the backend. It keeps what its handlers see of the tenant.
type far struct {
	service
	contexts []tenant.Context
}

func (s *far) saw(ctx context.Context) error {
	tc, err := tenant.Require(ctx)
	s.service.saw(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.contexts = append(s.contexts, tc)
	return err
}

// take returns what was seen since it was last called.
func (s *far) take() []tenant.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.contexts
	s.contexts = nil
	return list
}

func (s *far) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{}, s.saw(ctx)
}

func (s *far) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, ss testpb.TestService_StreamingOutputCallServer) error {
	if err := s.saw(ss.Context()); err != nil {
		return err
	}
	return s.service.StreamingOutputCall(r, ss)
}

func (s *far) StreamingInputCall(ss testpb.TestService_StreamingInputCallServer) error {
	if err := s.saw(ss.Context()); err != nil {
		return err
	}
	return s.service.StreamingInputCall(ss)
}

func (s *far) FullDuplexCall(ss testpb.TestService_FullDuplexCallServer) error {
	if err := s.saw(ss.Context()); err != nil {
		return err
	}
	return s.service.FullDuplexCall(ss)
}

// proxy is the gateway's service on gRPC.
type proxy struct {
	testpb.UnimplementedTestServiceServer
	backend testpb.TestServiceClient
}

// outgoing hands on the metadata that the handler sees.
func outgoing(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	return metadata.NewOutgoingContext(ctx, md)
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (p *proxy) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return p.backend.UnaryCall(outgoing(ctx), r)
}

func (p *proxy) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, ss testpb.TestService_StreamingOutputCallServer) error {
	up, err := p.backend.StreamingOutputCall(outgoing(ss.Context()), r)
	for err == nil {
		var m *testpb.StreamingOutputCallResponse
		if m, err = up.Recv(); err == nil {
			err = ss.Send(m)
		}
	}
	return ignoreEOF(err)
}

func (p *proxy) StreamingInputCall(ss testpb.TestService_StreamingInputCallServer) error {
	up, err := p.backend.StreamingInputCall(outgoing(ss.Context()))
	if err != nil {
		return err
	}
	m, err := ss.Recv()
	if err != nil {
		return err
	}
	if err := ignoreEOF(up.Send(m)); err != nil { // after io.EOF, the answer says more
		return err
	}
	answer, err := up.CloseAndRecv()
	if err != nil {
		return err
	}
	return ss.SendAndClose(answer)
}

func (p *proxy) FullDuplexCall(ss testpb.TestService_FullDuplexCallServer) error {
	up, err := p.backend.FullDuplexCall(outgoing(ss.Context()))
	for err == nil {
		var in *testpb.StreamingOutputCallRequest
		if in, err = ss.Recv(); err != nil {
			break
		}
		if err = ignoreEOF(up.Send(in)); err != nil {
			break
		}
		var out *testpb.StreamingOutputCallResponse
		if out, err = up.Recv(); err == nil {
			err = ss.Send(out)
		}
	}
	return ignoreEOF(err)
}

// wantEvents fails the test unless exactly these were recorded: the fields of
// an event that are set in want are compared, and Allowed.
func wantEvents(t *testing.T, got []audit.Event, want ...audit.Event) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("events are %+v, want %+v", got, want)
	}
	for i, w := range want {
		g := got[i]
		if g.Point != w.Point || g.Allowed != w.Allowed || g.Reason != w.Reason || g.Claimed != w.Claimed ||
			w.Tenant != "" && (g.Tenant != w.Tenant || !g.Proven) || w.Subject != "" && g.Subject != w.Subject ||
			w.Method != "" && g.Method != w.Method || w.Path != nil && !slices.Equal(g.Path, w.Path) || w.Peer != "" && g.Peer != w.Peer {
			t.Errorf("event %d is %+v, want %+v", i, g, w)
		}
		if g.DecisionID == "" || g.Time.IsZero() {
			t.Errorf("event %d has no time or identifier: %+v", i, g)
		}
	}
	noLeak(t, "", asJSON(got...))
}

// reached fails the test unless exactly one handler of the backend ran, for acme.
func (g *guarded) reached(t *testing.T, method string) {
	t.Helper()
	list := g.seen.take()
	if len(list) != 1 {
		t.Fatalf("%d handlers ran", len(list))
	}
	tc := list[0]
	if tc.Tenant().String() != "acme" || tc.TenantUID() != "acme-uid-1" || tc.Subject() != "user-7" || tc.Issuer() != g.one.URL ||
		!slices.Equal(tc.Scopes(), []string{"orders.read"}) {
		t.Errorf("the backend sees %v, subject %q, issuer %q, scopes %q", tc, tc.Subject(), tc.Issuer(), tc.Scopes())
	}
	if limit := g.own.Now().Add(5 * time.Minute); !tc.Expires().Equal(limit) {
		t.Errorf("the claims expire at %v, want %v: max_ttl, and not the token's exp", tc.Expires(), limit)
	}
	if p := tc.Path(); len(p) != 1 || p[0].Workload.String() != gatewayID || p[0].Method != method {
		t.Errorf("the path is %v", p)
	}
	g.seen.mu.Lock()
	defer g.seen.mu.Unlock()
	for name := range g.seen.md {
		if strings.Contains(name, "tenant") || strings.Contains(name, "authorization") {
			t.Errorf("the backend sees %s", name)
		}
	}
	wantEvents(t, g.backend.take(), audit.Event{
		Point: audit.Server, Allowed: true, Tenant: "acme", Subject: "user-7", Method: method, Peer: gatewayID, Path: []string{gatewayID},
	})
}

func TestGuardReachesBackend(t *testing.T) {
	g := newGuarded(t)
	originated := audit.Event{Point: audit.Originate, Allowed: true, Tenant: "acme", Subject: "user-7"}
	for _, s := range shapes {
		method := "/grpc.testing.TestService/" + s.method
		t.Run("gRPC/"+s.method, func(t *testing.T) {
			if err := s.call(bearing(t, g.token(nil)), g.grpc); err != nil {
				t.Fatal(err)
			}
			g.reached(t, method)
			wantEvents(t, g.gateway.sink.take(), originated)
		})
		t.Run("gRPC, M2 and M3/"+s.method, func(t *testing.T) {
			ctx := bearing(t, g.token(nil), "x-tenant-id", "globex", "grpcgateway-x-tenant", "globex", "grpc-metadata-tenantmesh-hops", "CAES")
			if err := s.call(ctx, g.grpc); err != nil {
				t.Fatal(err)
			}
			g.reached(t, method)
			wantEvents(t, g.gateway.sink.take(),
				audit.Event{Point: audit.Edge, Allowed: true, Tenant: "acme", Claimed: "globex", Method: method}, originated)
		})
		t.Run("HTTP, M2 and M3/"+s.method, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/"+s.method+"?tenant=globex", nil)
			r.Header.Set("Authorization", "Bearer "+g.token(nil))
			r.Header.Set("X-Tenant-Id", "globex")
			r.Header.Set("Tenantmesh-Hops", "CAES")
			rec := httptest.NewRecorder()
			g.http.ServeHTTP(rec, r)
			if rec.Code != 200 {
				t.Fatalf("answered %d %s", rec.Code, rec.Body)
			}
			g.reached(t, method)
			wantEvents(t, g.gateway.sink.take(),
				audit.Event{Point: audit.Edge, Allowed: true, Tenant: "acme", Claimed: "globex", Method: "GET /" + s.method}, originated)
		})
	}
}

// T9: what the token says and the gateway may not originate.
func TestGuardRefuses(t *testing.T) {
	g := newGuarded(t)
	for _, c := range []struct {
		name  string
		token string
		want  tenant.Reason
	}{
		{"T9 a scope", g.token(claims{"scope": "orders.read billing.read"}), tenant.ScopeNotAllowed},
		{"T9 an issuer", g.by(g.other, nil), tenant.IssuerNotAllowed},
		{"T9 a subject", g.token(claims{"sub": "admin"}), tenant.SubjectNotAllowed},
		{"T9 a tenant that is not listed", g.token(claims{"tenant": "initech"}), tenant.TenantNotBound},
		{"T9 a tenant of others", g.token(claims{"tenant": "umbrella"}), tenant.TenantNotBound},
	} {
		denied := audit.Event{Point: audit.Originate, Reason: c.want}
		t.Run(c.name+"/HTTP", func(t *testing.T) {
			rec := httptest.NewRecorder()
			g.http.ServeHTTP(rec, get(c.token))
			if want := fmt.Sprintf(`{"title":"Forbidden","status":403,"reason":%q}`, c.want); rec.Code != 403 || rec.Body.String() != want {
				t.Errorf("answered %d %s, want %s", rec.Code, rec.Body, want)
			}
			wantEvents(t, g.gateway.sink.take(), denied)
		})
		each(t, c.name, func(t *testing.T, s shape) {
			err := s.call(bearing(t, c.token), g.grpc)
			if status.Code(err) != codes.PermissionDenied || interceptors.ReasonOf(err) != c.want {
				t.Errorf("status is %v, want %s", err, c.want)
			}
			wantEvents(t, g.gateway.sink.take(), denied)
		})
	}
	t.Run("T9 a context that holds a chain already", func(t *testing.T) {
		again := edge.HTTP(g.gateway.v, g.guard, g.next)
		nested := edge.HTTP(g.gateway.v, g.guard, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+g.token(claims{"tenant": "globex"}))
			again.ServeHTTP(w, r)
		}))
		rec := httptest.NewRecorder()
		nested.ServeHTTP(rec, get(g.token(nil)))
		if rec.Code != 403 || !strings.Contains(rec.Body.String(), string(tenant.ContextPresent)) {
			t.Errorf("answered %d %s", rec.Code, rec.Body)
		}
		wantEvents(t, g.gateway.sink.take(),
			audit.Event{Point: audit.Originate, Allowed: true, Tenant: "acme"}, audit.Event{Point: audit.Originate, Reason: tenant.ContextPresent})
	})
	t.Run("T9 a guard that denies everything", func(t *testing.T) {
		g.guard.Close()
		rec := httptest.NewRecorder()
		g.http.ServeHTTP(rec, get(g.token(nil)))
		if rec.Code != 503 || !strings.Contains(rec.Body.String(), string(tenant.PolicyUnavailable)) {
			t.Errorf("answered %d %s", rec.Code, rec.Body)
		}
		wantEvents(t, g.gateway.sink.take(), audit.Event{Point: audit.Originate, Reason: tenant.PolicyUnavailable})
	})
	if seen, events := g.seen.take(), g.backend.take(); seen != nil || events != nil {
		t.Errorf("the backend saw %v and recorded %+v", seen, events)
	}
}

// A gateway that may only forward starts no chain.
func TestGuardForwarder(t *testing.T) {
	g := newGuarded(t)
	domain, err := devdomain.New(devdomain.Config{TrustDomain: "prod.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer domain.Close()
	forwarder := g.newGuard(t, domain, "spiffe://prod.example/forwarder", &g.gateway.sink, g.own)
	rec := httptest.NewRecorder()
	edge.HTTP(g.gateway.v, forwarder, g.next).ServeHTTP(rec, get(g.token(nil)))
	if rec.Code != 403 || !strings.Contains(rec.Body.String(), string(tenant.OriginationNotAllowed)) {
		t.Errorf("answered %d %s", rec.Code, rec.Body)
	}
	wantEvents(t, g.gateway.sink.take(), audit.Event{Point: audit.Originate, Reason: tenant.OriginationNotAllowed})
}

// Claims, or the token, that expire on a stream that is open through the edge.
func TestGuardStreamExpires(t *testing.T) {
	const method = "/grpc.testing.TestService/FullDuplexCall"
	for _, c := range []struct {
		name    string
		expire  func(*guarded)
		want    tenant.Reason
		gateway []audit.Event // what it records of the end
		backend []audit.Event
	}{
		{
			"claims, at the edge", func(g *guarded) { g.own.Add(5 * time.Minute) }, tenant.ContextExpired,
			[]audit.Event{{Point: audit.Edge, Reason: tenant.ContextExpired, Tenant: "acme", Subject: "user-7", Method: method}}, nil,
		},
		{
			"the token, at the edge", func(g *guarded) { g.gateway.clock.Add(time.Hour) }, tenant.TokenExpired,
			[]audit.Event{{Point: audit.Edge, Reason: tenant.TokenExpired, Tenant: "acme", Subject: "user-7", Method: method}}, nil,
		},
		{
			"claims, at the backend", func(g *guarded) { g.far.Add(5 * time.Minute) }, tenant.ContextExpired,
			nil, []audit.Event{{Point: audit.Server, Reason: tenant.ContextExpired, Tenant: "acme", Subject: "user-7", Method: method}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuarded(t)
			s, err := g.grpc.FullDuplexCall(bearing(t, g.token(nil)))
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := s.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Recv(); err != nil {
					t.Fatal(err)
				}
			}
			g.reached(t, method)
			wantEvents(t, g.gateway.sink.take(), audit.Event{Point: audit.Originate, Allowed: true, Tenant: "acme"})
			c.expire(g)
			s.Send(&testpb.StreamingOutputCallRequest{})
			if _, err := s.Recv(); status.Code(err) != codes.Unauthenticated || interceptors.ReasonOf(err) != c.want {
				t.Errorf("the stream ended with %v, want %s", err, c.want)
			}
			wantEvents(t, g.gateway.sink.take(), c.gateway...)
			wantEvents(t, g.backend.take(), c.backend...)
		})
	}
}

// What package tenant refuses a handler behind the edge is a status, with no
// more in it than the reason, and is recorded.
func TestGuardHandlerRefuses(t *testing.T) {
	g := newGuarded(t)
	globex, err := tenant.ParseID("globex")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		ask  func(context.Context) error
		code codes.Code
		told tenant.Reason
		want tenant.Reason
	}{
		{"D4 a record of another tenant", func(ctx context.Context) error { return tenant.Owns(ctx, globex) }, codes.NotFound, "", tenant.TenantMismatch},
		{"M6 no context, in an error with secrets", func(context.Context) error {
			_, err := tenant.Require(context.Background())
			return fmt.Errorf("%s: %w", canary, err)
		}, codes.Unauthenticated, tenant.ContextMissing, tenant.ContextMissing},
		{"an error of others", func(context.Context) error { return status.Error(codes.Aborted, "try again") }, codes.Aborted, "", ""},
	} {
		client := serveWith(t, g.gateway.v, g.guard, &asking{ask: func(ctx context.Context, _, _ func() error) error { return c.ask(ctx) }})
		each(t, c.name, func(t *testing.T, s shape) {
			err := s.call(bearing(t, g.token(nil)), client)
			if status.Code(err) != c.code || interceptors.ReasonOf(err) != c.told {
				t.Errorf("status is %v, want %v with %q", err, c.code, c.told)
			}
			noLeak(t, "", status.Convert(err).String())
			want := []audit.Event{{Point: audit.Originate, Allowed: true, Tenant: "acme"}}
			if c.want != "" {
				want = append(want, audit.Event{Point: audit.Edge, Reason: c.want, Tenant: "acme", Method: "/grpc.testing.TestService/" + s.method})
			}
			wantEvents(t, g.gateway.sink.take(), want...)
		})
	}
}

// What was refused in a call behind the edge is how the call ends, whatever the
// handler makes of it, and on a stream no message passes any more.
func TestGuardCareless(t *testing.T) {
	g := newGuarded(t)
	var (
		expire func(time.Duration)
		thing  func(ctx context.Context, recv, send func() error) error
		answer func(error) error
	)
	client := serveWith(t, g.gateway.v, g.guard, &asking{ask: func(ctx context.Context, recv, send func() error) error {
		expire(2 * time.Hour)
		err := thing(ctx, recv, send)
		expire(-2 * time.Hour)
		if err == nil || send != nil && send() == nil {
			return status.Error(codes.OutOfRange, "what was to be refused was not")
		}
		return answer(err)
	}})
	ofClaims, ofToken := g.own.Add, g.gateway.clock.Add
	for _, c := range []struct {
		name   string
		expire func(time.Duration)
		shapes []shape
		thing  func(ctx context.Context, recv, send func() error) error
		want   tenant.Reason
	}{
		{"T9 Require refused", ofClaims, shapes, func(ctx context.Context, _, _ func() error) error {
			_, err := tenant.Require(ctx)
			return err
		}, tenant.ContextExpired},
		{"T9 RecvMsg refused", ofClaims, shapes[2:], func(_ context.Context, recv, _ func() error) error { return recv() }, tenant.ContextExpired},
		{"T9 SendMsg refused", ofClaims, shapes[1:], func(_ context.Context, _, send func() error) error { return send() }, tenant.ContextExpired},
		{"T6 RecvMsg refused for the token", ofToken, shapes[2:], func(_ context.Context, recv, _ func() error) error { return recv() }, tenant.TokenExpired},
		{"T6 SendMsg refused for the token", ofToken, shapes[1:], func(_ context.Context, _, send func() error) error { return send() }, tenant.TokenExpired},
	} {
		for name, a := range map[string]func(error) error{
			"nothing":        func(error) error { return nil },
			"the error":      func(err error) error { return err },
			"another status": func(err error) error { return status.Errorf(codes.Aborted, "%v", err) },
		} {
			attacktest.Run(&account, t, c.name+", and the handler returns "+name, c.shapes, func(t *testing.T, s shape) {
				expire, thing, answer = c.expire, c.thing, a
				err := s.call(bearing(t, g.token(nil)), client)
				if status.Code(err) != codes.Unauthenticated || interceptors.ReasonOf(err) != c.want {
					t.Errorf("the call ends with %v, want %s", err, c.want)
				}
				wantEvents(t, g.gateway.sink.take(), audit.Event{Point: audit.Originate, Allowed: true, Tenant: "acme"},
					audit.Event{Point: audit.Edge, Reason: c.want, Tenant: "acme", Method: "/grpc.testing.TestService/" + s.method})
			})
		}
	}
}

// asking answers every call with what ask returns. recv and send are nil where
// the shape has none.
type asking struct {
	testpb.UnimplementedTestServiceServer
	ask func(ctx context.Context, recv, send func() error) error
}

func (a *asking) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{}, a.ask(ctx, nil, nil)
}

func (a *asking) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, ss testpb.TestService_StreamingOutputCallServer) error {
	return a.ask(ss.Context(), nil, func() error { return ss.Send(&testpb.StreamingOutputCallResponse{}) })
}

func (a *asking) StreamingInputCall(ss testpb.TestService_StreamingInputCallServer) error {
	return a.ask(ss.Context(), func() error { _, err := ss.Recv(); return err },
		func() error { return ss.SendAndClose(&testpb.StreamingInputCallResponse{}) })
}

func (a *asking) FullDuplexCall(ss testpb.TestService_FullDuplexCallServer) error {
	return a.ask(ss.Context(), func() error { _, err := ss.Recv(); return err },
		func() error { return ss.Send(&testpb.StreamingOutputCallResponse{}) })
}
