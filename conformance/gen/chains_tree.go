package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
)

// The tree of RFC 9162, section 2.1, as its recursive definitions have it.

func leaf(statement []byte) []byte {
	sum := sha256.Sum256(slices.Concat([]byte{0}, statement))
	return sum[:]
}

func node(left, right []byte) []byte {
	sum := sha256.Sum256(slices.Concat([]byte{1}, left, right))
	return sum[:]
}

// split returns the largest power of two below n, which is at least 2.
func split(n int) int {
	k := 1
	for 2*k < n {
		k *= 2
	}
	return k
}

// treeHash is MTH, of leaves that are hashed already.
func treeHash(leaves [][]byte) []byte {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := split(len(leaves))
	return node(treeHash(leaves[:k]), treeHash(leaves[k:]))
}

// treePath is PATH.
func treePath(i int, leaves [][]byte) [][]byte {
	if len(leaves) == 1 {
		return nil
	}
	k := split(len(leaves))
	if i < k {
		return append(treePath(i, leaves[:k]), treeHash(leaves[k:]))
	}
	return append(treePath(i-k, leaves[k:]), treeHash(leaves[:k]))
}

// treeBytes is what SPEC.md, section 5, has signed.
func treeBytes(kind pb.Kind, size int, root []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte(prefixes[kind]), uint32(size)) //nolint:gosec // small
	return append(b, root...)
}

// leavesAround are those of a tree in which a statement is leaf i.
func leavesAround(statement []byte, i, size int) (leaves [][]byte) {
	for j := range size {
		other := randomly(fmt.Sprintf("leaf %d", j))
		leaves = append(leaves, leaf(other[:]))
	}
	if i < size {
		leaves[i] = leaf(statement)
	}
	return leaves
}

// plant makes hop n leaf i of a tree.
func plant(n, i, size int) func(*call) {
	return func(c *call) {
		h := c.hops.Hops[n]
		leaves := leavesAround(h.Statement, i, size)
		h.TreeSize, h.LeafIndex, h.InclusionPath = uint32(size), uint32(i), treePath(i, leaves) //nolint:gosec // small
		h.Signature = sign(c.by[n].key, treeBytes(c.statement(n).Kind, size, treeHash(leaves)))
	}
}

// planted plants hop 1, and then changes it.
func planted(i, size int, f func(c *call, h *pb.Hop)) func(*call) {
	return func(c *call) {
		plant(1, i, size)(c)
		f(c, c.hops.Hops[1])
	}
}

// placed changes what hop 1 says of its tree.
func placed(i, size int, f func(h *pb.Hop)) func(*call) {
	return planted(i, size, func(_ *call, h *pb.Hop) { f(h) })
}

// tree changes the tree of hop 1, which is one of one.
func tree(f func(*pb.Hop)) func(*call) {
	return func(c *call) { f(c.hops.Hops[1]) }
}

// otherRoot signs a root that is made of the statement's leaf hash, for a tree
// of so many leaves.
func otherRoot(size uint32, root func(leaf [32]byte) []byte) func(statement []byte) []byte {
	return func(statement []byte) []byte {
		b := binary.BigEndian.AppendUint32([]byte(prefixes[pb.Kind_KIND_CALL]), size)
		return append(b, root(sha256.Sum256(append([]byte{0}, statement...)))...)
	}
}

var zero32 = make([]byte, 32)

