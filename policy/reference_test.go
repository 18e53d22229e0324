package policy

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// What follows decides anew, as slowly and as plainly as the package's comment says it,
// about documents that it has as Go values and not as text. It shares no code
// with the package.
type (
	refPolicy struct {
		domains   []refDomain
		workloads []*refWorkload
		rules     []refRule
		sets      []refSet
		tenants   []refTenant
	}
	refDomain struct {
		name     string
		confined bool
		tenants  []string
	}
	refWorkload struct {
		name, match                         string
		deny                                bool
		tenants, calls, publishes, consumes []string
		originate                           *refOriginate
	}
	refOriginate struct {
		issuers, scopes, subjects, from []string
		classification                  uint32
		maxTTL                          time.Duration // 0: not stated
	}
	refRule struct {
		match           string
		exempt, callers bool // callers: stated
		named           []string
		scopes          []string
		classification  uint32
		when            *refCondition
	}
	refSet struct {
		name         string
		list         bool
		tenants      []string
		tier, region string
	}
	refTenant struct {
		id, tier, region string
		classification   int // -1: not stated
		inFile           bool
	}
	// refCondition is a condition as text and as code; code that fails returns false.
	refCondition struct {
		text  string
		holds func(p *refPolicy, q *question) bool
	}
)

// question is what a policy may be asked.
type question struct {
	ask      string
	method   string
	declared *Declared
	path     []string // SPIFFE IDs; the last or only one asks
	claims   *hop.Claims
	scopes   []string
	now      time.Time
	from     []string // trust domains
	queue    string
}

func uidOf(tenant string) string { return "uid-" + tenant }

// tenant returns what the policy lists of a tenant, or nil.
func (p *refPolicy) tenant(id string) *refTenant {
	for i := range p.tenants {
		if p.tenants[i].id == id {
			return &p.tenants[i]
		}
	}
	return nil
}

var refConditions = []refCondition{
	{`true`, func(*refPolicy, *question) bool { return true }},
	{`false`, func(*refPolicy, *question) bool { return false }},
	{`claims.classification <= 1`, func(_ *refPolicy, q *question) bool { return q.claims.Classification <= 1 }},
	{`path[0].workload == "w0"`, func(p *refPolicy, q *question) bool { return p.entry(q.path[0]).name == "w0" }},
	{`path.size() < 2`, func(_ *refPolicy, q *question) bool { return len(q.path) < 2 }},
	{`peer.trust_domain != "b.example"`, func(_ *refPolicy, q *question) bool {
		return !strings.HasPrefix(q.path[len(q.path)-1], "spiffe://b.example/")
	}},
	{`tenant.tier != "gold"`, func(p *refPolicy, q *question) bool {
		t := p.tenant(q.claims.Tenant.String())
		return t.tier != "" && t.tier != "gold"
	}},
	{`tenant.classification < claims.classification + 1`, func(p *refPolicy, q *question) bool {
		t := p.tenant(q.claims.Tenant.String())
		return t.classification >= 0 && t.classification < int(q.claims.Classification)+1
	}},
	{`claims.iss == "i1" || claims.sub == "ann"`, func(_ *refPolicy, q *question) bool { return q.claims.Issuer == "i1" || q.claims.Subject == "ann" }},
	{`claims.tctx.dept != "hr"`, func(_ *refPolicy, q *question) bool { d, ok := q.claims.Attributes["dept"]; return ok && d != "hr" }},
	{`"r.read" in claims.scope`, func(_ *refPolicy, q *question) bool { return slices.Contains(q.scopes, "r.read") }},
	{`method == "/p.S/M"`, func(_ *refPolicy, q *question) bool { return q.method == "/p.S/M" }},
	{`now < claims.exp`, func(_ *refPolicy, q *question) bool { return !q.now.IsZero() && q.now.Before(q.claims.Expires) }},
}

var expressions = map[string]*regexp.Regexp{}

