// Package child starts programs that end with this process. It is for tests and the
// mesh harness.
package child

import (
	"os/exec"
	"syscall"
)

// Start starts a program that gets the signal when this process ends, on Linux
// however that ends. It returns a channel that is closed when the program has ended.
// Of cmd.SysProcAttr it sets what the signal needs.
func Start(cmd *exec.Cmd, end syscall.Signal) (exited <-chan struct{}, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	started, done := make(chan error), make(chan struct{})
	go func() {
		tie(cmd, end)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(done)
		}
	}()
	return done, <-started
}
