package policy

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func mustPattern(t testing.TB, s string) pattern {
	t.Helper()
	p, err := parsePattern(s)
	if err != nil {
		t.Fatalf("parsePattern(%q): %v", s, err)
	}
	return p
}

// indexed is an index that holds one pattern.
type indexed struct {
	pattern
	ix index
}

func newIndexed(p pattern) *indexed {
	x := &indexed{pattern: p}
	x.ix.add(&workload{match: p})
	return x
}

// matches is what the index says of the path of an ID of the pattern's trust domain.
func (x *indexed) matches(path string) bool {
	w, _ := x.ix.find(path)
	return w != nil
}

// overlaps is what the index says of another pattern of the trust domain.
func (x *indexed) overlaps(q *indexed) bool {
	var steps int
	return len(x.ix.rivals(&workload{match: q.pattern}, &steps)) > 0
}

// match is what a policy says of a pattern and an ID.
func (p *pattern) match(id spiffeid.ID) (string, bool) {
	d := &domain{}
	d.allow.add(&workload{match: *p})
	s, err := (&Policy{domains: map[string]*domain{p.domain: d}}).actor(id)
	return s.captured.String(), err == nil
}

func TestPatternMatches(t *testing.T) {
	for _, tt := range []struct {
		name, pattern, id string
		want              bool
		captured          string
	}{
		{"literal", "/service/pay", "/service/pay", true, ""},
		{"I3 /service/pay does not match /service/payroll", "/service/pay", "/service/payroll", false, ""},
		{"I3 nor what is below it", "/service/pay", "/service/pay/roll", false, ""},
		{"I3 nor what is above it", "/service/pay", "/service", false, ""},
		{"I3 a.b does not match axb", "/a.b", "/axb", false, ""},
		{"I3 a*b is no regular expression", "/a*b", "/aab", true, ""},
		{"I3 .* is no regular expression", "/.*", "/ab", false, ""},
		{"case is kept", "/Pay", "/pay", false, ""},
		{"star is one segment", "/a/*", "/a/b", true, ""},
		{"I3 star does not cross segments", "/a/*", "/a/b/c", false, ""},
		{"I3 star is not none", "/a/*", "/a", false, ""},
		{"star within a segment", "/old-*", "/old-7", true, ""},
		{"star may stand for nothing", "/old-*", "/old-", true, ""},
		{"I3 star within a segment stays within", "/old-*", "/old-7/x", false, ""},
		{"parts in order", "/a*b*c", "/a1b2c", true, ""},
		{"parts out of order", "/a*b*c", "/a1c2b", false, ""},
		{"a part in the middle is missing", "/a*b*c", "/a1c", false, ""},
		{"parts do not share bytes", "/aa*aa", "/aaa", false, ""},
		{"leftmost is enough", "/*ab*b", "/abab", true, ""},
		{"rest", "/a/**", "/a/b/c", true, ""},
		{"rest is at least one", "/a/**", "/a", false, ""},
		{"tenant", "/t/{tenant}/x", "/t/acme/x", true, "acme"},
		{"tenant with affixes", "/t-{tenant}.v1/x", "/t-acme.v1/x", true, "acme"},
		{"P4 tenant A", "/t/{tenant}", "/t/Acme", false, ""},
		{"P4 tenant of one byte", "/t/{tenant}", "/t/0", false, ""},
		{"P4 tenant with dots", "/t/{tenant}", "/t/a.b", false, ""},
		{"P4 tenant that is three dots", "/t/{tenant}", "/t/...", false, ""},
		{"P4 tenant that ends in -", "/t/{tenant}", "/t/acme-", false, ""},
		{"P4 affixes leave nothing", "/t{tenant}t", "/tt", false, ""},
		{"P4 affixes overlap", "/aa{tenant}aa", "/aaa", false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustPattern(t, "spiffe://prod.example"+tt.pattern)
			captured, ok := p.match(spiffeid.RequireFromString("spiffe://prod.example" + tt.id))
			if ok != tt.want || captured != tt.captured {
				t.Errorf("%s on %s: %t %q, want %t %q", tt.pattern, tt.id, ok, captured, tt.want, tt.captured)
			}
			if _, ok := p.match(spiffeid.RequireFromString("spiffe://other.example" + tt.id)); ok {
				t.Error("I3: matches in another trust domain")
			}
		})
	}
}

