package interceptors_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/interceptors"
	shoppb "github.com/tenantmesh/tenantmesh/internal/testproto/shop/v1"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// shopDocument is the policy of a shop whose .proto says something of methods
// and fields.
const shopDocument = `
version: 1
trust_domains:
  - name: prod.example
workloads:
  - name: gateway
    match: spiffe://prod.example/gateway
    tenants: ["*"]
    originate: {issuers: ["https://login.example"], scopes: ["orders.*"], classification: 3}
    calls: [/shop.v1.ShopService/*]
  - name: target
    match: spiffe://prod.example/target
    tenants: ["*"]
methods:
  - match: /shop.v1.ShopService/GetOrder
    callers: [gateway]
  - match: /shop.v1.ShopService/DeleteOrder
    callers: [gateway]
  - match: /shop.v1.ShopService/ListOrders
    callers: [gateway]
  - match: /shop.v1.ShopService/ImportOrders
    callers: [gateway]
  - match: /shop.v1.ShopService/SyncOrders
    callers: [gateway]
  - match: /shop.v1.ShopService/GetVersion
    exempt: true
tenants:
  acme: {uid: acme-uid-1}
  globex: {uid: globex-uid-1}
`

const (
	ours  = "tenants/acme/orders/1"
	their = "tenants/globex/orders/1"
)

// shop is a target that serves the shop, and answers as the test says.
type shop struct {
	shoppb.UnimplementedShopServiceServer
	*mesh

	mu      sync.Mutex
	seen    []proto.Message // what handlers received
	answers []proto.Message // what they send, in turn
	handled chan error      // how handlers of streams ended
}

func newShop(t *testing.T, change ...func(*interceptors.Config)) *shop {
	m := newMesh(t)
	m.policy.p.Store(parsePolicy(t, shopDocument))
	s := &shop{mesh: m, handled: make(chan error, 100)}
	s.restart(change...)
	return s
}

// restart serves the shop with a guard of a changed configuration.
func (s *shop) restart(change ...func(*interceptors.Config)) {
	c := *s.mesh
	s.mesh = &c
	c.clock, c.audit = new(clock), newTrail()
	cfg := c.config(c.self, c.audit, c.clock.now)
	for _, f := range change {
		f(&cfg)
	}
	c.guard = c.guardOf(cfg)
	c.server, c.addr = c.serveWith(func(srv *grpc.Server) { shoppb.RegisterShopServiceServer(srv, s) }, c.guard.ServerOptions()...)
}

func (s *shop) answer(m ...proto.Message) { s.mu.Lock(); s.answers = m; s.mu.Unlock() }

// received returns what handlers received since it was asked last.
func (s *shop) received() []proto.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

// next takes what a handler received, and returns what it answers.
func next[T proto.Message](s *shop, in proto.Message) (none T, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in != nil {
		s.seen = append(s.seen, in)
	}
	if len(s.answers) == 0 {
		return none, errors.New("the test has no answer")
	}
	out := s.answers[0]
	s.answers = s.answers[1:]
	return out.(T), nil //nolint:forcetypeassert // a test that is wrong may panic
}

func (s *shop) GetOrder(_ context.Context, in *shoppb.GetOrderRequest) (*shoppb.GetOrderResponse, error) {
	return next[*shoppb.GetOrderResponse](s, in)
}

func (s *shop) DeleteOrder(_ context.Context, in *shoppb.DeleteOrderRequest) (*shoppb.DeleteOrderResponse, error) {
	return next[*shoppb.DeleteOrderResponse](s, in)
}

func (s *shop) GetVersion(_ context.Context, in *shoppb.GetVersionRequest) (*shoppb.GetVersionResponse, error) {
	return next[*shoppb.GetVersionResponse](s, in)
}

func (s *shop) ListOrders(in *shoppb.ListOrdersRequest, ss grpc.ServerStreamingServer[shoppb.ListOrdersResponse]) (err error) {
	defer func() { s.handled <- err }()
	for {
		out, err := next[*shoppb.ListOrdersResponse](s, in)
		if err != nil {
			return nil
		}
		in = nil
		_ = ss.Send(out) // a careless handler
	}
}

