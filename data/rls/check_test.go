package rls_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tenantmesh/tenantmesh/data/rls"
	"github.com/tenantmesh/tenantmesh/internal/pgtest"
)

// TestCheck makes each hole in a database without any, and demands that Open refuses it
// with that finding and that the SQL of the findings mends it.
func TestCheck(t *testing.T) {
	db := notes(t)
	schema := rls.Schema{Shared: []string{"public.plans"}}
	db.Exec(t, pgtest.Owner, "CREATE TABLE plans (id text PRIMARY KEY)", "GRANT SELECT ON plans TO app")
	db.Exec(t, pgtest.Superuser, "CREATE ROLE "+db.Name+"_group", "CREATE EXTENSION btree_gist", "CREATE FOREIGN DATA WRAPPER w", "CREATE SERVER s FOREIGN DATA WRAPPER w", "CREATE SCHEMA evil",
		"CREATE FUNCTION evil.tenant(OUT tenant text, OUT uid text) LANGUAGE sql STABLE AS $$ SELECT 'acme', 'uid-acme' $$",
		"CREATE FUNCTION evil.uid() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'uid-acme' $$", "GRANT USAGE ON SCHEMA evil TO app")
	group := db.Name + "_group"
	const tenantPolicy = " USING (tenant_uid = (SELECT tenantmesh.uid()))"
	const checked = " WITH CHECK ((tenant_id, tenant_uid) = (SELECT t.tenant, t.uid FROM tenantmesh.tenant() t))"
	for _, c := range []struct{ name, code, object, sql string }{
		{"D2 superuser", "role-superuser", "role app", "ALTER ROLE app SUPERUSER"},
		{"D2 BYPASSRLS", "role-bypassrls", "role app", "ALTER ROLE app BYPASSRLS"},
		{"D2 CREATEROLE", "role-createrole", "role app", "ALTER ROLE app CREATEROLE"},
		{"D2 REPLICATION", "role-replication", "role app", "ALTER ROLE app REPLICATION"},
		{"D2 member of the owner", "role-member", "role app", "GRANT owner TO app"},
		{"D2 member of a member of the owner", "role-member", "role app", "GRANT owner TO " + group + "; GRANT " + group + " TO app"},
		{"D2 member of a superuser", "role-member", "role app", "GRANT postgres TO app"},
		{"D2 member of a predefined role", "role-member", "role app", "GRANT pg_read_all_data TO app"},
		{"D2 owner of a table", "role-owner", "table public.notes", "ALTER TABLE notes OWNER TO app"},
		{"D2 owner of the schema", "role-owner", "schema tenantmesh", "ALTER SCHEMA tenantmesh OWNER TO app"},
		{"D2 owner of the function", "role-owner", "schema tenantmesh", "ALTER FUNCTION tenantmesh.uid() OWNER TO app"},
		{"D2 row_security off for the role", "row-security-off", "role app", "ALTER ROLE app SET row_security = off"},
		{"D2 row_security off for the database", "row-security-off", "role app", "ALTER DATABASE " + db.Name + " SET row_security = off"},
		{"D3 keys granted", "keys-granted", "table tenantmesh.keys", "GRANT SELECT ON tenantmesh.keys TO app"},
		{"D3 keys granted to a group", "keys-granted", "table tenantmesh.keys", "GRANT INSERT ON tenantmesh.keys TO " + group + "; GRANT " + group + " TO app"},
		{"D3 a column of the keys granted to all", "keys-granted", "table tenantmesh.keys", "GRANT SELECT (secret) ON tenantmesh.keys TO PUBLIC"},
		{"D3 function not SECURITY DEFINER", "function-changed", "function tenantmesh.uid()", "ALTER FUNCTION tenantmesh.uid() SECURITY INVOKER"},
		{"D3 function without its search_path", "function-changed", "function tenantmesh.tenant()", "ALTER FUNCTION tenantmesh.tenant() RESET search_path; ALTER FUNCTION tenantmesh.uid() SET search_path = public"},
		{"D3 function VOLATILE", "function-changed", "function tenantmesh.tenant()", "ALTER FUNCTION tenantmesh.tenant() VOLATILE"},
		{"D2 not enabled", "rls-disabled", "table public.notes", "ALTER TABLE notes DISABLE ROW LEVEL SECURITY"},
		{"D2 owner without FORCE", "rls-not-forced", "table public.notes", "ALTER TABLE notes NO FORCE ROW LEVEL SECURITY"},
		{"D2 new table", "uid-missing", "table public.more", "CREATE TABLE more (tenant_id text, id int)"},
		{"D2 new table whose names need quotes", "uid-missing", `table public."More ""it"`, `CREATE TABLE "More ""it" (tenant_id uuid, id int)`},
		{"D2 no policy", "policy", "table public.notes", "DROP POLICY tenantmesh ON notes"},
		{"D2 policy of some roles", "policy", "table public.notes", "ALTER POLICY tenantmesh ON notes TO owner"},
		{"D2 policy that holds for all", "policy", "table public.notes", "ALTER POLICY tenantmesh ON notes USING (true)"},
		{"D2 policy that holds for some more", "policy", "table public.notes", "ALTER POLICY tenantmesh ON notes USING (body = 'x' OR tenant_uid = (SELECT tenantmesh.uid()))"},
		{"D2 policy that checks less", "policy", "table public.notes", "ALTER POLICY tenantmesh ON notes WITH CHECK (true)"},
		{"D10 policy without the uid", "policy", "table public.notes", "ALTER POLICY tenantmesh ON notes USING (tenant_id = (SELECT t.tenant FROM tenantmesh.tenant() t))"},
		// Where a schema comes first in search_path, its functions are shown without it.
		{"D3 policy by another function", "policy", "table public.notes", "ALTER ROLE app IN DATABASE " + db.Name + " SET search_path = evil, public; ALTER POLICY tenantmesh ON notes USING (tenant_uid = (SELECT evil.uid()))"},
		{"D3 policy that checks by another function", "policy", "table public.notes", "ALTER POLICY tenantmesh ON notes WITH CHECK ((tenant_id, tenant_uid) = (SELECT t.tenant, t.uid FROM evil.tenant() t))"},
		{"D2 policy that checks rows as it shows them", "policy", "table public.notes", "DROP POLICY tenantmesh ON notes; CREATE POLICY tenantmesh ON notes AS RESTRICTIVE" + tenantPolicy},
		{"D2 policy of one command", "policy", "table public.notes", "DROP POLICY tenantmesh ON notes; CREATE POLICY tenantmesh ON notes AS RESTRICTIVE FOR UPDATE" + tenantPolicy + checked},
		{"D2 policy that others widen", "policy", "table public.notes", "DROP POLICY tenantmesh ON notes; CREATE POLICY tenantmesh ON notes" + tenantPolicy + checked},
		{"D2 TRUNCATE", "privileges", "table public.notes", "GRANT TRUNCATE ON notes TO app"},
		{"D2 TRIGGER to a group", "privileges", "table public.notes", "GRANT TRIGGER ON notes TO " + group + "; GRANT " + group + " TO app"},
		{"D2 table without the tenant", "no-tenant-column", "table public.lost", "CREATE TABLE lost (id int); GRANT SELECT ON lost TO app"},
		{"D2 column of a table without the tenant", "no-tenant-column", "table public.lost2", "CREATE TABLE lost2 (id int); GRANT SELECT (id) ON lost2 TO app"},
		{"D1 temporary tables", "temporary", "database " + db.Name, "GRANT TEMPORARY ON DATABASE " + db.Name + " TO app"},
		{"D1 schemas", "create", "database " + db.Name, "GRANT CREATE ON DATABASE " + db.Name + " TO app"},
		{"D1 functions in a schema", "create", "schema public", "GRANT CREATE ON SCHEMA public TO PUBLIC"},
		{"D1 schema of the role", "role-owner", "schema app", "CREATE SCHEMA app AUTHORIZATION app"},
		{"D2 foreign table", "foreign-table", "foreign table public.f", "CREATE FOREIGN TABLE f (tenant_id text, tenant_uid text) SERVER s; GRANT SELECT ON f TO app"},
		{"D2 partition", "partition", "table public.parts_1", "CREATE TABLE parts (tenant_id text, tenant_uid text, id int) PARTITION BY LIST (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1); GRANT SELECT ON parts, parts_1 TO app"},
		{"D4 unique constraint", "unique-key", "notes_body on table public.notes", "ALTER TABLE notes ADD CONSTRAINT notes_body UNIQUE (body)"},
		{"D10 unique key of the tenant's name", "unique-key", "notes_body2 on table public.notes", "ALTER TABLE notes ADD CONSTRAINT notes_body2 UNIQUE (tenant_id, body)"},
		{"D4 unique index", "unique-key", "notes_lower on table public.notes", "CREATE UNIQUE INDEX notes_lower ON notes (lower(body)) WHERE size > 1"},
		{"D4 unique index that includes the uid", "unique-key", "notes_including on table public.notes", "CREATE UNIQUE INDEX notes_including ON notes (body, size) INCLUDE (tenant_uid)"},
		{"D4 exclusion", "unique-key", "notes_size on table public.notes", "ALTER TABLE notes ADD CONSTRAINT notes_size EXCLUDE USING gist (int4range(size, size + 1) WITH &&)"},
		{"D4 foreign key and its unique key", "foreign-key", "replies_bad on table public.replies", "ALTER TABLE notes ADD CONSTRAINT notes_id UNIQUE (id); ALTER TABLE replies ADD CONSTRAINT replies_bad FOREIGN KEY (note) REFERENCES notes (id) ON DELETE CASCADE"},
		{"D4 foreign key of a shared table", "foreign-key", "plans_note on table public.plans", "ALTER TABLE notes ADD CONSTRAINT notes_id2 UNIQUE (id); ALTER TABLE plans ADD note text, ADD CONSTRAINT plans_note FOREIGN KEY (note) REFERENCES notes (id)"},
		{"D4 shared table that tenants refer to", "shared-parent", "table public.plans", "ALTER TABLE notes ADD plan text REFERENCES plans; GRANT DELETE ON plans TO app"},
		{"D2 view", "view-definer", "view public.v", "CREATE VIEW v AS SELECT * FROM notes; GRANT SELECT ON v TO app"},
		{"D2 view on a view", "view-definer", "view public.v3", "CREATE VIEW v2 WITH (security_invoker = on) AS SELECT * FROM notes; CREATE VIEW v3 WITH (security_invoker = off) AS SELECT * FROM v2; GRANT SELECT ON v2, v3 TO app"},
		{"D2 materialized view", "materialized-view", "materialized view public.m", "CREATE MATERIALIZED VIEW m AS SELECT * FROM notes; GRANT SELECT ON m TO app"},
		{"D2 SECURITY DEFINER function", "security-definer", "function public.f()", "CREATE FUNCTION f() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT max(body) FROM notes'"},
		{"D2 SECURITY DEFINER trigger", "security-definer", "function public.tr()", "CREATE FUNCTION tr() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NEW; END'; REVOKE ALL ON FUNCTION tr() FROM PUBLIC"},
	} {
		t.Run(c.name, func(t *testing.T) {
			db.Exec(t, pgtest.Superuser, "SET search_path = public; "+c.sql)
			p := connect(t, db.DSN(pgtest.App))
			_, err := rls.Open(t.Context(), p, rls.Config{Key: key, Schema: schema})
			refused, ok := errors.AsType[*rls.FindingsError](err)
			if !ok {
				t.Fatalf("Open: %v", err)
			}
			same := func(f rls.Finding) bool { return f.Code == c.code && f.Object == c.object }
			i := slices.IndexFunc(refused.Findings, same)
			if i < 0 {
				t.Errorf("no %s of %s: %v", c.code, c.object, err)
			} else if f := refused.Findings[i]; f.Fix == "" || f.Detail == "" || !strings.Contains(err.Error(), f.Fix) {
				t.Errorf("the error does not tell of %+v: %v", f, err)
			}
			for i, found := 0, refused.Findings; len(found) > 0; i++ {
				if i == 5 {
					t.Fatalf("the findings' SQL does not mend it: %v", found)
				}
				db.Exec(t, pgtest.Superuser, found[0].Fix)
				// A connection of its own: a role's settings hold from its start.
				if found, err = rls.Check(t.Context(), connect(t, db.DSN(pgtest.App)), schema); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestCheckServer gives the report another server version.
func TestCheckServer(t *testing.T) {
	db := notes(t)
	query, err := rls.Schema{}.ReportSQL()
	if err != nil {
		t.Fatal(err)
	}
	for version, old := range map[string]bool{"150013": true, "150014": false, "160009": true, "160010": false, "170005": true, "170006": false, "180000": false, "140019": true} {
		got, err := texts(t.Context(), connect(t, db.DSN(pgtest.App)),
			"SELECT code || object || fix FROM ("+strings.ReplaceAll(query, "current_setting('server_version_num')", "'"+version+"'")+") f")
		if err != nil || old != (len(got) == 1 && strings.HasPrefix(got[0], "server-versionserver-- upgrade")) {
			t.Errorf("%s: %q, %v", version, got, err)
		}
	}
}

// TestCheckSession finds the role behind SET ROLE, to which RESET ROLE leads back.
func TestCheckSession(t *testing.T) {
	db := notes(t)
	found, err := rls.Check(t.Context(), connect(t, db.DSN(pgtest.Owner)+" options='-c role=app'"), rls.Schema{})
	if err == nil {
		t.Log(found)
	}
	db.Exec(t, pgtest.Superuser, "GRANT app TO owner")
	found, err = rls.Check(t.Context(), connect(t, db.DSN(pgtest.Owner)+" options='-c role=app'"), rls.Schema{})
	if err != nil || !slices.ContainsFunc(found, func(f rls.Finding) bool { return f.Code == "role-owner" && f.Object == "table public.notes" }) {
		t.Errorf("got %v, %v", found, err)
	}
}
