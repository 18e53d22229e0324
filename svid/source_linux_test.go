package svid_test

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// TestNoPermission becomes another user to open a socket of ours.
func TestNoPermission(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another")
	}
	d := newDomain(t, devdomain.Config{Dir: socketDir(t)})
	w := newWorkload(t, d, inventoryID)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its uid
		if err := syscall.Setfsuid(65534); err != nil {
			done <- err
			return
		}
		done <- svid.Diagnose(w.Addr(), time.Second, nil, nil)
	}()
	err := <-done
	for _, want := range []string{"permission denied", "may not open the socket"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not say %q", err, want)
		}
	}
}
