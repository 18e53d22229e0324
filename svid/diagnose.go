package svid

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// address returns the Workload API's address, or says what is wrong with it.
func address(addr string) (string, error) {
	from := "svid.WithSocket"
	if addr == "" {
		addr, from = os.Getenv(workloadapi.SocketEnv), workloadapi.SocketEnv
	}
	if addr == "" {
		return "", tenant.Deny(tenant.IdentityUnavailable,
			"%[1]s is not set (uid %[2]d); next: set it to the agent's socket, such as %[1]s=unix:///run/spire/agent/public/api.sock",
			workloadapi.SocketEnv, os.Getuid())
	}
	if err := workloadapi.ValidateAddress(addr); err != nil {
		return "", tenant.Deny(tenant.IdentityUnavailable,
			"%s: %q is no address of a Workload API (uid %d): %w; next: write it as unix:///path or tcp://ip:port",
			from, addr, os.Getuid(), err)
	}
	return addr, nil
}

// diagnose says why there was no identity after the wait. last is what the
// Workload API client saw; gRPC flattens its cause into text, so the socket is
// tried once more to see the cause itself.
func diagnose(addr string, waited time.Duration, last, stopped error) error {
	uid := os.Getuid()
	cause, next := last, fmt.Sprintf("see the agent's log for a workload with uid %d", uid)
	dialled := probe(addr)
	switch {
	case status.Code(last) == codes.PermissionDenied:
		next = fmt.Sprintf("no registration entry matches uid %d, or it has not reached the agent yet; "+
			"`spire-server entry show`, and if it is missing `spire-server entry create -parentID <agent> -spiffeID <id> -selector unix:uid:%d`", uid, uid)
	case errors.Is(dialled, fs.ErrNotExist):
		cause, next = dialled, "there is no such socket: is the agent running here, is the path right, and is it mounted into this container?"
	case errors.Is(dialled, syscall.ECONNREFUSED):
		cause, next = dialled, "the socket is there but nobody listens: the agent has died or is restarting; start it"
	case errors.Is(dialled, fs.ErrPermission):
		cause, next = dialled, fmt.Sprintf("uid %d may not open the socket: look at the modes of the file and of the directories above it", uid)
	case dialled != nil:
		cause = dialled
	case status.Code(last) == codes.Unimplemented || status.Code(last) == codes.InvalidArgument:
		next = "something listens there that is no SPIFFE Workload API"
	case last == nil:
		cause, next = errors.New("connected, but it has not answered"), "is it a SPIFFE Workload API that listens there, and has the agent joined its server?"
	}
	if stopped != nil {
		cause = fmt.Errorf("%w (the wait was ended: %w)", cause, stopped)
	}
	return tenant.Deny(tenant.IdentityUnavailable, "no identity from %s within %s (uid %d): %w; next: %s",
		addr, waited.Round(time.Millisecond), uid, cause, next)
}

// probe connects to the address once and says how that failed.
func probe(addr string) error {
	u, err := url.Parse(addr)
	if err != nil {
		return err
	}
	target := u.Host
	if u.Scheme == "unix" {
		target = u.Path
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, u.Scheme, target)
	if err != nil {
		return err
	}
	return c.Close()
}
