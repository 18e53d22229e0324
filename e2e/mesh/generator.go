package mesh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/interceptors"
	meshv1 "github.com/tenantmesh/tenantmesh/internal/testproto/mesh/v1"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Generate is what one workload does for a load: it originates contexts for its
// Tenants by turns at random, and calls all that it calls.
type Generate struct {
	// Calls is how many; 0 is until it is stopped.
	Calls uint64
	// Rate is in calls a second; 0 is as fast as it goes.
	Rate float64
	// Workers is how many call at once; 0 stands for 8.
	Workers int
	// Timeout is a call's deadline; 0 stands for 5 seconds.
	Timeout time.Duration
	// Retry has gRPC retry what is UNAVAILABLE, by service config. Hedge sends a
	// call that has no answer within this time a second time, and takes the
	// first answer; 0 does not.
	Retry bool
	Hedge time.Duration
	// Depth is how far callees call on at most, of which one call in five makes
	// use, and one in five of one less; the others go no further.
	Depth uint32
	// To limits whom it calls; "" is all. Shapes limits the shapes; nil is all,
	// seven of ten calls unary. Tenants limits the tenants; nil is all.
	To      string
	Shapes  []Shape
	Tenants []string
}

// Refusal is a call that failed with a status.
type Refusal struct {
	Began, Ended time.Time
	// Key is the status code, and the reason if there was one.
	Key string
	// Text is what the caller was told.
	Text string
}

// Progress is what happened since it was asked for last.
type Progress struct {
	Calls, Right, Wrong uint64
	Refusals            []Refusal
	Latency             map[Shape]*Histogram
	Details             []string // of what is wrong
	Running             int      // workers
}

// driver is the receiver of what the mesh asks of a node.
type driver struct {
	ctx context.Context
	n   *node

	mu      sync.Mutex
	gen     *generator
	streams *streams
}

// Generate starts a load.
func (d *driver) Generate(g Generate, _ *None) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gen != nil && d.gen.running.Load() > 0 {
		return errors.New("a load is generated already")
	}
	gen, err := d.n.generate(d.ctx, g)
	d.gen = gen
	return err
}

// Progress returns what happened since.
func (d *driver) Progress(_ None, reply *Progress) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gen == nil {
		return errors.New("no load is generated")
	}
	*reply = d.gen.progress()
	return nil
}

// StopLoad ends a load: calls that run go on to their end.
func (d *driver) StopLoad(None, *None) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gen != nil {
		d.gen.stop()
		d.gen.workers.Wait()
	}
	return nil
}

// Redirect is where a workload is to be reached from now on.
type Redirect struct{ To, Addr string }

// Redirect has the node's connections to a workload lead elsewhere; an empty
// address is the workload's own.
func (d *driver) Redirect(r Redirect, _ *None) error {
	t := d.n.targets[r.To]
	if t == nil {
		return fmt.Errorf("%q is not called", r.To)
	}
	if r.Addr == "" {
		r.Addr = t.peer.Addr
	}
	t.resolver.UpdateState(at(r.Addr))
	return nil
}

// One makes one call and says what came of it: "" if it was right.
func (d *driver) One(g Generate, key *string) error {
	gen := d.n.newGenerator(d.ctx, g)
	if len(gen.choices) == 0 {
		return errors.New("nobody to call")
	}
	c := gen.choices[0]
	c.depth = g.Depth
	ctx, err := d.n.originate(d.ctx, c.tenant)
	if err == nil {
		var a *meshv1.Answer
		if a, err = gen.call(ctx, c, "one"); err == nil {
			err = gen.check(c, "one", a)
		}
	}
	if err != nil {
		*key = keyOf(err)
	}
	return nil
}

// generator generates a load.
type generator struct {
	n       *node
	g       Generate
	ctx     context.Context
	stop    context.CancelFunc
	choices []choice
	began   time.Time
	taken   atomic.Uint64
	running atomic.Int32
	workers sync.WaitGroup

	mu  sync.Mutex
	has Progress
}

// choice is one kind of call.
type choice struct {
	t      *target
	tenant string
	shape  Shape
	depth  uint32
}