func (s *shop) ImportOrders(ss grpc.ClientStreamingServer[shoppb.ImportOrdersRequest, shoppb.ImportOrdersResponse]) (err error) {
	defer func() { s.handled <- err }()
	for {
		in, err := ss.Recv()
		if err != nil { // a careless handler
			out, _ := next[*shoppb.ImportOrdersResponse](s, nil)
			return ss.SendAndClose(out)
		}
		s.mu.Lock()
		s.seen = append(s.seen, in)
		s.mu.Unlock()
	}
}

func (s *shop) SyncOrders(ss grpc.BidiStreamingServer[shoppb.SyncOrdersRequest, shoppb.SyncOrdersResponse]) (err error) {
	defer func() { s.handled <- err }()
	for {
		in, err := ss.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		out, err := next[*shoppb.SyncOrdersResponse](s, in)
		if err != nil {
			return err
		}
		if err := ss.Send(out); err != nil {
			return err
		}
	}
}

// careless returns a client that signs as it must and checks nothing, with a
// context for acme of a classification.
func (s *shop) careless(classification uint32, scopes ...string) shoppb.ShopServiceClient {
	own := s.svid("gateway")
	return shoppb.NewShopServiceClient(s.attack(own, func(binding [32]byte, method string) (map[string]string, error) {
		c := claims("acme")
		c.Classification, c.Scopes = classification, scopes
		chain, err := hop.Begin(c)
		if err != nil {
			return nil, err
		}
		md, err := chain.Sign(own, hop.Handover{Kind: hop.Call, Audience: id("target"), Target: method, Binding: binding, Now: c.IssuedAt})
		if err != nil {
			return nil, err
		}
		return map[string]string{hop.HopsKey: md.Hops}, nil
	}))
}

// hidden asserts that the caller saw nothing but the status of what is absent,
// and that the target recorded a mismatch at the field.
func (s *shop) hidden(err error, code codes.Code, field string, alarm bool) {
	s.t.Helper()
	if st := status.Convert(err); st.Code() != code || len(st.Details()) > 0 || strings.Contains(st.Message(), "enant") {
		s.t.Errorf("the caller sees %v %v, want only %s", err, st.Details(), code)
	}
	s.faulty(tenant.TenantMismatch, field, alarm)
}

// faulty asserts that the last event is a refusal for the field.
func (s *shop) faulty(want tenant.Reason, field string, alarm bool) {
	s.t.Helper()
	events := s.audit.take()
	if len(events) == 0 {
		s.t.Fatal("audit: no event")
	}
	e := events[len(events)-1]
	if e.Allowed || e.Reason != want || e.Field != field || e.Alarm != alarm || e.Tenant != "acme" || !e.Proven {
		s.t.Errorf("audit: got %+v, want %s at %s, alarm %t", e, want, field, alarm)
	}
	s.noLeak(events...)
}

