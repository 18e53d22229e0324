package rls

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// OpenSQL is [Open] for database/sql, and for what builds on it. The
// transactions run on p's connections.
func OpenSQL(ctx context.Context, p *pgxpool.Pool, cfg Config) (*Pool[*sql.Tx], error) {
	db := sql.OpenDB(connector{stdlib.GetPoolConnector(p)})
	db.SetMaxIdleConns(0) // p keeps them
	pool, err := open(ctx, p, cfg, func(ctx context.Context) (session[*sql.Tx], error) {
		c, err := db.Conn(ctx)
		if err != nil {
			return nil, err
		}
		s := &sqlSession{c: c}
		if err := c.Raw(func(dc any) error { s.conn = dc.(*sqlConn).Conn.Conn(); return nil }); err != nil { //nolint:errcheck // connector made it
			return nil, errors.Join(err, c.Close())
		}
		return s, nil
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return pool, nil
}

type sqlSession struct {
	c    *sql.Conn
	conn *pgx.Conn
	tx   *sql.Tx
}

func (s *sqlSession) pgx() *pgx.Conn { return s.conn }

func (s *sqlSession) begin(ctx context.Context, opts sql.TxOptions, proof string) (_ *sql.Tx, err error) {
	s.tx, err = s.c.BeginTx(context.WithValue(ctx, proofKey{}, proof), &opts)
	return s.tx, err
}

func (s *sqlSession) commit(context.Context) error   { return s.tx.Commit() }
func (s *sqlSession) rollback(context.Context) error { return s.tx.Rollback() }
func (s *sqlSession) release()                       { _ = s.c.Close() }

// proofKey is where a context has the proof for BeginTx.
type proofKey struct{}

type connector struct{ driver.Connector }

// Connect implements [driver.Connector].
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	std, ok := conn.(*stdlib.Conn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("rls: the driver is %T, not pgx's", conn), conn.Close())
	}
	return &sqlConn{std}, nil
}

// sqlConn is a connection whose transactions begin with a proof, so that
// database/sql needs no round trip of its own for it.
type sqlConn struct{ *stdlib.Conn }

// BeginTx implements [driver.ConnBeginTx].
func (c *sqlConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	proof, ok := ctx.Value(proofKey{}).(string)
	if !ok {
		return nil, errors.New("rls: a transaction without a proof")
	}
	t := &sqlTx{ctx, txn{conn: c.Conn.Conn()}}
	return t, t.begin(ctx, sql.TxOptions{Isolation: sql.IsolationLevel(opts.Isolation), ReadOnly: opts.ReadOnly}, proof)
}

// sqlTx implements [driver.Tx].
type sqlTx struct {
	ctx context.Context
	txn
}

// Commit implements [driver.Tx].
func (t *sqlTx) Commit() error { return t.commit(t.ctx) }

// Rollback implements [driver.Tx].
func (t *sqlTx) Rollback() error { return t.rollback(t.ctx) }
