package audit

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// recordTimeout bounds the recording of one event.
const recordTimeout = 5 * time.Second

// Recorder makes decisions into events and hands them to a [Sink], which has
// five seconds for each. A caller who gives up does not stop the recording. The zero
// Recorder has no sink, so it allows nothing.
type Recorder struct {
	// Sink takes the events.
	Sink Sink
	// Clock tells their time; nil stands for [time.Now].
	Clock func() time.Time
	// Logger takes refusals that could not be recorded; nil stands for [slog.Default].
	Logger *slog.Logger
}

// Allow records that what e describes is allowed. It fails with
// [tenant.AuditUnavailable], and then it is not allowed.
func (r Recorder) Allow(ctx context.Context, e Event) error {
	e.Allowed = true
	if _, err := r.record(ctx, e); err != nil {
		return tenant.Deny(tenant.AuditUnavailable, "%w", err)
	}
	return nil
}

// Observe records that what e describes is denied because of why, and that
// this is not enforced. It fails as Allow does.
func (r Recorder) Observe(ctx context.Context, e Event, why *tenant.Error) error {
	e.Observe = true
	if _, err := r.record(ctx, e.denied(why)); err != nil {
		return tenant.Deny(tenant.AuditUnavailable, "%w", err)
	}
	return nil
}

func (e Event) denied(why *tenant.Error) Event {
	e.Allowed, e.Reason, e.Detail = false, why.Reason, why.Error()
	e.Rule = cmp.Or(why.Rule, e.Rule)
	return e
}

// Refuse records that what e describes is refused because of why, and returns
// the event's DecisionID, which is new unless e has one. What cannot be recorded
// is logged, and refused all the same.
func (r Recorder) Refuse(ctx context.Context, e Event, why *tenant.Error) (decisionID string) {
	e = e.denied(why)
	id, err := r.record(ctx, e)
	if err != nil {
		cmp.Or(r.Logger, slog.Default()).ErrorContext(ctx, "tenantmesh: a refusal could not be recorded",
			"reason", string(e.Reason), "decision_id", id, "err", err)
	}
	return id
}

func (r Recorder) record(ctx context.Context, e Event) (decisionID string, err error) {
	now := time.Now
	if r.Clock != nil {
		now = r.Clock
	}
	e.Time, e.DecisionID = now(), cmp.Or(e.DecisionID, rand.Text())
	if r.Sink == nil {
		return e.DecisionID, errors.New("no sink")
	}
	p := &patience{values: context.WithoutCancel(ctx), until: time.Now().Add(recordTimeout)}
	defer p.end()
	return e.DecisionID, r.Sink.Record(p, e)
}

// patience is what [context.WithDeadline] would make of values, made once a
// sink waits for its end: most do not.
type patience struct {
	values context.Context
	until  time.Time

	mu     sync.Mutex
	ctx    context.Context
	cancel context.CancelFunc
}

func (p *patience) made() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx == nil {
		p.ctx, p.cancel = context.WithDeadline(p.values, p.until)
	}
	return p.ctx
}

// end ends it, though a sink may hold on to it.
func (p *patience) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx == nil {
		p.ctx, p.cancel = ended, func() {}
	}
	p.cancel()
}

var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func (p *patience) Deadline() (time.Time, bool) { return p.until, true }
func (p *patience) Done() <-chan struct{}       { return p.made().Done() }
func (p *patience) Err() error                  { return p.made().Err() }
func (p *patience) Value(key any) any           { return p.values.Value(key) }
