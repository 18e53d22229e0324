package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/tenantmesh/tenantmesh/e2e/mesh"
)

// maxPolicyAge is how long inventory goes on with a policy that is not confirmed.
const maxPolicyAge = 12 * time.Second

// steps are what is run, in this order: what needs SVIDs that are not new comes
// before what has them issued anew.
var steps = slices.Concat([]step{{"load calm", calm}}, identityFaults, []step{clocks}, policyFaults, networkFaults, issuingFaults,
	[]step{{"streams and a policy push", pushed}, {"load while processes are killed", storm}, {"attacks", attacked}})

// calm has all who originate call as fast as it goes, while nothing is broken.
func calm(ctx context.Context, r *runner) error {
	r.out.progress("load calm")
	load, err := r.m.StartLoad(ctx, mesh.Load{Name: "calm", By: everyone(mesh.Generate{Calls: max(r.calls/50, 1000)})})
	if err != nil {
		return err
	}
	result, err := load.Wait()
	if err == nil {
		r.loaded(result)
	}
	return err
}

// identityFaults are those of the Workload API that have nothing issued.
var identityFaults = []step{
	fault("Workload API away", "the Workload API fails to answer for 3 s, in flight", func(ctx context.Context, b *breakage) error {
		d := b.m.Domain(mesh.Prod)
		if err := d.Disturb(ctx, true); err != nil {
			return err
		}
		if err := hold(ctx, 3*time.Second); err != nil {
			return err
		}
		return d.Disturb(ctx, false)
	}),
	fault("agent killed", "the agent is killed and started again 3 s later", func(ctx context.Context, b *breakage) error {
		d := b.m.Domain(mesh.Prod)
		if err := d.StopAgent(ctx); err != nil {
			return err
		}
		if err := hold(ctx, 3*time.Second); err != nil {
			return err
		}
		return d.StartAgent(ctx)
	}),
	fault("no Workload API at start", "inventory is killed and started while there is no agent", func(ctx context.Context, b *breakage) error {
		d, p, before := b.m.Domain(mesh.Prod), b.m.Process("inventory"), b.load.Counts()
		if err := d.StopAgent(ctx); err != nil {
			return err
		}
		b.broke()
		if err := p.Kill(); err != nil {
			return err
		}
		if err := p.Launch(); err != nil {
			return err
		}
		if err := b.refused(ctx, before, 10*time.Second, "Unavailable"); err != nil {
			return err
		}
		early, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := p.Ready(early); err == nil {
			b.wrong("inventory was ready without an identity")
		}
		if err := d.StartAgent(ctx); err != nil {
			return err
		}
		if err := p.Ready(ctx); err != nil {
			return err
		}
		b.mended()
		return nil
	}),
}

// settledFor is how old, and not due to be renewed, SVIDs must be for clocks that are off.
const settledFor = 26 * time.Second

// clocks sets inventory's clock off.
var clocks = fault("clock off", "inventory's clock is off by 25 s, which works, and by 40 s, which does not", func(ctx context.Context, b *breakage) error {
	p := b.m.Process("inventory")
	if err := b.aged(ctx, "orders", "inventory", "ledger"); err != nil {
		return err
	}
	before := b.load.Counts()
	for _, offset := range []time.Duration{25 * time.Second, -25 * time.Second} {
		if err := p.SetClock(ctx, offset); err != nil {
			return err
		}
		if err := hold(ctx, 2*time.Second); err != nil {
			return err
		}
		if cost := b.load.Counts().Since(before); cost.Refused > 0 {
			b.wrong("%d calls failed at %s: %s", cost.Refused, offset, list(cost.Refusals))
		}
	}
	for _, offset := range []time.Duration{40 * time.Second, -40 * time.Second} {
		before := b.load.Counts()
		b.broke()
		if err := p.SetClock(ctx, offset); err != nil {
			return err
		}
		err := b.refused(ctx, before, 10*time.Second, "CONTEXT_NOT_YET_VALID", "TIME_REVERSED", "SVID_")
		b.note("%s: %s", offset, list(b.load.Counts().Since(before).Refusals))
		if err != nil {
			return err
		}
		if err := p.SetClock(ctx, 0); err != nil {
			return err
		}
		b.mended()
		if err := b.well(ctx); err != nil {
			return err
		}
	}
	return nil
})

