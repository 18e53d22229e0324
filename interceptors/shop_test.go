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
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	legacypb "github.com/tenantmesh/tenantmesh/internal/testproto/shop/legacy/v1"
	shoppb "github.com/tenantmesh/tenantmesh/internal/testproto/shop/v1"
	"github.com/tenantmesh/tenantmesh/svid"
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
	return out.(T), nil
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

// guarded returns a connection whose guard plays by the rules, to a server
// that need not, with the guard and its audit trail.
func (s *shop) guarded(addr string) (*grpc.ClientConn, *interceptors.Guard, *trail) {
	s.t.Helper()
	sink := newTrail()
	g := s.newGuard(attacktest.Identity(s.svid("gateway"), s.bundles()), sink, s.clock.now)
	return s.dialTo(addr, g.DialOptions(svid.Expect(id("target")))...), g, sink
}

// unguarded serves the shop by the target's SVID and without a guard.
func (s *shop) unguarded() (addr string) {
	s.t.Helper()
	_, addr = s.serveWith(func(srv *grpc.Server) { shoppb.RegisterShopServiceServer(srv, s) }, grpc.Creds(svid.NewServerCredentials(s.self)))
	return addr
}

// TestClientChecksMessages is S1 at the client: before a message leaves, and
// when one comes from a server that checks nothing.
func TestClientChecksMessages(t *testing.T) {
	s := newShop(t)
	cc, g, sink := s.guarded(s.unguarded())
	c := shoppb.NewShopServiceClient(cc)
	s.audit = sink
	ctx := acme(t, g)
	sink.take()
	other := &shoppb.Order{Name: their, Note: "secret"}

	t.Run("S1 sent", func(t *testing.T) {
		_, err := c.GetOrder(ctx, &shoppb.GetOrderRequest{Name: their})
		s.hidden(err, codes.NotFound, "name", false)
		ss, err := c.ImportOrders(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // and nothing after it
			if err := ss.Send(&shoppb.ImportOrdersRequest{Order: other}); status.Code(err) != codes.NotFound {
				t.Errorf("sent: %v", err)
			}
			other.Name = ours
		}
		other.Name = their
		_, err = ss.CloseAndRecv()
		s.hidden(err, codes.NotFound, "order.name", false)
		if err := <-s.handled; status.Code(err) != codes.Canceled {
			t.Errorf("the server's stream ended with %v", err)
		}
		if seen := s.received(); len(seen) > 0 {
			t.Errorf("it left: %v", seen)
		}
	})
	t.Run("S1 received", func(t *testing.T) {
		s.answer(&shoppb.GetOrderResponse{Order: other})
		out := new(shoppb.GetOrderResponse)
		err := cc.Invoke(ctx, shoppb.ShopService_GetOrder_FullMethodName, &shoppb.GetOrderRequest{Name: ours}, out)
		s.hidden(err, codes.NotFound, "order.name", true)
		if out.Order != nil {
			t.Errorf("the caller sees %v", out)
		}
	})
	t.Run("S1 received on a stream", func(t *testing.T) {
		s.answer(&shoppb.ListOrdersResponse{}, &shoppb.ListOrdersResponse{Orders: []*shoppb.Order{other}})
		ss, err := c.ListOrders(ctx, &shoppb.ListOrdersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ss.Recv(); err != nil {
			t.Fatal(err)
		}
		var m shoppb.ListOrdersResponse
		s.hidden(ss.RecvMsg(&m), codes.NotFound, "orders[0].name", true)
		if len(m.Orders) > 0 {
			t.Errorf("the caller sees %v", &m)
		}
		if err := ss.RecvMsg(&m); status.Code(err) != codes.NotFound {
			t.Errorf("and then: %v", err)
		}
		<-s.handled
	})
	t.Run("S1 received at the end of a stream", func(t *testing.T) {
		s.answer(&shoppb.ImportOrdersResponse{TenantIds: []string{"globex"}})
		ss, err := c.ImportOrders(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ss.CloseAndRecv()
		s.hidden(err, codes.NotFound, "tenant_ids[0]", true)
		<-s.handled
	})
	t.Run("good ones pass", func(t *testing.T) {
		s.answer(&shoppb.ImportOrdersResponse{TenantIds: []string{"acme"}})
		ss, err := c.ImportOrders(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := ss.Send(&shoppb.ImportOrdersRequest{Order: &shoppb.Order{Name: ours}}); err != nil {
			t.Fatal(err)
		}
		if _, err := ss.CloseAndRecv(); err != nil {
			t.Error(err)
		}
		<-s.handled
		if e := sink.take(); len(e) > 0 {
			t.Errorf("audit: %+v", e)
		}
	})
}

// TestClassifiedFields holds responses and requests to the claims' classification.
func TestClassifiedFields(t *testing.T) {
	s := newShop(t)
	ctx := deadline(t)
	full := &shoppb.Order{Name: ours, CardNumber: "4111", Note: "n"}
	s.answer(&shoppb.GetOrderResponse{Order: full}, &shoppb.GetOrderResponse{Order: full},
		&shoppb.GetOrderResponse{Order: &shoppb.Order{Name: ours, Margin: 7}}, &shoppb.GetOrderResponse{Order: &shoppb.Order{Name: ours, Margin: 7}})
	in := &shoppb.GetOrderRequest{Name: ours}
	out, err := s.careless(2, "orders.read").GetOrder(ctx, in)
	if err != nil || out.Order.CardNumber != "4111" {
		t.Errorf("within the claims' classification: %v, %v", out, err)
	}
	out, err = s.careless(1, "orders.read").GetOrder(ctx, in)
	if err != nil || out.Order.CardNumber != "" || out.Order.Note != "n" {
		t.Errorf("to be cleared: %v, %v", out, err)
	}
	if full.CardNumber != "4111" {
		t.Error("the handler's own message was changed")
	}
	if out, err = s.careless(3, "orders.read").GetOrder(ctx, in); err != nil || out.Order.Margin != 7 {
		t.Errorf("%v, %v", out, err)
	}
	s.audit.take()
	out, err = s.careless(2, "orders.read").GetOrder(ctx, in)
	if interceptors.ReasonOf(err) != tenant.ClassificationNotAllowed || out.GetOrder() != nil {
		t.Errorf("to be refused: %v, %v", out, err)
	}
	s.faulty(tenant.ClassificationNotAllowed, "order.margin", true)
}

// TestDeclared: what a method's .proto asks for counts beside the policy.
func TestDeclared(t *testing.T) {
	s := newShop(t)
	ctx := deadline(t)
	if err := s.guard.Check(s.server); err != nil {
		t.Fatal(err)
	}
	in := &shoppb.DeleteOrderRequest{TenantId: "acme"}
	for _, tt := range []struct {
		classification uint32
		scope          string
		want           tenant.Reason
	}{
		{1, "orders.write", ""},
		{1, "orders.read", tenant.ScopeMissing},
		{0, "orders.write", tenant.ClassificationNotAllowed},
	} {
		s.answer(&shoppb.DeleteOrderResponse{TenantId: "acme"})
		_, err := s.careless(tt.classification, tt.scope).DeleteOrder(ctx, in)
		if got := interceptors.ReasonOf(err); got != tt.want || (err == nil) != (tt.want == "") {
			t.Errorf("%d, %s: %v, want %s", tt.classification, tt.scope, err, tt.want)
		}
		e := s.audit.take()
		if rule := "shop/v1/shop.proto:shop.v1.ShopService.DeleteOrder"; len(e) != 1 || !strings.Contains(e[0].Rule, rule) {
			t.Errorf("audit: %+v does not name %s", e, rule)
		}
	}
}

// TestCheckNamesRemedies is M5: a server does not start whose methods no rule
// covers, or whose .proto and policy contradict each other.
func TestCheckNamesRemedies(t *testing.T) {
	s := newShop(t)
	for _, tt := range []struct {
		name, old, instead string
		want               []string
	}{
		{"M5 no rule", "  - match: /shop.v1.ShopService/GetOrder\n    callers: [gateway]\n", "",
			[]string{"/shop.v1.ShopService/GetOrder: ", "add it under methods, with callers or with exempt: true"}},
		{"M5 exempt here and not there", "  - match: /shop.v1.ShopService/GetOrder\n    callers: [gateway]\n", "  - match: /shop.v1.ShopService/GetOrder\n    exempt: true\n",
			[]string{"/shop.v1.ShopService/GetOrder: ", "exempt here and not by (tenantmesh.v1.method) in shop/v1/shop.proto:shop.v1.ShopService.GetOrder", "set exempt: true there, or give it callers here"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.policy.p.Store(parsePolicy(t, strings.Replace(shopDocument, tt.old, tt.instead, 1)))
			err := s.guard.Check(s.server)
			if tenant.ReasonOf(err) != tenant.MethodNotCovered {
				t.Fatalf("got %v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not say %q", err, want)
				}
			}
			// And at run time it is refused.
			_, err = s.careless(3, "orders.read").GetOrder(deadline(t), &shoppb.GetOrderRequest{Name: ours})
			s.t = t
			s.refused(err, tenant.MethodNotCovered)
		})
	}
}

// TestContradictoryOptions is M5 for a service whose messages have options that
// contradict themselves: it does not start, and is refused.
func TestContradictoryOptions(t *testing.T) {
	s := newShop(t)
	s.policy.p.Store(parsePolicy(t, strings.NewReplacer(
		"calls: [", "calls: [/shop.legacy.v1.WrongService/*, ",
		"methods:\n", "methods:\n  - match: /shop.legacy.v1.WrongService/GetWrong\n    callers: [gateway]\n  - match: /shop.legacy.v1.WrongService/GetExempt\n    exempt: true\n",
	).Replace(shopDocument)))
	s.server, s.addr = s.serveWith(func(srv *grpc.Server) {
		legacypb.RegisterWrongServiceServer(srv, legacypb.UnimplementedWrongServiceServer{})
	}, s.guard.ServerOptions()...)
	err := s.guard.Check(s.server)
	for _, want := range []string{
		"GetWrong: shop/legacy/v1/legacy.proto:shop.legacy.v1.GetWrongRequest.number: (tenantmesh.v1.field): a tenant is named by a string",
		"GetExempt: shop.legacy.v1.WrongService.GetExempt is exempt from the tenant by (tenantmesh.v1.method), and its messages name tenants",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not say %q", err, want)
		}
	}
	for _, method := range []string{legacypb.WrongService_GetWrong_FullMethodName, legacypb.WrongService_GetExempt_FullMethodName} {
		err := s.attack(s.svid("gateway"), nil).Invoke(deadline(t), method, &legacypb.GetWrongResponse{}, &legacypb.GetWrongResponse{})
		s.refused(err, tenant.MessageUncheckable)
		cc, g, sink := s.guarded(s.addr)
		ctx := acme(t, g)
		sink.take()
		err = cc.Invoke(ctx, method, &legacypb.GetWrongResponse{}, &legacypb.GetWrongResponse{})
		if e := sink.take(); interceptors.ReasonOf(err) != tenant.MessageUncheckable || len(e) != 1 {
			t.Errorf("the client: %v, %+v", err, e)
		}
		s.audit.take()
	}
}

// TestNoProtobuf: what is no protobuf message cannot be held to a .proto.
func TestNoProtobuf(t *testing.T) {
	s := newShop(t)
	cc, g, sink := s.guarded(s.addr)
	ctx := acme(t, g)
	sink.take()
	err := cc.Invoke(ctx, shoppb.ShopService_GetOrder_FullMethodName, "text", "text")
	if interceptors.ReasonOf(err) != tenant.MessageUncheckable {
		t.Errorf("got %v", err)
	}
	if e := sink.take(); len(e) != 1 || e[0].Reason != tenant.MessageUncheckable {
		t.Errorf("audit: %+v", e)
	}
}
