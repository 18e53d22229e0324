package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/tenant"
)

const (
	acmeUID   = "01J9ZK3V5Q8W7RBNXH2C4D6E8F"
	globexUID = "01JA2M4N6P8R0T2V4X6Z8B0D2F"
)

// meshDoc is the design's document with more in it; lines are referred to by
// the tests. Its entries are a list so that they can be permuted.
var (
	meshDomains = []string{`
  - name: prod.example
`, `
  - name: partner.example
    tenants: [acme]
`, `
  - name: mute.example
    tenants: []
`}
	meshWorkloads = []string{`
  - name: gateway
    match: spiffe://prod.example/gateway
    tenants: ["*"]
    originate:
      issuers: ["https://login.example", "https://other.example"]
      scopes: ["orders.*", "admin.**"]
      subjects: ["user:*", svc]
      classification: 2
      max_ttl: 10m
    calls: [/orders.v1.Orders/*, /inventory.v1.Inventory/Get]
`, `
  - name: tenant-runner
    match: spiffe://prod.example/tenant/{tenant}/runner/*
    tenants: ["{tenant}"]
    originate: {scopes: [orders.read]}
    calls: [/orders.v1.Orders/List, /orders.v1.Orders/Export]
`, `
  - name: orders
    match: spiffe://prod.example/orders
    tenants: ["*"]
    calls: [/inventory.v1.Inventory/*]
`, `
  - name: pay
    match: spiffe://prod.example/service/pay
    tenants: [acme]
    originate: {}
    calls: [/orders.v1.Orders/List]
`, `
  - name: partner
    match: spiffe://partner.example/**
    tenants: ["*"]
    originate: {scopes: ["**"]}
    calls: [/orders.v1.Orders/*]
`, `
  - name: mute
    match: spiffe://mute.example/a
    tenants: ["*"]
    originate: {}
    calls: [/orders.v1.Orders/*]
`, `
  - name: unbound
    match: spiffe://prod.example/unbound
    originate: {}
    calls: [/orders.v1.Orders/*]
`, `
  - name: boundary
    match: spiffe://prod.example/boundary
    tenants: ["set:gold", "set:pilot"]
    originate: {scopes: [orders.read], classification: 1, from: [partner.example, mute.example]}
    calls: [/orders.v1.Orders/*]
    publishes: [orders.*, audit.**, "*"]
    consumes: [orders.new, orders.*.done]
`, `
  - name: quarantine
    match: spiffe://prod.example/tenant/*/runner/old-*
    deny: true
`, `
  - name: quarantine-too
    match: spiffe://prod.example/tenant/*/runner/*-old
    deny: true
`}
	meshMethods = []string{`
  - match: /grpc.health.v1.Health/*
    exempt: true
`, `
  - match: /orders.v1.Orders/*
    callers: [gateway, tenant-runner, pay, partner, mute, unbound, boundary]
`, `
  - match: /orders.v1.Orders/Export
    scopes: [orders.export]
`, `
  - match: /orders.v1.Orders/Export
    scopes: [orders.read]
    callers: [gateway, pay]
`, `
  - match: /orders.v1.Orders/Nobody
    callers: []
`, `
  - match: /inventory.v1.Inventory/*
    callers: [orders]
`, `
  - match: /lonely.v1.Lonely/*
`, `
  - match: /orders.v1.Orders/Secret
    classification: 2
`, `
  - match: /orders.v1.Orders/Secret
    classification: 1
`, `
  - match: /orders.v1.Orders/Late
    when: claims.sub.startsWith("user:")
`, `
  - match: /orders.v1.Orders/Late
    when: tenant.tier == "gold"
`}
	meshSets = []string{`
  gold: {tier: gold}
`, `
  pilot: ["00"]
`}
	meshTenants = []string{`
  acme: {uid: ` + acmeUID + `, tier: gold, region: eu, classification: 3}
`, `
  globex: {uid: ` + globexUID + `}
`, `
  "00": {uid: zero}
`}
)

func meshDoc(order func([]string) []string) string {
	sections := []string{
		"version: 1\n",
		"trust_domains:" + strings.Join(order(meshDomains), ""),
		"workloads:" + strings.Join(order(meshWorkloads), ""),
		"methods:" + strings.Join(order(meshMethods), ""),
		"tenant_sets:" + strings.Join(order(meshSets), ""),
		"tenants:" + strings.Join(order(meshTenants), ""),
	}
	return strings.Join(order(sections), "")
}

func asWritten(s []string) []string { return s }

