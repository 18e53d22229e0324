package policy

import (
	"strings"

	"github.com/tenantmesh/tenantmesh/hop"
)

// splitMethod splits "/package.Service/Method". It fails for anything that is
// not exactly that: no slash, two, "%2F", '#' or '?' (CVE-2026-33186).
func splitMethod(full string) (service, name string, ok bool) {
	if !hop.ValidMethod(full) {
		return "", "", false
	}
	return strings.Cut(full[1:], "/")
}

// splitMethodPattern is splitMethod for a pattern, whose name may be "*".
func splitMethodPattern(s string) (service, name string, ok bool) {
	if head, star := strings.CutSuffix(s, "/*"); star {
		service, _, ok = splitMethod(head + "/x")
		return service, "*", ok
	}
	return splitMethod(s)
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

// callSet is the calls of a workload: by service and method (or "*") the place
// that allows it.
type callSet map[string]map[string]string

func (s callSet) add(service, name, at string) {
	if s[service] == nil {
		s[service] = map[string]string{}
	}
	s[service][name] = at
}

// allows returns the place that allows the method, or "".
func (s callSet) allows(service, name string) string {
	if at := s[service][name]; at != "" {
		return at
	}
	return s[service]["*"]
}

// rule is an entry of methods.
type rule struct {
	pos     pos
	at      string // file:line
	name    string // of the method, or "*"
	exempt  bool
	callers map[*workload]bool // nil: not stated
	scopes  []string
}

// method is all rules that match a method, together.
type method struct {
	exempt bool
	rules  []*rule
	at     []string // of rules
}

// service holds the methods of a service.
type service struct {
	named map[string]*method
	other *method // by "*" alone; nil if there is no such rule
}

func newMethod(rules []*rule) *method {
	m := &method{rules: rules}
	for _, r := range rules {
		m.exempt = m.exempt || r.exempt
		m.at = append(m.at, r.at)
	}
	return m
}

// method returns the rules for a method, or nil if none covers it or it is malformed.
func (p *Policy) method(full string) (m *method, serviceName, name string) {
	serviceName, name, ok := splitMethod(full)
	if !ok {
		return nil, "", ""
	}
	s := p.methods[serviceName]
	if s == nil {
		return nil, "", ""
	}
	if m = s.named[name]; m == nil {
		m = s.other
	}
	return m, serviceName, name
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
