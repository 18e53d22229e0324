package rls_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/data/rls"
	"github.com/tenantmesh/tenantmesh/internal/mint"
	"github.com/tenantmesh/tenantmesh/internal/pgtest"
	"github.com/tenantmesh/tenantmesh/tenant"
	"github.com/tenantmesh/tenantmesh/tenanttest"
)

func TestExercise(t *testing.T) {
	db := notes(t)
	t.Run("pgx", func(t *testing.T) {
		p := connect(t, db.DSN(pgtest.App))
		tenanttest.ExerciseRLS(t, adapter(open(t, p, rls.Config{}), p, wrapPgx))
	})
	t.Run("database sql", func(t *testing.T) {
		p := connect(t, db.DSN(pgtest.App))
		tenanttest.ExerciseRLS(t, adapter(openSQL(t, p), p, wrapSQL))
	})
	t.Run("pgbouncer", func(t *testing.T) {
		p := connect(t, db.Pooled(t, pgtest.App)+" default_query_exec_mode=exec")
		tenanttest.ExerciseRLS(t, adapter(open(t, p, rls.Config{}), p, wrapPgx))
	})
}

func openSQL(tb testing.TB, p *pgxpool.Pool) *rls.Pool[*sql.Tx] {
	tb.Helper()
	pool, err := rls.OpenSQL(tb.Context(), p, rls.Config{Key: key})
	if err != nil {
		tb.Fatal(err)
	}
	return pool
}

// fill gives a tenant n notes.
func fill(tb testing.TB, p *rls.Pool[pgx.Tx], name string, n int) {
	tb.Helper()
	if err := p.InTx(as(tb, name), func(tx pgx.Tx) error {
		_, err := tx.Exec(tb.Context(), "INSERT INTO notes (id, body) SELECT i::text, $1 || i FROM generate_series(1, $2::int) i", name, n)
		return err
	}); err != nil {
		tb.Fatal(err)
	}
}

// TestProofs gives the database proofs as nobody but the holder of a key can make them.
func TestProofs(t *testing.T) {
	db := notes(t)
	p := connect(t, db.DSN(pgtest.App))
	fill(t, open(t, p, rls.Config{}), "acme", 1)
	db.Exec(t, pgtest.Owner, newKey("k2").InsertSQL())
	soon, good := time.Now().Add(time.Minute), key.Proof(time.Now().Add(time.Minute), "acme", "uid-acme")
	other := newKey("k1") // of the same ID, with another secret
	for _, c := range []struct {
		name, proof string
		rows        int
	}{
		{"good", good, 1},
		{"D3 expired", key.Proof(time.Now().Add(-time.Second), "acme", "uid-acme"), 0},
		{"D3 by another key of its ID", other.Proof(soon, "acme", "uid-acme"), 0},
		{"D3 under another key's ID", strings.Replace(good, "/k1/", "/k2/", 1), 0},
		{"D3 by a key that is not there", newKey("k3").Proof(soon, "acme", "uid-acme"), 0},
		{"D3 of another version", key.Sign("2" + good[1:len(good)-65]), 0},
		{"signed by hand", key.Sign(good[:len(good)-65]), 1},
		{"D3 without a MAC", good[:len(good)-65], 0},
		{"D3 with an upper-case MAC", good[:len(good)-64] + strings.ToUpper(good[len(good)-64:]), 0},
		{"D10 with another uid", key.Proof(soon, "acme", "uid-acme-2"), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := pgx.BeginFunc(t.Context(), p, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), "SELECT set_config('tenantmesh.proof', $1, true)", c.proof); err != nil {
					return err
				}
				got, err := texts(t.Context(), tx, "SELECT body FROM notes")
				if len(got) != c.rows {
					t.Errorf("%d rows: %q", len(got), got)
				}
				return err
			}); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("D3 the role reads no key", func(t *testing.T) {
		for _, query := range []string{"SELECT id FROM tenantmesh.keys", "SELECT encode(secret, 'hex') FROM tenantmesh.keys", "SELECT tenant FROM tenantmesh.tenants"} {
			if got, err := texts(t.Context(), p, query); err == nil || !strings.Contains(err.Error(), "permission denied") {
				t.Errorf("%s: %q, %v", query, got, err)
			}
		}
	})
	t.Run("D3 no key without a secret", func(t *testing.T) {
		for _, secret := range []string{"''", `'\x00'`, "NULL"} {
			if err := db.Try(pgtest.Owner, "INSERT INTO tenantmesh.keys (id, secret) VALUES ('weak', "+secret+")"); err == nil {
				t.Errorf("the secret %s is taken", secret)
			}
		}
	})
	t.Run("D2 another policy does not widen", func(t *testing.T) {
		db.Exec(t, pgtest.Owner, "CREATE POLICY wide ON notes USING (true)")
		defer db.Exec(t, pgtest.Owner, "DROP POLICY wide ON notes")
		if got, err := texts(t.Context(), p, "SELECT body FROM notes"); err != nil || len(got) > 0 {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("D2 a plan that another role prepared", func(t *testing.T) {
		c, err := pgx.Connect(t.Context(), db.DSN(pgtest.Superuser))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		for _, role := range []string{pgtest.Superuser, pgtest.App, pgtest.Superuser, pgtest.App} {
			if _, err := c.Exec(t.Context(), "SET ROLE "+role); err != nil {
				t.Fatal(err)
			}
			// The same statements, prepared once; one with the table in a sub-query, as in CVE-2024-10976.
			for _, query := range []string{"SELECT body FROM notes", "SELECT * FROM (SELECT body FROM notes WHERE id = ANY (SELECT id FROM notes)) n"} {
				got, err := texts(t.Context(), c, query)
				if want := map[string]int{pgtest.Superuser: 1}[role]; err != nil || len(got) != want {
					t.Errorf("%s as %s: %q, %v", query, role, got, err)
				}
			}
		}
	})
	t.Run("D3 a schema in front does not change the function", func(t *testing.T) {
		db.Exec(t, pgtest.Superuser, "GRANT CREATE ON SCHEMA public TO app")
		if err := pgx.BeginFunc(t.Context(), p, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `SET LOCAL search_path = public, tenantmesh, pg_catalog;
				CREATE FUNCTION public.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT '1/k1/99999999999/n/acme/uid-acme/x' $$;
				CREATE FUNCTION public.right(text, int) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$;
				CREATE FUNCTION public.encode(bytea, text) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$;
				CREATE FUNCTION public.eq(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
				CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.eq)`); err != nil {
				return err
			}
			got, err := texts(t.Context(), tx, "SELECT body FROM notes")
			if len(got) != 0 {
				t.Errorf("rows: %q", got)
			}
			return errors.Join(err, errRollback)
		}); !errors.Is(err, errRollback) {
			t.Error(err)
		}
	})
}

