package interceptors_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthserver "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestMain demands that each line of the attack catalogue that this package is
// about ran over all four shapes.
func TestMain(m *testing.M) {
	os.Exit(attacktest.Main(&account, m, shapes, "T9",
		"H1", "H2", "H3", "H4", "H5", "H6", "H7", "H8", "H9", "H10", "H11",
		"I1", "I2", "I3", "I4", "I5", "I6", "I7", "M1", "M2", "M3", "M4", "M5", "M6"))
}

var account attacktest.Account

// The mesh of the tests: a trust domain and one that is federated with it, one
// server ("target"), and whoever calls it. CacheableUnaryCall is registered and
// covered by no rule.
const document = `
version: 1
trust_domains:
  - name: prod.example
  - name: partner.example
    tenants: [acme]
workloads:
  - name: gateway
    match: spiffe://prod.example/gateway
    tenants: ["*"]
    originate: {issuers: ["https://login.example"], scopes: ["orders.*"], subjects: ["user-*"], classification: 2, max_ttl: 5m}
    calls: [/grpc.testing.TestService/*]
  - name: tts
    match: spiffe://prod.example/tts
    tenants: ["*"]
    originate: {issuers: ["https://login.example"], scopes: ["orders.*"]}
    calls: [/grpc.testing.TestService/*]
  - name: orders
    match: spiffe://prod.example/orders
    tenants: ["*"]
    calls: [/grpc.testing.TestService/*]
  - name: stock
    match: spiffe://prod.example/stock
    tenants: ["*"]
    calls: [/grpc.testing.TestService/*]
  - name: target
    match: spiffe://prod.example/target
    tenants: ["*"]
    calls: [/grpc.testing.TestService/*]
  - name: reports
    match: spiffe://prod.example/reports
    tenants: [globex]
    originate: {issuers: ["https://login.example"], scopes: ["orders.*"]}
    calls: [/grpc.testing.TestService/*]
  - name: runner
    match: spiffe://prod.example/tenant/{tenant}/runner/*
    tenants: ["{tenant}"]
    originate: {issuers: ["https://login.example"], scopes: ["orders.*"]}
    calls: [/grpc.testing.TestService/*]
  - name: pay
    match: spiffe://prod.example/service/pay
    tenants: ["*"]
    calls: [/grpc.testing.TestService/*]
  - name: dotted
    match: spiffe://prod.example/a.b
    tenants: ["*"]
    calls: [/grpc.testing.TestService/*]
  - name: intruder
    match: spiffe://prod.example/intruder
    calls: [/grpc.testing.TestService/*]
  - name: bystander
    match: spiffe://prod.example/bystander
    tenants: ["*"]
    calls: [/grpc.testing.TestService/*]
  - name: partner
    match: spiffe://partner.example/app
    tenants: ["*"]
    originate: {issuers: ["https://login.example"], scopes: ["orders.*"]}
    calls: [/grpc.testing.TestService/*]
methods:
  - match: /grpc.testing.TestService/UnaryCall
    callers: [tts, gateway, orders, stock, reports, runner, intruder, partner, target, pay, dotted]
    scopes: [orders.read]
  - match: /grpc.testing.TestService/StreamingOutputCall
    callers: [tts, gateway, orders, stock, reports, runner, intruder, partner, target, pay, dotted]
    scopes: [orders.read]
  - match: /grpc.testing.TestService/StreamingInputCall
    callers: [tts, gateway, orders, stock, reports, runner, intruder, partner, target, pay, dotted]
    scopes: [orders.read]
  - match: /grpc.testing.TestService/FullDuplexCall
    callers: [tts, gateway, orders, stock, reports, runner, intruder, partner, target, pay, dotted]
    scopes: [orders.read]
  - match: /grpc.testing.TestService/EmptyCall
    exempt: true
tenants:
  acme: {uid: acme-uid-1}
  globex: {uid: globex-uid-1}
`

func id(name string) string { return "spiffe://prod.example/" + name }

func parsePolicy(t testing.TB, doc string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("tenantmesh.yaml", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// clock is real time with an offset.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// trail is an audit sink for tests.
type trail struct {
	mu     sync.Mutex
	events []audit.Event
	fail   error
	hangs  bool
	during func()        // runs during the next Record
	came   chan struct{} // closed when the next event comes
}

// once makes f run while the next event is recorded.
func (s *trail) once(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.during = f
}

// hang makes the sink take nothing any more, and not answer either.
func (s *trail) hang() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hangs = true
}

func newTrail() *trail { return &trail{came: make(chan struct{})} }

func (s *trail) Record(ctx context.Context, e audit.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hangs {
		s.mu.Unlock()
		<-ctx.Done()
		s.mu.Lock()
		return ctx.Err()
	}
	if s.fail != nil {
		return s.fail
	}
	if s.during != nil {
		s.during()
		s.during = nil
	}
	s.events = append(s.events, e)
	close(s.came)
	s.came = make(chan struct{})
	return nil
}

// await returns the events since the last take, of which there is one at least.
func (s *trail) await(t *testing.T) []audit.Event {
	t.Helper()
	for ctx := deadline(t); ; {
		s.mu.Lock()
		came := s.came
		s.mu.Unlock()
		if events := s.take(); len(events) > 0 {
			return events
		}
		select {
		case <-came:
		case <-ctx.Done():
			t.Fatal("audit: no event")
		}
	}
}

// take returns the events since the last take.
func (s *trail) take() []audit.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.events
	s.events = nil
	return events
}

