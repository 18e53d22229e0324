package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/tenant"
)

func ExampleNewSlog() {
	sink := audit.NewSlog(slog.NewJSONHandler(os.Stdout, nil))
	err := sink.Record(context.Background(), audit.Event{
		Time: time.Unix(1700000000, 0).UTC(), DecisionID: "D1", Point: audit.Server, Allowed: true, Proven: true,
		Tenant: "acme", Subject: "alice", Transaction: "T1", Path: []string{"spiffe://prod.example/gateway"},
		Peer: "spiffe://prod.example/gateway", Method: "/orders.v1.Orders/List", Rule: "tenantmesh.yaml:12",
	})
	fmt.Println(err)
	// Output:
	// {"time":"2023-11-14T22:13:20Z","level":"INFO","msg":"tenantmesh decision","decision_id":"D1","point":"server","allowed":true,"proven":true,"tenant":"acme","sub":"alice","txn":"T1","peer":"spiffe://prod.example/gateway","method":"/orders.v1.Orders/List","rule":"tenantmesh.yaml:12","path":["spiffe://prod.example/gateway"]}
	// <nil>
}

func TestSlog(t *testing.T) {
	t.Run("a denial, written whatever the level of the handler", func(t *testing.T) {
		var out bytes.Buffer
		sink := audit.NewSlog(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelError}))
		e := audit.Event{Time: time.Now(), DecisionID: "D2", Point: audit.Edge, Reason: tenant.TokenExpired, Detail: "past exp", Claimed: "globex"}
		if err := sink.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		for k, want := range map[string]any{
			"level": "WARN", "allowed": false, "proven": false, "reason": "TOKEN_EXPIRED", "detail": "past exp",
			"point": "edge", "decision_id": "D2", "claimed_tenant": "globex",
		} {
			if got[k] != want {
				t.Errorf("%s is %v, want %v", k, got[k], want)
			}
		}
		if _, ok := got["tenant"]; ok {
			t.Error("an empty tenant is written")
		}
	})
	t.Run("E2 a handler that fails", func(t *testing.T) {
		full := errors.New("disk full")
		if err := audit.NewSlog(failing{slog.DiscardHandler, full}).Record(t.Context(), audit.Event{}); !errors.Is(err, full) {
			t.Errorf("got %v", err)
		}
	})
}

type failing struct {
	slog.Handler
	err error
}

func (f failing) Handle(context.Context, slog.Record) error { return f.err }

// keeping is a sink that keeps the last event and the context's error.
type keeping struct {
	last audit.Event
	wait bool // for the context's end
	deaf bool // to the context
	ctx  context.Context
	err  error
}

func (k *keeping) Record(ctx context.Context, e audit.Event) error {
	k.last, k.ctx = e, ctx
	if k.deaf {
		return nil
	}
	if k.wait {
		<-ctx.Done()
	}
	k.err = ctx.Err()
	return k.err
}

func TestRecorder(t *testing.T) {
	at := time.Unix(1700000000, 0)
	clock := func() time.Time { return at }
	why := tenant.Deny(tenant.SignerNotPeer, "by another").AtHop(1)
	why.Rule = "p.yaml:7"
	gone, cancel := context.WithCancel(t.Context())
	cancel()

	t.Run("E2 a caller who gives up stops no recording", func(t *testing.T) {
		sink := new(keeping)
		r := audit.Recorder{Sink: sink, Clock: clock}
		if err := r.Allow(gone, audit.Event{Method: "/a.B/C", Rule: "p.yaml:3"}); err != nil || sink.err != nil {
			t.Errorf("Allow: %v, the sink's context: %v", err, sink.err)
		}
		if e := sink.last; !e.Allowed || e.Reason != "" || e.Method != "/a.B/C" || e.Rule != "p.yaml:3" || !e.Time.Equal(at) || e.DecisionID == "" {
			t.Errorf("got %+v", e)
		}
		before := sink.last.DecisionID
		id := r.Refuse(gone, audit.Event{Allowed: true, Rule: "p.yaml:3"}, why)
		if e := sink.last; e.Allowed || e.Reason != tenant.SignerNotPeer || e.Rule != "p.yaml:7" || !strings.Contains(e.Detail, "(hop 1): by another") ||
			e.DecisionID != id || id == before || sink.err != nil {
			t.Errorf("got %+v, %v", e, sink.err)
		}
	})
	t.Run("E2 a sink that hangs has five seconds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			r := audit.Recorder{Sink: &keeping{wait: true}, Logger: slog.New(slog.NewTextHandler(&log, nil))}
			start := time.Now()
			if err := r.Allow(t.Context(), audit.Event{}); tenant.ReasonOf(err) != tenant.AuditUnavailable || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Allow: %v", err)
			}
			id := r.Refuse(t.Context(), audit.Event{}, why)
			if took := time.Since(start); took != 10*time.Second {
				t.Errorf("two took %s", took)
			}
			if !strings.Contains(log.String(), "reason=SIGNER_NOT_PEER decision_id="+id) {
				t.Errorf("the log has %q", &log)
			}
		})
	})
	t.Run("E2 what a sink keeps of a recording ends with it", func(t *testing.T) {
		type key struct{}
		for _, deaf := range []bool{false, true} {
			sink := &keeping{deaf: deaf}
			r := audit.Recorder{Sink: sink, Clock: clock}
			if err := r.Allow(context.WithValue(t.Context(), key{}, "value"), audit.Event{}); err != nil {
				t.Fatal(err)
			}
			if _, bounded := sink.ctx.Deadline(); !bounded || sink.ctx.Value(key{}) != "value" {
				t.Errorf("deaf %t: the sink got %v", deaf, sink.ctx)
			}
			<-sink.ctx.Done()
			if err := sink.ctx.Err(); !errors.Is(err, context.Canceled) {
				t.Errorf("deaf %t: then its context says %v", deaf, err)
			}
		}
	})
	t.Run("E2 the zero Recorder allows nothing", func(t *testing.T) {
		defer func(l *slog.Logger) { slog.SetDefault(l) }(slog.Default())
		var log bytes.Buffer
		slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
		var r audit.Recorder
		if err := r.Allow(t.Context(), audit.Event{}); tenant.ReasonOf(err) != tenant.AuditUnavailable {
			t.Errorf("Allow: %v", err)
		}
		if id := r.Refuse(t.Context(), audit.Event{}, why); id == "" || !strings.Contains(log.String(), id) {
			t.Errorf("the log has %q", &log)
		}
	})
}
