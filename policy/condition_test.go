package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cel.dev/cel-go/cel"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/leaf"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// conditional is a policy with conditions on its method: of the service's rule
// and of the method's own.
func conditional(t testing.TB, expressions ...string) *Policy {
	t.Helper()
	rules := ""
	for _, e := range expressions {
		rules += fmt.Sprintf("  - match: /inventory.v1.Inventory/Get\n    when: '%s'\n", strings.ReplaceAll(e, "'", "''"))
	}
	doc := meshDoc(asWritten)
	doc = strings.Replace(doc, "tenant_sets:", rules+"tenant_sets:", 1)
	doc = strings.Replace(doc, "scopes: [\"orders.*\", \"admin.**\"]", "scopes: [\"**\"]", 1)
	p, err := Parse("mesh.yaml", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// conditionCall is a call of two hops for acme that has all that conditions may ask for.
func conditionCall(change ...func(*Call)) *Call {
	c := claims(func(c *hop.Claims) {
		c.Attributes = map[string]string{"dept": "sales", "empty": ""}
		c.Request = map[string]string{"ip": "192.0.2.1"}
		c.Scopes = []string{"orders.read", "orders.write"}
		c.IssuedAt, c.Expires = now.Add(-time.Minute), now.Add(2*time.Minute)
	})
	call := callOf(get, ids("gateway", "orders"), c, []string{"orders.read"})
	call.Path[0].Target = listOrders
	for _, f := range change {
		f(&call)
	}
	return &call
}

func TestConditionVariables(t *testing.T) {
	tested := map[string]bool{}
	for _, tt := range []struct{ variable, holds, fails string }{
		{"peer.id", `peer.id == "spiffe://prod.example/orders"`, `peer.id == "spiffe://prod.example/gateway"`},
		{"peer.trust_domain", `peer.trust_domain == "prod.example"`, `peer.trust_domain == "partner.example"`},
		{"peer.workload", `peer.workload == "orders"`, `peer.workload == "gateway"`},
		{"path", `path.size() == 2 && path[0].id == "spiffe://prod.example/gateway" && path[0].trust_domain == "prod.example"`, `path.size() == 1`},
		{"path", `path[0].workload == "gateway" && path[1].workload == "orders"`, `path[1].workload == "gateway"`},
		{"path", `path[0].method == "/orders.v1.Orders/List" && path[1].method == method`, `path.exists(h, h.method.endsWith("/Export"))`},
		{"path", `path.all(h, h.workload in ["gateway", "orders"])`, `path[2].workload == "orders" || false`},
		{"tenant.id", `tenant.id == "acme"`, `tenant.id == "globex"`},
		{"tenant.uid", `tenant.uid == "` + acmeUID + `"`, `tenant.uid == ""`},
		{"tenant.tier", `tenant.tier == "gold"`, `tenant.tier != "gold"`},
		{"tenant.region", `tenant.region in ["eu", "us"]`, `tenant.region == "us"`},
		{"tenant.classification", `tenant.classification == 3`, `tenant.classification < 3`},
		{"claims.sub", `claims.sub.startsWith("user:")`, `claims.sub == "ann"`},
		{"claims.iss", `claims.iss == "https://login.example"`, `claims.iss == ""`},
		{"claims.txn", `claims.txn == "t1"`, `claims.txn == "t2"`},
		{"claims.scope", `claims.scope == ["orders.read"]`, `"orders.write" in claims.scope`}, // H3: those in force
		{"claims.classification", `claims.classification <= 2`, `claims.classification < 2`},
		{"claims.tctx", `claims.tctx.dept == "sales" && claims.tctx["dept"] == "sales" && !has(claims.tctx.desk)`, `claims.tctx.dept == "hr"`},
		{"claims.tctx", `claims.tctx.empty == ""`, `has(claims.tctx.desk)`},
		{"claims.rctx", `claims.rctx.ip == "192.0.2.1"`, `claims.rctx.ip.startsWith("10.")`},
		{"claims.iat", `now - claims.iat == duration("60s")`, `claims.iat == now`},
		{"claims.exp", `claims.exp - now == duration("2m")`, `claims.exp < now`},
		{"method", `method == "/inventory.v1.Inventory/Get"`, `method == "/orders.v1.Orders/List"`},
		{"now", `now == timestamp("2027-01-15T08:00:00Z") && now.getHours() == 8 && now.getHours("Europe/Berlin") == 9`, `now.getDayOfWeek() == 0`},
	} {
		tested[tt.variable] = true
		t.Run(tt.variable+" "+tt.holds, func(t *testing.T) {
			c := conditionCall()
			if d := conditional(t, tt.holds).Decide(c); d.Err() != nil {
				t.Errorf("%s: %v", tt.holds, d.Err())
			}
			for _, e := range []string{tt.fails, "!(" + tt.holds + ")"} {
				if d := conditional(t, e).Decide(c); tenant.ReasonOf(d.Err()) != tenant.ConditionNotMet {
					t.Errorf("%s: %v", e, d.Err())
				}
			}
		})
	}
	for name := range variables {
		if !tested[name] {
			t.Errorf("no condition is about %s", name)
		}
	}
}

// TestConditionDenies: what errs, is absent, or is not simply true denies.
func TestConditionDenies(t *testing.T) {
	toGlobex := func(c *Call) { globex(c.Claims) }
	noIssuer := func(c *Call) { // of the runner, who may not state one
		*c = callOf(get, ids("tenant/acme/runner/1", "orders"), claims(own), nil)
	}
	for _, tt := range []struct {
		name, expression string
		change           func(*Call)
	}{
		{"P5 a tier that the tenant lacks", `tenant.tier != "free"`, toGlobex},
		{"P5 a region that the tenant lacks", `tenant.region != "us"`, toGlobex},
		{"P5 a classification that the tenant lacks", `tenant.classification <= 3`, toGlobex},
		{"P5 an issuer that the claims lack", `claims.iss != "https://evil.example"`, noIssuer},
		{"P5 an attribute that the claims lack", `claims.tctx.desk != "x"`, nil},
		{"P5 an attribute by another way", `claims.tctx["desk"] != "x"`, nil},
		{"P5 an attribute of no attributes", `claims.tctx.dept != "x"`, func(c *Call) { c.Claims.Attributes = nil }},
		{"P5 a member of the request that the claims lack", `claims.rctx.agent != "x"`, nil},
		{"P5 a time that the call lacks", `now < timestamp("2026-01-01T00:00:00Z")`, func(c *Call) { c.Time = time.Time{} }},
		{"P5 a hop that there is none of", `path[2].workload != "x"`, nil},
		{"P5 absent on either side", `tenant.tier == tenant.region`, toGlobex},
		{"P5 a division by zero", `1 / (claims.classification - 2) == 0`, nil},
		{"P5 an overflow", `9223372036854775807 + claims.classification > 0`, nil},
		{"P5 a text that is no number", `int(claims.sub) >= 0`, nil},
		{"P5 a text that is no time", `timestamp(claims.sub) < now`, nil},
		{"P5 a time zone that does not exist", `now.getHours("Mars/Olympus") >= 0`, nil},
		{"P5 types that only show when it runs", `dyn(claims.sub) > 1`, nil},
		{"P5 more after an error", `claims.tctx.desk == "x" || claims.classification > 2`, nil},
		{"P5 an error that is turned around", `!(claims.tctx.desk == "x")`, nil},
		{"false", `false`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := conditionCall()
			if tt.change != nil {
				tt.change(c)
			}
			plain := conditional(t, "true").Decide(c)
			if plain.Err() != nil {
				t.Fatal("it is denied without the condition: ", plain.Err())
			}
			d := conditional(t, tt.expression).Decide(c)
			if tenant.ReasonOf(d.Err()) != tenant.ConditionNotMet {
				t.Errorf("%v, want %s", d.Err(), tenant.ConditionNotMet)
			}
			// All conditions must hold, in whatever order they stand.
			for _, more := range [][]string{{"true", tt.expression}, {tt.expression, "true"}} {
				if d := conditional(t, more...).Decide(c); tenant.ReasonOf(d.Err()) != tenant.ConditionNotMet {
					t.Errorf("P3 among %q: %v", more, d.Err())
				}
			}
		})
	}
}

// TestConditionPanics: the library turns a panic, here in a variable's value,
// into an error.
func TestConditionPanics(t *testing.T) {
	l := newLoader("p.yaml")
	l.doc = []byte("x\n")
	for name, f := range map[string]*facts{"P5 no path": {}, "P5 no facts": nil} {
		t.Run(name, func(t *testing.T) {
			for _, e := range []string{`peer.id != ""`, `!(peer.id == "")`} {
				if c := l.condition(text{pos{line{n: 1}, 1}, true, e}); c == nil || c.holds(f) {
					t.Errorf("%s holds", e)
				}
			}
		})
	}
	if c := l.condition(text{pos{line{n: 1}, 1}, true, "true"}); c == nil || !c.holds(&facts{}) {
		t.Error("true does not hold")
	}
}

// TestConditionCost: no condition that loads costs more than its bound, even with
// the largest variables that there are.
func TestConditionCost(t *testing.T) {
	env, err := conditionEnv()
	if err != nil {
		t.Fatal(err)
	}
	largest := largestFacts()
	if _, err := hop.Begin(&largest.claims); err != nil {
		t.Errorf("no statement has these claims: %v", err)
	}
	for name, longer := range map[string]func(*hop.Claims){
		"text":   func(c *hop.Claims) { c.Subject += "x" },
		"scopes": func(c *hop.Claims) { c.Scopes = append(c.Scopes, "x") },
		"tctx":   func(c *hop.Claims) { c.Attributes["x"] = "" },
		"rctx":   func(c *hop.Claims) { c.Request["x"] = "" },
	} {
		c := largest.claims.Clone()
		longer(c)
		if _, err := hop.Begin(c); err == nil {
			t.Errorf("P5 a statement may have a larger %s", name)
		}
	}
	for _, e := range []string{
		`path.exists(h, h.id == "x")`,
		`claims.scope.exists(s, s == "x")`,
		`claims.scope.exists(s, s in ["x", "y"])`,
		`claims.tctx.exists(k, claims.tctx[k] == "x")`,
		`claims.scope.all(s, path.all(h, h.workload == s))`,
		`(claims.scope + claims.scope).filter(s, s.endsWith("y")).size() > 3`,
		`claims.sub.contains("x") && claims.tctx == claims.rctx && claims.scope == claims.scope`,
		`string(claims.iat) + claims.sub + claims.txn == method`,
	} {
		ast, issues := env.Compile(e)
		if issues.Err() != nil {
			t.Fatal(issues.Err())
		}
		estimate, err := env.EstimateCost(ast, sizes{})
		if err != nil || estimate.Max > maxCost {
			t.Errorf("P5 %s: %d, %v", e, estimate.Max, err)
		}
		if cost := actualCost(t, env, ast, largest); cost > estimate.Max {
			t.Errorf("P5 %s costs %d, over its bound of %d", e, cost, estimate.Max)
		}
	}
}

// actualCost returns what a condition costs.
func actualCost(t testing.TB, env *cel.Env, ast *cel.Ast, f *facts) uint64 {
	t.Helper()
	program, err := env.Program(ast, cel.CostTracking(nil))
	if err != nil {
		t.Fatal(err)
	}
	_, details, _ := program.Eval(f)
	if details == nil || details.ActualCost() == nil {
		return 0 // it failed before anything was counted
	}
	return *details.ActualCost()
}

// largestFacts are as large as those of a verified call can be.
func largestFacts() *facts {
	long := func(i, n int) string { return fmt.Sprintf("%0*d", n, i) }
	f := &facts{tenant: attributes{long(1, maxName), long(2, maxName), 3}, method: "/s/" + long(1, maxText-3), now: now}
	f.claims = *claims(func(c *hop.Claims) {
		c.Subject, c.Issuer, c.Transaction = long(3, maxText), long(4, maxText), long(5, maxText)
		c.Scopes, c.Attributes, c.Request = nil, map[string]string{}, map[string]string{}
		for i := range hop.MaxList {
			c.Scopes = append(c.Scopes, long(i, maxText))
			c.Attributes[long(i, maxText)] = long(i, maxText)
			c.Request[long(i, maxText)] = long(i, maxText)
		}
	})
	f.scopes = f.claims.Scopes
	for i := range hop.MaxHops {
		f.path = append(f.path, conditionHop{long(i, leaf.MaxID), long(i, 255), long(i, maxName), f.method})
	}
	return f
}

// TestConditionsForgetCalls: what one decision's conditions saw, the next one's do not.
func TestConditionsForgetCalls(t *testing.T) {
	p := conditional(t, `path.size() == 2 && claims.tctx.dept == "sales"`)
	for range 100 {
		if d := p.Decide(conditionCall()); d.Err() != nil {
			t.Fatal(d.Err())
		}
		if d := p.Decide(conditionCall(func(c *Call) { c.Claims.Attributes = nil })); tenant.ReasonOf(d.Err()) != tenant.ConditionNotMet {
			t.Fatal(d.Err())
		}
	}
	f, _ := pool.Get().(*facts)
	if len(f.path) != 0 || f.claims.Subject != "" || f.scopes != nil || f.method != "" || cap(f.path) > 0 && f.path[:1][0] != (conditionHop{}) {
		t.Errorf("M6 the pool keeps %+v", f)
	}
}
