package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// network is a bridge with a network namespace for each workload. A nil network
// is the loopback.
type network struct {
	prefix string // of the names of all that is made: it tells whose it is
	bridge netip.Addr
	next   netip.Addr
}

// host is where a workload runs. A nil host is the machine itself.
type host struct {
	n    *network
	name string
	link string // the bridge's end of its cable
	addr netip.Addr
}

// Names are this, the process, a letter for each mesh, and a number. An
// interface's has 15 bytes at most.
const networkPrefix = "tm"

var ours = regexp.MustCompile(`^(` + networkPrefix + `(\d+)[a-z])\d+$`)

var (
	laying  sync.Mutex // a subnet is free until the next has an address in it
	started int
)

// namespaces is where ip netns keeps them.
const namespaces = "/run/netns"

// newNetwork makes a bridge. It fails where the machine does not allow it.
func newNetwork(ctx context.Context) (*network, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root may make network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, err
	}
	laying.Lock()
	defer laying.Unlock()
	subnet, err := freeSubnet()
	if err != nil {
		return nil, err
	}
	n := &network{prefix: fmt.Sprintf("%s%d%c", networkPrefix, os.Getpid(), 'a'+started%26)}
	started++
	n.bridge = subnet.Addr().Next()
	n.next = n.bridge.Next()
	err = ip(ctx,
		"link add "+n.prefix+"0 type bridge",
		fmt.Sprintf("addr add %s/%d dev %s0", n.bridge, subnet.Bits(), n.prefix),
		"link set "+n.prefix+"0 up")
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// freeSubnet returns one of the addresses for tests of networks (RFC 2544) that
// no interface of this machine has.
func freeSubnet() (netip.Prefix, error) {
	all := netip.MustParsePrefix("198.18.0.0/15")
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, err
	}
	const bits, count = 26, 1 << (26 - 15)
	for i := range count {
		base := all.Addr().As4()
		at := (os.Getpid() + i) % count << (32 - bits)
		base[1] += byte(at >> 16 & 1)
		base[2], base[3] = byte(at>>8&0xff), byte(at&0xff)
		p := netip.PrefixFrom(netip.AddrFrom4(base), bits)
		free := true
		for _, a := range addrs {
			if other, err := netip.ParsePrefix(a.String()); err == nil && other.Overlaps(p) {
				free = false
			}
		}
		if free {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.New("no free subnet")
}

// host makes a namespace with an address, on a cable to the bridge.
func (n *network) host(ctx context.Context, number int) (*host, error) {
	h := &host{n: n, name: n.prefix + strconv.Itoa(number), addr: n.next}
	h.link = h.name
	n.next = n.next.Next()
	err := ip(ctx,
		"netns add "+h.name,
		"link add "+h.link+" type veth peer name eth0 netns "+h.name,
		"link set "+h.link+" master "+n.prefix+"0",
		"link set "+h.link+" up")
	if err == nil {
		err = ipIn(ctx, h.name,
			fmt.Sprintf("addr add %s/26 dev eth0", h.addr), "link set eth0 up", "link set lo up")
	}
	return h, err
}

// cut takes the cable out, or puts it back.
func (h *host) cut(ctx context.Context, out bool) error {
	state := "up"
	if out {
		state = "down"
	}
	return ip(ctx, "link set "+h.link+" "+state)
}

// start starts a program in the namespace.
func (h *host) start(cmd *exec.Cmd) error {
	if h == nil {
		return cmd.Start()
	}
	ns, err := os.Open(filepath.Join(namespaces, h.name))
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		// A thread that is not given back ends with its goroutine: nothing else runs in there.
		runtime.LockOSThread()
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = cmd.Start()
		}
		done <- err
	}()
	return <-done
}

// close removes all that was made.
func (n *network) close() error {
	if n == nil {
		return nil
	}
	return removeNetworks(func(prefix string, _ int) bool { return prefix == n.prefix })
}

// sweepNetworks removes what runs left that were killed.
func sweepNetworks() error {
	if os.Geteuid() != 0 {
		return nil
	}
	return removeNetworks(func(_ string, pid int) bool { return !alive(pid) })
}

// alive says whether a process of that number exists.
func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func removeNetworks(which func(prefix string, pid int) bool) error {
	ctx := context.Background() // also when a run was interrupted
	chosen := func(name string) bool {
		m := ours.FindStringSubmatch(name)
		if m == nil {
			return false
		}
		pid, err := strconv.Atoi(m[2])
		return err == nil && which(m[1], pid)
	}
	var errs []error
	spaces, err := os.ReadDir(namespaces)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, e := range spaces {
		if chosen(e.Name()) {
			errs = append(errs, ip(ctx, "netns del "+e.Name()))
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, l := range links {
		if !chosen(l.Name) {
			continue
		}
		err := ip(ctx, "link del "+l.Name)
		if _, gone := net.InterfaceByName(l.Name); gone == nil {
			errs = append(errs, err) // else it went with its namespace
		}
	}
	return errors.Join(errs...)
}

// ip runs commands of iproute2.
func ip(ctx context.Context, commands ...string) error {
	for _, c := range commands {
		if out, err := exec.CommandContext(ctx, "ip", strings.Fields(c)...).CombinedOutput(); err != nil { //nolint:gosec // they are our own
			return fmt.Errorf("ip %s: %w: %s", c, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// ipIn runs them in a namespace.
func ipIn(ctx context.Context, name string, commands ...string) error {
	for _, c := range commands {
		if err := ip(ctx, "-netns "+name+" "+c); err != nil {
			return err
		}
	}
	return nil
}
