package child

import (
	"os/exec"
	"runtime"
	"syscall"
)

// tie is called by who starts the program and waits for its end: the signal
// comes when that thread ends, so it must not before the program.
func tie(cmd *exec.Cmd, end syscall.Signal) {
	runtime.LockOSThread()
	cmd.SysProcAttr.Pdeathsig = end
}
