// Package audit holds the event that every decision about a tenant leaves,
// and the [Sink] that takes it.
package audit

import (
	"context"
	"log/slog"
	"time"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// Point says where a decision was made.
type Point string

// The points of decision.
const (
	// Handshake: a connection was refused before any call.
	Handshake Point = "handshake"
	// Server: a call arrived.
	Server Point = "server"
	// Client: a call was about to leave.
	Client Point = "client"
	// Originate: a chain was about to be started.
	Originate Point = "originate"
	// Edge: an external token arrived.
	Edge Point = "edge"
	// Data: a database, a cache or a queue was about to be used.
	Data Point = "data"
)

// Event is one decision, allowed or denied. It never holds a token, a key, a
// signature or a claim other than those named here.
type Event struct {
	// Time of the decision.
	Time time.Time
	// DecisionID is unique; a refused caller is told it.
	DecisionID string
	// Point is where the decision was made.
	Point Point
	// Allowed says how it went; the zero Event is a denial.
	Allowed bool
	// Reason of a denial; empty if allowed.
	Reason tenant.Reason
	// Detail of a denial, for the operator.
	Detail string
	// Tenant, Subject and Transaction are those of the claims, as far as they
	// were known. In a denial they may be unproven, and Proven says so.
	Tenant, Subject, Transaction string
	// Proven says whether Tenant, Subject, Transaction and Path come from a
	// chain whose signatures were verified.
	Proven bool
	// Path holds the SPIFFE IDs of the signers, the originator first. Events
	// share it: a sink must not change it.
	Path []string
	// Peer is the SPIFFE ID at the other end, or empty if unproven.
	Peer string
	// Method is the full gRPC method, or for HTTP the method and path.
	Method string
	// Rule names the policy rules that decided, as file:line.
	Rule string
	// Policy is the version of the policy that decided.
	Policy string
	// Field names the field of a message that was at fault.
	Field string
	// Alarm says that a message of another tenant was about to leave: the program
	// that made it is wrong.
	Alarm bool
	// Observe says that decisions about the method are not enforced: a call
	// that is denied here ran all the same.
	Observe bool
	// Claimed names the other tenants that a client asserted by other means (a
	// header such as x-tenant-id) and that were ignored, separated by ", ": eight at
	// most, then "(more)", then "(not a tenant ID)" for what is none.
	Claimed string
}

// Sink takes events. Record returns once the event is as safe as the sink
// promises, and fails when ctx ends. If it fails, a call that was to be allowed is
// refused with [tenant.AuditUnavailable]. A Sink must be safe for concurrent use.
type Sink interface {
	Record(ctx context.Context, e Event) error
}

// NewSlog returns a Sink that writes each event as one record of h, at level
// Info if allowed, Warn if denied and Error for an alarm. With [slog.NewJSONHandler] an event is a
// line of JSON.
func NewSlog(h slog.Handler) Sink { return slogSink{h} }

type slogSink struct{ h slog.Handler }

func (s slogSink) Record(ctx context.Context, e Event) error {
	level := slog.LevelWarn
	switch {
	case e.Allowed:
		level = slog.LevelInfo
	case e.Alarm:
		level = slog.LevelError
	}
	r := slog.NewRecord(e.Time, level, "tenantmesh decision", 0)
	var room [20]slog.Attr // for all
	r.AddAttrs(e.attrs(room[:0])...)
	return s.h.Handle(ctx, r)
}

// attrs appends the fields of e that say something.
func (e *Event) attrs(attrs []slog.Attr) []slog.Attr {
	attrs = append(attrs,
		slog.String("decision_id", e.DecisionID),
		slog.String("point", string(e.Point)),
		slog.Bool("allowed", e.Allowed),
		slog.Bool("proven", e.Proven))
	for _, f := range []struct{ name, value string }{
		{"reason", string(e.Reason)}, {"detail", e.Detail},
		{"tenant", e.Tenant}, {"sub", e.Subject}, {"txn", e.Transaction},
		{"peer", e.Peer}, {"method", e.Method}, {"rule", e.Rule}, {"policy", e.Policy}, {"field", e.Field}, {"claimed_tenant", e.Claimed},
	} {
		if f.value != "" {
			attrs = append(attrs, slog.String(f.name, f.value))
		}
	}
	for _, f := range []struct {
		name string
		set  bool
	}{{"alarm", e.Alarm}, {"observe", e.Observe}} {
		if f.set {
			attrs = append(attrs, slog.Bool(f.name, true))
		}
	}
	if len(e.Path) > 0 {
		attrs = append(attrs, slog.Any("path", e.Path))
	}
	return attrs
}
