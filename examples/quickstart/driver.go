package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

//go:embed tenantmesh.yaml
var defaultPolicy []byte

// policyIssuer stands in tenantmesh.yaml for the issuer's address, which the
// demo knows only once its issuer listens.
const policyIssuer = "http://127.0.0.1:8088"

// errSteps says that a step did not end as stated. The line of the step has
// said how.
var errSteps = errors.New("not all steps ended as stated")

// settings are the demo's flags.
type settings struct {
	policy      string
	audit       string
	only        string
	timeout     time.Duration
	workloadAPI string
	uids        uids
	rotation    time.Duration
}

// uids says under which uid a role is to run.
type uids map[string]uint32

func (u uids) String() string { return fmt.Sprint(map[string]uint32(u)) }

func (u uids) Set(s string) error {
	for pair := range strings.SplitSeq(s, ",") {
		role, number, _ := strings.Cut(pair, "=")
		uid, err := strconv.ParseUint(number, 10, 32)
		if err != nil || !slices.Contains(workloadRoles, role) {
			return fmt.Errorf("%q is not <role>=<uid>, with one of the roles %s", pair, strings.Join(workloadRoles, ", "))
		}
		u[role] = uint32(uid)
	}
	return nil
}

// workloadRoles are the roles with an SVID.
var workloadRoles = []string{"gateway", "orders", "inventory", "intruder"}

func parseSettings(args []string) (*settings, error) {
	s := &settings{uids: uids{}}
	f := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	f.StringVar(&s.policy, "policy", "", "a policy `file` to use instead of the demo's own")
	f.StringVar(&s.audit, "audit", "", "a `directory` to keep the audit trails and logs in")
	f.StringVar(&s.only, "steps", "", "the `numbers` of the steps to run, such as 1,5; empty: all")
	f.DurationVar(&s.timeout, "timeout", time.Minute, "how long all may take")
	f.StringVar(&s.workloadAPI, "workload-api", "", "the `address` of a SPIRE agent to use instead of the embedded trust domain")
	f.Var(s.uids, "uids", "with --workload-api: the uids that tell the workloads apart, `role=uid,…`; needs root")
	f.DurationVar(&s.rotation, "await-rotation", 0, "with --workload-api: how long to wait for a rotation; 0: not at all")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case s.workloadAPI == "" && (len(s.uids) > 0 || s.rotation > 0):
		return nil, errors.New("--uids and --await-rotation go with --workload-api")
	case s.workloadAPI != "" && len(s.uids) != len(workloadRoles):
		return nil, fmt.Errorf("--workload-api needs --uids with a uid for each of %s", strings.Join(workloadRoles, ", "))
	}
	return s, nil
}

// mesh is all that the demo started.
type mesh struct {
	settings *settings
	dir      string // gone at the end
	policy   string // the file that all workloads watch
	auditDir string
	trail    *trail
	client   *http.Client

	issuer, domain, inventory, intruder, orders, gateway *process // domain is nil for an outside one
	all                                                  []*process
}

// runDemo starts everything, runs the steps and ends everything.
func runDemo(ctx context.Context, args []string) (err error) {
	s, err := parseSettings(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, fmt.Errorf("the demo took longer than %s", s.timeout))
	defer cancel()
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	out := newPrinter(os.Stdout, abort)

	m, err := newMesh(s)
	if err != nil {
		return err
	}
	defer func() {
		// If something went wrong, what that makes of the end says no more.
		if closing := m.close(); err == nil {
			err = closing
		}
	}()
	began := time.Now()
	if err := m.start(ctx); err != nil {
		return err
	}
	out.line("%s", out.paint(dim, "started "+m.processes()))

	// A process that dies ends the demo.
	for _, p := range m.all {
		go func() {
			<-p.exited
			abort(p.died())
		}()
	}
	if err := m.runSteps(ctx, out); err != nil {
		return err
	}
	out.line("%s", out.paint(dim, fmt.Sprintf("took %s; audit trails and logs: %s", time.Since(began).Round(100*time.Millisecond), m.where())))
	return nil
}

func newMesh(s *settings) (*mesh, error) {
	dir, err := os.MkdirTemp("", "quickstart-")
	if err != nil {
		return nil, err
	}
	m := &mesh{settings: s, dir: dir, auditDir: s.audit, trail: newTrail(),
		client: &http.Client{Transport: &http.Transport{}}}
	if m.auditDir == "" {
		m.auditDir = filepath.Join(dir, "audit")
	}
	return m, os.MkdirAll(m.auditDir, 0o700)
}

