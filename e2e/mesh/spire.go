package mesh

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"

	"github.com/tenantmesh/tenantmesh/internal/child"
)

// spire is a Domain on a spire-server and a spire-agent of its own, which are
// spoken to through their command-line programs, as an operator does.
type spire struct {
	m       *Mesh
	td      TrustDomain
	bin     string
	dir     string
	port    string
	version string

	mu      sync.Mutex
	server  *program
	agent   *program // nil while it is stopped
	entries map[string]*spireEntry
	old     string // the root that is old
}

// spireEntry is a registration entry.
type spireEntry struct {
	id   string // "" while it is deleted
	args []string
	// federates are the trust domains whose bundles it gets.
	federates []string
}

// program runs until it is stopped.
type program struct {
	cmd    *exec.Cmd
	exited <-chan struct{}
	log    string
}

var serverConfig = template.Must(template.New("server").Parse(`server {
  bind_address = "127.0.0.1"
  bind_port = "{{.Port}}"
  socket_path = "{{.Dir}}/server.sock"
  trust_domain = "{{.TrustDomain}}"
  data_dir = "{{.Dir}}/server"
  log_level = "INFO"
  ca_ttl = "24h"
  experimental {
    cache_reload_interval = "1s"
  }
}
plugins {
  DataStore "sql" {
    plugin_data {
      database_type = "sqlite3"
      connection_string = "{{.Dir}}/server/datastore.sqlite3"
    }
  }
  KeyManager "memory" {
    plugin_data {}
  }
  NodeAttestor "join_token" {
    plugin_data {}
  }
}
`))

var agentConfig = template.Must(template.New("agent").Parse(`agent {
  data_dir = "{{.Dir}}/agent"
  log_level = "INFO"
  server_address = "127.0.0.1"
  server_port = "{{.Port}}"
  socket_path = "{{.Dir}}/agent.sock"
  trust_domain = "{{.TrustDomain}}"
  trust_bundle_path = "{{.Dir}}/bundle.pem"
  experimental {
    sync_interval = "1s"
  }
}
plugins {
  KeyManager "disk" {
    plugin_data {
      directory = "{{.Dir}}/agent"
    }
  }
  NodeAttestor "join_token" {
    plugin_data {}
  }
  WorkloadAttestor "unix" {
    plugin_data {}
  }
}
`))

// newSPIRE starts a server and an agent for a trust domain.
func newSPIRE(ctx context.Context, m *Mesh, td TrustDomain) error {
	if os.Geteuid() != 0 {
		return errors.New("only root may run workloads under uids of their own, by which SPIRE tells them apart")
	}
	s := &spire{m: m, td: td, bin: m.opts.SPIRE, dir: filepath.Join(m.dir, fmt.Sprint("s", len(m.domains))), entries: map[string]*spireEntry{}}
	m.domains[td.Name] = s
	return s.boot(ctx)
}

// boot starts the server, and an agent with a join token.
func (s *spire) boot(ctx context.Context) error {
	for _, dir := range []string{"", "server", "agent"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o755); err != nil { //nolint:gosec // workloads have uids of their own
			return err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, s.port, _ = net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		return err
	}
	values := map[string]string{"Dir": s.dir, "Port": s.port, "TrustDomain": s.td.Name}
	for name, t := range map[string]*template.Template{"server.conf": serverConfig, "agent.conf": agentConfig} {
		var text bytes.Buffer
		if err := t.Execute(&text, values); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(s.dir, name), text.Bytes(), 0o600); err != nil {
			return err
		}
	}
	version, err := exec.CommandContext(ctx, s.path("spire-server"), "--version").CombinedOutput() //nolint:gosec // it is what was asked for
	if err != nil {
		return err
	}
	s.version = strings.TrimSpace(string(version))
	if s.server, err = s.run("spire-server", "run", "-config", filepath.Join(s.dir, "server.conf")); err != nil {
		return err
	}
	if err := s.healthy(ctx, "spire-server", "server.sock", s.server); err != nil {
		return err
	}
	bundle, err := s.call(ctx, nil, "bundle", "show")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "bundle.pem"), bundle, 0o600); err != nil {
		return err
	}
	var token struct{ Value string }
	if err := s.ask(ctx, &token, "token", "generate", "-spiffeID", s.agentID()); err != nil {
		return err
	}
	return s.startAgent(ctx, "-joinToken", token.Value)
}

