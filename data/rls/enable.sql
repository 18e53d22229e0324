BEGIN;
-- For a second run: where it is forced, the table's owner sees no rows.
ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY;
ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {uid} text;
UPDATE {table} t SET {uid} = k.uid FROM tenantmesh.tenants k WHERE t.{uid} IS NULL AND k.tenant = t.{tenant}::text;
ALTER TABLE {table}
  ALTER COLUMN {tenant} SET NOT NULL,
  ALTER COLUMN {tenant} SET DEFAULT split_part(current_setting('tenantmesh.proof', true), '/', 5)::{type},
  ALTER COLUMN {uid} SET NOT NULL,
  ALTER COLUMN {uid} SET DEFAULT split_part(current_setting('tenantmesh.proof', true), '/', 6);
CREATE INDEX IF NOT EXISTS {index} ON {table} ({uid});
DROP POLICY IF EXISTS tenantmesh ON {table};
CREATE POLICY tenantmesh ON {table} AS RESTRICTIVE FOR ALL TO PUBLIC
  USING ({uid} = (SELECT tenantmesh.uid()))
  WITH CHECK (({tenant}::text, {uid}) = (SELECT t.tenant, t.uid FROM tenantmesh.tenant() t));
DROP POLICY IF EXISTS tenantmesh_permit ON {table};
CREATE POLICY tenantmesh_permit ON {table} FOR ALL TO PUBLIC USING (true);
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
COMMIT;
