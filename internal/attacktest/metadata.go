package attacktest

import (
	"strings"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Headers is an attack by header fields alone.
type Headers struct {
	Name   string
	Fields []string      // in pairs
	Want   tenant.Reason // empty where HTTP/2 itself refuses
}

// BesideHonest returns what stands beside an honest context in metadata, as any gRPC
// library can send it.
func BesideHonest() []Headers {
	var all []Headers
	for _, row := range [][]string{
		{"M1 two values", hop.HopsKey, "AAAA"},
		{"M1 certificates twice", hop.CertsKey, "AAAA", hop.CertsKey, "AAAA"},
		{"M1 a -bin twin", hop.HopsKey + "-bin", "AAAA"},
		{"M1 an underscore variant", "tenantmesh_hops", "AAAA"},
		{"M1 an underscore certs variant", "tenantmesh_certs", "AAAA"},
		{"M1 a gateway's variant", "grpcgateway-tenantmesh-hops", "AAAA"},
		{"M1 a gateway's other variant", "Grpc-Metadata-Tenantmesh-Certs", "AAAA"},
	} {
		all = append(all, Headers{row[0], row[1:], tenant.MetadataAmbiguous})
	}
	return all
}

// Joined presents an honest context twice, joined by a comma.
func Joined(honest Forgery) Forgery {
	return func(binding [32]byte, method string) (map[string]string, error) {
		md, err := honest(binding, method)
		if err == nil {
			md[hop.HopsKey] += "," + md[hop.HopsKey]
		}
		return md, err
	}
}

// RawHeaders returns what only a raw client sends in metadata.
func RawHeaders() []Headers {
	wide := strings.Repeat("A", hop.MaxMetadata)
	return []Headers{
		{"M1 the key in upper case", []string{"Tenantmesh-Hops", "AAAA"}, ""},
		{"M1 two equal values", []string{hop.HopsKey, "AAAA", hop.HopsKey, "AAAA"}, tenant.MetadataAmbiguous},
		{"M1 a -bin twin alone", []string{hop.HopsKey + "-bin", "AAAA"}, tenant.MetadataAmbiguous},
		{"M1 certificates alone", []string{hop.CertsKey, "AAAA"}, tenant.ContextMissing},
		{"M1 a value with a space", []string{hop.HopsKey, "AA AA"}, tenant.ContextMalformed},
		{"M1 a value with padding", []string{hop.HopsKey, "AAA="}, tenant.ContextMalformed},
		{"M1 a value in the other alphabet", []string{hop.HopsKey, "+/+/"}, tenant.ContextMalformed},
		{"H8 the budget is for both keys together", []string{hop.HopsKey, wide[:5000], hop.CertsKey, wide[:2169]}, tenant.MetadataTooLarge},
		{"H8 more than all headers may be", []string{hop.HopsKey, wide, "x-1", wide, "x-2", wide}, ""},
	}
}

// TenantHeaders are names by which clients name a tenant, and that choose none (M2).
func TenantHeaders() []string {
	return []string{"x-tenant-id", "grpc-metadata-x-tenant-id", "grpcgateway-tenant", "X-Tenant", "tenant-bin"}
}

// Paths returns variants of a full method that no gRPC client sends (M4,
// CVE-2026-33186), by what is wrong with them.
func Paths(method string) map[string]string {
	s, m, _ := strings.Cut(method[1:], "/")
	return map[string]string{
		"without its slash":  s + "/" + m,
		"two slashes":        "//" + s + "/" + m,
		"two slashes inside": "/" + s + "//" + m,
		"%2F":                "/" + s + "%2F" + m,
		"%2f before":         "%2f" + s + "/" + m,
		"#":                  "/" + s + "/" + m + "#x",
		"?":                  "/" + s + "/" + m + "?x=1",
		"a trailing slash":   "/" + s + "/" + m + "/",
		"dots":               "/x/../" + s + "/" + m,
		"upper case":         strings.ToUpper("/" + s + "/" + m),
		"empty":              "",
		"a slash":            "/",
		"a space":            "/" + s + "/" + m + " ",
		"%00":                "/" + s + "/" + m + "%00",
		"an authority":       "https://target/" + s + "/" + m,
	}
}