func TestPatternRefused(t *testing.T) {
	for _, s := range []string{
		"", "/service", "prod.example/a", "http://prod.example/a", "SPIFFE://prod.example/a", "spiffe:/prod.example/a",
		"spiffe:///a", "spiffe://prod.example", "spiffe://prod.example/", "spiffe://prod.example/a/", "spiffe://prod.example//a",
		"spiffe://Prod.example/a", "spiffe://prod.example:443/a", "spiffe://u@prod.example/a", "spiffe://*/a", "spiffe://*.example/a",
		"spiffe://{tenant}.example/a", "spiffe://spiffe://prod.example/a", "spiffe://pröd.example/a",
		"spiffe://prod.example/.", "spiffe://prod.example/a/../b", "spiffe://prod.example/%2e", "spiffe://prod.example/a?b", "spiffe://prod.example/a#b",
		"spiffe://prod.example/ä", "spiffe://prod.example/a b", "spiffe://prod.example/a\x00", "spiffe://prod.example/a\x01*",
		"spiffe://prod.example/**/a", "spiffe://prod.example/a**", "spiffe://prod.example/***",
		"spiffe://prod.example/{tenant}/{tenant}", "spiffe://prod.example/{tenant}-{tenant}", "spiffe://prod.example/{tenant}*",
		"spiffe://prod.example/{tenan}", "spiffe://prod.example/{Tenant}", "spiffe://prod.example/[ab]", "spiffe://prod.example/(a|b)",
		"spiffe://prod.example/" + strings.Repeat("a", 2048),
	} {
		if p, err := parsePattern(s); err == nil {
			t.Errorf("I2 parsePattern(%q) = %+v, want an error", s, p)
		}
	}
}

func TestPatternOverlaps(t *testing.T) {
	long := strings.Repeat("b", 62)
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"/a", "/a", true},
		{"/a", "/b", false},
		{"/a.b", "/axb", false},
		{"/service/pay", "/service/payroll", false},
		{"/service/pay", "/service/pay*", true},
		{"/a/*", "/*/b", true},
		{"/a/*", "/b/*", false},
		{"/a*", "/*b", true},
		{"/a*", "/b*", false},
		{"/*a", "/*b", false},
		{"/ab*", "/a*c", true},
		{"/*x*", "/*y*", true},
		{"/*ab*b", "/ab", false},
		{"/*ab*b", "/abb", true},
		{"/*.a*a", "/{tenant}.a", false},
		{"/*.a*a", "/{tenant}.aa", true},
		{"/a/*", "/a", false},
		{"/a/*", "/a/b/c", false},
		{"/**", "/a/b/c", true},
		{"/a/**", "/a", false},
		{"/a/**", "/a/*", true},
		{"/a/**", "/*/b/**", true},
		{"/a/**", "/b/**", false},
		{"/a/b/**", "/a/c", false},
		{"/a/b/**", "/a/*", false},
		{"/{tenant}", "/*", true},
		{"/{tenant}", "/acme", true},
		{"/{tenant}", "/Acme", false},
		{"/{tenant}", "/a", false},
		{"/{tenant}", "/a.b", false},
		{"/{tenant}", "/A*", false},
		{"/{tenant}", "/*-", false},
		{"/{tenant}", "/*-a", true},
		{"/{tenant}", "/{tenant}", true},
		{"/{tenant}", "/a" + long + "*", true},
		{"/{tenant}", "/ab" + long + "*", false},
		{"/t-{tenant}", "/{tenant}", true},
		{"/T-{tenant}", "/{tenant}", false},
		{"/a.{tenant}", "/{tenant}.b", false},
		{"/ab{tenant}", "/{tenant}cd", true},
		{"/{tenant}.b", "/{tenant}.c", false},
		{"/{tenant}", "/-{tenant}", false},
		{"/{tenant}", "/a" + long + "{tenant}", false},
	} {
		a, b := newIndexed(mustPattern(t, "spiffe://prod.example"+tt.a)), newIndexed(mustPattern(t, "spiffe://prod.example"+tt.b))
		if a.overlaps(b) != tt.want || b.overlaps(a) != tt.want {
			t.Errorf("%s and %s: overlap %t, %t, want %t", tt.a, tt.b, a.overlaps(b), b.overlaps(a), tt.want)
		}
	}
}

