package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/tenantmesh/tenantmesh/svid"
)

// Client is the process that calls.
type Client struct {
	setup          Setup
	key            *ecdsa.PrivateKey
	wire           wire
	floor, variant side
	// clock is that of the variant's guard; paused is when it was measured last.
	clock  clock
	paused time.Time
	// budget is how many calls of the variant are prepared for a slice.
	budget  int
	flooded []*grpc.ClientConn
}

// side is one of the two servers, as the client calls it.
type side struct {
	*load
	addr string
	opts []grpc.DialOption
	cc   *grpc.ClientConn
}

// Bounds of a slice, beside its time.
const (
	mostCalls    = 1 << 20
	mostPrepared = 8000
)

// Setup connects to the server.
func (c *Client) Setup(setup Setup, _ *struct{}) error {
	ctx := context.Background()
	c.setup, c.budget, c.paused = setup, 8*setup.Concurrency, time.Now()
	var err error
	if c.key, err = parseKey(setup.TokenKey); err != nil {
		return err
	}
	c.floor.addr, c.variant.addr = setup.FloorAddr, setup.VariantAddr
	if c.variant.load, err = setup.load(ctx, setup.Load, minter{c.key}, &c.clock); err != nil {
		return err
	}
	if c.floor.load, err = setup.load(ctx, setup.Baseline, minter{c.key}, &c.clock); err != nil {
		return err
	}
	// The floor is called with the variant's identity.
	src, err := setup.source(ctx, c.variant.workload)
	if err != nil {
		return err
	}
	expect := svid.Expect(spiffeID("target"))
	for _, s := range []*side{&c.floor, &c.variant} {
		if s.guard != nil {
			s.opts = s.guard.DialOptions(expect)
		} else {
			s.opts = append(s.load.opts, grpc.WithTransportCredentials(svid.NewClientCredentials(src, expect)))
		}
		if s.cc, err = c.dial(ctx, s); err != nil {
			return err
		}
		if s.open != nil {
			if err := s.open(s.cc); err != nil {
				return err
			}
		}
	}
	return nil
}

// dial opens a connection whose bytes are counted, and waits until it is ready.
func (c *Client) dial(ctx context.Context, s *side) (*grpc.ClientConn, error) {
	cc, err := grpc.NewClient("passthrough:"+s.addr, append(s.opts, grpc.WithContextDialer(c.wire.dial))...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cc.Connect()
	for state := cc.GetState(); state != connectivity.Ready; state = cc.GetState() {
		if !cc.WaitForStateChange(ctx, state) {
			return nil, fmt.Errorf("the connection to %s is %s", s.addr, state)
		}
	}
	return cc, nil
}

// Slice is what is to be measured.
type Slice struct {
	Variant bool // or the floor
	For     time.Duration
}

// Run measures a slice. It ends when its time is over or its calls are used up.
func (c *Client) Run(in Slice, out *Measured) error {
	s := &c.floor
	if in.Variant {
		s = &c.variant
	}
	most := mostCalls
	if s.prepare != nil {
		most = c.budget
		if err := s.prepare(most); err != nil {
			return err
		}
	}
	collect()
	before, err := takeSample()
	if err != nil {
		return err
	}
	bytes := c.wire.bytes.Load()
	if in.Variant {
		c.clock.skip(time.Since(c.paused))
		defer func() { c.paused = time.Now() }()
	}
	dry, err := s.run(c.setup.Concurrency, most, in.For, out)
	if err != nil {
		return err
	}
	out.Bytes = c.wire.bytes.Load() - bytes
	after, err := takeSample()
	if err != nil {
		return err
	}
	out.Client = after.since(before)
	if s.prepare != nil {
		c.budget = out.Calls*5/4 + c.setup.Concurrency
		if dry {
			c.budget = 2 * most
		}
		c.budget = min(c.budget, mostPrepared)
	}
	return nil
}

// run makes calls, and takes the time of those between a tenth of d after the
// start and the end, so that neither counts. It says whether the calls were
// used up before the time was.
func (s *side) run(workers, most int, d time.Duration, out *Measured) (dry bool, err error) {
	var next, done atomic.Int64
	var stop atomic.Bool
	over := make(chan struct{})
	end := sync.OnceFunc(func() { close(over) })
	errs := make([]error, workers)
	start := time.Now()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			defer end()
			for !stop.Load() {
				i := int(next.Add(1)) - 1
				if i >= most {
					return
				}
				if errs[w] = s.call(s.cc, w, i); errs[w] != nil {
					return
				}
				done.Add(1)
			}
		})
	}
	timer := time.NewTimer(d / 10)
	defer timer.Stop()
	// lasted waits for the timer and says whether the calls lasted until then.
	lasted := func() bool {
		select {
		case <-timer.C:
			return true
		case <-over:
			return false
		}
	}
	from, first := start, int64(0)
	full := lasted()
	if full {
		from, first = time.Now(), done.Load()
		timer.Reset(d)
		full = lasted()
	}
	took, calls := time.Since(from), done.Load()-first
	stop.Store(true)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return false, err
	}
	if calls == 0 { // a call takes longer than the slice
		took, calls = time.Since(start), done.Load()
	}
	out.Calls, out.PerCall = int(done.Load()), took/time.Duration(calls)
	return !full, nil
}

// Sign says how long one P-256 signature takes, tried for d.
func (c *Client) Sign(d time.Duration, out *time.Duration) (err error) {
	digest := sha256.Sum256([]byte("a statement"))
	*out, err = pace(d, func() error {
		_, err := ecdsa.SignASN1(rand.Reader, c.key, digest[:])
		return err
	})
	return err
}

// First says how many bytes more than the floor's the first call on a
// connection takes: the median of n.
func (c *Client) First(n int, out *float64) error {
	first := func(s *side) (int64, error) {
		cc, err := c.dial(context.Background(), s)
		if err != nil {
			return 0, err
		}
		defer cc.Close()
		before := c.wire.bytes.Load()
		err = s.call(cc, 0, 0)
		return c.wire.bytes.Load() - before, err
	}
	more := make([]float64, n)
	for i := range more {
		floor, err := first(&c.floor)
		if err != nil {
			return err
		}
		variant, err := first(&c.variant)
		if err != nil {
			return err
		}
		more[i] = float64(variant - floor)
	}
	*out = median(more)
	return nil
}

// Flood is how many distinct contexts to send over how many connections.
type Flood struct{ Contexts, Connections int }

// Flood sends distinct contexts. Their connections stay open for the next.
func (c *Client) Flood(in Flood, _ *struct{}) error {
	for len(c.flooded) < in.Connections {
		cc, err := c.dial(context.Background(), &c.variant)
		if err != nil {
			return err
		}
		c.flooded = append(c.flooded, cc)
	}
	l := *c.variant.load
	l.call = func(_ *grpc.ClientConn, worker, i int) error {
		return c.variant.call(c.flooded[i%in.Connections], worker, i)
	}
	s := side{load: &l}
	all, err := s.run(c.setup.Concurrency, in.Contexts, 5*time.Minute, new(Measured))
	if err == nil && !all {
		err = errors.New("too slow to send them all")
	}
	return err
}
