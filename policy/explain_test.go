package policy

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// explained is a policy in which every check can fail.
const explained = `version: 1
trust_domains:
  - name: prod.example
  - name: partner.example
workloads:
  - name: gateway
    match: spiffe://prod.example/gateway
    tenants: [acme]
    originate: {scopes: [orders.read], classification: 1, from: [partner.example]}
    calls: [/a.v1.A/*]
    publishes: [orders.*]
    consumes: [orders.new]
  - name: other
    match: spiffe://prod.example/other
    calls: [/a.v1.A/Read]
methods:
  - match: /a.v1.A/*
    callers: [gateway, other]
  - match: /a.v1.A/Write
    scopes: [orders.write]
  - match: /a.v1.A/Secret
    classification: 2
  - match: /a.v1.A/Late
    when: |
      claims.sub == "nobody" &&
        method != ""
  - match: /a.v1.A/Mine
    callers: [gateway]
tenants:
  acme: {uid: ` + acmeUID + `}
`

// TestExplain explains a denial at each check, as text and as JSON.
func TestExplain(t *testing.T) {
	p, err := Parse("p.yaml", []byte(explained))
	if err != nil {
		t.Fatal(err)
	}
	c := func(method string, path ...string) *Call {
		call := callOf(method, ids(path...), claims(own), nil)
		return &call
	}
	gateway, other := ids("gateway")[0], ids("other")[0]
	scoped := func(c *hop.Claims) { own(c); c.Scopes = []string{"orders.pay"} }
	derived := claims(own, func(c *hop.Claims) { c.Parent = &hop.Parent{} })
	for _, tt := range []struct {
		failed   string
		d        Decision
		question string
		target   string
		reason   tenant.Reason
		missing  string
		hop      int
		rule     string
		path     []string
		passed   string
	}{
		{"policy", (*Policy)(nil).Admit("/a.v1.A/Read", nil, gateway), "admit", "/a.v1.A/Read", tenant.PolicyUnavailable, "there is no policy in force", -1, "", nil, ""},
		{"method", p.Covers("/b.v1.B/Read", nil), "covers", "/b.v1.B/Read", tenant.MethodNotCovered, "no rule covers the method: add it under methods, with callers or with exempt: true", -1, "", nil, "policy"},
		{"path", p.Decide(c("/a.v1.A/Read", "gateway", "stranger")), "decide", "/a.v1.A/Read", tenant.WorkloadUnknown, "no entry matches spiffe://prod.example/stranger", 1, "", []string{"gateway"}, "policy, method"},
		{"callers", p.Admit("/a.v1.A/Mine", nil, other), "admit", "/a.v1.A/Mine", tenant.CallerNotAllowed, `workload "other" is not among the method's callers`, -1, "p.yaml:27", []string{"other"}, "policy, method, path"},
		{"calls", p.MayCall(other, "/a.v1.A/Write", nil), "call", "/a.v1.A/Write", tenant.CallNotAllowed, `the method is not among the calls of workload "other"`, -1, "p.yaml:13", []string{"other"}, "policy, method, path"},
		{"calls", p.Decide(c("/a.v1.A/Write", "gateway", "other")), "decide", "/a.v1.A/Write", tenant.CallerNotAllowed, `the method is not among the calls of workload "other"`, 1, "p.yaml:13", []string{"gateway", "other"}, "policy, method, path, callers"},
		{"publishes", p.MayPublish(other, "orders.new"), "publish", "orders.new", tenant.PublishNotAllowed, `the queue is not among those of workload "other"`, -1, "p.yaml:13", []string{"other"}, "policy, path"},
		{"consumes", p.MayConsume(gateway, "orders.old"), "consume", "orders.old", tenant.ConsumeNotAllowed, `the queue is not among those of workload "gateway"`, -1, "p.yaml:6", []string{"gateway"}, "policy, path"},
		{"bindings", p.Decide(c("/a.v1.A/Read", "gateway", "other")), "decide", "/a.v1.A/Read", tenant.TenantNotBound, `workload "other" is not bound to the tenant`, 1, "p.yaml:13", []string{"gateway", "other"}, "policy, method, path, callers, calls"},
		{"origination", p.MayOriginate(gateway, claims(scoped), nil), "originate", "", tenant.ScopeNotAllowed, `scope 1 of 1 is not among those of workload "gateway"`, 0, "p.yaml:6", []string{"gateway"}, "policy, path, bindings"},
		{"origination", p.MayOriginate(gateway, derived, []hop.Step{{Signer: gateway}}), "originate", "", tenant.OriginationNotAllowed, `workload "gateway" may not originate anew from prod.example`, 0, "p.yaml:6", []string{"gateway"}, "policy, path, bindings"},
		{"scopes", p.Decide(c("/a.v1.A/Write", "gateway")), "decide", "/a.v1.A/Write", tenant.ScopeMissing, `the method requires the scope "orders.write"`, -1, "p.yaml:19", []string{"gateway"}, "policy, method, path, callers, calls, bindings, origination"},
		{"classification", p.Decide(c("/a.v1.A/Secret", "gateway")), "decide", "/a.v1.A/Secret", tenant.ClassificationNotAllowed, "the method is classified 2, the claims reach to 0", -1, "p.yaml:21", []string{"gateway"}, "policy, method, path, callers, calls, bindings, origination, scopes"},
		{"conditions", p.Decide(c("/a.v1.A/Late", "gateway")), "decide", "/a.v1.A/Late", tenant.ConditionNotMet, `the condition does not hold: claims.sub == "nobody" && method != ""`, -1, "p.yaml:23", []string{"gateway"}, "policy, method, path, callers, calls, bindings, origination, scopes, classification"},
	} {
		t.Run(tt.failed+" "+tt.missing, func(t *testing.T) {
			want := Explanation{Question: tt.question, Target: tt.target, Reason: tt.reason, Missing: tt.missing, Hop: tt.hop, Rule: tt.rule}
			if tt.rule != "" {
				want.Rules = []string{tt.rule}
			}
			if tt.failed != "policy" {
				want.Policy = p.Version()
			}
			entries := map[string]string{"gateway": "p.yaml:6", "other": "p.yaml:13"}
			for _, name := range tt.path {
				want.Path = append(want.Path, ExplainedWorkload{"spiffe://prod.example/" + name, name, entries[name]})
			}
			for _, name := range strings.Split(tt.passed, ", ") {
				if name != "" {
					want.Checks = append(want.Checks, ExplainedCheck{name, true})
				}
			}
			want.Checks = append(want.Checks, ExplainedCheck{tt.failed, false})
			var got Explanation
			text, err := json.Marshal(tt.d.Explain())
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("JSON (-want +got):\n%s", diff)
			}
			lines := strings.Split(tt.d.Explain().String(), "\n")
			for _, line := range []string{
				strings.TrimSpace("denied     " + tt.question + " " + tt.target), "reason     " + string(tt.reason), "missing    " + tt.missing, "failed     " + tt.failed,
			} {
				if !slices.Contains(lines, line) {
					t.Errorf("no line %q in %q", line, lines)
				}
			}
			if tt.passed != "" && !slices.Contains(lines, "passed     "+tt.passed) {
				t.Errorf("it does not say that %s passed: %q", tt.passed, lines)
			}
		})
	}
}

