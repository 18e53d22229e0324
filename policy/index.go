package policy

import (
	"slices"
	"strings"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// index finds the entry that matches a SPIFFE ID's path, segment by segment.
type index struct{ root node }

// node is what may follow some segments.
type node struct {
	literal map[string]*node
	globs   []edge    // segments with * or {tenant}
	end     *workload // an entry that ends here
	rest    *workload // an entry that goes on with **
}

type edge struct {
	segment segment
	node    *node
}

// add puts w in its place. Of two entries with the same pattern, as denying
// ones may have, the first stays: either will do.
func (ix *index) add(w *workload) {
	n := &ix.root
	for i := range w.match.segments {
		n = n.follow(&w.match.segments[i])
	}
	switch {
	case w.match.rest && n.rest == nil:
		n.rest = w
	case !w.match.rest && n.end == nil:
		n.end = w
	}
}

// follow returns the node behind a segment, and makes it if need be.
func (n *node) follow(s *segment) *node {
	if s.literal() {
		next := n.literal[s.glob[0]]
		if next == nil {
			if n.literal == nil {
				n.literal = map[string]*node{}
			}
			next = new(node)
			n.literal[s.glob[0]] = next
		}
		return next
	}
	for _, e := range n.globs {
		if e.segment.capture == s.capture && slices.Equal(e.segment.glob, s.glob) {
			return e.node
		}
	}
	next := new(node)
	n.globs = append(n.globs, edge{*s, next})
	return next
}

// find returns the entry that matches the path of a valid SPIFFE ID, and the
// tenant that it captured. Of allowing entries at most one does; of denying
// ones any will do.
func (ix *index) find(path string) (*workload, tenant.ID) {
	return ix.root.find(path)
}

func (n *node) find(path string) (*workload, tenant.ID) {
	if path == "" {
		return n.end, tenant.ID{}
	}
	part, rest := cutSegment(path)
	if next := n.literal[part]; next != nil {
		if w, captured := next.find(rest); w != nil {
			return w, captured
		}
	}
	for i := range n.globs {
		e := &n.globs[i]
		id, ok := e.segment.matches(part)
		if !ok {
			continue
		}
		if w, captured := e.node.find(rest); w != nil {
			if e.segment.capture {
				captured = id
			}
			return w, captured
		}
	}
	return n.rest, tenant.ID{}
}

// rivals returns the entries of which some SPIFFE ID matches both them and w,
// by name, and adds to steps what finding them took.
func (ix *index) rivals(w *workload, steps *int) []*workload {
	var found []*workload
	ix.root.rivals(&w.match, w.match.segments, steps, &found)
	slices.SortFunc(found, func(a, b *workload) int { return strings.Compare(a.name, b.name) })
	return found
}

// rivals adds to found the entries at and below n that share an ID with p, of
// which the given segments are left.
func (n *node) rivals(p *pattern, left []segment, steps *int, found *[]*workload) {
	*steps++
	if n.rest != nil && (p.rest || len(left) > 0) {
		*found = append(*found, n.rest)
	}
	if len(left) == 0 {
		switch {
		case p.rest:
			n.below(steps, found)
		case n.end != nil:
			*found = append(*found, n.end)
		}
		return
	}
	s := &left[0]
	if s.literal() {
		if next := n.literal[s.glob[0]]; next != nil {
			next.rivals(p, left[1:], steps, found)
		}
	} else {
		for part, next := range n.literal {
			*steps++
			if _, ok := s.matches(part); ok {
				next.rivals(p, left[1:], steps, found)
			}
		}
	}
	for i := range n.globs {
		if n.globs[i].segment.overlaps(s, steps) {
			n.globs[i].node.rivals(p, left[1:], steps, found)
		}
	}
}

// below adds all entries that have at least one segment more.
func (n *node) below(steps *int, found *[]*workload) {
	add := func(next *node) {
		*steps++
		for _, w := range []*workload{next.end, next.rest} {
			if w != nil {
				*found = append(*found, w)
			}
		}
		next.below(steps, found)
	}
	for _, next := range n.literal {
		add(next)
	}
	for _, e := range n.globs {
		add(e.node)
	}
}