// TestS1 is S1, and D5 as far as messages go: what names another tenant passes
// in no direction, on servers whose callers check nothing and the other way round.
func TestS1(t *testing.T) {
	s := newShop(t)
	c := s.careless(3, "orders.read", "orders.write")
	ctx := deadline(t)
	good := &shoppb.Order{Name: ours}

	t.Run("S1 request", func(t *testing.T) {
		_, err := c.GetOrder(ctx, &shoppb.GetOrderRequest{Name: their})
		s.hidden(err, codes.NotFound, "name", false)
		_, err = c.DeleteOrder(ctx, &shoppb.DeleteOrderRequest{TenantId: "globex"})
		s.hidden(err, codes.PermissionDenied, "tenant_id", false)
		if seen := s.received(); len(seen) > 0 {
			t.Errorf("the handler saw %v", seen)
		}
	})
	t.Run("S1 request is filled in", func(t *testing.T) {
		s.answer(&shoppb.DeleteOrderResponse{TenantId: "acme"})
		if _, err := c.DeleteOrder(ctx, &shoppb.DeleteOrderRequest{OrderId: "1"}); err != nil {
			t.Fatal(err)
		}
		if seen := s.received(); len(seen) != 1 || seen[0].(*shoppb.DeleteOrderRequest).TenantId != "acme" {
			t.Errorf("the handler saw %v", seen)
		}
		s.audit.take()
	})
	t.Run("S1 response", func(t *testing.T) {
		s.answer(&shoppb.GetOrderResponse{Order: &shoppb.Order{Name: their, Note: "secret"}})
		out, err := c.GetOrder(ctx, &shoppb.GetOrderRequest{Name: ours})
		s.hidden(err, codes.NotFound, "order.name", true)
		if out.GetOrder() != nil {
			t.Errorf("it left: %v", out)
		}
	})
	t.Run("S1 server stream, outbound", func(t *testing.T) {
		s.answer(&shoppb.ListOrdersResponse{Orders: []*shoppb.Order{good}}, &shoppb.ListOrdersResponse{Orders: []*shoppb.Order{good, {Name: their}}},
			&shoppb.ListOrdersResponse{Orders: []*shoppb.Order{good}})
		ss, err := c.ListOrders(ctx, &shoppb.ListOrdersRequest{Parent: "tenants/acme"})
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		err = drain(func() (*shoppb.ListOrdersResponse, error) {
			m, err := ss.Recv()
			got += len(m.GetOrders())
			return m, err
		})
		s.hidden(err, codes.NotFound, "orders[1].name", true)
		if got != 1 {
			t.Errorf("%d orders left", got)
		}
		<-s.handled
	})
	t.Run("S1 server stream, inbound", func(t *testing.T) {
		ss, err := c.ListOrders(ctx, &shoppb.ListOrdersRequest{Parent: "tenants/globex"})
		if err != nil {
			t.Fatal(err)
		}
		s.hidden(drain(ss.Recv), codes.NotFound, "parent", false)
	})
	t.Run("S1 client stream, inbound", func(t *testing.T) {
		s.received()
		s.answer(&shoppb.ImportOrdersResponse{})
		ss, err := c.ImportOrders(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{ours, their, ours} {
			if err := ss.Send(&shoppb.ImportOrdersRequest{Order: &shoppb.Order{Name: name}}); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		_, err = ss.CloseAndRecv()
		s.hidden(err, codes.NotFound, "order.name", false)
		<-s.handled
		if seen := s.received(); len(seen) != 1 {
			t.Errorf("the handler saw %v", seen)
		}
	})
	t.Run("S1 client stream, outbound", func(t *testing.T) {
		s.answer(&shoppb.ImportOrdersResponse{TenantIds: []string{"acme", "globex"}})
		ss, err := c.ImportOrders(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ss.CloseAndRecv()
		s.hidden(err, codes.NotFound, "tenant_ids[1]", true)
		<-s.handled
	})
	t.Run("S1 bidi stream", func(t *testing.T) {
		for name, tt := range map[string]struct {
			in    *shoppb.SyncOrdersRequest
			out   *shoppb.SyncOrdersResponse
			field string
			alarm bool
		}{
			"inbound":  {&shoppb.SyncOrdersRequest{Change: &shoppb.SyncOrdersRequest_Delete{Delete: their}}, nil, "delete", false},
			"outbound": {&shoppb.SyncOrdersRequest{}, &shoppb.SyncOrdersResponse{Owners: map[string]string{"a": "globex"}}, `owners["a"]`, true},
		} {
			t.Run(name, func(t *testing.T) {
				s.answer(&shoppb.SyncOrdersResponse{}, tt.out)
				ss, err := c.SyncOrders(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := ss.Send(&shoppb.SyncOrdersRequest{Change: &shoppb.SyncOrdersRequest_Delete{Delete: ours}}); err != nil {
					t.Fatal(err)
				}
				if _, err := ss.Recv(); err != nil {
					t.Fatal(err)
				}
				if err := ss.Send(tt.in); err != nil {
					t.Fatal(err)
				}
				_, err = ss.Recv()
				s.hidden(err, codes.NotFound, tt.field, tt.alarm)
				<-s.handled
			})
		}
	})
}
