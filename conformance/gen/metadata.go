package main

import "github.com/tenantmesh/tenantmesh/internal/vectors"

func metadataVectors() []vectors.Vector {
	type list = []any
	h := func(name string, value any) list { return list{name, value} }
	with := func(headers ...any) object { return object{"headers": headers} }
	hops, certs := h("tenantmesh-hops", "CgIKAA"), h("tenantmesh-certs", "CgIKAA")
	other := h("content-type", "application/grpc")
	twice := func(n int) list { return list{list{"A", n}} }

	both := base("both-keys", "Both keys, beside others.", with(other, hops, certs), object{"hops": "CgIKAA", "certs": "CgIKAA"})
	out := []vectors.Vector{both}
	accept := func(lines, comment string, ok object, headers ...any) {
		out = append(out, derived(lines, comment, both, with(headers...), ok, "", -1))
	}
	accept("", "A chain of one hop has no certificates.", object{"hops": "CgIKAA"}, other, hops)
	accept("", "No key: whether one is needed is the method's to say.", object{}, other)
	accept("M2", "Headers that name a tenant are not read.", object{"hops": "CgIKAA"},
		hops, h("x-tenant-id", "globex"), h("grpcgateway-x-tenant-id", "globex"), h("baggage", "tenant=globex"))
	accept("M1", "A key that only begins like one.", object{"hops": "CgIKAA"}, hops, h("tenantmesh-hops-v2", "AA"), h("x-tenantmesh-hops", "AA"))
	accept("H8", "As much as the budget.", object{"hops": twice(7164), "certs": "CgIK"},
		h("tenantmesh-hops", twice(7164)), h("tenantmesh-certs", "CgIK"))

	refuse := func(lines, comment, reason string, headers ...any) {
		out = append(out, derived(lines, comment, both, with(headers...), nil, reason, -1))
	}
	ambiguous := func(comment string, headers ...any) { refuse("M1", comment, "METADATA_AMBIGUOUS", headers...) }
	ambiguous("Hops twice, the same.", hops, hops, certs)
	ambiguous("Hops twice, the second empty.", hops, h("tenantmesh-hops", ""), certs)
	ambiguous("Certificates twice.", hops, certs, certs)
	ambiguous("Values of hops joined by a comma.", h("tenantmesh-hops", "CgIKAA,CgIKAA"))
	ambiguous("Values of certificates joined by a comma and a space.", hops, h("tenantmesh-certs", "CgIKAA, CgIKAA"))
	ambiguous("A comma behind the value.", h("tenantmesh-hops", "CgIKAA,"))
	ambiguous("A -bin twin of hops.", hops, h("tenantmesh-hops-bin", "CgIKAA"))
	ambiguous("A -bin twin in its place.", h("tenantmesh-hops-bin", "CgIKAA"))
	ambiguous("A -bin twin of certificates.", hops, h("tenantmesh-certs-bin", "CgIKAA"))
	ambiguous("Hops in upper case.", h("TENANTMESH-HOPS", "CgIKAA"))
	ambiguous("Hops in title case beside hops.", hops, h("Tenantmesh-Hops", "CgIKAA"))
	ambiguous("Hops with an underscore.", hops, h("tenantmesh_hops", "CgIKAA"))
	ambiguous("Certificates with an underscore.", hops, h("tenantmesh_certs", "CgIKAA"))
	ambiguous("Hops by way of grpc-gateway.", h("grpcgateway-tenantmesh-hops", "CgIKAA"))
	ambiguous("Hops by way of Grpc-Metadata.", hops, h("grpc-metadata-tenantmesh-hops", "CgIKAA"))
	ambiguous("All variants in one.", h("Grpc-Metadata-grpcgateway-TENANTMESH_HOPS-bin", "CgIKAA"))
	ambiguous("An empty twin.", hops, h("tenantmesh-hops-bin", ""))
	ambiguous("An empty value and a twin: ambiguity counts first.", h("tenantmesh-hops", ""), h("tenantmesh-certs-bin", "AA"))
	refuse("H7 M1", "Empty hops.", "CONTEXT_MALFORMED", h("tenantmesh-hops", ""), certs)
	refuse("H7 M1", "Empty certificates.", "CONTEXT_MALFORMED", hops, h("tenantmesh-certs", ""))
	refuse("H8", "Hops a byte over budget.", "METADATA_TOO_LARGE", h("tenantmesh-hops", twice(7169)))
	refuse("H8", "Certificates over budget, without hops.", "METADATA_TOO_LARGE", h("tenantmesh-certs", twice(7169)))
	refuse("H8", "A byte over budget together.", "METADATA_TOO_LARGE", h("tenantmesh-hops", twice(7164)), h("tenantmesh-certs", "CgIKA"))
	refuse("H8", "A megabyte.", "METADATA_TOO_LARGE", h("tenantmesh-hops", twice(1<<20)))
	return out
}
