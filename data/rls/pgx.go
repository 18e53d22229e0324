package rls

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Open returns a Pool over p. It fails if the database or p's role would let a
// tenant see another's rows, with the [*FindingsError] that says where and how to
// mend it; if p uses pgx's simple protocol, which puts arguments into the text
// of queries; or if the database does not accept cfg.Key.
func Open(ctx context.Context, p *pgxpool.Pool, cfg Config) (*Pool[pgx.Tx], error) {
	return open(ctx, p, cfg, func(ctx context.Context) (session[pgx.Tx], error) {
		c, err := p.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		return &pgxSession{c, txn{conn: c.Conn()}}, nil
	})
}

type pgxSession struct {
	pooled *pgxpool.Conn
	txn
}

func (s *pgxSession) pgx() *pgx.Conn { return s.conn }

func (s *pgxSession) begin(ctx context.Context, opts sql.TxOptions, proof string) (pgx.Tx, error) {
	err := s.txn.begin(ctx, opts, proof)
	return s.tx, err
}

// release gives the connection back; the pool closes one that is still in a transaction.
func (s *pgxSession) release() { s.pooled.Release() }
