package rls_test

import (
	"fmt"

	"github.com/tenantmesh/tenantmesh/data/rls"
)

func ExampleSchema_EnableSQL() {
	fmt.Print(rls.Schema{}.EnableSQL("public", "orders", "text"))
	// Output:
	// BEGIN;
	// -- For a second run: where it is forced, the table's owner sees no rows.
	// ALTER TABLE "public"."orders" NO FORCE ROW LEVEL SECURITY;
	// ALTER TABLE "public"."orders" ADD COLUMN IF NOT EXISTS "tenant_uid" text;
	// UPDATE "public"."orders" t SET "tenant_uid" = k.uid FROM tenantmesh.tenants k WHERE t."tenant_uid" IS NULL AND k.tenant = t."tenant_id"::text;
	// ALTER TABLE "public"."orders"
	//   ALTER COLUMN "tenant_id" SET NOT NULL,
	//   ALTER COLUMN "tenant_id" SET DEFAULT split_part(current_setting('tenantmesh.proof', true), '/', 5)::text,
	//   ALTER COLUMN "tenant_uid" SET NOT NULL,
	//   ALTER COLUMN "tenant_uid" SET DEFAULT split_part(current_setting('tenantmesh.proof', true), '/', 6);
	// CREATE INDEX IF NOT EXISTS "orders_tenant_uid_idx" ON "public"."orders" ("tenant_uid");
	// DROP POLICY IF EXISTS tenantmesh ON "public"."orders";
	// CREATE POLICY tenantmesh ON "public"."orders" AS RESTRICTIVE FOR ALL TO PUBLIC
	//   USING ("tenant_uid" = (SELECT tenantmesh.uid()))
	//   WITH CHECK (("tenant_id"::text, "tenant_uid") = (SELECT t.tenant, t.uid FROM tenantmesh.tenant() t));
	// DROP POLICY IF EXISTS tenantmesh_permit ON "public"."orders";
	// CREATE POLICY tenantmesh_permit ON "public"."orders" FOR ALL TO PUBLIC USING (true);
	// ALTER TABLE "public"."orders" ENABLE ROW LEVEL SECURITY;
	// ALTER TABLE "public"."orders" FORCE ROW LEVEL SECURITY;
	// COMMIT;
}
