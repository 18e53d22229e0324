package rlsorm_test

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"gorm.io/gorm"

	"github.com/tenantmesh/tenantmesh/data/rls"
	rlsorm "github.com/tenantmesh/tenantmesh/examples/rls-orm"
	"github.com/tenantmesh/tenantmesh/internal/pgtest"
	"github.com/tenantmesh/tenantmesh/tenanttest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

var errTest = errors.New("test")

func TestORMs(t *testing.T) {
	db := pgtest.New(t)
	install, err := fs.ReadFile(rls.Migrations(), "0001_tenantmesh.sql")
	if err != nil {
		t.Fatal(err)
	}
	schema, err := os.ReadFile("schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	key, err := rls.NewKey("k1")
	if err != nil {
		t.Fatal(err)
	}
	db.Exec(t, pgtest.Owner, string(install), key.InsertSQL(), string(schema), rls.Schema{}.EnableSQL("public", "orders", "text"),
		"GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO app", "REVOKE TEMPORARY ON DATABASE "+db.Name+" FROM PUBLIC")
	p, err := pgxpool.New(t.Context(), db.DSN(pgtest.App))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	pool, err := rls.OpenSQL(t.Context(), p, rls.Config{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	orm, err := rlsorm.NewORM()
	if err != nil {
		t.Fatal(err)
	}
	as := func(name string) context.Context {
		return tenanttest.Context(t.Context(), tenanttest.Claims{Tenant: name})
	}
	for name, items := range map[string][]string{"acme": {"anvil", "rocket skates"}, "globex": {"doomsday device"}} {
		if err := pool.InTx(as(name), func(tx *sql.Tx) error {
			db := rlsorm.On(as(name), orm, tx)
			for i, item := range items {
				if err := db.Create(&rlsorm.Order{ID: int64(i + 1), Item: item, Quantity: 1}).Error; err != nil {
					return err
				}
			}
			// A transaction of GORM inside is a savepoint.
			if err := db.Transaction(func(tx *gorm.DB) error {
				return errors.Join(tx.Where("1 = 1").Delete(&rlsorm.Order{}).Error, errTest)
			}); !errors.Is(err, errTest) {
				t.Errorf("the savepoint: %v", err)
			}
			var all []rlsorm.Order
			if err := db.Order("id").Find(&all).Error; err != nil || len(all) != len(items) || all[0].Item != items[0] {
				t.Errorf("D5 %s sees %v, %v", name, all, err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := orm.Find(&[]rlsorm.Order{}).Error; !errors.Is(err, rlsorm.ErrOutside) {
		t.Errorf("D1 outside of InTx: %v", err)
	}

	native, err := rls.Open(t.Context(), p, rls.Config{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := rlsorm.RaiseQuantities(as("acme"), native); n != 2 || err != nil {
		t.Errorf("D5 sqlc: acme has %d orders, %v", n, err)
	}
	if err := pool.InTx(as("globex"), func(tx *sql.Tx) error {
		var o rlsorm.Order
		err := rlsorm.On(as("globex"), orm, tx).First(&o).Error
		if o.Quantity != 1 {
			t.Errorf("D5 sqlc: acme changed %v", o)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}