// compiled returns an expression for a whole text.
func compiled(re string) *regexp.Regexp {
	if len(expressions) > 1000 {
		clear(expressions)
	}
	if expressions[re] == nil {
		expressions[re] = regexp.MustCompile("^(?s:" + re + ")$")
	}
	return expressions[re]
}

// idMatches reports whether an ID matches, and the tenant in it.
func idMatches(match, id string) (captured string, ok bool) {
	parts, segments := strings.Split(match, "/"), strings.Split(id, "/") // spiffe:, "", the domain, the path
	for i, part := range parts {
		if part == "**" {
			return captured, len(segments) > i
		}
		if i >= len(segments) {
			return "", false
		}
		re := strings.ReplaceAll(regexp.QuoteMeta(part), `\*`, `.*`)
		re = strings.ReplaceAll(re, `\{tenant\}`, `([a-z0-9][a-z0-9_-]{0,61}[a-z0-9])`)
		m := compiled(re).FindStringSubmatch(segments[i])
		if m == nil {
			return "", false
		}
		if len(m) > 1 {
			captured = m[1]
		}
	}
	return captured, len(parts) == len(segments)
}

func (p *refPolicy) denied(id string) bool {
	return slices.ContainsFunc(p.workloads, func(w *refWorkload) bool { _, ok := idMatches(w.match, id); return ok && w.deny })
}

// entry returns the entry that allows an ID, or nil.
func (p *refPolicy) entry(id string) *refWorkload {
	for _, w := range p.workloads {
		if _, ok := idMatches(w.match, id); ok && !w.deny {
			return w
		}
	}
	return nil
}

func domainOf(id string) string { return strings.Split(id+"//", "/")[2] }

func (p *refPolicy) domain(id string) *refDomain {
	for i := range p.domains {
		if p.domains[i].name == domainOf(id) {
			return &p.domains[i]
		}
	}
	return nil
}

// in reports whether a tenant is among the items.
func (p *refPolicy) in(items []string, t *refTenant, captured string) bool {
	for _, item := range items {
		switch name, isSet := strings.CutPrefix(item, "set:"); {
		case item == "*", item == t.id, item == "{tenant}" && captured == t.id:
			return true
		case isSet:
			for _, s := range p.sets {
				if s.name != name {
					continue
				}
				if s.list && p.in(s.tenants, t, "") || !s.list && (s.tier == "" || s.tier == t.tier) && (s.region == "" || s.region == t.region) {
					return true
				}
			}
		}
	}
	return false
}

// nameMatches is about scopes and queues.
func nameMatches(pattern, name string) bool {
	want, wantRest, _ := strings.Cut(pattern, ".")
	is, rest, more := strings.Cut(name, ".")
	if name == "" || is == "" || strings.ContainsAny(is, "*") {
		return false
	}
	if want == "**" {
		return !more || nameMatches("**", rest)
	}
	if want != "*" && want != is {
		return false
	}
	if !more {
		return !strings.Contains(pattern, ".")
	}
	return strings.Contains(pattern, ".") && nameMatches(wantRest, rest)
}

func anyName(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return nameMatches(p, name) })
}

func methodMatches(pattern, method string) bool {
	service, _, _ := strings.Cut(method[1:], "/")
	return pattern == method || pattern == "/"+service+"/*"
}

// rulesFor returns the rules that match a method.
func (p *refPolicy) rulesFor(method string) (rules []refRule) {
	if !compiled(`/[A-Za-z0-9_.]+/[A-Za-z0-9_]+`).MatchString(method) {
		return nil
	}
	for _, r := range p.rules {
		if methodMatches(r.match, method) {
			rules = append(rules, r)
		}
	}
	return rules
}

