
CREATE TABLE orders (
  tenant_id text NOT NULL,
  tenant_uid text NOT NULL,
  id text NOT NULL,
  item text NOT NULL,
  quantity int NOT NULL CHECK (quantity > 0),
  PRIMARY KEY (tenant_uid, id)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO app;
DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$;
INSERT INTO orders VALUES
  ('acme', '01JAX3V5Q8W7RBNXH2C4D6E8FG', '1001', 'anvil', 2),
  ('acme', '01JAX3V5Q8W7RBNXH2C4D6E8FG', '1002', 'rocket skates', 1),
  ('globex', '01JAX4M4N6P8R0T2V4X6Z8B0D2', '2001', 'doomsday device', 1);
