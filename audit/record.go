package audit

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
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
	now := time.Now()
	if e.Time = now; r.Clock != nil {
		e.Time = r.Clock()
	}
	if e.DecisionID == "" {
		e.DecisionID = newDecisionID()
	}
	if r.Sink == nil {
		return e.DecisionID, errors.New("no sink")
	}
	p := &patience{of: ctx, until: now.Add(recordTimeout)}
	defer p.end()
	return e.DecisionID, r.Sink.Record(p, e)
}

// newDecisionID is [crypto/rand.Text] without its price: each call has one, and it
// is no secret.
func newDecisionID() string {
	const alphabet, perWord = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 64 / 5
	var id [26]byte
	var bits uint64
	for i := range id {
		if i%perWord == 0 {
			bits = rand.Uint64() //nolint:gosec // see above
		}
		id[i] = alphabet[bits%uint64(len(alphabet))]
		bits /= uint64(len(alphabet))
	}
	return string(id[:])
}

// patience is what [context.WithDeadline] would make of the values of a context, made
// once a sink waits for its end: most do not.
type patience struct {
	of    context.Context
	until time.Time

	mu     sync.Mutex
	ctx    context.Context
	cancel context.CancelFunc
}

func (p *patience) made() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx == nil {
		p.ctx, p.cancel = context.WithDeadline(context.WithoutCancel(p.of), p.until)
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
func (p *patience) Value(key any) any           { return context.WithoutCancel(p.of).Value(key) }
