package devdomain

import (
	"context"
	"fmt"
	"net"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// attest says which workloads the caller is.
type attest func(ctx context.Context) (fits func(*Workload) bool, err error)

// itself takes whoever could open the socket for w.
func itself(w *Workload) attest {
	return func(context.Context) (func(*Workload) bool, error) {
		return func(other *Workload) bool { return other == w }, nil
	}
}

// byUID takes the caller for the workloads that are registered with its uid.
func byUID(ctx context.Context) (func(*Workload) bool, error) {
	p, _ := peer.FromContext(ctx)
	c, ok := p.AuthInfo.(caller)
	if !ok {
		return nil, status.Error(codes.Unavailable, "workload attestation failed")
	}
	return func(w *Workload) bool { return slices.Contains(w.uids, c.uid) }, nil
}

// caller is the AuthInfo of a connection to the agent.
type caller struct{ uid uint32 }

// AuthType implements [credentials.AuthInfo].
func (caller) AuthType() string { return "uid" }

// attestor are transport credentials that ask the kernel who connects.
type attestor struct {
	credentials.TransportCredentials
}

func callerCredentials() credentials.TransportCredentials {
	return attestor{insecure.NewCredentials()}
}

// ServerHandshake implements [credentials.TransportCredentials].
func (attestor) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("devdomain: a %T has no uid", c)
	}
	uid, err := peerUID(u)
	if err != nil {
		return nil, nil, err
	}
	return c, caller{uid}, nil
}
