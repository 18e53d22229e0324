package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/internal/leaf"
	"github.com/tenantmesh/tenantmesh/tenant"
)

const (
	scheme      = "spiffe://"
	placeholder = "{tenant}"
)

// pattern matches SPIFFE IDs of one trust domain by whole path segments. There
// are no regular expressions: a dot is a dot.
type pattern struct {
	domain   string
	segments []segment
	rest     bool // one or more segments follow: **
}

// segment matches one path segment.
type segment struct {
	glob    glob // one part: exactly this text
	capture bool // glob is what stands before and after {tenant}
}

// parsePattern parses the match of a workload entry.
func parsePattern(s string) (pattern, error) {
	id, ok := strings.CutPrefix(s, scheme)
	if !ok {
		return pattern{}, fmt.Errorf("a match begins with %s", scheme)
	}
	if len(s) > leaf.MaxID {
		return pattern{}, fmt.Errorf("a SPIFFE ID has at most %d bytes", leaf.MaxID)
	}
	name, path, ok := strings.Cut(id, "/")
	if !ok {
		return pattern{}, errors.New("a match has a path; /** at the end stands for any")
	}
	if err := checkDomain(name); err != nil {
		return pattern{}, err
	}
	p := pattern{domain: name}
	captures := 0
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if part == "**" {
			if i != len(parts)-1 {
				return pattern{}, errors.New("** stands only at the end")
			}
			p.rest = true
			break
		}
		seg, err := parseSegment(part)
		if err != nil {
			return pattern{}, err
		}
		if seg.capture {
			captures++
		}
		p.segments = append(p.segments, seg)
	}
	if captures > 1 {
		return pattern{}, errors.New("{tenant} stands at most once")
	}
	return p, nil
}

func checkDomain(name string) error {
	if strings.Contains(name, ":") {
		return errors.New("a trust domain is a name, without scheme or port")
	}
	if len(name) > 255 { // SPIFFE-ID, section 2.1
		return errors.New("a trust domain has at most 255 bytes")
	}
	_, err := spiffeid.TrustDomainFromString(name)
	return err
}

func parseSegment(s string) (segment, error) {
	seg := segment{glob: strings.Split(s, "*")}
	if strings.Contains(s, placeholder) {
		if strings.Contains(s, "*") || strings.Count(s, placeholder) > 1 {
			return segment{}, fmt.Errorf("segment %q: {tenant} is alone but for literal text", s)
		}
		seg = segment{glob: strings.Split(s, placeholder), capture: true}
	}
	if strings.Contains(s, "**") {
		return segment{}, fmt.Errorf("segment %q: ** is a segment of its own", s)
	}
	if len(seg.glob) == 1 {
		// The SPIFFE-ID standard, section 2.2: no empty or dot segments.
		if err := spiffeid.ValidatePathSegment(s); err != nil {
			return segment{}, fmt.Errorf("segment %q: %w", s, err)
		}
		return seg, nil
	}
	for _, part := range seg.glob {
		if part != "" && part != "." && part != ".." && spiffeid.ValidatePathSegment(part) != nil {
			return segment{}, fmt.Errorf("segment %q: letters, digits, '.', '-', '_', '*' and {tenant} only", s)
		}
	}
	return seg, nil
}

// captures reports whether {tenant} stands in p.
func (p *pattern) captures() bool {
	for i := range p.segments {
		if p.segments[i].capture {
			return true
		}
	}
	return false
}

// matches reports whether a path segment matches, and the tenant that it names.
func (s *segment) matches(part string) (captured tenant.ID, ok bool) {
	if !s.glob.matches(part) {
		return tenant.ID{}, false
	}
	if !s.capture {
		return tenant.ID{}, true
	}
	id, err := tenant.ParseID(part[len(s.glob[0]) : len(part)-len(s.glob[1])])
	return id, err == nil
}