func (s *spire) path(program string) string { return filepath.Join(s.bin, program) }
func (s *spire) agentID() string            { return "spiffe://" + s.td.Name + "/mesh/agent" }

// run starts a program that ends with this process, however that ends.
func (s *spire) run(name string, args ...string) (*program, error) {
	p := &program{log: filepath.Join(s.dir, name+".log")}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(s.path(name), args...) //nolint:gosec,noctx // it is what was asked for, and ends by stop
	p.cmd.Dir = s.dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// A group of its own: Ctrl-C in a terminal is for the driver, which ends it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p.exited, err = child.Start(p.cmd, syscall.SIGKILL); err != nil {
		return nil, err
	}
	return p, nil
}

// stop ends the program with a signal and waits for its end.
func (p *program) stop(sig syscall.Signal) error {
	if p == nil {
		return nil
	}
	select {
	case <-p.exited:
		return fmt.Errorf("%s had ended: %s", p.cmd.Path, lastLine(p.log))
	default:
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return err
	}
	late := time.AfterFunc(grace, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	<-p.exited
	return nil
}

// healthy waits until the program serves at its socket.
func (s *spire) healthy(ctx context.Context, name, socket string, p *program) error {
	const often = 50 * time.Millisecond
	for {
		err := exec.CommandContext(ctx, s.path(name), "healthcheck", "-socketPath", filepath.Join(s.dir, socket)).Run() //nolint:gosec // it is what was asked for
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s has ended; it said last: %s", name, lastLine(p.log))
		case <-time.After(often):
		case <-ctx.Done():
			return fmt.Errorf("%s is not healthy: %w; it said last: %s", name, context.Cause(ctx), lastLine(p.log))
		}
	}
}

