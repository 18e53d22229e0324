package audit

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
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

// Refuse records that what e describes is refused because of why, and returns
// the event's DecisionID. What cannot be recorded is logged, and refused all the same.
func (r Recorder) Refuse(ctx context.Context, e Event, why *tenant.Error) (decisionID string) {
	e.Allowed, e.Reason, e.Detail = false, why.Reason, why.Error()
	e.Rule = cmp.Or(why.Rule, e.Rule)
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
	e.Time, e.DecisionID = now(), rand.Text()
	if r.Sink == nil {
		return e.DecisionID, errors.New("no sink")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	return e.DecisionID, r.Sink.Record(ctx, e)
}