// cutSegment splits "/a/b" into "a" and "/b".
func cutSegment(path string) (first, rest string) {
	path = path[1:]
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

func (s *segment) literal() bool { return len(s.glob) == 1 }

// overlaps reports whether some segment matches both s and t. It is exact, and
// adds to steps what that took.
func (s *segment) overlaps(t *segment, steps *int) bool {
	*steps++
	switch {
	case t.literal():
		_, ok := s.matches(t.glob[0])
		return ok
	case s.literal():
		_, ok := t.matches(s.glob[0])
		return ok
	case !s.glob.endsMeet(t.glob):
		return false
	case !s.capture && !t.capture:
		// Between the ends there is room for whatever either wants there.
		return true
	case !s.capture:
		s, t = t, s
	}
	// One with {tenant}, against one with it or with *.
	*steps += len(tenantIDs)
	affixes, other := len(s.glob[0])+len(s.glob[1]), len(t.glob[0])+len(t.glob[1])
	for i := range tenantIDs {
		tmpl := s.template(i)
		if !t.capture {
			if t.glob.matchesTemplate(tmpl) {
				return true
			}
			continue
		}
		j := i + affixes - other // as long as the first
		if j >= 0 && j < len(tenantIDs) && fitsAt(tmpl, t.template(j), 0) {
			return true
		}
	}
	return false
}

// A template stands for all texts of one length that a segment with {tenant}
// may be: at each place a byte, or one of these two for the bytes that a tenant
// ID has there.
const (
	tenantEdge  = '\x01' // a-z 0-9
	tenantInner = '\x02' // a-z 0-9 - _
)

// tenantIDs are the templates of tenant IDs, which have 2 to 63 bytes.
var tenantIDs = func() (all [62]string) {
	for i := range all {
		all[i] = string(tenantEdge) + strings.Repeat(string(tenantInner), i) + string(tenantEdge)
	}
	return all
}()

// template returns the template of a segment with {tenant} for the IDs of the
// given index.
func (s *segment) template(i int) string { return s.glob[0] + tenantIDs[i] + s.glob[1] }

// fitsAt reports whether a text may have part at index i, where both are
// templates and tmpl is long enough.
func fitsAt(tmpl, part string, i int) bool {
	for j := range len(part) {
		a, b := tmpl[i+j], part[j]
		if a > b {
			a, b = b, a // the class first, if there is one
		}
		lower := b >= 'a' && b <= 'z' || b >= '0' && b <= '9'
		switch {
		case a == b, a == tenantEdge && (b == tenantInner || lower), a == tenantInner && (lower || b == '-' || b == '_'):
		default:
			return false
		}
	}
	return true
}

// glob is a text in which * stands for any characters, or none, as the parts
// between the stars.
type glob []string

func (g glob) matches(s string) bool {
	first, last := g[0], g[len(g)-1]
	if len(g) == 1 {
		return s == first
	}
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, part := range g[1 : len(g)-1] {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return true
}

// matchesTemplate is matches for a template. What fits at one place of a
// template does not depend on the others, so taking the leftmost place for each
// part is right here too.
func (g glob) matchesTemplate(tmpl string) bool {
	first, last := g[0], g[len(g)-1]
	end := len(tmpl) - len(last)
	if end < len(first) || !fitsAt(tmpl, first, 0) || !fitsAt(tmpl, last, end) {
		return false
	}
	i := len(first)
	for _, part := range g[1 : len(g)-1] {
		for ; i+len(part) <= end && !fitsAt(tmpl, part, i); i++ {
		}
		if i+len(part) > end {
			return false
		}
		i += len(part)
	}
	return true
}

// endsMeet reports whether a text may begin and end as both globs ask.
func (g glob) endsMeet(h glob) bool {
	a, b := g[0], h[0]
	y, z := g[len(g)-1], h[len(h)-1]
	return (strings.HasPrefix(a, b) || strings.HasPrefix(b, a)) &&
		(strings.HasSuffix(y, z) || strings.HasSuffix(z, y))
}

// scopePattern matches scopes by the segments between their dots.
type scopePattern struct {
	segments []string // "*" is any one
	rest     bool     // one or more follow: **
}

func parseScopePattern(s string) (scopePattern, error) {
	var p scopePattern
	parts := strings.Split(s, ".")
	for i, part := range parts {
		switch {
		case part == "**" && i == len(parts)-1:
			p.rest = true
			return p, nil
		case part == "**":
			return p, errors.New("** stands only at the end")
		case part != "*" && !validScopeSegment(part):
			return p, fmt.Errorf("%q is no scope: segments between dots, * for a whole one, ** at the end for the rest", s)
		}
		p.segments = append(p.segments, part)
	}
	return p, nil
}

// validScope reports whether s is a scope-token (RFC 6749, section 3.3)
// without empty segments and without '*', which only patterns have.
func validScope(s string) bool {
	for {
		part, rest, more := strings.Cut(s, ".")
		if !validScopeSegment(part) {
			return false
		}
		if !more {
			return true
		}
		s = rest
	}
}

// validQueue reports whether s has the form of a scope and is one queue, and
// not many: '>' is NATS's **.
func validQueue(s string) bool { return validScope(s) && !strings.Contains(s, ">") }

func validScopeSegment(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' || c == '*' {
			return false
		}
	}
	return s != ""
}

// matches reports whether a valid scope matches.
func (p *scopePattern) matches(scope string) bool {
	more := true
	for _, want := range p.segments {
		if !more {
			return false
		}
		var part string
		part, scope, more = strings.Cut(scope, ".")
		if want != "*" && want != part {
			return false
		}
	}
	return p.rest == more
}
