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

// hashTree holds the hashes of each level, the leaves first and the root last.
type hashTree [][]hash

func newHashTree(leaves []hash) hashTree {
	t := hashTree{leaves}
	for level := leaves; len(level) > 1; {
		var above []hash
		for ; len(level) > 1; level = level[2:] {
			above = append(above, nodeHash(level[0], level[1]))
		}
		level = append(above, level...)
		t = append(t, level)
	}
	return t
}

func (t hashTree) root() hash { return t[len(t)-1][0] }

// path returns what leads from a leaf to the root: the hash of the leaf's
// sibling, of its parent's, and so on.
func (t hashTree) path(i int) (path []string) {
	for _, level := range t {
		if sibling := i ^ 1; sibling < len(level) {
			path = append(path, string(level[sibling][:]))
		}
		i /= 2
	}
	return path
}
