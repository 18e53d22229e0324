package main

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	inventoryv1 "github.com/tenantmesh/tenantmesh/examples/proto/inventory/v1"
	notifyv1 "github.com/tenantmesh/tenantmesh/examples/proto/notify/v1"
	ordersv1 "github.com/tenantmesh/tenantmesh/examples/proto/orders/v1"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// orders serves the orders of all tenants, to each its own.
type orders struct {
	ordersv1.UnimplementedOrdersServiceServer
	inventory inventoryv1.InventoryServiceClient
	notify    notifyv1.NotifyServiceClient // nil if there is none
	store     []record
	poll      time.Duration // how often a watch asks for stock
}

// record is an order as it is stored, with whose it is.
type record struct {
	owner string
	order *ordersv1.Order
}

// ListOrders implements ordersv1.OrdersServiceServer.
func (s *orders) ListOrders(ctx context.Context, _ *ordersv1.ListOrdersRequest) (*ordersv1.ListOrdersResponse, error) {
	list, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	return &ordersv1.ListOrdersResponse{Orders: list}, nil
}

// GetOrder implements ordersv1.OrdersServiceServer.
func (s *orders) GetOrder(ctx context.Context, req *ordersv1.GetOrderRequest) (*ordersv1.GetOrderResponse, error) {
	for _, r := range s.store {
		if r.order.GetId() != req.GetId() {
			continue
		}
		owner, err := tenant.ParseID(r.owner)
		if err != nil {
			return nil, err
		}
		// The record was read, and its owner is known only now. The guard makes
		// of this error the same NOT_FOUND as below; the audit trail has the reason.
		if err := tenant.Owns(ctx, owner); err != nil {
			return nil, err
		}
		order, err := s.withStock(ctx, r.order)
		if err != nil {
			return nil, err
		}
		s.tell(ctx, order)
		return &ordersv1.GetOrderResponse{Order: order}, nil
	}
	return nil, status.Error(codes.NotFound, "not found")
}

// WatchOrders implements ordersv1.OrdersServiceServer. Each call to inventory
// asks again whether the tenant context is still valid, so a watch does not
// outlive its claims.
func (s *orders) WatchOrders(req *ordersv1.WatchOrdersRequest, stream grpc.ServerStreamingServer[ordersv1.WatchOrdersResponse]) error {
	sent := map[string]*ordersv1.Order{}
	ticker := time.NewTicker(s.poll)
	defer ticker.Stop()
	for {
		list, err := s.list(stream.Context())
		if err != nil {
			return err
		}
		for _, o := range list {
			if proto.Equal(sent[o.GetId()], o) {
				continue
			}
			if err := stream.Send(&ordersv1.WatchOrdersResponse{Order: o}); err != nil {
				return err
			}
			sent[o.GetId()] = o
		}
		if !req.GetFollow() {
			return nil
		}
		select {
		case <-ticker.C:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

// list returns the orders of ctx's tenant, with what inventory has of them.
func (s *orders) list(ctx context.Context) ([]*ordersv1.Order, error) {
	tc, err := tenant.Require(ctx)
	if err != nil {
		return nil, err
	}
	var list []*ordersv1.Order
	for _, r := range s.store {
		if r.owner != tc.Tenant().String() {
			continue
		}
		order, err := s.withStock(ctx, r.order)
		if err != nil {
			return nil, err
		}
		list = append(list, order)
	}
	return list, nil
}

// withStock asks inventory. The tenant goes along with ctx: the guard adds this
// workload's hop to the chain that came in.
func (s *orders) withStock(ctx context.Context, o *ordersv1.Order) (*ordersv1.Order, error) {
	stock, err := s.inventory.GetStock(ctx, &inventoryv1.GetStockRequest{Item: o.GetItem()})
	if err != nil {
		return nil, err
	}
	o = proto.CloneOf(o)
	o.Stock = stock.GetQuantity()
	return o, nil
}

// tell lets the tenant's users know. Nobody waits for it in vain.
func (s *orders) tell(ctx context.Context, o *ordersv1.Order) {
	if s.notify == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := s.notify.Notify(ctx, &notifyv1.NotifyRequest{OrderId: o.GetId()}); err != nil {
		slog.WarnContext(ctx, "nobody was told", "order", o.GetId(), "err", err)
	}
}

// runOrders serves until ctx ends.
func runOrders(ctx context.Context, args []string) error {
	o := newOptions("orders").forWorkload()
	inventoryAddr := o.String("inventory", "127.0.0.1:9002", "the `address` of inventory")
	notifyAddr := o.String("notifier", "", "the `address` of the notifier; empty: none")
	ctx, err := o.parse(ctx, args, nil)
	if err != nil {
		return err
	}
	w, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer w.Close()

	s := &orders{poll: 100 * time.Millisecond, store: []record{
		{"acme", &ordersv1.Order{Id: "acme-1001", Item: "anvil", Quantity: 2}},
		{"acme", &ordersv1.Order{Id: "acme-1002", Item: "rocket skates", Quantity: 1}},
		{"globex", &ordersv1.Order{Id: "globex-2001", Item: "doomsday device", Quantity: 1}},
	}}
	// Who the server must be is not optional: an address proves nothing.
	conn, err := grpc.NewClient(*inventoryAddr, w.guard.DialOptions(svid.Expect(inventoryID))...)
	if err != nil {
		return err
	}
	defer conn.Close()
	s.inventory = inventoryv1.NewInventoryServiceClient(conn)
	if *notifyAddr != "" {
		conn, err := grpc.NewClient(*notifyAddr, w.guard.DialOptions(svid.Expect(notifierID))...)
		if err != nil {
			return err
		}
		defer conn.Close()
		s.notify = notifyv1.NewNotifyServiceClient(conn)
	}

	srv := grpc.NewServer(w.serverOptions()...)
	ordersv1.RegisterOrdersServiceServer(srv, s)
	if err := w.guard.Check(srv); err != nil {
		return err
	}
	return o.serve(ctx, srv)
}
