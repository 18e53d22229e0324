package policy

import (
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Admission is a peer's leave to call a method.
type Admission struct {
	// Method is the full method.
	Method string
	// Exempt says that the method needs no tenant.
	Exempt bool
	// Peer is the policy's name for the peer; for an exempt method it may be
	// empty.
	Peer string
	// Rules that decided, as file:line.
	Rules []string
}

// Call is what [Policy.Authorize] decides about. Everything in it was verified
// before.
type Call struct {
	// Method is the full method.
	Method string
	// Path holds the signers, the originator first and the peer last.
	Path []spiffeid.ID
	// Claims of the chain.
	Claims *hop.Claims
	// Scopes in force: those of the claims as the hops narrowed them.
	Scopes []string
}

// Authorization is leave to run a call for its tenant.
type Authorization struct {
	// Workloads are the policy's names along the path.
	Workloads []string
	// Rules that decided, as file:line.
	Rules []string
}

// Covers says whether rules cover the method, and whether they exempt it from
// the tenant. A malformed method is never covered.
func (p *Policy) Covers(method string) (covered, exempt bool) {
	if p.Current() == nil {
		return false, false
	}
	m, _, _ := p.method(method)
	return m != nil, m != nil && m.exempt
}

// Admit decides whether a peer may call a method, before anything is known of
// a tenant: rules cover the method, its callers include the peer, and the
// peer's calls include the method. It fails with [tenant.MethodNotCovered],
// [tenant.WorkloadUnknown], [tenant.WorkloadDenied] or
// [tenant.CallerNotAllowed].
//
// An exempt method is open to every peer of a listed trust domain that no deny
// entry matches, whether or not an entry allows it: a peer needs no calls to
// ask for health.
func (p *Policy) Admit(method string, peer spiffeid.ID) (*Admission, error) {
	if p.Current() == nil {
		return nil, unavailable()
	}
	m, service, name := p.method(method)
	if m == nil {
		return nil, notCovered()
	}
	w, _, derr := p.workload(peer)
	if m.exempt {
		if derr != nil && !p.mayUseExempt(peer, derr) {
			return nil, derr
		}
		a := &Admission{Method: method, Exempt: true, Rules: m.at}
		if w != nil {
			a.Peer = w.name
		}
		return a, nil
	}
	if derr != nil {
		return nil, derr
	}
	callsAt, derr := admit(m, w, service, name)
	if derr != nil {
		return nil, derr
	}
	return &Admission{Method: method, Peer: w.name, Rules: append(slices.Clip(m.at), callsAt)}, nil
}

// admit decides for a method that is not exempt; it returns the place in the
// workload's calls.
func admit(m *method, w *workload, service, name string) (string, *tenant.Error) {
	if r := m.excludes(w); r != nil {
		return "", denyBy(r.at, tenant.CallerNotAllowed, "workload %q is not among the method's callers", w.name)
	}
	at := w.calls.allows(service, name)
	if at == "" {
		return "", denyBy(w.at, tenant.CallerNotAllowed, "the method is not among the calls of workload %q", w.name)
	}
	return at, nil
}

// mayUseExempt says whether an ID that is no entry's may still call exempt
// methods: it may unless its trust domain is unknown or it is denied.
func (p *Policy) mayUseExempt(id spiffeid.ID, why *tenant.Error) bool {
	return why.Reason == tenant.WorkloadUnknown && p.domains[id.TrustDomain().Name()] != nil && id.Path() != ""
}

// Authorize decides whether a call may run: every signer on the path may act
// for the tenant, the first may originate the claims, and the scopes that the
// method requires are in force. It asks again whether the peer may call the
// method, so that one version of the policy decides all. Conditions on an
// exempt method are the same, except that it has no callers and no scopes.
//
// Beside the reasons of [Policy.Admit] and [Policy.MayOriginate] it fails with
// [tenant.ContextMissing], [tenant.ChainTooLong] and [tenant.ScopeMissing].
func (p *Policy) Authorize(c Call) (*Authorization, error) {
	if p.Current() == nil {
		return nil, unavailable()
	}
	m, service, name := p.method(c.Method)
	if m == nil {
		return nil, notCovered()
	}
	if len(c.Path) == 0 || c.Claims == nil {
		return nil, tenant.Deny(tenant.ContextMissing, "a call without path or claims")
	}
	// One allocation each, with room for a place per signer, per rule and for calls.
	a := &Authorization{
		Workloads: make([]string, 0, len(c.Path)),
		Rules:     make([]string, 0, len(c.Path)+len(m.at)+1),
	}
	var path [hop.MaxHops]actor
	if len(c.Path) > len(path) {
		return nil, tenant.Deny(tenant.ChainTooLong, "%d signers", len(c.Path))
	}
	for i, id := range c.Path {
		w, captured, derr := p.workload(id)
		if derr != nil {
			return nil, derr.AtHop(i)
		}
		path[i] = actor{id, w, captured}
		a.Workloads = append(a.Workloads, w.name)
		a.Rules = append(a.Rules, w.at)
	}
	last := len(c.Path) - 1
	a.Rules = append(a.Rules, m.at...)
	if !m.exempt {
		callsAt, derr := admit(m, path[last].workload, service, name)
		if derr != nil {
			return nil, derr.AtHop(last)
		}
		a.Rules = append(a.Rules, callsAt)
	}
	if derr := p.mayAct(path[:len(c.Path)], c.Claims); derr != nil {
		return nil, derr
	}
	if derr := path[0].mayOriginate(c.Claims); derr != nil {
		return nil, derr.AtHop(0)
	}
	for _, r := range m.rules {
		for _, scope := range r.scopes {
			if !slices.Contains(c.Scopes, scope) {
				return nil, denyBy(r.at, tenant.ScopeMissing, "the method requires the scope %q", scope)
			}
		}
	}
	return a, nil
}

// MayCall decides, before a call leaves, whether the workload itself may make
// it, and says whether the method is exempt from the tenant and which rule
// decided. It fails with [tenant.CallNotAllowed] or [tenant.MethodNotCovered],
// or because the workload's entry is missing or denies. The method's callers
// are for the server to judge. As for [Policy.Admit], an exempt method need
// not be among the workload's calls.
func (p *Policy) MayCall(self spiffeid.ID, method string) (exempt bool, rule string, err error) {
	if p.Current() == nil {
		return false, "", unavailable()
	}
	m, service, name := p.method(method)
	if m == nil {
		return false, "", notCovered()
	}
	w, _, derr := p.workload(self)
	if m.exempt {
		if derr != nil && !p.mayUseExempt(self, derr) {
			return false, "", derr
		}
		return true, m.at[0], nil
	}
	if derr != nil {
		return false, "", derr
	}
	at := w.calls.allows(service, name)
	if at == "" {
		return false, "", denyBy(w.at, tenant.CallNotAllowed, "the method is not among the calls of workload %q", w.name)
	}
	return false, at, nil
}

// MayOriginate decides whether the workload may start a chain with the claims,
// by the limits that [Policy.Authorize] holds the first signer to, and says
// which rule allows it. It fails with [tenant.WorkloadUnknown],
// [tenant.WorkloadDenied], [tenant.TenantNotBound], [tenant.TenantReplaced],
// [tenant.OriginationNotAllowed], [tenant.IssuerNotAllowed],
// [tenant.SubjectNotAllowed], [tenant.ScopeNotAllowed],
// [tenant.ClassificationNotAllowed], [tenant.LifetimeNotAllowed] or
// [tenant.ElevationNotAllowed].
func (p *Policy) MayOriginate(self spiffeid.ID, c *hop.Claims) (rule string, err error) {
	if p.Current() == nil {
		return "", unavailable()
	}
	if c == nil {
		return "", tenant.Deny(tenant.ContextMissing, "no claims")
	}
	w, captured, derr := p.workload(self)
	if derr != nil {
		return "", derr.AtHop(0)
	}
	path := [1]actor{{self, w, captured}}
	if derr := p.mayAct(path[:], c); derr != nil {
		return "", derr
	}
	if derr := path[0].mayOriginate(c); derr != nil {
		return "", derr.AtHop(0)
	}
	return w.at, nil
}

// MaxTTL returns how long claims may live that the workload originates: what
// its entry says, or [DefaultMaxTTL]. It is 0 if the workload may not
// originate.
func (p *Policy) MaxTTL(self spiffeid.ID) time.Duration {
	if p.Current() == nil {
		return 0
	}
	w, _, derr := p.workload(self)
	if derr != nil || w.originate == nil {
		return 0
	}
	return w.originate.maxTTL
}

// actor is a signer and its entry.
type actor struct {
	id       spiffeid.ID
	workload *workload
	captured tenant.ID // the tenant that its SPIFFE ID names, if its entry says so
}

// workload returns the one entry that allows the ID and the tenant that it captured.
func (p *Policy) workload(id spiffeid.ID) (*workload, tenant.ID, *tenant.Error) {
	d := p.domains[id.TrustDomain().Name()]
	if d == nil {
		return nil, tenant.ID{}, tenant.Deny(tenant.WorkloadUnknown, "the trust domain of %q is not listed", id)
	}
	path := id.Path()
	if w, _ := d.deny.find(path); w != nil {
		return nil, tenant.ID{}, denyBy(w.at, tenant.WorkloadDenied, "%s is denied by entry %q", id, w.name)
	}
	w, captured := d.allow.find(path)
	if w == nil {
		return nil, tenant.ID{}, tenant.Deny(tenant.WorkloadUnknown, "no entry matches %s", id)
	}
	return w, captured, nil
}

// mayAct decides whether all signers may act for the claims' tenant.
func (p *Policy) mayAct(path []actor, c *hop.Claims) *tenant.Error {
	if c.Elevation != "" {
		return tenant.Deny(tenant.ElevationNotAllowed, "no rule grants elevations").AtHop(0)
	}
	uid, listed := p.tenants[c.Tenant]
	for i := range path {
		s := &path[i]
		d := p.domains[s.id.TrustDomain().Name()]
		// To the caller, these three are one.
		switch {
		case !listed:
			return tenant.Deny(tenant.TenantNotBound, "the tenant is not listed").AtHop(i)
		case d.tenants != nil && !d.tenants.has(c.Tenant, tenant.ID{}):
			return denyBy(d.at, tenant.TenantNotBound, "trust domain %s is confined to other tenants", s.id.TrustDomain()).AtHop(i)
		case !s.workload.tenants.has(c.Tenant, s.captured):
			return denyBy(s.workload.at, tenant.TenantNotBound, "workload %q is not bound to the tenant", s.workload.name).AtHop(i)
		}
	}
	// Only after that: who is not bound learns nothing of what was before.
	if c.TenantUID != uid {
		return tenant.Deny(tenant.TenantReplaced, "the claims are for another tenant of this name").AtHop(0)
	}
	return nil
}

// mayOriginate decides whether the first signer may start a chain with the
// claims, given that it may act for their tenant. Details never quote a claim:
// it may be a secret.
func (s *actor) mayOriginate(c *hop.Claims) *tenant.Error {
	w, o := s.workload, s.workload.originate
	deny := func(r tenant.Reason, format string, args ...any) *tenant.Error {
		return denyBy(w.at, r, format, args...)
	}
	switch {
	case o == nil:
		return deny(tenant.OriginationNotAllowed, "workload %q may only forward", w.name)
	case c.Parent != nil:
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
	return nil
}

func unavailable() *tenant.Error {
	return tenant.Deny(tenant.PolicyUnavailable, "there is no policy in force")
}

func notCovered() *tenant.Error {
	return tenant.Deny(tenant.MethodNotCovered, "no rule covers the method")
}

// denyBy is [tenant.Deny] by a rule.
func denyBy(at string, r tenant.Reason, format string, args ...any) *tenant.Error {
	e := tenant.Deny(r, format, args...)
	e.Rule = at
	return e
}
