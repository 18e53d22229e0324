package rls

import (
	"cmp"
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Schema says which columns hold the tenant.
type Schema struct {
	// TenantColumn holds the tenant's ID: "tenant_id" if empty. Any type will do whose text is the ID.
	TenantColumn string
	// UIDColumn holds the tenant's uid, as text: "tenant_uid" if empty. A tenant
	// that is deleted and created again has another uid, and so none of its predecessor's rows.
	UIDColumn string
	// Shared are the tables, as schema.table, that hold no tenant's data.
	Shared []string
	// Roles are those to check: if empty, the session's and the current one.
	Roles []string
}

func (s Schema) columns() (tenant, uid string) {
	return cmp.Or(s.TenantColumn, "tenant_id"), cmp.Or(s.UIDColumn, "tenant_uid")
}

var (
	//go:embed enable.sql
	enable string
	//go:embed check.sql
	report string
)

// EnableSQL returns the statements that hold a table, of a schema such as
// public, to tenants: the uid's column, filled from tenantmesh.tenants; defaults, so that an INSERT need
// not name the tenant; a policy, restrictive so that no other widens it; RLS
// enabled and forced. typ is the type of the tenant's column, such as text. They are one transaction, may be
// run again, and fail if a row's tenant is not in tenantmesh.tenants. The table's owner runs them.
func (s Schema) EnableSQL(schema, table, typ string) string {
	tenant, uid := s.columns()
	return strings.NewReplacer(
		"{table}", pgx.Identifier{schema, table}.Sanitize(), "{tenant}", identifier(tenant), "{uid}", identifier(uid),
		"{index}", identifier(table+"_"+uid+"_idx"), "{type}", typ,
	).Replace(enable)
}

// ReportSQL returns the query that [Check] runs, for psql: a line for each
// finding, with code, object, detail and fix, in the order in which to mend them.
func (s Schema) ReportSQL() (string, error) {
	install, err := migrations.ReadFile("migrations/0001_tenantmesh.sql")
	if err != nil {
		return "", err
	}
	tenant, uid := s.columns()
	return strings.NewReplacer(
		"{{tenant}}", literal(tenant), "{{uid}}", literal(uid), "{{shared}}", array(s.Shared), "{{roles}}", array(s.Roles),
		"{{enable}}", literal(enable), "{{install}}", literal(string(install)),
	).Replace(report), nil
}

func identifier(name string) string { return pgx.Identifier{name}.Sanitize() }

// literal is s as a string constant that reads the same whatever standard_conforming_strings is.
func literal(s string) string {
	return ` E'` + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + `'`
}

func array(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = literal(s)
	}
	return fmt.Sprintf("ARRAY[%s]::text[]", strings.Join(quoted, ","))
}
