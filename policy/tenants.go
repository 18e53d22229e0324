package policy

import (
	"hash/maphash"
	"io/fs"
	"iter"
	"math/bits"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// MaxTenantsFile is the size in bytes of the largest tenants_file.
const MaxTenantsFile = 128 << 20

// tenants are all that a policy lists. A decision may meet any of a million:
// what it reads of one lies in two places of memory, a slot and a row.
type tenants struct {
	rows    string // lines that begin with "NAME uid=UID"
	byName  table
	classes []attributes
}

// listing is what is said of a tenant. Many tenants share their attributes.
type listing struct {
	uid   string
	class uint32 // an index into classes
}

// attributes of a tenant, for tenant_sets and conditions.
type attributes struct {
	tier, region   string // "" is none
	classification int64  // -1 is none
}

// uidKey stands between the name of a tenant and its uid.
const uidKey = " uid="

func (t *tenants) find(id tenant.ID) (listing, bool) {
	if t.byName.slots == nil {
		return listing{}, false // the zero Policy's
	}
	name := id.String()
	s, _ := t.byName.find(t.rows, name)
	if s.next == 0 {
		return listing{}, false
	}
	uid := int(s.next) - 1 + len(name) + len(uidKey)
	return listing{t.rows[uid : uid+int(s.uid)], s.class}, true
}

func (t *tenants) attributes(l listing) *attributes { return &t.classes[l.class] }

// names yields the IDs of all.
func (t *tenants) names() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, s := range t.byName.slots {
			if s.next == 0 {
				continue
			}
			if name, _, _ := strings.Cut(t.rows[s.next-1:], " "); !yield(name) {
				return
			}
		}
	}
}

// table finds words of a text, after each of which a blank or a line feed
// stands. It is a hash table with linear probing.
type table struct {
	seed  maphash.Seed
	slots []slot // a power of two, at least half of them free
}

// slot says where a word stands, and what goes with it if it is the name of a
// tenant.
type slot struct {
	next  uint32 // the index after that of its first byte; 0 if the slot is free
	class uint32
	tag   uint16 // of its hash
	uid   uint8  // the length of the tenant's uid
}

func newTable(words int) table {
	return table{maphash.MakeSeed(), make([]slot, 2<<bits.Len(uint(words)))}
}

// find returns the slot of a word, or the free one where it belongs, and the
// tag that it has there.
func (t *table) find(text, word string) (*slot, uint16) {
	hash := maphash.String(t.seed, word)
	tag := uint16(hash >> 48)
	for i := hash; ; i++ {
		s := &t.slots[i&uint64(len(t.slots)-1)] //nolint:gosec // it has slots
		if s.next == 0 || s.tag == tag && begins(text[s.next-1:], word) {
			return s, tag
		}
	}
}

// begins reports whether a word is the first of a text.
func begins(text, word string) bool {
	return len(text) > len(word) && text[len(word)] <= ' ' && text[:len(word)] == word
}

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
	byUID table
	class map[attributes]uint32
	list  int    // how much of the text is from the tenants_file
	lines []line // of the document, for the lines of the rest
}

