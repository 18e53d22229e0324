CREATE TABLE orders (
  tenant_id text NOT NULL,
  tenant_uid text NOT NULL,
  id bigint NOT NULL,
  item text NOT NULL,
  quantity int NOT NULL,
  PRIMARY KEY (tenant_uid, id)
);