// TestOverlapAgreesWithMatching compares the decision about all SPIFFE IDs
// with the matching of every short one over a small alphabet. The lengths are such
// that patterns that overlap at all do so in a short ID.
func TestOverlapAgreesWithMatching(t *testing.T) {
	const alphabet = "aA-"
	var texts, globs []string
	var grow func(prefix string, n int)
	grow = func(prefix string, n int) {
		if prefix != "" {
			texts = append(texts, prefix)
		}
		if n > 0 {
			for _, c := range alphabet {
				grow(prefix+string(c), n-1)
			}
		}
	}
	grow("", 6)
	// Every segment pattern of up to 3 tokens.
	var build func(prefix string, n int)
	build = func(prefix string, n int) {
		if _, err := parseSegment(prefix); err == nil {
			globs = append(globs, prefix)
		}
		if n > 0 {
			for _, tok := range []string{"a", "A", "-", "*", "{tenant}"} {
				build(prefix+tok, n-1)
			}
		}
	}
	build("", 3)
	matched := make([][]bool, len(globs))
	patterns := make([]*indexed, len(globs))
	for i, g := range globs {
		patterns[i] = newIndexed(mustPattern(t, "spiffe://td/"+g))
		matched[i] = make([]bool, len(texts))
		for j, s := range texts {
			matched[i][j] = patterns[i].matches("/" + s)
		}
	}
	overlaps := 0
	for i := range globs {
		for k := range globs {
			want := false
			for j := range texts {
				want = want || matched[i][j] && matched[k][j]
			}
			if got := patterns[i].overlaps(patterns[k]); got != want {
				t.Errorf("%s and %s: overlap %t, but matching says %t", globs[i], globs[k], got, want)
			}
			if want {
				overlaps++
			}
		}
	}
	t.Logf("%d segment patterns, %d overlapping pairs, %d texts", len(globs), overlaps, len(texts))

	// Whole paths, from a few segments each.
	segs := []string{"a", "b", "*", "a*", "*b", "**"}
	var paths []string
	for _, a := range segs[:5] {
		paths = append(paths, "/"+a)
		for _, b := range segs {
			paths = append(paths, "/"+a+"/"+b)
			if b != "**" {
				for _, c := range segs {
					paths = append(paths, "/"+a+"/"+b+"/"+c)
				}
			}
		}
	}
	paths = append(paths, "/**")
	var ids []string
	level := []string{""}
	for range 4 {
		var next []string
		for _, p := range level {
			for _, s := range []string{"a", "b", "ab", "c"} {
				next = append(next, p+"/"+s)
			}
		}
		ids, level = append(ids, next...), next
	}
	whole := make([]*indexed, len(paths))
	for i, x := range paths {
		whole[i] = newIndexed(mustPattern(t, "spiffe://td"+x))
	}
	for i, p := range whole {
		for k, q := range whole {
			want := slices.ContainsFunc(ids, func(id string) bool { return p.matches(id) && q.matches(id) })
			if got := p.overlaps(q); got != want {
				t.Errorf("%s and %s: overlap %t, but matching says %t", paths[i], paths[k], got, want)
			}
		}
	}
}