func mesh(t testing.TB) *Policy {
	t.Helper()
	p, err := Parse("mesh.yaml", []byte(meshDoc(asWritten)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustTenant(s string) tenant.ID {
	id, err := tenant.ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

var now = time.Unix(1_800_000_000, 0)

// claims are what the gateway of meshDoc may originate.
func claims(change ...func(*hop.Claims)) *hop.Claims {
	c := &hop.Claims{
		Transaction: "t1", Tenant: mustTenant("acme"), TenantUID: acmeUID,
		Subject: "user:ann", Issuer: "https://login.example", Scopes: []string{"orders.read"},
		Classification: 2, IssuedAt: now, Expires: now.Add(5 * time.Minute),
	}
	for _, f := range change {
		f(c)
	}
	return c
}

// own makes the claims such that no external issuer stands behind them.
func own(c *hop.Claims) { c.Issuer, c.Classification = "", 0 }

func none(c *hop.Claims) { own(c); c.Scopes = nil }

func globex(c *hop.Claims) { c.Tenant, c.TenantUID = mustTenant("globex"), globexUID }

func zeros(c *hop.Claims) { c.Tenant, c.TenantUID = mustTenant("00"), "zero" }

func ids(paths ...string) []spiffeid.ID {
	var out []spiffeid.ID
	for _, p := range paths {
		if !strings.Contains(p, "://") {
			p = "spiffe://prod.example/" + p
		}
		out = append(out, spiffeid.RequireFromString(p))
	}
	return out
}

const (
	listOrders = "/orders.v1.Orders/List"
	export     = "/orders.v1.Orders/Export"
	secret     = "/orders.v1.Orders/Secret"
	late       = "/orders.v1.Orders/Late"
	get        = "/inventory.v1.Inventory/Get"
	health     = "/grpc.health.v1.Health/Check"
)

type authorizeCase struct {
	name   string
	method string
	path   []spiffeid.ID
	claims *hop.Claims
	scopes []string // nil: those of the claims
	want   tenant.Reason
	hop    int
	rule   string // start of the entry that decided; "" if none does
}

func (tt *authorizeCase) call() Call {
	return callOf(tt.method, tt.path, tt.claims, tt.scopes)
}

// callOf is a call by the given signers, with the scopes of the claims unless
// there are others.
func callOf(method string, path []spiffeid.ID, claims *hop.Claims, scopes []string) Call {
	c := Call{Method: method, Claims: claims, Scopes: scopes, Time: now}
	for _, id := range path {
		c.Path = append(c.Path, hop.Step{Signer: id, Kind: hop.Call, Target: method})
	}
	if c.Scopes == nil && c.Claims != nil {
		c.Scopes = c.Claims.Scopes
	}
	return c
}

// decide returns what the policy says of a call.
func decide(p *Policy, c Call) (Decision, error) {
	d := p.Decide(&c)
	return d, d.Err()
}

var authorizeCases = []authorizeCase{
	{name: "one hop", method: listOrders, path: ids("gateway"), claims: claims()},
	{name: "two hops", method: get, path: ids("gateway", "orders"), claims: claims()},
	{name: "tenant in the SVID", method: listOrders, path: ids("tenant/acme/runner/1"), claims: claims(own)},
	{name: "tenant of digits", method: listOrders, path: ids("tenant/00/runner/1"),
		claims: claims(own, zeros)},
	{name: "federated within its tenants", method: listOrders, path: ids("spiffe://partner.example/x/y"), claims: claims(own)},
	{name: "required scopes held", method: export, path: ids("gateway"),
		claims: claims(func(c *hop.Claims) { c.Scopes = []string{"orders.export", "orders.read"} })},

	{name: "in a tenant set by its tier", method: listOrders, path: ids("boundary"), claims: claims(own)},
	{name: "in a tenant set by its name", method: listOrders, path: ids("boundary"), claims: claims(own, zeros)},
	{name: "the highest classification of the rules", method: secret, path: ids("gateway"), claims: claims()},
	{name: "conditions of two rules", method: late, path: ids("gateway"), claims: claims()},
	{name: "originated anew", method: listOrders, path: ids("boundary"), claims: claims(own, func(c *hop.Claims) { c.Parent = &hop.Parent{Transaction: "t0"} })},

	{name: "no path", method: listOrders, claims: claims(), want: tenant.ContextMissing, hop: -1},
	{name: "no claims", method: listOrders, path: ids("gateway"), want: tenant.ContextMissing, hop: -1},
	{name: "M4 a dash for a method", method: "-", path: ids("gateway"), claims: claims(), want: tenant.MethodNotCovered, hop: -1},
	{name: "method without a rule", method: "/orders.v2.Orders/List", path: ids("gateway"), claims: claims(), want: tenant.MethodNotCovered, hop: -1},
	{name: "too many signers", method: get, path: ids("gateway", "orders", "orders", "orders", "orders", "orders", "orders"), claims: claims(), want: tenant.ChainTooLong, hop: -1},

	// The path.
	{name: "H4 the peer may not call", method: listOrders, path: ids("gateway", "orders"), claims: claims(), want: tenant.CallerNotAllowed, hop: 1, rule: "- match: /orders.v1.Orders/*"},
	{name: "H4 a workload on the path is unknown", method: get, path: ids("gateway", "stranger", "orders"), claims: claims(), want: tenant.WorkloadUnknown, hop: 1},
	{name: "H4 a workload on the path is denied", method: get, path: ids("gateway", "tenant/acme/runner/old-1", "orders"), claims: claims(), want: tenant.WorkloadDenied, hop: 1, rule: "- name: quarantine"},
	{name: "H4 a workload on the path is not bound, the peer is", method: get, path: ids("gateway", "service/pay", "orders"), claims: claims(globex), want: tenant.TenantNotBound, hop: 1, rule: "- name: pay"},
	{name: "H4 a runner of another tenant on the path", method: get, path: ids("gateway", "tenant/globex/runner/1", "orders"), claims: claims(), want: tenant.TenantNotBound, hop: 1, rule: "- name: tenant-runner"},
	{name: "H4 the peer is not bound", method: listOrders, path: ids("gateway", "service/pay"), claims: claims(globex), want: tenant.TenantNotBound, hop: 1, rule: "- name: pay"},
	{name: "H4 absent tenants are none", method: listOrders, path: ids("gateway", "unbound"), claims: claims(), want: tenant.TenantNotBound, hop: 1, rule: "- name: unbound"},
	{name: "H4 a first signer that may only forward", method: get, path: ids("orders"), claims: claims(), want: tenant.OriginationNotAllowed, hop: 0, rule: "- name: orders"},
	{name: "H4 a federated domain outside its tenants", method: listOrders, path: ids("gateway", "spiffe://partner.example/x"), claims: claims(globex), want: tenant.TenantNotBound, hop: 1, rule: "- name: partner.example"},
	{name: "H4 a federated domain outside its tenants originates", method: listOrders, path: ids("spiffe://partner.example/x"), claims: claims(own, globex), want: tenant.TenantNotBound, hop: 0, rule: "- name: partner.example"},
	{name: "H4 a domain with no tenants", method: listOrders, path: ids("gateway", "spiffe://mute.example/a"), claims: claims(), want: tenant.TenantNotBound, hop: 1, rule: "- name: mute.example"},

	{name: "H4 not in a tenant set", method: listOrders, path: ids("gateway", "boundary"), claims: claims(globex), want: tenant.TenantNotBound, hop: 1, rule: "- name: boundary"},

	// Who is who.
	{name: "I3 /service/pay does not match /service/payroll", method: listOrders, path: ids("gateway", "service/payroll"), claims: claims(), want: tenant.WorkloadUnknown, hop: 1},
	{name: "I3 the path alone is not the workload", method: listOrders, path: ids("spiffe://mute.example/gateway"), claims: claims(), want: tenant.WorkloadUnknown, hop: 0},
	{name: "I3 a domain that is not listed", method: listOrders, path: ids("spiffe://evil.example/gateway"), claims: claims(), want: tenant.WorkloadUnknown, hop: 0},
	{name: "I3 no ID", method: listOrders, path: make([]spiffeid.ID, 1), claims: claims(), want: tenant.WorkloadUnknown, hop: 0},
	{name: "I3 an ID without a path", method: listOrders, path: ids("spiffe://partner.example"), claims: claims(), want: tenant.WorkloadUnknown, hop: 0},
	{name: "P4 an SVID whose tenant is no tenant ID", method: listOrders, path: ids("tenant/ACME/runner/1"), claims: claims(own), want: tenant.WorkloadUnknown, hop: 0},

	// The tenant.
	{name: "P4 a tenant that is not listed", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Tenant = mustTenant("initech") }), want: tenant.TenantNotBound, hop: 0},
	{name: "P4 an SVID for a tenant that is not listed", method: listOrders, path: ids("tenant/initech/runner/1"), claims: claims(own, func(c *hop.Claims) { c.Tenant = mustTenant("initech") }), want: tenant.TenantNotBound, hop: 0},
	{name: "P4 no tenant", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Tenant, c.TenantUID = tenant.ID{}, "" }), want: tenant.TenantNotBound, hop: 0},
	{name: "D10 a tenant that was created again", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.TenantUID = globexUID }), want: tenant.TenantReplaced, hop: 0},
	{name: "D10 a tenant without a uid", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.TenantUID = "" }), want: tenant.TenantReplaced, hop: 0},
	{name: "D10 who is not bound does not learn of it", method: listOrders, path: ids("service/pay"), claims: claims(own, globex, func(c *hop.Claims) { c.TenantUID = "x" }), want: tenant.TenantNotBound, hop: 0, rule: "- name: pay"},

	// What the first signer may not originate.
	{name: "T9 tenant", method: listOrders, path: ids("tenant/acme/runner/1"), claims: claims(own, globex), want: tenant.TenantNotBound, hop: 0, rule: "- name: tenant-runner"},
	{name: "T9 scope", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Scopes = []string{"orders.read", "pay.all"} }), want: tenant.ScopeNotAllowed, hop: 0, rule: "- name: gateway"},
	{name: "T9 scope deeper than *", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Scopes = []string{"orders.a.b"} }), want: tenant.ScopeNotAllowed, hop: 0, rule: "- name: gateway"},
	{name: "T9 scope that is a pattern", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Scopes = []string{"orders.*"} }), want: tenant.ScopeNotAllowed, hop: 0, rule: "- name: gateway"},
	{name: "T9 scope that is empty", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Scopes = []string{""} }), want: tenant.ScopeNotAllowed, hop: 0, rule: "- name: gateway"},
	{name: "T9 absent scopes are none", method: listOrders, path: ids("service/pay"), claims: claims(own), want: tenant.ScopeNotAllowed, hop: 0, rule: "- name: pay"},
	{name: "T9 no scope is allowed always", method: listOrders, path: ids("service/pay"), claims: claims(none)},
	{name: "T9 subject", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Subject = "admin:ann" }), want: tenant.SubjectNotAllowed, hop: 0, rule: "- name: gateway"},
	{name: "T9 subject is matched whole", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Subject = "svc2" }), want: tenant.SubjectNotAllowed, hop: 0, rule: "- name: gateway"},
	{name: "T9 no subject", method: listOrders, path: ids("service/pay"), claims: claims(none, func(c *hop.Claims) { c.Subject = "" }), want: tenant.SubjectNotAllowed, hop: 0, rule: "- name: pay"},
	{name: "T9 classification", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Classification = 3 }), want: tenant.ClassificationNotAllowed, hop: 0, rule: "- name: gateway"},
	{name: "T9 absent classification is 0", method: listOrders, path: ids("service/pay"), claims: claims(none, func(c *hop.Claims) { c.Classification = 1 }), want: tenant.ClassificationNotAllowed, hop: 0, rule: "- name: pay"},
	{name: "T9 issuer", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Issuer = "https://login.example/" }), want: tenant.IssuerNotAllowed, hop: 0, rule: "- name: gateway"},
	{name: "T9 no issuer where some are listed", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Issuer = "" }), want: tenant.IssuerNotAllowed, hop: 0, rule: "- name: gateway"},
	{name: "T9 issuer where none is listed", method: listOrders, path: ids("service/pay"), claims: claims(none, func(c *hop.Claims) { c.Issuer = "https://login.example" }), want: tenant.IssuerNotAllowed, hop: 0, rule: "- name: pay"},
	{name: "T9 lifetime at its limit", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Expires = now.Add(10 * time.Minute) })},
	{name: "T9 lifetime", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Expires = now.Add(10*time.Minute + time.Second) }), want: tenant.LifetimeNotAllowed, hop: 0, rule: "- name: gateway"},
	{name: "T9 absent max_ttl is 5m", method: listOrders, path: ids("service/pay"), claims: claims(none, func(c *hop.Claims) { c.Expires = now.Add(5*time.Minute + time.Second) }), want: tenant.LifetimeNotAllowed, hop: 0, rule: "- name: pay"},
	{name: "T9 no lifetime", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Expires = now }), want: tenant.LifetimeNotAllowed, hop: 0, rule: "- name: gateway"},
	{name: "T9 lifetime backwards", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Expires = now.Add(-time.Minute) }), want: tenant.LifetimeNotAllowed, hop: 0, rule: "- name: gateway"},
	{name: "T9 lifetime beyond a Duration", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.IssuedAt, c.Expires = time.Time{}, time.Unix(1<<60, 0) }), want: tenant.LifetimeNotAllowed, hop: 0, rule: "- name: gateway"},
	{name: "T9 parent", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Parent = &hop.Parent{} }), want: tenant.OriginationNotAllowed, hop: 0, rule: "- name: gateway"},
	{name: "E1 elevation", method: listOrders, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Elevation = "e1" }), want: tenant.ElevationNotAllowed, hop: 0},

	// Scopes, classification and conditions.
	{name: "classification below the highest of the rules", method: secret, path: ids("boundary"), claims: claims(own, func(c *hop.Claims) { c.Classification = 1 }), want: tenant.ClassificationNotAllowed, hop: -1, rule: "- match: /orders.v1.Orders/Secret"},
	{name: "the condition of one rule fails", method: late, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Subject = "svc" }), want: tenant.ConditionNotMet, hop: -1, rule: "- match: /orders.v1.Orders/Late"},
	{name: "P5 the condition of the other rule meets an absent attribute", method: late, path: ids("gateway"), claims: claims(globex), want: tenant.ConditionNotMet, hop: -1, rule: "- match: /orders.v1.Orders/Late"},
	{name: "scope missing", method: export, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Scopes = []string{"orders.export"} }), want: tenant.ScopeMissing, hop: -1, rule: "- match: /orders.v1.Orders/Export"},
	{name: "H3 scope narrowed away", method: export, path: ids("gateway"), claims: claims(func(c *hop.Claims) { c.Scopes = []string{"orders.export", "orders.read"} }), scopes: []string{"orders.read"}, want: tenant.ScopeMissing, hop: -1, rule: "- match: /orders.v1.Orders/Export"},
}