func (s *trail) setFail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// source is a policy.Source whose policy can be exchanged.
type source struct{ p atomic.Pointer[policy.Policy] }

func (s *source) Current() *policy.Policy { return s.p.Load() }

// mesh is the trust domain with the target server.
type mesh struct {
	t      *testing.T
	domain *devdomain.Domain
	clock  *clock  // the target's
	audit  *trail  // the target's
	policy *source // everybody's
	guard  *interceptors.Guard
	addr   string
	ran    *handlerLog
	server *grpc.Server

	self    *devdomain.Workload // the target
	partner *devdomain.Domain   // federated with domain
	logged  *safeBuffer         // what the guards log
	svids   map[string]*x509svid.SVID
}

// each runs f over all four shapes, as subtests of name.
func (m *mesh) each(name string, f func(*mesh, shape)) {
	m.t.Helper()
	each(m.t, name, func(t *testing.T, s shape) {
		c := *m
		c.t = t
		f(&c, s)
	})
}

func each(t *testing.T, name string, f func(*testing.T, shape)) {
	t.Helper()
	attacktest.Run(&account, t, name, shapes, f)
}

// handlerLog is what the handlers themselves say: whether one ran, and hook.
type handlerLog struct {
	mu   sync.Mutex
	runs []string
	hook func(ctx context.Context) error
}

func (l *handlerLog) run(ctx context.Context) error {
	l.mu.Lock()
	tc, _ := tenant.FromContext(ctx)
	l.runs = append(l.runs, tc.Tenant().String())
	hook := l.hook
	l.mu.Unlock()
	if hook != nil {
		return hook(ctx)
	}
	return nil
}

func (l *handlerLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	runs := l.runs
	l.runs = nil
	return runs
}

func (l *handlerLog) setHook(hook func(context.Context) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hook = hook
}

// service answers all four shapes.
type service struct {
	grpc_testing.UnimplementedTestServiceServer
	log *handlerLog
}

func (s *service) EmptyCall(ctx context.Context, _ *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return &grpc_testing.Empty{}, s.log.run(ctx)
}

func (s *service) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return &grpc_testing.SimpleResponse{}, s.log.run(ctx)
}

func (s *service) StreamingOutputCall(_ *grpc_testing.StreamingOutputCallRequest, ss grpc_testing.TestService_StreamingOutputCallServer) error {
	if err := s.log.run(ss.Context()); err != nil {
		return err
	}
	return ss.Send(&grpc_testing.StreamingOutputCallResponse{})
}

func (s *service) StreamingInputCall(ss grpc_testing.TestService_StreamingInputCallServer) error {
	if err := s.log.run(ss.Context()); err != nil {
		return err
	}
	for {
		if _, err := ss.Recv(); errors.Is(err, io.EOF) {
			return ss.SendAndClose(&grpc_testing.StreamingInputCallResponse{})
		} else if err != nil {
			return err
		}
	}
}