// TestGlobAgreesWithBacktracking compares the matcher with the obvious one.
func TestGlobAgreesWithBacktracking(t *testing.T) {
	var slow func(g, s string) bool
	slow = func(g, s string) bool {
		switch {
		case g == "":
			return s == ""
		case g[0] == '*':
			return slow(g[1:], s) || s != "" && slow(g, s[1:])
		}
		return s != "" && s[0] == g[0] && slow(g[1:], s[1:])
	}
	rng := rand.New(rand.NewPCG(1, 2))
	draw := func(from string, n int) string {
		var b strings.Builder
		for range rng.IntN(n) {
			b.WriteByte(from[rng.IntN(len(from))])
		}
		return b.String()
	}
	for range 50_000 {
		g, s := draw("ab*", 8), draw("ab", 10)
		if got, want := glob(strings.Split(g, "*")).matches(s), slow(g, s); got != want {
			t.Fatalf("%q on %q: %t, want %t", g, s, got, want)
		}
	}
}

func TestScopePattern(t *testing.T) {
	for _, tt := range []struct {
		pattern, scope string
		want           bool
	}{
		{"orders.read", "orders.read", true},
		{"orders.read", "orders.readall", false},
		{"orders.read", "ordersxread", false},
		{"orders.*", "orders.read", true},
		{"orders.*", "orders", false},
		{"orders.*", "orders.read.all", false},
		{"orders.**", "orders.read.all", true},
		{"orders.**", "orders", false},
		{"*", "orders", true},
		{"*", "orders.read", false},
		{"**", "orders.read", true},
		{"*.read", "orders.read", true},
		{"orders:read", "orders:read", true},
		{"a.*.c", "a.b.c", true},
	} {
		p, err := parseScopePattern(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.matches(tt.scope); got != tt.want || !validScope(tt.scope) {
			t.Errorf("%s on %s: %t, want %t", tt.pattern, tt.scope, got, tt.want)
		}
	}
	for _, s := range []string{"", ".", "a.", ".a", "a..b", "ord*", "**.a", "a b", "a\"b", `a\b`, "ä", "a\n"} {
		if _, err := parseScopePattern(s); err == nil {
			t.Errorf("parseScopePattern(%q): no error", s)
		}
		if validScope(s) {
			t.Errorf("validScope(%q)", s)
		}
	}
	for _, s := range []string{"*", "orders.*", "**"} {
		if validScope(s) {
			t.Errorf("T9 a claim's scope may not be a pattern: %q", s)
		}
	}
}

func TestMethodNames(t *testing.T) {
	for _, s := range []string{
		"", "/", "//", "/a", "a.B/C", "/a.B/", "//C", "/a.B//C", "/a.B/C/D", "//a.B/C", "/a.B/C#x", "/a.B/C?x", "/a.B%2FC", "/a.B/%2FC",
		"/a.B/C ", "/a.B/*", "/*/C", "/a.B/C\x00", "/ä/C", "/a.B/" + strings.Repeat("c", 512),
	} {
		if _, _, ok := splitMethod(s); ok {
			t.Errorf("M4 splitMethod(%q) is ok", s)
		}
	}
	for _, s := range []string{"*", "/*", "/**", "/a.*", "/a.B*/C", "/a.B/C*", "/a.B/**", "/*/*", "/a/B/*"} {
		if _, _, ok := splitMethodPattern(s); ok {
			t.Errorf("splitMethodPattern(%q) is ok", s)
		}
	}
	if service, name, ok := splitMethodPattern("/a.B/*"); service != "a.B" || name != "*" || !ok {
		t.Errorf("%q %q %t", service, name, ok)
	}
}

func TestEditDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"callers", "calers", 1}, {"match", "macth", 2}, {"abc", "xyz", 3}} {
		if got := editDistance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q %q: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