func TestDecide(t *testing.T) {
	p := mesh(t)
	for _, tt := range authorizeCases {
		t.Run(tt.name, func(t *testing.T) {
			d, err := decide(p, tt.call())
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if w, r := d.Workloads(), d.Rules(); len(w) != len(tt.path) || len(r) < len(tt.path)+2 || slices.Contains(r, "") {
					t.Errorf("workloads %q, rules %q", w, r)
				}
				return
			}
			wantDenial(t, err, tt.want, tt.hop, tt.rule)
		})
	}
}

// wantDenial checks a denial, and that its rule stands at the line that begins
// with the given words.
func wantDenial(t *testing.T, err error, want tenant.Reason, hop int, rule string) {
	t.Helper()
	var e *tenant.Error
	if !errors.As(err, &e) || e.Reason != want {
		t.Fatalf("got %v, want %s", err, want)
	}
	if e.Hop != hop {
		t.Errorf("at hop %d, want %d (%v)", e.Hop, hop, err)
	}
	if e.Detail == "" {
		t.Error("a denial without detail")
	}
	if (e.Rule == "") != (rule == "") {
		t.Errorf("rule %q, want that of %q", e.Rule, rule)
	}
	if rule == "" {
		return
	}
	var line int
	if _, err := fmt.Sscanf(e.Rule, "mesh.yaml:%d", &line); err != nil {
		t.Fatalf("rule %q: %v", e.Rule, err)
	}
	if got := strings.Split(meshDoc(asWritten), "\n")[line-1]; !strings.HasPrefix(strings.TrimSpace(got), rule) {
		t.Errorf("rule %s is %q, want %q", e.Rule, got, rule)
	}
}

