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
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// connect returns the Workload API's address and a client for it, or says what
// is wrong with the address.
func connect(o options) (string, *workloadapi.Client, error) {
	addr, from := o.addr, "svid.WithSocket"
	if addr == "" {
		addr, from = os.Getenv(workloadapi.SocketEnv), workloadapi.SocketEnv
	}
	if addr == "" {
		return "", nil, tenant.Deny(tenant.IdentityUnavailable,
			"%[1]s is not set (uid %[2]d); next: set it to the agent's socket, such as %[1]s=unix:///run/spire/agent/public/api.sock",
			workloadapi.SocketEnv, os.Getuid())
	}
	client, err := workloadapi.New(context.Background(),
		workloadapi.WithAddr(addr),
		workloadapi.WithBackoffStrategy(retries{}),
		// Without this, gRPC itself would wait up to two minutes to reconnect.
		workloadapi.WithDialOptions(append(o.dial, grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstRetry, Multiplier: 2, Jitter: 0.2, MaxDelay: lastRetry},
			MinConnectTimeout: 5 * time.Second,
		}))...))
	if err != nil {
		return "", nil, tenant.Deny(tenant.IdentityUnavailable,
			"%s: %q is no address of a Workload API (uid %d): %w; next: write it as unix:///path or tcp://ip:port",
			from, addr, os.Getuid(), err)
	}
	return addr, client, nil
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
	case errors.Is(last, errNoHint):
		next = "correct svid.WithHint, or give a registration entry for this uid that hint: `spire-server entry update -entryID <id> … -hint <hint>`"
	case tenant.ReasonOf(last) != "":
		next = "SPEC.md, section 2, says what an SVID must be; look at the registration entry and at the agent's workload_x509_svid_key_type"
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
