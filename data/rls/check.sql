-- What lets a tenant see another's rows, or learn of them, and the SQL that mends it.
WITH RECURSIVE param AS (
  SELECT {{tenant}}::text AS tenant, {{uid}}::text AS uid, {{shared}} AS shared, {{enable}} AS enable, {{install}} AS install
), role AS (
  SELECT r.* FROM pg_catalog.pg_roles r
  WHERE r.rolname = ANY (CASE WHEN cardinality({{roles}}) > 0 THEN {{roles}} ELSE ARRAY[session_user, current_user]::text[] END)
), other AS (
  -- What a role may become by SET ROLE, and the grants that let it.
  SELECT role.rolname AS role, o.*, (
    SELECT string_agg(format('REVOKE %I FROM %I;', a.roleid::regrole::text, role.rolname), ' ')
    FROM pg_catalog.pg_auth_members a WHERE a.member = role.oid AND pg_has_role(a.roleid, o.oid, 'MEMBER')
  ) AS revoke
  FROM role JOIN pg_catalog.pg_roles o ON o.oid <> role.oid AND pg_has_role(role.oid, o.oid, 'MEMBER')
  WHERE NOT role.rolsuper
), home AS (
  SELECT pg_get_userbyid(coalesce(
    (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'tenantmesh'),
    (SELECT datdba FROM pg_catalog.pg_database WHERE datname = current_database()))) AS owner
), rel AS (
  SELECT c.*, n.nspname, format('%I.%I', n.nspname, c.relname) AS name, format_type(t.atttypid, t.atttypmod) AS type,
    t.attnum AS tenant, u.attnum AS uid, n.nspname || '.' || c.relname = ANY (shared) AS shared,
    -- To whom privileges are granted that one of the roles has.
    (SELECT string_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, ', ')
      FROM (SELECT (aclexplode(c.relacl)).* UNION ALL
            SELECT (aclexplode(attacl)).* FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attacl IS NOT NULL) a
      WHERE a.grantee <> c.relowner AND (a.grantee = 0 OR EXISTS (SELECT FROM role WHERE pg_has_role(role.oid, nullif(a.grantee, 0), 'MEMBER')))
    ) AS holders,
    EXISTS (SELECT FROM role, unnest(ARRAY['TRUNCATE', 'REFERENCES', 'TRIGGER']) p WHERE NOT rolsuper AND has_table_privilege(role.oid, c.oid, p)) AS excess
  FROM param CROSS JOIN pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  LEFT JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid AND NOT t.attisdropped AND t.attname = param.tenant
  LEFT JOIN pg_catalog.pg_attribute u ON u.attrelid = c.oid AND NOT u.attisdropped AND u.attname = param.uid
  WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm')
), tab AS (
  SELECT rel.*, replace(replace(replace(replace(replace(enable, '{table}', name), '{tenant}', quote_ident(param.tenant)), '{uid}', quote_ident(param.uid)),
    '{index}', quote_ident(relname || '_' || param.uid || '_idx')), '{type}', type) AS enable
  FROM rel, param WHERE relkind IN ('r', 'p') AND NOT relispartition AND nspname <> 'tenantmesh' AND rel.tenant IS NOT NULL AND NOT rel.shared
), uses AS (
  SELECT oid FROM tab
  UNION
  SELECT r.ev_class FROM uses
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = uses.oid
  JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
), ref AS (
  -- Foreign keys to tables of tenants: with the uid on both sides, or not; and as it should be.
  SELECT f.*, child.name AS child, child.uid AS child_uid, tab.name AS parent,
    EXISTS (SELECT FROM generate_subscripts(f.conkey, 1) i WHERE f.conkey[i] = child.uid AND f.confkey[i] = tab.uid) AS good,
    format('ALTER TABLE %s DROP CONSTRAINT %I;', child.name, f.conname) AS take,
    -- Where row level security binds the owner, PostgreSQL validates the key without seeing rows.
    coalesce(format('ALTER TABLE %1$s NO FORCE ROW LEVEL SECURITY; ALTER TABLE %2$s NO FORCE ROW LEVEL SECURITY; ALTER TABLE %1$s ADD CONSTRAINT %3$I %4$s; '
      'ALTER TABLE %1$s FORCE ROW LEVEL SECURITY; ALTER TABLE %2$s FORCE ROW LEVEL SECURITY;', child.name, tab.name, f.conname, regexp_replace(
      regexp_replace(pg_get_constraintdef(f.oid), '^FOREIGN KEY \((.*?)\) REFERENCES (.*?)\(', format('FOREIGN KEY (%1$I, \1) REFERENCES \2(%1$I, ', param.uid)),
      'ON DELETE SET (NULL|DEFAULT)(?! \()', 'ON DELETE SET \1 (' || substring(pg_get_constraintdef(f.oid) FROM '^FOREIGN KEY \((.*?)\)') || ')'
    )), '') AS put
  FROM param, pg_catalog.pg_constraint f JOIN tab ON tab.oid = f.confrelid JOIN rel child ON child.oid = f.conrelid
  WHERE f.contype = 'f' AND f.conparentid = 0
), key AS (
  -- Unique keys and exclusions without the uid.
  SELECT tab.name, i.indexrelid, coalesce(con.conname, x.relname) AS key, x.relname AS index,
    concat_ws(' ',
      (SELECT string_agg(take, ' ') FROM ref WHERE conindid = i.indexrelid),
      CASE WHEN con.oid IS NULL
        THEN format('DROP INDEX %I.%I; %s;', tab.nspname, x.relname, regexp_replace(pg_get_indexdef(i.indexrelid), '( USING \w+ )\(', '\1(' || quote_ident(param.uid) || ', '))
        ELSE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %2$I %s;', tab.name, con.conname, regexp_replace(pg_get_constraintdef(con.oid), '\(',
          '(' || quote_ident(param.uid) || CASE con.contype WHEN 'x' THEN ' WITH =, ' ELSE ', ' END))
      END,
      (SELECT string_agg(put, ' ') FROM ref WHERE conindid = i.indexrelid AND child_uid IS NOT NULL)
    ) AS fix
  FROM param, tab
  JOIN pg_catalog.pg_index i ON i.indrelid = tab.oid AND (i.indisunique OR i.indisexclusion)
  JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
  LEFT JOIN pg_catalog.pg_constraint con ON con.conindid = i.indexrelid AND con.contype IN ('p', 'u', 'x')
  WHERE tab.uid <> ALL ((i.indkey::int2[])[0:i.indnkeyatts - 1])
), finding (rank, code, object, detail, fix) AS (
  SELECT 1, 'server-version', 'server', 'PostgreSQL ' || current_setting('server_version') || ' has known holes in row level security (CVE-2024-10976: plans across roles; CVE-2025-8713: statistics)',
    '-- upgrade to 15.14, 16.10, 17.6, 18 or later'
  FROM CAST(current_setting('server_version_num') AS int) v
  WHERE v < 150014 OR v BETWEEN 160000 AND 160009 OR v BETWEEN 170000 AND 170005
  UNION ALL
  SELECT 2, 'not-installed', 'schema tenantmesh', 'the functions tenantmesh.uid() and tenantmesh.tenant() are not there', install
  FROM param WHERE to_regprocedure('tenantmesh.uid()') IS NULL OR to_regprocedure('tenantmesh.tenant()') IS NULL
  UNION ALL
  SELECT 2, 'function-changed', 'function tenantmesh.' || proname || '()', 'it is not as the migration makes it',
    format('ALTER FUNCTION tenantmesh.%I() SECURITY %s STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp;', proname, CASE proname WHEN 'uid' THEN 'DEFINER' ELSE 'INVOKER' END)
  FROM pg_catalog.pg_proc WHERE oid IN (to_regprocedure('tenantmesh.uid()'), to_regprocedure('tenantmesh.tenant()'))
    AND NOT (prosecdef = (proname = 'uid') AND provolatile = 's' AND proparallel = 's' AND proconfig IS NOT DISTINCT FROM '{"search_path=pg_catalog, pg_temp"}')
  UNION ALL
  -- Roles that row level security does not bind, or that can make themselves such.
  SELECT 3, 'role-' || lower(a.what), 'role ' || quote_ident(rolname), 'it is ' || a.what, format('ALTER ROLE %I NO%s;', rolname, a.what)
  FROM role, LATERAL (VALUES ('SUPERUSER', rolsuper), ('BYPASSRLS', rolbypassrls), ('CREATEROLE', rolcreaterole), ('REPLICATION', rolreplication)) a (what, has)
  WHERE a.has
  UNION ALL
  SELECT 3, 'role-member', 'role ' || quote_ident(role), 'it may become ' || rolname || ', which row level security does not bind', revoke
  FROM other
  WHERE rolsuper OR rolbypassrls OR rolcreaterole OR rolreplication OR rolname IN
      ('pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')
    OR EXISTS (SELECT FROM tab WHERE relowner = other.oid) OR other.oid = (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'tenantmesh')
  UNION ALL
  SELECT 3, 'role-owner', 'table ' || name, 'the role ' || rolname || ' owns it', format('ALTER TABLE %s OWNER TO %I;', name, owner)
  FROM tab JOIN role ON role.oid = relowner, home
  UNION ALL
  SELECT 3, 'role-owner', 'schema tenantmesh', 'the role ' || rolname || ' owns it or what is in it', format('REASSIGN OWNED BY %I TO %I;', rolname,
    (SELECT pg_get_userbyid(datdba) FROM pg_catalog.pg_database WHERE datname = current_database()))
  FROM role WHERE oid IN (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'tenantmesh'
    UNION ALL SELECT relowner FROM rel WHERE nspname = 'tenantmesh'
    UNION ALL SELECT proowner FROM pg_catalog.pg_proc WHERE oid IN (to_regprocedure('tenantmesh.uid()'), to_regprocedure('tenantmesh.tenant()')))
  UNION ALL
  SELECT 3, 'row-security-off', 'role ' || quote_ident(current_user), 'row_security is off',
    format('ALTER ROLE %I RESET row_security; ALTER DATABASE %I RESET row_security;', current_user, current_database())
  WHERE current_setting('row_security') = 'off'
  UNION ALL
  SELECT 4, 'keys-granted', 'table ' || name, 'privileges on it are granted to ' || holders, format('REVOKE ALL ON %s FROM %s;', name, holders)
  FROM rel WHERE nspname = 'tenantmesh' AND holders IS NOT NULL
  UNION ALL
  -- Tables.
  SELECT 5, 'uid-missing', 'table ' || name, 'it has no column ' || param.uid, tab.enable
  FROM tab, param WHERE tab.uid IS NULL
  UNION ALL
  SELECT 6, 'policy', 'table ' || name, 'it has no restrictive policy tenantmesh for all commands and roles, or another than EnableSQL writes', tab.enable
  FROM param, tab WHERE tab.uid IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_policy p,
      -- Their text without blanks, parentheses and what depends on search_path, which the functions' OIDs make up for.
      regexp_replace(pg_get_expr(p.polqual, p.polrelid), '[()[:space:]]|::text|tenantmesh\.', '', 'g') seen,
      regexp_replace(pg_get_expr(p.polwithcheck, p.polrelid), '[()[:space:]]|::text|tenantmesh\.', '', 'g') written
    WHERE p.polrelid = tab.oid AND p.polname = 'tenantmesh' AND NOT p.polpermissive AND p.polcmd = '*' AND p.polroles = '{0}'
      AND seen = format('%I=SELECTuidASuid', param.uid) AND written = format('%I,%I=SELECTt.tenant,t.uidFROMtenantttenant,uid', param.tenant, param.uid)
      AND (SELECT array_agg(d.refobjid ORDER BY d.refobjid) = ARRAY(SELECT to_regprocedure(f)::oid o FROM unnest('{tenantmesh.uid(),tenantmesh.tenant()}'::text[]) f ORDER BY o)
        FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_proc'::regclass))
  UNION ALL
  SELECT 7, 'rls-disabled', 'table ' || name, 'row level security is not enabled', format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY;', name)
  FROM tab WHERE NOT relrowsecurity
  UNION ALL
  SELECT 7, 'rls-not-forced', 'table ' || name, 'row level security does not bind its owner', format('ALTER TABLE %s FORCE ROW LEVEL SECURITY;', name)
  FROM tab WHERE NOT relforcerowsecurity
  UNION ALL
  SELECT 8, 'privileges', 'table ' || name, 'row level security does not cover TRUNCATE, REFERENCES and TRIGGER', format('REVOKE TRUNCATE, REFERENCES, TRIGGER ON %s FROM %s;', name, holders)
  FROM tab WHERE excess AND holders IS NOT NULL
  UNION ALL
  SELECT 8, 'partition', 'table ' || name, 'a partition''s own policies count where it is named itself', format('REVOKE ALL ON %s FROM %s;', name, holders)
  FROM rel WHERE relispartition AND tenant IS NOT NULL AND holders IS NOT NULL
  UNION ALL
  SELECT 8, 'no-tenant-column', 'table ' || name, 'it has no column ' || param.tenant || ': add one, or list the table in Shared', format('REVOKE ALL ON %s FROM %s;', name, holders)
  FROM param, rel WHERE relkind IN ('r', 'p') AND NOT relispartition AND nspname <> 'tenantmesh' AND rel.tenant IS NULL AND NOT rel.shared AND holders IS NOT NULL
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_class'::regclass AND objid = rel.oid AND deptype = 'e')
  UNION ALL
  SELECT 8, 'foreign-table', 'foreign table ' || name, 'a foreign table has no row level security', format('REVOKE ALL ON %s FROM %s;', name, holders)
  FROM rel WHERE relkind = 'f' AND NOT shared AND holders IS NOT NULL
  UNION ALL
  -- What a tenant's injected SQL could leave behind for others' queries to find: tables, operators, functions.
  SELECT 8, 'temporary', 'database ' || quote_ident(datname), 'a temporary table stays on the pooled connection and hides the one of its name',
    format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC, %s;', datname, (SELECT string_agg(quote_ident(rolname), ', ') FROM role))
  FROM pg_catalog.pg_database WHERE datname = current_database() AND current_setting('search_path') !~ ', *pg_temp$'
    AND EXISTS (SELECT FROM role WHERE NOT rolsuper AND oid <> datdba AND has_database_privilege(oid, datname, 'TEMPORARY'))
  UNION ALL
  SELECT 8, 'create', 'database ' || quote_ident(datname), 'schemas can be created in it', format('REVOKE CREATE ON DATABASE %I FROM PUBLIC, %s;', datname, (SELECT string_agg(quote_ident(rolname), ', ') FROM role))
  FROM pg_catalog.pg_database WHERE datname = current_database() AND EXISTS (SELECT FROM role WHERE NOT rolsuper AND oid <> datdba AND has_database_privilege(oid, datname, 'CREATE'))
  UNION ALL
  SELECT 8, 'create', 'schema ' || quote_ident(nspname), 'functions and tables can be created in it', format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, %s;', nspname, (SELECT string_agg(quote_ident(rolname), ', ') FROM role))
  FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND EXISTS (SELECT FROM role WHERE NOT rolsuper AND oid <> nspowner AND has_schema_privilege(role.oid, pg_namespace.oid, 'CREATE'))
  UNION ALL
  SELECT 8, 'role-owner', 'schema ' || quote_ident(nspname), 'the role ' || rolname || ' owns it', format('ALTER SCHEMA %I OWNER TO %I;', nspname, owner)
  FROM pg_catalog.pg_namespace JOIN role ON role.oid = nspowner, home WHERE nspname !~ '^pg_' AND nspname <> 'tenantmesh'
  UNION ALL
  -- What tells of rows across tenants.
  SELECT 9, 'unique-key', format('%I on table %s', key, name), 'it tells whether another tenant has the value', fix FROM key
  UNION ALL
  SELECT 10, 'foreign-key', format('%I on table %s', conname, child), 'it tells whether another tenant has the row in ' || parent,
    coalesce((SELECT fix FROM key WHERE indexrelid = conindid), take || CASE WHEN child_uid IS NULL THEN '' ELSE ' ' || put END)
  FROM ref WHERE NOT good
  UNION ALL
  SELECT 10, 'shared-parent', format('table %s', rel.name), 'a row that cannot be deleted or changed tells that some tenant refers to it', format('REVOKE UPDATE, DELETE ON %s FROM %s;', rel.name, rel.holders)
  FROM rel WHERE rel.shared AND EXISTS (SELECT FROM pg_catalog.pg_constraint f JOIN tab ON tab.oid = f.conrelid WHERE f.contype = 'f' AND f.confrelid = rel.oid)
    AND EXISTS (SELECT FROM role WHERE NOT rolsuper AND (has_table_privilege(role.oid, rel.oid, 'DELETE') OR has_any_column_privilege(role.oid, rel.oid, 'UPDATE')))
  UNION ALL
  -- What reads tables with another's rights.
  SELECT 11, 'view-definer', 'view ' || name, 'it reads with its owner''s rights', format('ALTER VIEW %s SET (security_invoker = true);', name)
  FROM rel JOIN uses USING (oid) WHERE relkind = 'v' AND holders IS NOT NULL
    AND NOT EXISTS (SELECT FROM unnest(reloptions) o WHERE o ~ '^security_invoker=(true|on|yes|1)$')
  UNION ALL
  SELECT 11, 'materialized-view', 'materialized view ' || name, 'it holds the rows of all tenants', format('REVOKE ALL ON %s FROM %s;', name, holders)
  FROM rel JOIN uses USING (oid) WHERE relkind = 'm' AND holders IS NOT NULL
  UNION ALL
  SELECT 11, 'security-definer', 'function ' || f, 'it runs with the rights of ' || pg_get_userbyid(p.proowner), format('ALTER ROUTINE %s SECURITY INVOKER;', f)
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace,
    format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) f
  WHERE p.prosecdef AND n.nspname !~ '^pg_' AND p.oid IS DISTINCT FROM to_regprocedure('tenantmesh.uid()')
    AND (p.prorettype = 'trigger'::regtype OR EXISTS (SELECT FROM role WHERE has_function_privilege(role.oid, p.oid, 'EXECUTE')))
)
SELECT DISTINCT rank, code, object, detail, fix FROM finding ORDER BY rank, object, code