var errRollback = errors.New("roll back")

// TestPlan shows that a statement verifies its proof once, also in a parallel plan.
func TestPlan(t *testing.T) {
	db := notes(t)
	p := open(t, connect(t, db.DSN(pgtest.App)), rls.Config{})
	fill(t, p, "acme", 5000)
	fill(t, p, "globex", 5000)
	db.Exec(t, pgtest.Owner, "ANALYZE notes")
	for name, c := range map[string]struct{ set, query, want string }{
		"scan":     {"SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off", "SELECT body FROM notes", "Seq Scan on notes (actual rows=5000 "},
		"point":    {"", "SELECT body FROM notes WHERE id = '77'", "Index Scan"},
		"parallel": {"SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0; SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off", "SELECT max(body || body) FROM notes", "Parallel Seq Scan on notes"},
		"update":   {"", "UPDATE notes SET body = body", "Update on notes"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := p.InTx(as(t, "acme"), func(tx pgx.Tx) error {
				if c.set != "" {
					if _, err := tx.Exec(t.Context(), c.set); err != nil {
						return err
					}
				}
				lines, err := texts(t.Context(), tx, "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, VERBOSE OFF) "+c.query)
				plan := strings.Join(lines, "\n")
				if !strings.Contains(plan, c.want) || strings.Contains(plan, "SubPlan") {
					t.Errorf("want %q in\n%s", c.want, plan)
				}
				// The node that calls the function is the plan's first line under its InitPlan.
				for i, l := range lines {
					if strings.Contains(l, "InitPlan") && (!strings.Contains(lines[i+1], "rows=1 loops=1)")) {
						t.Errorf("a proof is not verified once:\n%s", plan)
					}
				}
				want := 1
				if name == "update" { // which rows there are, that the new ones are seen, and that they are the tenant's
					want = 3
				}
				if n := strings.Count(plan, "InitPlan"); n != want {
					t.Errorf("it is verified %d times:\n%s", n, plan)
				}
				return err
			}); err != nil {
				t.Error(err)
			}
		})
	}
}

// counter counts how often a connection waits for an answer.
type counter struct {
	net.Conn
	trips *atomic.Int64
	wrote atomic.Bool
}

