package hop

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
)

// rfcRoot is MTH of RFC 9162, section 2.1.1, as it is written there.
func rfcRoot(statements []string) []byte {
	if len(statements) == 1 {
		sum := sha256.Sum256([]byte("\x00" + statements[0]))
		return sum[:]
	}
	k := 1
	for 2*k < len(statements) {
		k *= 2
	}
	sum := sha256.Sum256(slices.Concat([]byte{1}, rfcRoot(statements[:k]), rfcRoot(statements[k:])))
	return sum[:]
}

// planted returns the statements of a tree, each with its place, without signatures.
func planted(statements []string) (*batch, []*sealed) {
	b := new(batch)
	for _, s := range statements {
		b.leaves = append(b.leaves, leafHash(s))
	}
	b.tree = newHashTree(b.leaves)
	var hops []*sealed
	for i, s := range statements {
		h := &sealed{encoded: s}
		b.seal(h, i)
		hops = append(hops, h)
	}
	return b, hops
}

// All forms of trees that there may be: the root is the RFC's, each leaf leads to it, and
// by no path of another length, as no other leaf, and in no tree of another size
// unless the root is another.
func TestTree(t *testing.T) {
	var all []string
	for i := range MaxTree {
		all = append(all, fmt.Sprintf("statement %d", i))
	}
	for size := 1; size <= MaxTree; size++ {
		if size > 33 && size%64 > 1 && size%64 < 63 {
			continue // no new form, and slow with -race
		}
		statements := all[:size]
		b, hops := planted(statements)
		if want := rfcRoot(statements); hash(want) != b.tree.root() {
			t.Fatalf("%d leaves: another root than the RFC's", size)
		}
		for i, h := range hops {
			if root, ok := h.root(); !ok || root != b.tree.root() {
				t.Fatalf("leaf %d of %d does not lead to the root", i, size)
			}
			good := *h
			for name, change := range map[string]func(*sealed){
				"H11 no index":        func(h *sealed) { h.index = h.size },
				"H11 a hash more":     func(h *sealed) { h.path = append(slices.Clone(h.path), string(make([]byte, 32))) },
				"H11 a hash less":     func(h *sealed) { h.path = h.path[:max(len(h.path)-1, 0)] },
				"H11 a short hash":    func(h *sealed) { h.path = append([]string{""}, h.path[min(1, len(h.path)):]...) },
				"H11 another's index": func(h *sealed) { h.index = (h.index + 1) % h.size },
				"H11 another path":    func(h *sealed) { h.path = append([]string{string(make([]byte, 32))}, h.path[min(1, len(h.path)):]...) },
				"H11 another":         func(h *sealed) { h.encoded += "x" },
			} {
				bad := good
				change(&bad)
				if size == 1 && (name == "H11 a hash less" || name == "H11 another's index") {
					continue // changes nothing
				}
				if root, ok := bad.root(); ok && root == b.tree.root() {
					t.Errorf("%s: leaf %d of %d leads to the root", name, i, size)
				}
			}
		}
	}
}

// The sizes that there are no trees of.
func TestTreeSizes(t *testing.T) {
	for _, size := range []uint32{0, MaxTree + 1, 1<<32 - 1} {
		for pathLength := range 34 {
			h := &sealed{encoded: "statement", size: size, path: slices.Repeat([]string{string(make([]byte, 32))}, pathLength)}
			if _, ok := h.root(); ok {
				t.Errorf("H11 a tree of %d with a path of %d", size, pathLength)
			}
		}
	}
}

// Every leaf has exactly one length of path.
func TestTreePathLength(t *testing.T) {
	zero := string(make([]byte, 32))
	for size := uint32(1); size <= MaxTree; size++ {
		for index := range size {
			lengths := 0
			for n := range 10 {
				h := &sealed{encoded: "statement", size: size, index: index, path: slices.Repeat([]string{zero}, n)}
				if _, ok := h.root(); ok {
					lengths++
				}
			}
			if lengths != 1 {
				t.Fatalf("H11 leaf %d of %d has paths of %d lengths", index, size, lengths)
			}
		}
	}
}
