package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tenantmesh/tenantmesh/e2e/internal/pipes"
)

// grace is how long a process may take to exit after its stdin was closed.
const grace = 5 * time.Second

// Process is the workload of a mesh as its driver sees it: its process may be
// killed and started again. It is safe for concurrent use.
type Process struct {
	m    *Mesh
	env  *Env
	uid  uint32 // 0: that of the driver
	host *host

	mu     sync.Mutex
	run    *run // nil while there is none
	starts int
}

// run is one life of a process.
type run struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	rpc    *rpc.Client // nil for a program that is not ours
	exited chan struct{}
	err    error // valid once exited is closed
	log    string
}

// Name returns the workload's name.
func (p *Process) Name() string { return p.env.Workload.Name }

// ID returns the SPIFFE ID that the workload has by its registration.
func (p *Process) ID() string { return p.env.ID }

// Addr returns the address where it listens, which stays the same when it is
// started again.
func (p *Process) Addr() string { return p.env.Listen }

// Service returns the full name of the gRPC service that it serves.
func (p *Process) Service() string { return p.env.Workload.Service }

// PolicyFile returns the path of its policy, a file of its own.
func (p *Process) PolicyFile() string { return p.env.PolicyFile }

// Socket returns the address of its Workload API.
func (p *Process) Socket() string { return p.env.Socket }

// Starts returns how often it was started.
func (p *Process) Starts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// Restart ends the process in order and starts it as its changed description has it.
func (p *Process) Restart(ctx context.Context, change func(*Workload)) error {
	if err := p.Stop(); err != nil {
		return err
	}
	p.mu.Lock()
	change(&p.env.Workload)
	p.mu.Unlock()
	return p.Start(ctx)
}

// Start starts the process, which is not running, and waits until it is ready.
func (p *Process) Start(ctx context.Context) error {
	if err := p.Launch(); err != nil {
		return err
	}
	return p.Ready(ctx)
}

// Launch starts the process and does not wait.
func (p *Process) Launch() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run != nil {
		return fmt.Errorf("mesh: %s runs already", p.Name())
	}
	r, err := p.launch()
	if err != nil {
		return fmt.Errorf("mesh: starting %s: %w", p.Name(), err)
	}
	p.run = r
	p.starts++
	return nil
}

func (p *Process) launch() (*run, error) {
	r := &run{exited: make(chan struct{}), log: filepath.Join(p.m.dir, "log", p.Name()+".jsonl")}
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// Not CommandContext: it is to end in order, see stop.
	if own := p.env.Workload.Command; own != nil {
		r.cmd = exec.Command(own[0], own[1:]...) //nolint:gosec,noctx // it is what the description says
		r.cmd.Env = append(os.Environ(), p.environment()...)
		r.cmd.Stdout = log
	} else {
		text, err := json.Marshal(p.env)
		if err != nil {
			return nil, err
		}
		r.cmd = exec.Command(p.m.exe) //nolint:gosec,noctx // it is ourselves
		r.cmd.Env = append(os.Environ(), processVar+"="+string(text))
	}
	r.cmd.Stderr = log
	r.cmd.Dir = p.m.dir
	stdin, err := r.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	r.stdin = stdin
	var stdout io.ReadCloser
	if p.env.Workload.Command == nil {
		if stdout, err = r.cmd.StdoutPipe(); err != nil {
			return nil, err
		}
	}
	// A group of its own: Ctrl-C in a terminal is for the driver, which ends the others.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p.uid != 0 {
		r.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: p.uid, Gid: p.uid}
	}
	if err := p.host.start(r.cmd); err != nil {
		return nil, err
	}
	if stdout != nil {
		r.rpc = rpc.NewClient(pipes.Conn{ReadCloser: stdout, Out: stdin})
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.exited)
	}()
	return r, nil
}

// environment is that of a program that is not ours.
func (p *Process) environment() []string {
	env := []string{
		"SPIFFE_ENDPOINT_SOCKET=" + p.env.Socket,
		"MESH_LISTEN=" + p.env.Listen,
		"MESH_POLICY=" + p.env.PolicyFile,
	}
	for name, peer := range p.env.Peers {
		env = append(env, "MESH_ADDR_"+strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(name))+"="+peer.Addr)
	}
	return env
}

