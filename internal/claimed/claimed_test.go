package claimed_test

import (
	"testing"

	"github.com/tenantmesh/tenantmesh/internal/claimed"
)

func TestPlain(t *testing.T) {
	for _, c := range []struct {
		header, plain string
		gateway       bool
	}{
		{"x-tenant-id", "x-tenant-id", false},
		{"X-Tenant-Id", "x-tenant-id", false},
		{"X_TENANT_ID", "x-tenant-id", false},
		{"x-tenant-id-bin", "x-tenant-id", false},
		{"x-tenant-id_Bin", "x-tenant-id", false},
		{"x-tenant-id-bin-bin", "x-tenant-id-bin", false}, // gRPC puts one there
		{"Grpc-Metadata-X-Tenant-Id", "x-tenant-id", true},
		{"grpcgateway-x-tenant-id", "x-tenant-id", true},
		{"Grpc_Metadata_Tenant_Bin", "tenant", true},
		{"grpc-metadata-grpc-metadata-tenant", "tenant", true},
		{"grpcgateway-grpcgateway-tenant", "tenant", true},
		// The prefixes in either order, as two gateways in a row leave them.
		{"grpc-metadata-grpcgateway-tenant", "tenant", true},
		{"grpcgateway-grpc-metadata-tenant", "tenant", true},
		{"grpcgateway-grpc-metadata-grpcgateway-tenant-bin", "tenant", true},
		{"x-grpcgateway-tenant", "x-grpcgateway-tenant", false},
		{"grpcgateway", "grpcgateway", false},
		{"grpcgateway-", "", true},
		{"", "", false},
	} {
		t.Run(c.header, func(t *testing.T) {
			if plain, gateway := claimed.Plain(c.header); plain != c.plain || gateway != c.gateway {
				t.Errorf("Plain = %q, %v; want %q, %v", plain, gateway, c.plain, c.gateway)
			}
		})
	}
}

func TestNames(t *testing.T) {
	for header, want := range map[string]bool{
		"x-tenant-id": true, "x-tenant": true, "x-org-id": true, "tenant-id": true, "tenant": true,
		"X-TENANT-ID": true, "x_tenant_id": true, "tenant-bin": true,
		"grpc-metadata-x-org-id": true, "grpcgateway-tenant": true,
		// What a gateway handed on need only have the word in it.
		"grpcgateway-x-my-tenant-name": true, "Grpc-Metadata-TenantName": true,
		"x-my-tenant-name": false,
		// The mesh's own keys name none: what they carry is signed, or refused.
		"tenantmesh-hops": false, "grpc-metadata-tenantmesh-hops": false, "grpcgateway-tenantmesh-certs": false,
		"authorization": false, "baggage": false, "traceparent": false, "x-request-id": false, "": false, "x-organization": false,
	} {
		t.Run(header, func(t *testing.T) {
			if got := claimed.Names(header); got != want {
				t.Errorf("Names = %v, want %v", got, want)
			}
		})
	}
}

func TestTenants(t *testing.T) {
	const none = "(not a tenant ID)"
	for _, c := range []struct {
		name    string
		headers map[string][]string
		want    string
	}{
		{"M2 no header", nil, ""},
		{"M2 none that names one", map[string][]string{"baggage": {"tenant=globex"}, "authorization": {"globex"}}, ""},
		{"M2 the verified one", map[string][]string{"X-Tenant-Id": {"acme"}}, ""},
		{"M2 another", map[string][]string{"X-Tenant-Id": {"globex"}}, "globex"},
		{"M2 another as second value", map[string][]string{"x-tenant-id": {"acme", "globex"}}, "globex"},
		{"M2 another in a second header", map[string][]string{"tenant": {"acme"}, "x-tenant": {"globex"}}, "globex"},
		{"M2 several others", map[string][]string{"x-tenant": {"globex", "acme"}, "tenant": {"umbrella", "globex"}, "x-org-id": {"initech"}}, "globex, initech, umbrella"},
		{"M2 another beside headers that name none", map[string][]string{"accept": {"x"}, "baggage": {"tenant=acme"}, "x-tenant": {"globex"}}, "globex"},
		{"M2 a malformed one hides no other", map[string][]string{"tenant": {"", "../x", "initech"}, "x-tenant": {"globex"}}, "globex, initech, " + none},
		{"M2 eight others", map[string][]string{"tenant": {"h1", "g1", "f1", "e1", "d1", "c1", "b1", "a1"}}, "a1, b1, c1, d1, e1, f1, g1, h1"},
		{"M2 nine others", map[string][]string{"tenant": {"i1", "h1", "g1", "f1", "e1", "d1", "c1", "b1", "a1", "?"}}, "a1, b1, c1, d1, e1, f1, g1, h1, (more), " + none},
		{"M2 in upper case", map[string][]string{"x-tenant-id": {"ACME"}}, none},
		{"M2 a list", map[string][]string{"x-tenant-id": {"acme,globex"}}, none},
		{"M2 with white space", map[string][]string{"x-tenant-id": {" acme"}}, none},
		{"M2 empty", map[string][]string{"x-tenant-id": {""}}, none},
		{"M2 what is no tenant is not repeated", map[string][]string{"x-tenant-id": {"../c4n4ry\n"}}, none},
		{"M2 without a value", map[string][]string{"x-tenant-id": nil}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 32 { // in whatever order the map is walked
				if got := claimed.Tenants(c.headers, "acme"); got != c.want {
					t.Fatalf("Tenants = %q, want %q", got, c.want)
				}
			}
		})
	}
	t.Run("M2 nothing is verified", func(t *testing.T) {
		if got := claimed.Tenants(map[string][]string{"tenant": {"acme"}}, ""); got != "acme" {
			t.Errorf("Tenants = %q, want acme", got)
		}
	})
}
