package interceptors_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestForward: gateway → orders → target, each with its own SVID and guard.
func TestForward(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			m := newMesh(t)
			orders := m.newGuard(m.workload("orders"), newTrail(), time.Now)
			toTarget := m.dial(orders.DialOptions(svid.Expect(id("target")))...)
			log := new(handlerLog)
			log.setHook(func(ctx context.Context) error { return shape.call(ctx, toTarget) })
			_, addr := m.serveOther(orders, log)

			var got tenant.Context
			m.ran.setHook(func(ctx context.Context) (err error) {
				got, err = tenant.Require(ctx)
				return err
			})
			g := m.newGuard(m.workload("gateway"), newTrail(), time.Now)
			toOrders := m.dialTo(addr, g.DialOptions(svid.Expect(id("orders")))...)
			event := m.allowed(shape.call(acme(t, g), toOrders), "acme")

			var path []string
			for _, s := range got.Path() {
				path = append(path, s.Workload.String()+" "+s.Name+" "+s.Method)
			}
			if want := []string{
				id("gateway") + " gateway " + shape.method,
				id("orders") + " orders " + shape.method,
			}; !slices.Equal(path, want) {
				t.Errorf("path %q, want %q", path, want)
			}
			if want := []string{id("gateway"), id("orders")}; !slices.Equal(event.Path, want) || event.Peer != id("orders") {
				t.Errorf("audit has path %q and peer %q", event.Path, event.Peer)
			}
			if got.Subject() != "user-1" || got.Transaction() != "txn-1" || got.TenantUID() != "acme-uid-1" || !got.HasScope("orders.read") {
				t.Errorf("got %#v", got)
			}
		})
	}
}

// serveOther serves the test service by another workload's guard.
func (m *mesh) serveOther(g *interceptors.Guard, log *handlerLog) (*grpc.Server, string) {
	m.t.Helper()
	other := *m
	other.ran = log
	return other.serve(g.ServerOptions()...)
}

