package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// withFile is small, with globex in a tenants_file.
const withFile = "tenants_file: lists/t.list\n" + small

// loadWith loads a document beside the given tenants_file.
func loadWith(doc, list string) (*Policy, error) {
	return Load(fstest.MapFS{"conf/p.yaml": {Data: []byte(doc)}, "conf/lists/t.list": {Data: []byte(list)}}, "conf/p.yaml")
}

func TestTenantsFile(t *testing.T) {
	p, err := loadWith(withFile, "# the first ones\n\nglobex uid=u2 tier=gold region=eu classification=2\ninitech uid=u3 classification=0 region=us\n00 uid=a:b.c-d_E\nend: 3\n")
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]struct {
		uid string
		attributes
	}{
		"acme":    {"u1", attributes{"", "", -1}},
		"globex":  {"u2", attributes{"gold", "eu", 2}},
		"initech": {"u3", attributes{"", "us", 0}},
		"00":      {"a:b.c-d_E", attributes{"", "", -1}},
	} {
		l, ok := p.tenants.find(mustTenant(id))
		if !ok || l.uid != want.uid || *p.tenants.attributes(l) != want.attributes {
			t.Errorf("%s: %q %+v", id, l.uid, *p.tenants.attributes(l))
		}
	}
	for _, id := range []string{"first", "the", "ac", "acme2", "glob", "u2", "end", "uid", "tier", "gold"} {
		if uid, ok := p.TenantUID(mustTenant(id)); ok {
			t.Errorf("P4 %s is listed, as %s", id, uid)
		}
	}
	if _, ok := p.TenantUID(tenant.ID{}); ok {
		t.Error("P4 the zero tenant is listed")
	}
	other, err := loadWith(withFile, "globex uid=u2 tier=silver\nend: 1\n")
	if err != nil {
		t.Fatal(err)
	}
	if p.Version() == other.Version() {
		t.Error("P2 two tenants files and one version")
	}
}

