package policy

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxErrors is how many errors of one document are reported; keptErrors how
// many are kept to choose the first from.
const (
	maxErrors  = 20
	keptErrors = 1000
)

// maxSeparators bounds what the YAML library makes of a document: some 700
// bytes of memory for each.
const maxSeparators = 1 << 19

// LoadError is one fault of a document. Parse and LoadFile return all that
// they found, joined, in the order of the document.
type LoadError struct {
	// File is the document's name as the caller gave it.
	File string
	// Line and Column count from 1. Column counts characters.
	Line, Column int
	// Message says what is wrong.
	Message string
}

// Error returns file:line:column: message.
func (e *LoadError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// LoadFile reads and compiles a document and the tenants_file that it names,
// which is in the same folder or below it. Its errors and rules name the files by
// path as it is given.
func LoadFile(path string) (*Policy, error) {
	dir, name := filepath.Split(path)
	l := load(os.DirFS(cmp.Or(dir, ".")), name, path)
	return l.policy, l.err
}

// Load is [LoadFile] for a document in a file system.
func Load(fsys fs.FS, name string) (*Policy, error) {
	dir, err := fs.Sub(fsys, path.Dir(name))
	if err != nil {
		return nil, err
	}
	l := load(dir, path.Base(name), name)
	return l.policy, l.err
}

// loaded is what came of a document.
type loaded struct {
	policy *Policy
	err    error
	parts  []part // the files that were read
	cut    bool   // one was not, or not to its end
}

// part is a file and the SHA-256 digest of what was read.
type part struct {
	name   string
	digest [sha256.Size]byte
}

// load loads a document from its folder. Errors and rules name it as shown.
func load(dir fs.FS, name, shown string) loaded {
	l := newLoader(shown)
	l.dir = dir
	doc, err := l.readFile(name, MaxDocument)
	if err != nil {
		return loaded{err: err, cut: true}
	}
	p, err := l.parse([]byte(doc))
	return loaded{p, err, l.parts, l.cut}
}

// Parse compiles a document without a tenants_file. The name stands for the
// file in errors and rules. Its errors hold a [*LoadError] for each fault, up to
// the first 20.
func Parse(name string, doc []byte) (*Policy, error) {
	l := newLoader(name)
	l.parts = []part{{name, sha256.Sum256(doc)}}
	return l.parse(doc)
}

func newLoader(name string) *loader { return &loader{files: [2]string{inDocument: name}} }

func (l *loader) parse(doc []byte) (*Policy, error) {
	l.doc = doc
	var raw rawPolicy
	var p *Policy
	// Each stage needs a sound result of the one before, and would otherwise
	// report faults that are only consequences.
	if root := l.read(doc); len(l.errs) == 0 {
		raw = l.policy(root)
	}
	if len(l.errs) == 0 {
		p = l.compile(raw)
	}
	if len(l.errs) > 0 {
		return nil, l.err()
	}
	p.files = l.files
	p.version = l.version()
	return p, nil
}

// version is the digest of the document, or of the digests of both files.
func (l *loader) version() string {
	digest := l.parts[0].digest
	if len(l.parts) > 1 {
		digest = sha256.Sum256(slices.Concat(digest[:], l.parts[1].digest[:]))
	}
	return "sha256:" + hex.EncodeToString(digest[:])
}

// readFile returns the text of a file, and a byte more than limit where it is
// longer.
func (l *loader) readFile(name string, limit int64) (string, error) {
	l.cut = true // until it is known to be whole
	f, err := l.dir.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.Grow(int(min(info.Size(), limit) + 1))
	digest := sha256.New()
	_, err = io.Copy(&b, io.TeeReader(io.LimitReader(f, limit+1), digest))
	l.parts = append(l.parts, part{name, [sha256.Size]byte(digest.Sum(nil))})
	l.cut = err != nil || b.Len() > int(limit)
	return b.String(), err
}

// loader collects the faults of one document.
type loader struct {
	files [2]string // the names of the document and of its tenants_file
	doc   []byte
	dir   fs.FS // where the files are; nil if they are no files
	parts []part
	cut   bool
	errs  []*LoadError
	more  int // errors not kept

	sets       map[string]*tenantSet // nil until all are compiled
	conditions int                   // how many were met
}

// file says which one a place is in.
type file uint8

const (
	inDocument file = iota
	inTenants
)

// line is a line of a file, from 1.
type line struct {
	n  uint32
	in file
}

// pos is a place in a line, in characters from 1.
type pos struct {
	line
	column int
}

func posOf(n *yaml.Node) pos { return pos{line{n: uint32(n.Line)}, n.Column} } //nolint:gosec // MaxDocument bounds it

func (l *loader) fail(at pos, format string, args ...any) {
	if len(l.errs) == keptErrors {
		l.more++
		return
	}
	l.errs = append(l.errs, &LoadError{l.files[at.in], max(int(at.n), 1), max(at.column, 1), fmt.Sprintf(format, args...)})
}

// place returns file:line.
func (l *loader) place(at line) string { return placeIn(l.files, at) }

func placeIn(files [2]string, at line) string { return fmt.Sprintf("%s:%d", files[at.in], at.n) }

func (l *loader) err() error {
	slices.SortStableFunc(l.errs, func(a, b *LoadError) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var errs []error
	for i, e := range l.errs {
		if i == maxErrors {
			errs = append(errs, fmt.Errorf("%s: and %d more", l.files[inDocument], len(l.errs)-i+l.more))
			break
		}
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// read turns bytes into the root node of the only document in them.
func (l *loader) read(doc []byte) *yaml.Node {
	switch {
	case len(doc) > MaxDocument:
		l.fail(pos{}, "the document has over %d bytes", MaxDocument)
		return nil
	case !utf8.Valid(doc):
		l.fail(lastPos(doc[:invalidAt(doc)]), "the document is not UTF-8")
		return nil
	case countSeparators(doc) > maxSeparators:
		l.fail(pos{}, "the document has over %d entries; are there tenants that belong into a tenants_file?", maxSeparators)
		return nil
	case len(bytes.TrimSpace(doc)) == 0:
		l.fail(pos{}, "the document is empty")
		return nil
	case doc[len(doc)-1] != '\n':
		// In YAML, a prefix of a document is often one too, and may allow more.
		l.fail(lastPos(doc), "the last line has no end: the file may have been cut short")
		return nil
	}
	yl, err := yaml.NewLoader(bytes.NewReader(doc))
	if err != nil {
		l.failYAML(err)
		return nil
	}
	var first, second yaml.Node
	switch err := yl.Load(&first); {
	case errors.Is(err, io.EOF):
		l.fail(pos{}, "the document is empty")
		return nil
	case err != nil:
		l.failYAML(err)
		return nil
	}
	switch err := yl.Load(&second); {
	case err == nil:
		l.fail(posOf(&second), "a second document: a policy is one")
		return nil
	case !errors.Is(err, io.EOF):
		l.failYAML(err)
		return nil
	}
	if first.Kind != yaml.DocumentNode || len(first.Content) != 1 {
		l.fail(pos{}, "the document is empty")
		return nil
	}
	l.plain(first.Content[0])
	return first.Content[0]
}

// countSeparators counts what begins a node of YAML, or more.
func countSeparators(doc []byte) int {
	n := 0
	for _, c := range doc {
		switch c {
		case ',', ':', '[', '{', '-', '?', '\n':
			n++
		}
	}
	return n
}

func (l *loader) failYAML(err error) {
	if le, ok := errors.AsType[*yaml.LoadError](err); ok {
		l.fail(pos{line{n: uint32(le.Mark.Line)}, le.Mark.Column}, "%s", le.Message) //nolint:gosec // MaxDocument bounds it
		return
	}
	l.fail(pos{}, "%v", err)
}

// lastPos returns the place of the last character.
func lastPos(doc []byte) pos {
	before := bytes.Count(doc, []byte("\n"))
	return pos{line{n: uint32(before + 1)}, utf8.RuneCount(doc[bytes.LastIndexByte(doc, '\n')+1:])} //nolint:gosec // MaxDocument bounds it
}

// invalidAt returns the index of the first byte that is not UTF-8.
func invalidAt(doc []byte) int {
	i := 0
	for i < len(doc) {
		r, n := utf8.DecodeRune(doc[i:])
		if r == utf8.RuneError && n <= 1 {
			break
		}
		i += n
	}
	return i
}

// plain refuses what makes a YAML document other than it looks: anchors,
// aliases and merge keys, with which few bytes become many, and tags.
func (l *loader) plain(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		l.fail(posOf(n), "anchors and aliases are not allowed")
		return
	case n.ShortTag() == "!!merge":
		l.fail(posOf(n), "merge keys are not allowed")
	case n.Style&yaml.TaggedStyle != 0:
		l.fail(posOf(n), "tags are not allowed")
	}
	for _, c := range n.Content {
		l.plain(c)
	}
}

// text is a scalar and its place. Its zero value is an absent one.
type text struct {
	pos
	set   bool
	value string
}

// list is a sequence of scalars, each once. Absent and empty differ.
type list struct {
	pos
	set   bool
	items []text
}

// The document as it is written, with places.
type (
	rawPolicy struct {
		domains     []rawDomain
		workloads   []rawWorkload
		methods     []rawMethod
		sets        []rawSet
		tenants     []rawTenant
		tenantsFile text
	}
	rawDomain struct {
		pos
		name    text
		tenants list
	}
	rawWorkload struct {
		pos
		name, match                         text
		tenants, calls, publishes, consumes list
		originate                           *rawOriginate
		deny                                bool
	}
	rawOriginate struct {
		pos
		issuers, scopes, subjects, from list
		classification                  uint32
		maxTTL                          text
	}
	rawMethod struct {
		pos
		match, when     text
		exempt          bool
		callers, scopes list
		classification  uint32
	}
	rawSet struct {
		name         text
		tenants      list // or, where it is not set:
		tier, region text
	}
	rawTenant struct{ id, uid, tier, region, classification text }
)

func (l *loader) policy(root *yaml.Node) rawPolicy {
	var raw rawPolicy
	f := l.fields(root, "a policy", "version", "trust_domains", "workloads", "methods", "tenant_sets", "tenants_file", "tenants")
	if n := f.need("version"); n != nil && (n.ShortTag() != "!!int" || n.Value != "1") {
		l.fail(posOf(n), "this program reads version 1")
	}
	for _, n := range l.sequence(f.need("trust_domains"), "trust_domains") {
		f := l.fields(n, "a trust domain", "name", "tenants")
		raw.domains = append(raw.domains, rawDomain{pos: posOf(n), name: f.needText("name"), tenants: f.list("tenants")})
	}
	for _, n := range l.sequence(f.need("workloads"), "workloads") {
		raw.workloads = append(raw.workloads, l.workload(n))
	}
	for _, n := range l.sequence(f.need("methods"), "methods") {
		f := l.fields(n, "a method rule", "match", "exempt", "callers", "scopes", "classification", "when")
		raw.methods = append(raw.methods, rawMethod{
			pos: posOf(n), match: f.needText("match"), when: f.text("when"), exempt: f.bool("exempt"),
			callers: f.list("callers"), scopes: f.list("scopes"), classification: f.number("classification"),
		})
	}
	for key, value := range l.members(f.get("tenant_sets"), "tenant_sets is a mapping from a name to a list of tenants, or to their tier and region") {
		raw.sets = append(raw.sets, l.set(key, value))
	}
	raw.tenantsFile = f.text("tenants_file")
	for key, value := range l.members(f.need("tenants"), "tenants is a mapping from tenant ID to its uid and attributes; {} for none") {
		f := l.fields(value, "a tenant", "uid", "tier", "region", "classification")
		raw.tenants = append(raw.tenants, rawTenant{
			id: l.text(key, "a tenant ID"), uid: f.needText("uid"),
			tier: f.text("tier"), region: f.text("region"), classification: f.digits("classification"),
		})
	}
	return raw
}

func (l *loader) workload(n *yaml.Node) rawWorkload {
	f := l.fields(n, "a workload", "name", "match", "tenants", "originate", "calls", "publishes", "consumes", "deny")
	w := rawWorkload{
		pos: posOf(n), name: f.needText("name"), match: f.needText("match"), tenants: f.list("tenants"), calls: f.list("calls"),
		publishes: f.list("publishes"), consumes: f.list("consumes"), deny: f.bool("deny"),
	}
	if n := f.get("originate"); n != nil {
		f := l.fields(n, "originate", "issuers", "scopes", "subjects", "classification", "max_ttl", "from")
		w.originate = &rawOriginate{
			pos: posOf(n), issuers: f.list("issuers"), scopes: f.list("scopes"), subjects: f.list("subjects"), from: f.list("from"),
			classification: f.number("classification"), maxTTL: f.text("max_ttl"),
		}
	}
	return w
}

func (l *loader) set(key, value *yaml.Node) rawSet {
	s := rawSet{name: l.text(key, "a tenant set's name")}
	if value.Kind == yaml.SequenceNode {
		s.tenants = l.list(value, "a tenant set")
		return s
	}
	const what = "a tenant set is a list of tenants, or their tier, region or both"
	if value.Kind != yaml.MappingNode {
		l.fail(posOf(value), what)
		return s
	}
	f := l.fields(value, "a tenant set", "tier", "region")
	s.tier, s.region = f.text("tier"), f.text("region")
	if len(value.Content) == 0 {
		l.fail(f.at, what)
	}
	return s
}

// members yields the keys and values of a mapping; n may be nil.
func (l *loader) members(n *yaml.Node, otherwise string) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, value *yaml.Node) bool) {
		if n == nil {
			return
		}
		if n.Kind != yaml.MappingNode {
			l.fail(posOf(n), "%s", otherwise)
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

// fields are the members of a mapping.
type fields struct {
	l    *loader
	at   pos
	what string
	node map[string]*yaml.Node // nil if it was no mapping, which was reported
}

func (f fields) get(key string) *yaml.Node { return f.node[key] }

func (f fields) need(key string) *yaml.Node {
	n := f.node[key]
	if n == nil && f.node != nil {
		f.l.fail(f.at, "%s needs the key %q", f.what, key)
	}
	return n
}

func (f fields) text(key string) text     { return f.l.text(f.get(key), key) }
func (f fields) needText(key string) text { return f.l.text(f.need(key), key) }
func (f fields) list(key string) list     { return f.l.list(f.get(key), key) }

func (f fields) bool(key string) bool {
	n := f.get(key)
	if n == nil {
		return false
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Value != "true" && n.Value != "false" {
		f.l.fail(posOf(n), "%s is true or false", key)
	}
	return n.Value == "true"
}

// number returns a classification, 0 if it is absent.
func (f fields) number(key string) uint32 { return f.l.number(f.digits(key)) }

// digits returns a number as it is written, for [loader.number].
func (f fields) digits(key string) text {
	n := f.get(key)
	if n == nil {
		return text{}
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
		return text{pos: posOf(n), set: true}
	}
	return text{posOf(n), true, n.Value}
}

func (l *loader) fields(n *yaml.Node, what string, known ...string) fields {
	f := fields{l: l, at: posOf(n), what: what}
	if n.Kind != yaml.MappingNode {
		l.fail(f.at, "%s is a mapping with the keys %s", what, strings.Join(known, ", "))
		return f
	}
	f.node = map[string]*yaml.Node{}
	first := map[string]int{} // line
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode || !slices.Contains(known, key.Value):
			l.fail(posOf(key), "unknown key %q in %s%s", key.Value, what, l.didYouMean(key.Value, slices.Values(known)))
		case f.node[key.Value] != nil:
			l.fail(posOf(key), "the key %q stands twice, first in line %d", key.Value, first[key.Value])
		default:
			f.node[key.Value], first[key.Value] = n.Content[i+1], key.Line
		}
	}
	return f
}

func (l *loader) sequence(n *yaml.Node, what string) []*yaml.Node {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		l.fail(posOf(n), "%s is a list; [] for none", what)
		return nil
	}
	return n.Content
}

func (l *loader) text(n *yaml.Node, what string) text {
	if n == nil {
		return text{}
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" || n.Kind == yaml.ScalarNode && n.Value == "":
		l.fail(posOf(n), "%s is empty", what)
	case n.Kind != yaml.ScalarNode:
		l.fail(posOf(n), "%s is a text", what)
	case n.ShortTag() != "!!str":
		l.fail(posOf(n), "%s is a text: put it in quotes (%q)", what, n.Value)
	default:
		return text{posOf(n), true, n.Value}
	}
	return text{pos: posOf(n)}
}

func (l *loader) list(n *yaml.Node, what string) list {
	if n == nil {
		return list{}
	}
	out := list{pos: posOf(n), set: true}
	seen := map[string]uint32{}
	for _, item := range l.sequence(n, what) {
		t := l.text(item, "each of "+what)
		if !t.set {
			continue
		}
		if line := seen[t.value]; line != 0 {
			l.fail(t.pos, "%q stands twice in %s, first in line %d", t.value, what, line)
			continue
		}
		seen[t.value] = t.n
		out.items = append(out.items, t)
	}
	return out
}

// number reads a classification, 0 if it is absent.
func (l *loader) number(t text) uint32 {
	if !t.set {
		return 0
	}
	v, err := strconv.ParseUint(t.value, 10, 32)
	if err != nil || strconv.FormatUint(v, 10) != t.value {
		l.fail(t.pos, "a classification is a number from 0, the lowest, to 4294967295")
	}
	return uint32(v)
}

// didYouMean names the known word that is nearest to a mistyped one.
func (l *loader) didYouMean(word string, known iter.Seq[string]) string {
	if len(l.errs) > maxErrors { // nobody will read it
		return ""
	}
	best, dist := "", 3
	for k := range known {
		d := editDistance(word, k)
		if d < len(k) && (d < dist || d == dist && k < best) {
			best, dist = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", best)
}

// editDistance is Levenshtein's, up to 3. What is longer than any name is far
// from all.
func editDistance(a, b string) int {
	if len(a) > 128 || len(b) > 128 || len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], 3)
}
