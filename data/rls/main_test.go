package rls_test

import (
	"context"
	"database/sql"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantmesh/tenantmesh/data/rls"
	"github.com/tenantmesh/tenantmesh/internal/pgtest"
	"github.com/tenantmesh/tenantmesh/tenanttest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// key is what the tests' databases accept.
var key = newKey("k1")

func newKey(id string) rls.Key {
	k, err := rls.NewKey(id)
	if err != nil {
		panic(err)
	}
	return k
}

// install runs the migrations as the owner, and makes the database accept key.
func install(tb testing.TB, db *pgtest.Database) {
	tb.Helper()
	all, err := fs.Glob(rls.Migrations(), "*.sql")
	if err != nil {
		tb.Fatal(err)
	}
	for _, name := range all {
		text, err := fs.ReadFile(rls.Migrations(), name)
		if err != nil {
			tb.Fatal(err)
		}
		db.Exec(tb, pgtest.Owner, string(text))
	}
	db.Exec(tb, pgtest.Owner, key.InsertSQL())
}

// grant is what an application may do.
const grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app"

// mend runs the first fix of what Check finds until it finds nothing, and
// returns what it found on the way.
func mend(tb testing.TB, db *pgtest.Database, s rls.Schema) (mended []rls.Finding) {
	tb.Helper()
	p := connect(tb, db.DSN(pgtest.App))
	for range 40 {
		found, err := rls.Check(tb.Context(), p, s)
		if err != nil {
			tb.Fatal(err)
		}
		if len(found) == 0 {
			return mended
		}
		db.Exec(tb, pgtest.Owner, found[0].Fix)
		mended = append(mended, found[0])
	}
	tb.Fatalf("mending does not end: %v", mended[len(mended)-3:])
	return nil
}

// connect makes a pool of at most two connections, unless the DSN has more.
func connect(tb testing.TB, dsn string) *pgxpool.Pool {
	tb.Helper()
	cfg, err := pgxpool.ParseConfig("pool_max_conns=2 " + dsn)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := pgxpool.NewWithConfig(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

// notes makes a database with the tables of tenanttest, held to tenants.
func notes(tb testing.TB) *pgtest.Database {
	tb.Helper()
	db := pgtest.New(tb)
	install(tb, db)
	db.Exec(tb, pgtest.Owner, tenanttest.RLSTables, grant)
	mend(tb, db, rls.Schema{})
	return db
}

// open opens a Pool for pgx.
func open(tb testing.TB, p *pgxpool.Pool, cfg rls.Config) *rls.Pool[pgx.Tx] {
	tb.Helper()
	if cfg.Key.IsZero() {
		cfg.Key = key
	}
	pool, err := rls.Open(tb.Context(), p, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return pool
}

// as is a context of a tenant.
func as(tb testing.TB, name string) context.Context {
	return tenanttest.Context(tb.Context(), tenanttest.Claims{Tenant: name})
}

// querier is what pgx's pools, connections and transactions share.
type querier interface {
	Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
}

// texts runs a query with one column.
func texts(ctx context.Context, q querier, query string, args ...any) ([]string, error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// pgxTx is a transaction of pgx for the suite.
type pgxTx struct{ pgx.Tx }

func (t pgxTx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	tag, err := t.Tx.Exec(ctx, query, args...)
	return tag.RowsAffected(), err
}

func (t pgxTx) Strings(ctx context.Context, query string, args ...any) ([]string, error) {
	return texts(ctx, t.Tx, query, args...)
}

// sqlTx is one of database/sql.
type sqlTx struct{ *sql.Tx }

func (t sqlTx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := t.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (t sqlTx) Strings(ctx context.Context, query string, args ...any) (out []string, err error) {
	rows, err := t.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

// adapter is p under the suite's test, with a pool of connections outside.
func adapter[T any](p *rls.Pool[T], out *pgxpool.Pool, wrap func(T) tenanttest.RLSTx) tenanttest.RLSAdapter {
	return tenanttest.RLSAdapter{
		InTx: func(ctx context.Context, fn func(tenanttest.RLSTx) error) error {
			return p.InTx(ctx, func(tx T) error { return fn(wrap(tx)) })
		},
		Outside: func(ctx context.Context, fn func(tenanttest.RLSTx) error) error {
			return pgx.BeginFunc(ctx, out, func(tx pgx.Tx) error { return fn(pgxTx{tx}) })
		},
		Variable: "tenantmesh.proof",
		Conflict: rls.ErrConflict, Reference: rls.ErrReference, Foreign: rls.ErrForeign,
	}
}

func wrapPgx(tx pgx.Tx) tenanttest.RLSTx  { return pgxTx{tx} }
func wrapSQL(tx *sql.Tx) tenanttest.RLSTx { return sqlTx{tx} }

const patience = 20 * time.Second
