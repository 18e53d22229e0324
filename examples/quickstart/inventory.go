package main

import (
	"context"

	"google.golang.org/grpc"

	inventoryv1 "github.com/tenantmesh/tenantmesh/examples/proto/inventory/v1"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// inventory knows what each tenant has in stock.
type inventory struct {
	inventoryv1.UnimplementedInventoryServiceServer
	stock map[string]map[string]uint32 // by tenant and item
}

// GetStock implements inventoryv1.InventoryServiceServer. The tenant comes from
// the verified context, and from nowhere else.
func (s *inventory) GetStock(ctx context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	tc, err := tenant.Require(ctx)
	if err != nil {
		return nil, err
	}
	return &inventoryv1.GetStockResponse{Quantity: s.stock[tc.Tenant().String()][req.GetItem()]}, nil
}

// runInventory serves until ctx ends.
func runInventory(ctx context.Context, args []string) error {
	o := newOptions("inventory").forWorkload()
	ctx, err := o.parse(ctx, args, nil)
	if err != nil {
		return err
	}
	w, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer w.Close()

	srv := grpc.NewServer(w.serverOptions()...)
	inventoryv1.RegisterInventoryServiceServer(srv, &inventory{stock: map[string]map[string]uint32{
		"acme":   {"anvil": 12, "rocket skates": 3},
		"globex": {"doomsday device": 1},
	}})
	// Every registered method is covered by the policy, or this fails with the list.
	if err := w.guard.Check(srv); err != nil {
		return err
	}
	return o.serve(ctx, srv)
}
