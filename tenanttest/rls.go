package tenanttest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// RLSTables makes the two tables on which [ExerciseRLS] works, as a schema may
// have them before row level security. The adapter then holds them to tenants: the columns tenant_id and
// tenant_uid have defaults, and keys hold the uid.
const RLSTables = `
CREATE TABLE notes (tenant_id text NOT NULL, id text NOT NULL, body text NOT NULL, size int NOT NULL DEFAULT 1, PRIMARY KEY (tenant_id, id));
CREATE TABLE replies (tenant_id text NOT NULL, id text NOT NULL, note text NOT NULL, PRIMARY KEY (tenant_id, id),
  CONSTRAINT replies_note FOREIGN KEY (tenant_id, note) REFERENCES notes (tenant_id, id));`

// RLSTx is a transaction of an adapter under test.
type RLSTx interface {
	// Exec runs a statement and returns how many rows it changed.
	Exec(ctx context.Context, query string, args ...any) (int64, error)
	// Strings runs a query and returns its one column.
	Strings(ctx context.Context, query string, args ...any) ([]string, error)
}

// RLSAdapter is what [ExerciseRLS] puts to the test. Its pool should have few
// connections, so that what is left on one shows.
type RLSAdapter struct {
	// InTx runs fn in a transaction of ctx's tenant, commits it if fn returns nil, and else rolls back.
	InTx func(ctx context.Context, fn func(RLSTx) error) error
	// Outside runs fn on a connection of the same pool and role, without a tenant.
	Outside func(ctx context.Context, fn func(RLSTx) error) error
	// Variable is the setting that carries the tenant.
	Variable string
	// Conflict, Reference and Foreign are what errors.Is finds in the errors of
	// InTx about unique keys, foreign keys and rows that would be another tenant's.
	Conflict, Reference, Foreign error
}

// ExerciseRLS is the conformance suite for adapters that hold PostgreSQL to the
// tenant of a context. The names of its cases begin with the attack that must fail.
func ExerciseRLS(t *testing.T, a RLSAdapter) {
	e := &exercise{RLSAdapter: a}
	e.reset(t)
	for _, c := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"D1 outside InTx", e.outside},
		{"D1 commit", func(t *testing.T) { e.after(t, nil, func() error { return nil }) }},
		{"D1 error", func(t *testing.T) { e.after(t, errTest, func() error { return errTest }) }},
		{"D1 panic", func(t *testing.T) { e.after(t, errTest, func() error { panic(errTest) }) }},
		{"D1 exit of the goroutine", func(t *testing.T) { e.after(t, errExited, func() error { runtime.Goexit(); return nil }) }},
		{"D1 cancellation", e.cancelled},
		{"D1 failed statement", e.failedStatement},
		{"D1 no tenant", e.noTenant},
		{"D1 expired claims", e.expired},
		{"D1 settings of the session", e.settings},
		{"D2 row_security off", e.rowSecurity},
		{"D3 variable names another tenant", e.named},
		{"D3 proof changed", e.changed},
		{"D3 variable emptied", e.emptied},
		{"D3 proof kept for the session", e.kept},
		{"D3 proof read from another session", e.spied},
		{"D4 unique key", e.unique},
		{"D4 foreign key", e.foreignKey},
		{"D4 row for another tenant", e.foreignRow},
		{"D5 search, count and aggregation", e.search},
		{"D5 cursor and pages", e.pages},
		{"D5 update and delete", e.change},
		{"D10 tenant created again", e.again},
	} {
		t.Run(c.name, c.run)
	}
}

var (
	errTest   = errors.New("test")
	errExited = errors.New("exited")
)

type exercise struct{ RLSAdapter }

const (
	all      = "SELECT body FROM notes ORDER BY body"
	patience = 20 * time.Second
)

// as is a context of a tenant.
func as(t testing.TB, name string) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return Context(ctx, Claims{Tenant: name})
}

