//go:build !linux

package mesh

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"syscall"
)

var errNoNamespaces = errors.New("only Linux has network namespaces")

type network struct{ bridge netip.Addr }

type host struct{ addr netip.Addr }

func newNetwork(context.Context) (*network, error)        { return nil, errNoNamespaces }
func (*network) host(context.Context, int) (*host, error) { return nil, errNoNamespaces }
func (*network) close() error                             { return nil }
func (*host) cut(context.Context, bool) error             { return errNoNamespaces }
func (*host) start(cmd *exec.Cmd) error                   { return cmd.Start() }
func sweepNetworks() error                                { return nil }
func alive(pid int) bool                                  { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
