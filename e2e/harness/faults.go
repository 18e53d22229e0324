package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenantmesh/tenantmesh/e2e/mesh"
)

// breakage is a fault while it is run.
type breakage struct {
	*runner
	began, ended time.Time // of what was broken; zero unless it was
	mend         func()
	against      []string // why it did not pass
	notes        []string
}

// broke says that calls may fail from now on, until mended.
func (b *breakage) broke() {
	if b.began.IsZero() {
		b.began = time.Now()
	}
	b.mend = b.load.Break()
}

// mended says that what was broken is whole again.
func (b *breakage) mended() {
	b.mend()
	b.ended = time.Now()
}

func (b *breakage) wrong(format string, args ...any) {
	b.against = append(b.against, fmt.Sprintf(format, args...))
}

func (b *breakage) note(format string, args ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}

// fault runs a fault behind which a load goes on, and reports what it cost. What
// f says to be broken must be mended and well again at its end.
func fault(name, what string, f func(context.Context, *breakage) error) step {
	return step{"fault " + name, func(ctx context.Context, r *runner) error {
		if err := r.startLoad(ctx); err != nil {
			return err
		}
		r.out.progress("fault %s", name)
		b := &breakage{runner: r}
		began, before := time.Now(), r.load.Counts()
		err := f(ctx, b)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			b.wrong("%v", err)
		}
		if !b.began.IsZero() && b.ended.IsZero() {
			b.mended()
		}
		if err := b.well(ctx); err != nil {
			return err
		}
		cost := r.load.Counts().Since(before)
		if b.began.IsZero() { // nothing was to be noticed
			b.began, b.ended = began, time.Now()
			if cost.Refused > 0 {
				b.wrong("%d calls failed, though none had to: %s", cost.Refused, list(cost.Refusals))
			}
		}
		if cost.Wrong > 0 {
			b.wrong("%d answers were wrong", cost.Wrong)
		}
		result := mesh.FaultResult{
			Name: name, What: what, Began: b.began.Sub(r.began), Lasted: b.ended.Sub(b.began),
			Recovered: max(r.load.Counts().LastRefusal.Sub(b.ended), 0),
			Calls:     cost.Calls, Failed: cost.Refused, Refusals: cost.Refusals,
			Passed: len(b.against) == 0, Detail: strings.Join(slices.Concat(b.against, b.notes), "; "),
		}
		if cost.Refused == 0 {
			result.Recovered = 0
		}
		r.report.Faults = append(r.report.Faults, result)
		text := fmt.Sprintf("%s: lasted %s, %d of %d calls failed", what, result.Lasted.Round(100*time.Millisecond), result.Failed, result.Calls)
		if result.Failed > 0 {
			text += fmt.Sprintf(" (%s), the last %s after its end", list(result.Refusals), result.Recovered.Round(10*time.Millisecond))
		}
		if result.Detail != "" {
			text += "; " + result.Detail
		}
		r.out.result(result.Passed, "fault "+name, text)
		return nil
	}}
}

// quiet is how long no call must fail for all to be well.
const quiet = time.Second

// well waits until no call fails any longer.
func (b *breakage) well(ctx context.Context) error {
	since := time.Now()
	late := since.Add(30 * time.Second)
	right := b.load.Counts().Right
	err := until(ctx, func() (bool, error) {
		c := b.load.Counts()
		if time.Now().After(late) {
			b.wrong("not all is well 30 s later: %s", list(c.Refusals))
			return true, nil
		}
		last := c.LastRefusal
		if last.Before(since) {
			last = since
		}
		return time.Since(last) > quiet && c.Right > right, nil
	})
	return err
}

// hold lets the load go on for a while.
func hold(ctx context.Context, d time.Duration) error {
	end := time.NewTimer(d)
	defer end.Stop()
	select {
	case <-end.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// until asks again and again, until ok or an error. ctx bounds it.
func until(ctx context.Context, ok func() (bool, error)) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if done, err := ok(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// within is until, for at most d.
func within(ctx context.Context, d time.Duration, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d, fmt.Errorf("within %s not %s", d, what))
	defer cancel()
	return until(ctx, ok)
}

// refused waits until calls are refused with one of the keys, by a part of their text.
func (b *breakage) refused(ctx context.Context, before mesh.Counts, d time.Duration, keys ...string) error {
	return within(ctx, d, "refused with "+strings.Join(keys, " or "), func() (bool, error) {
		for key := range b.load.Counts().Since(before).Refusals {
			if slices.ContainsFunc(keys, func(want string) bool { return strings.Contains(key, want) }) {
				return true, nil
			}
		}
		return false, nil
	})
}

// spared adds it to what is wrong if calls of the workloads failed.
func (b *breakage) spared(before mesh.Counts, names ...string) {
	cost := b.load.Counts().Since(before)
	for _, name := range names {
		if n := cost.RefusedTo[name]; n > 0 {
			b.wrong("%d calls of %s failed, which has nothing to do with it", n, name)
		}
	}
}

// one makes one call and returns its status code and reason, "" if it was right.
func (r *runner) one(ctx context.Context, from string, g mesh.Generate) (key string, err error) {
	err = r.m.Process(from).Ask(ctx, "One", g, &key)
	return key, err
}

// is makes one call and adds it to what is wrong unless it ends with the key.
func (b *breakage) is(ctx context.Context, from string, g mesh.Generate, want string) {
	if got, err := b.one(ctx, from, g); err != nil || got != want {
		b.wrong("a call of %s ended with %q, %v, instead of %q", from, got, err, want)
	}
}
