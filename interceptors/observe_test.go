package interceptors_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	shoppb "github.com/tenantmesh/tenantmesh/internal/testproto/shop/v1"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestObserve: denials of named methods are recorded and not enforced, until the date.
func TestObserve(t *testing.T) {
	observe := func(methods ...string) func(*interceptors.Config) {
		return func(cfg *interceptors.Config) {
			cfg.Observe = &interceptors.Observe{Methods: methods, Until: time.Now().Add(time.Hour)}
		}
	}
	s := newShop(t, observe(shoppb.ShopService_GetOrder_FullMethodName, "/shop.v1.ShopService/ListOrders"))
	if !strings.Contains(s.logged.String(), "NOT enforced") {
		t.Errorf("it is not loud: %s", s.logged)
	}
	ctx := deadline(t)
	good := &shoppb.GetOrderResponse{Order: &shoppb.Order{Name: ours}}
	in := &shoppb.GetOrderRequest{Name: ours}
	// stranger is a workload that policy lets call nothing.
	stranger := shoppb.NewShopServiceClient(s.attack(s.issue("target"), nil))

	// observed asserts one event: a denial that was not enforced.
	observed := func(t *testing.T, want tenant.Reason) {
		t.Helper()
		e := s.audit.take()
		if len(e) != 1 || e[0].Allowed || e[0].Reason != want || !e[0].Observe {
			t.Errorf("audit: %+v, want %s, observed", e, want)
		}
	}
	t.Run("no context", func(t *testing.T) {
		s.answer(good)
		if _, err := shoppb.NewShopServiceClient(s.attack(s.svid("gateway"), nil)).GetOrder(ctx, in); err != nil {
			t.Fatal(err)
		}
		observed(t, tenant.ContextMissing)
	})
	t.Run("a caller that may not call", func(t *testing.T) {
		s.answer(good)
		if _, err := stranger.GetOrder(ctx, in); err != nil {
			t.Fatal(err)
		}
		observed(t, tenant.CallerNotAllowed)
	})
	t.Run("no scope, and still with its tenant", func(t *testing.T) {
		s.answer(good)
		if _, err := s.careless(0).GetOrder(ctx, in); err != nil {
			t.Fatal(err)
		}
		observed(t, tenant.ScopeMissing)
	})
	t.Run("a stream", func(t *testing.T) {
		s.answer(&shoppb.ListOrdersResponse{Orders: []*shoppb.Order{{Name: their}}})
		ss, err := shoppb.NewShopServiceClient(s.attack(s.svid("gateway"), nil)).ListOrders(ctx, &shoppb.ListOrdersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if err := drain(ss.Recv); err != nil {
			t.Fatal(err)
		}
		<-s.handled
		observed(t, tenant.ContextMissing)
	})
	t.Run("what is allowed says that it is observed", func(t *testing.T) {
		s.answer(good)
		if _, err := s.careless(0, "orders.read").GetOrder(ctx, in); err != nil {
			t.Fatal(err)
		}
		if e := s.audit.take(); len(e) != 1 || !e[0].Allowed || !e[0].Observe {
			t.Errorf("audit: %+v", e)
		}
	})
	t.Run("metadata that are ambiguous", func(t *testing.T) {
		_, err := s.attackWith("gateway", map[string]string{hop.HopsKey: "a,b"}).GetOrder(ctx, in)
		s.refused(err, tenant.MetadataAmbiguous)
	})
	t.Run("other methods", func(t *testing.T) {
		_, err := stranger.DeleteOrder(ctx, &shoppb.DeleteOrderRequest{})
		s.refused(err, tenant.CallerNotAllowed)
	})
	t.Run("E2 audit is down", func(t *testing.T) {
		s.audit.setFail(errors.New("down"))
		_, err := stranger.GetOrder(ctx, in)
		if interceptors.ReasonOf(err) != tenant.AuditUnavailable {
			t.Errorf("got %v", err)
		}
		s.audit.setFail(nil)
	})
	t.Run("P6 no policy", func(t *testing.T) {
		p := s.policy.Current()
		s.policy.p.Store(nil)
		defer s.policy.p.Store(p)
		_, err := stranger.GetOrder(ctx, in)
		s.refused(err, tenant.PolicyUnavailable)
	})
	t.Run("P6 another authorizer that is down", func(t *testing.T) {
		s := &shop{mesh: s.mesh}
		s.restart(observe(shoppb.ShopService_GetOrder_FullMethodName), func(cfg *interceptors.Config) {
			cfg.Authorizer = authorizer(func(context.Context, *policy.Call) error { return tenant.Deny(tenant.PolicyUnavailable, "down") })
		})
		_, err := s.careless(0, "orders.read").GetOrder(ctx, in)
		s.refused(err, tenant.PolicyUnavailable)
	})
	t.Run("after the date", func(t *testing.T) {
		s := &shop{mesh: s.mesh}
		s.restart(func(cfg *interceptors.Config) {
			cfg.Observe = &interceptors.Observe{Methods: []string{shoppb.ShopService_GetOrder_FullMethodName}, Until: time.Now().Add(20 * time.Second)}
		})
		s.clock.advance(21 * time.Second)
		_, err := s.careless(0).GetOrder(ctx, in)
		s.refused(err, tenant.ScopeMissing)
	})
	t.Run("a message for another tenant", func(t *testing.T) {
		s.audit.take()
		s.answer(&shoppb.GetOrderResponse{Order: &shoppb.Order{Name: their}})
		if _, err := s.careless(3, "orders.read").GetOrder(ctx, in); err != nil {
			t.Fatal(err)
		}
		e := s.audit.take()
		if len(e) != 2 || !e[0].Allowed || e[1].Reason != tenant.TenantMismatch || !e[1].Observe || !e[1].Alarm || e[1].Field != "order.name" {
			t.Errorf("audit: %+v", e)
		}
	})
	t.Run("a client", func(t *testing.T) {
		sink := newTrail()
		cfg := s.config(attacktest.Identity(s.svid("gateway"), s.bundles()), sink, time.Now)
		observe("/shop.v1.ShopService/*")(&cfg)
		cc := s.dialTo(s.unguarded(), s.guardOf(cfg).DialOptions(svid.Expect(id("target")))...)
		s.answer(good)
		if _, err := shoppb.NewShopServiceClient(cc).GetOrder(ctx, in); err != nil {
			t.Fatal(err)
		}
		if e := sink.take(); len(e) != 1 || e[0].Reason != tenant.ContextMissing || !e[0].Observe {
			t.Errorf("audit: %+v", e)
		}
	})
}

// attackWith returns a client that sends the same metadata with each call.
func (s *shop) attackWith(name string, md map[string]string) shoppb.ShopServiceClient {
	return shoppb.NewShopServiceClient(s.attack(s.svid(name), func([32]byte, string) (map[string]string, error) { return md, nil }))
}

func TestObserveConfig(t *testing.T) {
	s := newShop(t)
	later := time.Now().Add(time.Hour)
	for want, o := range map[string]*interceptors.Observe{
		"Until is missing":   {Methods: []string{"/a.B/C"}},
		"Methods is empty":   {Until: later},
		`"*" is no method`:   {Methods: []string{"*"}, Until: later},
		`"/*" is no method`:  {Methods: []string{"/*"}, Until: later},
		`"a.B/C" is no meth`: {Methods: []string{"a.B/C"}, Until: later},
	} {
		cfg := s.config(s.self, s.audit, time.Now)
		cfg.Observe = o
		if _, err := interceptors.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// authorizer is another who decides.
type authorizer func(context.Context, *policy.Call) error

func (a authorizer) Authorize(ctx context.Context, c *policy.Call) error { return a(ctx, c) }

func TestAuthorizer(t *testing.T) {
	var mu sync.Mutex
	var says error
	var asked []policy.Call
	s := newShop(t, func(cfg *interceptors.Config) {
		cfg.Authorizer = authorizer(func(_ context.Context, c *policy.Call) error {
			mu.Lock()
			defer mu.Unlock()
			told := *c
			told.Claims = c.Claims.Clone()
			asked = append(asked, told)
			c.Claims.Tenant, c.Scopes = attacktest.Must(tenant.ParseID("globex")), nil // which it must not
			return says
		})
	})
	ctx := deadline(t)
	call := func(err error, scopes ...string) error {
		mu.Lock()
		says, asked = err, nil
		mu.Unlock()
		s.answer(&shoppb.GetOrderResponse{Order: &shoppb.Order{Name: ours}})
		_, err = s.careless(0, scopes...).GetOrder(ctx, &shoppb.GetOrderRequest{Name: ours})
		return err
	}
	if err := call(nil, "orders.read"); err != nil {
		t.Fatal(err)
	}
	if len(asked) != 1 || asked[0].Method != shoppb.ShopService_GetOrder_FullMethodName || asked[0].Claims.Tenant.String() != "acme" ||
		len(asked[0].Path) != 1 || asked[0].Time.IsZero() {
		t.Errorf("asked %+v", asked)
	}
	for _, e := range s.audit.take() {
		if e.Tenant != "acme" {
			t.Errorf("what the authorizer did to its copy reached the audit trail: %+v", e)
		}
	}
	s.refused(call(errors.New("no"), "orders.read"), tenant.AuthorizerDenied)
	s.refused(call(tenant.Deny(tenant.ScopeMissing, "its own"), "orders.read"), tenant.ScopeMissing)
	s.refused(call(nil), tenant.ScopeMissing)
	if len(asked) > 0 {
		t.Error("it is asked about what the policy denies")
	}
}

// anewDocument lets the target originate anew from chains of prod.example.
var anewDocument = strings.Replace(document, "  - name: target\n    match: spiffe://prod.example/target\n    tenants: [\"*\"]\n",
	"  - name: target\n    match: spiffe://prod.example/target\n    tenants: [\"*\"]\n"+
		"    originate: {scopes: [\"orders.*\"], classification: 2, from: [prod.example]}\n", 1)

// TestOriginateAnew: a workload at a boundary derives a chain from the one that
// it was handed, if policy lets it, and never beyond it.
func TestOriginateAnew(t *testing.T) {
	anew := func(change ...func(*hop.Claims)) *hop.Claims {
		c := claims("acme")
		c.Issuer, c.Transaction, c.Expires = "", "txn-2", time.Time{}
		for _, f := range change {
			f(c)
		}
		return c
	}
	for _, tt := range []struct {
		name, doc string
		claims    *hop.Claims
		want      tenant.Reason
	}{
		{"derived", anewDocument, anew(), ""},
		{"fewer scopes", anewDocument, anew(func(c *hop.Claims) { c.Scopes = nil }), ""},
		{"T9 no rule", strings.Replace(anewDocument, ", from: [prod.example]", "", 1), anew(), tenant.OriginationNotAllowed},
		{"T9 another domain's chains", strings.Replace(anewDocument, "from: [prod.example]", "from: [partner.example]", 1), anew(), tenant.OriginationNotAllowed},
		{"T9 another tenant", anewDocument, anew(func(c *hop.Claims) { *c = *claims("globex"); c.Issuer = "" }), tenant.OriginationNotAllowed},
		{"D10 another uid", anewDocument, anew(func(c *hop.Claims) { c.TenantUID = "x" }), tenant.OriginationNotAllowed},
		{"H3 a scope more", anewDocument, anew(func(c *hop.Claims) { c.Scopes = append(c.Scopes, "orders.write") }), tenant.ScopeWidened},
		{"H3 a higher classification", anewDocument, anew(func(c *hop.Claims) { c.Classification = 2 }), tenant.ClassificationNotAllowed},
		{"T9 no claims", anewDocument, nil, tenant.ContextMissing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMesh(t)
			m.policy.p.Store(parsePolicy(t, tt.doc))
			g, cc := m.client("gateway")
			var tc tenant.Context
			var got error
			m.ran.setHook(func(ctx context.Context) error {
				var out context.Context
				if out, got = m.guard.OriginateAnew(ctx, tt.claims); got == nil {
					tc, got = tenant.Require(out)
				}
				return nil
			})
			if err := shapes[0].call(acme(t, g), cc); err != nil {
				t.Fatal(err)
			}
			if tenant.ReasonOf(got) != tt.want || (got == nil) != (tt.want == "") {
				t.Fatalf("got %v, want %s", got, tt.want)
			}
			if tt.want != "" {
				if e := m.audit.take(); len(e) != 2 || e[1].Reason != tt.want {
					t.Errorf("audit: %+v", e)
				}
				return
			}
			if tc.Transaction() != "txn-2" || tc.Tenant().String() != "acme" || time.Until(tc.Expires()) > 4*time.Minute {
				t.Errorf("%v until %s", tc, tc.Expires())
			}
		})
	}
	t.Run("T9 from nothing", func(t *testing.T) {
		m := newMesh(t)
		m.policy.p.Store(parsePolicy(t, anewDocument))
		if _, err := m.guard.OriginateAnew(t.Context(), anew()); tenant.ReasonOf(err) != tenant.ContextMissing {
			t.Errorf("got %v", err)
		}
	})
	t.Run("T9 from what was just originated", func(t *testing.T) {
		m := newMesh(t)
		m.policy.p.Store(parsePolicy(t, anewDocument))
		ctx, err := m.guard.Originate(t.Context(), anew())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.guard.OriginateAnew(ctx, anew()); tenant.ReasonOf(err) != tenant.ContextPresent {
			t.Errorf("got %v", err)
		}
	})
	t.Run("it goes with its parent", func(t *testing.T) {
		m := newMesh(t)
		m.policy.p.Store(parsePolicy(t, anewDocument))
		g, cc := m.client("gateway")
		m.ran.setHook(func(ctx context.Context) error {
			out, err := m.guard.OriginateAnew(ctx, anew())
			if err != nil {
				return err
			}
			// The parent's first workload may act for the tenant no longer.
			m.policy.p.Store(parsePolicy(t, strings.Replace(anewDocument, "match: spiffe://prod.example/gateway\n    tenants: [\"*\"]", "match: spiffe://prod.example/gateway\n    tenants: [globex]", 1)))
			if _, err := tenant.Require(out); tenant.ReasonOf(err) != tenant.TenantNotBound {
				t.Errorf("P2 got %v", err)
			}
			return nil
		})
		if err := shapes[0].call(acme(t, g), cc); interceptors.ReasonOf(err) != tenant.TenantNotBound {
			t.Errorf("got %v", err)
		}
	})
	t.Run("it is a chain whose parent shows", func(t *testing.T) {
		m := newMesh(t)
		m.policy.p.Store(parsePolicy(t, anewDocument))
		g, cc := m.client("gateway")
		second := m.anew()
		m.ran.setHook(func(ctx context.Context) error {
			if tc, _ := tenant.FromContext(ctx); tc.Transaction() == "txn-2" {
				if p := tc.Path(); len(p) != 1 || p[0].Workload.String() != id("target") {
					t.Errorf("the path is %v", p)
				}
				return nil
			}
			out, err := m.guard.OriginateAnew(ctx, anew())
			if err != nil {
				return err
			}
			return shapes[0].call(out, m.dialTo(second.addr, m.guard.DialOptions(svid.Expect(id("target")))...))
		})
		if err := shapes[0].call(acme(t, g), cc); err != nil {
			t.Fatal(err)
		}
		if runs := m.ran.take(); len(runs) != 2 {
			t.Errorf("the handlers ran for %q", runs)
		}
	})
}

// TestReload is P2: after a policy is acknowledged to be in force, nothing is
// allowed by the one before it, though calls are decided all the while and
// recording one takes time.
func TestReload(t *testing.T) {
	m := newMesh(t)
	g, cc := m.client("gateway")
	ctx := acme(t, g)
	with, without := parsePolicy(t, document), parsePolicy(t, strings.Replace(document, "orders.read]", "orders.other]", -1))
	var mu sync.Mutex
	var allowed bool // by the policy that was acknowledged last
	var epoch int
	m.ran.setHook(func(context.Context) error { return nil })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				began, before := epoch, allowed
				mu.Unlock()
				err := shapes[0].call(ctx, cc)
				mu.Lock()
				same := began == epoch
				mu.Unlock()
				if same && (err == nil) != before {
					t.Errorf("P2 allowed by the policy in force: %t, and the call: %v", before, err)
				}
			}
		})
	}
	for i := range 40 {
		p := with
		if i%2 == 0 {
			p = without
		}
		// Between the two, both answers are right.
		mu.Lock()
		epoch++
		mu.Unlock()
		m.policy.p.Store(p)
		mu.Lock()
		epoch++
		allowed = p == with
		mu.Unlock()
		for range 10 { // calls that began after it was acknowledged
			if err := shapes[0].call(ctx, cc); (err == nil) != (p == with) {
				t.Errorf("P2 after %d reloads: %v", i, err)
			}
		}
	}
	close(stop)
	wg.Wait()
}

// TestReloadWhileRecording is P2: a policy that comes while the decision is
// being recorded counts.
func TestReloadWhileRecording(t *testing.T) {
	m := newMesh(t)
	each(t, "P2 a policy that comes while the decision is recorded", func(t *testing.T, s shape) {
		m.t = t
		m.policy.p.Store(parsePolicy(t, document))
		g, cc := m.client("gateway")
		ctx := acme(t, g)
		m.audit.once(func() {
			m.policy.p.Store(parsePolicy(t, strings.Replace(document, "orders.read]", "orders.other]", -1)))
		})
		err := s.call(ctx, cc)
		if interceptors.ReasonOf(err) != tenant.ScopeMissing {
			t.Errorf("got %v", err)
		}
		m.notRun()
		m.audit.take()
	})
}

func BenchmarkFields(b *testing.B) {
	b.Run("fields=50", func(b *testing.B) {
		m := &shoppb.Wide{TenantId: "acme", Secret: "s", F4: 7, F6: "text"}
		check, err := interceptors.NewMessageCheck(m, "acme", 1)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if err := check(m); err != nil {
				b.Fatal(err)
			}
		}
	})
}
