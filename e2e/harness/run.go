package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tenantmesh/tenantmesh/e2e/attackers"
	"github.com/tenantmesh/tenantmesh/e2e/mesh"
)

// roles are those of the harness's processes, beside the mesh's own.
var roles = attackers.Roles

// runner runs all there is against one mesh.
type runner struct {
	*config
	out    *printer
	m      *mesh.Mesh
	report *mesh.Report
	load   *mesh.RunningLoad // that goes on behind faults
	began  time.Time
}

// The lifetimes of SVIDs. Those of Prod are old enough for clocks that are off by
// 25 seconds; the partner's agent is stopped until they have expired.
const (
	prodTTL    = 2 * time.Minute
	partnerTTL = 20 * time.Second
	// SPIRE's servers and agents take seconds to look, and more of them.
	spirePartnerTTL = time.Minute
)

// connectionAge is how long connections live.
const connectionAge = 4 * time.Second

// describe returns the mesh that is started.
func (c *config) describe() mesh.Description {
	d := mesh.Shop(prodTTL)
	for i := range d.TrustDomains {
		if td := &d.TrustDomains[i]; td.Name == mesh.Partner {
			td.TTL = partnerTTL
			if c.spire != "" {
				td.TTL = spirePartnerTTL
			}
		}
	}
	for i := range d.Workloads {
		if w := &d.Workloads[i]; w.Name == "inventory" {
			w.MaxPolicyAge = maxPolicyAge
		}
	}
	return d
}

