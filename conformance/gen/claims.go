package main

import (
	"slices"
	"strings"
	"time"

	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
)

// claimsObject returns claims as vectors have them: the fields of SPEC.md,
// section 4.2, with attributes as objects and bytes in hex.
func claimsObject(c *pb.Claims) object {
	o := object{"txn": c.Txn, "sub": c.Sub, "iat": c.Iat, "exp": c.Exp}
	tctx := object{"tenant": c.Tctx.Tenant, "tenant_uid": c.Tctx.TenantUid}
	if c.Tctx.Classification > 0 {
		tctx["classification"] = c.Tctx.Classification
	}
	if len(c.Tctx.Attributes) > 0 {
		tctx["attributes"] = attributes(c.Tctx.Attributes)
	}
	o["tctx"] = tctx
	if c.Iss != "" {
		o["iss"] = c.Iss
	}
	if len(c.Scope) > 0 {
		o["scope"] = c.Scope
	}
	if c.Rctx != nil {
		o["rctx"] = object{"attributes": attributes(c.Rctx.Attributes)}
	}
	if c.Parent != nil {
		o["parent"] = object{"txn": c.Parent.Txn, "statement": hexOf(c.Parent.Statement)}
	}
	if c.Elevation != nil {
		o["elevation"] = object{"id": c.Elevation.Id}
	}
	return o
}

func attributes(list []*pb.Attribute) object {
	o := object{}
	for _, a := range list {
		o[a.Name] = a.Value
	}
	return o
}

