package devdomain_test

import (
	"context"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"

	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// TestAnotherUID becomes two other users, one after the other, at the agent's socket.
func TestAnotherUID(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another")
	}
	dir := socketDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := newDomain(t, devdomain.Config{Dir: dir + "/agent"}) // which it makes itself
	for name, uid := range map[string]uint32{"gateway": 1001, "inventory": 1002} {
		if _, err := d.Workload("spiffe://prod.example/"+name, devdomain.WithUID(uid)); err != nil {
			t.Fatal(err)
		}
	}
	path := strings.TrimPrefix(d.Addr(), "unix://")
	for uid, want := range map[int]string{1001: gatewayID, 1002: inventoryID} {
		api := plain(t, "passthrough:agent", grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return dialAs(uid, path) }))
		stream, err := api.FetchX509SVID(withHeader(t), &workload.X509SVIDRequest{})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if s := resp.GetSvids(); len(s) != 1 || s[0].GetSpiffeId() != want {
			t.Errorf("I7 the uid %d is %v, not %s", uid, s, want)
		}
	}
}

// dialAs connects as another user.
func dialAs(uid int, path string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its uid
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			done <- result{nil, errno}
			return
		}
		conn, err := net.Dial("unix", path)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}