func TestAuthorizationSays(t *testing.T) {
	p, err := LoadFile("testdata/design.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c := claims(func(c *hop.Claims) { c.Classification = 0 })
	d, err := decide(p, callOf(get, ids("gateway", "orders"), c, nil))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := d.Workloads(), []string{"gateway", "orders"}; !slices.Equal(got, want) {
		t.Errorf("workloads %q, want %q", got, want)
	}
	const f = "testdata/design.yaml:"
	if got, want := d.Rules(), []string{f + "7", f + "17", f + "31", f + "20"}; !slices.Equal(got, want) {
		t.Errorf("rules %q, want %q", got, want)
	}
}

// TestDetailsHoldNoClaims plants a canary in each claim (M6).
func TestDetailsHoldNoClaims(t *testing.T) {
	const canary = "canary-7f3a"
	p := mesh(t)
	for name, c := range map[string]*hop.Claims{
		"issuer":    claims(func(c *hop.Claims) { c.Issuer = canary }),
		"subject":   claims(func(c *hop.Claims) { c.Subject = canary }),
		"scope":     claims(func(c *hop.Claims) { c.Scopes = []string{canary} }),
		"uid":       claims(func(c *hop.Claims) { c.TenantUID = canary }),
		"tenant":    claims(func(c *hop.Claims) { c.Tenant = mustTenant(canary) }),
		"elevation": claims(func(c *hop.Claims) { c.Elevation = canary }),
	} {
		_, err := decide(p, callOf(listOrders, ids("gateway"), c, nil))
		if err == nil || strings.Contains(err.Error(), canary) || strings.Contains(fmt.Sprintf("%+v", err), canary) {
			t.Errorf("M6 %s: %v", name, err)
		}
	}
}

type admitCase struct {
	name, method string
	peer         spiffeid.ID
	want         tenant.Reason
	rule         string
	peerName     string
	exempt       bool
}

var admitCases = []admitCase{
	{name: "caller", method: listOrders, peer: ids("gateway")[0], peerName: "gateway"},
	{name: "all rules with callers list it", method: export, peer: ids("gateway")[0], peerName: "gateway"},
	{name: "callers of all rules are needed", method: export, peer: ids("tenant/acme/runner/1")[0], want: tenant.CallerNotAllowed, rule: "- match: /orders.v1.Orders/Export"},
	{name: "its calls do not list it", method: export, peer: ids("service/pay")[0], want: tenant.CallerNotAllowed, rule: "- name: pay"},
	{name: "callers do not list it, its calls do", method: get, peer: ids("gateway")[0], want: tenant.CallerNotAllowed, rule: "- match: /inventory"},
	{name: "empty callers are none", method: "/orders.v1.Orders/Nobody", peer: ids("gateway")[0], want: tenant.CallerNotAllowed, rule: "- match: /orders.v1.Orders/Nobody"},
	{name: "absent callers are none", method: "/lonely.v1.Lonely/Cry", peer: ids("gateway")[0], want: tenant.CallerNotAllowed, rule: "- match: /lonely"},
	{name: "M5 uncovered service", method: "/x.v1.X/Y", peer: ids("gateway")[0], want: tenant.MethodNotCovered},
	{name: "M4 no slash", method: "orders.v1.Orders/List", peer: ids("gateway")[0], want: tenant.MethodNotCovered},
	{name: "M4 two slashes", method: "//orders.v1.Orders/List", peer: ids("gateway")[0], want: tenant.MethodNotCovered},
	{name: "M4 escaped slash", method: "/orders.v1.Orders%2FList", peer: ids("gateway")[0], want: tenant.MethodNotCovered},
	{name: "M4 fragment", method: "/orders.v1.Orders/List#", peer: ids("gateway")[0], want: tenant.MethodNotCovered},
	{name: "M4 query", method: "/orders.v1.Orders/List?", peer: ids("gateway")[0], want: tenant.MethodNotCovered},
	{name: "M4 a pattern is no method", method: "/orders.v1.Orders/*", peer: ids("gateway")[0], want: tenant.MethodNotCovered},
	{name: "M4 a dash", method: "-", peer: ids("gateway")[0], want: tenant.MethodNotCovered},
	{name: "M4 no method", method: "", peer: ids("gateway")[0], want: tenant.MethodNotCovered},
	{name: "I3 unknown workload", method: listOrders, peer: ids("service/payroll")[0], want: tenant.WorkloadUnknown},
	{name: "I3 unknown domain", method: listOrders, peer: ids("spiffe://evil.example/gateway")[0], want: tenant.WorkloadUnknown},
	{name: "denied", method: listOrders, peer: ids("tenant/acme/runner/old-1")[0], want: tenant.WorkloadDenied, rule: "- name: quarantine"},
	{name: "denied by the other entry", method: listOrders, peer: ids("tenant/acme/runner/1-old")[0], want: tenant.WorkloadDenied, rule: "- name: quarantine-too"},
	{name: "denied by both", method: listOrders, peer: ids("tenant/acme/runner/old-old")[0], want: tenant.WorkloadDenied, rule: "- name: quarantine"},
	{name: "exempt", method: health, peer: ids("gateway")[0], peerName: "gateway", exempt: true},
	{name: "exempt for any workload of a listed domain", method: health, peer: ids("stranger")[0], exempt: true},
	{name: "exempt for a confined domain", method: health, peer: ids("spiffe://mute.example/b")[0], exempt: true},
	{name: "exempt, not for a domain that is not listed", method: health, peer: ids("spiffe://evil.example/a")[0], want: tenant.WorkloadUnknown},
	{name: "exempt, not for who is denied", method: health, peer: ids("tenant/acme/runner/old-1")[0], want: tenant.WorkloadDenied, rule: "- name: quarantine"},
	{name: "exempt, not for an ID without a path", method: health, peer: ids("spiffe://prod.example")[0], want: tenant.WorkloadUnknown},
	{name: "exempt, not for no ID", method: health, want: tenant.WorkloadUnknown},
}

func TestAdmit(t *testing.T) {
	p := mesh(t)
	for _, tt := range admitCases {
		t.Run(tt.name, func(t *testing.T) {
			d := p.Admit(tt.method, nil, tt.peer)
			if tt.want != "" {
				wantDenial(t, d.Err(), tt.want, -1, tt.rule)
				return
			}
			if d.Err() != nil {
				t.Fatal(d.Err())
			}
			if got := strings.Join(d.Workloads(), ""); got != tt.peerName || d.Exempt() != tt.exempt || len(d.Rules()) == 0 {
				t.Errorf("as %q, exempt %t, rules %q", got, d.Exempt(), d.Rules())
			}
		})
	}
}

func TestMayCall(t *testing.T) {
	p := mesh(t)
	for _, tt := range []struct {
		name   string
		self   spiffeid.ID
		method string
		exempt bool
		want   tenant.Reason
		rule   string
	}{
		{name: "in its calls", self: ids("gateway")[0], method: listOrders},
		{name: "callers are for the server to judge", self: ids("gateway")[0], method: get},
		{name: "not in its calls", self: ids("service/pay")[0], method: export, want: tenant.CallNotAllowed, rule: "- name: pay"},
		{name: "uncovered", self: ids("gateway")[0], method: "/x.v1.X/Y", want: tenant.MethodNotCovered},
		{name: "unknown", self: ids("stranger")[0], method: listOrders, want: tenant.WorkloadUnknown},
		{name: "denied", self: ids("tenant/acme/runner/old-1")[0], method: listOrders, want: tenant.WorkloadDenied, rule: "- name: quarantine"},
		{name: "exempt", self: ids("orders")[0], method: health, exempt: true},
		{name: "exempt for a stranger", self: ids("stranger")[0], method: health, exempt: true},
		{name: "exempt, not for who is denied", self: ids("tenant/acme/runner/old-1")[0], method: health, want: tenant.WorkloadDenied, rule: "- name: quarantine"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := p.MayCall(tt.self, tt.method, nil)
			if tt.want != "" {
				wantDenial(t, d.Err(), tt.want, -1, tt.rule)
				return
			}
			if d.Err() != nil || d.Exempt() != tt.exempt || len(d.Rules()) == 0 {
				t.Errorf("%t %q %v", d.Exempt(), d.Rules(), d.Err())
			}
		})
	}
}