func (c *counter) Write(b []byte) (int, error) { c.wrote.Store(true); return c.Conn.Write(b) }

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.wrote.Swap(false) {
		c.trips.Add(1)
	}
	return n, err
}

// TestRoundTrips shows that a proof costs none.
func TestRoundTrips(t *testing.T) {
	db := notes(t)
	var trips atomic.Int64
	cfg, err := pgxpool.ParseConfig("pool_max_conns=1 " + db.DSN(pgtest.App))
	if err != nil {
		t.Fatal(err)
	}
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return &counter{Conn: c, trips: &trips}, err
	}
	p, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	count := func(f func() error) int64 {
		t.Helper()
		var n int64
		for range 3 { // the first prepares statements
			before := trips.Load()
			if err := f(); err != nil {
				t.Fatal(err)
			}
			n = trips.Load() - before
		}
		return n
	}
	ctx := as(t, "acme")
	bare := count(func() error { return pgx.BeginFunc(ctx, p, func(pgx.Tx) error { return nil }) })
	pool, poolSQL := open(t, p, rls.Config{}), openSQL(t, p)
	if n := count(func() error { return pool.InTx(ctx, func(pgx.Tx) error { return nil }) }); n != bare || bare != 2 {
		t.Errorf("pgx: %d round trips, %d without a proof", n, bare)
	}
	if n := count(func() error { return poolSQL.InTx(ctx, func(*sql.Tx) error { return nil }) }); n > bare+1 {
		t.Errorf("database/sql: %d round trips, %d without a proof", n, bare)
	}
}

// TestRotation changes the key under load. No transaction fails or misses a row.
func TestRotation(t *testing.T) {
	db := notes(t)
	pools := []*rls.Pool[pgx.Tx]{open(t, connect(t, db.DSN(pgtest.App)), rls.Config{}), open(t, connect(t, db.DSN(pgtest.App)), rls.Config{})}
	fill(t, pools[0], "acme", 1)
	ctx, stop := context.WithCancel(as(t, "acme"))
	var wg sync.WaitGroup
	var done [2]atomic.Int64
	for i, p := range pools {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := p.InTx(context.WithoutCancel(ctx), func(tx pgx.Tx) error {
					got, err := texts(t.Context(), tx, "SELECT body FROM notes")
					if len(got) != 1 {
						return fmt.Errorf("%q, %w", got, err)
					}
					return err
				}); err != nil {
					t.Error(err)
					return
				}
				done[i].Add(1)
			}
		})
	}
	// more waits until each pool has run some more transactions.
	more := func() {
		t.Helper()
		for i := range done {
			eventually(t, func() bool { return done[i].Load() > 20 })
			done[i].Store(0)
		}
	}
	old := key
	for _, id := range []string{"k2", "k3"} {
		k := newKey(id)
		if err := pools[0].UseKey(t.Context(), k); tenant.ReasonOf(err) != tenant.Internal || !strings.Contains(err.Error(), id) {
			t.Errorf("a key that the database does not know: %v", err)
		}
		more()
		db.Exec(t, pgtest.Owner, k.InsertSQL())
		for _, p := range pools {
			if err := p.UseKey(t.Context(), k); err != nil {
				t.Error(err)
			}
			more()
		}
		db.Exec(t, pgtest.Owner, old.DeleteSQL())
		old = k
		more()
	}
	stop()
	wg.Wait()
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
		<-time.After(time.Millisecond)
	}
}

// sink keeps events.
type sink struct {
	sync.Mutex
	events []audit.Event
}

func (s *sink) Record(_ context.Context, e audit.Event) error {
	s.Lock()
	defer s.Unlock()
	s.events = append(s.events, e)
	return nil
}