// start starts the processes, each when those that it needs are ready.
func (m *mesh) start(ctx context.Context) (err error) {
	run := func(role string, env []string, as *syscall.Credential, args ...string) (*process, error) {
		p, err := start(ctx, m.trail, m.auditDir, role, env, as, args...)
		if p != nil && p.cmd.Process != nil {
			m.all = append(m.all, p)
		}
		return p, err
	}
	if m.issuer, err = run("issuer", nil, nil); err != nil {
		return err
	}
	if err := m.writePolicy(); err != nil {
		return err
	}
	sockets := map[string]string{}
	if m.settings.workloadAPI == "" {
		if m.domain, err = run("trust-domain", nil, nil, "--dir", m.dir); err != nil {
			return err
		}
		for pair := range strings.FieldsSeq(m.domain.addr) {
			name, socket, _ := strings.Cut(pair, "=")
			sockets[name] = socket
		}
	}
	workload := func(role, name string, args ...string) (*process, error) {
		socket, as := sockets[name], (*syscall.Credential)(nil)
		if m.settings.workloadAPI != "" {
			uid := m.settings.uids[role]
			socket, as = m.settings.workloadAPI, &syscall.Credential{Uid: uid, Gid: uid}
		}
		return run(role, []string{"SPIFFE_ENDPOINT_SOCKET=" + socket}, as, args...)
	}
	// Connections live for six seconds, so that a rotation shows soon.
	guarded := func(args ...string) []string {
		return append(args, "--policy", m.policy, "--max-connection-age", "6s")
	}
	if m.inventory, err = workload("inventory", "inventory", guarded()...); err != nil {
		return err
	}
	if m.intruder, err = workload("intruder", "notifier"); err != nil {
		return err
	}
	if m.orders, err = workload("orders", "orders", guarded("--inventory", m.inventory.addr, "--notifier", m.intruder.addr)...); err != nil {
		return err
	}
	m.gateway, err = workload("gateway", "gateway", guarded("--orders", m.orders.addr, "--issuer", "http://"+m.issuer.addr)...)
	return err
}

// writePolicy writes the policy with the issuer's real address.
func (m *mesh) writePolicy() error {
	doc := defaultPolicy
	if m.settings.policy != "" {
		var err error
		if doc, err = os.ReadFile(m.settings.policy); err != nil {
			return err
		}
	}
	text := strings.ReplaceAll(string(doc), policyIssuer, "http://"+m.issuer.addr)
	mode, dirMode := os.FileMode(0o600), os.FileMode(0o700)
	if m.settings.workloadAPI != "" { // others' uids read it
		mode, dirMode = 0o644, 0o755
	}
	if err := os.Chmod(m.dir, dirMode); err != nil {
		return err
	}
	// A folder of its own: watchers are told of all that happens there.
	dir := filepath.Join(m.dir, "policy")
	if err := os.Mkdir(dir, dirMode); err != nil {
		return err
	}
	m.policy = filepath.Join(dir, "tenantmesh.yaml")
	return os.WriteFile(m.policy, []byte(text), mode)
}

// processes lists what was started.
func (m *mesh) processes() string {
	var list []string
	for _, p := range m.all {
		list = append(list, fmt.Sprintf("%s (pid %d)", p.name, p.cmd.Process.Pid))
	}
	return strings.Join(list, ", ")
}

// where says where the audit trails are.
func (m *mesh) where() string {
	if m.settings.audit != "" {
		return m.settings.audit
	}
	return "gone with the temporary directory; --audit <directory> keeps them"
}

// close ends all processes and removes what they left.
func (m *mesh) close() error {
	m.client.CloseIdleConnections()
	errs := make([]error, len(m.all))
	var stopping sync.WaitGroup
	for i, p := range m.all {
		stopping.Go(func() { errs[i] = p.stop() })
	}
	stopping.Wait()
	return errors.Join(errors.Join(errs...), os.RemoveAll(m.dir))
}

// runSteps runs the steps, all of them unless ctx ends.
func (m *mesh) runSteps(ctx context.Context, out *printer) error {
	chosen := map[int]bool{}
	for number := range strings.SplitSeq(m.settings.only, ",") {
		if number == "" {
			continue
		}
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || n > len(steps) {
			return fmt.Errorf("--steps: there is no step %q", number)
		}
		chosen[n] = true
	}
	if len(chosen) == 0 {
		for i := range steps {
			chosen[i+1] = true
		}
	}
	var good, skipped int
	for _, n := range slices.Sorted(maps.Keys(chosen)) {
		s := steps[n-1]
		o, err := m.runStep(ctx, s)
		var not notRun
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &not):
			skipped++
			out.step(n, len(steps), "not run", yellow, s, outcome{cameBack: string(not)})
		case err != nil:
			out.step(n, len(steps), "FAILED", red, s, outcome{cameBack: err.Error()})
		default:
			good++
			out.step(n, len(steps), "ok", green, s, o)
		}
	}
	ran := len(chosen) - skipped
	sgr := green
	if good != ran {
		sgr = red
	}
	summary := fmt.Sprintf("%d of %d steps ended as stated", good, ran)
	if skipped > 0 {
		summary += fmt.Sprintf(", %d not run", skipped)
	}
	out.line("%s", out.paint(sgr, summary))
	if good != ran {
		return errSteps
	}
	return nil
}

// stepTime is how long one step may take. Most take some milliseconds.
const stepTime = 20 * time.Second

func (m *mesh) runStep(ctx context.Context, s step) (outcome, error) {
	limit := stepTime + m.settings.rotation
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the step took longer than %s", limit))
	defer cancel()
	return s.run(ctx, m)
}