// TestMayOriginateAgreesWithDecide: a chain that a workload may start is
// one that a server takes from it, as far as origination goes.
func TestMayOriginateAgreesWithDecide(t *testing.T) {
	p := mesh(t)
	for _, tt := range authorizeCases {
		if len(tt.path) != 1 || tt.claims == nil || tt.method != listOrders {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			var from []hop.Step
			if tt.claims.Parent != nil {
				from = []hop.Step{{Signer: ids("spiffe://partner.example/x")[0]}}
			}
			d := p.MayOriginate(tt.path[0], tt.claims, from)
			if tt.want != "" {
				wantDenial(t, d.Err(), tt.want, tt.hop, tt.rule)
			} else if d.Err() != nil || len(d.Rules()) != 1 {
				t.Errorf("%q, %v", d.Rules(), d.Err())
			}
		})
	}
	if d := p.MayOriginate(ids("gateway")[0], nil, nil); tenant.ReasonOf(d.Err()) != tenant.ContextMissing {
		t.Errorf("no claims: %v", d.Err())
	}
}

// TestMayOriginateAnew: claims that are derived from a chain, by the trust
// domains of its hops.
func TestMayOriginateAnew(t *testing.T) {
	p := mesh(t)
	hops := func(of ...string) (steps []hop.Step) {
		for _, id := range ids(of...) {
			steps = append(steps, hop.Step{Signer: id})
		}
		return steps
	}
	derived := claims(own, func(c *hop.Claims) { c.Parent = &hop.Parent{Transaction: "t0"} })
	for _, tt := range []struct {
		name   string
		self   string
		claims *hop.Claims
		from   []hop.Step
		want   tenant.Reason
	}{
		{"T9 from a domain that is listed", "boundary", derived, hops("spiffe://partner.example/x"), ""},
		{"T9 from two domains that are listed", "boundary", derived, hops("spiffe://partner.example/x", "spiffe://mute.example/a"), ""},
		{"T9 nothing is derived", "boundary", claims(own), nil, ""},
		{"T9 from a domain that is not listed", "boundary", derived, hops("gateway"), tenant.OriginationNotAllowed},
		{"T9 from a domain that is not listed, behind one that is", "boundary", derived, hops("spiffe://partner.example/x", "gateway"), tenant.OriginationNotAllowed},
		{"T9 from a domain that is not listed, before one that is", "boundary", derived, hops("gateway", "spiffe://partner.example/x"), tenant.OriginationNotAllowed},
		{"T9 from an unknown domain", "boundary", derived, hops("spiffe://evil.example/x"), tenant.OriginationNotAllowed},
		{"T9 from nobody", "boundary", derived, []hop.Step{{}}, tenant.OriginationNotAllowed},
		{"T9 a parent and nothing that it is of", "boundary", derived, nil, tenant.OriginationNotAllowed},
		{"T9 derived without a parent", "boundary", claims(own), hops("spiffe://partner.example/x"), tenant.OriginationNotAllowed},
		{"T9 a workload that may originate, not anew", "service/pay", claims(none, func(c *hop.Claims) { c.Parent = &hop.Parent{} }), hops("spiffe://partner.example/x"), tenant.OriginationNotAllowed},
		{"T9 its limits stay", "boundary", claims(own, func(c *hop.Claims) { c.Parent, c.Scopes = &hop.Parent{}, []string{"orders.write"} }), hops("spiffe://partner.example/x"), tenant.ScopeNotAllowed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := p.MayOriginate(ids(tt.self)[0], tt.claims, tt.from)
			if tenant.ReasonOf(d.Err()) != tt.want {
				t.Errorf("%v, want %q", d.Err(), tt.want)
			}
		})
	}
}