var tenantsFilesRefused = []struct{ name, list, want string }{
	{"P1 empty", "", "conf/lists/t.list:1:1: the file is empty"},
	{"P1 cut short within a line", "globex uid=u2\ninitech ui", `conf/lists/t.list:2:1: the last line is "end: 1" for as many tenants`},
	{"P1 cut short between lines", "globex uid=u2\n", `conf/lists/t.list:2:1: the last line is "end: 1" for as many tenants`},
	{"P1 cut short within the last line", "globex uid=u2\nend", `conf/lists/t.list:2:1: the last line is "end: 1" for as many tenants`},
	{"P1 cut short before the last line's end", "globex uid=u2\nend: 1", "conf/lists/t.list:2:1: the line with end: is the last one, and ends"},
	{"P1 something follows", "globex uid=u2\nend: 1\ninitech uid=u3\n", "conf/lists/t.list:2:1: the line with end: is the last one, and ends"},
	{"P1 one tenant too few", "globex uid=u2\nend: 2\n", `conf/lists/t.list:2:1: the file has 1 tenants and says that it has "2"`},
	{"P1 one tenant too many", "globex uid=u2\nend: 0\n", `conf/lists/t.list:2:1: the file has 1 tenants and says that it has "0"`},
	{"P1 a count that is none", "globex uid=u2\nend: +1\n", `conf/lists/t.list:2:1: the file has 1 tenants and says that it has "+1"`},
	{"P1 lines that end in CR LF", "globex uid=u2\r\nend: 1\r\n", "conf/lists/t.list:1:14: the line is not printable ASCII that ends in a line feed alone"},
	{"P1 the last line ends in CR LF", "globex uid=u2\nend: 1\r\n", `conf/lists/t.list:2:1: the file has 1 tenants and says that it has "1\r"`},
	{"P4 NUL", "globex\x00 uid=u2\nend: 1\n", "conf/lists/t.list:1:7: the line is not printable ASCII"},
	{"P4 not UTF-8", "globex uid=u\xff\nend: 1\n", "conf/lists/t.list:1:13: the line is not printable ASCII"},
	{"P4 Unicode", "gl\u043ebex uid=u2\nend: 1\n", "conf/lists/t.list:1:3: the line is not printable ASCII"},
	{"P4 mixed case", "Globex uid=u2\nend: 1\n", `conf/lists/t.list:1:1: tenant "Globex": 2 to 63 of a-z`},
	{"P4 *", "* uid=u2\nend: 1\n", `conf/lists/t.list:1:1: tenant "*"`},
	{"P4 empty", " uid=u2\nend: 1\n", `conf/lists/t.list:1:1: tenant ""`},
	{"P4 one byte", "0 uid=u2\nend: 1\n", `conf/lists/t.list:1:1: tenant "0"`},
	{"P4 .. ", ".. uid=u2\nend: 1\n", `conf/lists/t.list:1:1: tenant ".."`},
	{"P4 a|b", "a|b uid=u2\nend: 1\n", `conf/lists/t.list:1:1: tenant "a|b"`},
	{"no uid", "globex\nend: 1\n", "conf/lists/t.list:1:7: after the tenant's ID stands uid=, one blank before it"},
	{"no uid but a tier", "globex tier=gold\nend: 1\n", "conf/lists/t.list:1:8: after the tenant's ID stands uid="},
	{"uid after the tier", "globex tier=gold uid=u2\nend: 1\n", "conf/lists/t.list:1:8: after the tenant's ID stands uid="},
	{"two blanks", "globex  uid=u2\nend: 1\n", "conf/lists/t.list:1:8: after the tenant's ID stands uid="},
	{"two blanks later", "globex uid=u2  tier=gold\nend: 1\n", `conf/lists/t.list:1:15: "" is none of uid=`},
	{"a blank at the end", "globex uid=u2 \nend: 1\n", `conf/lists/t.list:1:15: "" is none of uid=`},
	{"a tab", "globex\tuid=u2\nend: 1\n", "conf/lists/t.list:1:7: the line is not printable ASCII"},
	{"an empty uid", "globex uid=\nend: 1\n", `conf/lists/t.list:1:8: "uid=" is none of uid=`},
	{"a uid with a slash", "globex uid=u/2\nend: 1\n", "conf/lists/t.list:1:8: a uid has 1 to 128 letters"},
	{"a long uid", "globex uid=" + strings.Repeat("u", 129) + "\nend: 1\n", "conf/lists/t.list:1:8: a uid has 1 to 128 letters"},
	{"uid twice in a line", "globex uid=u2 uid=u3\nend: 1\n", "conf/lists/t.list:1:15: uid= stands twice"},
	{"a mistyped key", "globex uid=u2 teir=gold\nend: 1\n", `conf/lists/t.list:1:15: "teir=gold" is none of uid=, tier=, region= and classification=`},
	{"a key without a value", "globex uid=u2 tier\nend: 1\n", `conf/lists/t.list:1:15: "tier" is none of`},
	{"a tier that no set can have", "globex uid=u2 tier=a=b\nend: 1\n", "conf/lists/t.list:1:15: a tier or region has"},
	{"a region that no set can have", "globex uid=u2 region=*\nend: 1\n", "conf/lists/t.list:1:15: a tier or region has"},
	{"a negative classification", "globex uid=u2 classification=-1\nend: 1\n", "conf/lists/t.list:1:15: a classification is a number"},
	{"an octal classification", "globex uid=u2 classification=01\nend: 1\n", "conf/lists/t.list:1:15: a classification is a number"},
	{"too large a classification", "globex uid=u2 classification=4294967296\nend: 1\n", "conf/lists/t.list:1:15: a classification is a number"},
	{"a tenant twice", "# x\nglobex uid=u2\ninitech uid=u3\nglobex uid=u4\nend: 3\n", `conf/lists/t.list:4:1: tenant "globex" stands twice, first in conf/lists/t.list:2`},
	{"D10 a uid twice", "globex uid=u2\n\ninitech uid=u2\nend: 2\n", `conf/lists/t.list:3:9: uid "u2" stands twice, first in conf/lists/t.list:1`},
	{"a tenant of the document", "acme uid=u2\nend: 1\n", `conf/p.yaml:15:3: tenant "acme" stands twice, first in conf/lists/t.list:1`},
	{"D10 a uid of the document", "globex uid=u1\nend: 1\n", `conf/p.yaml:15:15: uid "u1" stands twice, first in conf/lists/t.list:1`},
}

