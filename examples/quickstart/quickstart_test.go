package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asDemo makes the test binary be the quickstart, so that what is tested is
// built as the tests are, race detector included.
const asDemo = "QUICKSTART_TEST_AS_DEMO"

func TestMain(m *testing.M) {
	if os.Getenv(asDemo) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// demo is a run of the quickstart.
type demo struct {
	*exec.Cmd
	tmp            string
	stdout, stderr bytes.Buffer
	out            io.ReadCloser // the pipe of stdout, where a test reads that itself
}

func newDemo(t *testing.T, args ...string) *demo {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: the path of a unix socket is short.
	tmp, err := os.MkdirTemp("", "qs")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	d := &demo{Cmd: exec.CommandContext(ctx, exe, args...), tmp: tmp}
	d.Env = append(os.Environ(), asDemo+"=1", "TMPDIR="+tmp)
	d.Stdout, d.Stderr = &d.stdout, &d.stderr
	t.Cleanup(func() {
		cancel()
		if err := os.RemoveAll(tmp); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("stdout:\n%s\nstderr:\n%s", &d.stdout, &d.stderr)
		}
	})
	return d
}

// processes lists the pids of what d started and of itself: they are known by
// its TMPDIR in their environment.
func (d *demo) processes(t *testing.T) []int {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(filepath.Base(e))
		if err != nil {
			continue
		}
		env, err := os.ReadFile(filepath.Join(e, "environ")) // empty for a zombie
		if err == nil && bytes.Contains(env, []byte("TMPDIR="+d.tmp+"\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// awaitExit waits until no process of d is left. They are not our children, so
// there is nothing to wait on but /proc.
func (d *demo) awaitExit(t *testing.T) {
	t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	late := time.After(10 * time.Second)
	for pids := d.processes(t); len(pids) > 0; pids = d.processes(t) {
		select {
		case <-look.C:
		case <-late:
			t.Fatalf("these processes are left: %d", pids)
		}
	}
}

// clean fails the test if d left a process or a file behind.
func (d *demo) clean(t *testing.T) {
	t.Helper()
	if pids := d.processes(t); len(pids) > 0 {
		t.Errorf("these processes are left: %d", pids)
	}
	entries, err := os.ReadDir(d.tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s is left", e.Name())
	}
}

// TestDemo runs all steps as make demo does.
func TestDemo(t *testing.T) {
	t.Parallel()
	d := newDemo(t)
	if err := d.Run(); err != nil {
		t.Fatal(err)
	}
	out := d.stdout.String()
	for i := range steps {
		line := regexp.MustCompile(fmt.Sprintf(`(?m)^%d/%d ok  `, i+1, len(steps)))
		if n := len(line.FindAllString(out, -1)); n != 1 {
			t.Errorf("%d lines for step %d, want 1", n, i+1)
		}
	}
	for _, want := range []string{
		"gateway → orders → inventory | allowed", "claimed_tenant globex", "TENANT_MISMATCH", "CALLER_NOT_ALLOWED",
		"SIGNER_NOT_PEER", "AUDIENCE_MISMATCH", "TENANT_NOT_BOUND", "CONTEXT_EXPIRED", "TOKEN_EXPIRED", "none failed",
		fmt.Sprintf("\n%d of %[1]d steps ended as stated\n", len(steps)),
	} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing says %q", want)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("colours, though this is no terminal")
	}
	if d.stderr.Len() > 0 {
		t.Errorf("stderr: %s", &d.stderr)
	}
	d.clean(t)
}

// TestDemoFails: a policy that binds the notifier to all tenants lets one of
// its attacks through, and the demo must say so.
func TestDemoFails(t *testing.T) {
	t.Parallel()
	const entry = "match: spiffe://prod.example/notifier\n"
	lax := bytes.Replace(defaultPolicy, []byte(entry), []byte(entry+"    tenants: [\"*\"]\n"), 1)
	file := filepath.Join(t.TempDir(), "lax.yaml")
	if err := os.WriteFile(file, lax, 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDemo(t, "--policy", file, "--steps", "1,6")
	var exit *exec.ExitError
	if err := d.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("ended with %v, want exit status 1", err)
	}
	for _, want := range []string{"1/10 ok  ", "6/10 FAILED  ", `append: inventory gave OK, reason "", want TENANT_NOT_BOUND`, "1 of 2 steps ended as stated"} {
		if !strings.Contains(d.stdout.String(), want) {
			t.Errorf("nothing says %q", want)
		}
	}
	d.clean(t)
}

// TestDemoEnds: however the demo ends, what it started ends with it.
func TestDemoEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		do   func(t *testing.T, d *demo, pids map[string]int) error
		left bool   // nobody could remove the temporary directory
		says string // on stderr
	}{
		{"SIGTERM", func(_ *testing.T, d *demo, _ map[string]int) error { return d.Process.Signal(syscall.SIGTERM) }, false, "terminated"},
		{"SIGINT", func(_ *testing.T, d *demo, _ map[string]int) error { return d.Process.Signal(syscall.SIGINT) }, false, "interrupt"},
		{"SIGKILL", func(_ *testing.T, d *demo, _ map[string]int) error { return d.Process.Kill() }, true, ""},
		{"nobody reads", func(_ *testing.T, d *demo, _ map[string]int) error {
			return d.out.Close()
		}, false, "broken pipe"},
		{"a child dies", func(_ *testing.T, _ *demo, pids map[string]int) error {
			return syscall.Kill(pids["inventory"], syscall.SIGKILL)
		}, false, "inventory (pid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newDemo(t, "--steps", "7,8") // it runs for some seconds
			started := newLineWaiter("started ")
			d.Stdout = nil
			var err error
			if d.out, err = d.StdoutPipe(); err != nil {
				t.Fatal(err)
			}
			if err := d.Start(); err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = io.Copy(started, d.out) }()
			var line string
			select {
			case line = <-started.found:
			case <-t.Context().Done():
			}
			pids := map[string]int{}
			for _, m := range regexp.MustCompile(`([a-z-]+) \(pid (\d+)\)`).FindAllStringSubmatch(line, -1) {
				pid, err := strconv.Atoi(m[2])
				if err != nil {
					t.Fatal(err)
				}
				pids[m[1]] = pid
			}
			if len(pids) != len(roles) {
				t.Fatalf("started %v, want all roles", pids)
			}
			if n := len(d.processes(t)); n != len(roles)+1 {
				t.Fatalf("found %d processes, want those and the demo", n)
			}
			if err := c.do(t, d, pids); err != nil {
				t.Fatal(err)
			}
			if err := d.Wait(); err == nil {
				t.Error("exit status 0")
			}
			if !strings.Contains(d.stderr.String(), c.says) {
				t.Errorf("stderr does not say %q", c.says)
			}
			if c.left {
				d.awaitExit(t) // of the others, whom nobody tells
			} else {
				d.clean(t)
			}
		})
	}
}

