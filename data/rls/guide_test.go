package rls_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tenantmesh/tenantmesh/data/rls"
	"github.com/tenantmesh/tenantmesh/internal/pgtest"
	"github.com/tenantmesh/tenantmesh/tenanttest"
)

var block = regexp.MustCompile("(?s)```sql\n-- as (\\w+)\n(.*?)```|<!-- (findings) -->\n(.*?)<!-- end -->|<!-- (migrations) run here -->|(?m)^(## 8)")

// TestGuide runs the SQL of docs/rls.md in order and holds the page to what it says.
func TestGuide(t *testing.T) {
	text, err := os.ReadFile("../../docs/rls.md")
	if err != nil {
		t.Fatal(err)
	}
	db := pgtest.New(t)
	db.Exec(t, pgtest.Superuser, "DROP ROLE IF EXISTS backup")
	app := connect(t, db.DSN(pgtest.App))
	schema := rls.Schema{Shared: []string{"public.plans"}}
	blocks := block.FindAllStringSubmatch(string(text), -1)
	for _, b := range blocks {
		switch {
		case b[1] != "":
			db.Exec(t, b[1], b[2])
		case b[3] != "":
			found, err := rls.Check(t.Context(), app, schema)
			if err != nil {
				t.Fatal(err)
			}
			want := "| finding | object |\n| --- | --- |\n"
			for _, f := range found {
				want += fmt.Sprintf("| `%s` | %s |\n", f.Code, f.Object)
			}
			if want = strings.ReplaceAll(want, db.Name, "shop"); b[4] != want {
				t.Errorf("the page's findings are\n%swant\n%s", b[4], want)
			}
		case b[5] != "":
			install(t, db)
			db.Exec(t, pgtest.Owner, key.DeleteSQL()) // the page makes its own
		default: // services start
			lines, err := texts(t.Context(), connect(t, db.DSN(pgtest.Owner)), "SELECT id || ':' || encode(secret, 'hex') FROM tenantmesh.keys")
			if err != nil || len(lines) != 1 {
				t.Fatal(lines, err)
			}
			k, err := rls.ParseKey(lines[0])
			if err != nil {
				t.Fatal(err)
			}
			p := open(t, app, rls.Config{Key: k, Schema: schema})
			acme := tenanttest.Context(t.Context(), tenanttest.Claims{Tenant: "acme", UID: "01J9ZK3V5Q8W7RBNXH2C4D6E8F"})
			if err := p.InTx(acme, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), "INSERT INTO orders (number, item) VALUES (2, 'rocket skates')"); err != nil {
					return err
				}
				got, err := texts(t.Context(), tx, "SELECT item || coalesce(' ' || sku, '') FROM orders o LEFT JOIN order_lines l ON l.order_id = o.id ORDER BY number")
				if strings.Join(got, ",") != "anvil sku-1,rocket skates" {
					t.Errorf("acme sees %q", got)
				}
				return err
			}); err != nil {
				t.Error(err)
			}
		}
	}
	if n := strings.Count(string(text), "```sql"); len(blocks) != n+3 {
		t.Errorf("%d of the page's %d blocks were run", len(blocks)-3, n)
	}
	if found, err := rls.Check(t.Context(), app, schema); err != nil || len(found) > 0 {
		t.Errorf("at the end: %v, %v", found, err)
	}
}

// TestUpgrade mends an existing schema with nothing but the SQL of the findings, and loses no row.
func TestUpgrade(t *testing.T) {
	db := pgtest.New(t)
	db.Exec(t, pgtest.Owner,
		"ALTER DEFAULT PRIVILEGES FOR ROLE owner GRANT ALL ON TABLES TO app, PUBLIC",
		`CREATE TABLE accounts (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), customer uuid NOT NULL, email text, parent uuid REFERENCES accounts)`,
		`CREATE UNIQUE INDEX accounts_email ON accounts (lower(email)) WHERE email IS NOT NULL`,
		`CREATE TABLE invoices (id serial PRIMARY KEY, customer uuid NOT NULL, account uuid NOT NULL REFERENCES accounts ON DELETE CASCADE, total int)`,
		`CREATE TABLE payments (id serial PRIMARY KEY, customer uuid NOT NULL, invoice int REFERENCES invoices ON DELETE SET NULL) PARTITION BY RANGE (id)`,
		`CREATE TABLE payments_1 PARTITION OF payments FOR VALUES FROM (0) TO (10000)`,
		`CREATE TABLE "Audit log" ("Customer id" text, customer uuid NOT NULL, line text)`,
		`INSERT INTO accounts (customer, email) SELECT ('00000000-0000-4000-8000-00000000000' || i % 3)::uuid, 'user' || i FROM generate_series(1, 300) i`,
		`INSERT INTO invoices (customer, account, total) SELECT customer, id, 1 FROM accounts, generate_series(1, 4)`,
		`INSERT INTO payments (customer, invoice) SELECT customer, id FROM invoices`,
		`INSERT INTO "Audit log" (customer, line) SELECT customer, email FROM accounts`,
		"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app",
	)
	schema := rls.Schema{TenantColumn: "customer", UIDColumn: "customer_uid"}
	install(t, db)
	db.Exec(t, pgtest.Owner, `INSERT INTO tenantmesh.tenants SELECT DISTINCT customer, 'uid-' || customer FROM accounts`)
	codes := map[string]int{}
	for _, f := range mend(t, db, schema) {
		codes[f.Code]++
		if f.Code == "keys-granted" {
			t.Errorf("the migration leaves default privileges: %+v", f)
		}
	}
	for _, code := range []string{"uid-missing", "privileges", "unique-key", "partition"} {
		if codes[code] == 0 {
			t.Errorf("nothing was found of %s: %v", code, codes)
		}
	}
	p := open(t, connect(t, db.DSN(pgtest.App)), rls.Config{Schema: schema})
	for i := range 3 {
		if err := p.InTx(as(t, fmt.Sprint("00000000-0000-4000-8000-00000000000", i)), func(tx pgx.Tx) error {
			got, err := texts(t.Context(), tx, `SELECT concat_ws(' ', (SELECT count(*) FROM accounts), (SELECT count(*) FROM invoices), (SELECT count(*) FROM payments), (SELECT count(*) FROM "Audit log"),
				(SELECT count(*) FROM accounts a JOIN invoices i ON i.account = a.id JOIN payments p ON p.invoice = i.id))`)
			if len(got) != 1 || got[0] != "100 400 400 100 400" {
				t.Errorf("tenant %d has %q", i, got)
			}
			if err == nil {
				_, err = tx.Exec(t.Context(), "DELETE FROM invoices WHERE id % 2 = 0") // SET NULL leaves the payments theirs
			}
			if err == nil {
				_, err = tx.Exec(t.Context(), "INSERT INTO accounts (email) VALUES ('USER7')") // taken by one of them
			}
			if i == 1 {
				if err == nil || !strings.Contains(err.Error(), "accounts_email") {
					t.Errorf("its own key: %v", err)
				}
				return errRollback
			}
			return err
		}); err != nil && i != 1 {
			t.Error(i, err)
		}
	}
	// All of it again changes nothing.
	db.Exec(t, pgtest.Owner, schema.EnableSQL("public", "accounts", "uuid"), schema.EnableSQL("public", "Audit log", "uuid"))
	if found, err := rls.Check(t.Context(), connect(t, db.DSN(pgtest.App)), schema); err != nil || len(found) > 0 {
		t.Errorf("after a second run: %v, %v", found, err)
	}
}
