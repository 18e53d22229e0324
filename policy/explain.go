package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Decision is the answer to one question, by one version of the policy. The
// zero Decision denies.
type Decision struct {
	question string  // what was asked; "" for the zero Decision
	target   string  // the method or queue that it was asked about, if any
	policy   *Policy // nil: none is in force
	service  string  // of the method
	method   *method
	declared *Declared // nil: the question is not about a method
	path     [hop.MaxHops]actor
	signers  int  // how many of path there are
	chain    bool // path is that of a chain, so that a denial names the hop
	tenant   listing
	callsAt  string // the place in the peer's calls

	passed uint16 // a bit for each check
	failed check
	err    *tenant.Error
}

// actor is a signer and its entry.
type actor struct {
	id       spiffeid.ID
	domain   *domain
	workload *workload
	captured tenant.ID // the tenant that its SPIFFE ID names, if its entry says so
}

// check is a step of a decision. They are made in this order.
type check uint8

const (
	checkPolicy check = iota
	checkMethod
	checkPath
	checkCallers
	checkCalls
	checkPublishes
	checkConsumes
	checkBindings
	checkOrigination
	checkScopes
	checkClassification
	checkConditions
	checks
)

var checkNames = [checks]string{
	"policy", "method", "path", "callers", "calls", "publishes", "consumes", "bindings", "origination", "scopes", "classification", "conditions",
}

// pass notes a check that passed, and returns true.
func (d *Decision) pass(c check) bool {
	d.passed |= 1 << c
	return true
}

// deny ends the decision, at the first check that fails, and returns false. A
// part of the check may have passed before.
func (d *Decision) deny(at check, err *tenant.Error) bool {
	d.passed &^= 1 << at
	d.failed, d.err = at, err
	return false
}

func (d *Decision) last() *actor { return &d.path[d.signers-1] }

// peerHop is the index of the peer's hop, or -1 where there is no chain.
func (d *Decision) peerHop() int {
	if d.chain {
		return d.signers - 1
	}
	return -1
}

// Err returns nil if it is allowed. A denial is a [*tenant.Error]; its Rule is
// the place that decided, where one did.
func (d *Decision) Err() error {
	switch {
	case d.question == "":
		return tenant.Deny(tenant.Internal, "nothing was decided")
	case d.err != nil:
		return d.err
	}
	return nil
}

// Exempt says whether the method needs no tenant.
func (d *Decision) Exempt() bool { return d.method != nil && d.method.exempt }

// Conditional says whether the method has conditions, so that the decision may
// change though the policy does not.
func (d *Decision) Conditional() bool { return d.method != nil && len(d.method.conditions) > 0 }

// Workloads returns the policy's names along the path.
func (d *Decision) Workloads() []string {
	names := make([]string, d.signers)
	for i := range names {
		names[i] = d.path[i].workload.name
	}
	return names
}

// Rules returns the places that decided, as file:line: the workloads' entries,
// the method's rules, the peer's calls, the .proto. A denial has the one that
// denied, or none.
func (d *Decision) Rules() []string {
	if d.err != nil {
		if d.err.Rule == "" {
			return nil
		}
		return []string{d.err.Rule}
	}
	rules := make([]string, 0, 8) // enough for most
	for i := range d.signers {
		rules = append(rules, d.path[i].workload.at)
	}
	if d.method != nil {
		rules = append(rules, d.method.at...)
	}
	if d.callsAt != "" {
		rules = append(rules, d.callsAt)
	}
	if d.declared != nil && d.declared.at != "" {
		rules = append(rules, d.declared.at)
	}
	return rules
}

// Explanation says why a decision is as it is, for operators: as text by
// [Explanation.String], or as JSON. It quotes no claim.
type Explanation struct {
	// Allowed is the decision.
	Allowed bool `json:"allowed"`
	// Question is what was decided: "covers", "admit", "decide", "call",
	// "originate", "publish" or "consume".
	Question string `json:"question"`
	// Target is the full method, or the queue, subject or topic, that the
	// question was about; empty where it was about none.
	Target string `json:"target,omitempty"`
	// Reason of a denial.
	Reason tenant.Reason `json:"reason,omitempty"`
	// Missing says what was missing.
	Missing string `json:"missing,omitempty"`
	// Hop is the index of the hop at fault, or -1 where none is.
	Hop int `json:"hop"`
	// Rule is the place that denied, as file:line.
	Rule string `json:"rule,omitempty"`
	// Policy is the version that decided.
	Policy string `json:"policy,omitempty"`
	// Path holds the workloads of the path, the originator first.
	Path []ExplainedWorkload `json:"path,omitempty"`
	// Rules are all places that took part, as file:line.
	Rules []string `json:"rules,omitempty"`
	// Checks are those that were made, in order. The first that fails decides.
	Checks []ExplainedCheck `json:"checks"`
}

// ExplainedWorkload is a workload of an [Explanation].
type ExplainedWorkload struct {
	// ID is its SPIFFE ID.
	ID string `json:"id"`
	// Name is the policy's name for it.
	Name string `json:"name"`
	// Rule is its entry, as file:line.
	Rule string `json:"rule"`
}

// ExplainedCheck is a step of an [Explanation].
type ExplainedCheck struct {
	// Name says what was checked.
	Name string `json:"name"`
	// Passed says how it went.
	Passed bool `json:"passed"`
}

// Explain says why d is as it is.
func (d *Decision) Explain() Explanation {
	e := Explanation{
		Allowed: true, Question: d.question, Target: d.target, Hop: -1, Rules: d.Rules(), Policy: d.policy.Version(), Checks: []ExplainedCheck{},
	}
	for i := range d.signers {
		s := &d.path[i]
		e.Path = append(e.Path, ExplainedWorkload{s.id.String(), s.workload.name, s.workload.at})
	}
	for c := range checks {
		if d.passed&(1<<c) != 0 {
			e.Checks = append(e.Checks, ExplainedCheck{checkNames[c], true})
		}
	}
	if d.err != nil {
		e.Checks = append(e.Checks, ExplainedCheck{checkNames[d.failed], false})
	}
	var denial *tenant.Error
	if errors.As(d.Err(), &denial) {
		e.Allowed = false
		e.Reason, e.Missing, e.Hop, e.Rule = denial.Reason, denial.Detail, denial.Hop, denial.Rule
	}
	return e
}

// String returns the explanation as lines of text.
func (e Explanation) String() string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-10s %s\n", name, value)
		}
	}
	about := strings.TrimSpace(e.Question + " " + e.Target)
	if e.Allowed {
		line("allowed", about)
	} else {
		line("denied", about)
		line("reason", string(e.Reason))
		line("missing", e.Missing)
		line("rule", e.Rule)
	}
	for i, w := range e.Path {
		at := ""
		if i == e.Hop {
			at = "  ← at fault"
		}
		line(fmt.Sprintf("hop %d", i), fmt.Sprintf("%s as %q by %s%s", w.ID, w.Name, w.Rule, at))
	}
	results := map[bool][]string{}
	for _, c := range e.Checks {
		results[c.Passed] = append(results[c.Passed], c.Name)
	}
	line("passed", strings.Join(results[true], ", "))
	line("failed", strings.Join(results[false], ", "))
	line("rules", strings.Join(e.Rules, " "))
	line("policy", e.Policy)
	return b.String()
}
