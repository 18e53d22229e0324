package rls_test

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantmesh/tenantmesh/data/rls"
	"github.com/tenantmesh/tenantmesh/internal/pgtest"
)

// bench makes the table items, held to tenants, and bare, with the same rows and indexes by the tenant's ID, and no policy.
func bench(b *testing.B, tenants, rows int) (*pgxpool.Pool, *rls.Pool[pgx.Tx]) {
	b.Helper()
	db := pgtest.New(b)
	install(b, db)
	db.Exec(b, pgtest.Owner, "CREATE TABLE items (tenant_id text NOT NULL, tenant_uid text NOT NULL, id bigint NOT NULL, body text NOT NULL, PRIMARY KEY (tenant_uid, id))",
		rls.Schema{}.EnableSQL("public", "items", "text"),
		"CREATE TABLE bare (tenant_id text NOT NULL, tenant_uid text NOT NULL, id bigint NOT NULL, body text NOT NULL, PRIMARY KEY (tenant_id, id))",
		"CREATE INDEX ON bare (tenant_id)", grant, "REVOKE TEMPORARY ON DATABASE "+db.Name+" FROM PUBLIC")
	for _, table := range []string{"items", "bare"} {
		db.Exec(b, pgtest.Superuser, "INSERT INTO "+table+" SELECT 'acme-' || t, 'uid-acme-' || t, i, 'the body of item ' || i FROM generate_series(1, "+strconv.Itoa(tenants)+") t, generate_series(1, "+strconv.Itoa(rows)+") i",
			"VACUUM ANALYZE "+table)
	}
	p := connect(b, db.DSN(pgtest.App)+" pool_max_conns=1")
	return p, open(b, p, rls.Config{Schema: rls.Schema{Shared: []string{"public.bare"}}})
}

// plain runs fn in a transaction with SET LOCAL, in the same number of round trips as InTx.
func plain(ctx context.Context, p *pgxpool.Pool, fn func(pgx.Tx) error) error {
	c, err := p.Acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	var b pgx.Batch
	b.BeginTx(pgx.TxOptions{})
	b.Queue("SELECT set_config('app.tenant', $1, true)", "acme-1")
	r := c.SendBatch(ctx, &b)
	if err := r.Close(); err != nil {
		return err
	}
	if err := fn(r.Tx()); err != nil {
		return err
	}
	return r.Tx().Commit(ctx)
}

// side is one of those that are compared: the first is ours.
type side struct {
	ratio string // the metric for how long ours takes beside it
	run   func() error
}

// interleave runs all sides by turns and reports ratios of their medians.
func interleave(b *testing.B, sides ...side) {
	b.Helper()
	took := make([][]time.Duration, len(sides))
	run := func(i int) time.Duration {
		start := time.Now()
		if err := sides[i].run(); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	for n := range 10 * len(sides) { // plans are generic after five
		run(n % len(sides))
	}
	for n := 0; b.Loop(); n++ {
		for i := range sides {
			i = (i + n) % len(sides)
			took[i] = append(took[i], run(i))
		}
	}
	at := func(i int, quantile float64) float64 {
		slices.Sort(took[i])
		return float64(took[i][int(quantile*float64(len(took[i])))])
	}
	b.ReportMetric(at(0, 0.5)/1e3, "µs/ours")
	for i, s := range sides[1:] {
		b.ReportMetric(at(0, 0.5)/at(i+1, 0.5), s.ratio)
		b.ReportMetric(at(0, 0.1)/at(i+1, 0.1), s.ratio+"-p10") // what a busy machine blurs least
	}
}

// BenchmarkPointQuery reads a row by its key in a transaction of its own.
func BenchmarkPointQuery(b *testing.B) {
	p, pool := bench(b, 100, 1000)
	ctx := as(b, "acme-1")
	n := 0
	one := func(tx pgx.Tx, query string, args ...any) error {
		var body string
		return tx.QueryRow(ctx, query, args...).Scan(&body)
	}
	bare := func(tx pgx.Tx) error {
		n++
		return one(tx, "SELECT body FROM bare WHERE tenant_id = $2 AND id = $1", n%1000+1, "acme-1")
	}
	interleave(b, side{"", func() error {
		n++
		return pool.InTx(ctx, func(tx pgx.Tx) error { return one(tx, "SELECT body FROM items WHERE id = $1", n%1000+1) })
	}}, side{"ratio", func() error { return plain(ctx, p, bare) }},
		side{"ratio-unbatched", func() error { // as most would write it, in a round trip more
			return pgx.BeginFunc(ctx, p, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "SELECT set_config('app.tenant', $1, true)", "acme-1"); err != nil {
					return err
				}
				return bare(tx)
			})
		}})
}

// BenchmarkScan reads 100,000 rows of a tenant.
func BenchmarkScan(b *testing.B) {
	p, pool := bench(b, 2, 100_000)
	ctx := as(b, "acme-1")
	all := func(tx pgx.Tx, query string, args ...any) error {
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		n := 0
		for rows.Next() {
			n++
		}
		if n != 100_000 {
			b.Fatalf("%d rows", n)
		}
		return rows.Err()
	}
	interleave(b, side{"", func() error {
		return pool.InTx(ctx, func(tx pgx.Tx) error { return all(tx, "SELECT id, body FROM items") })
	}}, side{"ratio", func() error {
		return plain(ctx, p, func(tx pgx.Tx) error { return all(tx, "SELECT id, body FROM bare WHERE tenant_id = $1", "acme-1") })
	}})
}