// reset gives acme and globex two notes each, with the same IDs.
func (e *exercise) reset(t testing.TB) {
	t.Helper()
	for _, name := range []string{"acme", "globex"} {
		e.in(t, as(t, name), func(tx RLSTx) error {
			for _, s := range []string{
				"DELETE FROM replies", "DELETE FROM notes",
				"INSERT INTO notes (id, body) VALUES ('1', '" + name + " 1'), ('2', '" + name + " 2')",
			} {
				if _, err := tx.Exec(t.Context(), s); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func (e *exercise) in(t testing.TB, ctx context.Context, fn func(RLSTx) error) { //nolint:revive // t first, as in tests
	t.Helper()
	if err := e.InTx(ctx, fn); err != nil {
		t.Fatal(err)
	}
}

// sees demands what a query returns in tx.
func sees(t testing.TB, tx RLSTx, query string, want ...string) {
	t.Helper()
	if got, err := tx.Strings(t.Context(), query); err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: got %q, %v, want %q", query, got, err, want)
	}
}

// none demands that connections of the pool show no rows outside InTx.
func (e *exercise) none(t testing.TB) {
	t.Helper()
	for range 3 {
		if err := e.Outside(t.Context(), func(tx RLSTx) error { sees(t, tx, all); return nil }); err != nil {
			t.Error(err)
		}
	}
}

// both demands that both tenants have what reset gave them.
func (e *exercise) both(t testing.TB) {
	t.Helper()
	for _, name := range []string{"acme", "globex"} {
		e.in(t, as(t, name), func(tx RLSTx) error { sees(t, tx, all, name+" 1", name+" 2"); return nil })
	}
}

func (e *exercise) outside(t *testing.T) {
	e.none(t)
	if err := e.Outside(t.Context(), func(tx RLSTx) error {
		for _, s := range []string{"UPDATE notes SET body = 'x'", "DELETE FROM replies"} {
			if n, err := tx.Exec(t.Context(), s); err != nil || n != 0 {
				t.Errorf("%s: %d rows, %v", s, n, err)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	e.both(t)
}

// after ends a transaction in which a row was written by end, and demands that
// the row is there only if want is nil, and no tenant on the connection.
func (e *exercise) after(t *testing.T, want error, end func() error) {
	defer e.reset(t)
	got := errExited
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				got, _ = r.(error)
			}
		}()
		got2 := e.InTx(as(t, "acme"), func(tx RLSTx) error {
			if _, err := tx.Exec(t.Context(), "INSERT INTO notes (id, body) VALUES ('3', 'acme 3')"); err != nil {
				return err
			}
			return end()
		})
		got = got2
	}()
	<-done
	if !errors.Is(got, want) {
		t.Errorf("it ended with %v, want %v", got, want)
	}
	e.none(t)
	rows := []string{"acme 1", "acme 2"}
	if want == nil {
		rows = append(rows, "acme 3")
	}
	e.in(t, as(t, "acme"), func(tx RLSTx) error { sees(t, tx, all, rows...); return nil })
	e.in(t, as(t, "globex"), func(tx RLSTx) error { sees(t, tx, all, "globex 1", "globex 2"); return nil })
}

func (e *exercise) cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(as(t, "acme"))
	defer cancel()
	err := e.InTx(ctx, func(tx RLSTx) error {
		_, err := tx.Exec(t.Context(), "DELETE FROM notes")
		cancel() // and the error is lost
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before its end: %v", err)
	}
	ctx, cancel = context.WithCancel(as(t, "acme"))
	defer cancel()
	if err = e.InTx(ctx, func(tx RLSTx) error {
		time.AfterFunc(50*time.Millisecond, cancel)
		_, err := tx.Strings(ctx, "SELECT pg_sleep(20)::text FROM notes")
		return err
	}); err == nil {
		t.Error("cancelled in a query: no error")
	}
	e.none(t)
	e.both(t)
}

func (e *exercise) failedStatement(t *testing.T) {
	if err := e.InTx(as(t, "acme"), func(tx RLSTx) error {
		if _, err := tx.Exec(t.Context(), "DELETE FROM notes"); err != nil {
			return err
		}
		_, _ = tx.Exec(t.Context(), "SELECT 1 / 0") // and the error is lost
		return nil
	}); err == nil {
		t.Error("a transaction that PostgreSQL has aborted was committed")
	}
	e.none(t)
	e.both(t)
}

func (e *exercise) denied(t *testing.T, ctx context.Context, want tenant.Reason) { //nolint:revive // t first, as in tests
	t.Helper()
	ran := false
	if err := e.InTx(ctx, func(RLSTx) error { ran = true; return nil }); tenant.ReasonOf(err) != want || ran {
		t.Errorf("got %v, want %s; fn ran: %v", err, want, ran)
	}
}

func (e *exercise) noTenant(t *testing.T) { e.denied(t, t.Context(), tenant.ContextMissing) }

func (e *exercise) expired(t *testing.T) {
	e.denied(t, Context(t.Context(), Claims{Tenant: "acme", Expires: time.Now().Add(-time.Second)}), tenant.ContextExpired)
	// Claims that end in the transaction end it.
	if err := e.InTx(Context(t.Context(), Claims{Tenant: "acme", Expires: time.Now().Add(200 * time.Millisecond)}), func(tx RLSTx) error {
		if _, err := tx.Exec(t.Context(), "DELETE FROM notes"); err != nil {
			return err
		}
		_, err := tx.Strings(t.Context(), "SELECT pg_sleep(0.3)::text")
		return err
	}); err == nil {
		t.Error("it was committed after the claims had expired")
	}
	e.both(t)
}

// inject runs SQL that sets the variable to value in a transaction of acme, and
// demands that no row is there afterwards.
func (e *exercise) inject(t *testing.T, value string) {
	t.Helper()
	for _, local := range []string{"true", "false"} {
		e.in(t, as(t, "acme"), func(tx RLSTx) error {
			if _, err := tx.Strings(t.Context(), "SELECT set_config($1, $2, "+local+")", e.Variable, value); err != nil {
				return err
			}
			sees(t, tx, all)
			return nil
		})
		e.none(t)
	}
}

func (e *exercise) named(t *testing.T) {
	for _, v := range []string{"globex", "uid-globex", "globex/uid-globex", "*", "%", "' OR true --", strings.Repeat("x", 65), "\\x00"} {
		e.inject(t, v)
	}
	e.both(t)
}

// variable returns the variable's value in a transaction.
func (e *exercise) variable(t testing.TB, tx RLSTx) string {
	t.Helper()
	got, err := tx.Strings(t.Context(), "SELECT current_setting($1)", e.Variable)
	if err != nil || len(got) != 1 || got[0] == "" {
		t.Fatalf("the variable %s is %q, %v", e.Variable, got, err)
	}
	return got[0]
}

func (e *exercise) changed(t *testing.T) {
	var proof string
	e.in(t, as(t, "acme"), func(tx RLSTx) error { proof = e.variable(t, tx); return nil })
	if !strings.Contains(proof, "acme") {
		t.Skip("the variable does not name the tenant")
	}
	e.inject(t, strings.ReplaceAll(proof, "acme", "globex"))
	e.inject(t, proof+"0")
	for i := 0; i < len(proof); i += 7 {
		other := byte('0')
		if proof[i] == other {
			other = '1'
		}
		e.inject(t, proof[:i]+string(other)+proof[i+1:])
	}
	for _, cut := range []int{0, 1, 64, 65, len(proof) - 1} {
		e.inject(t, proof[:cut])
	}
}

func (e *exercise) emptied(t *testing.T) {
	e.inject(t, "")
	for _, s := range []string{"RESET ", "SET LOCAL ", "SET "} {
		e.in(t, as(t, "acme"), func(tx RLSTx) error {
			query := s + e.Variable
			if s != "RESET " {
				query += " TO DEFAULT"
			}
			if _, err := tx.Exec(t.Context(), query); err != nil {
				return err
			}
			sees(t, tx, all)
			return nil
		})
	}
}

func (e *exercise) kept(t *testing.T) {
	for _, end := range []error{nil, errTest} {
		if err := e.InTx(as(t, "acme"), func(tx RLSTx) error {
			if _, err := tx.Strings(t.Context(), "SELECT set_config($1, current_setting($1), false)", e.Variable); err != nil {
				return err
			}
			return end
		}); !errors.Is(err, end) {
			t.Fatal(err)
		}
		e.none(t)
		e.in(t, as(t, "globex"), func(tx RLSTx) error { sees(t, tx, all, "globex 1", "globex 2"); return nil })
	}
}

// settings demands that what injected SQL sets for the session is gone: another
// tenant's query would look for its functions in that search_path.
func (e *exercise) settings(t *testing.T) {
	const query = "SELECT current_setting('search_path') || current_setting('statement_timeout')"
	var before []string
	if err := e.Outside(t.Context(), func(tx RLSTx) (err error) { before, err = tx.Strings(t.Context(), query); return err }); err != nil || len(before) != 1 {
		t.Fatal(before, err)
	}
	e.in(t, as(t, "acme"), func(tx RLSTx) error {
		_, err := tx.Strings(t.Context(), "SELECT set_config('search_path', 'pg_catalog', false) || set_config('statement_timeout', '7s', false)")
		return err
	})
	for range 3 {
		if err := e.Outside(t.Context(), func(tx RLSTx) error { sees(t, tx, query, before[0]); return nil }); err != nil {
			t.Error(err)
		}
	}
}

func (e *exercise) rowSecurity(t *testing.T) {
	for _, local := range []string{"true", "false"} {
		if err := e.InTx(as(t, "acme"), func(tx RLSTx) error {
			if _, err := tx.Strings(t.Context(), "SELECT set_config('row_security', 'off', "+local+")"); err != nil {
				return err
			}
			got, err := tx.Strings(t.Context(), all)
			if len(got) > 0 || err == nil {
				t.Errorf("got %q, %v", got, err)
			}
			return err
		}); !errors.Is(err, e.Foreign) {
			t.Errorf("got %v, want %v", err, e.Foreign)
		}
		e.none(t)
	}
}

func (e *exercise) spied(t *testing.T) {
	e.in(t, as(t, "acme"), func(acme RLSTx) error {
		proof := e.variable(t, acme)
		e.in(t, as(t, "globex"), func(tx RLSTx) error {
			seen, err := tx.Strings(t.Context(), "SELECT coalesce(query, '') FROM pg_stat_activity")
			for _, s := range seen {
				if strings.Contains(s, proof) {
					t.Error("pg_stat_activity shows the proof")
				}
			}
			return err
		})
		return nil
	})
	// Where it is the last statement of a session that it shows.
	if err := e.InTx(as(t, "acme"), func(RLSTx) error {
		e.in(t, as(t, "globex"), func(tx RLSTx) error {
			sees(t, tx, "SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query ~ '"+e.Variable+"[^)]*acme'")
			return nil
		})
		return errTest
	}); !errors.Is(err, errTest) {
		t.Error(err)
	}
}

func (e *exercise) unique(t *testing.T) {
	defer e.reset(t)
	insert := func(name, id string) error {
		return e.InTx(as(t, name), func(tx RLSTx) error {
			_, err := tx.Exec(t.Context(), "INSERT INTO notes (id, body) VALUES ($1, $2)", id, name+" "+id)
			return err
		})
	}
	if err := insert("globex", "secret"); err != nil {
		t.Fatal(err)
	}
	// What globex has is free for acme, as anything is.
	for _, id := range []string{"secret", "free"} {
		if err := insert("acme", id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	err := insert("acme", "free")
	if !errors.Is(err, e.Conflict) {
		t.Errorf("its own: %v, want %v", err, e.Conflict)
	}
	if err != nil && strings.Contains(err.Error(), "free") {
		t.Errorf("the error shows a value: %v", err)
	}
	e.in(t, as(t, "acme"), func(tx RLSTx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO notes (id, body) VALUES ('2', 'x') ON CONFLICT DO NOTHING")
		sees(t, tx, all, "acme 1", "acme 2", "acme free", "acme secret")
		return err
	})
}

func (e *exercise) foreignKey(t *testing.T) {
	defer e.reset(t)
	e.in(t, as(t, "globex"), func(tx RLSTx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO notes (id, body) VALUES ('theirs', 'globex')")
		return err
	})
	errs := map[string]error{}
	for _, id := range []string{"theirs", "nobody"} {
		errs[id] = e.InTx(as(t, "acme"), func(tx RLSTx) error {
			_, err := tx.Exec(t.Context(), "INSERT INTO replies (id, note) VALUES ('1', $1)", id)
			return err
		})
		if !errors.Is(errs[id], e.Reference) {
			t.Errorf("%s: %v, want %v", id, errs[id], e.Reference)
		}
	}
	if fmt.Sprint(errs["theirs"]) != fmt.Sprint(errs["nobody"]) {
		t.Errorf("another tenant's row is told from none: %v, %v", errs["theirs"], errs["nobody"])
	}
	e.in(t, as(t, "acme"), func(tx RLSTx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO replies (id, note) VALUES ('1', '2')")
		return err
	})
	if err := e.InTx(as(t, "acme"), func(tx RLSTx) error {
		_, err := tx.Exec(t.Context(), "DELETE FROM notes")
		return err
	}); !errors.Is(err, e.Reference) {
		t.Errorf("its own row that is referred to: %v, want %v", err, e.Reference)
	}
}

func (e *exercise) foreignRow(t *testing.T) {
	texts := map[string]bool{}
	for _, owner := range []string{"globex", "nobody"} {
		for _, s := range []string{
			"INSERT INTO notes (tenant_id, id, body) VALUES ('%s', '9', 'x')",
			"INSERT INTO notes (tenant_uid, id, body) VALUES ('uid-%s', '9', 'x')",
			"INSERT INTO notes (tenant_id, tenant_uid, id, body) VALUES ('%[1]s', 'uid-%[1]s', '1', 'x')",
			"INSERT INTO notes (tenant_id, tenant_uid, id, body) VALUES ('%[1]s', 'uid-%[1]s', '1', 'x') ON CONFLICT DO NOTHING",
			"UPDATE notes SET tenant_id = '%s'",
			"UPDATE notes SET tenant_uid = 'uid-%s', id = 'x' WHERE id = '1'",
		} {
			err := e.InTx(as(t, "acme"), func(tx RLSTx) error {
				_, err := tx.Exec(t.Context(), fmt.Sprintf(s, owner))
				return err
			})
			if !errors.Is(err, e.Foreign) {
				t.Errorf("%s for %s: %v, want %v", s, owner, err, e.Foreign)
			}
			texts[fmt.Sprint(err)] = true
		}
	}
	if len(texts) != 1 {
		t.Errorf("the errors differ: %v", texts)
	}
	e.both(t)
}

func (e *exercise) search(t *testing.T) {
	e.in(t, as(t, "acme"), func(tx RLSTx) error {
		sees(t, tx, "SELECT body FROM notes WHERE body LIKE '%1' OR true ORDER BY body", "acme 1", "acme 2")
		sees(t, tx, "SELECT body FROM notes WHERE tenant_id = 'globex'")
		sees(t, tx, "SELECT count(*)::text FROM notes", "2")
		sees(t, tx, "SELECT sum(size)::text || max(body) FROM notes", "2acme 2")
		sees(t, tx, "SELECT string_agg(body, ',' ORDER BY body) FROM notes", "acme 1,acme 2")
		sees(t, tx, "SELECT DISTINCT tenant_id FROM notes", "acme")
		sees(t, tx, "SELECT n.body FROM notes n JOIN notes m USING (id) ORDER BY n.body", "acme 1", "acme 2")
		sees(t, tx, "WITH w AS (SELECT body FROM notes UNION ALL SELECT note FROM replies) SELECT body FROM w ORDER BY body", "acme 1", "acme 2")
		sees(t, tx, "SELECT body FROM notes n WHERE EXISTS (SELECT FROM notes m WHERE m.tenant_id <> n.tenant_id)")
		return nil
	})
}

func (e *exercise) pages(t *testing.T) {
	e.in(t, as(t, "acme"), func(tx RLSTx) error {
		if _, err := tx.Exec(t.Context(), "DECLARE page CURSOR FOR SELECT body FROM notes ORDER BY id, body"); err != nil {
			return err
		}
		sees(t, tx, "FETCH 1 FROM page", "acme 1")
		sees(t, tx, "FETCH ALL FROM page", "acme 2")
		// The key at which globex's page ended.
		sees(t, tx, "SELECT body FROM notes WHERE (tenant_id, id) > ('globex', '0') ORDER BY tenant_id, id")
		sees(t, tx, "SELECT body FROM notes ORDER BY id LIMIT 10 OFFSET 1", "acme 2")
		return nil
	})
}

func (e *exercise) change(t *testing.T) {
	e.in(t, as(t, "acme"), func(tx RLSTx) error {
		for _, s := range []string{"UPDATE notes SET body = 'x' WHERE tenant_id = 'globex'", "DELETE FROM notes WHERE body LIKE 'globex%'"} {
			if n, err := tx.Exec(t.Context(), s); err != nil || n != 0 {
				t.Errorf("%s: %d rows, %v", s, n, err)
			}
		}
		return nil
	})
	e.both(t)
}

func (e *exercise) again(t *testing.T) {
	defer e.reset(t)
	again := Context(as(t, "acme"), Claims{Tenant: "acme", UID: "uid-acme-2"})
	e.in(t, again, func(tx RLSTx) error {
		sees(t, tx, all)
		if n, err := tx.Exec(t.Context(), "UPDATE notes SET body = 'x'"); err != nil || n != 0 {
			t.Errorf("it changed %d rows of its predecessor, %v", n, err)
		}
		_, err := tx.Exec(t.Context(), "INSERT INTO notes (id, body) VALUES ('1', 'new')")
		return err
	})
	e.both(t) // the predecessor's rows, to its claims
	e.in(t, again, func(tx RLSTx) error {
		sees(t, tx, all, "new")
		_, err := tx.Exec(t.Context(), "DELETE FROM notes")
		return err
	})
}
