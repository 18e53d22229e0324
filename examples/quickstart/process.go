package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// grace is how long a process may take to exit after its stdin was closed.
const grace = 3 * time.Second

// process is a role that runs in a process of its own. It exits when its stdin
// closes, so it does not outlive the driver, however that ends.
type process struct {
	name    string
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	addr    string // what it said when it was ready
	answers chan string
	exited  chan struct{}
	err     error // valid once exited is closed

	mu   sync.Mutex
	last string // line on stderr
	tell sync.Mutex
}

// start starts a role and waits until it is ready. What it writes to stdout
// and stderr goes to files in dir and to the trail.
func start(ctx context.Context, t *trail, dir, role string, env []string, as *syscall.Credential, args ...string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{name: role, answers: make(chan string, 1), exited: make(chan struct{})}
	// Not CommandContext: it is to end in order, see stop.
	p.cmd = exec.Command(exe, append([]string{role, "--until-stdin-closes"}, args...)...) //nolint:gosec,noctx // it is ourselves
	p.cmd.Env = append(os.Environ(), env...)
	// A group of its own: Ctrl-C in a terminal is for the driver, which ends the others.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: as}
	var pipes [2]io.ReadCloser
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if pipes[0], err = p.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if pipes[1], err = p.cmd.StderrPipe(); err != nil {
		return nil, err
	}
	var files [2]*os.File
	for i, suffix := range []string{".audit.jsonl", ".log.jsonl"} {
		files[i], err = os.OpenFile(filepath.Join(dir, role+suffix), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return nil, err
		}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", role, err)
	}

	ready := make(chan string, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		p.follow(pipes[0], files[0], func(line string) bool {
			if addr, ok := strings.CutPrefix(line, "ready "); ok {
				ready <- addr
				return false
			}
			if answer, ok := strings.CutPrefix(line, "answer "); ok {
				p.answers <- answer
				return false
			}
			t.add(role, line)
			return true
		})
	})
	reading.Go(func() {
		p.follow(pipes[1], files[1], func(line string) bool {
			p.mu.Lock()
			p.last = line
			p.mu.Unlock()
			t.add(role, line)
			return true
		})
	})
	go func() {
		reading.Wait() // as Cmd.StdoutPipe asks
		p.err = p.cmd.Wait()
		close(p.exited)
	}()

	select {
	case p.addr = <-ready:
		return p, nil
	case <-p.exited:
		return p, p.died()
	case <-ctx.Done():
		return p, fmt.Errorf("%s is not ready: %w%s", role, context.Cause(ctx), p.said())
	}
}

// follow reads lines until the process closes its end, and keeps those in the
// file that each says to keep.
func (p *process) follow(r io.Reader, file *os.File, each func(string) bool) {
	defer file.Close()
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		if each(in.Text()) {
			fmt.Fprintln(file, in.Text())
		}
	}
	_, _ = io.Copy(io.Discard, r) // after a line that is too long, so that it never blocks
}

// ask sends a command and returns its answer.
func (p *process) ask(ctx context.Context, format string, args ...any) (string, error) {
	p.tell.Lock()
	defer p.tell.Unlock()
	if _, err := fmt.Fprintf(p.stdin, format+"\n", args...); err != nil {
		return "", fmt.Errorf("%s: %w", p.name, err)
	}
	select {
	case answer := <-p.answers:
		if text, failed := strings.CutPrefix(answer, "error: "); failed {
			return "", fmt.Errorf("%s: %s", p.name, text)
		}
		return answer, nil
	case <-p.exited:
		return "", p.died()
	case <-ctx.Done():
		return "", fmt.Errorf("%s does not answer: %w", p.name, context.Cause(ctx))
	}
}

// died says how the process ended. It is to be called once it has.
func (p *process) died() error {
	err := p.err
	if err == nil {
		err = errors.New("exit status 0")
	}
	return fmt.Errorf("%s (pid %d) has ended: %w%s", p.name, p.cmd.Process.Pid, err, p.said())
}

// said returns the last line of the process's log.
func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == "" {
		return ""
	}
	return "; it said last: " + p.last
}

// stop ends the process: in order if it can, else with SIGKILL.
func (p *process) stop() error {
	if p.cmd.Process == nil {
		return nil
	}
	p.stdin.Close()
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-p.exited:
		if p.err != nil {
			return p.died()
		}
		return nil
	case <-late.C:
		err := p.cmd.Process.Kill()
		<-p.exited
		return errors.Join(fmt.Errorf("%s did not end within %s of its stdin", p.name, grace), err)
	}
}
