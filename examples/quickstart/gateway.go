package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tenantmesh/tenantmesh/edge"
	ordersv1 "github.com/tenantmesh/tenantmesh/examples/proto/orders/v1"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// audience is what tokens for the gateway are issued for.
const audience = "https://api.example"

// transactionHeader tells the client under which transaction its request
// stands in the audit trails.
const transactionHeader = "X-Transaction-Id"

// gateway speaks HTTP and JSON to clients, and gRPC to orders.
type gateway struct{ orders ordersv1.OrdersServiceClient }

// routes returns the handler behind the edge. Its requests carry the tenant
// context that was made of their token.
func (g *gateway) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
		resp, err := g.orders.ListOrders(r.Context(), &ordersv1.ListOrdersRequest{})
		answer(w, r, resp, err)
	})
	mux.HandleFunc("GET /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		resp, err := g.orders.GetOrder(r.Context(), &ordersv1.GetOrderRequest{Id: r.PathValue("id")})
		answer(w, r, resp, err)
	})
	mux.HandleFunc("GET /watch/orders", g.watch)
	return mux
}

// watch sends a line of JSON for each message of the stream.
func (g *gateway) watch(w http.ResponseWriter, r *http.Request) {
	follow := r.URL.Query().Get("follow") == "true"
	stream, err := g.orders.WatchOrders(r.Context(), &ordersv1.WatchOrdersRequest{Follow: follow})
	if err != nil {
		answer(w, r, nil, err)
		return
	}
	for n := 0; ; n++ {
		msg, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil && n == 0:
			answer(w, r, nil, err)
			return
		case err != nil: // the status has left already
			_ = json.NewEncoder(w).Encode(problemOf(err))
			return
		case n == 0:
			head(w, r, "application/jsonl", http.StatusOK)
		}
		if err := writeLine(w, msg); err != nil {
			return // the client has gone, and r.Context() with it
		}
	}
}

func writeLine(w http.ResponseWriter, msg proto.Message) error {
	line, err := protojson.Marshal(msg)
	if err != nil {
		return err
	}
	if _, err := w.Write(append(line, '\n')); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}

func answer(w http.ResponseWriter, r *http.Request, msg proto.Message, err error) {
	if err != nil {
		p := problemOf(err)
		head(w, r, "application/problem+json", p.Status)
		_ = json.NewEncoder(w).Encode(p)
		return
	}
	head(w, r, "application/json", http.StatusOK)
	_ = writeLine(w, msg)
}

func head(w http.ResponseWriter, r *http.Request, contentType string, code int) {
	if tc, ok := tenant.FromContext(r.Context()); ok {
		w.Header().Set(transactionHeader, tc.Transaction())
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(code)
}

// problem is the body of an error (RFC 9457).
type problem struct {
	Title  string        `json:"title"`
	Status int           `json:"status"`
	Reason tenant.Reason `json:"reason,omitempty"`
}

// problemOf says of an error what may be said: its code, and the reason if it
// is a refusal. Of a record of another tenant there is none.
func problemOf(err error) problem {
	code := http.StatusInternalServerError
	switch status.Code(interceptors.Status(err)) {
	case codes.NotFound:
		code = http.StatusNotFound
	case codes.Unauthenticated:
		code = http.StatusUnauthorized
	case codes.PermissionDenied:
		code = http.StatusForbidden
	case codes.Unavailable:
		code = http.StatusServiceUnavailable
	default:
	}
	return problem{http.StatusText(code), code, interceptors.ReasonOf(err)}
}

// runGateway serves until ctx ends.
func runGateway(ctx context.Context, args []string) error {
	o := newOptions("gateway").forWorkload()
	ordersAddr := o.String("orders", "127.0.0.1:9001", "the `address` of orders")
	issuer := o.String("issuer", "http://127.0.0.1:8088", "the issuer's `URL`")
	ctx, err := o.parse(ctx, args, nil)
	if err != nil {
		return err
	}
	w, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer w.Close()

	conn, err := grpc.NewClient(*ordersAddr, w.guard.DialOptions(svid.Expect(ordersID))...)
	if err != nil {
		return err
	}
	defer conn.Close()
	verifier, err := edge.NewVerifier(edge.Config{
		Issuers: []edge.Issuer{{URL: *issuer, Audience: audience}}, // keys by discovery
		Audit:   w.audit,
		// Only because the demo's issuer has no certificate.
		InsecureHTTPLoopback: true,
	})
	if err != nil {
		return err
	}
	defer verifier.Close()

	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return err
	}
	g := &gateway{ordersv1.NewOrdersServiceClient(conn)}
	srv := &http.Server{
		// All requests go through the edge. Outside of a demo: with TLS.
		Handler:           edge.HTTP(verifier, w.guard, g.routes()),
		ReadHeaderTimeout: 5 * time.Second,
	}
	return serveHTTP(ctx, srv, lis)
}

// serveHTTP serves until ctx ends, and lets requests end then.
func serveHTTP(ctx context.Context, srv *http.Server, lis net.Listener) error {
	stopped := make(chan error, 1)
	defer context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 500*time.Millisecond)
		defer cancel()
		err := srv.Shutdown(end)
		if errors.Is(err, context.DeadlineExceeded) {
			err = srv.Close() // a watch goes on for ever
		}
		stopped <- err
	})()
	ready(lis.Addr().String())
	if err := srv.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}