func TestTenantsFileRefused(t *testing.T) {
	for _, tt := range tenantsFilesRefused {
		t.Run(tt.name, func(t *testing.T) {
			p, err := loadWith(withFile, tt.list)
			if err == nil || p != nil {
				t.Fatalf("loaded: %v, %v", p, err)
			}
			if first, _, _ := strings.Cut(err.Error(), "\n"); !strings.HasPrefix(first, tt.want) {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
		})
	}
}

// TestTenantsOfDocument: where a tenant of the document stands twice, the
// first place is named, whatever is before it.
func TestTenantsOfDocument(t *testing.T) {
	doc := withFile + "  initech: {uid: u3}\n  hooli: {uid: u3}\n"
	_, err := loadWith(doc, "globex uid=u2\nend: 1\n")
	if want := `conf/p.yaml:17:16: uid "u3" stands twice, first in conf/p.yaml:16`; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestTenantsFileNames(t *testing.T) {
	for _, name := range []string{"../t.list", "/t.list", "a//t.list", "./t.list", "lists/../t.list"} {
		_, err := loadWith(strings.Replace(withFile, "lists/t.list", name, 1), "globex uid=u2\nend: 1\n")
		if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("conf/p.yaml:1:15: tenants_file %q: the path of a file in the document's folder", name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := loadWith(strings.Replace(withFile, "lists/t.list", "none.list", 1), ""); err == nil || !strings.HasPrefix(err.Error(), "conf/p.yaml:1:15: tenants_file: open none.list: file does not exist") {
		t.Errorf("P1 no such file: %v", err)
	}
	if _, err := Load(fstest.MapFS{"p.yaml": {Data: []byte(small)}}, "none.yaml"); err == nil {
		t.Error("P1 a document that does not exist loads")
	}
	if _, err := Load(fstest.MapFS{}, "/p.yaml"); err == nil {
		t.Error("a path that is none loads")
	}
}

// TestTenantsFileOnDisk: the places of a file's errors begin with the folder that the
// document was given with, and a symbolic link is followed (ConfigMaps have them).
func TestTenantsFileOnDisk(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	doc := strings.Replace(withFile, "lists/t.list", "t.list", 1)
	write("p.yaml", doc)
	write("data", "globex uid=u2\nend: 1\n")
	if err := os.Symlink("data", filepath.Join(dir, "t.list")); err != nil {
		t.Fatal(err)
	}
	p, err := LoadFile(filepath.Join(dir, "p.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(p.tenants.names()); !slices.Equal(got, []string{"acme", "globex"}) {
		t.Errorf("tenants %q", got)
	}
	write("data", "globex\nend: 1\n")
	if _, err := LoadFile(filepath.Join(dir, "p.yaml")); err == nil || !strings.HasPrefix(err.Error(), filepath.Join(dir, "t.list")+":1:") {
		t.Errorf("%v", err)
	}
}

// TestLargeTenantsFile: a file over the limit is refused, and one of empty
// lines does not take memory as if each were a tenant.
func TestLargeTenantsFile(t *testing.T) {
	load := func(list []byte) (*Policy, error) {
		return Load(fstest.MapFS{"p.yaml": {Data: []byte("tenants_file: t.list\n" + small)}, "t.list": {Data: list}}, "p.yaml")
	}
	if _, err := load(make([]byte, MaxTenantsFile+1)); err == nil || !strings.Contains(err.Error(), "t.list:1:1: the file has over 134217728 bytes") {
		t.Errorf("P1 a file over the limit: %v", err)
	}
	const lines = 1 << 20
	empty := strings.Repeat("\n", lines)
	p, err := load([]byte(empty + "end: 0\n"))
	if err != nil {
		t.Fatalf("P1 a file of empty lines: %v", err)
	}
	if n := len(p.tenants.byName.slots); n > lines/2 {
		t.Errorf("P1 %d slots for %d empty lines", n, lines)
	}
	if _, err := load([]byte(empty + "globex uid=u2\nend: 2\n")); err == nil || !strings.Contains(err.Error(), `t.list:1048578:1: the file has 1 tenants and says that it has "2"`) {
		t.Errorf("P1 %v", err)
	}
}

// TestTable finds all words of a text, and no other, whatever order they came in.
func TestTable(t *testing.T) {
	var text strings.Builder
	var words []string
	for i := range 5000 {
		words = append(words, fmt.Sprintf("w%d", i*i))
		fmt.Fprintf(&text, "w%d\n", i*i)
	}
	table := newTable(len(words))
	at := 0
	for _, w := range words {
		s, tag := table.find(text.String(), w)
		if s.next > 0 {
			t.Fatalf("%s is there", w)
		}
		*s = slot{next: uint32(at + 1), tag: tag}
		at += len(w) + 1
	}
	for _, w := range words {
		if s, _ := table.find(text.String(), w); s.next == 0 || text.String()[s.next-1:][:len(w)] != w {
			t.Errorf("%s is not there", w)
		}
		for _, other := range []string{w + "0", w[:len(w)-1], w + "\n", ""} {
			if s, _ := table.find(text.String(), other); s.next > 0 && !slices.Contains(words, other) {
				t.Errorf("%q is there", other)
			}
		}
	}
}

// TestTableCollides looks for words whose hashes look like that of another.
func TestTableCollides(t *testing.T) {
	table := newTable(1)
	s, tag := table.find("acme uid=u1\n", "acme")
	*s = slot{next: 1, tag: tag}
	for i := range 1 << 22 {
		word := "t" + strconv.Itoa(i)
		if s, _ := table.find("acme uid=u1\n", word); s.next > 0 {
			t.Fatalf("P4 %s is taken for acme", word)
		}
	}
}

func TestBegins(t *testing.T) {
	for _, tt := range []struct {
		text, word string
		want       bool
	}{
		{"acme uid=u1\n", "acme", true},
		{"u1\n", "u1", true},
		{"acme uid=u1\n", "ac", false},
		{"acme uid=u1\n", "acme2", false},
		{"acme", "acme", false},
		{"", "", false},
	} {
		if got := begins(tt.text, tt.word); got != tt.want {
			t.Errorf("P4 %q begins with %q: %t", tt.text, tt.word, got)
		}
	}
}

// TestTenantSets: which tenants a binding reaches.
func TestTenantSets(t *testing.T) {
	const doc = `version: 1
trust_domains:
  - name: td.example
  - {name: confined.example, tenants: ["set:eu"]}
workloads:
WORKLOADS
methods: []
tenant_sets:
  gold: {tier: gold}
  eu: {region: eu}
  gold-eu: {tier: gold, region: eu}
  pilot: [acme, initech]
  everybody: ["*"]
  nobody: []
tenants_file: t.list
tenants:
  acme: {uid: u1, tier: gold, region: eu}
  globex: {uid: u2, tier: gold, region: us}
`
	const list = "initech uid=u3 tier=silver region=eu\nhooli uid=u4\nend: 2\n"
	t.Run("nothing", func(t *testing.T) {
		for _, s := range []tenantSet{{}, {selectors: []selector{{}}}, {captured: true}} {
			if s.has(mustTenant("acme"), tenant.ID{}, &attributes{}) {
				t.Errorf("%+v has acme", s)
			}
		}
	})
	all := []string{"acme", "globex", "hooli", "initech"}
	for _, tt := range []struct {
		tenants, domain string
		want            []string
	}{
		{`[]`, "td.example", nil},
		{`[acme]`, "td.example", []string{"acme"}},
		{`["*"]`, "td.example", all},
		{`["set:gold"]`, "td.example", []string{"acme", "globex"}},
		{`["set:eu"]`, "td.example", []string{"acme", "initech"}},
		{`["set:gold-eu"]`, "td.example", []string{"acme"}},
		{`["set:pilot"]`, "td.example", []string{"acme", "initech"}},
		{`["set:everybody"]`, "td.example", all},
		{`["set:nobody"]`, "td.example", nil},
		{`["set:gold", "set:pilot"]`, "td.example", []string{"acme", "globex", "initech"}},
		{`[hooli, "set:gold-eu", "set:nobody"]`, "td.example", []string{"acme", "hooli"}},
		{`["*"]`, "confined.example", []string{"acme", "initech"}},
		{`["set:gold"]`, "confined.example", []string{"acme"}},
		{`[hooli]`, "confined.example", nil},
	} {
		t.Run(tt.tenants+" in "+tt.domain, func(t *testing.T) {
			w := fmt.Sprintf("  - {name: w, match: spiffe://%s/w, tenants: %s, originate: {}}", tt.domain, tt.tenants)
			p, err := Load(fstest.MapFS{"p.yaml": {Data: []byte(strings.Replace(doc, "WORKLOADS", w, 1))}, "t.list": {Data: []byte(list)}}, "p.yaml")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, name := range all {
				c := claims(none)
				c.Tenant = mustTenant(name)
				c.TenantUID, _ = p.TenantUID(c.Tenant)
				d := p.MayOriginate(ids("spiffe://" + tt.domain + "/w")[0], c, nil)
				switch reason := tenant.ReasonOf(d.Err()); reason {
				case "":
					got = append(got, name)
				case tenant.TenantNotBound:
				default:
					t.Errorf("%s: %v", name, d.Err())
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("bound to %q, want %q", got, tt.want)
			}
		})
	}
}
