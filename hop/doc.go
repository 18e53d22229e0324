// Package hop holds the signed tenant context: statements, chains of them, and
// their wire format. SPEC.md, at the root, is normative; this package is its
// implementation. It knows nothing of gRPC.
//
// A workload that starts a transaction begins a chain with [Begin]; each
// workload that hands it on adds a hop with [Chain.Sign]; the one that it is
// handed to checks it with [Verify], and only then has a [Chain] to read claims
// from or to add to.
package hop