func claimsVectors() []vectors.Vector {
	input := func(c *pb.Claims, self string) object {
		return object{"claims": claimsObject(c), "self": self, "policy": policyText, "now": noon.Unix()}
	}
	ok := func(c *pb.Claims) object { return object{"encoding": hexOf(marshal(c))} }
	const gateway, runner = "spiffe://prod.example/gateway", "spiffe://prod.example/tenant/acme/runner/7"
	few := policyClaims()
	few.Iss, few.Scope, few.Rctx, few.Tctx.Attributes, few.Tctx.Classification = "", nil, nil, nil, 0
	first := base("gateway", "The gateway originates for a user of the external issuer.", input(policyClaims(), gateway), ok(policyClaims()))
	own := base("runner", "A tenant's own workload, without an external issuer, scopes and attributes.", input(few, runner), ok(few))
	out := []vectors.Vector{first, own}
	full := allClaims()
	full.Parent, full.Elevation, full.Scope = nil, nil, policyClaims().Scope
	out = append(out, derived("", "An attribute without a value.", first, input(full, gateway), ok(full), "", -1))

	add := func(lines, comment, reason string, from vectors.Vector, change func(*pb.Claims)) {
		c, self := policyClaims(), gateway
		if from.ID == own.ID {
			c, self = func() *pb.Claims {
				d := policyClaims()
				d.Iss, d.Scope, d.Rctx, d.Tctx.Attributes, d.Tctx.Classification = "", nil, nil, nil, 0
				return d
			}(), runner
		}
		change(c)
		hop := 0
		if reason == "CONTEXT_MALFORMED" || reason == "CONTEXT_EXPIRED" {
			hop = -1
		}
		out = append(out, derived(lines, comment, from, input(c, self), ok(c), reason, hop))
	}
	by := func(comment, reason string, from vectors.Vector, self string) {
		c := policyClaims()
		if from.ID == own.ID {
			c = few
		}
		out = append(out, derived("T9", comment, from, input(c, self), nil, reason, 0))
	}
	add("T9", "Less than may be originated.", "", first, func(c *pb.Claims) { c.Scope, c.Tctx.Classification = nil, 0 })
	add("T9", "A subject of a pattern.", "", first, func(c *pb.Claims) { c.Sub = "svc-reports" })
	add("T9", "Claims that live as long as they may.", "", first, func(c *pb.Claims) { c.Iat, c.Exp = second(-30*time.Second), second(270*time.Second) })
	add("T9", "The last second of the claims.", "", first, func(c *pb.Claims) { c.Iat, c.Exp = second(-299*time.Second), second(time.Second) })

	globex := func(c *pb.Claims) { c.Tctx.Tenant, c.Tctx.TenantUid = "globex", "01JA2M4N6P8R0T2V4X6Z8B0D2F" }
	add("T9", "Another tenant.", "TENANT_NOT_BOUND", first, globex)
	add("T9", "Another tenant than the SPIFFE ID names.", "TENANT_NOT_BOUND", own, globex)
	add("T9", "A tenant that is not listed.", "TENANT_NOT_BOUND", first, func(c *pb.Claims) { c.Tctx.Tenant = "initech" })
	add("T9", "The uid of another tenant.", "TENANT_REPLACED", first, func(c *pb.Claims) { c.Tctx.TenantUid = "01JA2M4N6P8R0T2V4X6Z8B0D2F" })
	add("T9", "A scope that may not be originated.", "SCOPE_NOT_ALLOWED", first, func(c *pb.Claims) { c.Scope = []string{"admin", "orders.read"} })
	add("T9", "A scope of more segments than the pattern.", "SCOPE_NOT_ALLOWED", first, func(c *pb.Claims) { c.Scope = []string{"orders.read.all"} })
	add("T9", "A scope of fewer segments than the pattern.", "SCOPE_NOT_ALLOWED", first, func(c *pb.Claims) { c.Scope = []string{"orders"} })
	add("T9", "A scope that is spelled as the pattern.", "SCOPE_NOT_ALLOWED", own, func(c *pb.Claims) { c.Scope = []string{"orders.*"} })
	add("T9", "A scope in another case.", "SCOPE_NOT_ALLOWED", first, func(c *pb.Claims) { c.Scope = []string{"Orders.read"} })
	add("T9", "Another subject.", "SUBJECT_NOT_ALLOWED", first, func(c *pb.Claims) { c.Sub = "bob" })
	add("T9", "A subject that begins like one that is allowed.", "SUBJECT_NOT_ALLOWED", first, func(c *pb.Claims) { c.Sub = "alice2" })
	add("T9", "A subject that ends like a pattern.", "SUBJECT_NOT_ALLOWED", first, func(c *pb.Claims) { c.Sub = "xsvc-reports" })
	add("T9", "A subject in another case.", "SUBJECT_NOT_ALLOWED", first, func(c *pb.Claims) { c.Sub = "Alice" })
	add("T9", "A classification above the originator's.", "CLASSIFICATION_NOT_ALLOWED", first, func(c *pb.Claims) { c.Tctx.Classification = 3 })
	add("T9", "The highest classification there is.", "CLASSIFICATION_NOT_ALLOWED", first, func(c *pb.Claims) { c.Tctx.Classification = 1<<32 - 1 })
	add("T9", "Another issuer.", "ISSUER_NOT_ALLOWED", first, func(c *pb.Claims) { c.Iss = "https://evil.example" })
	add("T9", "An issuer with a slash.", "ISSUER_NOT_ALLOWED", first, func(c *pb.Claims) { c.Iss += "/" })
	add("T9", "No issuer, where one is required.", "ISSUER_NOT_ALLOWED", first, func(c *pb.Claims) { c.Iss = "" })
	add("T9", "An issuer, where none is allowed.", "ISSUER_NOT_ALLOWED", own, func(c *pb.Claims) { c.Iss = "https://login.example" })
	add("T9", "A life that is too long by a second.", "LIFETIME_NOT_ALLOWED", first, func(c *pb.Claims) { c.Exp = c.Iat + 301 })
	add("T9", "A life until the year 9999.", "LIFETIME_NOT_ALLOWED", first, func(c *pb.Claims) { c.Exp = 253402300799 })
	add("T9", "An elevation.", "ELEVATION_NOT_ALLOWED", first, func(c *pb.Claims) { c.Elevation = &pb.Elevation{Id: "e"} })
	add("T9", "A parent.", "ORIGINATION_NOT_ALLOWED", first, func(c *pb.Claims) {
		c.Parent = &pb.Parent{Txn: "t", Statement: randomBytes("parent")}
	})
	by("A workload that may only forward.", "ORIGINATION_NOT_ALLOWED", first, "spiffe://prod.example/orders")
	by("A workload that no entry matches.", "WORKLOAD_UNKNOWN", first, "spiffe://prod.example/gateway2")
	by("A workload of a trust domain that is not listed.", "WORKLOAD_UNKNOWN", first, "spiffe://other.example/gateway")
	by("A workload that is denied.", "WORKLOAD_DENIED", own, "spiffe://prod.example/tenant/acme/runner/old-7")
	by("A federated workload outside its tenants.", "TENANT_NOT_BOUND", own, "spiffe://partner.example/gateway")

	add("T9", "Claims in the second of their exp.", "CONTEXT_EXPIRED", first, func(c *pb.Claims) { c.Iat, c.Exp = second(-time.Minute), second(0) })
	add("T9", "Claims that expired long ago.", "CONTEXT_EXPIRED", first, func(c *pb.Claims) { c.Iat, c.Exp = 1, 2 })
	long := strings.Repeat("x", 513)
	for _, m := range []struct {
		comment string
		change  func(*pb.Claims)
	}{
		{"No txn.", func(c *pb.Claims) { c.Txn = "" }},
		{"No sub.", func(c *pb.Claims) { c.Sub = "" }},
		{"A sub of 513 bytes.", func(c *pb.Claims) { c.Sub = long }},
		{"A control character in sub.", func(c *pb.Claims) { c.Sub = "a\x00b" }},
		{"A line end in txn.", func(c *pb.Claims) { c.Txn = "a\nb" }},
		{"No tenant_uid.", func(c *pb.Claims) { c.Tctx.TenantUid = "" }},
		{"Unsorted scopes.", func(c *pb.Claims) { slices.Reverse(c.Scope) }},
		{"A scope twice.", func(c *pb.Claims) { c.Scope = []string{"orders.read", "orders.read"} }},
		{"A scope with a space.", func(c *pb.Claims) { c.Scope = []string{"orders.read orders.write"} }},
		{"An empty scope.", func(c *pb.Claims) { c.Scope = []string{""} }},
		{"An attribute without a name.", func(c *pb.Claims) { c.Tctx.Attributes[0].Name = "" }},
		{"No iat.", func(c *pb.Claims) { c.Iat = 0 }},
		{"An exp that is the iat.", func(c *pb.Claims) { c.Exp = c.Iat }},
		{"An exp before the iat.", func(c *pb.Claims) { c.Exp = c.Iat - 1 }},
		{"An exp after the year 9999.", func(c *pb.Claims) { c.Exp = 253402300800 }},
		{"A parent without a txn.", func(c *pb.Claims) { c.Parent = &pb.Parent{Statement: randomBytes("parent")} }},
	} {
		add("H7", m.comment, "CONTEXT_MALFORMED", first, m.change)
	}
	return out
}
