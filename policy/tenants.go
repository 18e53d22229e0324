package policy

import (
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// MaxTenantsFile is the size in bytes of the largest tenants_file.
const MaxTenantsFile = 128 << 20

// tenants are all that a policy lists.
type tenants struct {
	listed  map[tenant.ID]listing
	classes []attributes
}

// listing is what is said of a tenant. Many tenants share their attributes, so
// that a million take little room.
type listing struct {
	uid   string
	class uint32 // an index into classes
	at    line
}

// attributes of a tenant, for tenant_sets and conditions.
type attributes struct {
	tier, region   string
	classification uint32
}

func (t *tenants) attributes(l listing) *attributes { return &t.classes[l.class] }

// tenantSet is a list of tenants in the document. The zero set has none.
type tenantSet struct {
	all       bool // "*"
	captured  bool // "{tenant}"
	ids       map[tenant.ID]bool
	selectors []selector
}

// selector picks tenants by their attributes; what it leaves empty it does not ask for.
type selector struct{ tier, region string }

// has reports whether a listed tenant is in the set, of an entry whose pattern
// captured the given one.
func (s *tenantSet) has(id, captured tenant.ID, a *attributes) bool {
	if s.all || s.captured && !captured.IsZero() && id == captured || s.ids[id] {
		return true
	}
	for _, sel := range s.selectors {
		if sel != (selector{}) && (sel.tier == "" || sel.tier == a.tier) && (sel.region == "" || sel.region == a.region) {
			return true
		}
	}
	return false
}

// tenantLoader collects the tenants of the document and of its tenants_file.
type tenantLoader struct {
	*loader
	tenants
	class map[attributes]uint32
	uids  map[string]line // where each stands
}

// add takes a tenant, unless it is no tenant ID.
func (l *tenantLoader) add(id, uid text, a attributes) {
	name, ok := l.tenantID(id)
	if !ok {
		return
	}
	if !validUID(uid.value) {
		l.fail(uid.pos, "a uid has 1 to 128 letters, digits, '.', '_', ':' or '-'")
	}
	if first, twice := l.listed[name]; twice {
		l.fail(id.pos, "tenant %q stands twice, first in %s", id.value, l.place(first.at))
	}
	if first, twice := l.uids[uid.value]; twice {
		l.fail(uid.pos, "uid %q stands twice, first in %s", uid.value, l.place(first))
	}
	l.uids[uid.value] = uid.line
	class, known := l.class[a]
	if !known {
		class = uint32(len(l.classes)) //nolint:gosec // no more than tenants
		l.class[a] = class
		l.classes = append(l.classes, a)
	}
	l.listed[name] = listing{uid: uid.value, class: class, at: id.line}
}

// compileTenants takes the tenants that stand in the document and in the file
// that it names.
func (l *loader) compileTenants(raw rawPolicy) tenants {
	list, lines := "", 0
	if raw.tenantsFile.set {
		list = l.readTenants(raw.tenantsFile)
		lines = strings.Count(list, "\n")
	}
	t := tenantLoader{
		loader:  l,
		tenants: tenants{listed: make(map[tenant.ID]listing, len(raw.tenants)+lines)},
		class:   map[attributes]uint32{},
		uids:    make(map[string]line, len(raw.tenants)+lines),
	}
	for _, r := range raw.tenants {
		t.add(r.id, r.uid, attributes{r.tier.value, r.region.value, r.classification})
	}
	if list != "" {
		t.addList(list)
	}
	return t.tenants
}

// readTenants returns the text of the tenants_file, "" if it cannot be had.
func (l *loader) readTenants(name text) string {
	if l.dir == nil || !fs.ValidPath(name.value) {
		l.fail(name.pos, "tenants_file %q: the path of a file in the document's folder or below it, such as tenants.list", name.value)
		return ""
	}
	l.files[inTenants] = filepath.Join(filepath.Dir(l.files[inDocument]), name.value)
	list, err := l.readFile(name.value, MaxTenantsFile)
	whole := pos{line: line{in: inTenants}}
	switch {
	case err != nil:
		l.fail(name.pos, "tenants_file: %v", err)
	case len(list) > MaxTenantsFile:
		l.fail(whole, "the file has over %d bytes", MaxTenantsFile)
	case list == "":
		l.fail(whole, "the file is empty")
	default:
		return list
	}
	return ""
}

// addList takes the lines of a tenants_file: an ID and its attributes, apart
// by one blank, in any order but the ID first. The last line counts the
// tenants, so that a file that was cut short is known.
//
//	acme uid=01J9ZK3V tier=gold region=eu classification=2
//	globex uid=01JA2M4N
//	end: 2
func (l *tenantLoader) addList(list string) {
	count := 0
	for n := 1; ; n++ {
		at := line{n: uint32(n), in: inTenants} //nolint:gosec // MaxTenantsFile bounds it
		row, rest, ended := strings.Cut(list, "\n")
		if total, last := strings.CutPrefix(row, "end: "); last {
			switch {
			case !ended || rest != "":
				l.fail(pos{at, 1}, "the line with end: is the last one")
			case total != strconv.Itoa(count):
				l.fail(pos{at, 1}, "the file has %d tenants and says that it has %s", count, total)
			}
			return
		}
		if !ended {
			l.fail(pos{at, 1}, "the last line is \"end: %d\" for as many tenants: the file may have been cut short", count)
			return
		}
		if len(l.errs) > maxErrors {
			return
		}
		list = rest
		if row == "" || row[0] == '#' {
			continue
		}
		l.addRow(at, row)
		count++
	}
}

func (l *tenantLoader) addRow(at line, row string) {
	if !utf8.ValidString(row) {
		l.fail(pos{at, 1}, "the line is not UTF-8")
		return
	}
	name, rest, _ := strings.Cut(row, " ")
	var uid, tier, region, classification text
	keys := map[string]*text{"uid": &uid, "tier": &tier, "region": &region, "classification": &classification}
	for rest != "" {
		here := pos{at, len(row) - len(rest) + 1}
		var field string
		field, rest, _ = strings.Cut(rest, " ")
		key, value, _ := strings.Cut(field, "=")
		switch t := keys[key]; {
		case t == nil || value == "":
			l.fail(here, "%q is none of uid=, tier=, region= and classification=, one blank before each", field)
		case t.set:
			l.fail(here, "%s= stands twice", key)
		default:
			*t = text{here, true, value}
		}
	}
	if !uid.set {
		l.fail(pos{at, 1}, "the tenant needs uid=")
		return
	}
	l.add(text{pos{at, 1}, true, name}, uid, attributes{tier.value, region.value, l.number(classification)})
}
