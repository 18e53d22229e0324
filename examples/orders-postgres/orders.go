package main

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/data/rls"
	ordersv1 "github.com/tenantmesh/tenantmesh/examples/proto/orders/v1"
)

// orders serves the orders of all tenants, to each its own. It does not know whose they are.
type orders struct {
	ordersv1.UnimplementedOrdersServiceServer
	rows *rls.Pool[pgx.Tx]
}

// ListOrders implements ordersv1.OrdersServiceServer.
func (s *orders) ListOrders(ctx context.Context, _ *ordersv1.ListOrdersRequest) (*ordersv1.ListOrdersResponse, error) {
	list, err := s.list(ctx)
	return &ordersv1.ListOrdersResponse{Orders: list}, err
}

// GetOrder implements ordersv1.OrdersServiceServer. Another tenant's order is not there.
func (s *orders) GetOrder(ctx context.Context, req *ordersv1.GetOrderRequest) (*ordersv1.GetOrderResponse, error) {
	list, err := s.list(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, status.Error(codes.NotFound, "not found")
	}
	return &ordersv1.GetOrderResponse{Order: list[0]}, nil
}

// WatchOrders implements ordersv1.OrdersServiceServer. Nothing here changes, so it does not follow.
func (s *orders) WatchOrders(req *ordersv1.WatchOrdersRequest, stream grpc.ServerStreamingServer[ordersv1.WatchOrdersResponse]) error {
	if req.GetFollow() {
		return status.Error(codes.Unimplemented, "the orders do not change")
	}
	list, err := s.list(stream.Context())
	for _, o := range list {
		err = errors.Join(err, stream.Send(&ordersv1.WatchOrdersResponse{Order: o}))
	}
	return err
}

// list returns the orders with one of the IDs, or all.
func (s *orders) list(ctx context.Context, ids ...string) (list []*ordersv1.Order, err error) {
	err = s.rows.InTx(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT id, item, quantity FROM orders WHERE cardinality($1::text[]) = 0 OR id = ANY ($1) ORDER BY id", append([]string{}, ids...))
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*ordersv1.Order, error) {
			o := &ordersv1.Order{}
			return o, row.Scan(&o.Id, &o.Item, &o.Quantity)
		})
		return err
	})
	return list, err
}