func (n *node) newGenerator(ctx context.Context, g Generate) *generator {
	gen := &generator{n: n, g: g, began: time.Now(), has: Progress{Latency: map[Shape]*Histogram{}}}
	gen.ctx, gen.stop = context.WithCancel(ctx)
	if gen.g.Timeout == 0 {
		gen.g.Timeout = 5 * time.Second
	}
	if gen.g.Workers == 0 {
		gen.g.Workers = 8
	}
	tenants := n.env.Workload.Tenants
	if g.Tenants != nil {
		tenants = slices.DeleteFunc(slices.Clone(tenants), func(t string) bool { return !slices.Contains(g.Tenants, t) })
	}
	for _, c := range n.env.Workload.Calls {
		for _, tenant := range tenants {
			if (g.To == "" || g.To == c.To) && c.For(tenant) {
				gen.choices = append(gen.choices, choice{t: n.targets[c.To], tenant: tenant, shape: Unary})
			}
		}
	}
	if len(g.Shapes) > 0 {
		for i := range gen.choices {
			gen.choices[i].shape = g.Shapes[0]
		}
	}
	return gen
}

func (n *node) generate(ctx context.Context, g Generate) (*generator, error) {
	gen := n.newGenerator(ctx, g)
	if len(gen.choices) == 0 {
		return nil, errors.New("nobody to call")
	}
	gen.running.Store(int32(gen.g.Workers)) //nolint:gosec // few
	for i := range gen.g.Workers {
		gen.workers.Go(func() {
			defer gen.running.Add(-1)
			gen.work(i)
		})
	}
	return gen, nil
}

// choose chooses a call at random.
func (gen *generator) choose() choice {
	c := gen.choices[rand.IntN(len(gen.choices))] //nolint:gosec // a load
	switch k := rand.IntN(10); {                  //nolint:gosec // a load
	case len(gen.g.Shapes) > 0:
		c.shape = gen.g.Shapes[k%len(gen.g.Shapes)]
	case k < 3:
		c.shape = Shapes[1+k]
	default:
		c.shape = Unary
	}
	switch k := rand.IntN(5); { //nolint:gosec // a load
	case k == 0:
		c.depth = gen.g.Depth
	case k == 1 && gen.g.Depth > 0:
		c.depth = gen.g.Depth - 1
	}
	return c
}

// reuse is for how many calls an originated context is used.
const reuse = 16

type originated struct {
	ctx  context.Context
	left int
}

func (gen *generator) work(worker int) {
	contexts := map[string]*originated{}
	pause := leastPause
	for gen.ctx.Err() == nil {
		i := gen.taken.Add(1)
		if gen.g.Calls > 0 && i > gen.g.Calls {
			return
		}
		if gen.g.Rate > 0 && !gen.wait(time.Until(gen.began.Add(time.Duration(float64(i)/gen.g.Rate*float64(time.Second))))) {
			return
		}
		c := gen.choose()
		began := time.Now()
		err := gen.one(worker, i, c, contexts)
		gen.account(c, began, err)
		if err == nil {
			pause = leastPause
			continue
		}
		if !gen.wait(pause) {
			return
		}
		pause = min(2*pause, mostPause)
	}
}

// The pauses after a call that failed, growing from one to the other, as a client
// makes them who does not want to be a nuisance.
const leastPause, mostPause = 10 * time.Millisecond, 160 * time.Millisecond

// wait waits. It is false when the load is over.
func (gen *generator) wait(d time.Duration) bool {
	due := time.NewTimer(d)
	defer due.Stop()
	select {
	case <-due.C:
		return true
	case <-gen.ctx.Done():
		return false
	}
}

func (gen *generator) one(worker int, i uint64, c choice, contexts map[string]*originated) error {
	o := contexts[c.tenant]
	if o == nil || o.left == 0 {
		ctx, err := gen.n.originate(context.WithoutCancel(gen.ctx), c.tenant)
		if err != nil {
			return err
		}
		o = &originated{ctx, reuse}
		contexts[c.tenant] = o
	}
	o.left--
	id := fmt.Sprintf("%s-%d-%d", gen.n.env.Workload.Name, worker, i)
	a, err := gen.call(o.ctx, c, id)
	if err != nil {
		delete(contexts, c.tenant)
		return err
	}
	return gen.check(c, id, a)
}

// originate starts a chain for a tenant.
func (n *node) originate(ctx context.Context, name string) (context.Context, error) {
	t, err := tenant.ParseID(name)
	if err != nil {
		return nil, err
	}
	return n.guard.Originate(ctx, &hop.Claims{Tenant: t, Subject: "user:" + n.env.Workload.Name, Scopes: []string{"orders.read"}})
}

