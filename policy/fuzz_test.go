package policy

import (
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// documents are those of the vectors, of testdata and of other tests.
func documents(f *testing.F) []string {
	f.Helper()
	design, err := os.ReadFile("testdata/design.yaml")
	if err != nil {
		f.Fatal(err)
	}
	docs := []string{string(design), small, meshDoc(asWritten), explained, shopDoc}
	for _, doc := range vectorPolicies(f) {
		docs = append(docs, string(doc))
	}
	return docs
}

// found returns what an expression finds in the documents, each once. It fails
// for nothing: an empty seed corpus is no seed corpus.
func found(f *testing.F, expression string) []string {
	f.Helper()
	var all []string
	for _, doc := range documents(f) {
		for _, m := range regexp.MustCompile(expression).FindAllStringSubmatch(doc, -1) {
			all = append(all, m[1])
		}
	}
	if len(all) == 0 {
		f.Fatal("an empty seed corpus")
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func FuzzParse(f *testing.F) {
	docs := documents(f)
	if len(docs) < 5 {
		f.Fatal("an empty seed corpus")
	}
	docs = append(docs,
		strings.Replace(small, "[acme]", "&x [acme]\n    calls: *x", 1),
		strings.Replace(small, "callers: [a]\n", "callers: [a]\n    when: 'user == 1'\n", 1),
		strings.ReplaceAll(strings.Replace(small, "callers: [a]\n", "callers: [a]\n    when: user == 1\n", 1), "\n", "\r")+"\n",
		"? [version]\n: 1\n", "null\n", "- a\n- {b: c}\n", "%YAML 1.1\n---\n!!map {}\n",
		"version: 1\nworkloads: [[], 1, null, {match: {}}]\nmethods: {}\ntenants: [1]\ntrust_domains: {a: b}\ntenant_sets: {a: 1, [b]: {}}\ntenants_file: []\n",
	)
	for _, doc := range docs {
		f.Add([]byte(doc))
	}
	id := ids("gateway")[0]
	f.Fuzz(func(t *testing.T, doc []byte) {
		p, err := Parse("f.yaml", doc)
		if (p == nil) == (err == nil) {
			t.Fatalf("%v, %v", p, err)
		}
		if err != nil {
			return
		}
		// What loads decides, and knows only what it lists.
		if p.Version() == "" {
			t.Error("a policy without a version")
		}
		for _, method := range []string{"/p.S%2FM", "-", ""} {
			if d := p.Admit(method, nil, id); tenant.ReasonOf(d.Err()) != tenant.MethodNotCovered {
				t.Error(d.Err())
			}
		}
		if d := p.MayOriginate(id, claims(func(c *hop.Claims) { c.Tenant = tenant.ID{} }), nil); d.Err() == nil {
			t.Error("no tenant, and it may originate")
		}
		c := callOf(listOrders, ids("gateway", "orders"), claims(), nil)
		d := p.Decide(&c)
		if e := d.Explain(); e.Allowed != (d.Err() == nil) || e.Policy != p.Version() {
			t.Errorf("%+v", e)
		}
	})
}

// FuzzTenantsFile reads a file also in the obvious way.
func FuzzTenantsFile(f *testing.F) {
	if len(tenantsFilesRefused) == 0 {
		f.Fatal("an empty seed corpus")
	}
	for _, tt := range tenantsFilesRefused {
		f.Add(tt.list)
	}
	f.Add("# x\n\nglobex uid=u2 tier=gold region=eu classification=2\ninitech uid=u3\nend: 2\n")
	row := regexp.MustCompile(`^([a-z0-9][a-z0-9_-]{0,61}[a-z0-9]) uid=([A-Za-z0-9._:-]{1,128})((?: (?:tier|region)=[A-Za-z0-9._-]{1,128}| classification=(?:0|[1-9][0-9]{0,9}))*)$`)
	read := func(list string) (uids map[string]string, ok bool) {
		body, last, ok := strings.Cut("\n"+list, "\nend: ")
		if !ok {
			return nil, false
		}
		uids, seen := map[string]string{"acme": "u1"}, map[string]bool{"u1": true}
		for line := range strings.SplitSeq(strings.TrimPrefix(body, "\n"), "\n") {
			if line == "" || line[0] == '#' {
				continue
			}
			m := row.FindStringSubmatch(line)
			if m == nil || uids[m[1]] != "" || seen[m[2]] {
				return nil, false
			}
			for _, key := range []string{" tier=", " region=", " classification="} {
				if strings.Count(m[3], key) > 1 {
					return nil, false
				}
			}
			if _, digits, ok := strings.Cut(m[3], " classification="); ok {
				digits, _, _ = strings.Cut(digits, " ")
				if _, err := strconv.ParseUint(digits, 10, 32); err != nil {
					return nil, false
				}
			}
			uids[m[1]], seen[m[2]] = m[2], true
		}
		return uids, last == strconv.Itoa(len(uids)-1)+"\n"
	}
	f.Fuzz(func(t *testing.T, list string) {
		p, err := loadWith(withFile, list)
		want, ok := read(list)
		if (err == nil) != ok {
			t.Fatalf("%v, want %t", err, ok)
		}
		if err != nil {
			return
		}
		if got := slices.Collect(p.tenants.names()); len(got) != len(want) {
			t.Errorf("tenants %q, want %q", got, want)
		}
		for name, uid := range want {
			if got, _ := p.TenantUID(mustTenant(name)); got != uid {
				t.Errorf("%s has uid %q, want %q", name, got, uid)
			}
		}
	})
}

// FuzzMatch compares the index with the reference: what an entry matches, which
// tenant it captures, and that entries with an ID in common are found to have one.
func FuzzMatch(f *testing.F) {
	matches := found(f, `match: "?spiffe://([^/\s]+/[^\s",]+)`)
	for i, m := range matches {
		_, path, _ := strings.Cut(m, "/")
		_, other, _ := strings.Cut(matches[(i+1)%len(matches)], "/")
		f.Add(path, other, strings.NewReplacer("{tenant}", "acme", "**", "x/y", "*", "7").Replace(path))
	}
	f.Add("a/{tenant}/*", "*/t-{tenant}", "a/t-acme")
	f.Add("{tenant}*b*c", "aa{tenant}", "aaa")
	f.Fuzz(func(t *testing.T, one, two, path string) {
		id, err := spiffeid.FromString("spiffe://td/" + path)
		if err != nil {
			return
		}
		var patterns []*indexed
		for _, s := range []string{one, two} {
			p, err := parsePattern("spiffe://td/" + s)
			if err != nil {
				return
			}
			patterns = append(patterns, newIndexed(p))
		}
		both := true
		for i, s := range []string{one, two} {
			w, captured := patterns[i].ix.find(id.Path())
			tenant, ok := idMatches("spiffe://td/"+s, id.String())
			if (w != nil) != ok || ok && captured.String() != tenant {
				t.Errorf("%s on %s: %t %q, want %t %q", s, id, w != nil, captured, ok, tenant)
			}
			both = both && ok
		}
		a, b := patterns[0].overlaps(patterns[1]), patterns[1].overlaps(patterns[0])
		if a != b || both && !a {
			t.Errorf("%s and %s: overlap %t and %t; both match %s: %t", one, two, a, b, id, both)
		}
		// In one index, an entry is found if one of them matches.
		var ix index
		ix.add(&workload{name: one, match: patterns[0].pattern})
		ix.add(&workload{name: two, match: patterns[1].pattern})
		_, first := idMatches("spiffe://td/"+one, id.String())
		_, second := idMatches("spiffe://td/"+two, id.String())
		if w, _ := ix.find(id.Path()); (w != nil) != (first || second) || !both && first && w.name != one || !both && second && w.name != two {
			t.Errorf("%s and %s in one index find %v for %s", one, two, w, id)
		}
	})
}

// FuzzScopePattern compares the matcher of scopes and queues with the reference.
func FuzzScopePattern(f *testing.F) {
	for _, list := range found(f, `(?:scopes|publishes|consumes): \[([^\]]+)\]`) {
		for pattern := range strings.SplitSeq(list, ", ") {
			pattern = strings.Trim(pattern, `"`)
			f.Add(pattern, strings.NewReplacer("**", "a.b", "*", "a").Replace(pattern))
		}
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p, err := parseScopePattern(pattern)
		if err != nil || !validScope(name) {
			return
		}
		if got, want := p.matches(name), nameMatches(pattern, name); got != want {
			t.Errorf("%s on %s: %t, want %t", pattern, name, got, want)
		}
		if validScope(pattern) && p.matches(name) != (pattern == name) {
			t.Errorf("I3 %s on %s", pattern, name)
		}
	})
}

// FuzzCondition: what compiles costs no more than its bound, and decides.
func FuzzCondition(f *testing.F) {
	for _, e := range append(found(f, `when: (.+)`), refConditions[0].text, refConditions[8].text, refConditions[9].text) {
		f.Add(e)
	}
	for _, e := range []string{
		`claims.scope.map(a, a + a).map(a, a + a).exists(a, a == "x")`, `path.map(p, path.map(q, q.id)).exists(l, "x" in l)`,
		`[claims.scope].map(a, a + a).all(a, a.exists(b, b == "x"))`, `now.getHours("Europe/Berlin") < 7 ? has(claims.tctx.a) : !true`,
		`string(now) + string(1u) + string(b"a") == "" || dyn(path) == dyn([1]) || {"a": claims.rctx}.a.size() > 1`, `1 / 0 == 1 || true`,
		`duration("1h") < now - claims.iat && timestamp(claims.sub) > now && int(claims.sub) > 1`,
	} {
		f.Add(e)
	}
	env, err := conditionEnv()
	if err != nil {
		f.Fatal(err)
	}
	largest, least := largestFacts(), &facts{path: make([]conditionHop, 1), tenant: attributes{"", "", -1}}
	f.Fuzz(func(t *testing.T, expression string) {
		l := newLoader("p.yaml")
		l.doc = []byte("when: " + expression + "\n")
		c := l.condition(text{pos{line{n: 1}, 7}, true, expression})
		if (c == nil) == (len(l.errs) == 0) {
			t.Fatalf("%v, %v", c, l.errs)
		}
		for _, e := range l.errs {
			if e.Line != 1 || e.Column < 1 || e.Message == "" {
				t.Errorf("%v", e)
			}
		}
		if c == nil {
			return
		}
		c.holds(least)
		c.holds(largest)
		ast, issues := env.Compile(expression)
		if issues.Err() != nil {
			t.Fatal(issues.Err())
		}
		if cost := actualCost(t, env, ast, largest); cost > maxCost {
			t.Errorf("P5 it costs %d", cost)
		}
	})
}

// FuzzReference draws policies and questions from bytes.
func FuzzReference(f *testing.F) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 8))
		b := make([]byte, 1000)
		for i := range b {
			b[i] = byte(rng.IntN(256))
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		next := func(n int) int {
			if len(b) == 0 {
				return 0
			}
			v := int(b[0])
			b = b[1:]
			return v % n
		}
		compare(t, drawer{next}, rand.New(rand.NewPCG(1, 9)).Shuffle, 20, map[string]int{})
	})
}
