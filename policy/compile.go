package policy

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// A document of the greatest size must neither take minutes nor gigabytes.
const (
	// maxSteps is how much comparing of patterns one document is worth: enough
	// for 4,000 entries that all have patterns, or for 10,000 beside 1,000.
	maxSteps = 1 << 24
	// maxRules is how many rules may match a method.
	maxRules = 32
)

// compile checks what is written against itself and builds the Policy. It
// reports faults to l and goes on, so that one run finds most of them.
func (l *loader) compile(raw rawPolicy) *Policy {
	p := &Policy{
		domains: map[string]*domain{},
		tenants: l.compileTenants(raw),
	}
	l.sets = l.tenantSets(p, raw.sets)
	for _, r := range raw.domains {
		l.addDomain(p, r)
	}
	named := l.addWorkloads(p, raw.workloads)
	l.addMethods(p, raw.methods, named)
	return p
}

func (l *loader) tenantID(t text) (tenant.ID, bool) {
	id, err := tenant.ParseID(t.value)
	if err != nil {
		l.fail(t.pos, "tenant %q: 2 to 63 of a-z, 0-9 and, inside, '-' and '_'", t.value)
	}
	return id, err == nil
}

func validUID(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != ':' && !validName(string(rune(c))) {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

func (l *loader) addDomain(p *Policy, r rawDomain) {
	if err := checkDomain(r.name.value); err != nil {
		l.fail(r.name.pos, "trust domain %q: %v", r.name.value, err)
		return
	}
	if d := p.domains[r.name.value]; d != nil {
		l.fail(r.name.pos, "trust domain %q stands twice: %s", r.name.value, d.at)
		return
	}
	d := &domain{at: l.place(r.line)}
	if r.tenants.set {
		set := l.tenantSet(p, r.tenants, false)
		d.tenants = &set
	}
	p.domains[r.name.value] = d
}

func (l *loader) unlisted(at pos, p *Policy, domain string) {
	l.fail(at, "trust domain %q is not listed under trust_domains%s", domain, l.didYouMean(domain, maps.Keys(p.domains)))
}

// tenantSets compiles the tenant_sets. One holds no others, so that their
// order does not matter.
func (l *loader) tenantSets(p *Policy, raw []rawSet) map[string]*tenantSet {
	sets := map[string]*tenantSet{}
	for _, r := range raw {
		if !validName(r.name.value) {
			l.fail(r.name.pos, "a tenant set's name has letters, digits, '.', '_' or '-'")
		}
		if sets[r.name.value] != nil {
			l.fail(r.name.pos, "tenant set %q stands twice", r.name.value)
		}
		set := tenantSet{selectors: []selector{{l.word(r.tier), l.word(r.region)}}}
		if r.tenants.set {
			set = l.tenantSet(p, r.tenants, false)
		}
		sets[r.name.value] = &set
	}
	return sets
}

// tenantSet compiles a list of tenants. Only where the entry's pattern
// captures one may, and then must, "{tenant}" stand in it.
func (l *loader) tenantSet(p *Policy, r list, captures bool) tenantSet {
	set := tenantSet{ids: map[tenant.ID]bool{}}
	for _, t := range r.items {
		switch name, isSet := strings.CutPrefix(t.value, "set:"); {
		case t.value == "*":
			set.all = true
			if len(r.items) > 1 {
				l.fail(t.pos, `"*" is all listed tenants and stands alone`)
			}
			continue
		case t.value == placeholder:
			set.captured = true
			if !captures {
				l.fail(t.pos, "{tenant} stands only where the match of the workload has it")
			}
			continue
		case isSet && l.sets == nil:
			l.fail(t.pos, "a tenant set has no others in it")
			continue
		case isSet:
			other := l.sets[name]
			if other == nil {
				l.fail(t.pos, "no tenant set is named %q%s", name, l.didYouMean(name, maps.Keys(l.sets)))
				continue
			}
			set.all = set.all || other.all
			set.selectors = append(set.selectors, other.selectors...)
			maps.Copy(set.ids, other.ids)
			continue
		}
		id, ok := l.tenantID(t)
		if !ok {
			continue
		}
		if _, listed := p.tenants.find(id); !listed {
			l.fail(t.pos, "tenant %q is not listed under tenants%s", t.value, l.didYouMean(t.value, p.tenants.names()))
		}
		set.ids[id] = true
	}
	return set
}

// addWorkloads compiles the entries and returns them by name.
func (l *loader) addWorkloads(p *Policy, raw []rawWorkload) map[string]*workload {
	named := map[string]*workload{}
	steps := 0
	for _, r := range raw {
		w := &workload{name: r.name.value, at: l.place(r.line), deny: r.deny}
		if !validName(w.name) || len(w.name) > maxName {
			l.fail(r.name.pos, "a workload's name has 1 to 128 letters, digits, '.', '_' or '-'")
		}
		if other := named[w.name]; other != nil {
			l.fail(r.name.pos, "workload %q stands twice: %s", w.name, other.at)
		}
		named[w.name] = w
		match, err := parsePattern(r.match.value)
		if err != nil {
			l.fail(r.match.pos, "%v", err)
			continue
		}
		w.match = match
		d := p.domains[match.domain]
		if d == nil {
			l.unlisted(r.match.pos, p, match.domain)
			continue
		}
		if w.deny {
			l.checkDeny(r, w)
			d.deny.add(w)
			continue
		}
		w.tenants = l.tenantSet(p, r.tenants, match.captures())
		if match.captures() && !w.tenants.captured {
			// As likely as not, "*" was written and the captured one meant.
			l.fail(r.match.pos, `{tenant} stands in match and not in tenants: use it there, or * here`)
		}
		if r.originate != nil {
			w.originate = l.origination(p, r.originate)
		}
		for _, t := range r.calls.items {
			if service, name, ok := l.methodPattern(t); ok {
				w.calls.set(service, name, l.place(t.line))
			}
		}
		w.publishes, w.consumes = l.queues(r.publishes), l.queues(r.consumes)
		for _, other := range d.allow.rivals(w, &steps) {
			l.fail(r.match.pos, "entries %q (%s) and %q (%s) may match the same SPIFFE ID",
				other.name, other.at, w.name, w.at)
			if len(l.errs) > 10*maxErrors { // a document gone wrong has pairs without end
				return named
			}
		}
		d.allow.add(w)
		if steps > maxSteps {
			l.fail(r.match.pos, "there are too many patterns with *, ** or {tenant} to compare each with all other entries")
			return named
		}
	}
	return named
}

// checkDeny refuses what has no meaning for an entry that denies.
func (l *loader) checkDeny(r rawWorkload, w *workload) {
	if w.match.captures() {
		l.fail(r.match.pos, "a deny entry has * where {tenant} would match fewer")
	}
	if r.tenants.set || r.calls.set || r.publishes.set || r.consumes.set || r.originate != nil {
		l.fail(r.pos, "a deny entry has a name and a match only")
	}
}

// scopes compiles patterns of scopes.
func (l *loader) scopes(r list) []scopePattern {
	var patterns []scopePattern
	for _, t := range r.items {
		s, err := parseScopePattern(t.value)
		if err != nil {
			l.fail(t.pos, "%v", err)
		}
		patterns = append(patterns, s)
	}
	return patterns
}

// queues compiles patterns of queues, subjects and topics, which have the form
// of scopes.
func (l *loader) queues(r list) []scopePattern {
	for _, t := range r.items {
		if strings.Contains(t.value, ">") {
			l.fail(t.pos, "%q has a >: the rest is ** here", t.value)
		}
	}
	return l.scopes(r)
}

func (l *loader) origination(p *Policy, r *rawOriginate) *origination {
	o := &origination{classification: r.classification, maxTTL: DefaultMaxTTL, scopes: l.scopes(r.scopes)}
	for _, t := range r.issuers.items {
		if strings.Contains(t.value, "*") {
			l.fail(t.pos, "issuers are exact: no *")
		}
		o.issuers = append(o.issuers, t.value)
	}
	for _, t := range r.from.items {
		if p.domains[t.value] == nil {
			l.unlisted(t.pos, p, t.value)
		}
		o.from = append(o.from, t.value)
	}
	for _, t := range r.subjects.items {
		if strings.Contains(t.value, "**") {
			l.fail(t.pos, "in a subject, one * already stands for any characters")
		}
		o.subjects = append(o.subjects, strings.Split(t.value, "*"))
	}
	for _, r := range []list{r.issuers, r.subjects, r.from} {
		if r.set && len(r.items) == 0 {
			l.fail(r.pos, "an empty list here lets nothing be originated: leave it out, or originate")
		}
	}
	if r.maxTTL.set {
		d, err := time.ParseDuration(r.maxTTL.value)
		if err != nil || d <= 0 || d > MaxMaxTTL || d%time.Second != 0 {
			l.fail(r.maxTTL.pos, "max_ttl is whole seconds up to 1h, such as 5m or 90s")
		}
		o.maxTTL = d
	}
	return o
}

func (l *loader) methodPattern(t text) (service, name string, ok bool) {
	service, name, ok = splitMethodPattern(t.value)
	if !ok {
		l.fail(t.pos, "%q is no method: /package.Service/Method, or /package.Service/* for all of a service", t.value)
	}
	return service, name, ok
}

func (l *loader) addMethods(p *Policy, raw []rawMethod, named map[string]*workload) {
	rules := map[string][]*rule{} // by service
	for _, r := range raw {
		service, name, ok := l.methodPattern(r.match)
		if !ok {
			continue
		}
		next := &rule{pos: r.pos, at: l.place(r.line), name: name, exempt: r.exempt, classification: r.classification, when: l.condition(r.when)}
		if r.exempt && (r.callers.set || r.scopes.set || r.classification > 0 || r.when.set) {
			l.fail(r.pos, "an exempt method has a match only")
		}
		if r.callers.set {
			next.callers = l.callers(r.callers, named)
		}
		for _, t := range r.scopes.items {
			if !validScope(t.value) {
				l.fail(t.pos, "a required scope is exact: no *, no blanks, no empty segment between dots")
			}
			next.scopes = append(next.scopes, t.value)
		}
		rules[service] = append(rules[service], next)
	}
	for service, list := range rules {
		l.service(p, service, list)
	}
}

func (l *loader) callers(r list, named map[string]*workload) map[*workload]bool {
	callers := map[*workload]bool{}
	for _, t := range r.items {
		w := named[t.value]
		switch {
		case w == nil:
			l.fail(t.pos, "no workload is named %q%s", t.value, l.didYouMean(t.value, maps.Keys(named)))
		case w.deny:
			l.fail(t.pos, "the workload %q is denied (%s)", t.value, w.at)
		default:
			callers[w] = true
		}
	}
	return callers
}

// service brings together, for each method that is named and for all others,
// the rules that match it.
func (l *loader) service(p *Policy, service string, rules []*rule) {
	byName := map[string][]*rule{}
	for _, r := range rules {
		byName[r.name] = append(byName[r.name], r)
	}
	all := byName["*"]
	for name, named := range byName {
		others := all
		if name == "*" {
			others = nil
		}
		last := named[len(named)-1].pos
		if len(named)+len(others) > maxRules {
			l.fail(last, "more than %d rules match a method: write them as one", maxRules)
			continue
		}
		m := newMethod(slices.Concat(named, others))
		if m.exempt && len(m.rules) > 1 {
			l.fail(last, "an exemption stands alone, but these rules match the same method: %s", strings.Join(m.at, ", "))
		}
		p.methods.set(service, name, m)
	}
}
