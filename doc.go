// Package tenantmesh makes the tenant part of the security context of every
// gRPC call. It is a doc page only; the code is in the packages below it.
//
// A workload is known by its SPIFFE identity, a tenant by a signed claim, and
// every hop that passes the claim on signs that it did. A call runs only when
// all three agree with policy, and the handler reads the tenant from that
// verified context and from nowhere else.
//
// Start with package interceptors: its Guard makes the server and dial options
// that check and sign. Package svid gives the workload its identity, package
// policy says who may act for which tenant, and a handler asks package tenant
// who it acts for. Package hop is the wire format on its own, without gRPC.
//
// make demo runs examples/quickstart, a mesh in one process.
package tenantmesh
