package policy

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/tenantmesh/tenantmesh/hop"
	shopv1 "github.com/tenantmesh/tenantmesh/internal/testproto/shop/v1"
	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// shopMethod is a method of generated code.
func shopMethod(t *testing.T, name protoreflect.Name) protoreflect.MethodDescriptor {
	t.Helper()
	m := shopv1.File_shop_v1_shop_proto.Services().ByName("ShopService").Methods().ByName(name)
	if m == nil {
		t.Fatalf("there is no method %s", name)
	}
	return m
}

func declared(t *testing.T, m protoreflect.MethodDescriptor) *Declared {
	t.Helper()
	d, err := Declare(m)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDeclare(t *testing.T) {
	const at = "shop/v1/shop.proto:shop.v1.ShopService."
	for name, want := range map[protoreflect.Name]Declared{
		"GetOrder":    {at: at + "GetOrder", scopes: []need{{"orders.read", at + "GetOrder"}}, classification: level{0, at + "GetOrder"}},
		"ListOrders":  {},
		"GetVersion":  {at: at + "GetVersion", exempt: true, classification: level{0, at + "GetVersion"}},
		"DeleteOrder": {at: at + "DeleteOrder", scopes: []need{{"orders.write", at + "DeleteOrder"}}, classification: level{1, at + "DeleteOrder"}, absent: pb.Absent_ABSENT_PERMISSION_DENIED},
	} {
		d := declared(t, shopMethod(t, name))
		if d.at != want.at || d.exempt != want.exempt || !slices.Equal(d.scopes, want.scopes) || d.classification != want.classification || d.absent != want.absent {
			t.Errorf("%s: %+v, want %+v", name, *d, want)
		}
		if d.Exempt() != want.exempt || d.HidesExistence() != (name != "DeleteOrder") {
			t.Errorf("%s: exempt %t, hides %t", name, d.Exempt(), d.HidesExistence())
		}
	}
}

// optionOf is a method with an option that protoc would let pass.
func optionOf(t *testing.T, rule *pb.MethodRule) protoreflect.MethodDescriptor {
	t.Helper()
	options := &descriptorpb.MethodOptions{}
	proto.SetExtension(options, pb.E_Method, rule)
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("x.proto"), Package: proto.String("x"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("M")}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("S"), Method: []*descriptorpb.MethodDescriptorProto{
			{Name: proto.String("Do"), InputType: proto.String(".x.M"), OutputType: proto.String(".x.M"), Options: options},
		}}},
		SourceCodeInfo: &descriptorpb.SourceCodeInfo{Location: []*descriptorpb.SourceCodeInfo_Location{
			{Path: []int32{6, 0, 2, 0}, Span: []int32{11, 2, 50}}, // the first method of the first service
		}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file.Services().Get(0).Methods().Get(0)
}

func TestDeclareRefuses(t *testing.T) {
	newer := &pb.MethodRule{Scopes: []string{"a"}}
	newer.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
	for name, tt := range map[string]struct {
		rule *pb.MethodRule
		want string
	}{
		"exempt with scopes":           {&pb.MethodRule{Exempt: true, Scopes: []string{"a"}}, "an exempt method asks for nothing"},
		"exempt with a classification": {&pb.MethodRule{Exempt: true, Classification: 1}, "an exempt method asks for nothing"},
		"exempt with absent":           {&pb.MethodRule{Exempt: true, Absent: pb.Absent_ABSENT_NOT_FOUND}, "an exempt method asks for nothing"},
		"an unknown absent":            {&pb.MethodRule{Absent: 3}, "absent: 3 is unknown"},
		"a scope with a star":          {&pb.MethodRule{Scopes: []string{"a", "a.*"}}, `"a.*" is no scope`},
		"an empty scope":               {&pb.MethodRule{Scopes: []string{""}}, `"" is no scope`},
		"a newer option":               {newer, "it says what this program does not know"},
	} {
		d, err := Declare(optionOf(t, tt.rule))
		if want := "x.proto:12: (tenantmesh.v1.method): " + tt.want; d != nil || err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, %v, want %s", name, d, err, want)
		}
	}
}

const shopDoc = `version: 1
trust_domains: [{name: prod.example}]
workloads:
  - name: gateway
    match: spiffe://prod.example/gateway
    tenants: ["*"]
    originate: {scopes: ["**"], classification: 3}
    calls: [/shop.v1.ShopService/*]
methods:
  - match: /shop.v1.ShopService/*
    callers: [gateway]
    scopes: [shop]
  - match: /shop.v1.ShopService/DeleteOrder
    classification: 2
  - match: /other.v1.Other/*
    exempt: true
tenants:
  acme: {uid: ` + acmeUID + `}
`