func TestOriginate(t *testing.T) {
	m := newMesh(t)
	sink := newTrail()
	gateway := m.newGuard(m.workload("gateway"), sink, time.Now)
	with := func(change func(*hop.Claims)) *hop.Claims {
		c := claims("acme")
		change(c)
		return c
	}
	for _, row := range []struct {
		name   string
		guard  *interceptors.Guard
		ctx    context.Context
		claims *hop.Claims
		reason tenant.Reason
	}{
		{"T9 while the context already holds a chain", gateway, acme(t, gateway), claims("acme"), tenant.ContextPresent},
		{"T9 in a task that outlives its call", gateway, context.WithoutCancel(acme(t, gateway)), claims("globex"), tenant.ContextPresent},
		{"T9 a tenant that is not listed", gateway, t.Context(), claims("umbrella"), tenant.TenantNotBound},
		{"T9 a scope", gateway, t.Context(), with(func(c *hop.Claims) { c.Scopes = []string{"billing.read"} }), tenant.ScopeNotAllowed},
		{"T9 a subject", gateway, t.Context(), with(func(c *hop.Claims) { c.Subject = "root" }), tenant.SubjectNotAllowed},
		{"T9 a classification", gateway, t.Context(), with(func(c *hop.Claims) { c.Classification = 3 }), tenant.ClassificationNotAllowed},
		{"T9 an issuer", gateway, t.Context(), with(func(c *hop.Claims) { c.Issuer = "https://evil.example" }), tenant.IssuerNotAllowed},
		{"H4 a workload that may only forward", m.newGuard(m.workload("orders"), sink, time.Now), t.Context(), claims("acme"), tenant.OriginationNotAllowed},
		{"H4 a workload that is bound to another tenant", m.newGuard(m.workload("reports"), sink, time.Now), t.Context(), claims("acme"), tenant.TenantNotBound},
		{"T9 a subject with a control character", gateway, t.Context(), with(func(c *hop.Claims) { c.Subject = "user-\x01" }), tenant.ContextMalformed},
		{"T9 claims past exp", gateway, t.Context(), with(func(c *hop.Claims) { c.Expires = time.Now().Add(-time.Second) }), tenant.LifetimeNotAllowed},
	} {
		t.Run(row.name, func(t *testing.T) {
			sink.take()
			ctx, err := row.guard.Originate(row.ctx, row.claims)
			if tenant.ReasonOf(err) != row.reason || ctx != nil {
				t.Fatalf("got %v, want %s", err, row.reason)
			}
			events := sink.take()
			if len(events) != 1 || events[0].Allowed || events[0].Reason != row.reason ||
				events[0].Tenant != row.claims.Tenant.String() || events[0].Subject != row.claims.Subject || events[0].Proven {
				t.Errorf("audit: %+v", events)
			}
		})
	}
	m.each("T9 in a handler, whose context holds a chain", func(m *mesh, s shape) {
		g, cc := m.client("gateway")
		for name, in := range map[string]func(context.Context) context.Context{
			"in its call": func(ctx context.Context) context.Context { return ctx }, "in a task that outlives it": context.WithoutCancel,
		} {
			m.ran.setHook(func(ctx context.Context) error {
				_, err := m.guard.Originate(in(ctx), claims("globex"))
				return err
			})
			if err := s.call(acme(m.t, g), cc); reason(err) != tenant.ContextPresent {
				m.t.Errorf("%s: got %v", name, err)
			}
			if events := m.audit.take(); len(events) != 3 || events[1].Point != audit.Originate || events[1].Reason != tenant.ContextPresent ||
				events[2].Point != audit.Server || events[2].Reason != tenant.ContextPresent {
				m.t.Errorf("%s: audit: %+v", name, events)
			}
		}
	})
	t.Run("no claims", func(t *testing.T) {
		if _, err := gateway.Originate(t.Context(), nil); tenant.ReasonOf(err) != tenant.ContextMissing {
			t.Errorf("got %v", err)
		}
	})
	t.Run("what is left out is filled in", func(t *testing.T) {
		tid, _ := tenant.ParseID("acme")
		ctx, err := gateway.Originate(t.Context(), &hop.Claims{
			Tenant: tid, Subject: "user-1", Issuer: "https://login.example", Scopes: []string{"orders.write", "orders.read", "orders.read"},
			Expires: time.Now().Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		tc, err := tenant.Require(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if tc.TenantUID() != "acme-uid-1" || tc.Transaction() == "" || !slices.Equal(tc.Scopes(), []string{"orders.read", "orders.write"}) {
			t.Errorf("got %v", tc)
		}
		if life := tc.Expires().Sub(tc.IssuedAt()); life > 5*time.Minute {
			t.Errorf("the claims live %s, the policy lets them live 5m", life)
		}
	})
	t.Run("E2 an audit sink that is down", func(t *testing.T) {
		sink.setFail(errors.New("disk full"))
		defer sink.setFail(nil)
		if _, err := gateway.Originate(t.Context(), claims("acme")); tenant.ReasonOf(err) != tenant.AuditUnavailable {
			t.Errorf("got %v", err)
		}
	})
}

// TestStillValid: a context is asked again at each use.
func TestStillValid(t *testing.T) {
	each(t, "T9 claims past exp in a handler that runs on", func(t *testing.T, shape shape) {
		m := newMesh(t)
		self := m.dial(m.guard.DialOptions(svid.Expect(id("target")))...)
		g, cc := m.client("gateway")
		var signing error
		m.ran.setHook(func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second) // as a background task does
			defer cancel()
			m.clock.advance(10 * time.Minute)
			signing = shape.call(ctx, self)
			_, err := tenant.Require(ctx)
			return err
		})
		err := shape.call(acme(t, g), cc)
		if reason(err) != tenant.ContextExpired || status.Code(err) != codes.Unauthenticated {
			t.Errorf("Require: got %v", err)
		}
		if reason(signing) != tenant.ContextExpired {
			t.Errorf("signing: got %v", signing)
		}
		if runs := m.ran.take(); len(runs) != 1 {
			t.Errorf("handlers ran for %q", runs)
		}
	})
	for want, gone := range map[tenant.Reason]func(*mesh){
		tenant.PolicyUnavailable:   func(m *mesh) { m.policy.p.Store(nil) },
		tenant.IdentityUnavailable: func(m *mesh) { m.self.Remove() },
	} {
		each(t, "P6 gone since: "+string(want), func(t *testing.T, shape shape) {
			m := newMesh(t)
			g, cc := m.client("gateway")
			m.ran.setHook(func(ctx context.Context) error {
				gone(m)
				_, err := tenant.Require(ctx)
				return err
			})
			if err := shape.call(acme(t, g), cc); reason(err) != want || status.Code(err) != codes.Unavailable {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
	each(t, "I5 an identity that is gone after header time", func(t *testing.T, shape shape) {
		m := newMesh(t)
		m.addr = m.serveAround(
			grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
				m.self.Remove()
				return next(ctx, req)
			}),
			grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
				m.self.Remove()
				return next(srv, ss)
			}))
		m.refused(shape.call(deadline(t), m.attack(m.svid("gateway"), m.honest("gateway"))), tenant.IdentityUnavailable)
	})
	each(t, "P2 a policy that no longer allows it", func(t *testing.T, shape shape) {
		m := newMesh(t)
		g, cc := m.client("gateway")
		m.ran.setHook(func(ctx context.Context) error {
			m.policy.p.Store(parsePolicy(t, strings.Replace(document, `tenants: ["*"]`, "tenants: [globex]", 1)))
			return tenant.Owns(ctx, claims("acme").Tenant)
		})
		if err := shape.call(acme(t, g), cc); reason(err) != tenant.TenantNotBound {
			t.Errorf("got %v", err)
		}
	})
	each(t, "H5 a bundle that is gone", func(t *testing.T, shape shape) {
		m := newMesh(t)
		g, cc := m.client("gateway")
		m.ran.setHook(func(ctx context.Context) error {
			if err := m.domain.RotateRoot(); err != nil {
				return err
			}
			m.domain.DropOldRoots()
			_, err := tenant.Require(ctx)
			return err
		})
		if err := shape.call(acme(t, g), cc); reason(err) != tenant.SVIDUntrusted {
			t.Errorf("got %v", err)
		}
	})
	t.Run("S2 claims expire on a stream", func(t *testing.T) {
		m := newMesh(t)
		g, cc := m.client("gateway")
		s, err := grpc_testing.NewTestServiceClient(cc).FullDuplexCall(acme(t, g))
		if err != nil {
			t.Fatal(err)
		}
		say := func() error {
			if err := s.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil {
				return err
			}
			_, err := s.Recv()
			return err
		}
		if err := say(); err != nil {
			t.Fatal(err)
		}
		m.clock.advance(10 * time.Minute)
		if err := say(); reason(err) != tenant.ContextExpired {
			t.Errorf("got %v", err)
		}
	})
}

// TestOwns: a record of another tenant looks like none.
func TestOwns(t *testing.T) {
	m := newMesh(t)
	g, cc := m.client("gateway")
	m.ran.setHook(func(ctx context.Context) error { return tenant.Owns(ctx, claims("globex").Tenant) })
	m.each("D4 a record of another tenant", func(m *mesh, s shape) {
		st := status.Convert(s.call(acme(m.t, g), cc))
		if st.Code() != codes.NotFound || st.Message() != "not found" || len(st.Details()) != 0 {
			m.t.Errorf("got %v %v", st, st.Details())
		}
		if events := m.audit.take(); len(events) != 2 || events[1].Reason != tenant.TenantMismatch {
			m.t.Errorf("audit: %+v", events)
		}
	})
}

// TestCopiedMetadata: a handler that copies what it received to what it sends
// forwards no proof.
func TestCopiedMetadata(t *testing.T) {
	m := newMesh(t)
	self := m.dial(m.guard.DialOptions(svid.Expect(id("target")))...)
	g, cc := m.client("gateway")
	m.each("M3 copied metadata", func(m *mesh, s shape) {
		depth := 0
		m.ran.setHook(func(ctx context.Context) error {
			if depth++; depth > 1 {
				return nil
			}
			md, _ := metadata.FromIncomingContext(ctx)
			md.Delete("content-type") // reserved in gRPC
			return s.call(metadata.NewOutgoingContext(ctx, md), self)
		})
		if err := s.call(acme(m.t, g), cc); err != nil {
			m.t.Error(err)
		}
		if events := m.audit.take(); len(events) != 2 || len(events[1].Path) != 2 {
			m.t.Errorf("audit: %+v", events)
		}
	})
}

// TestNoTenantToForward: a context without a tenant never picks one up.
func TestNoTenantToForward(t *testing.T) {
	m := newMesh(t)
	_, cc := m.client("orders")
	m.each("no tenant", func(m *mesh, s shape) { m.notLeft(s.call(deadline(m.t), cc), tenant.ContextMissing) })
}

// TestCallNotAllowed: the workload's own calls are checked before a call leaves.
func TestCallNotAllowed(t *testing.T) {
	m := newMesh(t)
	m.policy.p.Store(parsePolicy(t, strings.Replace(document, "calls: [/grpc.testing.TestService/*]", "calls: [/other.Service/*]", 1)))
	g, cc := m.client("gateway")
	ctx := acme(t, g)
	m.each("H4 a call that is not the workload's", func(m *mesh, s shape) {
		m.notLeft(s.call(ctx, cc), tenant.CallNotAllowed)
	})
}

// TestRotation: both ends' SVIDs rotate while calls run, and none is lost.
func TestRotation(t *testing.T) { t.Run("I5 rotation loses no call", testRotation) }

func testRotation(t *testing.T) {
	m := newMesh(t)
	gateway, orders := m.workload("gateway"), m.workload("orders")
	g := m.newGuard(gateway, newTrail(), time.Now)
	// Connections that end all the time, so that new SVIDs come into use.
	server, err := interceptors.New(interceptors.Config{
		Source: orders, Policy: m.policy, Audit: newTrail(), MaxConnectionAge: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	log := new(handlerLog)
	_, addr := m.serveOther(server, log)
	cc := m.dialTo(addr, g.DialOptions(svid.Expect(id("orders")))...)

	const calls = 60
	var wg sync.WaitGroup
	for _, shape := range shapes {
		wg.Go(func() {
			for i := range calls {
				if i%10 == 0 {
					if err := errors.Join(gateway.Rotate(), orders.Rotate()); err != nil {
						t.Error(err)
					}
				}
				if err := shape.call(acme(t, g), cc); err != nil {
					t.Errorf("%s: %v", shape.name, err)
				}
			}
		})
	}
	wg.Wait()
	if got := len(log.take()); got != calls*len(shapes) {
		t.Errorf("%d of %d calls ran", got, calls*len(shapes))
	}
}

// TestMiddleware: go-grpc-middleware's recovery and logging go around the
// guard, and the tenant's fields appear in the log.
func TestMiddleware(t *testing.T) {
	var lines safeBuffer
	logger := slog.New(slog.NewJSONHandler(&lines, nil))
	log := logging.LoggerFunc(func(ctx context.Context, level logging.Level, msg string, fields ...any) {
		logger.Log(ctx, slog.Level(level), msg, fields...)
	})
	recovered := recovery.WithRecoveryHandler(func(any) error { return status.Error(codes.Internal, "recovered") })
	m := newMesh(t)
	m.addr = m.serveAround(
		grpc.ChainUnaryInterceptor(recovery.UnaryServerInterceptor(recovered), logging.UnaryServerInterceptor(log)),
		grpc.ChainStreamInterceptor(recovery.StreamServerInterceptor(recovered), logging.StreamServerInterceptor(log)),
	)
	g, cc := m.client("gateway")
	for _, shape := range shapes {
		m.ran.setHook(func(ctx context.Context) error {
			logger.InfoContext(ctx, "in the handler", logging.ExtractFields(ctx)...)
			return nil
		})
		if err := shape.call(acme(t, g), cc); err != nil {
			t.Fatal(err)
		}
		m.ran.setHook(func(context.Context) error { panic("a handler's own fault") })
		if err := shape.call(acme(t, g), cc); status.Code(err) != codes.Internal {
			t.Errorf("%s: recovery answers %v", shape.name, err)
		}
	}
	m.server.Stop()
	for _, msg := range []string{"in the handler", "finished call"} {
		found := false
		for _, line := range strings.Split(lines.String(), "\n") {
			if strings.Contains(line, `"msg":"`+msg+`"`) {
				found = true
				if !strings.Contains(line, `"tenant.id":"acme"`) || !strings.Contains(line, `"tenant.txn":"txn-1"`) ||
					!strings.Contains(line, `"peer.spiffe_id":"`+id("gateway")+`"`) {
					t.Errorf("no tenant fields in %s", line)
				}
			}
		}
		if !found {
			t.Errorf("no line %q in the log", msg)
		}
	}
}

// serveAround serves with options before the guard's.
func (m *mesh) serveAround(before ...grpc.ServerOption) string {
	srv, addr := m.serve(append(before, m.guard.ServerOptions()...)...)
	m.server = srv
	return addr
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestConfig(t *testing.T) {
	m := newMesh(t)
	good := interceptors.Config{Source: m.workload("gateway"), Policy: m.policy, Audit: newTrail()}
	for want, spoil := range map[string]func(*interceptors.Config){
		"Config.Source":           func(c *interceptors.Config) { c.Source = nil },
		"Config.Policy":           func(c *interceptors.Config) { c.Policy = nil },
		"Config.Audit":            func(c *interceptors.Config) { c.Audit = nil },
		"Config.MaxConnectionAge": func(c *interceptors.Config) { c.MaxConnectionAge = -1 },
		"Config.MaxBatch":         func(c *interceptors.Config) { c.MaxBatch = -1 },
		"MaxBatch is not within":  func(c *interceptors.Config) { c.MaxBatch = hop.MaxTree + 1 },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := interceptors.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error about %s", err, want)
		}
	}
	if _, err := interceptors.New(good); err != nil {
		t.Error(err)
	}
}

// TestReasonTable: SPEC.md and the code have the same reasons with the same
// codes, and every reason of package tenant has one.
func TestReasonTable(t *testing.T) {
	spec, err := os.ReadFile("../SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	inSpec := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| ([A-Z_]+) \\|").FindAllStringSubmatch(string(spec), -1) {
		inSpec[row[1]] = row[2]
	}
	source, err := os.ReadFile("../tenant/reason.go")
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`Reason = "([A-Z_]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(declared) < 50 || len(inSpec) != len(declared) {
		t.Errorf("%d reasons are declared, %d stand in SPEC.md", len(declared), len(inSpec))
	}
	for _, d := range declared {
		err := interceptors.Status(&tenant.Error{Reason: tenant.Reason(d[1]), Hop: -1})
		code := status.Code(err)
		if want := inSpec[d[1]]; want != names[code] {
			t.Errorf("%s: SPEC.md has %q, the code %s", d[1], want, names[code])
		}
		if code == codes.NotFound {
			if st := status.Convert(err); st.Message() != "not found" || len(st.Details()) != 0 {
				t.Errorf("D4 %s shows: %v %v", d[1], st, st.Details())
			}
		} else if interceptors.ReasonOf(err) != tenant.Reason(d[1]) {
			t.Errorf("%s does not survive as a status: %v", d[1], err)
		}
	}
	if err := interceptors.Status(errors.New("other")); status.Code(err) != codes.Unknown {
		t.Errorf("an error that is not the kit's became %v", err)
	}
	if got := status.Code(interceptors.Status(&tenant.Error{Reason: "NO_SUCH"})); got != codes.Internal {
		t.Errorf("an unknown reason became %v", got)
	}
}

var names = map[codes.Code]string{
	codes.Unauthenticated: "UNAUTHENTICATED", codes.PermissionDenied: "PERMISSION_DENIED", codes.InvalidArgument: "INVALID_ARGUMENT",
	codes.Unavailable: "UNAVAILABLE", codes.NotFound: "NOT_FOUND", codes.Internal: "INTERNAL",
}