// call makes a call as the load asks.
func (gen *generator) call(ctx context.Context, c choice, id string) (*meshv1.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, gen.g.Timeout)
	defer cancel()
	cc := c.t.plain
	if gen.g.Retry {
		cc = c.t.retrying
	}
	w := &meshv1.Work{Id: id, TenantId: c.tenant, Depth: c.depth}
	if gen.g.Hedge == 0 {
		return c.t.do(ctx, cc, c.shape, w)
	}
	return gen.hedged(ctx, c, cc, w)
}

// hedged makes a call, and another one if that takes long or fails.
func (gen *generator) hedged(ctx context.Context, c choice, cc *grpc.ClientConn, w *meshv1.Work) (*meshv1.Answer, error) {
	type outcome struct {
		a   *meshv1.Answer
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the one that is late
	outcomes := make(chan outcome, 2)
	send := func() {
		a, err := c.t.do(ctx, cc, c.shape, w)
		outcomes <- outcome{a, err}
	}
	go send()
	again := time.NewTimer(gen.g.Hedge)
	defer again.Stop()
	for sent := 1; ; {
		select {
		case o := <-outcomes:
			if sent--; o.err == nil || sent == 0 && !again.Stop() {
				return o.a, o.err
			}
			if sent == 0 { // it failed before the other was sent
				sent++
				go send()
			}
		case <-again.C:
			sent++
			go send()
		}
	}
}

// errWrong is an answer that is not that of the call or of its tenant.
var errWrong = errors.New("wrong")

// check says whether the answer is that of the call: all who handled it are
// those that the description says, each saw the tenant of the call, the path
// of the call and nothing else, and gave of what it keeps what is the tenant's.
func (gen *generator) check(c choice, id string, a *meshv1.Answer) error {
	env := gen.n.env
	var want []string
	expect(env, &want, c.t.To, c.tenant, c.depth, []string{env.ID})
	var got []string
	for _, v := range a.GetVisits() {
		got = append(got, visitText(v.GetWorkload(), v.GetTenant(), v.GetRecord(), v.GetPath()))
	}
	if a.GetId() == id && a.GetTenantId() == c.tenant && slices.Equal(got, want) {
		return nil
	}
	return fmt.Errorf("%w: called for %s with %s, answered for %s with %s by\n%s\ninstead of\n%s", errWrong,
		c.tenant, id, a.GetTenantId(), a.GetId(), strings.Join(got, "\n"), strings.Join(want, "\n"))
}

func visitText(workload, tenantID, record string, path []string) string {
	return workload + " for " + tenantID + " with " + record + " by way of " + strings.Join(path, " → ")
}

// expect adds the visits that a call has.
func expect(env *Env, out *[]string, workload, tenantID string, depth uint32, path []string) {
	*out = append(*out, visitText(workload, tenantID, record(env.Seed, workload, tenantID), path))
	if depth == 0 {
		return
	}
	p := env.Peers[workload]
	if p.Anew {
		path = nil
	}
	for _, c := range p.Calls {
		if c.For(tenantID) {
			expect(env, out, c.To, tenantID, depth-1, append(slices.Clone(path), p.ID))
		}
	}
}

// keyOf is the status code, and the reason if there is one.
func keyOf(err error) string {
	err = interceptors.Status(err)
	key := status.Code(err).String()
	if r := interceptors.ReasonOf(err); r != "" {
		key += " " + string(r)
	}
	return key
}

// maxDetails is how many of what is wrong are kept.
const maxDetails = 20

func (gen *generator) account(c choice, began time.Time, err error) {
	ended := time.Now()
	gen.mu.Lock()
	defer gen.mu.Unlock()
	p := &gen.has
	p.Calls++
	switch {
	case err == nil:
		p.Right++
		if p.Latency[c.shape] == nil {
			p.Latency[c.shape] = &Histogram{}
		}
		p.Latency[c.shape].Add(ended.Sub(began))
	case errors.Is(err, errWrong) || status.Code(err) == codes.DataLoss:
		p.Wrong++
		if len(p.Details) < maxDetails {
			p.Details = append(p.Details, err.Error())
		}
	default:
		p.Refusals = append(p.Refusals, Refusal{Began: began, Ended: ended, Key: keyOf(err),
			Text: fmt.Sprintf("%s for %s, depth %d: %v", c.shape, c.tenant, c.depth, err)})
	}
}

func (gen *generator) progress() Progress {
	running := int(gen.running.Load()) // before what they did is looked at
	gen.mu.Lock()
	defer gen.mu.Unlock()
	out := gen.has
	out.Running = running
	gen.has = Progress{Latency: map[Shape]*Histogram{}}
	return out
}
