package devdomain_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// plain returns a client for requests that go-spiffe's does not make.
func plain(t *testing.T, addr string, opts ...grpc.DialOption) workload.SpiffeWorkloadAPIClient {
	t.Helper()
	conn, err := grpc.NewClient(addr, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return workload.NewSpiffeWorkloadAPIClient(conn)
}

func withHeader(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
}

func ids(svids []*x509svid.SVID) []string {
	var out []string
	for _, s := range svids {
		out = append(out, s.ID.Path()+" "+s.Hint)
	}
	return out
}

// TestUID is I7: at the agent's socket, a caller is what its uid says.
func TestUID(t *testing.T) {
	d := newDomain(t, devdomain.Config{Dir: socketDir(t)})
	me, another := uint32(os.Getuid()), uint32(os.Getuid())+1
	register := func(name string, opts ...devdomain.WorkloadOption) *devdomain.Workload {
		t.Helper()
		w, err := d.Workload("spiffe://prod.example/"+name, opts...)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	if _, err := client(t, d.Addr()).FetchX509SVID(t.Context()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("I7 before any registration: %v", err)
	}
	register("nobody")
	register("other", devdomain.WithUID(another))
	if _, err := client(t, d.Addr()).FetchX509SVID(t.Context()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("I7 with another's uid: %v", err)
	}

	u := watch(t, d.Addr())
	if err := u.fails(t); status.Code(err) != codes.PermissionDenied {
		t.Error(err)
	}
	register("b", devdomain.WithUID(another), devdomain.WithUID(me))
	first := u.next(t) // go-spiffe's client tries again
	verify(t, first)
	if got := ids(first.SVIDs); !slices.Equal(got, []string{"/b "}) {
		t.Errorf("I7 the caller is %q", got)
	}
	a := register("a", devdomain.WithUID(me), devdomain.WithHint("internal"))
	if got := ids(u.next(t).SVIDs); !slices.Equal(got, []string{"/b ", "/a internal"}) {
		t.Errorf("the caller is %q", got)
	}
	register("c", devdomain.WithUID(me), devdomain.WithHint("external"))
	if got := ids(u.next(t).SVIDs); !slices.Equal(got, []string{"/b ", "/a internal", "/c external"}) {
		t.Errorf("the caller is %q", got)
	}
	// A second one with the hint changes nothing, so nothing is sent.
	register("d", devdomain.WithUID(me), devdomain.WithHint("internal"))
	svids, err := client(t, d.Addr()).FetchJWTSVIDs(t.Context(), jwtsvid.Params{Audience: "x"})
	if err != nil || len(svids) != 3 || svids[1].ID.Path() != "/a" || svids[1].Hint != "internal" {
		t.Errorf("%v, %v", svids, err)
	}
	one, err := client(t, d.Addr()).FetchJWTSVIDs(t.Context(), jwtsvid.Params{Audience: "x", Subject: a.ID()})
	if err != nil || len(one) != 1 || one[0].ID != a.ID() {
		t.Errorf("%v, %v", one, err)
	}
	a.Remove()
	if got := ids(u.next(t).SVIDs); !slices.Equal(got, []string{"/b ", "/c external", "/d internal"}) {
		t.Errorf("the caller is %q", got)
	}
	// Registered again with another uid, it is another's.
	register("a", devdomain.WithUID(another))
	if own := watch(t, a.Addr()).next(t); ids(own.SVIDs)[0] != "/a " {
		t.Errorf("at its own socket it is %q", ids(own.SVIDs))
	}
	if got, err := client(t, d.Addr()).FetchX509SVIDs(t.Context()); err != nil || len(got) != 3 {
		t.Errorf("the caller is %q, %v", ids(got), err)
	}
}

// TestNoUID is I7: a connection of which the kernel does not tell the uid is nobody's.
func TestNoUID(t *testing.T) {
	listeners := map[string]*bufconn.Listener{}
	d := newDomain(t, devdomain.Config{Dir: "/memory", Listen: func(path string) (net.Listener, error) {
		listeners[path] = bufconn.Listen(1 << 16)
		return listeners[path], nil
	}})
	w, err := d.Workload(gatewayID, devdomain.WithUID(uint32(os.Getuid())), devdomain.WithUID(0))
	if err != nil {
		t.Fatal(err)
	}
	fetch := func(addr string) error {
		l := listeners[strings.TrimPrefix(addr, "unix://")]
		stream, err := plain(t, "passthrough:x", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })).
			FetchX509SVID(withHeader(t), &workload.X509SVIDRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	if err := fetch(w.Addr()); err != nil {
		t.Errorf("its own socket: %v", err)
	}
	if err := fetch(d.Addr()); status.Code(err) != codes.Unavailable {
		t.Errorf("I7 %v", err)
	}

	failing := errors.New("no more sockets")
	_, err = devdomain.New(devdomain.Config{TrustDomain: "prod.example", Dir: "/memory",
		Listen: func(string) (net.Listener, error) { return nil, failing }})
	if !errors.Is(err, failing) {
		t.Error(err)
	}
}

// TestFaults: the agent dies, comes back, and answers errors.
func TestFaults(t *testing.T) {
	d := newDomain(t, devdomain.Config{Dir: socketDir(t)})
	w := newWorkload(t, d, gatewayID)
	u := watch(t, w.Addr())
	first := u.next(t)

	d.StopAgent()
	d.StopAgent() // no more than once
	if err := u.fails(t); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	for _, addr := range []string{w.Addr(), d.Addr()} {
		if _, err := os.Stat(strings.TrimPrefix(addr, "unix://")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", addr, err)
		}
	}
	late := newWorkload(t, d, inventoryID) // registered at the server, while the agent is down
	if snap, err := w.Snapshot(); err != nil || !snap.SVID.Certificates[0].Equal(first.DefaultSVID().Certificates[0]) {
		t.Errorf("what was issued is gone: %v", err)
	}
	if err := errors.Join(d.StartAgent(), d.StartAgent()); err != nil {
		t.Fatal(err)
	}
	verify(t, u.next(t))
	verify(t, watch(t, late.Addr()).next(t))

	for _, code := range []codes.Code{codes.Internal, codes.PermissionDenied, codes.ResourceExhausted} {
		d.Fail(code)
		for status.Code(u.fails(t)) != code {
		}
		if _, err := client(t, w.Addr()).ValidateJWTSVID(t.Context(), "a.b.c", "a"); status.Code(err) != code {
			t.Errorf("%v, want %s", err, code)
		}
	}
	d.Fail(codes.OK)
	verify(t, u.next(t))

	// Another took the place of one of the sockets meanwhile.
	d.StopAgent()
	l, err := net.Listen("unix", strings.TrimPrefix(w.Addr(), "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.StartAgent(); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Error(err)
	}
	l.Close()
	if err := d.StartAgent(); err != nil {
		t.Error(err)
	}
}
