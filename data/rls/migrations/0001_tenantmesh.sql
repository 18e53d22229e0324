-- The schema tenantmesh: keys, and the function by which row level security
-- policies learn the tenant. Its owner is whoever runs this, and is not the application's role.
CREATE SCHEMA tenantmesh;
GRANT USAGE ON SCHEMA tenantmesh TO PUBLIC;
CREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA tenantmesh;

-- The keys that proofs are accepted by. To rotate: insert the new one, have the
-- workloads sign with it, and delete the old one when its last transaction has ended.
CREATE TABLE tenantmesh.keys (
  id text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,31}$'),
  secret bytea NOT NULL CHECK (octet_length(secret) = 32),
  created_at timestamptz NOT NULL DEFAULT now()
);

-- The tenants and their uids, as the mesh's policy lists them, for giving a uid to rows that were there before.
CREATE TABLE tenantmesh.tenants (
  tenant text PRIMARY KEY,
  uid text NOT NULL UNIQUE
);

-- Default privileges may have granted them to somebody.
DO $$
DECLARE
  grantee text;
BEGIN
  FOR grantee IN
    SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(a.grantee::regrole::text) END
    FROM pg_class c, aclexplode(c.relacl) a
    WHERE c.oid IN ('tenantmesh.keys'::regclass, 'tenantmesh.tenants'::regclass) AND a.grantee <> c.relowner
  LOOP
    EXECUTE 'REVOKE ALL ON tenantmesh.keys, tenantmesh.tenants FROM ' || grantee;
  END LOOP;
END $$;

-- tenantmesh.uid() returns the uid of the transaction's proof,
--   1/KEY/EXPIRY/NONCE/TENANT/UID/MAC
-- or NULL if there is none, or none that is valid. pgcrypto may have been
-- installed in another schema before, so its name is filled in.
DO $$
BEGIN
  EXECUTE format($create$
CREATE FUNCTION tenantmesh.uid() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  proof text := current_setting('tenantmesh.proof', true);
  key bytea;
BEGIN
  SELECT k.secret INTO key FROM tenantmesh.keys k WHERE k.id = split_part(proof, '/', 2);
  -- One expression, since each costs. Without a proof or a key the first condition is NULL; what
  -- stands in the proof is read only once it is known to be ours.
  RETURN CASE WHEN encode(%1$I.hmac(convert_to(left(proof, -65), 'UTF8'), key, 'sha256'::text), 'hex') = right(proof, 64) THEN
    CASE WHEN split_part(proof, '/', 1) = '1' AND split_part(proof, '/', 3)::bigint > extract(epoch FROM statement_timestamp()) THEN
      split_part(proof, '/', 6)
    END
  END;
END $body$
$create$, (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pgcrypto'));
END $$;

-- tenantmesh.tenant() returns the tenant and the uid of a valid proof, or NULLs. Nothing
-- that a statement calls comes between its two looks at the variable.
CREATE FUNCTION tenantmesh.tenant(OUT tenant text, OUT uid text)
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  uid := tenantmesh.uid();
  IF uid IS NOT NULL THEN
    tenant := split_part(current_setting('tenantmesh.proof'), '/', 5);
  END IF;
END $$;