// TestStartFails: who starts it wrongly is told what to do.
func TestStartFails(t *testing.T) {
	t.Parallel()
	policy := filepath.Join(t.TempDir(), "tenantmesh.yaml")
	if err := os.WriteFile(policy, defaultPolicy, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"shop"}, `there is no role "shop"; it is one of issuer,`},
		{[]string{"--steps", "11"}, `there is no step "11"`},
		{[]string{"--workload-api", "unix:///x"}, "--workload-api needs --uids"},
		{[]string{"orders", "--policy", filepath.Join(t.TempDir(), "none.yaml")}, "none.yaml: no such file"},
		{[]string{"orders", "--policy", policy}, "SPIFFE_ENDPOINT_SOCKET is not set"},
	} {
		d := newDemo(t, c.args...)
		d.Env = append(d.Env, "SPIFFE_ENDPOINT_SOCKET=")
		if err := d.Run(); err == nil {
			t.Errorf("%q: exit status 0", c.args)
		}
		if !strings.Contains(d.stderr.String(), c.want) {
			t.Errorf("%q said %q, want %q", c.args, &d.stderr, c.want)
		}
		d.clean(t)
	}
}

// TestPrinter: colour is for terminals, and NO_COLOR turns it off.
func TestPrinter(t *testing.T) {
	for _, c := range []struct {
		name            string
		file, env, term string
		want            bool
	}{
		{"a terminal", "/dev/ptmx", "", "xterm", true},
		{"NO_COLOR", "/dev/ptmx", "1", "xterm", false},
		{"a dumb terminal", "/dev/ptmx", "", "dumb", false},
		{"a file", filepath.Join(t.TempDir(), "out"), "", "xterm", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("NO_COLOR", c.env)
			t.Setenv("TERM", c.term)
			f, err := os.OpenFile(c.file, os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				t.Skip(err)
			}
			defer f.Close()
			if got := newPrinter(f, nil).colour; got != c.want {
				t.Errorf("colour is %t, want %t", got, c.want)
			}
		})
	}
}

// lineWaiter is a writer that finds the first line with a prefix.
type lineWaiter struct {
	prefix string
	buf    bytes.Buffer
	found  chan string
}

func newLineWaiter(prefix string) *lineWaiter {
	return &lineWaiter{prefix: prefix, found: make(chan string, 1)}
}

func (w *lineWaiter) Write(b []byte) (int, error) {
	w.buf.Write(b)
	for line := range strings.Lines(w.buf.String()) {
		if strings.HasPrefix(line, w.prefix) && strings.HasSuffix(line, "\n") {
			select {
			case w.found <- line:
			default:
			}
			break
		}
	}
	return len(b), nil
}