// aged waits until the workloads' SVIDs are so old that a clock may be behind,
// and far enough from being renewed.
func (b *breakage) aged(ctx context.Context, names ...string) error {
	b.out.progress("waiting until SVIDs are %s old", settledFor)
	return within(ctx, prodTTL+30*time.Second, "SVIDs of an age", func() (bool, error) {
		for _, name := range names {
			s, err := b.m.Process(name).Status(ctx)
			if err != nil {
				return false, err
			}
			// A clock that is 25 s behind must find them valid. None may be renewed
			// meanwhile, as agents do when about half of an SVID's life is left.
			age, left := time.Since(s.NotBefore), time.Until(s.NotAfter)
			if age < settledFor || left < prodTTL/2+25*time.Second && left > prodTTL/2-15*time.Second {
				return false, nil
			}
		}
		return true, nil
	})
}

// policyFaults are those of a policy's source.
var policyFaults = []step{
	fault("policy broken", "the policy of orders is garbage, then half-written, then gone", func(ctx context.Context, b *breakage) error {
		p := b.m.Process("orders")
		before, err := p.Status(ctx)
		if err != nil {
			return err
		}
		for _, doc := range []string{"{]", mesh.ShopPolicy[:len(mesh.ShopPolicy)/2], "\x00"} {
			if err := b.badPolicy(ctx, p, doc, before.PolicyVersion); err != nil {
				return err
			}
		}
		if err := p.RemovePolicy(); err != nil {
			return err
		}
		if _, err := p.Reload(ctx); err == nil {
			b.wrong("a policy that is gone was reloaded")
		}
		if err := hold(ctx, time.Second); err != nil {
			return err
		}
		// A good one afterwards takes effect, once it is acknowledged.
		b.broke()
		if err := p.WritePolicy(without(mesh.ShopPolicy, "initech")); err != nil {
			return err
		}
		version, err := p.Reload(ctx)
		if err != nil || version == before.PolicyVersion {
			return fmt.Errorf("a good policy after bad ones: %s, %w", version, err)
		}
		b.is(ctx, "gateway", mesh.Generate{Tenants: []string{"initech"}}, "PermissionDenied TENANT_NOT_BOUND")
		return b.restore(ctx, p)
	}),
	fault("policy away for too long", "the policy of inventory cannot be read for longer than it may be used unconfirmed", func(ctx context.Context, b *breakage) error {
		p, before := b.m.Process("inventory"), b.load.Counts()
		if err := p.RemovePolicy(); err != nil {
			return err
		}
		if err := hold(ctx, maxPolicyAge/3); err != nil {
			return err
		}
		if cost := b.load.Counts().Since(before); cost.Refused > 0 {
			b.wrong("%d calls failed before it was stale: %s", cost.Refused, list(cost.Refusals))
		}
		b.broke()
		if err := b.refused(ctx, before, maxPolicyAge+10*time.Second, "POLICY_UNAVAILABLE"); err != nil {
			return err
		}
		return b.restore(ctx, p)
	}),
}

// badPolicy gives a workload a policy that does not load, and sees that the old
// one stays and an alarm is raised.
func (b *breakage) badPolicy(ctx context.Context, p *mesh.Process, doc, version string) error {
	if err := p.WritePolicy(doc); err != nil {
		return err
	}
	if got, err := p.Reload(ctx); err == nil {
		b.wrong("P1 a bad policy was loaded: %s", got)
	}
	if s, err := p.Status(ctx); err != nil || s.PolicyError == "" || s.PolicyVersion != version {
		b.wrong("P1 no alarm, or another policy: %+v, %v", s, err)
	}
	return hold(ctx, 500*time.Millisecond)
}

// restore gives a workload its policy back.
func (b *breakage) restore(ctx context.Context, p *mesh.Process) error {
	if err := p.WritePolicy(""); err != nil {
		return err
	}
	if _, err := p.Reload(ctx); err != nil {
		return err
	}
	b.mended()
	return nil
}

