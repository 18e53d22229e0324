package mesh

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantmesh/tenantmesh/data/rls"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Database is where a workload keeps its records under data/rls: in the table
// records, with the columns workload and record, as [Mesh.Record] has them.
type Database struct {
	// DSN is how it connects, as a role that row level security binds.
	DSN string
	// Key is the text of the key that proves tenants.
	Key string
}

// Record is what a workload keeps for a tenant, of this mesh.
func (m *Mesh) Record(workload, tenantID string) string { return record(m.seed, workload, tenantID) }

func record(seed, workload, tenantID string) string {
	sum := sha256.Sum256([]byte(seed + "\x00" + workload + "\x00" + tenantID))
	return hex.EncodeToString(sum[:8])
}

// records opens the workload's records: a function that returns that of ctx's tenant.
func (e *Env) records(ctx context.Context) (func(ctx context.Context) (string, error), error) {
	name := e.Workload.Name
	if e.Workload.Database == nil {
		return func(ctx context.Context) (string, error) {
			tc, err := tenant.Require(ctx)
			return record(e.Seed, name, tc.Tenant().String()), err
		}, nil
	}
	key, err := rls.ParseKey(e.Workload.Database.Key)
	if err != nil {
		return nil, err
	}
	p, err := pgxpool.New(ctx, e.Workload.Database.DSN)
	if err != nil {
		return nil, err
	}
	e.closing = append(e.closing, func() error { p.Close(); return nil })
	pool, err := rls.Open(ctx, p, rls.Config{Key: key, Audit: e.trail})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (r string, err error) {
		err = pool.InTx(ctx, func(tx pgx.Tx) error {
			return tx.QueryRow(ctx, "SELECT record FROM records WHERE workload = $1", name).Scan(&r)
		})
		return r, err
	}, nil
}
