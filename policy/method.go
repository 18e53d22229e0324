package policy

import (
	"strings"

	"github.com/tenantmesh/tenantmesh/hop"
)

// splitMethodPattern splits "/package.Service/Method", whose method may be "*".
// It fails for anything that is not exactly that: no slash, two, "%2F", '#' or
// '?' (CVE-2026-33186).
func splitMethodPattern(s string) (service, name string, ok bool) {
	if head, star := strings.CutSuffix(s, "/*"); star {
		service, _, ok = splitMethod(head + "/x")
		return service, "*", ok
	}
	return splitMethod(s)
}

// splitMethod is splitMethodPattern for a method.
func splitMethod(full string) (service, name string, ok bool) {
	if !hop.ValidMethod(full) {
		return "", "", false
	}
	return strings.Cut(full[1:], "/")
}

func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return s != ""
}

// byMethod holds something for methods: for one by its full name, or for the
// others of a service.
type byMethod[T any] struct {
	named  map[string]T // by "/package.Service/Method"
	others map[string]T // by "package.Service"
}

func (b *byMethod[T]) set(service, name string, v T) {
	m, key := &b.named, "/"+service+"/"+name
	if name == "*" {
		m, key = &b.others, service
	}
	if *m == nil {
		*m = map[string]T{}
	}
	(*m)[key] = v
}

// get returns what there is for a method of the service, which is known to be
// well-formed.
func (b *byMethod[T]) get(full, service string) T {
	if v, ok := b.named[full]; ok {
		return v
	}
	return b.others[service]
}

// rule is an entry of methods.
type rule struct {
	pos            pos
	at             string // file:line
	name           string // of the method, or "*"
	exempt         bool
	callers        map[*workload]bool // nil: not stated
	scopes         []string
	classification uint32
	when           *condition // nil: none
}

// method is all rules that match a method, together.
type method struct {
	exempt         bool
	rules          []*rule
	at             []string // of rules
	scopes         []need
	classification level
	conditions     []*rule
}

// need is a scope that a method requires, and the rule that says so.
type need struct{ scope, at string }

// level is the classification of a method, and the rule that says so.
type level struct {
	classification uint32
	at             string
}

func newMethod(rules []*rule) *method {
	m := &method{rules: rules}
	for _, r := range rules {
		m.exempt = m.exempt || r.exempt
		m.at = append(m.at, r.at)
		for _, scope := range r.scopes {
			m.scopes = append(m.scopes, need{scope, r.at})
		}
		if r.classification > m.classification.classification {
			m.classification = level{r.classification, r.at}
		}
		if r.when != nil {
			m.conditions = append(m.conditions, r)
		}
	}
	return m
}

// excludes returns the rule by which w may not call the method, or nil if w may. A
// method for which no rule states its callers has none.
func (m *method) excludes(w *workload) *rule {
	stated := false
	for _, r := range m.rules {
		if r.callers == nil {
			continue
		}
		stated = true
		if !r.callers[w] {
			return r
		}
	}
	if !stated {
		return m.rules[0]
	}
	return nil
}
