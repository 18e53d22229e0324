package policy

import (
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Call is what [Policy.Decide] decides about. Everything in it was verified
// before.
type Call struct {
	// Method is the full method.
	Method string
	// Declared is what the method's .proto says; nil is nothing.
	Declared *Declared
	// Path holds the hops, the originator's first and the peer's last.
	Path []hop.Step
	// Claims of the chain.
	Claims *hop.Claims
	// Scopes in force: those of the claims as the hops narrowed them.
	Scopes []string
	// Time of the decision, for conditions.
	Time time.Time
}

// Covers decides whether rules cover the method, be it to exempt it, and agree
// with its .proto. It denies with [tenant.MethodNotCovered].
func (p *Policy) Covers(method string, declared *Declared) (d Decision) {
	_ = d.begin(p, "covers", method) && d.covered(declared)
	return d
}

// Admit decides whether a peer may call a method, before anything is known of
// a tenant: rules cover the method, its callers include the peer, and the
// peer's calls include the method. It denies with [tenant.MethodNotCovered],
// [tenant.WorkloadUnknown], [tenant.WorkloadDenied] or
// [tenant.CallerNotAllowed].
//
// An exempt method is open to every peer of a listed trust domain that no deny
// entry matches, whether or not an entry allows it: a peer needs no calls to
// ask for health. Where the policy exempts a method whose .proto says something
// else, it denies with [tenant.MethodNotCovered].
func (p *Policy) Admit(method string, declared *Declared, peer spiffeid.ID) (d Decision) {
	_ = d.begin(p, "admit", method) && d.covered(declared) && d.enter(peer) && (d.Exempt() || d.admit())
	return d
}

// Decide decides whether a call may run: the peer may call the method, every
// signer on the path may act for the tenant, the first may originate the
// claims, and what the method's rules and its .proto ask for is there: scopes,
// classification, conditions. It asks again what [Policy.Admit] asked, so that
// one version of the policy decides all.
//
// Beside the reasons of [Policy.Admit] and [Policy.MayOriginate] it denies with
// [tenant.ContextMissing], [tenant.ChainTooLong], [tenant.ScopeMissing],
// [tenant.ClassificationNotAllowed] and [tenant.ConditionNotMet].
func (p *Policy) Decide(c *Call) (d Decision) {
	d.chain = true
	_ = d.begin(p, "decide", c.Method) && d.covered(c.Declared) && d.claimed(c.Claims) && d.walk(c) && (d.Exempt() || d.admit()) &&
		d.mayAct(c.Claims) && d.mayOriginate(c.Claims) && d.meets(c)
	return d
}

// claimed makes sure that there are claims to decide about.
func (d *Decision) claimed(c *hop.Claims) bool {
	return c != nil || d.deny(checkPath, tenant.Deny(tenant.ContextMissing, "there are no claims"))
}

// walk takes the signers of a call.
func (d *Decision) walk(c *Call) bool {
	switch {
	case len(c.Path) == 0:
		return d.deny(checkPath, tenant.Deny(tenant.ContextMissing, "nobody signed"))
	case len(c.Path) > len(d.path):
		return d.deny(checkPath, tenant.Deny(tenant.ChainTooLong, "%d signers", len(c.Path)))
	}
	for i := range c.Path {
		if !d.signer(c.Path[i].Signer) {
			return false
		}
	}
	return true
}

// MayCall decides, before a call leaves, whether the workload itself may make
// it. It denies with [tenant.CallNotAllowed] or [tenant.MethodNotCovered], or
// because the workload's entry is missing or denies. The method's callers are
// for the server to judge. As for [Policy.Admit], an exempt method need not be
// among the workload's calls.
func (p *Policy) MayCall(self spiffeid.ID, method string, declared *Declared) (d Decision) {
	_ = d.begin(p, "call", method) && d.covered(declared) && d.enter(self) && (d.Exempt() || d.calls(tenant.CallNotAllowed))
	return d
}

// MayHave says whether a workload may have a context for a tenant: one of a listed trust
// domain that, where it is confined, has the tenant, and that no deny entry matches. What else it
// may do with the context is asked of the hop that it signs; it needs no entry to be called. MayHave
// fails with [tenant.PolicyUnavailable], [tenant.WorkloadUnknown], [tenant.WorkloadDenied] or
// [tenant.TenantNotBound].
func (p *Policy) MayHave(t tenant.ID, workload spiffeid.ID) error {
	if p.Current() == nil {
		return tenant.Deny(tenant.PolicyUnavailable, "there is no policy in force")
	}
	d := p.domains[workload.TrustDomain().Name()]
	if d == nil {
		return tenant.Deny(tenant.WorkloadUnknown, "the trust domain of %q is not listed", workload)
	}
	if w, _ := d.deny.find(workload.Path()); w != nil {
		return denyBy(w.at, tenant.WorkloadDenied, "%s is denied by entry %q", workload, w.name)
	}
	listed, ok := p.tenants.find(t)
	if !ok {
		return tenant.Deny(tenant.TenantNotBound, "the tenant is not listed")
	}
	if d.tenants != nil && !d.tenants.has(t, tenant.ID{}, p.tenants.attributes(listed)) {
		return denyBy(d.at, tenant.TenantNotBound, "trust domain %s is confined to other tenants", workload.TrustDomain())
	}
	return nil
}

// MayOriginate decides whether the workload may start a chain with the claims,
// by the limits that [Policy.Decide] holds the first signer to. It denies with
// [tenant.WorkloadUnknown], [tenant.WorkloadDenied], [tenant.TenantNotBound],
// [tenant.TenantReplaced], [tenant.OriginationNotAllowed],
// [tenant.IssuerNotAllowed], [tenant.SubjectNotAllowed],
// [tenant.ScopeNotAllowed], [tenant.ClassificationNotAllowed],
// [tenant.LifetimeNotAllowed] or [tenant.ElevationNotAllowed].
//
// Where the claims are derived from a chain that the workload received, from
// holds that chain's hops: each of their trust domains must be one that the
// workload may originate anew from.
func (p *Policy) MayOriginate(self spiffeid.ID, c *hop.Claims, from []hop.Step) (d Decision) {
	d.chain = true // to be
	_ = d.begin(p, "originate", "") && d.claimed(c) && d.signer(self) && d.mayAct(c) && d.mayOriginate(c) && d.mayDerive(c, from)
	return d
}

// MayPublish decides whether the workload may publish to a subject or topic.
// It denies with [tenant.WorkloadUnknown], [tenant.WorkloadDenied] or
// [tenant.PublishNotAllowed].
func (p *Policy) MayPublish(self spiffeid.ID, target string) (d Decision) {
	_ = d.begin(p, "publish", target) && d.signer(self) && d.mayUse(checkPublishes, d.last().workload.publishes, tenant.PublishNotAllowed)
	return d
}

// MayConsume decides whether the workload may consume from a queue, subject or
// topic. It denies with [tenant.WorkloadUnknown], [tenant.WorkloadDenied] or
// [tenant.ConsumeNotAllowed].
func (p *Policy) MayConsume(self spiffeid.ID, queue string) (d Decision) {
	_ = d.begin(p, "consume", queue) && d.signer(self) && d.mayUse(checkConsumes, d.last().workload.consumes, tenant.ConsumeNotAllowed)
	return d
}

// mayUse decides whether the target is among the workload's queues.
func (d *Decision) mayUse(c check, queues []scopePattern, r tenant.Reason) bool {
	if !validQueue(d.target) || !slices.ContainsFunc(queues, func(s scopePattern) bool { return s.matches(d.target) }) {
		w := d.last().workload
		return d.deny(c, denyBy(w.at, r, "the queue is not among those of workload %q", w.name))
	}
	return d.pass(c)
}

// MaxTTL returns how long claims may live that the workload originates: what
// its entry says, or [DefaultMaxTTL]. It is 0 if the workload may not
// originate.
func (p *Policy) MaxTTL(self spiffeid.ID) time.Duration {
	if p.Current() == nil {
		return 0
	}
	s, err := p.actor(self)
	if err != nil || s.workload.originate == nil {
		return 0
	}
	return s.workload.originate.maxTTL
}

// begin begins a decision about a method or queue, or about none.
func (d *Decision) begin(p *Policy, question, target string) bool {
	d.question, d.target = question, target
	if p.Current() == nil {
		return d.deny(checkPolicy, tenant.Deny(tenant.PolicyUnavailable, "there is no policy in force"))
	}
	d.policy = p
	return d.pass(checkPolicy)
}

// covered decides whether rules cover the method.
func (d *Decision) covered(declared *Declared) bool {
	if d.declared = declared; declared == nil {
		d.declared = &undeclared
	}
	methods, method := &d.policy.methods, d.target
	if d.method = methods.named[method]; d.method != nil {
		d.service = method[1:strings.LastIndexByte(method, '/')]
	} else if service, _, ok := splitMethod(method); ok {
		d.method, d.service = methods.others[service], service
	}
	switch {
	case d.method == nil:
		return d.deny(checkMethod, tenant.Deny(tenant.MethodNotCovered, "no rule covers the method: add it under methods, with callers or with exempt: true"))
	case d.method.exempt && d.declared.at != "" && !d.declared.exempt:
		return d.deny(checkMethod, denyBy(d.method.at[0], tenant.MethodNotCovered,
			"the method is exempt here and not by (tenantmesh.v1.method) in %s: set exempt: true there, or give it callers here", d.declared.at))
	}
	return d.pass(checkMethod)
}

// enter adds the workload at this end or at the other. To an exempt method
// those may come too who have no entry but whose trust domain is listed.
func (d *Decision) enter(id spiffeid.ID) bool {
	if d.signer(id) {
		return true
	}
	if d.Exempt() && d.err.Reason == tenant.WorkloadUnknown && d.policy.domains[id.TrustDomain().Name()] != nil && id.Path() != "" {
		d.err = nil
		return d.pass(checkPath)
	}
	return false
}

// signer adds a workload to the path, if the policy knows it.
func (d *Decision) signer(id spiffeid.ID) bool {
	s, err := d.policy.actor(id)
	if err != nil {
		if d.chain {
			err = err.AtHop(d.signers)
		}
		return d.deny(checkPath, err)
	}
	d.path[d.signers] = s
	d.signers++
	return d.pass(checkPath)
}

// actor returns the one entry that allows the ID, and what goes with it.
func (p *Policy) actor(id spiffeid.ID) (actor, *tenant.Error) {
	d := p.domains[id.TrustDomain().Name()]
	if d == nil {
		return actor{}, tenant.Deny(tenant.WorkloadUnknown, "the trust domain of %q is not listed", id)
	}
	path := id.Path()
	if w, _ := d.deny.find(path); w != nil {
		return actor{}, denyBy(w.at, tenant.WorkloadDenied, "%s is denied by entry %q", id, w.name)
	}
	w, captured := d.allow.find(path)
	if w == nil {
		return actor{}, tenant.Deny(tenant.WorkloadUnknown, "no entry matches %s", id)
	}
	return actor{id, d, w, captured}, nil
}

// admit decides whether the last signer may call the method.
func (d *Decision) admit() bool {
	w := d.last().workload
	if r := d.method.excludes(w); r != nil {
		return d.deny(checkCallers, denyBy(r.at, tenant.CallerNotAllowed, "workload %q is not among the method's callers", w.name).AtHop(d.peerHop()))
	}
	d.pass(checkCallers)
	return d.calls(tenant.CallerNotAllowed)
}

// calls decides whether the method is among the calls of the last signer.
func (d *Decision) calls(r tenant.Reason) bool {
	w := d.last().workload
	if d.callsAt = w.calls.get(d.target, d.service); d.callsAt == "" {
		return d.deny(checkCalls, denyBy(w.at, r, "the method is not among the calls of workload %q", w.name).AtHop(d.peerHop()))
	}
	return d.pass(checkCalls)
}

// mayAct decides whether all signers may act for the claims' tenant.
func (d *Decision) mayAct(c *hop.Claims) bool {
	if c.Elevation != "" {
		return d.deny(checkBindings, tenant.Deny(tenant.ElevationNotAllowed, "no rule grants elevations").AtHop(0))
	}
	listed, ok := d.policy.tenants.find(c.Tenant)
	if !ok {
		return d.deny(checkBindings, tenant.Deny(tenant.TenantNotBound, "the tenant is not listed").AtHop(0))
	}
	d.tenant = listed
	attributes := d.policy.tenants.attributes(listed)
	for i := range d.signers {
		s := &d.path[i]
		// To the caller, these look like a tenant that is not listed.
		switch in := s.domain.tenants; {
		case in != nil && !in.has(c.Tenant, tenant.ID{}, attributes):
			return d.deny(checkBindings, denyBy(s.domain.at, tenant.TenantNotBound, "trust domain %s is confined to other tenants", s.id.TrustDomain()).AtHop(i))
		case !s.workload.tenants.has(c.Tenant, s.captured, attributes):
			return d.deny(checkBindings, denyBy(s.workload.at, tenant.TenantNotBound, "workload %q is not bound to the tenant", s.workload.name).AtHop(i))
		}
	}
	// Only after that: who is not bound learns nothing of what was before.
	if c.TenantUID != listed.uid {
		return d.deny(checkBindings, tenant.Deny(tenant.TenantReplaced, "the claims are for another tenant of this name").AtHop(0))
	}
	return d.pass(checkBindings)
}

// mayOriginate decides whether the first signer may start a chain with the
// claims, given that it may act for their tenant. Details never quote a claim:
// it may be a secret.
func (d *Decision) mayOriginate(c *hop.Claims) bool {
	w := d.path[0].workload
	deny := func(r tenant.Reason, format string, args ...any) bool {
		return d.deny(checkOrigination, denyBy(w.at, r, format, args...).AtHop(0))
	}
	o := w.originate
	switch {
	case o == nil:
		return deny(tenant.OriginationNotAllowed, "workload %q may only forward", w.name)
	case c.Parent != nil && len(o.from) == 0:
		return deny(tenant.OriginationNotAllowed, "no rule lets workload %q originate anew", w.name)
	case o.issuers == nil && c.Issuer != "":
		return deny(tenant.IssuerNotAllowed, "workload %q may not originate for an external issuer", w.name)
	case o.issuers != nil && !slices.Contains(o.issuers, c.Issuer):
		return deny(tenant.IssuerNotAllowed, "the issuer is not among those of workload %q", w.name)
	case c.Subject == "" || o.subjects != nil && !slices.ContainsFunc(o.subjects, func(g glob) bool { return g.matches(c.Subject) }):
		return deny(tenant.SubjectNotAllowed, "the subject is not among those of workload %q", w.name)
	case c.Classification > o.classification:
		return deny(tenant.ClassificationNotAllowed, "classification %d is above the %d of workload %q", c.Classification, o.classification, w.name)
	}
	for i, scope := range c.Scopes {
		if !validScope(scope) || !slices.ContainsFunc(o.scopes, func(p scopePattern) bool { return p.matches(scope) }) {
			return deny(tenant.ScopeNotAllowed, "scope %d of %d is not among those of workload %q", i+1, len(c.Scopes), w.name)
		}
	}
	// Sub saturates, so claims that never expire are caught as well.
	if life := c.Expires.Sub(c.IssuedAt); life <= 0 || life > o.maxTTL {
		return deny(tenant.LifetimeNotAllowed, "a life of %s; the most is %s for workload %q", life, o.maxTTL, w.name)
	}
	return d.pass(checkOrigination)
}

// mayDerive decides whether the workload may originate anew from a chain of
// the given hops. Who verifies the result does not see them: its policy has
// taken the workload at its word.
func (d *Decision) mayDerive(c *hop.Claims, from []hop.Step) bool {
	w := d.path[0].workload
	if (c.Parent != nil) != (len(from) > 0) {
		return d.deny(checkOrigination, denyBy(w.at, tenant.OriginationNotAllowed, "claims have a parent exactly if they are derived from one").AtHop(0))
	}
	for _, s := range from {
		if td := s.Signer.TrustDomain(); !slices.Contains(w.originate.from, td.Name()) {
			return d.deny(checkOrigination, denyBy(w.at, tenant.OriginationNotAllowed, "workload %q may not originate anew from %s", w.name, td).AtHop(0))
		}
	}
	return true
}

// meets decides whether what the method asks for is there.
func (d *Decision) meets(c *Call) bool {
	m := d.method
	for _, needs := range [...][]need{m.scopes, d.declared.scopes} {
		for _, n := range needs {
			if !slices.Contains(c.Scopes, n.scope) {
				return d.deny(checkScopes, denyBy(n.at, tenant.ScopeMissing, "the method requires the scope %q", n.scope))
			}
		}
	}
	d.pass(checkScopes)
	for _, n := range [...]level{m.classification, d.declared.classification} {
		if n.classification > c.Claims.Classification {
			return d.deny(checkClassification, denyBy(n.at, tenant.ClassificationNotAllowed,
				"the method is classified %d, the claims reach to %d", n.classification, c.Claims.Classification))
		}
	}
	d.pass(checkClassification)
	if len(m.conditions) == 0 {
		return d.pass(checkConditions)
	}
	f := d.facts(c)
	defer f.free()
	for _, r := range m.conditions {
		if !r.when.holds(f) {
			return d.deny(checkConditions, denyBy(r.at, tenant.ConditionNotMet, "the condition does not hold: %s", r.when.text))
		}
	}
	return d.pass(checkConditions)
}

// denyBy is [tenant.Deny] by a rule.
func denyBy(at string, r tenant.Reason, format string, args ...any) *tenant.Error {
	e := tenant.Deny(r, format, args...)
	e.Rule = at
	return e
}
