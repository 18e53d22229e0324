//go:build !linux

package child

import (
	"os/exec"
	"syscall"
)

// tie does nothing: only Linux tells a program of its parent's end.
func tie(*exec.Cmd, syscall.Signal) {}