// compileTenants takes the tenants that stand in the document, and in the file
// that it names.
func (l *loader) compileTenants(raw rawPolicy) tenants {
	list := ""
	if raw.tenantsFile.set {
		list = l.readTenants(raw.tenantsFile)
	}
	var own strings.Builder
	var valid []rawTenant
	for _, r := range raw.tenants {
		if l.validTenant(r) {
			own.WriteString(r.id.value + uidKey + r.uid.value + "\n")
			valid = append(valid, r)
		}
	}
	t := tenantLoader{loader: l, class: map[attributes]uint32{}, list: len(list)}
	t.rows = list + own.String()
	words := len(valid) + min(strings.Count(list, "\n"), len(list)/len("aa uid=b\n"))
	t.byName, t.byUID = newTable(words), newTable(words)
	if list != "" {
		t.addList()
	}
	at := len(list)
	for _, r := range valid {
		t.lines = append(t.lines, r.id.line)
		t.add(r, at)
		at += len(r.id.value) + len(uidKey) + len(r.uid.value) + len("\n")
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

// addList takes the lines of the tenants_file: an ID and its uid and attributes,
// apart by one blank, the ID first and the uid second. The last line counts the
// tenants, so that a file that was cut short is known. Empty lines and those that
// begin with # say nothing.
//
//	acme uid=01J9ZK3V tier=gold region=eu classification=2
//	globex uid=01JA2M4N
//	end: 2
func (l *tenantLoader) addList() {
	count, begin := 0, 0
	for n := 1; len(l.errs) <= maxErrors; n++ {
		at := pos{line{n: uint32(n), in: inTenants}, 1}
		row, _, ended := strings.Cut(l.rows[begin:l.list], "\n")
		next := begin + len(row) + len("\n")
		if total, last := strings.CutPrefix(row, "end: "); last {
			switch {
			case next != l.list:
				l.fail(at, "the line with end: is the last one, and ends")
			case total != strconv.Itoa(count):
				l.fail(at, "the file has %d tenants and says that it has %q", count, total)
			}
			return
		}
		if !ended {
			l.fail(at, "the last line is \"end: %d\" for as many tenants: the file may have been cut short", count)
			return
		}
		if row != "" && row[0] != '#' {
			l.addRow(at, row, begin)
			count++
		}
		begin = next
	}
}

func (l *tenantLoader) addRow(at pos, row string, begin int) {
	place := func(i int) pos { return pos{at.line, i + 1} }
	if i := strings.IndexFunc(row, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		l.fail(place(i), "the line is not printable ASCII that ends in a line feed alone")
		return
	}
	name, rest, more := strings.Cut(row, " ")
	t := rawTenant{id: text{at, true, name}}
	if !strings.HasPrefix(rest, "uid=") {
		l.fail(place(min(len(name)+1, len(row))), "after the tenant's ID stands uid=, one blank before it")
		return
	}
	for more {
		here := place(len(row) - len(rest))
		var field string
		field, rest, more = strings.Cut(rest, " ")
		key, value, _ := strings.Cut(field, "=")
		switch v := t.field(key); {
		case v == nil || value == "":
			l.fail(here, "%q is none of uid=, tier=, region= and classification=, one blank before each", field)
		case v.set:
			l.fail(here, "%s= stands twice", key)
		default:
			*v = text{here, true, value}
		}
	}
	if l.validTenant(t) {
		l.add(t, begin)
	}
}

// field returns the member of a tenant that a key names, or nil.
func (t *rawTenant) field(key string) *text {
	switch key {
	case "uid":
		return &t.uid
	case "tier":
		return &t.tier
	case "region":
		return &t.region
	case "classification":
		return &t.classification
	}
	return nil
}

// validTenant reports whether ID and uid have the form that they must have.
func (l *loader) validTenant(r rawTenant) bool {
	_, ok := l.tenantID(r.id)
	if !validUID(r.uid.value) {
		l.fail(r.uid.pos, "a uid has 1 to 128 letters, digits, '.', '_', ':' or '-'")
		return false
	}
	return ok
}

// add takes a valid tenant, which stands in the text from a place on.
func (l *tenantLoader) add(r rawTenant, at int) {
	first, tag := l.byName.find(l.rows, r.id.value)
	if first.next > 0 {
		l.fail(r.id.pos, "tenant %q stands twice, first in %s", r.id.value, l.place(l.lineOf(first)))
		return
	}
	a := attributes{l.word(r.tier), l.word(r.region), -1}
	if r.classification.set {
		a.classification = int64(l.number(r.classification))
	}
	class, known := l.class[a]
	if !known {
		class = uint32(len(l.classes)) //nolint:gosec // no more than tenants
		l.class[a] = class
		l.classes = append(l.classes, a)
	}
	*first = slot{uint32(at + 1), class, tag, uint8(len(r.uid.value))} //nolint:gosec // both are bounded

	first, tag = l.byUID.find(l.rows, r.uid.value)
	if first.next > 0 {
		l.fail(r.uid.pos, "uid %q stands twice, first in %s", r.uid.value, l.place(l.lineOf(first)))
		return
	}
	*first = slot{next: uint32(at + len(r.id.value) + len(uidKey) + 1), tag: tag} //nolint:gosec // it is bounded
}

// lineOf returns where a tenant stands.
func (l *tenantLoader) lineOf(s *slot) line {
	begin := int(s.next - 1)
	if begin >= l.list {
		return l.lines[strings.Count(l.rows[l.list:begin], "\n")]
	}
	return line{n: uint32(strings.Count(l.rows[:begin], "\n") + 1), in: inTenants} //nolint:gosec // MaxTenantsFile bounds it
}

// word returns a tier or region, "" if it is absent.
func (l *loader) word(t text) string {
	if t.set && (!validName(t.value) || len(t.value) > maxName) {
		l.fail(t.pos, "a tier or region has 1 to 128 letters, digits, '.', '_' or '-'")
	}
	return t.value
}
