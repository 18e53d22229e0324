package rls

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// set puts the proof into the variable for the transaction. It is an argument, not part
	// of the text, since pg_stat_activity shows texts to all sessions of the role.
	set = "SELECT set_config('tenantmesh.proof', $1, true)"
	// reset takes off the session what injected SQL may have set: a copy of the
	// proof, or a search_path for others' queries.
	reset = "RESET ALL"
	// endTimeout is how long a roll-back may take.
	endTimeout = 5 * time.Second
)

// errEnded is for a transaction that fn, or SQL injected into it, ended.
var errEnded = errors.New("rls: the transaction was ended inside InTx")

// txn is a transaction with a proof on a connection.
type txn struct {
	conn *pgx.Conn
	tx   pgx.Tx
}

// begin sends BEGIN and the proof together. Where it fails the connection is closed.
func (t *txn) begin(ctx context.Context, opts sql.TxOptions, proof string) error {
	begin := "BEGIN"
	switch opts.Isolation {
	case sql.LevelDefault:
	case sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable:
		begin += " ISOLATION LEVEL " + opts.Isolation.String()
	default:
		return fmt.Errorf("rls: PostgreSQL has no isolation level %v", opts.Isolation)
	}
	if opts.ReadOnly {
		begin += " READ ONLY"
	}
	var b pgx.Batch
	b.BeginTx(pgx.TxOptions{BeginQuery: begin, CommitQuery: "COMMIT; " + reset})
	b.Queue(set, proof)
	r := t.conn.SendBatch(ctx, &b)
	if err := r.Close(); err != nil {
		return errors.Join(err, t.close())
	}
	t.tx = r.Tx()
	return nil
}

// commit sends COMMIT and the reset together, if there is a transaction to commit.
func (t *txn) commit(ctx context.Context) error {
	switch t.conn.PgConn().TxStatus() {
	case 'T':
		return t.tx.Commit(ctx)
	case 'E':
		return pgx.ErrTxCommitRollback
	default:
		return errEnded
	}
}

// rollback ends what was not committed, also where ctx has ended. It leaves the
// connection clean or closed.
func (t *txn) rollback(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	err := t.tx.Rollback(ctx)
	if err == nil || errors.Is(err, pgx.ErrTxClosed) {
		_, err = t.conn.Exec(ctx, reset)
	}
	if err != nil {
		return errors.Join(err, t.close())
	}
	return nil
}

func (t *txn) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	return t.conn.Close(ctx)
}