// TestKeyGone takes the key out of the database. A transaction then fails, with an
// event, and is not taken for one without rows.
func TestKeyGone(t *testing.T) {
	db := notes(t)
	var ahead atomic.Int64
	var s sink
	p := open(t, connect(t, db.DSN(pgtest.App)), rls.Config{Audit: &s}.At(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }))
	db.Exec(t, pgtest.Owner, key.DeleteSQL())
	ahead.Store(int64(rls.ProveEvery) - int64(time.Second)) // as if that time had passed: within the leeway of clocks
	in := func() error { return p.InTx(as(t, "acme"), func(pgx.Tx) error { return nil }) }
	eventually(t, func() bool { return in() != nil })
	if err := in(); tenant.ReasonOf(err) != tenant.Internal || !strings.Contains(err.Error(), `key "k1"`) {
		t.Errorf("got %v", err)
	}
	if len(s.events) < 2 || s.events[0].Point != audit.Data || s.events[0].Allowed || s.events[0].Reason != tenant.Internal || s.events[0].Tenant != "acme" || !s.events[0].Proven {
		t.Errorf("events: %+v", s.events)
	}
	db.Exec(t, pgtest.Owner, key.InsertSQL())
	if err := in(); err != nil {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	db := notes(t)
	for name, c := range map[string]struct {
		dsn  string
		cfg  rls.Config
		want string
	}{
		"simple protocol":                   {" default_query_exec_mode=simple_protocol", rls.Config{Key: key}, "simple protocol"},
		"no key":                            {"", rls.Config{}, "no key"},
		"a key that the database has not":   {"", rls.Config{Key: newKey("other")}, `key "other"`},
		"another secret":                    {"", rls.Config{Key: newKey("k1")}, `key "k1"`},
		"too long transactions":             {"", rls.Config{Key: key, MaxDuration: time.Hour}, "MaxDuration"},
		"negative":                          {"", rls.Config{Key: key, MaxDuration: -1}, "MaxDuration"},
		"a clock behind":                    {"", rls.Config{Key: key}.At(func() time.Time { return time.Now().Add(-time.Minute) }), "clock"},
		"a clock ahead":                     {"", rls.Config{Key: key}.At(func() time.Time { return time.Now().Add(time.Minute) }), "clock"},
		"D2 another column than the tables": {"", rls.Config{Key: key, Schema: rls.Schema{TenantColumn: "customer"}}, "no-tenant-column"},
	} {
		t.Run(name, func(t *testing.T) {
			p := connect(t, db.DSN(pgtest.App)+c.dsn)
			pool, err := rls.Open(t.Context(), p, c.cfg)
			if pool != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("pgx: %v, %v, want %q", pool, err, c.want)
			}
			poolSQL, err := rls.OpenSQL(t.Context(), p, c.cfg)
			if poolSQL != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("database/sql: %v, %v, want %q", poolSQL, err, c.want)
			}
		})
	}
	t.Run("CheckDB", func(t *testing.T) {
		std, err := sql.Open("pgx", db.DSN(pgtest.App))
		if err != nil {
			t.Fatal(err)
		}
		defer std.Close()
		if found, err := rls.CheckDB(t.Context(), std, rls.Schema{TenantColumn: "customer"}); err != nil || len(found) != 2 {
			t.Errorf("got %v, %v", found, err)
		}
	})
}

