package fields_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/tenantmesh/tenantmesh/internal/fields"
	legacypb "github.com/tenantmesh/tenantmesh/internal/testproto/shop/legacy/v1"
	shoppb "github.com/tenantmesh/tenantmesh/internal/testproto/shop/v1"
	"github.com/tenantmesh/tenantmesh/tenant"
)

const (
	ours  = "tenants/acme/orders/1"
	their = "tenants/globex/orders/1"
)

func order(name string) *shoppb.Order { return &shoppb.Order{Name: name} }

func pack(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func check(t testing.TB, m proto.Message, at fields.Point, level uint32) (proto.Message, error) {
	t.Helper()
	typ, err := fields.Of(m.ProtoReflect().Descriptor())
	if err != nil {
		t.Fatal(err)
	}
	return typ.Check(m, at, fields.Limits{Tenant: "acme", Classification: level})
}

func legacy(set func(*legacypb.Record)) *legacypb.Record {
	m := &legacypb.Record{Id: proto.String("1")}
	set(m)
	return m
}

// TestNames is S1 for one message: what names another tenant does not pass,
// wherever in the message it stands.
func TestNames(t *testing.T) {
	nested := func(name string, depth int) *shoppb.Order {
		o := order(name)
		for range depth {
			o = &shoppb.Order{Name: ours, Parent: o}
		}
		return o
	}
	for _, tt := range []struct {
		name string
		m    proto.Message
		path string // of the field at fault; "" where it passes
	}{
		{"resource", &shoppb.GetOrderRequest{Name: ours}, ""},
		{"resource of another", &shoppb.GetOrderRequest{Name: their}, "name"},
		{"another pattern", &shoppb.GetOrderRequest{Name: "tenants/acme/archive/2024/1"}, ""},
		{"another pattern of another", &shoppb.GetOrderRequest{Name: "tenants/globex/archive/2024/1"}, "name"},
		{"D5 wildcard", &shoppb.GetOrderRequest{Name: "tenants/-/orders/1"}, "name"},
		{"prefix of a name", &shoppb.GetOrderRequest{Name: "tenants/acme"}, "name"},
		{"longer than a name", &shoppb.GetOrderRequest{Name: ours + "/lines/1"}, "name"},
		{"empty segment", &shoppb.GetOrderRequest{Name: "tenants/acme/orders/"}, "name"},
		{"empty rest", &shoppb.GetOrderRequest{Name: "tenants/acme/archive/"}, "name"},
		{"tenant twice", &shoppb.GetOrderRequest{Name: "tenants/acme/tenants/globex"}, "name"},
		{"P4 case", &shoppb.GetOrderRequest{Name: "tenants/Acme/orders/1"}, "name"},
		{"empty", &shoppb.GetOrderRequest{}, "name"},
		{"empty and allowed", &shoppb.ListOrdersRequest{}, ""},
		{"nested", &shoppb.GetOrderResponse{Order: nested(ours, 20)}, ""},
		{"nested, of another", &shoppb.GetOrderResponse{Order: nested(their, 2)}, "order.parent.parent.name"},
		{"absent message", &shoppb.GetOrderResponse{}, ""},
		{"repeated", &shoppb.ListOrdersResponse{Orders: []*shoppb.Order{order(ours), order(ours)}}, ""},
		{"repeated, one of another", &shoppb.ListOrdersResponse{Orders: []*shoppb.Order{order(ours), order(their)}}, "orders[1].name"},
		{"repeated tenants", &shoppb.ImportOrdersResponse{TenantIds: []string{"acme", "globex"}}, "tenant_ids[1]"},
		{"repeated, one empty", &shoppb.ImportOrdersResponse{TenantIds: []string{"acme", ""}}, "tenant_ids[1]"},
		{"oneof message", &shoppb.SyncOrdersRequest{Change: &shoppb.SyncOrdersRequest_Put{Put: order(their)}}, "put.name"},
		{"oneof text", &shoppb.SyncOrdersRequest{Change: &shoppb.SyncOrdersRequest_Delete{Delete: their}}, "delete"},
		{"oneof text, empty", &shoppb.SyncOrdersRequest{Change: &shoppb.SyncOrdersRequest_Delete{}}, "delete"},
		{"oneof, the other member", &shoppb.SyncOrdersRequest{Change: &shoppb.SyncOrdersRequest_Put{Put: order(ours)}}, ""},
		{"oneof not set", &shoppb.SyncOrdersRequest{}, ""},
		{"map of messages", &shoppb.SyncOrdersResponse{Orders: map[string]*shoppb.Order{"a": order(ours), "b": order(their)}}, `orders["b"].name`},
		{"map of tenants", &shoppb.SyncOrdersResponse{Owners: map[string]string{"a": "globex"}}, `owners["a"]`},
		{"map by tenant", &shoppb.SyncOrdersResponse{Counts: map[string]int32{"globex": 1}}, `counts["globex"]`},
		{"maps of ours", &shoppb.SyncOrdersResponse{Owners: map[string]string{"globex": "acme"}, Counts: map[string]int32{"acme": 1}}, ""},
		{"optional, unset", &shoppb.SyncOrdersResponse{}, ""},
		{"optional, of another", &shoppb.SyncOrdersResponse{TenantId: proto.String("globex")}, "tenant_id"},
		{"any", &shoppb.SyncOrdersResponse{Extra: pack(t, order(ours))}, ""},
		{"any of another", &shoppb.SyncOrdersResponse{Extra: pack(t, order(their))}, "extra.(shop.v1.Order).name"},
		{"any in any", &shoppb.SyncOrdersResponse{Extra: pack(t, &shoppb.SyncOrdersResponse{Extra: pack(t, order(their))})},
			"extra.(shop.v1.SyncOrdersResponse).extra.(shop.v1.Order).name"},
		{"any with nothing to check", &shoppb.SyncOrdersResponse{Extra: pack(t, &shoppb.GetVersionResponse{})}, ""},
		{"empty any", &shoppb.SyncOrdersResponse{Extra: &anypb.Any{}}, ""},
		{"extension", legacy(func(m *legacypb.Record) { proto.SetExtension(m, legacypb.E_TenantId, "acme") }), ""},
		{"extension of another", legacy(func(m *legacypb.Record) { proto.SetExtension(m, legacypb.E_TenantId, "globex") }), "[shop.legacy.v1.tenant_id]"},
		{"extension message of another", legacy(func(m *legacypb.Record) {
			proto.SetExtension(m, legacypb.E_Owner, &legacypb.Owner{TenantId: proto.String("globex")})
		}), "[shop.legacy.v1.owner].tenant_id"},
		{"extension without a rule", legacy(func(m *legacypb.Record) { proto.SetExtension(m, legacypb.E_Plain, "globex") }), ""},
		{"nothing to check", &shoppb.GetVersionResponse{Version: "globex"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, at := range []fields.Point{fields.ClientSends, fields.ServerReceives, fields.ServerSends, fields.ClientReceives} {
				before := proto.Clone(tt.m)
				got, err := check(t, tt.m, at, 9)
				if tt.path != "" {
					wantFault(t, err, tenant.TenantMismatch, tt.path)
				} else if err != nil || got != tt.m {
					t.Errorf("at %d: %v, %v", at, got, err)
				}
				if diff := cmp.Diff(before, tt.m, protocmp.Transform()); diff != "" {
					t.Errorf("at %d it was changed: %s", at, diff)
				}
			}
		})
	}
}

func wantFault(t *testing.T, err error, want tenant.Reason, path string) {
	t.Helper()
	var f *fields.Fault
	if !errors.As(err, &f) || tenant.ReasonOf(err) != want || f.Path != path {
		t.Errorf("got %v, want %s at %s", err, want, path)
		return
	}
	if s := err.Error(); !strings.Contains(s, path) || strings.Contains(s, "globex/") {
		t.Errorf("%q", s)
	}
}

func TestUncheckable(t *testing.T) {
	deep := &shoppb.SyncOrdersResponse{}
	for range 6 {
		deep = &shoppb.SyncOrdersResponse{Extra: pack(t, deep)}
	}
	for name, a := range map[string]*anypb.Any{
		"unknown type":    {TypeUrl: "type.googleapis.com/shop.v1.Unknown"},
		"no type":         {Value: []byte{1}},
		"not of its type": {TypeUrl: "type.googleapis.com/shop.v1.Order", Value: []byte{0xff}},
		"wrong options":   pack(t, &legacypb.WrongKind{}),
		"too deep":        pack(t, deep),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := check(t, &shoppb.SyncOrdersResponse{Extra: a}, fields.ServerSends, 9)
			if tenant.ReasonOf(err) != tenant.MessageUncheckable {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestFill(t *testing.T) {
	for at, want := range map[fields.Point]string{
		fields.ClientSends: "", fields.ServerReceives: "acme", fields.ServerSends: "", fields.ClientReceives: "",
	} {
		m := &shoppb.DeleteOrderRequest{OrderId: "1"}
		if _, err := check(t, m, at, 0); err != nil || m.TenantId != want {
			t.Errorf("at %d: %q, %v", at, m.TenantId, err)
		}
		m.TenantId = "globex"
		_, err := check(t, m, at, 0)
		wantFault(t, err, tenant.TenantMismatch, "tenant_id")
	}
	// Within an Any, too.
	m := &shoppb.SyncOrdersResponse{Extra: pack(t, &shoppb.DeleteOrderRequest{OrderId: "1"})}
	if _, err := check(t, m, fields.ServerReceives, 0); err != nil {
		t.Fatal(err)
	}
	var in shoppb.DeleteOrderRequest
	if err := m.Extra.UnmarshalTo(&in); err != nil || in.TenantId != "acme" || in.OrderId != "1" {
		t.Errorf("%v, %v", &in, err)
	}
}

func TestClassified(t *testing.T) {
	full := func() *shoppb.Order { return &shoppb.Order{Name: ours, CardNumber: "4111", Note: "n"} }
	t.Run("refused", func(t *testing.T) {
		m := &shoppb.GetOrderResponse{Order: &shoppb.Order{Name: ours, Margin: 7}}
		_, err := check(t, m, fields.ServerSends, 2)
		wantFault(t, err, tenant.ClassificationNotAllowed, "order.margin")
		if _, err := check(t, m, fields.ServerSends, 3); err != nil {
			t.Error(err)
		}
	})
	t.Run("an empty field is not refused", func(t *testing.T) {
		if _, err := check(t, order(ours), fields.ServerSends, 0); err != nil {
			t.Error(err)
		}
	})
	for name, wrap := range map[string]func(*shoppb.Order) proto.Message{
		"nested":   func(o *shoppb.Order) proto.Message { return &shoppb.GetOrderResponse{Order: o} },
		"repeated": func(o *shoppb.Order) proto.Message { return &shoppb.ListOrdersResponse{Orders: []*shoppb.Order{o}} },
		"map": func(o *shoppb.Order) proto.Message {
			return &shoppb.SyncOrdersResponse{Orders: map[string]*shoppb.Order{"a": o}}
		},
		"any": func(o *shoppb.Order) proto.Message { return &shoppb.SyncOrdersResponse{Extra: pack(t, o)} },
	} {
		t.Run("cleared, "+name, func(t *testing.T) {
			without := full()
			without.CardNumber = ""
			for _, at := range []fields.Point{fields.ClientSends, fields.ServerSends} {
				m := wrap(full())
				got, err := check(t, m, at, 1)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(wrap(without), got, protocmp.Transform()); diff != "" {
					t.Errorf("at %d: %s", at, diff)
				}
				if diff := cmp.Diff(wrap(full()), m, protocmp.Transform()); diff != "" {
					t.Errorf("at %d what is the application's was changed: %s", at, diff)
				}
			}
			for _, at := range []fields.Point{fields.ServerReceives, fields.ClientReceives} {
				got, err := check(t, wrap(full()), at, 1)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(wrap(without), got, protocmp.Transform()); diff != "" {
					t.Errorf("at %d: %s", at, diff)
				}
			}
			got, err := check(t, wrap(full()), fields.ServerSends, 2)
			if diff := cmp.Diff(wrap(full()), got, protocmp.Transform()); diff != "" || err != nil {
				t.Errorf("within the claims' classification: %v %s", err, diff)
			}
		})
	}
	t.Run("cleared, and a fault behind it", func(t *testing.T) {
		m := &shoppb.ListOrdersResponse{Orders: []*shoppb.Order{full(), order(their)}}
		_, err := check(t, m, fields.ServerSends, 0)
		wantFault(t, err, tenant.TenantMismatch, "orders[1].name")
	})
}

func TestWrongOptions(t *testing.T) {
	for _, tt := range []struct {
		m    proto.Message
		want string
	}{
		{&legacypb.WrongKind{}, "a tenant is named by a string, not by int64"},
		{&legacypb.WrongBoth{}, "exclude each other"},
		{&legacypb.WrongPattern{}, "{tenant} stands once"},
		{&legacypb.WrongSegment{}, "collections and {ids}"},
		{&legacypb.WrongKeys{}, "map_keys is for maps"},
		{&legacypb.WrongFill{}, "EMPTY_FILL is for a single field"},
		{&legacypb.WrongEmpty{}, "map_keys and empty go with"},
		{&legacypb.WrongAbove{}, "above goes with classification"},
		{&legacypb.WrongBelow{}, "shop.legacy.v1.WrongKind.a"},
	} {
		md := tt.m.ProtoReflect().Descriptor()
		for range 2 { // compiled, and as it is remembered
			typ, err := fields.Of(md)
			if typ != nil || err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "shop/legacy/v1/legacy.proto:") {
				t.Errorf("%s: %v, %v does not say %q", md.Name(), typ, err, tt.want)
			}
		}
	}
}

func TestTenantFields(t *testing.T) {
	for _, tt := range []struct {
		m    proto.Message
		want bool
	}{{&shoppb.Order{}, true}, {&shoppb.ListOrdersResponse{}, true}, {&shoppb.GetVersionResponse{}, false}, {&anypb.Any{}, false}} {
		typ, err := fields.Of(tt.m.ProtoReflect().Descriptor())
		if err != nil || typ.TenantFields() != tt.want {
			t.Errorf("%T: %t, %v", tt.m, typ.TenantFields(), err)
		}
	}
}

func TestCheckAllocates(t *testing.T) {
	m := &shoppb.Wide{TenantId: "acme"}
	typ, err := fields.Of(m.ProtoReflect().Descriptor())
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := typ.Check(m, fields.ServerReceives, fields.Limits{Tenant: "acme"}); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