func (s *service) FullDuplexCall(ss grpc_testing.TestService_FullDuplexCallServer) error {
	if err := s.log.run(ss.Context()); err != nil {
		return err
	}
	for {
		if _, err := ss.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := ss.Send(&grpc_testing.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

func newMesh(t *testing.T, options ...grpc.ServerOption) *mesh {
	t.Helper()
	m := &mesh{t: t, policy: new(source), ran: new(handlerLog),
		logged: new(safeBuffer), svids: map[string]*x509svid.SVID{}}
	for name, domain := range map[string]**devdomain.Domain{"prod.example": &m.domain, "partner.example": &m.partner} {
		var err error
		if *domain, err = devdomain.New(devdomain.Config{TrustDomain: name}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = (*domain).Close() })
	}
	m.domain.Federate(m.partner)
	m.partner.Federate(m.domain)
	t.Cleanup(func() {
		if strings.Contains(m.logged.String(), canary) {
			t.Errorf("M6 a guard logs a claim: %s", m.logged)
		}
	})
	m.policy.p.Store(parsePolicy(t, document))
	m.self = m.workload("target")
	return m.anew(options...)
}

// anew returns a mesh that differs in its target: another server with a clock
// and an audit trail of its own.
func (m *mesh) anew(options ...grpc.ServerOption) *mesh {
	m.t.Helper()
	c := *m
	c.clock, c.audit = new(clock), newTrail()
	c.guard = c.newGuard(c.self, c.audit, c.clock.now)
	c.server, c.addr = c.serve(append(c.guard.ServerOptions(), options...)...)
	return &c
}

func (m *mesh) workload(name string) *devdomain.Workload {
	m.t.Helper()
	w, err := m.domain.Workload(id(name))
	if err != nil {
		m.t.Fatal(err)
	}
	return w
}

func (m *mesh) newGuard(src svid.Snapshotter, sink audit.Sink, now func() time.Time) *interceptors.Guard {
	m.t.Helper()
	return m.guardOf(m.config(src, sink, now))
}

func (m *mesh) config(src svid.Snapshotter, sink audit.Sink, now func() time.Time) interceptors.Config {
	return interceptors.Config{
		Source: src, Policy: m.policy, Audit: sink, Clock: now,
		Logger: slog.New(slog.NewJSONHandler(m.logged, nil)), MaxConnectionAge: time.Hour,
	}
}

func (m *mesh) guardOf(cfg interceptors.Config) *interceptors.Guard {
	m.t.Helper()
	g, err := interceptors.New(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = g.Close() })
	return g
}

func (m *mesh) serve(options ...grpc.ServerOption) (*grpc.Server, string) {
	m.t.Helper()
	return m.serveAs(&service{log: m.ran}, options...)
}

func (m *mesh) serveAs(impl grpc_testing.TestServiceServer, options ...grpc.ServerOption) (*grpc.Server, string) {
	m.t.Helper()
	return m.serveWith(func(srv *grpc.Server) {
		grpc_testing.RegisterTestServiceServer(srv, impl)
		healthpb.RegisterHealthServer(srv, healthserver.NewServer())
		reflection.Register(srv)
	}, options...)
}

func (m *mesh) serveWith(register func(*grpc.Server), options ...grpc.ServerOption) (*grpc.Server, string) {
	m.t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	srv := grpc.NewServer(options...)
	register(srv)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	m.t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			m.t.Errorf("serve: %v", err)
		}
	})
	return srv, lis.Addr().String()
}

func (m *mesh) dial(options ...grpc.DialOption) *grpc.ClientConn {
	m.t.Helper()
	return m.dialTo(m.addr, options...)
}

func (m *mesh) dialTo(addr string, options ...grpc.DialOption) *grpc.ClientConn {
	m.t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, options...)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// client returns the guard of a workload that plays by the rules, and its
// connection to the target.
func (m *mesh) client(name string) (*interceptors.Guard, *grpc.ClientConn) {
	m.t.Helper()
	g := m.newGuard(attacktest.Identity(m.svid(name), m.bundles()), newTrail(), time.Now)
	return g, m.dial(g.DialOptions(svid.Expect(id("target")))...)
}

// acme returns a context that the guard originated for acme.
func acme(t testing.TB, g *interceptors.Guard) context.Context {
	t.Helper()
	ctx, err := g.Originate(deadline(t), claims("acme"))
	if err != nil {
		t.Fatal(err)
	}
	return ctx
}

func claims(name string) *hop.Claims {
	tid, err := tenant.ParseID(name)
	if err != nil {
		panic(err)
	}
	now := time.Now()
	return &hop.Claims{
		Transaction: "txn-1", Tenant: tid, TenantUID: name + "-uid-1", Subject: "user-1", Issuer: "https://login.example",
		Scopes: []string{"orders.read"}, IssuedAt: now, Expires: now.Add(4 * time.Minute),
		Attributes: map[string]string{canary: canary}, Request: map[string]string{"request": canary},
	}
}

// canary stands in claims that are secret. It shows nowhere (M6).
const canary = "CANARY7"

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// shape is one way to call.
type shape struct {
	name, method string
	call         func(context.Context, *grpc.ClientConn, ...grpc.CallOption) error
}

func (s shape) String() string { return s.name }

