// Package rlsorm shows code that sqlc generates, and GORM, on the transactions
// of data/rls: neither names the tenant in any query.
package rlsorm

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/tenantmesh/tenantmesh/data/rls"
	"github.com/tenantmesh/tenantmesh/examples/rls-orm/sqlcdb"
)

// RaiseQuantities adds one to each of the tenant's orders, and counts them. What
// sqlc generates takes a transaction of pgx as it is.
func RaiseQuantities(ctx context.Context, pool *rls.Pool[pgx.Tx]) (n int64, err error) {
	err = pool.InTx(ctx, func(tx pgx.Tx) error {
		q := sqlcdb.New(tx)
		if _, err := q.RaiseQuantities(ctx); err != nil {
			return err
		}
		n, err = q.CountOrders(ctx)
		return err
	})
	return n, err
}

// Order is a row for GORM. The database fills in and checks whose it is.
type Order struct {
	ID       int64 `gorm:"primaryKey"`
	Item     string
	Quantity int
}

// NewORM makes a GORM that reaches the database inside InTx alone.
func NewORM() (*gorm.DB, error) {
	return gorm.Open(postgres.New(postgres.Config{Conn: sql.OpenDB(outside{})}), &gorm.Config{SkipDefaultTransaction: true, DisableAutomaticPing: true})
}

// On returns orm on a transaction of InTx.
func On(ctx context.Context, orm *gorm.DB, tx *sql.Tx) *gorm.DB {
	db := orm.Session(&gorm.Session{NewDB: true, Context: ctx})
	db.Statement.ConnPool = tx
	return db
}

// ErrOutside refuses what is asked outside of InTx.
var ErrOutside = errors.New("a query outside of InTx")

// outside is no database.
type outside struct{}

// Connect implements [driver.Connector].
func (outside) Connect(context.Context) (driver.Conn, error) { return nil, ErrOutside }

// Driver implements [driver.Connector].
func (outside) Driver() driver.Driver { return nil }