type queueCase struct {
	name, self, queue string
	publish, consume  tenant.Reason
}

var queueCases = []queueCase{
	{"both name it", "boundary", "orders.new", "", ""},
	{"a star is one segment", "boundary", "orders.old", "", tenant.ConsumeNotAllowed},
	{"a star is not two", "boundary", "orders.new.done", tenant.PublishNotAllowed, ""},
	{"two stars are the rest", "boundary", "audit.a.b", "", tenant.ConsumeNotAllowed},
	{"two stars are one at least", "boundary", "audit", "", tenant.ConsumeNotAllowed}, // by "*"
	{"a star alone is one", "boundary", "anything", "", tenant.ConsumeNotAllowed},
	{"I3 a longer name", "boundary", "orders.newer.x", tenant.PublishNotAllowed, tenant.ConsumeNotAllowed},
	{"a pattern is no queue", "boundary", "orders.*", tenant.PublishNotAllowed, tenant.ConsumeNotAllowed},
	{"NATS's rest is no queue", "boundary", "orders.>", tenant.PublishNotAllowed, tenant.ConsumeNotAllowed},
	{"an empty segment", "boundary", "orders.", tenant.PublishNotAllowed, tenant.ConsumeNotAllowed},
	{"no queue", "boundary", "", tenant.PublishNotAllowed, tenant.ConsumeNotAllowed},
	{"another case", "boundary", "Orders.new.x", tenant.PublishNotAllowed, tenant.ConsumeNotAllowed},
	{"absent is none", "gateway", "orders.new", tenant.PublishNotAllowed, tenant.ConsumeNotAllowed},
	{"unknown", "stranger", "orders.new", tenant.WorkloadUnknown, tenant.WorkloadUnknown},
	{"denied", "tenant/acme/runner/old-1", "orders.new", tenant.WorkloadDenied, tenant.WorkloadDenied},
	{"a domain that is not listed", "spiffe://evil.example/boundary", "orders.new", tenant.WorkloadUnknown, tenant.WorkloadUnknown},
}

