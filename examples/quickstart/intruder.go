package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	inventoryv1 "github.com/tenantmesh/tenantmesh/examples/proto/inventory/v1"
	notifyv1 "github.com/tenantmesh/tenantmesh/examples/proto/notify/v1"
	ordersv1 "github.com/tenantmesh/tenantmesh/examples/proto/orders/v1"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// intruder is the notifier after it was taken over: it has a valid SVID, key
// included, and orders hands it real tenant contexts. A guard would keep their
// bytes from its handler, so it runs none: the server and the clients are
// plain gRPC with the kit's transport credentials, and the hops are made
// with package hop.
type intruder struct {
	notifyv1.UnimplementedNotifyServiceServer
	source *svid.Source
	server *svid.Credentials

	mu       sync.Mutex
	captured *capture // the last one
}

// capture is what orders handed over.
type capture struct {
	raw   hop.Metadata
	chain *hop.Chain
}

// Notify implements notifyv1.NotifyServiceServer: it keeps the context of the
// call, with all signatures good.
func (in *intruder) Notify(ctx context.Context, _ *notifyv1.NotifyRequest) (*notifyv1.NotifyResponse, error) {
	p, _ := peer.FromContext(ctx)
	conn, ok := in.server.Conn(p.AuthInfo)
	if !ok {
		return nil, errors.New("no connection")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	c := &capture{raw: hop.Metadata{
		Hops:  strings.Join(md.Get(hop.HopsKey), ""),
		Certs: strings.Join(md.Get(hop.CertsKey), ""),
	}}
	snap, err := in.source.Snapshot()
	if err != nil {
		return nil, err
	}
	c.chain, err = hop.Verify(c.raw, hop.Expected{
		Kind: hop.Call, Peer: conn.PeerChain(), Self: snap.SVID.ID, Binding: conn.Binding(),
		Target: notifyv1.NotifyService_Notify_FullMethodName, Bundles: snap.Bundles, Now: time.Now(),
	})
	if err != nil {
		return nil, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.captured = c
	return &notifyv1.NotifyResponse{}, nil
}

// attacks make the metadata of a call to inventory on a connection of the
// intruder's own, of a context that it was handed.
var attacks = map[string]func(c *capture, conn *svid.Conn, now time.Time) (hop.Metadata, error){
	// forge: claims of its own for a tenant, under its own signature.
	"forge": func(c *capture, conn *svid.Conn, now time.Time) (hop.Metadata, error) {
		claims := c.chain.Claims() // a tenant and a uid that exist
		claims.Transaction, claims.IssuedAt, claims.Expires = "forged", now, now.Add(time.Minute)
		chain, err := hop.Begin(claims)
		if err != nil {
			return hop.Metadata{}, err
		}
		return chain.Sign(conn.Local(), getStock(conn, inventoryID, now))
	},
	// replay: the very bytes that orders sent.
	"replay": func(c *capture, _ *svid.Conn, _ time.Time) (hop.Metadata, error) {
		return c.raw, nil
	},
	// redirect: with a hop of its own, which it made for orders.
	"redirect": func(c *capture, conn *svid.Conn, now time.Time) (hop.Metadata, error) {
		return c.chain.Sign(conn.Local(), getStock(conn, ordersID, now))
	},
	// append: with a hop of its own, as the protocol has it.
	"append": func(c *capture, conn *svid.Conn, now time.Time) (hop.Metadata, error) {
		return c.chain.Sign(conn.Local(), getStock(conn, inventoryID, now))
	},
	// late: the same after the claims have expired, signed with a clock set back.
	"late": func(c *capture, conn *svid.Conn, now time.Time) (hop.Metadata, error) {
		claims := c.chain.Claims()
		if now.Before(claims.Expires) {
			return hop.Metadata{}, errors.New("the claims have not expired yet")
		}
		return c.chain.Sign(conn.Local(), getStock(conn, inventoryID, claims.IssuedAt))
	},
}

func getStock(conn *svid.Conn, audience string, now time.Time) hop.Handover {
	return hop.Handover{
		Kind: hop.Call, Audience: audience, Target: inventoryv1.InventoryService_GetStock_FullMethodName,
		Binding: conn.Binding(), Now: now,
	}
}

// result is what an attack came to.
type result struct {
	Code   string        `json:"code"`
	Reason tenant.Reason `json:"reason"`
	Error  string        `json:"error"`
}

// attack does the named attack on the server at an address.
func (in *intruder) attack(ctx context.Context, name, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	expect := inventoryID
	if name == "walk-in" {
		expect = ordersID
	}
	creds := svid.NewClientCredentials(in.source, svid.Expect(expect))
	opts := []grpc.DialOption{grpc.WithTransportCredentials(creds)}
	if name != "walk-in" {
		in.mu.Lock()
		captured := in.captured
		in.mu.Unlock()
		forge, ok := attacks[name]
		switch {
		case !ok:
			return "", fmt.Errorf("there is no attack %q; there are walk-in, %s", name, strings.Join(slices.Sorted(maps.Keys(attacks)), ", "))
		case captured == nil:
			return "", errors.New("nothing was captured yet")
		}
		opts = append(opts, grpc.WithPerRPCCredentials(&forger{creds, func(c *svid.Conn) (hop.Metadata, error) {
			return forge(captured, c, time.Now())
		}}))
	}
	conn, err := grpc.NewClient(addr, opts...)
	if err != nil {
		return "", err
	}
	defer conn.Close()

	if name == "walk-in" { // simply call
		_, err = ordersv1.NewOrdersServiceClient(conn).ListOrders(ctx, &ordersv1.ListOrdersRequest{})
	} else {
		_, err = inventoryv1.NewInventoryServiceClient(conn).GetStock(ctx, &inventoryv1.GetStockRequest{Item: "anvil"})
	}
	r := result{Code: status.Code(err).String(), Reason: interceptors.ReasonOf(err)}
	if err != nil {
		r.Error = err.Error()
	}
	line, err := json.Marshal(r)
	return string(line), err
}

// forger puts an attack's metadata where the guard's credential would sign.
type forger struct {
	creds *svid.Credentials
	forge func(*svid.Conn) (hop.Metadata, error)
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (f *forger) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	info, _ := credentials.RequestInfoFromContext(ctx)
	conn, ok := f.creds.Conn(info.AuthInfo)
	if !ok {
		return nil, errors.New("no connection")
	}
	m, err := f.forge(conn)
	if err != nil {
		return nil, err
	}
	md := map[string]string{hop.HopsKey: m.Hops}
	if m.Certs != "" {
		md[hop.CertsKey] = m.Certs
	}
	return md, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (f *forger) RequireTransportSecurity() bool { return true }

// runIntruder serves as the notifier until ctx ends. The commands
//
//	walk-in <address of orders>
//	forge|replay|redirect|append|late <address of inventory>
//
// on stdin do an attack, and are answered with what it came to.
func runIntruder(ctx context.Context, args []string) error {
	o := newOptions("intruder")
	opened := make(chan *intruder, 1)
	ctx, err := o.parse(ctx, args, func(ctx context.Context, words []string) (string, error) {
		if len(words) != 2 {
			return "", errors.New("the command is: <attack> <address>")
		}
		select {
		case in := <-opened:
			opened <- in
			return in.attack(ctx, words[0], words[1])
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})
	if err != nil {
		return err
	}
	source, err := svid.NewSource(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	in := &intruder{source: source, server: svid.NewServerCredentials(source)}
	opened <- in
	srv := grpc.NewServer(grpc.Creds(in.server))
	notifyv1.RegisterNotifyServiceServer(srv, in)
	return o.serve(ctx, srv)
}