// decide returns the reason of a denial, or "".
func (p *refPolicy) decide(q *question) tenant.Reason {
	switch q.ask {
	case "publish", "consume":
		return p.decideQueue(q)
	case "originate":
		if r := p.known(q.path[0]); r != "" {
			return r
		}
		if r := p.mayAct(q); r != "" {
			return r
		}
		return p.mayOriginate(q, true)
	}
	rules := p.rulesFor(q.method)
	if len(rules) == 0 {
		return tenant.MethodNotCovered
	}
	exempt := rules[0].exempt
	if exempt && q.declared != nil && q.declared.at != "" && !q.declared.exempt {
		return tenant.MethodNotCovered
	}
	if q.ask == "covers" {
		return ""
	}
	for _, id := range q.path {
		r := p.known(id)
		open := exempt && q.ask != "decide" && p.domain(id) != nil && !p.denied(id)
		if r != "" && !open {
			return r
		}
	}
	peer := p.entry(q.path[len(q.path)-1])
	if !exempt {
		stated := false
		for _, r := range rules {
			stated = stated || r.callers
			if r.callers && !slices.Contains(r.named, peer.name) && q.ask != "call" {
				return tenant.CallerNotAllowed
			}
		}
		if !stated && q.ask != "call" {
			return tenant.CallerNotAllowed
		}
		if !slices.ContainsFunc(peer.calls, func(c string) bool { return methodMatches(c, q.method) }) {
			if q.ask == "call" {
				return tenant.CallNotAllowed
			}
			return tenant.CallerNotAllowed
		}
	}
	if q.ask != "decide" {
		return ""
	}
	if r := p.mayAct(q); r != "" {
		return r
	}
	if r := p.mayOriginate(q, false); r != "" {
		return r
	}
	return p.meets(q, rules)
}

func (p *refPolicy) decideQueue(q *question) tenant.Reason {
	if r := p.known(q.path[0]); r != "" {
		return r
	}
	w, r := p.entry(q.path[0]), tenant.PublishNotAllowed
	queues := w.publishes
	if q.ask == "consume" {
		queues, r = w.consumes, tenant.ConsumeNotAllowed
	}
	if strings.Contains(q.queue, ">") || !anyName(queues, q.queue) {
		return r
	}
	return ""
}

func (p *refPolicy) known(id string) tenant.Reason {
	switch {
	case p.domain(id) == nil:
		return tenant.WorkloadUnknown
	case p.denied(id):
		return tenant.WorkloadDenied
	case p.entry(id) == nil:
		return tenant.WorkloadUnknown
	}
	return ""
}

func (p *refPolicy) mayAct(q *question) tenant.Reason {
	if q.claims.Elevation != "" {
		return tenant.ElevationNotAllowed
	}
	t := p.tenant(q.claims.Tenant.String())
	if t == nil {
		return tenant.TenantNotBound
	}
	for _, id := range q.path {
		w, d := p.entry(id), p.domain(id)
		captured, _ := idMatches(w.match, id)
		if d.confined && !p.in(d.tenants, t, "") || !p.in(w.tenants, t, captured) {
			return tenant.TenantNotBound
		}
	}
	if q.claims.TenantUID != uidOf(t.id) {
		return tenant.TenantReplaced
	}
	return ""
}

func (p *refPolicy) mayOriginate(q *question, self bool) tenant.Reason {
	o, c := p.entry(q.path[0]).originate, q.claims
	if o == nil || c.Parent != nil && len(o.from) == 0 {
		return tenant.OriginationNotAllowed
	}
	if len(o.issuers) == 0 && c.Issuer != "" || len(o.issuers) > 0 && !slices.Contains(o.issuers, c.Issuer) {
		return tenant.IssuerNotAllowed
	}
	subject := c.Subject != "" && len(o.subjects) == 0
	for _, s := range o.subjects {
		subject = subject || c.Subject != "" && compiled(strings.ReplaceAll(regexp.QuoteMeta(s), `\*`, `.*`)).MatchString(c.Subject)
	}
	if !subject {
		return tenant.SubjectNotAllowed
	}
	if c.Classification > o.classification {
		return tenant.ClassificationNotAllowed
	}
	for _, s := range c.Scopes {
		if !anyName(o.scopes, s) {
			return tenant.ScopeNotAllowed
		}
	}
	most := o.maxTTL
	if most == 0 {
		most = 5 * time.Minute
	}
	if !c.Expires.After(c.IssuedAt) || c.Expires.After(c.IssuedAt.Add(most)) {
		return tenant.LifetimeNotAllowed
	}
	if self {
		if (c.Parent == nil) != (len(q.from) == 0) {
			return tenant.OriginationNotAllowed
		}
		for _, d := range q.from {
			if !slices.Contains(o.from, d) {
				return tenant.OriginationNotAllowed
			}
		}
	}
	return ""
}