func TestMayPublishAndConsume(t *testing.T) {
	p := mesh(t)
	for _, tt := range queueCases {
		t.Run(tt.name, func(t *testing.T) {
			self := ids(tt.self)[0]
			if d := p.MayPublish(self, tt.queue); tenant.ReasonOf(d.Err()) != tt.publish {
				t.Errorf("publish: %v, want %q", d.Err(), tt.publish)
			}
			if d := p.MayConsume(self, tt.queue); tenant.ReasonOf(d.Err()) != tt.consume {
				t.Errorf("consume: %v, want %q", d.Err(), tt.consume)
			}
		})
	}
}

func TestNoPolicyDeniesAll(t *testing.T) {
	for name, p := range map[string]*Policy{"nil": nil, "zero": {}} {
		t.Run("P6 "+name, func(t *testing.T) {
			id := ids("gateway")[0]
			c := callOf(listOrders, ids("gateway"), claims(), nil)
			for i, d := range []Decision{
				p.Covers(health, nil), p.Admit(health, nil, id), p.Decide(&c), p.MayCall(id, health, nil), p.MayOriginate(id, claims(), nil),
				p.MayPublish(id, "q"), p.MayConsume(id, "q"),
			} {
				if tenant.ReasonOf(d.Err()) != tenant.PolicyUnavailable {
					t.Errorf("%d: %v", i, d.Err())
				}
			}
			if err := p.MayHave(mustTenant("acme"), id); tenant.ReasonOf(err) != tenant.PolicyUnavailable {
				t.Errorf("MayHave: %v", err)
			}
			if _, ok := p.TenantUID(mustTenant("acme")); ok || p.MaxTTL(id) != 0 || p.Version() != "" || p.Current() != nil {
				t.Error("says something")
			}
		})
	}
}

