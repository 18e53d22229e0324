-- name: CreateOrder :exec
INSERT INTO orders (id, item, quantity) VALUES ($1, $2, $3);

-- name: ListOrders :many
SELECT id, item, quantity FROM orders ORDER BY id;

-- name: CountOrders :one
SELECT count(*) FROM orders;

-- name: RaiseQuantities :execrows
UPDATE orders SET quantity = quantity + 1;
