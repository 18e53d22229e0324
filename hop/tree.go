package hop

import "crypto/sha256"

// MaxTree is the most leaves of a tree: the most statements of one signature.
const MaxTree = 256

type hash = [sha256.Size]byte

// The leaf and node hashes of RFC 9162, section 2.1.1.

func leafHash(statement string) hash { return hashOf("\x00", statement) }

// hashOf returns the SHA-256 of a text after a prefix. The two are put together off the
// stack, whose growth would cost more than the hash.
func hashOf(prefix, text string) (sum hash) {
	scratch(func(b []byte) []byte {
		b = append(append(b, prefix...), text...)
		sum = sha256.Sum256(b)
		return b
	})
	return sum
}

func nodeHash(left, right hash) hash {
	b := [1 + 2*sha256.Size]byte{1}
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// root returns the root of the tree that h.path leads to. It is none unless the tree has 1
// to MaxTree leaves, h.index is one of them, and the path has exactly the hashes
// that its place in the tree asks for (RFC 9162, section 2.1.3.2).
func (h *sealed) root() (root hash, ok bool) {
	if h.index >= h.size || h.size > MaxTree {
		return hash{}, false
	}
	root, rest := leafHash(h.encoded), h.path
	for at, last := h.index, h.size-1; last > 0; at, last = at/2, last/2 {
		if at == last && at%2 == 0 {
			continue // without a sibling it stands for its parent
		}
		if len(rest) == 0 || len(rest[0]) != sha256.Size {
			return hash{}, false
		}
		sibling := hash([]byte(rest[0]))
		if at%2 == 0 {
			root = nodeHash(root, sibling)
		} else {
			root = nodeHash(sibling, root)
		}
		rest = rest[1:]
	}
	return root, len(rest) == 0
}

// hashTree holds the hashes of each level one after the other, the leaves first and the root
// last: the paths of all leaves share the text.
type hashTree []string

func newHashTree(leaves []hash) hashTree {
	var t hashTree
	for level := leaves; ; {
		t = append(t, levelText(level))
		if len(level) <= 1 {
			return t
		}
		above := make([]hash, 0, len(level))
		for ; len(level) > 1; level = level[2:] {
			above = append(above, nodeHash(level[0], level[1]))
		}
		level = append(above, level...)
	}
}

func levelText(level []hash) string {
	var b []byte
	for _, h := range level {
		b = append(b, h[:]...)
	}
	return string(b)
}

func (t hashTree) root() hash { return hash([]byte(t[len(t)-1])) }

// path returns what leads from a leaf to the root: the hash of the leaf's
// sibling, of its parent's, and so on.
func (t hashTree) path(i int) []string {
	path := make([]string, 0, len(t))
	for _, level := range t {
		if sibling := (i ^ 1) * sha256.Size; sibling < len(level) {
			path = append(path, level[sibling:sibling+sha256.Size])
		}
		i /= 2
	}
	return path
}