func (p *refPolicy) meets(q *question, rules []refRule) tenant.Reason {
	var scopes []string
	var classification uint32
	for _, r := range rules {
		scopes, classification = append(scopes, r.scopes...), max(classification, r.classification)
	}
	if q.declared != nil {
		classification = max(classification, q.declared.classification.classification)
		for _, n := range q.declared.scopes {
			scopes = append(scopes, n.scope)
		}
	}
	for _, s := range scopes {
		if !slices.Contains(q.scopes, s) {
			return tenant.ScopeMissing
		}
	}
	if q.claims.Classification < classification {
		return tenant.ClassificationNotAllowed
	}
	for _, r := range rules {
		if r.when != nil && !r.when.holds(p, q) {
			return tenant.ConditionNotMet
		}
	}
	return ""
}

// ask asks a compiled policy.
func ask(p *Policy, q *question) Decision {
	id := func(s string) spiffeid.ID {
		if s == "" {
			return spiffeid.ID{}
		}
		return spiffeid.RequireFromString(s)
	}
	self := id(q.path[len(q.path)-1])
	switch q.ask {
	case "covers":
		return p.Covers(q.method, q.declared)
	case "admit":
		return p.Admit(q.method, q.declared, self)
	case "call":
		return p.MayCall(self, q.method, q.declared)
	case "publish":
		return p.MayPublish(self, q.queue)
	case "consume":
		return p.MayConsume(self, q.queue)
	case "originate":
		var from []hop.Step
		for _, d := range q.from {
			from = append(from, hop.Step{Signer: id("spiffe://" + d + "/x")})
		}
		return p.MayOriginate(self, q.claims, from)
	}
	c := Call{Method: q.method, Declared: q.declared, Claims: q.claims, Scopes: q.scopes, Time: q.now}
	for _, s := range q.path {
		c.Path = append(c.Path, hop.Step{Signer: id(s), Target: q.method})
	}
	return p.Decide(&c)
}