// run starts the mesh, runs all, and ends the mesh.
func (c *config) run(ctx context.Context, out *printer) (report *mesh.Report, err error) {
	only, err := regexp.Compile(c.only)
	if err != nil {
		return nil, err
	}
	r := &runner{config: c, out: out, report: &mesh.Report{Began: time.Now()}, began: time.Now()}
	out.progress("starting the mesh")
	r.m, err = mesh.Start(ctx, c.describe(), mesh.Options{
		SPIRE: c.spire, Loopback: c.loopback, MaxConnectionAge: connectionAge, Log: out.line,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		out.progress("stopping the mesh")
		if closing := r.m.Close(); closing != nil {
			err = errors.Join(err, closing)
		}
		out.progress("")
	}()
	r.report.Domain, r.report.RealSPIRE, r.report.Network = r.m.Describe()
	out.line("%6.1fs started %d workloads: %s; %s", time.Since(r.began).Seconds(), len(r.m.Processes()), r.report.Domain, r.report.Network)
	for _, s := range steps {
		if !only.MatchString(s.name) {
			continue
		}
		if err := s.run(ctx, r); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if err := r.finish(ctx); err != nil {
		return nil, err
	}
	return r.report, nil
}

// step is a part of a run. It fails only if the run cannot go on.
type step struct {
	name string
	run  func(context.Context, *runner) error
}

// finish adds what is known at the end.
func (r *runner) finish(ctx context.Context) (err error) {
	if err := r.endLoad(); err != nil {
		return err
	}
	r.report.Workloads = r.m.Workloads()
	if r.report.Edges, err = r.m.Edges(ctx); err != nil {
		return err
	}
	r.check("P2 no tenant beyond the policy", r.strayEdges(), "%d edges of who called whom for which tenant, each within the policy", len(r.report.Edges))
	against, ran, err := r.undecided(ctx)
	if err != nil {
		return err
	}
	r.check("every handler that ran was let run", against, "%d runs in the processes that live, none without an audit event that allowed it", ran)
	r.report.Took = time.Since(r.began)
	return nil
}

// undecided returns where handlers ran more often than calls were allowed. A
// call may end before its handler has read what it is asked.
func (r *runner) undecided(ctx context.Context) (against []string, ran uint64, err error) {
	for _, p := range r.m.Processes() {
		handled, err := p.Handled(ctx)
		if err != nil {
			return nil, 0, err
		}
		edges, err := p.Edges(ctx)
		if err != nil {
			return nil, 0, err
		}
		var allowed uint64
		for _, e := range edges {
			allowed += e.Allowed
		}
		ran += handled.Runs
		if handled.Runs > allowed {
			against = append(against, fmt.Sprintf("%s: handlers ran %d times, and were let %d times", p.Name(), handled.Runs, allowed))
		}
	}
	return against, ran, nil
}

// strayEdges returns what was allowed that the shop's description does not
// have, in words.
func (r *runner) strayEdges() (out []string) {
	d := r.describe()
	tenants := map[string][]string{"partner": {"acme"}, "boundary": {"acme"}, "runner-acme": {"acme"}, "runner-globex": {"globex"}}
	for _, e := range r.report.Edges {
		if e.Allowed == 0 {
			continue
		}
		i := slices.IndexFunc(d.Workloads, func(w mesh.Workload) bool { return w.Name == e.From })
		ok := i >= 0 && slices.ContainsFunc(d.Workloads[i].Calls, func(c mesh.Call) bool { return c.To == e.To && c.For(e.Tenant) })
		if own, confined := tenants[e.From]; ok && confined {
			ok = slices.Contains(own, e.Tenant)
		}
		if !ok {
			out = append(out, fmt.Sprintf("%s called %s for %q %d times", e.From, e.To, e.Tenant, e.Allowed))
		}
	}
	return out
}

// check adds a check that passed if nothing speaks against it.
func (r *runner) check(name string, against []string, format string, args ...any) {
	c := mesh.Check{Name: name, Passed: len(against) == 0, Detail: fmt.Sprintf(format, args...)}
	if !c.Passed {
		c.Detail = strings.Join(against, "; ")
	}
	r.report.Checks = append(r.report.Checks, c)
	r.out.result(c.Passed, name, c.Detail)
}

// everyone is a load of all who originate: each calls at a part of the rate.
func everyone(g mesh.Generate) map[string]mesh.Generate {
	by := map[string]mesh.Generate{}
	for name, part := range map[string]float64{"gateway": 0.6, "runner-acme": 0.1, "runner-globex": 0.1, "partner": 0.2} {
		g := g
		g.Rate *= part
		if g.Calls > 0 {
			g.Calls = uint64(float64(g.Calls) * part)
		}
		g.Depth = 2
		if name == "partner" {
			g.Depth = 3
		}
		by[name] = g
	}
	return by
}

// callTimeout is the deadline of the calls behind faults.
const callTimeout = 5 * time.Second

// startLoad starts the load behind faults, unless it runs.
func (r *runner) startLoad(ctx context.Context) (err error) {
	if r.load == nil {
		by := everyone(mesh.Generate{Rate: 300, Timeout: callTimeout, Workers: 16})
		// What the partner originates expires with its SVID, which is too short for
		// clocks that are off: it goes no further than orders.
		partner := by["partner"]
		partner.Depth = 1
		by["partner"] = partner
		r.load, err = r.m.StartLoad(ctx, mesh.Load{Name: "behind faults", By: by})
	}
	return err
}

// endLoad ends it, and reports it.
func (r *runner) endLoad() error {
	if r.load == nil {
		return nil
	}
	result, err := r.load.Stop()
	r.load = nil
	if err == nil {
		r.loaded(result)
	}
	return err
}

// loaded reports what a load came to.
func (r *runner) loaded(l mesh.LoadResult) {
	l.Began = time.Since(r.began) - l.Took
	r.report.Loads = append(r.report.Loads, l)
	var h mesh.Histogram
	for _, s := range l.Latency {
		h.Merge(s)
	}
	text := fmt.Sprintf("%d calls in %s: %d right, %d refused with a status, %d wrong, %d lost, %d refused while nothing was broken; p50 %s, p99 %s",
		l.Calls, l.Took.Round(100*time.Millisecond), l.Right, l.Refused(), l.Wrong, l.Lost, l.Unexplained, h.Quantile(0.5), h.Quantile(0.99))
	if len(l.Refusals) > 0 {
		text += " (" + list(l.Refusals) + ")"
	}
	for _, d := range l.Details {
		text += "\n               " + d
	}
	r.out.result(l.Passed(), "load "+l.Name, text)
}
