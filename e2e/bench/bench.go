package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// effort is how much is measured.
type effort struct {
	rounds   int           // through all variants: machines have better and worse minutes
	pairs    int           // of slices, per variant and round
	slice    time.Duration // of each
	contexts int           // distinct ones against one server
	only     *regexp.Regexp
}

var (
	whole = effort{rounds: 3, pairs: 17, slice: 100 * time.Millisecond, contexts: 100_000, only: regexp.MustCompile("")}
	// short takes about a minute.
	short = effort{rounds: 1, pairs: 7, slice: 40 * time.Millisecond, contexts: 15_000, only: whole.only}
)

// cryptoSlice is how long a signature, and a verification, is measured in each pair.
const cryptoSlice = 5 * time.Millisecond

// bench is the driver's state.
type bench struct {
	effort
	sockets map[string]string
	key     []byte
	log     io.Writer
}

// measure measures all that the effort has, and reports progress to log.
func measure(ctx context.Context, e effort, log io.Writer) (_ *Report, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	domain, err := devdomain.New(devdomain.Config{TrustDomain: trustDomain, Dir: dir, TTL: 3 * life})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, domain.Close()) }()
	b := &bench{effort: e, sockets: map[string]string{}, log: log}
	for _, name := range workloads {
		w, err := domain.Workload(spiffeID(name))
		if err != nil {
			return nil, err
		}
		b.sockets[name] = w.Addr()
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if b.key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, err
	}
	r := &Report{Machine: thisMachine()}
	var all []*series
	for i := range variants {
		v := &variants[i]
		for _, n := range v.concurrency {
			if s := (&series{variant: v, concurrency: n}); e.only.MatchString(s.String()) {
				all = append(all, s)
			}
		}
	}
	for round := range e.rounds {
		for _, s := range all {
			if err := b.measure(ctx, s); err != nil {
				return nil, fmt.Errorf("%s: %w", s, err)
			}
			fmt.Fprintf(b.log, "%d/%d  %-28s %.3f\n", round+1, e.rounds, s, ratios(s.pairs[round*e.pairs:]).Median)
		}
	}
	for _, s := range all {
		r.add(s.variant, s.concurrency, s.pairs)
		if s.bounded != nil {
			r.figure(boundFigure, 1, median(s.bounded))
		}
		if s.first != nil {
			r.figure(firstFigure, 1, median(s.first))
		}
	}
	r.compare()
	if e.only.MatchString("memory") {
		if err := b.memory(ctx, r); err != nil {
			return nil, fmt.Errorf("memory: %w", err)
		}
	}
	return r, nil
}

// couple is the two processes of a variant.
type couple struct{ client, server *process }

