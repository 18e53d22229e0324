// Package claimed knows the headers by which clients are known to name a
// tenant. None of them ever chooses one: they are looked at only so that the
// audit trail shows who tried.
package claimed

import (
	"slices"
	"strings"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// Tenant returns the tenant that headers assert, if it is another than the
// verified one, and "" otherwise. What is not a tenant ID is not repeated.
func Tenant(headers map[string][]string, verified string) string {
	var names []string
	for name := range headers {
		if Names(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range headers[name] {
			if value == verified {
				continue
			}
			if _, err := tenant.ParseID(value); err != nil {
				return "(not a tenant ID)"
			}
			return value
		}
	}
	return ""
}

// Names reports whether clients are known to name a tenant with the header.
func Names(header string) bool {
	plain, gateway := Plain(header)
	switch plain {
	case "x-tenant-id", "x-tenant", "x-org-id", "tenant-id", "tenant":
		return true
	}
	return gateway && strings.Contains(plain, "tenant") && !strings.HasPrefix(plain, "tenantmesh-")
}

// Plain returns the header's name in lower case, with '-' for '_', and without
// what grpc-gateway puts before it and gRPC behind it; and whether
// grpc-gateway's prefix was there.
func Plain(header string) (plain string, gateway bool) {
	plain = strings.ReplaceAll(strings.ToLower(header), "_", "-")
	for {
		s := strings.TrimPrefix(strings.TrimPrefix(plain, "grpc-metadata-"), "grpcgateway-")
		if s == plain {
			return strings.TrimSuffix(plain, "-bin"), gateway
		}
		plain, gateway = s, true
	}
}
