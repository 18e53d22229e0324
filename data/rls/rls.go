// Package rls holds every PostgreSQL query to the tenant of its context, by row
// level security that even injected SQL does not get around.
//
//	pool, err := rls.Open(ctx, pgxPool, rls.Config{Key: key})  // refuses a database that leaks
//	err = pool.InTx(ctx, func(tx pgx.Tx) error {               // ctx carries a verified tenant
//		_, err := tx.Exec(ctx, "INSERT INTO orders (id, item) VALUES ($1, $2)", id, item)
//		return err
//	})
//
// [Pool.InTx] sets a variable, for the transaction alone, to a proof: tenant,
// uid, expiry, a nonce and the key's ID under an HMAC-SHA-256. The policies that
// [Schema.EnableSQL] writes let through the rows of the tenant whose proof the
// function tenantmesh.uid() verifies, inside the database and once a statement.
// Without a proof, and with one that was tampered with, there are
// no rows. The key lies in a table that the application's role cannot read, so SQL
// that sets the variable gets nothing.
//
// docs/rls.md leads a team with an existing schema from [Check] to there.
//
// # What remains possible
//
// Injected SQL does what it likes within the tenant of its transaction. It can keep
// a copy of that transaction's proof, and use it for the same tenant until it
// expires: [Config.MaxDuration] and five seconds later, at most. It learns from
// EXPLAIN's estimates, sequences and sizes of tables what they tell of all
// tenants' rows together, and it can write what it likes into shared tables, and into
// large objects, which have no row level security.
// SQL put into a text that is executed without arguments may be several
// statements, and prepare some under pgx's names. Whoever holds the key is every
// tenant: give it to the workloads that run InTx alone.
package rls

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/tenant"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the schema tenantmesh as plain SQL, one *.sql file a
// version, for any migration tool. A role runs it that is to own the schema: not the application's.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded
	}
	return sub
}

const (
	// leeway is how long the database accepts a proof past its transaction's
	// deadline, and how far its clock may be from ours.
	leeway = 5 * time.Second
	// proveEvery is how often a transaction first asks whether the database
	// accepts our proofs: where it does not, there are no rows, which is no error.
	proveEvery = 5 * time.Second
)

// Config says how a Pool proves tenants. Only Key must be set.
type Config struct {
	// Key signs the proofs. The database must hold it.
	Key Key
	// Schema says which columns hold the tenant.
	Schema Schema
	// MaxDuration is the longest that a transaction may take: 1 minute for 0, 5 minutes at most.
	MaxDuration time.Duration
	// Audit takes an event for each transaction that was refused because the
	// database does not accept its proof; nil for none.
	Audit audit.Sink

	now func() time.Time // nil: time.Now
}

// Pool runs transactions in which only the rows of the context's tenant are
// there. T is [pgx.Tx] or [*sql.Tx]. It is safe for concurrent use.
type Pool[T any] struct {
	cfg     Config
	pool    *pgxpool.Pool
	acquire func(ctx context.Context) (session[T], error)

	mu     sync.Mutex
	key    Key
	proven time.Time // when the database last accepted a proof by key
}

// session is a connection and the transaction on it, by pgx or database/sql.
type session[T any] interface {
	begin(ctx context.Context, opts sql.TxOptions, proof string) (T, error)
	commit(ctx context.Context) error
	rollback(ctx context.Context) error
	release()
	pgx() *pgx.Conn
}

