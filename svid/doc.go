// Package svid is the workload's own identity: where its X.509-SVID and its
// bundles come from ([Source]), the transport credentials that present and
// check SVIDs on every connection ([Credentials]), and what is known of a
// connection afterwards ([Conn]).
//
//	src, err := svid.NewSource(ctx) // SPIFFE_ENDPOINT_SOCKET
//	if err != nil {
//		return err // says what to check next
//	}
//	defer src.Close()
//	srv := grpc.NewServer(grpc.Creds(svid.NewServerCredentials(src)))
//
// The credentials speak TLS 1.3 alone, resume no session, and check the peer in
// every handshake. A connection outlives its handshake, so [Conn.Check] asks
// again at each call whether the peer's SVID still holds.
//
// The standards behind it are SPIFFE-ID, X509-SVID and the SPIFFE Workload API.
package svid
