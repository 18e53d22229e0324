package rls_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantmesh/tenantmesh/data/rls"
	"github.com/tenantmesh/tenantmesh/internal/pgtest"
	"github.com/tenantmesh/tenantmesh/tenanttest"
)

var operations = flag.Int("operations", 200_000, "how many queries TestMixed runs and looks at")

// TestMixed runs transactions of many tenants over few connections, with errors,
// panics, cancellations, injected SQL and killed backends between them. No row of
// another tenant may show, and none outside a transaction.
func TestMixed(t *testing.T) {
	db := notes(t)
	fewer := func(dsn string) *pgxpool.Pool { return connect(t, dsn+" pool_max_conns=4") }
	direct, std, pooled := fewer(db.DSN(pgtest.App)), fewer(db.DSN(pgtest.App)), fewer(db.Pooled(t, pgtest.App)+" default_query_exec_mode=exec")
	adapters := []tenanttest.RLSAdapter{
		adapter(open(t, direct, rls.Config{}), direct, wrapPgx),
		adapter(openSQL(t, std), std, wrapSQL),
		adapter(open(t, pooled, rls.Config{}), pooled, wrapPgx),
	}
	m := &mixed{outcomes: map[string]int{}}
	for i := range 12 {
		name := fmt.Sprintf("tenant-%02d", i)
		m.tenants = append(m.tenants, name)
		if err := adapters[0].InTx(as(t, name), func(tx tenanttest.RLSTx) error {
			_, err := tx.Exec(t.Context(), "INSERT INTO notes (id, body) SELECT i::text, $1 FROM generate_series(1, 5) i", name)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(worker))) // the same choices each time
			for m.queries.Load() < int64(*operations) {
				// Most go straight to the server; the other ways take more time.
				a := adapters[max(0, r.IntN(12)-9)]
				m.count(m.operation(t.Context(), a, r))
			}
		})
	}
	wg.Wait()
	t.Logf("%d queries in %v; transactions: %v; %d rows, %d of another tenant", m.queries.Load(), time.Since(start).Round(time.Second), m.outcomes, m.rows.Load(), m.foreign.Load())
	if m.foreign.Load() > 0 {
		t.Error("rows of another tenant")
	}
	if m.unexpected != nil {
		t.Error(m.unexpected)
	}
	for _, o := range []string{"ok", "error", "panic", "cancelled", "injected", "killed", "outside"} {
		if m.outcomes[o] == 0 {
			t.Errorf("no operation ended with %q", o)
		}
	}
	if m.rows.Load() < 4*m.queries.Load() {
		t.Error("too few rows were seen")
	}
}

type mixed struct {
	tenants                []string
	queries, rows, foreign atomic.Int64

	mu         sync.Mutex
	outcomes   map[string]int
	unexpected error
}

func (m *mixed) count(outcome string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.outcomes[outcome]++
	if err != nil && m.unexpected == nil {
		m.unexpected = fmt.Errorf("%s: %w", outcome, err)
	}
}

// saw counts a query, its rows, and those that are not of the tenant.
func (m *mixed) saw(name string, rows []string) {
	m.queries.Add(1)
	m.rows.Add(int64(len(rows)))
	for _, row := range rows {
		if row != name {
			m.foreign.Add(1)
		}
	}
}

// operation runs one transaction and says what it was, and what went wrong that should not have.
func (m *mixed) operation(ctx context.Context, a tenanttest.RLSAdapter, r *rand.Rand) (outcome string, err error) {
	name := m.tenants[r.IntN(len(m.tenants))]
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	what := r.IntN(2000)
	if what < 100 {
		err := a.Outside(ctx, func(tx tenanttest.RLSTx) error {
			got, err := tx.Strings(ctx, "SELECT tenant_id FROM notes")
			m.saw("nobody", got)
			return err
		})
		return "outside", lost(err)
	}
	defer func() {
		if p := recover(); p != nil {
			outcome, err = "panic", nil
		}
	}()
	outcome = "ok"
	var fail error
	err = a.InTx(tenanttest.Context(ctx, tenanttest.Claims{Tenant: name}), func(tx tenanttest.RLSTx) error {
		read := func() error {
			got, err := tx.Strings(ctx, "SELECT tenant_id FROM notes")
			m.saw(name, got)
			if err == nil && len(got) != 5 {
				err = fmt.Errorf("%d rows: %q", len(got), got)
			}
			return err
		}
		for range 1 + r.IntN(9) {
			if err := read(); err != nil {
				return err
			}
		}
		switch {
		case what < 101:
			outcome = "killed"
			_, fail = tx.Strings(ctx, `SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity
				WHERE usename = current_user AND datname = current_database() ORDER BY random() LIMIT 1`)
			return fail
		case what < 111:
			outcome = "cancelled"
			done, end := context.WithCancel(ctx)
			time.AfterFunc(time.Duration(r.IntN(2000))*time.Microsecond, end)
			_, fail = tx.Strings(done, "SELECT pg_sleep(1)::text FROM notes")
			return fail
		case what < 180:
			outcome = "error"
			_, fail = tx.Exec(ctx, "SELECT 1 / (size - 1) FROM notes")
			return fail
		case what < 240:
			panic("test")
		case what < 340:
			outcome = "injected"
			other := m.tenants[r.IntN(len(m.tenants))]
			if other == name {
				return nil
			}
			value := []string{other, "", "globex/x"}[r.IntN(3)]
			if r.IntN(2) == 0 {
				proof, err := tx.Strings(ctx, "SELECT current_setting('tenantmesh.proof')")
				if err != nil {
					return err
				}
				value = strings.Replace(proof[0], name, other, 1)
				if r.IntN(2) == 0 {
					value = proof[0] // kept for the session
				}
			}
			if _, err := tx.Strings(ctx, "SELECT set_config('tenantmesh.proof', $1, false)", value); err != nil {
				return err
			}
			got, err := tx.Strings(ctx, "SELECT tenant_id FROM notes")
			m.saw(name, got)
			return err
		case what < 700:
			_, err := tx.Exec(ctx, "UPDATE notes SET size = 1 WHERE id = $1", fmt.Sprint(1+r.IntN(5)))
			return err
		default:
			return nil
		}
	})
	if fail != nil {
		return outcome, nil
	}
	return outcome, lost(err)
}

// lost returns nil if err says that the connection was lost, since another operation killed it.
func lost(err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil, ok && (pg.Code == "57P01" || pg.Code == "08P01"): // admin_shutdown; pgbouncer's "server conn crashed?"
		return nil
	case ok:
		return err
	case slices.ContainsFunc([]string{"unexpected EOF", "conn closed", "connection reset", "broken pipe", "bad connection", "conn busy"},
		func(s string) bool { return strings.Contains(err.Error(), s) }):
		return nil
	default:
		return err
	}
}
