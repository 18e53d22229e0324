// Package policy decides which workloads may call which methods, act for which
// tenants, originate which claims, and use which queues.
//
// A [Policy] is one YAML document, with the tenants_file that it may name,
// compiled and immutable. What it does not state, it denies; what it does not
// understand, it refuses to load. The order of its entries never matters.
// docs/policy.md is a guide to it, with examples.
//
//	pol, err := policy.WatchFile(ctx, "tenantmesh.yaml")
//	...
//	d := pol.Current().Decide(&policy.Call{Method: method, Path: path, Claims: claims, Scopes: scopes, Time: now})
//	if err := d.Err(); err != nil {
//		fmt.Print(d.Explain())
//	}
//
// Every denial is a [*tenant.Error]. Its Rule names the place in the document
// that decided, as file:line, where one did, and its Hop the signer at fault.
// Its Detail never quotes a claim. Errors of a document have file, line and
// column, and often say what was probably meant.
//
// # The document
//
// Its keys are version, trust_domains, workloads, methods, tenant_sets,
// tenants_file and tenants. All but tenant_sets and tenants_file must stand, if
// only as an empty list or mapping, and the last line must end: so a file that
// was cut short is nearly always refused. Keep tenants last, so that one cut
// between two lines has lost tenants and not restrictions.
//
//   - trust_domains: name, and tenants. What is not listed is unknown. With
//     tenants, nothing from the domain acts outside these; an empty list is none
//     at all.
//   - workloads: name; match, the SPIFFE IDs that the entry is for; tenants that
//     they may act for; originate; calls, the methods that they may call;
//     publishes and consumes, the queues that they may use. What is absent is
//     none. An entry with deny: true has a name and a match only.
//   - methods: match; callers, by the names of their workloads; scopes, each
//     exact, that must all be in force; classification, to which the claims' must
//     reach; when, a condition. Or match and exempt: true.
//   - tenant_sets: a name each, and a list of tenants, or the tier, region or both
//     that its tenants have.
//   - tenants: an ID each, with uid, which is required and tells a tenant from one
//     that is created anew under its name; and tier, region and classification,
//     for tenant_sets and conditions.
//   - tenants_file: the path of a file with further tenants, below.
//
// # Matching
//
// A workload's match is a SPIFFE ID in which `*` stands for a whole segment or
// any part of one, `{tenant}` for a tenant ID, also as part of a segment, and
// `**` at the end for one or more segments. At most one entry may match an ID,
// besides those with deny, which win: two that may both match one are an error.
// The comparing of patterns is bounded: 4,000 entries may have them, or 1,000
// beside 9,000 without.
//
// Where tenants are listed, an item is a tenant ID; "set:NAME", a tenant set; "*", all
// that the document lists, which stands alone; or, in a workload whose match has
// it, "{tenant}", the one in the SPIFFE ID.
//
// calls, and the match of a method, are /package.Service/Method or
// /package.Service/*. All rules that match a method, 32 at the most, apply
// together: callers is the intersection of those rules that state it (none if no
// rule does), scopes and conditions must all be met, and the highest
// classification counts. A call needs both the method's callers and the caller's
// calls.
//
// Exempt methods need no tenant and have no callers: any workload of a listed
// trust domain may call them unless a deny entry matches it. An exemption stands
// alone: it is an error beside another rule for the same method.
//
// Scopes that may be originated match by the segments between dots, `*` one of
// them, `**` at the end one or more. So do the queues of publishes and consumes,
// which must be named without NATS's `>`.
//
// # Origination
//
// Only a workload with originate may start chains, with these claims:
//
//   - issuers: exact; if absent, the claims must name no external issuer.
//   - scopes: if absent, the claims have none.
//   - subjects: patterns in which `*` is any characters; if absent, any subject
//     but the empty one, since whoever vouches for claims at all vouches for their
//     subject.
//   - classification: the highest, 0 if absent. 0 is the lowest there is.
//   - max_ttl: the longest life of claims, 5m if absent and 1h at the most.
//   - from: the trust domains that it may originate anew from, so that the claims
//     have a parent; if absent, none.
//
// # Conditions
//
// A condition is an expression in CEL (cel.dev) without regular expressions. Its
// types, and the most that it can cost, are checked when the document is loaded.
// Its variables are:
//
//	peer.id, peer.trust_domain, peer.workload     who calls
//	path                                          the hops, the originator's first, each with
//	                                              id, trust_domain, workload and method
//	tenant.id, tenant.uid, tenant.tier,
//	tenant.region, tenant.classification          the tenant, as the document has it
//	claims.sub, claims.iss, claims.txn,
//	claims.classification, claims.iat, claims.exp the claims, under their names in SPEC.md
//	claims.scope                                  the scopes in force, as hops narrowed them
//	claims.tctx, claims.rctx                      maps from attribute to value
//	method                                        the full method
//	now                                           the time of the decision
//
// workload is the name of an entry. A condition that fails, or that asks for
// what is absent (a tier that the tenant does not have, an issuer, a key of a map),
// does not hold, unless the other side of an || or && decides it anyway.
//
// # The tenants file
//
// It has a tenant a line: its ID, then uid=, and then, in any order, tier=, region=
// and classification=, each after one blank. Empty lines, and lines that begin with
// #, say nothing. The last line says how many tenants there are, so that a file that
// was cut short is refused:
//
//	acme uid=01J9ZK3V5Q8W7RBNXH2C4D6E8F tier=gold region=eu
//	globex uid=01JA2M4N6P8R0T2V4X6Z8B0D2F
//	end: 2
//
// It is ASCII, has up to 128 MiB, and lies in the document's folder or below it.
// A tenant stands once, here or in the document.
//
// # Options in .proto
//
// What a method's .proto says of it, with the option (tenantmesh.v1.method), is
// a [Declared], and applies together with the rules: its scopes are required,
// too, the higher classification counts, and exempt exempts only where both say
// so. A method that only the policy exempts, while the option stands and does not, is
// not covered.
package policy