func open[T any](ctx context.Context, p *pgxpool.Pool, cfg Config, acquire func(context.Context) (session[T], error)) (*Pool[T], error) {
	cfg.MaxDuration = cmp.Or(cfg.MaxDuration, time.Minute)
	switch {
	case cfg.MaxDuration < 0 || cfg.MaxDuration > 5*time.Minute:
		return nil, fmt.Errorf("rls: MaxDuration is %v, not between 0 and 5m", cfg.MaxDuration)
	case p.Config().ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol:
		// As in CVE-2024-27289.
		return nil, errors.New("rls: pgx's simple protocol is refused, since it puts arguments into the text of queries: " +
			"default_query_exec_mode=exec works behind a pooler, too")
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	findings, err := Check(ctx, p, cfg.Schema)
	if err != nil {
		return nil, err
	}
	if len(findings) > 0 {
		return nil, &FindingsError{findings}
	}
	pool := &Pool[T]{cfg: cfg, pool: p, acquire: acquire}
	if err := pool.UseKey(ctx, cfg.Key); err != nil {
		return nil, err
	}
	return pool, nil
}

// UseKey makes k the key that signs from now on, once the database has accepted
// a proof by it. If it does not, the key stays that was in use.
func (p *Pool[T]) UseKey(ctx context.Context, k Key) error {
	if k.IsZero() {
		return errors.New("rls: no key")
	}
	c, err := p.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	if err := p.prove(ctx, c.Conn(), k); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key, p.proven = k, p.cfg.now()
	return nil
}

// prove demands that the database accepts a proof by k.
func (p *Pool[T]) prove(ctx context.Context, c *pgx.Conn, k Key) error {
	now := p.cfg.now()
	t := txn{conn: c}
	if err := t.begin(ctx, sql.TxOptions{ReadOnly: true}, k.proof(now.Add(2*leeway), probe, probe)); err != nil {
		return err
	}
	defer t.rollback(ctx) //nolint:errcheck // the connection is closed then
	var accepted bool
	var clock time.Time
	if err := t.tx.QueryRow(ctx, "SELECT tenantmesh.uid() IS NOT NULL, statement_timestamp()").Scan(&accepted, &clock); err != nil {
		return err
	}
	took := p.cfg.now().Sub(now)
	if d := clock.Sub(now); d < -leeway || d > leeway+took {
		return tenant.Deny(tenant.Internal, "rls: the database's clock is %v from ours", d)
	}
	if !accepted {
		return tenant.Deny(tenant.Internal, "rls: the database does not accept a proof by key %q: is it in tenantmesh.keys?", k.id)
	}
	return nil
}

// probe stands for a tenant in a proof that asks whether proofs are accepted. No tenant has that ID.
const probe = "-"

// signer returns the key in use, once the database was asked about it within proveEvery.
func (p *Pool[T]) signer(ctx context.Context, c *pgx.Conn) (Key, error) {
	now := p.cfg.now()
	p.mu.Lock()
	k, fresh := p.key, now.Sub(p.proven) < proveEvery
	p.mu.Unlock()
	if fresh {
		return k, nil
	}
	if err := p.prove(ctx, c, k); err != nil {
		return Key{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.key.id == k.id {
		p.proven = now
	}
	return k, nil
}

// InTx runs fn in a transaction in which the rows of ctx's tenant are there, and
// no others, and commits it if fn returns nil. If fn fails or panics, or ctx has
// ended, or the claims have, or more than MaxDuration has passed, it rolls back.
// Its errors are [tenant.Error] where ctx has no valid tenant, and otherwise as [MapError] has them.
//
// fn runs its queries with a context of its own, and on tx alone: another
// connection shows no rows. After fn, tx is closed.
func (p *Pool[T]) InTx(ctx context.Context, fn func(tx T) error) error {
	return p.InTxWith(ctx, sql.TxOptions{}, fn)
}

// InTxWith is InTx with an isolation level, or read only.
func (p *Pool[T]) InTxWith(ctx context.Context, opts sql.TxOptions, fn func(tx T) error) error {
	tc, err := tenant.Require(ctx)
	if err != nil {
		return err
	}
	if !validUID(tc.TenantUID()) {
		return tenant.Deny(tenant.ContextMalformed, "rls: the context has no uid of its tenant")
	}
	deadline := p.cfg.now().Add(p.cfg.MaxDuration)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if e := tc.Expires(); e.Before(deadline) {
		deadline = e
	}
	s, err := p.acquire(ctx)
	if err != nil {
		return err
	}
	defer s.release()
	key, err := p.signer(ctx, s.pgx())
	if err != nil {
		p.record(ctx, tc, err)
		return MapError(err)
	}
	tx, err := s.begin(ctx, opts, key.proof(deadline.Add(leeway), tc.Tenant().String(), tc.TenantUID()))
	if err != nil {
		return err
	}
	committed := false
	defer func() { // also where fn panics or exits the goroutine
		if !committed {
			_ = s.rollback(ctx) // where it fails the connection is closed
		}
	}()
	if err := fn(tx); err != nil {
		return MapError(err)
	}
	// Past the deadline a statement may have found no rows for want of a proof.
	if !p.cfg.now().Before(deadline) {
		return fmt.Errorf("rls: the transaction took too long: %w", context.DeadlineExceeded)
	}
	if _, err := tenant.Require(ctx); err != nil {
		return err
	}
	err = s.commit(ctx)
	committed = err == nil
	return MapError(err)
}

// record leaves an event of a proof that was refused.
func (p *Pool[T]) record(ctx context.Context, tc tenant.Context, err error) {
	why, ok := errors.AsType[*tenant.Error](err)
	if !ok || p.cfg.Audit == nil {
		return
	}
	e := audit.Event{Point: audit.Data, Tenant: tc.Tenant().String(), Subject: tc.Subject(), Transaction: tc.Transaction(), Proven: true}
	audit.Recorder{Sink: p.cfg.Audit, Clock: p.cfg.now}.Refuse(ctx, e, why)
}
