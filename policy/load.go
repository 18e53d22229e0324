package policy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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

// LoadFile reads and compiles a document. Its errors and rules name the file
// by path as it is given.
func LoadFile(path string) (*Policy, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	doc, err := io.ReadAll(io.LimitReader(f, MaxDocument+1))
	if err != nil {
		return nil, err
	}
	return Parse(path, doc)
}

// Parse compiles a document. The name stands for the file in errors and rules.
// Its errors hold a [*LoadError] for each fault, up to the first 20.
func Parse(name string, doc []byte) (*Policy, error) {
	l := &loader{file: name}
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
	p.version = digest(doc)
	return p, nil
}

// loader collects the faults of one document.
type loader struct {
	file string
	errs []*LoadError
	more int // errors not kept
}

// pos is a place in the document.
type pos struct{ line, column int }

func posOf(n *yaml.Node) pos { return pos{n.Line, n.Column} }

func (l *loader) fail(at pos, format string, args ...any) {
	if len(l.errs) == keptErrors {
		l.more++
		return
	}
	l.errs = append(l.errs, &LoadError{l.file, max(at.line, 1), max(at.column, 1), fmt.Sprintf(format, args...)})
}

// place returns file:line.
func (l *loader) place(at pos) string { return fmt.Sprintf("%s:%d", l.file, at.line) }

func (l *loader) err() error {
	slices.SortStableFunc(l.errs, func(a, b *LoadError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var errs []error
	for i, e := range l.errs {
		if i == maxErrors {
			errs = append(errs, fmt.Errorf("%s: and %d more", l.file, len(l.errs)-i+l.more))
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

func (l *loader) failYAML(err error) {
	if le, ok := errors.AsType[*yaml.LoadError](err); ok {
		l.fail(pos{le.Mark.Line, le.Mark.Column}, "%s", le.Message)
		return
	}
	l.fail(pos{}, "%v", err)
}

// lastPos returns the place of the last character.
func lastPos(doc []byte) pos {
	line := bytes.Count(doc, []byte("\n"))
	return pos{line + 1, utf8.RuneCount(doc[bytes.LastIndexByte(doc, '\n')+1:])}
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
		domains   []rawDomain
		workloads []rawWorkload
		methods   []rawMethod
		tenants   []rawTenant
	}
	rawDomain struct {
		pos
		name    text
		tenants list
	}
	rawWorkload struct {
		pos
		name, match text
		tenants     list
		originate   *rawOriginate
		calls       list
		deny        bool
	}
	rawOriginate struct {
		pos
		issuers, scopes, subjects list
		classification            uint32
		maxTTL                    text
	}
	rawMethod struct {
		pos
		match           text
		exempt          bool
		callers, scopes list
	}
	rawTenant struct {
		pos
		id, uid text
	}
)

func (l *loader) policy(root *yaml.Node) rawPolicy {
	var raw rawPolicy
	f := l.fields(root, "a policy", "version", "trust_domains", "workloads", "methods", "tenants")
	if n := f.need("version"); n != nil && (n.ShortTag() != "!!int" || n.Value != "1") {
		l.fail(posOf(n), "this program reads version 1")
	}
	for _, n := range l.sequence(f.need("trust_domains"), "trust_domains") {
		f := l.fields(n, "a trust domain", "name", "tenants")
		raw.domains = append(raw.domains, rawDomain{
			pos: posOf(n), name: l.text(f.need("name"), "name"), tenants: l.list(f.get("tenants"), "tenants"),
		})
	}
	for _, n := range l.sequence(f.need("workloads"), "workloads") {
		raw.workloads = append(raw.workloads, l.workload(n))
	}
	for _, n := range l.sequence(f.need("methods"), "methods") {
		f := l.fields(n, "a method rule", "match", "exempt", "callers", "scopes")
		raw.methods = append(raw.methods, rawMethod{
			pos: posOf(n), match: l.text(f.need("match"), "match"), exempt: l.bool(f.get("exempt"), "exempt"),
			callers: l.list(f.get("callers"), "callers"), scopes: l.list(f.get("scopes"), "scopes"),
		})
	}
	raw.tenants = l.tenants(f.need("tenants"))
	return raw
}

func (l *loader) workload(n *yaml.Node) rawWorkload {
	f := l.fields(n, "a workload", "name", "match", "tenants", "originate", "calls", "deny")
	w := rawWorkload{
		pos: posOf(n), name: l.text(f.need("name"), "name"), match: l.text(f.need("match"), "match"),
		tenants: l.list(f.get("tenants"), "tenants"), calls: l.list(f.get("calls"), "calls"), deny: l.bool(f.get("deny"), "deny"),
	}
	if n := f.get("originate"); n != nil {
		f := l.fields(n, "originate", "issuers", "scopes", "subjects", "classification", "max_ttl")
		w.originate = &rawOriginate{
			pos: posOf(n), issuers: l.list(f.get("issuers"), "issuers"), scopes: l.list(f.get("scopes"), "scopes"),
			subjects:       l.list(f.get("subjects"), "subjects"),
			classification: l.classification(f.get("classification")), maxTTL: l.text(f.get("max_ttl"), "max_ttl"),
		}
	}
	return w
}

func (l *loader) tenants(n *yaml.Node) []rawTenant {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		l.fail(posOf(n), "tenants is a mapping from tenant ID to its uid and attributes; {} for none")
		return nil
	}
	var raw []rawTenant
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f := l.fields(value, "a tenant", "uid", "tier", "region", "classification")
		raw = append(raw, rawTenant{pos: posOf(key), id: l.text(key, "a tenant ID"), uid: l.text(f.need("uid"), "uid")})
		// Attributes are for conditions, which this version has not; they
		// must be well-formed all the same.
		l.text(f.get("tier"), "tier")
		l.text(f.get("region"), "region")
		l.classification(f.get("classification"))
	}
	return raw
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
			l.fail(posOf(key), "unknown key %q in %s%s", key.Value, what, l.didYouMean(key.Value, known))
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
	seen := map[string]int{}
	for _, item := range l.sequence(n, what) {
		t := l.text(item, "each of "+what)
		if !t.set {
			continue
		}
		if line := seen[t.value]; line != 0 {
			l.fail(t.pos, "%q stands twice in %s, first in line %d", t.value, what, line)
			continue
		}
		seen[t.value] = t.line
		out.items = append(out.items, t)
	}
	return out
}

func (l *loader) bool(n *yaml.Node, what string) bool {
	if n == nil {
		return false
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Value != "true" && n.Value != "false" {
		l.fail(posOf(n), "%s is true or false", what)
		return false
	}
	return n.Value == "true"
}

// didYouMean names the known word that is nearest to a mistyped one.
func (l *loader) didYouMean(word string, known []string) string {
	if len(l.errs) > maxErrors { // nobody will read it
		return ""
	}
	best, dist := "", 3
	for _, k := range known {
		if d := editDistance(word, k); d < dist && d < len(k) {
			best, dist = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", best)
}

// editDistance is Levenshtein's. What is longer than any key is far from all.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
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
	return row[len(b)]
}
