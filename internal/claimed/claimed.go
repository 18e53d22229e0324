// Package claimed knows the headers by which clients are known to name a
// tenant. None of them ever chooses one: they are looked at only so that the
// audit trail shows who tried.
package claimed

import (
	"slices"
	"strings"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// maxTenants bounds how many tenants [Tenants] names.
const maxTenants = 8

// Tenants returns the tenants that headers assert, if they are others than the
// verified one: sorted, each once, separated by ", ", and "" for none. After them
// stand "(more)" if there are more than eight, and "(not a tenant ID)" if something
// else was asserted, which is not repeated.
func Tenants(headers map[string][]string, verified string) string {
	var others []string
	malformed := false
	for name, values := range headers {
		if !Names(name) {
			continue
		}
		for _, value := range values {
			if value == verified {
				continue
			}
			if _, err := tenant.ParseID(value); err != nil {
				malformed = true
				continue
			}
			others = append(others, value)
		}
	}
	slices.Sort(others)
	if others = slices.Compact(others); len(others) > maxTenants {
		others = append(others[:maxTenants], "(more)")
	}
	if malformed {
		others = append(others, "(not a tenant ID)")
	}
	return strings.Join(others, ", ")
}

// Names reports whether clients are known to name a tenant with the header.
func Names(header string) bool {
	switch header {
	case ":authority", "content-type", "user-agent", "grpc-accept-encoding": // of every call
		return false
	}
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