// start starts both, connected. They end by way of stop, or with ctx.
func (b *bench) start(ctx context.Context, v *variant, concurrency int) (_ *couple, err error) {
	c := &couple{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	s := Setup{
		Sockets: b.sockets, Server: v.server, Load: v.load, Baseline: v.baseline,
		Concurrency: concurrency, Unbatched: v.unbatched, TokenKey: b.key,
	}
	if s.Baseline == "" {
		s.Baseline = "plain"
	}
	if c.server, err = start(ctx, serverRole, b.log); err != nil {
		return nil, err
	}
	var addrs Addrs
	if err := c.server.ask(ctx, "Setup", s, &addrs); err != nil {
		return nil, err
	}
	s.FloorAddr, s.VariantAddr = addrs.Floor, addrs.Variant
	if c.client, err = start(ctx, clientRole, b.log); err != nil {
		return nil, err
	}
	return c, c.client.ask(ctx, "Setup", s, nil)
}

func (c *couple) stop() (err error) {
	for _, p := range []*process{c.client, c.server} {
		if p != nil {
			err = errors.Join(err, p.stop())
		}
	}
	return err
}

// slice measures a slice in both processes.
func (c *couple) slice(ctx context.Context, isVariant bool, d time.Duration) (m Measured, err error) {
	var before, after Sample
	if err := c.server.ask(ctx, "Sample", true, &before); err != nil {
		return m, err
	}
	if err := c.client.ask(ctx, "Run", Slice{isVariant, d}, &m); err != nil {
		return m, err
	}
	if err := c.server.ask(ctx, "Sample", false, &after); err != nil {
		return m, err
	}
	m.Server = after.since(before)
	return m, nil
}

// pair measures a slice of the floor and one of the variant, in either order.
func (c *couple) pair(ctx context.Context, variantFirst bool, d time.Duration) (p pair, err error) {
	for _, isVariant := range []bool{variantFirst, !variantFirst} {
		m, err := c.slice(ctx, isVariant, d)
		if err != nil {
			return p, err
		}
		if isVariant {
			p.variant = m
		} else {
			p.floor = m
		}
	}
	return p, nil
}

// crypto returns the time of a signature at the client and of a verification at
// the server.
func (c *couple) crypto(ctx context.Context) (time.Duration, error) {
	var sign, verify time.Duration
	if err := c.client.ask(ctx, "Sign", cryptoSlice, &sign); err != nil {
		return 0, err
	}
	err := c.server.ask(ctx, "Verify", cryptoSlice, &verify)
	return sign + verify, err
}

// limit is how long the processes of one variant may live.
const limit = 10 * time.Minute

// series is what was measured of a variant.
type series struct {
	variant     *variant
	concurrency int
	pairs       []pair
	bounded     []float64 // multiples of what can not be less
	first       []float64 // bytes of a first call
}

func (s *series) String() string { return fmt.Sprintf("%s/%d", s.variant.name, s.concurrency) }

// measure measures a variant in slices that alternate with slices of the floor.
func (b *bench) measure(ctx context.Context, s *series) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := b.start(ctx, s.variant, s.concurrency)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	for i := -1; i < b.pairs; i++ {
		p, err := c.pair(ctx, i%2 == 0, b.slice)
		if err != nil {
			return err
		}
		if i < 0 { // to warm up
			continue
		}
		s.pairs = append(s.pairs, p)
		if s.variant.name == "fresh" && s.concurrency == 1 {
			crypto, err := c.crypto(ctx)
			if err != nil {
				return err
			}
			s.bounded = append(s.bounded, p.variant.time()/float64(p.floor.PerCall+crypto))
		}
	}
	if s.variant.load == "depth3-warm" && s.concurrency == 1 {
		var bytes float64
		if err := c.client.ask(ctx, "First", 5, &bytes); err != nil {
			return err
		}
		s.first = append(s.first, bytes)
	}
	return nil
}

// floodConnections are as many as fill all that a server keeps.
const floodConnections = 16

// memory measures the server's heap under distinct contexts.
func (b *bench) memory(ctx context.Context, r *Report) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// A server keeps what comes again.
	c, err := b.start(ctx, &variant{server: "guard", load: "fresh-twice"}, 32)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	// heap returns the server's after so many more contexts.
	heap := func(contexts, connections int) (float64, error) {
		if err := c.client.ask(ctx, "Flood", Flood{contexts, connections}, nil); err != nil {
			return 0, err
		}
		var s Sample
		err := c.server.ask(ctx, "Sample", true, &s)
		return float64(s.Heap), err
	}
	before, err := heap(floodConnections, floodConnections)
	if err != nil {
		return err
	}
	const some = 1000 // less than a connection may keep
	kept, err := heap(some, 1)
	if err != nil {
		return err
	}
	after, err := heap(b.contexts, floodConnections)
	if err != nil {
		return err
	}
	r.figure(contextFigure, 0, (kept-before)/some)
	r.figure(growthFigure, 0, (after-before)/(1<<20))
	r.Distinct = b.contexts
	fmt.Fprintf(b.log, "memory: %.0f B per context, %.1f MiB for %d\n", (kept-before)/some, (after-before)/(1<<20), b.contexts)
	return nil
}

// compare adds the figures that follow from variants.
func (r *Report) compare() {
	for _, v := range r.Variants {
		if base, ok := strings.CutSuffix(v.Name, "-unbatched"); ok {
			if other := r.variant(base, v.Concurrency); other != nil {
				r.figure(base+unbatchedFigure, v.Concurrency, other.Ratio/v.Ratio)
			}
		}
	}
	for _, n := range nearest {
		v, least := r.variant(n.name, n.concurrency), r.variant(n.limit, n.concurrency)
		if v != nil && least != nil {
			r.figure(n.name+" ÷ "+n.limit, n.concurrency, v.Ratio/least.Ratio)
		}
	}
	if w := r.variant("warm", 1); w != nil {
		r.figure(allocFigure, 1, w.AddedAllocsClient+w.AddedAllocsServer-recordingMallocs())
		r.figure(bytesFigure, 1, w.AddedBytes)
	}
	if d := r.variant("depth3-warm", 1); d != nil {
		r.figure(bytes3Figure, 1, d.AddedBytes)
	}
}