// text returns the document and its tenants_file, with entries in some order.
func (p *refPolicy) text(shuffle func(n int, swap func(i, j int))) (doc, list string) {
	order := func(entries []string) string {
		entries = slices.Clone(entries)
		shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		return strings.Join(entries, "")
	}
	quoted := func(items []string) string {
		items = slices.Clone(items)
		shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		for i := range items {
			items[i] = fmt.Sprintf("%q", items[i])
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	optional := func(key string, items []string) string {
		if items == nil {
			return ""
		}
		return ", " + key + ": " + quoted(items)
	}
	var domains, workloads, rules, sets, inline, inFile []string
	for _, d := range p.domains {
		s := "  - {name: " + d.name
		if d.confined {
			s += ", tenants: " + quoted(d.tenants)
		}
		domains = append(domains, s+"}\n")
	}
	for _, w := range p.workloads {
		s := fmt.Sprintf("  - {name: %s, match: %q", w.name, w.match)
		if w.deny {
			s += ", deny: true"
		}
		s += optional("tenants", w.tenants) + optional("calls", w.calls) + optional("publishes", w.publishes) + optional("consumes", w.consumes)
		if o := w.originate; o != nil {
			s += fmt.Sprintf(", originate: {classification: %d", o.classification)
			s += optional("issuers", o.issuers) + optional("scopes", o.scopes) + optional("subjects", o.subjects) + optional("from", o.from)
			if o.maxTTL > 0 {
				s += ", max_ttl: " + o.maxTTL.String()
			}
			s += "}"
		}
		workloads = append(workloads, s+"}\n")
	}
	for _, r := range p.rules {
		s := fmt.Sprintf("  - {match: %q", r.match)
		if r.exempt {
			s += ", exempt: true"
		}
		if r.callers {
			s += ", callers: " + quoted(r.named)
		}
		if r.classification > 0 {
			s += fmt.Sprintf(", classification: %d", r.classification)
		}
		if r.when != nil {
			s += fmt.Sprintf(", when: '%s'", r.when.text)
		}
		rules = append(rules, s+optional("scopes", r.scopes)+"}\n")
	}
	for _, s := range p.sets {
		value := quoted(s.tenants)
		if !s.list {
			var members []string
			for key, v := range map[string]string{"tier": s.tier, "region": s.region} {
				if v != "" {
					members = append(members, key+": "+v)
				}
			}
			value = "{" + strings.Join(members, ", ") + "}"
		}
		sets = append(sets, "  "+s.name+": "+value+"\n")
	}
	for _, t := range p.tenants {
		row, s := t.id+" uid="+uidOf(t.id), fmt.Sprintf("  %q: {uid: %s", t.id, uidOf(t.id))
		for key, v := range map[string]string{"tier": t.tier, "region": t.region} {
			if v != "" {
				row, s = row+" "+key+"="+v, s+", "+key+": "+v
			}
		}
		if t.classification >= 0 {
			row, s = fmt.Sprintf("%s classification=%d", row, t.classification), fmt.Sprintf("%s, classification: %d", s, t.classification)
		}
		if t.inFile {
			inFile = append(inFile, row+"\n")
		} else {
			inline = append(inline, s+"}\n")
		}
	}
	section := func(name, empty string, entries []string) string {
		if len(entries) == 0 {
			return name + ": " + empty + "\n"
		}
		return name + ":\n" + order(entries)
	}
	return order([]string{
		"version: 1\n", "tenants_file: t.list\n", section("trust_domains", "[]", domains), section("workloads", "[]", workloads),
		section("methods", "[]", rules), section("tenant_sets", "{}", sets), section("tenants", "{}", inline),
	}), order(inFile) + fmt.Sprintf("end: %d\n", len(inFile))
}

func (p *refPolicy) compile(shuffle func(n int, swap func(i, j int))) (*Policy, error) {
	doc, list := p.text(shuffle)
	return Load(fstest.MapFS{"p.yaml": {Data: []byte(doc)}, "t.list": {Data: []byte(list)}}, "p.yaml")
}

// drawer draws policies and questions; n yields a number below its argument.
type drawer struct{ n func(int) int }

func (d drawer) of(words ...string) string { return words[d.n(len(words))] }

func (d drawer) odds(of int) bool { return d.n(of) == 0 }

// some draws a few of the words.
func (d drawer) some(words ...string) []string {
	out := []string{}
	for _, w := range words {
		if d.odds(2) {
			out = append(out, w)
		}
	}
	return out
}

// most draws most of the words.
func (d drawer) most(words ...string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(string) bool { return d.odds(6) })
}

// maybe draws nil or a few of the words, one at least.
func (d drawer) maybe(words ...string) []string {
	if d.odds(2) {
		return nil
	}
	if some := d.some(words...); len(some) > 0 {
		return some
	}
	return words[:1]
}

var (
	refTenants  = []string{"acme", "beta", "00", "a-b"}
	refDomains  = []string{"a.example", "b.example"}
	refMethods  = []string{"/p.S/*", "/p.S/M", "/p.S/N", "/p.T/*", "/p.T/M"}
	refQueues   = []string{"q.*", "q.new", "**", "*.new", "q.**", "*"}
	refPatterns = []string{"**", "*", "r.*", "r.read", "*.read", "r.**"}
)

func (d drawer) policy() *refPolicy {
	p := &refPolicy{}
	var listed []string
	for _, id := range refTenants {
		if !d.odds(5) {
			listed = append(listed, id)
			p.tenants = append(p.tenants, refTenant{id, d.of("", "gold", "silver"), d.of("", "eu", "us"), d.n(4) - 1, d.odds(2)})
		}
	}
	for _, name := range []string{"s0", "s1", "s2"} {
		s := refSet{name: name, list: d.odds(2), tier: d.of("", "gold", "silver"), region: d.of("", "eu")}
		if s.list || s.tier+s.region == "" {
			s = refSet{name: name, list: true, tenants: d.some(listed...)}
			if d.odds(6) {
				s.tenants = []string{"*"}
			}
		}
		p.sets = append(p.sets, s)
	}
	sets := []string{"set:s0", "set:s1", "set:s2"}
	for _, name := range refDomains {
		if name == "a.example" || !d.odds(4) {
			p.domains = append(p.domains, refDomain{name, d.odds(3), d.some(slices.Concat(listed, sets)...)})
		}
	}
	var domains, allowed []string
	for _, dom := range p.domains {
		domains = append(domains, dom.name)
	}
	for i := range 2 + d.n(5) {
		w := &refWorkload{name: fmt.Sprintf("w%d", i), deny: d.odds(6)}
		w.match = "spiffe://" + d.of(domains...) + "/" + d.match(w.deny)
		p.workloads = append(p.workloads, w)
		if w.deny {
			continue
		}
		allowed = append(allowed, w.name)
		w.tenants = []string{"*"}
		if d.odds(3) {
			w.tenants = d.maybe(slices.Concat(listed, sets)...)
		}
		if strings.Contains(w.match, "{tenant}") {
			w.tenants = append(d.some(listed...), "{tenant}")
		}
		w.calls = d.most(refMethods...)
		w.publishes, w.consumes = d.maybe(refQueues...), d.maybe(refQueues...)
		if !d.odds(4) {
			w.originate = &refOriginate{
				scopes: d.most(refPatterns...), from: d.maybe(domains...), classification: uint32(3 - d.n(3)),
				maxTTL: []time.Duration{0, time.Minute, time.Hour, time.Hour}[d.n(4)],
			}
			if d.odds(3) {
				w.originate.issuers, w.originate.subjects = d.maybe("i1", "i2"), d.maybe("u:*", "*x", "ann")
			}
		}
	}
	for i := range 1 + d.n(4) {
		r := refRule{match: d.of(refMethods...)}
		if i == 0 {
			r.match = "/p.S/*"
		}
		if d.odds(12) {
			r.exempt = true
		} else {
			r.callers, r.named = !d.odds(4), d.most(allowed...)
			if d.odds(3) {
				r.scopes, r.classification = d.maybe("r.read", "r.write"), uint32(d.n(3))
			}
			if d.odds(3) {
				r.when = &refConditions[d.n(len(refConditions))]
			}
		}
		p.rules = append(p.rules, r)
	}
	return p
}

// match draws the path of a workload's match.
func (d drawer) match(deny bool) string {
	var segments []string
	captured := deny // who is denied captures nothing
	for range 1 + d.n(3) {
		s := d.of("a", "b", "w", "ab", "a*", "*b", "*", "{tenant}", "t-{tenant}")
		if strings.Contains(s, "{") {
			if captured {
				s = "c"
			}
			captured = true
		}
		segments = append(segments, s)
	}
	if d.odds(6) {
		segments = append(segments, "**")
	}
	return strings.Join(segments, "/")
}

func (d drawer) id() string {
	s := "spiffe://" + d.of("a.example", "a.example", "b.example", "c.example")
	for range 1 + d.n(3) {
		s += "/" + d.of("a", "b", "w", "ab", "c", "acme", "t-acme", "t-beta", "00", "t-", "A")
	}
	return s
}

// idOf draws an ID that an entry is likely to match.
func (d drawer) idOf(p *refPolicy) string {
	if len(p.workloads) == 0 || d.odds(5) {
		return d.id()
	}
	match := p.workloads[d.n(len(p.workloads))].match
	return strings.NewReplacer("**", d.of("a", "b/c"), "*", d.of("", "a", "b"), "{tenant}", d.of("acme", "beta", "00")).Replace(match)
}

func (d drawer) question(p *refPolicy) *question {
	q := &question{ask: d.of("covers", "admit", "decide", "call", "originate", "originate", "publish", "consume")}
	if d.odds(2) {
		q.ask = "decide"
	}
	q.method = d.of("/p.S/M", "/p.S/M", "/p.S/N", "/p.S/O", "/p.T/M")
	if d.odds(8) {
		q.method = d.of("/p.U/M", "/p.S/*", "p.S/M", "-", "")
	}
	q.declared = []*Declared{
		nil, nil, {}, {at: "x.proto:1", exempt: true}, {at: "x.proto:1", scopes: []need{{"r.write", "x.proto:1"}}},
		{at: "x.proto:1", classification: level{1, "x.proto:1"}},
	}[d.n(6)]
	q.path = []string{d.idOf(p)}
	for q.ask == "decide" && len(q.path) < 4 && d.odds(2) {
		q.path = append(q.path, d.idOf(p))
	}
	for i, s := range q.path { // a * that stands for nothing may leave no ID
		if _, err := spiffeid.FromString(s); err != nil {
			q.path[i] = d.id()
		}
	}
	id := mustTenant(d.of(refTenants...))
	q.claims = &hop.Claims{
		Tenant: id, TenantUID: uidOf(id.String()), Subject: d.of("ann", "u:bob", "x", "bob"), Issuer: d.of("", "", "", "", "i1", "i2", "i3"),
		Scopes: d.most("r.read", "r.write"), Classification: uint32(d.n(4)),
		IssuedAt: now.Add(-time.Second), Expires: now.Add([]time.Duration{time.Second, 30 * time.Second, 4 * time.Minute, 4 * time.Minute, 20 * time.Minute, 2 * time.Hour, -time.Second}[d.n(7)]),
	}
	q.scopes = d.most(q.claims.Scopes...)
	switch d.n(20) {
	case 0:
		q.claims.TenantUID = "uid-other"
	case 1:
		q.claims.Elevation = "e"
	case 2:
		q.claims.Parent = &hop.Parent{}
		q.from = d.some(refDomains...)
	case 3:
		q.claims.Attributes = map[string]string{"dept": d.of("hr", "it")}
	case 4:
		q.claims.Subject = ""
	case 5:
		q.claims.Scopes = []string{d.of("r", "r.read.all", "r.*", "s.read", "")}
	case 6:
		q.from = d.some(refDomains...)
	}
	if q.now = now; d.odds(8) {
		q.now = time.Time{}
	}
	q.queue = d.of("q.new", "q.old", "q", "q.new.new", "q.>", "q.*", "", "x.new")
	return q
}

// exemptBeside reports whether an exemption does not stand alone.
func (p *refPolicy) exemptBeside() bool {
	for _, m := range []string{"/p.S/M", "/p.S/N", "/p.S/O", "/p.T/M", "/p.T/N"} {
		rules := p.rulesFor(m)
		if len(rules) > 1 && slices.ContainsFunc(rules, func(r refRule) bool { return r.exempt }) {
			return true
		}
	}
	return false
}

// compare holds what one drawn policy decides to the reference, in two orders.
func compare(t testing.TB, d drawer, shuffle func(n int, swap func(i, j int)), questions int, seen map[string]int) {
	t.Helper()
	p := d.policy()
	doc, list := p.text(func(int, func(i, j int)) {})
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("%s\n%s--- t.list\n%s", fmt.Sprintf(format, args...), doc, list)
	}
	written, err := p.compile(func(int, func(i, j int)) {})
	permuted, again := p.compile(shuffle)
	switch {
	case (err == nil) != (again == nil):
		fail("P3: in one order %v, in another %v", err, again)
	case err != nil && strings.Contains(err.Error(), "an exemption stands alone"):
		if !p.exemptBeside() {
			fail("%v", err)
		}
		seen["exempt beside"]++
		return
	case err != nil && strings.Contains(err.Error(), "may match the same SPIFFE ID"):
		seen["overlap"]++
		return
	case err != nil:
		fail("it does not load: %v", err)
	case p.exemptBeside():
		fail("an exemption beside another rule loads")
	}
	for range questions {
		q := d.question(p)
		want := p.decide(q)
		first, second := ask(written, q), ask(permuted, q)
		if got := tenant.ReasonOf(first.Err()); got != want {
			fail("%s %s of %q: %v, want %q\n%+v", q.ask, q.method+q.queue, q.path, first.Err(), want, q)
		}
		if got := tenant.ReasonOf(second.Err()); got != want {
			fail("P3 %s %s of %q: permuted, %v, want %q", q.ask, q.method+q.queue, q.path, second.Err(), want)
		}
		if a, b := first.Exempt(), second.Exempt(); a != b {
			fail("P3: exempt %t, permuted %t", a, b)
		}
		for _, id := range q.path {
			n := 0
			for _, w := range p.workloads {
				if _, ok := idMatches(w.match, id); ok && !w.deny {
					n++
				}
			}
			if n > 1 {
				fail("I3: it loads, and %d entries match %s", n, id)
			}
		}
		seen[q.ask+" "+string(want)]++
	}
}

