package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"

	"github.com/tenantmesh/tenantmesh/e2e/internal/pipes"
)

// roleVar is the environment variable that makes the program one of the two
// processes that are measured.
const roleVar = "TENANTMESH_BENCH_ROLE"

// The roles. Each is a service of net/rpc on the process's stdin and stdout.
const (
	serverRole = "Server"
	clientRole = "Client"
)

// runRole serves the driver until stdin closes, so that no process outlives it.
func runRole(role string) error {
	srv := rpc.NewServer()
	var err error
	switch role {
	case serverRole:
		err = srv.RegisterName(role, &Server{})
	case clientRole:
		err = srv.RegisterName(role, &Client{})
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err == nil {
		srv.ServeConn(pipes.Conn{ReadCloser: os.Stdin, Out: os.Stdout})
	}
	return err
}

// process is one of the two, as the driver sees it.
type process struct {
	role string
	cmd  *exec.Cmd
	rpc  *rpc.Client
}

// start starts a role. The process is killed when ctx ends.
func start(ctx context.Context, role string, log io.Writer) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe) //nolint:gosec // it is ourselves
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{role, cmd, rpc.NewClient(pipes.Conn{ReadCloser: out, Out: in})}, nil
}

// ask calls a method of the process. It ends with ctx.
func (p *process) ask(ctx context.Context, method string, args, reply any) error {
	c := p.rpc.Go(p.role+"."+method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-c.Done:
		if c.Error != nil {
			return fmt.Errorf("%s.%s: %w", p.role, method, c.Error)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s.%s: %w", p.role, method, context.Cause(ctx))
	}
}

// stop ends the process and waits for it.
func (p *process) stop() error {
	return errors.Join(p.rpc.Close(), p.cmd.Wait())
}