import (
	"time"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// DefaultMaxTTL is how long claims may live that a workload originates, where
// its entry states no max_ttl; MaxMaxTTL is the most that an entry may state.
const (
	DefaultMaxTTL = 5 * time.Minute
	MaxMaxTTL     = time.Hour
)

// MaxDocument is the size in bytes of the largest document: some 20,000 entries.
const MaxDocument = 4 << 20

// Source yields the policy in force, or nil if there is none, in which case
// everything is denied with [tenant.PolicyUnavailable]. A decision takes it
// once and holds on to it. A Source is safe for concurrent use.
type Source interface{ Current() *Policy }

// Policy is a compiled document. It is immutable and safe for concurrent use.
// A nil and a zero Policy deny everything, with [tenant.PolicyUnavailable].
type Policy struct {
	version string // empty for the zero Policy
	files   [2]string
	domains map[string]*domain
	methods byMethod[*method]
	tenants tenants
}

// Current returns p, so that a Policy is a [Source] of itself. A zero Policy
// is no policy: it returns nil.
func (p *Policy) Current() *Policy {
	if p == nil || p.version == "" {
		return nil
	}
	return p
}

// Version identifies the document and its tenants_file by a digest of their
// bytes, for audit. It is empty for a nil and a zero Policy.
func (p *Policy) Version() string {
	if p == nil {
		return ""
	}
	return p.version
}

// TenantUID returns the uid of a tenant; ok is false if it is not listed.
func (p *Policy) TenantUID(id tenant.ID) (uid string, ok bool) {
	if p == nil {
		return "", false
	}
	listed, ok := p.tenants.find(id)
	return listed.uid, ok
}

// domain is a trust domain: its limits and its workloads.
type domain struct {
	at      string
	tenants *tenantSet // nil: not confined
	allow   index
	deny    index
}

// workload is an entry of workloads.
type workload struct {
	name      string
	at        string // file:line
	match     pattern
	deny      bool
	tenants   tenantSet
	originate *origination     // nil: may only forward
	calls     byMethod[string] // the places that allow them
	publishes []scopePattern
	consumes  []scopePattern
}

// origination is what a workload may start chains with.
type origination struct {
	issuers        []string // nil: only claims without one
	scopes         []scopePattern
	subjects       []glob // nil: any but the empty one
	classification uint32
	maxTTL         time.Duration
	from           []string // trust domains that it may originate anew from
}