// call runs a command of spire-server.
func (s *spire) call(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	args = append(args, "-socketPath", filepath.Join(s.dir, "server.sock"))
	cmd := exec.CommandContext(ctx, s.path("spire-server"), args...) //nolint:gosec // it is what was asked for
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("mesh: spire-server %s: %w: %s%s", strings.Join(args[:2], " "), err, bytes.TrimSpace(out), bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// ask runs a command that answers in JSON.
func (s *spire) ask(ctx context.Context, answer any, args ...string) error {
	out, err := s.call(ctx, nil, append(args, "-output", "json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal(out, answer)
}

func (s *spire) startAgent(ctx context.Context, args ...string) (err error) {
	if s.agent, err = s.run("spire-agent", append([]string{"run", "-config", filepath.Join(s.dir, "agent.conf")}, args...)...); err != nil {
		return err
	}
	return s.healthy(ctx, "spire-agent", "agent.sock", s.agent)
}

// StopAgent implements [Domain], as do the others.
func (s *spire) StopAgent(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.agent
	s.agent = nil
	return p.stop(syscall.SIGKILL)
}

// StartAgent starts it with what it kept on disk.
func (s *spire) StartAgent(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.startAgent(ctx)
}

// Disturb freezes the agent.
func (s *spire) Disturb(_ context.Context, on bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agent == nil {
		return errors.New("mesh: there is no agent")
	}
	if on {
		return s.agent.cmd.Process.Signal(syscall.SIGSTOP)
	}
	return s.agent.cmd.Process.Signal(syscall.SIGCONT)
}

// authority is one as spire-server localauthority tells of it.
type authority struct {
	ID string `json:"authority_id"`
}

func (s *spire) PrepareRoot(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var a struct {
		Prepared authority `json:"prepared_authority"`
	}
	if err := s.ask(ctx, &a, "localauthority", "x509", "prepare"); err != nil {
		return "", err
	}
	return a.Prepared.ID, s.publish(ctx)
}

func (s *spire) ActivateRoot(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var before struct{ Active authority }
	if err := s.ask(ctx, &before, "localauthority", "x509", "show"); err != nil {
		return err
	}
	s.old = before.Active.ID
	_, err := s.call(ctx, nil, "localauthority", "x509", "activate", "-authorityID", name)
	return err
}

func (s *spire) TaintOldRoot(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.call(ctx, nil, "localauthority", "x509", "taint", "-authorityID", s.old)
	return err
}

func (s *spire) RevokeOldRoot(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.call(ctx, nil, "localauthority", "x509", "revoke", "-authorityID", s.old); err != nil {
		return err
	}
	return s.publish(ctx)
}

// publish gives the bundle as it is now to those that federate with it, as
// bundle endpoints would in minutes; s.mu is held.
func (s *spire) publish(ctx context.Context) error {
	bundle, err := s.call(ctx, nil, "bundle", "show", "-format", "spiffe")
	if err != nil {
		return err
	}
	for _, td := range s.m.desc.TrustDomains {
		other, ok := s.m.domains[td.Name].(*spire)
		if !ok || !slices.Contains(td.Federates, s.td.Name) {
			continue
		}
		if _, err := other.call(ctx, bundle, "bundle", "set", "-format", "spiffe", "-id", "spiffe://"+s.td.Name); err != nil {
			return err
		}
	}
	return nil
}

// Unfederate takes the bundle, and with it the federation of all entries.
func (s *spire) Unfederate(ctx context.Context, other string) error {
	_, err := s.call(ctx, nil, "bundle", "delete", "-id", "spiffe://"+other, "-mode", "dissociate")
	return err
}

func (s *spire) Federate(ctx context.Context, other string) error {
	o, ok := s.m.domains[other].(*spire)
	if !ok {
		return fmt.Errorf("mesh: no trust domain %q", other)
	}
	bundle, err := o.call(ctx, nil, "bundle", "show", "-format", "spiffe")
	if err != nil {
		return err
	}
	if _, err := s.call(ctx, bundle, "bundle", "set", "-format", "spiffe", "-id", "spiffe://"+other); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if e.id == "" || !slices.Contains(e.federates, other) {
			continue
		}
		if _, err := s.call(ctx, nil, append([]string{"entry", "update", "-entryID", e.id}, e.args...)...); err != nil {
			return err
		}
	}
	return nil
}

func (s *spire) Register(ctx context.Context, p *Process) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &spireEntry{federates: p.env.Workload.Federates, args: []string{
		"-parentID", s.agentID(), "-spiffeID", p.ID(), "-selector", "unix:uid:" + strconv.FormatUint(uint64(p.uid), 10),
		"-x509SVIDTTL", strconv.Itoa(int(s.td.ttl() / time.Second)),
	}}
	for _, other := range e.federates {
		e.args = append(e.args, "-federatesWith", "spiffe://"+other)
	}
	var answer struct {
		Results []struct{ Entry struct{ ID string } }
	}
	if err := s.ask(ctx, &answer, append([]string{"entry", "create"}, e.args...)...); err != nil {
		return err
	}
	if len(answer.Results) != 1 || answer.Results[0].Entry.ID == "" {
		return fmt.Errorf("mesh: spire-server made no entry for %s", p.ID())
	}
	e.id = answer.Results[0].Entry.ID
	s.entries[p.ID()] = e
	return nil
}

func (s *spire) Delete(ctx context.Context, p *Process) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[p.ID()]
	if e == nil || e.id == "" {
		return errors.New("mesh: it is not registered")
	}
	id := e.id
	e.id = ""
	_, err := s.call(ctx, nil, "entry", "delete", "-entryID", id)
	return err
}

func (s *spire) socket(*Process) string { return "unix://" + filepath.Join(s.dir, "agent.sock") }

func (s *spire) describe() string {
	return "spire-server and spire-agent " + cmp.Or(s.version, "of an unknown version")
}

func (s *spire) real() bool { return true }

func (s *spire) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.agent.stop(syscall.SIGTERM), s.server.stop(syscall.SIGTERM))
}