func TestExplainAllowed(t *testing.T) {
	p, err := Parse("p.yaml", []byte(explained))
	if err != nil {
		t.Fatal(err)
	}
	call := callOf("/a.v1.A/Read", ids("gateway"), claims(own), nil)
	d := p.Decide(&call)
	want := `allowed    decide /a.v1.A/Read
hop 0      spiffe://prod.example/gateway as "gateway" by p.yaml:6
passed     policy, method, path, callers, calls, bindings, origination, scopes, classification, conditions
rules      p.yaml:6 p.yaml:17 p.yaml:10
policy     ` + p.Version() + "\n"
	if diff := cmp.Diff(want, d.Explain().String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	text, err := json.Marshal(d.Explain())
	if err != nil || !strings.HasPrefix(string(text), `{"allowed":true,"question":"decide","target":"/a.v1.A/Read","hop":-1,"policy":"sha256:`) {
		t.Errorf("%s %v", text, err)
	}
	for i, d := range []Decision{p.MayPublish(ids("gateway")[0], "orders.new"), p.MayConsume(ids("gateway")[0], "orders.new"), p.MayOriginate(ids("gateway")[0], claims(own), nil)} {
		if e := d.Explain(); !e.Allowed || len(e.Path) != 1 || len(e.Checks) < 3 || !slices.Equal(d.Rules(), []string{"p.yaml:6"}) {
			t.Errorf("%d: %+v", i, e)
		}
	}
}

// TestZeroDecision denies, and everything can be asked of it.
func TestZeroDecision(t *testing.T) {
	var d Decision
	if tenant.ReasonOf(d.Err()) != tenant.Internal || d.Exempt() || len(d.Rules()) > 0 || len(d.Workloads()) > 0 {
		t.Errorf("%v %q %q", d.Err(), d.Rules(), d.Workloads())
	}
	if e := d.Explain(); e.Allowed || e.Reason != tenant.Internal || len(e.Checks) > 0 {
		t.Errorf("%+v", e)
	}
}