var shapes = []shape{
	{"unary", grpc_testing.TestService_UnaryCall_FullMethodName, func(ctx context.Context, cc *grpc.ClientConn, o ...grpc.CallOption) error {
		_, err := grpc_testing.NewTestServiceClient(cc).UnaryCall(ctx, &grpc_testing.SimpleRequest{}, o...)
		return err
	}},
	{"server stream", grpc_testing.TestService_StreamingOutputCall_FullMethodName, func(ctx context.Context, cc *grpc.ClientConn, o ...grpc.CallOption) error {
		s, err := grpc_testing.NewTestServiceClient(cc).StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{}, o...)
		if err != nil {
			return err
		}
		return drain(s.Recv)
	}},
	{"client stream", grpc_testing.TestService_StreamingInputCall_FullMethodName, func(ctx context.Context, cc *grpc.ClientConn, o ...grpc.CallOption) error {
		s, err := grpc_testing.NewTestServiceClient(cc).StreamingInputCall(ctx, o...)
		if err != nil {
			return err
		}
		if err := s.Send(&grpc_testing.StreamingInputCallRequest{}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		_, err = s.CloseAndRecv()
		return err
	}},
	{"bidi stream", grpc_testing.TestService_FullDuplexCall_FullMethodName, func(ctx context.Context, cc *grpc.ClientConn, o ...grpc.CallOption) error {
		s, err := grpc_testing.NewTestServiceClient(cc).FullDuplexCall(ctx, o...)
		if err != nil {
			return err
		}
		if err := s.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err := s.CloseSend(); err != nil {
			return err
		}
		return drain(s.Recv)
	}},
}

func drain[T any](recv func() (T, error)) error {
	for {
		if _, err := recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// attack returns a connection to the target by an SVID, without a guard.
func (m *mesh) attack(by *x509svid.SVID, forge attacktest.Forgery) *grpc.ClientConn {
	m.t.Helper()
	cc, err := m.outfit().Dial(m.addr, by, forge)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// issue returns an SVID for a workload of the trust domain.
func (m *mesh) issue(name string, options ...devdomain.LeafOption) *x509svid.SVID {
	m.t.Helper()
	s, err := m.domain.Issue(id(name), options...)
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

// svid returns the one SVID of a workload, named by its path or its SPIFFE ID.
func (m *mesh) svid(name string) *x509svid.SVID {
	m.t.Helper()
	if m.svids[name] == nil {
		issue := m.domain.Issue
		full := id(name)
		if strings.HasPrefix(name, "spiffe://") {
			issue, full = m.partner.Issue, name
		}
		s, err := issue(full)
		if err != nil {
			m.t.Fatal(err)
		}
		m.svids[name] = s
	}
	return m.svids[name]
}

func (m *mesh) bundles() *x509bundle.Set {
	return x509bundle.NewSet(m.domain.Bundle(), m.partner.Bundle())
}

// refused asserts that a call was refused for the reason, in the caller's eyes
// and in the audit trail, and that no handler ran.
func (m *mesh) refused(err error, want tenant.Reason) audit.Event {
	m.t.Helper()
	if got := interceptors.ReasonOf(err); got != want {
		m.t.Errorf("the caller sees reason %q in %v, want %s", got, err, want)
	}
	if s := fmt.Sprintf("%+v %v", err, status.Convert(err).Details()); strings.Contains(s, canary) {
		m.t.Errorf("M6 the caller sees a claim: %s", s)
	}
	return m.recorded(want)
}

// recorded asserts that the target recorded one refusal, for the reason.
func (m *mesh) recorded(want tenant.Reason) audit.Event {
	m.t.Helper()
	events := m.audit.take()
	if len(events) != 1 || events[0].Allowed || events[0].Reason != want {
		m.t.Fatalf("audit: got %+v, want one refusal for %s", events, want)
	}
	m.notRun()
	m.noLeak(events...)
	return events[0]
}

// notRun asserts that no handler of the target says that it ran.
func (m *mesh) notRun() {
	m.t.Helper()
	if runs := m.ran.take(); len(runs) != 0 {
		m.t.Errorf("the handler ran for %q", runs)
	}
}

// noLeak asserts that audit shows no secret claim.
func (m *mesh) noLeak(events ...audit.Event) {
	m.t.Helper()
	if s := fmt.Sprintf("%+v", events); strings.Contains(s, canary) {
		m.t.Errorf("M6 audit shows a claim: %s", s)
	}
}

// allowed asserts that a call ran for the tenant and was recorded so.
func (m *mesh) allowed(err error, want string) audit.Event {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
	events := m.audit.take()
	if len(events) != 1 || !events[0].Allowed || events[0].Tenant != want {
		m.t.Fatalf("audit: got %+v, want one call allowed for %q", events, want)
	}
	if runs := m.ran.take(); !slices.Equal(runs, []string{want}) {
		m.t.Fatalf("handlers ran for %q, want %q", runs, want)
	}
	return events[0]
}

// withMetadata is metadata set by the application.
func withMetadata(ctx context.Context, pairs ...string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

func reason(err error) tenant.Reason { return interceptors.ReasonOf(err) }

// noting makes a server show note the context of each call before it goes on.
func noting(note func(context.Context)) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			note(ctx)
			return next(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			note(ss.Context())
			return next(srv, ss)
		}),
	}
}