// TestDeclaredAndRules: both apply, and the stricter counts.
func TestDeclaredAndRules(t *testing.T) {
	p, err := Parse("mesh.yaml", []byte(shopDoc))
	if err != nil {
		t.Fatal(err)
	}
	const read, remove = "/shop.v1.ShopService/GetOrder", "/shop.v1.ShopService/DeleteOrder"
	secret := declared(t, optionOf(t, &pb.MethodRule{Classification: 3}))
	for _, tt := range []struct {
		name, method   string
		declared       *Declared
		scopes         []string
		classification uint32
		want           tenant.Reason
		rule           string
	}{
		{"what both ask for is there", read, declared(t, shopMethod(t, "GetOrder")), []string{"orders.read", "shop"}, 0, "", ""},
		{"the .proto's scope is missing", read, declared(t, shopMethod(t, "GetOrder")), []string{"shop"}, 0, tenant.ScopeMissing, "shop/v1/shop.proto:shop.v1.ShopService.GetOrder"},
		{"the rule's scope is missing", read, declared(t, shopMethod(t, "GetOrder")), []string{"orders.read"}, 0, tenant.ScopeMissing, "mesh.yaml:10"},
		{"no .proto: the rule's scope alone", read, nil, []string{"shop"}, 0, "", ""},
		{"no option: the rule's scope alone", read, declared(t, shopMethod(t, "ListOrders")), []string{"shop"}, 0, "", ""},
		{"the rule's classification is higher", remove, declared(t, shopMethod(t, "DeleteOrder")), []string{"orders.write", "shop"}, 2, "", ""},
		{"the rule's classification is higher, and not reached", remove, declared(t, shopMethod(t, "DeleteOrder")), []string{"orders.write", "shop"}, 1, tenant.ClassificationNotAllowed, "mesh.yaml:13"},
		{"the .proto's classification is higher", remove, secret, []string{"shop"}, 3, "", ""},
		{"the .proto's classification is higher, and not reached", remove, secret, []string{"shop"}, 2, tenant.ClassificationNotAllowed, "x.proto:12"},
		{"exempt in the .proto alone exempts nothing", read, declared(t, shopMethod(t, "GetVersion")), nil, 0, tenant.ScopeMissing, "mesh.yaml:10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := claims(own, func(c *hop.Claims) { c.Scopes, c.Classification = tt.scopes, tt.classification })
			call := callOf(tt.method, ids("gateway"), c, nil)
			call.Declared = tt.declared
			d := p.Decide(&call)
			var rule string
			if e, ok := d.Err().(*tenant.Error); ok { //nolint:errorlint // nothing else comes
				rule = e.Rule
			}
			if tenant.ReasonOf(d.Err()) != tt.want || rule != tt.rule {
				t.Errorf("%v by %q, want %q by %q", d.Err(), rule, tt.want, tt.rule)
			}
			if tt.want == "" && tt.declared != nil && tt.declared.at != "" && !slices.Contains(d.Rules(), tt.declared.at) {
				t.Errorf("rules %q without %s", d.Rules(), tt.declared.at)
			}
		})
	}
}

// TestDeclaredExemption: a method is exempt if the policy says so and its
// .proto does not say otherwise.
func TestDeclaredExemption(t *testing.T) {
	p, err := Parse("mesh.yaml", []byte(shopDoc))
	if err != nil {
		t.Fatal(err)
	}
	const exempt, not = "/other.v1.Other/Do", "/shop.v1.ShopService/GetVersion"
	id := ids("gateway")[0]
	for _, tt := range []struct {
		name, method string
		declared     *Declared
		exempt       bool
		want         tenant.Reason
	}{
		{"both", exempt, declared(t, shopMethod(t, "GetVersion")), true, ""},
		{"the policy, and no .proto", exempt, nil, true, ""},
		{"the policy, and no option", exempt, declared(t, shopMethod(t, "ListOrders")), true, ""},
		{"M5 the policy, and the option says otherwise", exempt, declared(t, shopMethod(t, "GetOrder")), true, tenant.MethodNotCovered},
		{"M5 the policy, and the option is empty", exempt, declared(t, optionOf(t, &pb.MethodRule{})), true, tenant.MethodNotCovered},
		{"the .proto alone", not, declared(t, shopMethod(t, "GetVersion")), false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i, d := range []Decision{p.Covers(tt.method, tt.declared), p.Admit(tt.method, tt.declared, id), p.MayCall(id, tt.method, tt.declared)} {
				if tenant.ReasonOf(d.Err()) != tt.want || d.Exempt() != tt.exempt {
					t.Errorf("%d: %v, exempt %t", i, d.Err(), d.Exempt())
				}
			}
		})
	}
}
