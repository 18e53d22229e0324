package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

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

func digest(doc []byte) string {
	sum := sha256.Sum256(doc)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// compile checks what is written against itself and builds the Policy. It
// reports faults to l and goes on, so that one run finds most of them.
func (l *loader) compile(raw rawPolicy) *Policy {
	p := &Policy{
		domains: map[string]*domain{},
		methods: map[string]*service{},
		tenants: l.compileTenants(raw.tenants),
	}
	for _, r := range raw.domains {
		l.addDomain(p, r)
	}
	named := l.addWorkloads(p, raw.workloads)
	l.addMethods(p, raw.methods, named)
	return p
}

func (l *loader) compileTenants(raw []rawTenant) map[tenant.ID]string {
	tenants := map[tenant.ID]string{}
	lines := map[string]int{} // by ID, and by uid after a space
	once := func(t text, key, what string) {
		if line := lines[key]; line != 0 {
			l.fail(t.pos, "%s %q stands twice, first in line %d", what, t.value, line)
		}
		lines[key] = t.line
	}
	for _, r := range raw {
		id, ok := l.tenantID(r.id)
		if !ok {
			continue
		}
		if !validUID(r.uid.value) {
			l.fail(r.uid.pos, "a uid has 1 to 128 letters, digits, '.', '_', ':' or '-'")
		}
		once(r.id, r.id.value, "tenant")
		once(r.uid, " "+r.uid.value, "uid")
		tenants[id] = r.uid.value
	}
	return tenants
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
	d := &domain{at: l.place(r.pos)}
	if r.tenants.set {
		set := l.tenantSet(p, r.tenants, false)
		d.tenants = &set
	}
	p.domains[r.name.value] = d
}

// tenantSet compiles a list of tenants. Only where the entry's pattern
// captures one may, and then must, "{tenant}" stand in it.
func (l *loader) tenantSet(p *Policy, r list, captures bool) tenantSet {
	set := tenantSet{ids: map[tenant.ID]bool{}}
	for _, t := range r.items {
		switch t.value {
		case "*":
			set.all = true
			if len(r.items) > 1 {
				l.fail(t.pos, `"*" is all listed tenants and stands alone`)
			}
			continue
		case placeholder:
			set.captured = true
			if !captures {
				l.fail(t.pos, "{tenant} does not stand in the entry's match")
			}
			continue
		}
		id, ok := l.tenantID(t)
		if !ok {
			continue
		}
		if _, listed := p.tenants[id]; !listed {
			l.fail(t.pos, "tenant %q is not listed under tenants", t.value)
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
		w := &workload{name: r.name.value, at: l.place(r.pos), deny: r.deny, calls: callSet{}}
		if !validName(w.name) || len(w.name) > 128 {
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
			l.fail(r.match.pos, "trust domain %q is not listed under trust_domains", match.domain)
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
			w.originate = l.origination(r.originate)
		}
		for _, t := range r.calls.items {
			if service, name, ok := l.methodPattern(t); ok {
				w.calls.add(service, name, l.place(t.pos))
			}
		}
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
	if r.tenants.set || r.calls.set || r.originate != nil {
		l.fail(r.pos, "a deny entry has a name and a match only")
	}
}

// rivals returns the entries whose patterns overlap w's, and adds to steps what
// that took.
func (ix *index) rivals(w *workload, steps *int) []*workload {
	var found []*workload
	try := func(other *workload) {
		if w.match.overlaps(&other.match, steps) {
			found = append(found, other)
		}
	}
	if w.match.literal() {
		if other := ix.exact[w.match.path]; other != nil {
			found = append(found, other)
		}
	} else {
		for _, other := range ix.exact {
			try(other)
		}
	}
	for _, others := range ix.fixed {
		for _, other := range others {
			try(other)
		}
	}
	for _, other := range ix.rest {
		try(other)
	}
	slices.SortFunc(found, func(a, b *workload) int { return strings.Compare(a.name, b.name) })
	return found
}

func (l *loader) origination(r *rawOriginate) *origination {
	o := &origination{classification: r.classification, maxTTL: DefaultMaxTTL}
	for _, t := range r.issuers.items {
		if strings.Contains(t.value, "*") {
			l.fail(t.pos, "issuers are exact: no *")
		}
		o.issuers = append(o.issuers, t.value)
	}
	for _, t := range r.scopes.items {
		s, err := parseScopePattern(t.value)
		if err != nil {
			l.fail(t.pos, "%v", err)
		}
		o.scopes = append(o.scopes, s)
	}
	for _, t := range r.subjects.items {
		if strings.Contains(t.value, "**") {
			l.fail(t.pos, "in a subject, one * already stands for any characters")
		}
		o.subjects = append(o.subjects, strings.Split(t.value, "*"))
	}
	for _, r := range []list{r.issuers, r.subjects} {
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

func (l *loader) classification(n *yaml.Node) uint32 {
	if n == nil {
		return 0
	}
	v, err := strconv.ParseUint(n.Value, 10, 32)
	if err != nil || n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || len(n.Value) > 1 && n.Value[0] == '0' {
		l.fail(posOf(n), "classification is a number from 0, the lowest, to 4294967295")
	}
	return uint32(v)
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
		next := &rule{pos: r.pos, at: l.place(r.pos), name: name, exempt: r.exempt}
		if r.exempt && (r.callers.set || r.scopes.set) {
			l.fail(r.pos, "an exempt method has neither callers nor scopes")
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
	for name, list := range rules {
		p.methods[name] = l.service(list)
	}
}

func (l *loader) callers(r list, named map[string]*workload) map[*workload]bool {
	callers := map[*workload]bool{}
	for _, t := range r.items {
		w := named[t.value]
		switch {
		case w == nil:
			l.fail(t.pos, "no workload is named %q%s", t.value, l.didYouMean(t.value, slices.Sorted(maps.Keys(named))))
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
func (l *loader) service(rules []*rule) *service {
	s := &service{named: map[string]*method{}}
	byName := map[string][]*rule{}
	for _, r := range rules {
		byName[r.name] = append(byName[r.name], r)
	}
	all := byName["*"]
	for name, named := range byName {
		if n := len(all); n > maxRules || name != "*" && n+len(named) > maxRules {
			l.fail(named[len(named)-1].pos, "more than %d rules match a method: write them as one", maxRules)
			continue
		}
		m := newMethod(named)
		if name == "*" {
			s.other = m
		} else {
			m = newMethod(slices.Concat(named, all))
			s.named[name] = m
		}
		if m.exempt && len(m.rules) > 1 {
			l.fail(named[len(named)-1].pos, "an exemption stands alone, but these rules match the same method: %s", strings.Join(m.at, ", "))
		}
	}
	return s
}