// without returns a policy without a tenant.
func without(doc, tenant string) string {
	var out []string
	for line := range strings.Lines(doc) {
		if !strings.HasPrefix(line, "  "+tenant+":") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// networkFaults are those of links.
var networkFaults = []step{
	fault("link cut", "nothing reaches inventory until calls fail, for 2 s at least", func(ctx context.Context, b *breakage) error {
		before := b.load.Counts()
		cut, restore, err := b.cutter(ctx)
		if err != nil {
			return err
		}
		b.broke()
		if err := cut(); err != nil {
			return err
		}
		if err := hold(ctx, 2*time.Second); err != nil {
			return err
		}
		err = b.refused(ctx, before, 10*time.Second, "DeadlineExceeded", "Unavailable")
		if mending := restore(); mending != nil {
			return mending
		}
		b.mended()
		// What was sent into the cut fails when its time is over.
		return errors.Join(err, hold(ctx, callTimeout))
	}),
	fault("link slowed", "what passes between orders and billing takes 100 ms more in each direction, for 3 s", func(ctx context.Context, b *breakage) error {
		const delay = 100 * time.Millisecond
		x, err := b.m.NewProxy(ctx, b.m.Process("billing"), delay)
		if err != nil {
			return err
		}
		if err := b.redirect(ctx, "billing", x.Addr()); err != nil {
			return err
		}
		if err := hold(ctx, 3*time.Second); err != nil {
			return err
		}
		began := time.Now()
		b.is(ctx, "gateway", mesh.Generate{Depth: 1}, "")
		if took := time.Since(began); took < 2*delay {
			b.wrong("a call took %s: the link is not slow", took)
		} else {
			b.note("a call by way of it took %s", took.Round(time.Millisecond))
		}
		return b.redirect(ctx, "billing", "")
	}),
}

// cutter returns what takes inventory off the network, and what puts it back:
// its cable, or without one a proxy.
func (b *breakage) cutter(ctx context.Context) (cut, restore func() error, err error) {
	p := b.m.Process("inventory")
	if b.m.HasLinks() {
		return func() error { return b.m.Cut(ctx, p, true) }, func() error { return b.m.Cut(ctx, p, false) }, nil
	}
	x, err := b.m.NewProxy(ctx, p, 0)
	if err != nil {
		return nil, nil, err
	}
	return func() error { x.Cut(); return nil }, func() error { return b.redirect(ctx, "inventory", "") },
		b.redirect(ctx, "inventory", x.Addr())
}

// redirect has orders reach a workload elsewhere; "" is where it is.
func (r *runner) redirect(ctx context.Context, to, addr string) error {
	return r.m.Process("orders").Ask(ctx, "Redirect", mesh.Redirect{To: to, Addr: addr}, &mesh.None{})
}

// issuingFaults are those that have SVIDs issued anew.
var issuingFaults = []step{
	fault("entry deleted", "the registration of billing is deleted, and restored", func(ctx context.Context, b *breakage) error {
		d, p, before := b.m.Domain(mesh.Prod), b.m.Process("billing"), b.load.Counts()
		b.broke()
		if err := d.Delete(ctx, p); err != nil {
			return err
		}
		refused := b.refused(ctx, before, time.Minute, "IDENTITY_UNAVAILABLE", "Unavailable")
		if err := within(ctx, time.Minute, "withdrawn", func() (bool, error) {
			s, err := p.Status(ctx)
			return s.ID == "", err
		}); err != nil {
			return err
		}
		if err := d.Register(ctx, p); err != nil {
			return err
		}
		if err := within(ctx, time.Minute, "restored", func() (bool, error) {
			s, err := p.Status(ctx)
			return s.ID == p.ID(), err
		}); err != nil {
			return err
		}
		b.mended()
		return refused
	}),
	fault("federation cut", "the partner's bundle is taken from prod.example, and given back", func(ctx context.Context, b *breakage) error {
		d, before := b.m.Domain(mesh.Prod), b.load.Counts()
		b.broke()
		if err := d.Unfederate(ctx, mesh.Partner); err != nil {
			return err
		}
		refused := within(ctx, 30*time.Second, "refused to the partner", func() (bool, error) {
			return b.load.Counts().Since(before).RefusedTo["partner"] > 0, nil
		})
		// I4: also those on connections that were open; and nothing gets through from now on.
		if err := b.noneSince(ctx, "partner", time.Second); err != nil {
			b.wrong("I4 %v", err)
		}
		b.spared(before, "runner-globex")
		if err := d.Federate(ctx, mesh.Partner); err != nil {
			return err
		}
		if err := within(ctx, 30*time.Second, "let in again", func() (bool, error) {
			key, err := b.one(ctx, "partner", mesh.Generate{Depth: 3})
			return key == "", err
		}); err != nil {
			return err
		}
		b.mended()
		return refused
	}),
	fault("nobody renews", "the partner's agent is stopped until its SVID has expired", func(ctx context.Context, b *breakage) error {
		d, p, before := b.m.Domain(mesh.Partner), b.m.Process("partner"), b.load.Counts()
		if err := d.StopAgent(ctx); err != nil {
			return err
		}
		s, err := p.Status(ctx)
		if err != nil {
			return err
		}
		b.out.progress("waiting for %s, until the partner's SVID expires", time.Until(s.NotAfter).Round(time.Second))
		if err := hold(ctx, time.Until(s.NotAfter)-500*time.Millisecond); err != nil {
			return err
		}
		if cost := b.load.Counts().Since(before); cost.Refused > 0 {
			b.wrong("%d calls failed before it expired: %s", cost.Refused, list(cost.Refusals))
		}
		b.broke()
		refused := b.refused(ctx, before, 10*time.Second, "IDENTITY_UNAVAILABLE", "SVID_EXPIRED", "Unavailable")
		if err := b.noneSince(ctx, "partner", time.Second); err != nil {
			b.wrong("I5 %v", err)
		}
		b.spared(before, "runner-globex")
		if err := d.StartAgent(ctx); err != nil {
			return err
		}
		if err := within(ctx, time.Minute, "renewed", func() (bool, error) {
			now, err := p.Status(ctx)
			return now.NotAfter.After(time.Now()), err
		}); err != nil {
			return err
		}
		b.mended()
		return refused
	}),
	fault("root rotated", "prod.example gets a new root, and the old one is revoked", func(ctx context.Context, b *breakage) error {
		d := b.m.Domain(mesh.Prod)
		all := slices.DeleteFunc(b.m.Processes(), func(p *mesh.Process) bool { return !strings.HasPrefix(p.ID(), "spiffe://"+mesh.Prod+"/") })
		roots := map[string]int{}
		for _, p := range b.m.Processes() {
			s, err := p.Status(ctx)
			if err != nil {
				return err
			}
			roots[p.Name()] = s.Roots
		}
		name, err := d.PrepareRoot(ctx)
		if err != nil {
			return err
		}
		// All who verify them, also the partner, must have the root before it signs.
		for _, p := range b.m.Processes() {
			if err := within(ctx, time.Minute, "with the new root", func() (bool, error) {
				s, err := p.Status(ctx)
				return s.Roots > roots[p.Name()], err
			}); err != nil {
				return fmt.Errorf("%s: %w", p.Name(), err)
			}
		}
		if err := d.ActivateRoot(ctx, name); err != nil {
			return err
		}
		if err := b.each(ctx, all, "leaves of the new root", func(now, before mesh.Status) bool { return now.Issuer != before.Issuer },
			func() error { return d.TaintOldRoot(ctx) }); err != nil {
			return err
		}
		// Connections made with leaves of the old root must have ended.
		if err := hold(ctx, connectionAge*7/4); err != nil {
			return err
		}
		return b.each(ctx, all, "without the old root", func(now, before mesh.Status) bool { return now.Roots < before.Roots },
			func() error { return d.RevokeOldRoot(ctx) })
	}),
}

// each does something and waits until all workloads are as they should be.
func (b *breakage) each(ctx context.Context, all []*mesh.Process, what string, is func(now, before mesh.Status) bool, do func() error) error {
	before := make([]mesh.Status, len(all))
	var err error
	for i, p := range all {
		if before[i], err = p.Status(ctx); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	for i, p := range all {
		if err := within(ctx, time.Minute, what, func() (bool, error) {
			s, err := p.Status(ctx)
			return is(s, before[i]), err
		}); err != nil {
			return fmt.Errorf("%s: %w", p.Name(), err)
		}
	}
	return nil
}

// noneSince lets a second pass, and says whether a call of the workload was right then.
func (b *breakage) noneSince(ctx context.Context, name string, d time.Duration) error {
	before := b.load.Counts()
	if err := hold(ctx, d); err != nil {
		return err
	}
	cost := b.load.Counts().Since(before)
	if right := cost.By[name] - cost.RefusedTo[name]; right > 0 {
		return fmt.Errorf("%d calls of %s were right", right, name)
	}
	return nil
}

// pushed is S3: many streams are open, and a policy takes a tenant away.
func pushed(ctx context.Context, r *runner) error {
	if r.streams == 0 {
		return nil
	}
	if err := r.endLoad(); err != nil {
		return err
	}
	gateway, orders := r.m.Process("gateway"), r.m.Process("orders")
	// No stream shall end because its connection is old.
	if err := orders.Restart(ctx, func(w *mesh.Workload) { w.MaxConnectionAge = time.Hour }); err != nil {
		return err
	}
	r.out.progress("opening %d streams", r.streams)
	before, err := orders.Status(ctx)
	if err != nil {
		return err
	}
	if err := gateway.Ask(ctx, "OpenStreams", mesh.Open{To: "orders", N: r.streams}, &mesh.None{}); err != nil {
		return err
	}
	if err := orders.WritePolicy(without(mesh.ShopPolicy, "globex")); err != nil {
		return err
	}
	began := time.Now()
	if _, err := orders.Reload(ctx); err != nil {
		return err
	}
	acknowledged := time.Now()
	var got mesh.Opened
	var against []string
	if err := within(ctx, 30*time.Second, "all streams of globex ended", func() (bool, error) {
		err := gateway.Ask(ctx, "Streams", mesh.None{}, &got)
		return got.Open["globex"] == 0, err
	}); err != nil {
		against = append(against, err.Error())
	}
	if took := got.LastEnd.Sub(acknowledged); took > streamLimit(r.streams) {
		against = append(against, fmt.Sprintf("the last stream ended %s after the policy was in force", took))
	}
	for key, n := range got.Ended {
		if key != "globex PermissionDenied TENANT_NOT_BOUND" {
			against = append(against, fmt.Sprintf("%d streams ended as %s", n, key))
		}
	}
	if want := r.streams - got.Ended["globex PermissionDenied TENANT_NOT_BOUND"]; got.Open["acme"]+got.Open["initech"] != want {
		against = append(against, fmt.Sprintf("of the others, %d of %d live on", got.Open["acme"]+got.Open["initech"], want))
	}
	if err := gateway.Ask(ctx, "CloseStreams", mesh.None{}, &mesh.None{}); err != nil {
		return err
	}
	if err := orders.WritePolicy(""); err != nil {
		return err
	}
	if _, err := orders.Reload(ctx); err != nil {
		return err
	}
	const slack = 20
	if err := within(ctx, 10*time.Second, "without goroutines of streams", func() (bool, error) {
		s, err := orders.Status(ctx)
		return s.Goroutines < before.Goroutines+slack, err
	}); err != nil {
		against = append(against, err.Error())
	}
	r.check("S3 streams and a policy push", against, "%d streams open; %d ended with TENANT_NOT_BOUND, the last %s after the push, %s after it was acknowledged; the others live; no goroutine is left",
		r.streams, got.Ended["globex PermissionDenied TENANT_NOT_BOUND"], got.LastEnd.Sub(began).Round(time.Millisecond), max(got.LastEnd.Sub(acknowledged), 0).Round(time.Millisecond))
	return orders.Restart(ctx, func(w *mesh.Workload) { w.MaxConnectionAge = 0 })
}

// streamLimit is how long it may take until all streams have ended: a second
// and, on a machine that does all of the mesh's work itself, what telling so many takes.
func streamLimit(n int) time.Duration {
	return time.Second + time.Duration(n)*100*time.Microsecond
}

// victims are killed at random: all who do not generate load themselves.
var victims = []string{"orders", "inventory", "billing", "ledger", "boundary"}

// storm has all who originate call as fast as it goes, while processes are
// killed at random and started again.
func storm(ctx context.Context, r *runner) error {
	if r.calls == 0 {
		return nil
	}
	if err := r.endLoad(); err != nil {
		return err
	}
	by := everyone(mesh.Generate{Calls: r.calls, Workers: 12})
	retry, hedge := by["runner-acme"], by["runner-globex"]
	retry.Retry, hedge.Hedge = true, 50*time.Millisecond
	by["runner-acme"], by["runner-globex"] = retry, hedge
	load, err := r.m.StartLoad(ctx, mesh.Load{Name: "while processes are killed", By: by})
	if err != nil {
		return err
	}
	kills := 0
	for over := false; !over; {
		select {
		case <-load.Done():
			over = true
		default:
			c := load.Counts()
			r.out.progress("%d of %d calls, %d of %d kills, %d refused, %d wrong", c.Calls, r.calls, kills, r.kills, c.Refused, c.Wrong)
			// Evenly over the first nine tenths of the load.
			if kills >= r.kills || c.Calls < r.calls*9/10*uint64(kills)/uint64(r.kills) { //nolint:gosec // not negative
				if err := hold(ctx, 50*time.Millisecond); err != nil {
					return err
				}
				continue
			}
			p := r.m.Process(victims[rand.IntN(len(victims))]) //nolint:gosec // any will do
			mended := load.Break()
			if err := p.Kill(); err != nil {
				return err
			}
			if err := p.Start(ctx); err != nil {
				return err
			}
			mended()
			kills++
		}
	}
	counts := load.Counts()
	result, err := load.Wait()
	if err != nil {
		return err
	}
	r.loaded(result)
	var against []string
	if kills < r.kills {
		against = append(against, fmt.Sprintf("only %d of %d processes were killed before the load was over", kills, r.kills))
	}
	part := func(name string) float64 {
		return 100 * float64(counts.RefusedTo[name]) / float64(max(counts.By[name], 1))
	}
	r.check("processes killed and started again", against, "%d kills; failed calls: %.2f %% without retries (gateway), %.2f %% with retries by service config (runner-acme), %.2f %% hedged by the application (runner-globex), %.2f %% of the partner's",
		kills, part("gateway"), part("runner-acme"), part("runner-globex"), part("partner"))
	return nil
}