// TestReference draws policies and questions, and compares the decisions with
// the reference, in the order of the document and in another (P3).
func TestReference(t *testing.T) {
	seen := map[string]int{}
	t.Run("P3 as written and in another order", func(t *testing.T) {
		for seed := range uint64(1000) {
			rng := rand.New(rand.NewPCG(seed, 7))
			compare(t, drawer{rng.IntN}, rng.Shuffle, 100, seen)
		}
	})
	for _, want := range []string{
		"exempt beside", "overlap", "covers ", "covers METHOD_NOT_COVERED", "admit ", "admit CALLER_NOT_ALLOWED", "admit WORKLOAD_UNKNOWN", "admit WORKLOAD_DENIED",
		"call ", "call CALL_NOT_ALLOWED", "publish ", "publish PUBLISH_NOT_ALLOWED", "consume ", "consume CONSUME_NOT_ALLOWED", "originate ", "originate ORIGINATION_NOT_ALLOWED",
		"decide ", "decide METHOD_NOT_COVERED", "decide WORKLOAD_UNKNOWN", "decide WORKLOAD_DENIED", "decide CALLER_NOT_ALLOWED", "decide ELEVATION_NOT_ALLOWED",
		"decide TENANT_NOT_BOUND", "decide TENANT_REPLACED", "decide ORIGINATION_NOT_ALLOWED", "decide ISSUER_NOT_ALLOWED", "decide SUBJECT_NOT_ALLOWED",
		"decide CLASSIFICATION_NOT_ALLOWED", "decide SCOPE_NOT_ALLOWED", "decide LIFETIME_NOT_ALLOWED", "decide SCOPE_MISSING", "decide CONDITION_NOT_MET",
	} {
		if seen[want] < 20 {
			t.Errorf("%q was drawn %d times", want, seen[want])
		}
	}
	t.Logf("%v", seen)
}
