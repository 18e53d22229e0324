package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
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