func TestMayHave(t *testing.T) {
	p := mesh(t)
	for _, tt := range []struct {
		name, tenant, to string
		want             tenant.Reason
		rule             string
	}{
		{"H4 in a trust domain that is not confined", "globex", "service/nobody", "", ""},
		{"H4 a tenant that the trust domain may have", "acme", "spiffe://partner.example/x", "", ""},
		{"H4 a tenant that it may not have", "globex", "spiffe://partner.example/x", tenant.TenantNotBound, "- name: partner.example"},
		{"H4 a domain with no tenants", "acme", "spiffe://mute.example/a", tenant.TenantNotBound, "- name: mute.example"},
		{"H4 a callee that is denied", "acme", "tenant/acme/runner/old-1", tenant.WorkloadDenied, "- name: quarantine"},
		{"I3 a domain that is not listed", "acme", "spiffe://evil.example/gateway", tenant.WorkloadUnknown, ""},
		{"P4 a tenant that is not listed", "initech", "gateway", tenant.TenantNotBound, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := p.MayHave(mustTenant(tt.tenant), ids(tt.to)[0])
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantDenial(t, err, tt.want, -1, tt.rule)
		})
	}
}

func TestLookups(t *testing.T) {
	p := mesh(t)
	for path, want := range map[string]time.Duration{
		"gateway": 10 * time.Minute, "tenant/acme/runner/1": DefaultMaxTTL, "orders": 0, "stranger": 0, "tenant/acme/runner/old-1": 0,
	} {
		if got := p.MaxTTL(ids(path)[0]); got != want {
			t.Errorf("MaxTTL of %s: %s, want %s", path, got, want)
		}
	}
	if uid, ok := p.TenantUID(mustTenant("acme")); uid != acmeUID || !ok {
		t.Errorf("%q %t", uid, ok)
	}
	if _, ok := p.TenantUID(tenant.ID{}); ok {
		t.Error("P4 the zero tenant is listed")
	}
	if !strings.HasPrefix(p.Version(), "sha256:") || p.Current() != p {
		t.Errorf("version %q", p.Version())
	}
}

// TestOrderNeverMatters permutes the entries of each list and the sections of
// the document, and compares every decision (P3).
func TestOrderNeverMatters(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	shuffled := func(s []string) []string {
		s = slices.Clone(s)
		rng.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
		return s
	}
	reversed := func(s []string) []string {
		s = slices.Clone(s)
		slices.Reverse(s)
		return s
	}
	orders := []func([]string) []string{asWritten, reversed}
	for range 200 {
		orders = append(orders, shuffled)
	}
	t.Run("P3 in another order", func(t *testing.T) {
		for i, order := range orders {
			doc := meshDoc(order)
			p, err := Parse("mesh.yaml", []byte(doc))
			if err != nil {
				t.Fatalf("P3 order %d does not load: %v\n%s", i, err, doc)
			}
			for _, tt := range authorizeCases {
				if _, err := decide(p, tt.call()); tenant.ReasonOf(err) != tt.want {
					t.Errorf("P3 order %d, Decide, %s: %v, want %s", i, tt.name, err, tt.want)
				}
			}
			for _, tt := range admitCases {
				if d := p.Admit(tt.method, nil, tt.peer); tenant.ReasonOf(d.Err()) != tt.want {
					t.Errorf("P3 order %d, Admit, %s: %v, want %s", i, tt.name, d.Err(), tt.want)
				}
			}
			for _, tt := range queueCases {
				self := ids(tt.self)[0]
				publish, consume := p.MayPublish(self, tt.queue), p.MayConsume(self, tt.queue)
				if tenant.ReasonOf(publish.Err()) != tt.publish || tenant.ReasonOf(consume.Err()) != tt.consume {
					t.Errorf("P3 order %d, %s: %v, %v", i, tt.name, publish.Err(), consume.Err())
				}
			}
		}
	})
}