// TestLimits ends transactions that take too long, or that end inside.
func TestLimits(t *testing.T) {
	db := notes(t)
	p := open(t, connect(t, db.DSN(pgtest.App)), rls.Config{MaxDuration: 300 * time.Millisecond})
	write := func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO notes (id, body) VALUES ('1', 'x')")
		return err
	}
	late := func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "SELECT pg_sleep(0.4)")
		return errors.Join(write(tx), err)
	}
	soon, cancel := context.WithTimeout(as(t, "acme"), 200*time.Millisecond)
	defer cancel()
	oddUID := tenanttest.Context(t.Context(), tenanttest.Claims{Tenant: "acme", UID: "x/y"})
	for name, c := range map[string]struct {
		ctx  context.Context
		opts sql.TxOptions
		fn   func(pgx.Tx) error
		want string
	}{
		"MaxDuration":            {as(t, "acme"), sql.TxOptions{}, late, context.DeadlineExceeded.Error()},
		"the context's deadline": {soon, sql.TxOptions{}, late, context.DeadlineExceeded.Error()},
		"COMMIT inside":          {as(t, "acme"), sql.TxOptions{}, func(tx pgx.Tx) error { _, err := tx.Exec(t.Context(), "COMMIT; BEGIN; COMMIT"); return err }, "ended inside"},
		"read only":              {as(t, "acme"), sql.TxOptions{ReadOnly: true}, write, "read-only transaction"},
		"unknown isolation":      {as(t, "acme"), sql.TxOptions{Isolation: sql.LevelLinearizable}, write, "Linearizable"},
		"a uid of another form":  {oddUID, sql.TxOptions{}, write, string(tenant.ContextMalformed)},
	} {
		t.Run(name, func(t *testing.T) {
			if err := p.InTxWith(c.ctx, c.opts, c.fn); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err := p.InTx(as(t, "acme"), func(tx pgx.Tx) error {
				got, err := texts(t.Context(), tx, "SELECT body FROM notes")
				if len(got) > 0 {
					t.Errorf("it was committed")
				}
				return err
			}); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("D1 injected COMMIT and a proof for the session", func(t *testing.T) {
		one := connect(t, db.DSN(pgtest.App)+" pool_max_conns=1")
		p := open(t, one, rls.Config{})
		if err := p.InTx(as(t, "acme"), write); err != nil {
			t.Fatal(err)
		}
		for _, end := range []string{"", "; BEGIN"} {
			for _, fail := range []error{nil, errRollback} {
				err := p.InTx(as(t, "acme"), func(tx pgx.Tx) error {
					proof, err := texts(t.Context(), tx, "SELECT current_setting('tenantmesh.proof')")
					if err == nil {
						_, err = tx.Exec(t.Context(), "COMMIT; SET tenantmesh.proof = '"+proof[0]+"'"+end)
					}
					return errors.Join(err, fail)
				})
				if fail != nil && !errors.Is(err, fail) || end == "" && err == nil || end != "" && fail == nil && err != nil {
					t.Errorf("%q, %v: got %v", end, fail, err)
				}
				if got, err := texts(t.Context(), one, "SELECT body FROM notes"); err != nil || len(got) > 0 {
					t.Errorf("%q, %v: outside there are %q, %v", end, fail, got, err)
				}
			}
		}
	})
	t.Run("claims that are revoked inside", func(t *testing.T) {
		h := &holder{}
		ctx := mint.With(t.Context(), &mint.Record{Holder: h, Facts: &mint.Facts{Tenant: "globex", TenantUID: "uid-globex", Expires: time.Now().Add(time.Minute)}})
		if err := p.InTx(ctx, func(tx pgx.Tx) error {
			h.revoked.Store(true)
			return write(tx)
		}); tenant.ReasonOf(err) != tenant.TenantNotBound {
			t.Errorf("got %v", err)
		}
		if err := p.InTx(as(t, "globex"), func(tx pgx.Tx) error {
			got, err := texts(t.Context(), tx, "SELECT body FROM notes")
			if len(got) > 0 {
				t.Error("it was committed")
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	})
	t.Run("serializable", func(t *testing.T) {
		if err := p.InTxWith(as(t, "acme"), sql.TxOptions{Isolation: sql.LevelSerializable}, func(tx pgx.Tx) error {
			got, err := texts(t.Context(), tx, "SHOW transaction_isolation")
			if !slices.Equal(got, []string{"serializable"}) {
				t.Errorf("got %q", got)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	})
	t.Run("tx is closed afterwards", func(t *testing.T) {
		var kept pgx.Tx
		if err := p.InTx(as(t, "acme"), func(tx pgx.Tx) error { kept = tx; return nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := kept.Exec(t.Context(), "SELECT 1"); !errors.Is(err, pgx.ErrTxClosed) {
			t.Errorf("got %v", err)
		}
	})
}

// holder lets a context be used until it is revoked.
type holder struct{ revoked atomic.Bool }

func (h *holder) Valid() error {
	if h.revoked.Load() {
		return tenant.Deny(tenant.TenantNotBound, "test")
	}
	return nil
}

func (h *holder) Refused() error { return h.Valid() }

func TestKey(t *testing.T) {
	text := "k1:" + strings.Repeat("0a", 32)
	k, err := rls.ParseKey(text + "\n")
	if err != nil || k.Text() != text || k.ID() != "k1" || k.IsZero() {
		t.Errorf("got %v, %v", k, err)
	}
	for _, s := range []string{"", "k1", "k1:", ":" + text[3:], "K1" + text[2:], "k'1" + text[2:], text + "00", text[:len(text)-2], "k1:" + strings.Repeat("zz", 32), strings.Repeat("k", 33) + text[2:]} {
		if k, err := rls.ParseKey(s); err == nil || !k.IsZero() || strings.Contains(err.Error(), "0a0a") {
			t.Errorf("%q: %v, %v", s, k, err)
		}
	}
	for _, f := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		for _, v := range []any{k, &k, rls.Config{Key: k}, []any{k}} {
			if s := fmt.Sprintf(f, v); strings.Contains(s, "0a0a") || strings.Contains(s, "10 10") || strings.Contains(s, `\n\n`) {
				t.Errorf("%s of %T shows the secret: %s", f, v, s)
			}
		}
	}
	if a, b := newKey("x").Text(), newKey("x").Text(); a == b {
		t.Error("two keys are the same")
	}
	if p := k.Proof(time.Unix(1, 0), "acme", "u"); !strings.HasPrefix(p, "1/k1/1/") || bytes.Contains([]byte(p), []byte("'")) {
		t.Errorf("proof %s", p)
	}
}