// trees: a statement's place in a Merkle tree.
var trees = []chain{
	{"H11", "The first of two leaves.", "three-hops", plant(1, 0, 2), "", 0},
	{"H11", "The second of two leaves.", "three-hops", plant(1, 1, 2), "", 0},
	{"H11", "The last of three leaves, whose path is the shorter.", "three-hops", plant(1, 2, 3), "", 0},
	{"H11", "The last of five leaves, whose path is one hash.", "three-hops", plant(1, 4, 5), "", 0},
	{"H11", "The last of seven leaves.", "three-hops", plant(1, 6, 7), "", 0},
	{"H11", "A leaf in the middle of eight.", "three-hops", plant(1, 3, 8), "", 0},
	{"H11", "The first of 256 leaves.", "three-hops", plant(1, 0, 256), "", 0},
	{"H11", "The last of 256 leaves.", "three-hops", plant(1, 255, 256), "", 0},
	{"H11", "The last of 255 leaves.", "three-hops", plant(1, 254, 255), "", 0},
	{"H11", "The last of 129 leaves.", "three-hops", plant(1, 128, 129), "", 0},
	{"H11", "Every hop in a tree of its own.", "three-hops", func(c *call) {
		plant(0, 5, 11)(c)
		plant(1, 0, 3)(c)
		plant(2, 6, 8)(c)
	}, "", 0},
	{"H11", "A key on P-384 signs a tree.", "p384", plant(1, 2, 6), "", 0},
	{"H11", "An RSA key signs a tree.", "rsa", plant(1, 2, 6), "", 0},
	{"H11", "A grant in a tree.", "granted", plant(0, 1, 4), "", 0},

	{"H11", "A tree of none.", "three-hops", tree(func(h *pb.Hop) { h.TreeSize = 0 }), "SIGNATURE_MALFORMED", 1},
	{"H11", "A tree of two, though one leaf was signed.", "three-hops", tree(func(h *pb.Hop) { h.TreeSize = 2 }), "SIGNATURE_MALFORMED", 1},
	{"H11", "A tree of 2^32-1.", "three-hops", tree(func(h *pb.Hop) { h.TreeSize = 1<<32 - 1 }), "SIGNATURE_MALFORMED", 1},
	{"H11", "A tree of 257, signed as such.", "three-hops", plant(1, 0, 257), "SIGNATURE_MALFORMED", 1},
	{"H11", "A tree_size of 2^32 and 1, which is 1 in 32 bits.", "three-hops", rawHop(func(head, hop []byte) []byte {
		head[len(head)-2] += 4 // the length of the hop, of which this is the lower byte
		return append(append(head, hop[:len(hop)-1]...), 0x81, 0x80, 0x80, 0x80, 0x10)
	}), "CONTEXT_MALFORMED", -1},
	{"H11", "Another leaf of a tree of one.", "three-hops", tree(func(h *pb.Hop) { h.LeafIndex = 1 }), "SIGNATURE_MALFORMED", 1},
	{"H11", "A path in a tree of one.", "three-hops", tree(func(h *pb.Hop) { h.InclusionPath = [][]byte{zero32} }), "SIGNATURE_MALFORMED", 1},
	{"H11", "A path of an empty hash in a tree of one.", "three-hops", tree(func(h *pb.Hop) { h.InclusionPath = [][]byte{{}} }), "SIGNATURE_MALFORMED", 1},
	{"H11", "A path of 33 hashes.", "three-hops", tree(func(h *pb.Hop) {
		h.TreeSize, h.InclusionPath = 1<<32-1, slices.Repeat([][]byte{zero32}, 33)
	}), "SIGNATURE_MALFORMED", 1},
	{"H11", "An index that is the size.", "three-hops", placed(1, 2, func(h *pb.Hop) { h.LeafIndex = 2 }), "SIGNATURE_MALFORMED", 1},
	{"H11", "An index beyond the size that has the same bits at the end.", "three-hops", placed(1, 4, func(h *pb.Hop) { h.LeafIndex = 5 }), "SIGNATURE_MALFORMED", 1},
	{"H11", "An index of 2^32-1.", "three-hops", placed(1, 2, func(h *pb.Hop) { h.LeafIndex = 1<<32 - 1 }), "SIGNATURE_MALFORMED", 1},
	{"H11", "The index of its sibling.", "three-hops", placed(0, 2, func(h *pb.Hop) { h.LeafIndex = 1 }), "SIGNATURE_INVALID", 1},
	{"H11", "An index in the other half.", "three-hops", placed(1, 8, func(h *pb.Hop) { h.LeafIndex = 5 }), "SIGNATURE_INVALID", 1},
	{"H11", "An index whose path is shorter.", "three-hops", placed(0, 3, func(h *pb.Hop) { h.LeafIndex = 2 }), "SIGNATURE_MALFORMED", 1},
	{"H11", "An index whose path is longer.", "three-hops", placed(2, 3, func(h *pb.Hop) { h.LeafIndex = 0 }), "SIGNATURE_MALFORMED", 1},
	{"H11", "A size with paths of the same length.", "three-hops", placed(3, 8, func(h *pb.Hop) { h.TreeSize = 7 }), "SIGNATURE_INVALID", 1},
	{"H11", "A size with shorter paths.", "three-hops", placed(3, 8, func(h *pb.Hop) { h.TreeSize = 4 }), "SIGNATURE_MALFORMED", 1},
	{"H11", "A size with longer paths.", "three-hops", placed(3, 8, func(h *pb.Hop) { h.TreeSize = 9 }), "SIGNATURE_MALFORMED", 1},
	{"H11", "No path in a tree of two.", "three-hops", placed(0, 2, func(h *pb.Hop) { h.InclusionPath = nil }), "SIGNATURE_MALFORMED", 1},
	{"H11", "A path without its last hash.", "three-hops", placed(3, 8, func(h *pb.Hop) { h.InclusionPath = h.InclusionPath[:2] }), "SIGNATURE_MALFORMED", 1},
	{"H11", "A path with a hash more.", "three-hops", placed(3, 8, func(h *pb.Hop) {
		h.InclusionPath = append(h.InclusionPath, zero32)
	}), "SIGNATURE_MALFORMED", 1},
	{"H11", "A path with an empty hash more.", "three-hops", placed(3, 8, func(h *pb.Hop) {
		h.InclusionPath = append(h.InclusionPath, nil)
	}), "SIGNATURE_MALFORMED", 1},
	{"H11", "A path with its own leaf as the sibling that the last leaf does not have.", "three-hops", planted(2, 3, func(_ *call, h *pb.Hop) {
		h.InclusionPath = slices.Insert(h.InclusionPath, 0, leaf(h.Statement))
	}), "SIGNATURE_MALFORMED", 1},
	{"H11", "A tree in which the last leaf is its own sibling, signed as such.", "three-hops", planted(2, 3, func(c *call, h *pb.Hop) {
		own := leaf(h.Statement)
		h.Signature = sign(c.by[1].key, treeBytes(pb.Kind_KIND_CALL, 3, node(h.InclusionPath[0], node(own, own))))
	}), "SIGNATURE_INVALID", 1},
	{"H11", "A hash of 31 bytes.", "three-hops", placed(0, 2, func(h *pb.Hop) { h.InclusionPath[0] = h.InclusionPath[0][:31] }), "SIGNATURE_MALFORMED", 1},
	{"H11", "A hash of 33 bytes.", "three-hops", placed(0, 2, func(h *pb.Hop) {
		h.InclusionPath[0] = append(h.InclusionPath[0], 0)
	}), "SIGNATURE_MALFORMED", 1},
	{"H11", "Two hashes in one.", "three-hops", placed(0, 4, func(h *pb.Hop) {
		h.InclusionPath = [][]byte{slices.Concat(h.InclusionPath...)}
	}), "SIGNATURE_MALFORMED", 1},
	{"H11", "A path from the root.", "three-hops", placed(3, 8, func(h *pb.Hop) { slices.Reverse(h.InclusionPath) }), "SIGNATURE_INVALID", 1},
	{"H11", "A bit of the path flipped.", "three-hops", placed(3, 8, func(h *pb.Hop) { h.InclusionPath[1][7] ^= 1 }), "SIGNATURE_INVALID", 1},
	{"H11", "The path of another leaf.", "three-hops", planted(3, 8, func(c *call, h *pb.Hop) {
		h.InclusionPath = treePath(2, leavesAround(h.Statement, 3, 8))
	}), "SIGNATURE_INVALID", 1},
	{"H11", "A statement that is not in the tree.", "three-hops", planted(3, 8, func(c *call, h *pb.Hop) {
		leaves := leavesAround(nil, 8, 8)
		h.Signature = sign(c.by[1].key, treeBytes(pb.Kind_KIND_CALL, 8, treeHash(leaves)))
	}), "SIGNATURE_INVALID", 1},
	{"H11", "A node of the tree taken for the leaf.", "three-hops", planted(0, 4, func(_ *call, h *pb.Hop) {
		h.TreeSize, h.InclusionPath = 2, h.InclusionPath[1:]
	}), "SIGNATURE_INVALID", 1},
	{"H11", "Nodes hashed as leaves.", "three-hops", planted(0, 2, func(c *call, h *pb.Hop) {
		root := leaf(slices.Concat(leaf(h.Statement), h.InclusionPath[0]))
		h.Signature = sign(c.by[1].key, treeBytes(pb.Kind_KIND_CALL, 2, root))
	}), "SIGNATURE_INVALID", 1},
	{"H11", "Leaves and nodes hashed without prefixes.", "three-hops", planted(0, 2, func(c *call, h *pb.Hop) {
		own := sha256.Sum256(h.Statement)
		root := sha256.Sum256(slices.Concat(own[:], h.InclusionPath[0]))
		h.Signature = sign(c.by[1].key, treeBytes(pb.Kind_KIND_CALL, 2, root[:]))
	}), "SIGNATURE_INVALID", 1},
	{"H11", "A statement that is two hashes of a tree.", "three-hops", planted(0, 2, func(c *call, h *pb.Hop) {
		h.Statement = slices.Concat(leaf(h.Statement), h.InclusionPath[0])
	}), "CONTEXT_MALFORMED", 1},
	{"H11", "A tree that another signer signed.", "three-hops", planted(3, 8, func(c *call, h *pb.Hop) {
		h.Signature = sign(c.by[0].key, treeBytes(pb.Kind_KIND_CALL, 8, treeHash(leavesAround(h.Statement, 3, 8))))
	}), "SIGNATURE_INVALID", 1},
	{"H2 H11", "A tree that was signed for messages.", "three-hops", planted(3, 8, func(c *call, h *pb.Hop) {
		h.Signature = sign(c.by[1].key, treeBytes(pb.Kind_KIND_MESSAGE, 8, treeHash(leavesAround(h.Statement, 3, 8))))
	}), "SIGNATURE_INVALID", 1},
	{"H2 H11", "A tree that was signed for grants.", "three-hops", planted(3, 8, func(c *call, h *pb.Hop) {
		h.Signature = sign(c.by[1].key, treeBytes(pb.Kind_KIND_GRANT, 8, treeHash(leavesAround(h.Statement, 3, 8))))
	}), "SIGNATURE_INVALID", 1},
	{"H11", "The signature of a tree of one in a tree of two.", "three-hops", planted(0, 2, func(c *call, h *pb.Hop) {
		h.Signature = sign(c.by[1].key, signedBytes(pb.Kind_KIND_CALL, h.Statement))
	}), "SIGNATURE_INVALID", 1},
	{"H11", "The signature of another tree.", "three-hops", planted(3, 8, func(c *call, h *pb.Hop) {
		h.Signature = sign(c.by[1].key, treeBytes(pb.Kind_KIND_CALL, 8, treeHash(leavesAround(h.Statement, 4, 8))))
	}), "SIGNATURE_INVALID", 1},
	{"H11", "The size of another tree signed.", "three-hops", over(otherRoot(2, func(leaf [32]byte) []byte { return leaf[:] })), "SIGNATURE_INVALID", 1},
	{"H11", "The root of a tree of two signed, and a tree of one presented.", "three-hops", over(otherRoot(1, func(leaf [32]byte) []byte {
		return node(leaf[:], zero32)
	})), "SIGNATURE_INVALID", 1},
	{"H11", "The statement hashed as a node.", "three-hops", over(func(statement []byte) []byte {
		return otherRoot(1, func([32]byte) []byte { return node(statement, nil) })(statement)
	}), "SIGNATURE_INVALID", 1},
	{"H11", "The statement hashed without a prefix.", "three-hops", over(func(statement []byte) []byte {
		sum := sha256.Sum256(statement)
		return otherRoot(1, func([32]byte) []byte { return sum[:] })(statement)
	}), "SIGNATURE_INVALID", 1},
	{"H11", "The leaf hashed once more.", "three-hops", over(otherRoot(1, func(leaf [32]byte) []byte {
		sum := sha256.Sum256(append([]byte{0}, leaf[:]...))
		return sum[:]
	})), "SIGNATURE_INVALID", 1},
	{"H11", "The root alone signed.", "three-hops", over(func(statement []byte) []byte {
		return otherRoot(1, func(leaf [32]byte) []byte { return leaf[:] })(statement)[len(prefixes[pb.Kind_KIND_CALL])+4:]
	}), "SIGNATURE_INVALID", 1},
	{"H11", "The tree size in little-endian.", "three-hops", over(otherRoot(1<<24, func(leaf [32]byte) []byte { return leaf[:] })), "SIGNATURE_INVALID", 1},
	{"H11", "The root of another signer's statement.", "three-hops", func(c *call) {
		h := c.hops.Hops
		h[1].Signature = sign(c.by[1].key, signedBytes(pb.Kind_KIND_CALL, h[0].Statement))
	}, "SIGNATURE_INVALID", 1},
}