// Ready waits until the process is ready. A program of your own is when it
// accepts connections.
func (p *Process) Ready(ctx context.Context) error {
	if p.env.Workload.Command != nil {
		return p.accepts(ctx)
	}
	return p.ask(ctx, "Process.Ready", None{}, &None{})
}

// Ask calls a method of the receiver that the workload's role returned.
func (p *Process) Ask(ctx context.Context, method string, args, reply any) error {
	return p.ask(ctx, "Role."+method, args, reply)
}

func (p *Process) ask(ctx context.Context, method string, args, reply any) error {
	p.mu.Lock()
	r := p.run
	p.mu.Unlock()
	if r == nil || r.rpc == nil {
		return fmt.Errorf("mesh: %s: there is nobody to ask", p.Name())
	}
	c := r.rpc.Go(method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-c.Done:
		if c.Error == nil {
			return nil
		}
		if errors.Is(c.Error, rpc.ErrShutdown) || errors.Is(c.Error, io.ErrUnexpectedEOF) {
			<-r.exited
			return fmt.Errorf("mesh: %s has ended: %w; it said last: %s", p.Name(), errors.Join(r.err, c.Error), lastLine(r.log))
		}
		return fmt.Errorf("mesh: %s: %s: %w", p.Name(), method, c.Error)
	case <-ctx.Done():
		return fmt.Errorf("mesh: %s: %s: %w", p.Name(), method, context.Cause(ctx))
	}
}

// Trail returns the workload's audit trail from a place on, 0 for all of it.
func (p *Process) Trail(ctx context.Context, after int) (Trail, error) {
	var t Trail
	err := p.ask(ctx, "Process.Trail", after, &t)
	return t, err
}

// Trace says whether the trail keeps what is allowed, too.
func (p *Process) Trace(ctx context.Context, on bool) error {
	return p.ask(ctx, "Process.Trace", on, &None{})
}

// Edges returns how often the workload let whom act for which tenant, since its
// process was started.
func (p *Process) Edges(ctx context.Context) ([]Edge, error) {
	var e []Edge
	err := p.ask(ctx, "Process.Edges", None{}, &e)
	return e, err
}

// Handled returns the log of the workload's handlers, since its process was
// started.
func (p *Process) Handled(ctx context.Context) (Handled, error) {
	var h Handled
	err := p.ask(ctx, "Process.Handled", None{}, &h)
	return h, err
}

// SetClock sets what the workload's clock is off by, in its checks and in TLS.
func (p *Process) SetClock(ctx context.Context, offset time.Duration) error {
	return p.ask(ctx, "Process.SetClock", offset, &None{})
}

// Reload makes the workload read its policy, and returns the version in force,
// also if it fails because the file does not load.
func (p *Process) Reload(ctx context.Context) (version string, err error) {
	err = p.ask(ctx, "Process.Reload", None{}, &version)
	return version, err
}

// Status returns how the process is doing.
func (p *Process) Status(ctx context.Context) (Status, error) {
	var s Status
	err := p.ask(ctx, "Process.Status", None{}, &s)
	return s, err
}

// Kill ends the process with SIGKILL and waits for its end.
func (p *Process) Kill() error {
	p.m.remember(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		return nil
	}
	err := p.run.cmd.Process.Kill()
	<-p.run.exited
	p.forget()
	return err
}

// Stop ends the process in order, or after some time with SIGKILL.
func (p *Process) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		return nil
	}
	r := p.run
	defer p.forget()
	if r.rpc == nil {
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
	}
	r.stdin.Close()
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-r.exited:
		if r.err != nil && r.rpc != nil {
			return fmt.Errorf("mesh: %s has ended: %w; it said last: %s", p.Name(), r.err, lastLine(r.log))
		}
		return nil
	case <-late.C:
		err := r.cmd.Process.Kill()
		<-r.exited
		return errors.Join(fmt.Errorf("mesh: %s did not end within %s of its stdin", p.Name(), grace), err)
	}
}

// forget drops a run that is over; p.mu is held.
func (p *Process) forget() {
	if p.run.rpc != nil {
		_ = p.run.rpc.Close()
	}
	p.run = nil
}

// lastLine returns the last line of a log.
func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	text := strings.TrimSpace(string(b))
	return text[strings.LastIndexByte(text, '\n')+1:]
}
