// Package policy decides which workloads may call which methods, act for which
// tenants, and originate which claims.
//
// A [Policy] is one YAML document, compiled and immutable. What it does not
// state, it denies; what it does not understand, it refuses to load. The order
// of its entries never matters.
//
//	pol, err := policy.LoadFile("tenantmesh.yaml")
//	...
//	_, err = pol.Authorize(policy.Call{Method: method, Path: path, Claims: claims, Scopes: scopes})
//
// Every denial is a [*tenant.Error]. Its Rule names the place in the document
// that decided, as file:line, where one did, and its Hop the signer at fault.
// Its Detail never quotes a claim.
//
// # The document
//
// Its keys are version, trust_domains, workloads, methods and tenants. All must
// stand, if only as an empty list or mapping, and the last line must end: so a
// file that was cut short is nearly always refused. Keep tenants last, so that
// one cut between two lines has lost tenants and not restrictions.
//
//   - trust_domains: what is not listed is unknown. With tenants, nothing from
//     the domain acts outside these; an empty list is none at all.
//   - workloads: match is a SPIFFE ID in which `*` stands for a whole segment or
//     any part of one, `{tenant}` for a tenant ID, and `**` at the end for one
//     or more segments. At most one entry may match an ID, besides those with
//     deny, which win; as all are compared with all, 4,000 entries may have
//     patterns. tenants lists tenant IDs, "{tenant}" for the one in the
//     ID, or "*" for all that the document lists. Absent means none.
//   - originate: what the workload may start chains with. issuers are exact;
//     without them the claims must name no issuer. scopes match by segments
//     between dots (`*` one, `**` at the end the rest); absent means none.
//     subjects match with `*` for any characters; absent means any subject but
//     the empty one, since whoever vouches for claims at all vouches for their
//     subject. classification is the highest, 0 if absent; max_ttl the longest
//     life of claims, 5m if absent and 1h at the most.
//   - calls and methods: /package.Service/Method or /package.Service/*. All
//     rules that match a method, 32 at the most, apply together: callers is the intersection of
//     those rules that state it (none if no rule does), scopes the union.
//   - exempt methods need no tenant and have no callers: any workload of a
//     listed trust domain may call them unless a deny entry matches it.
//   - tenants: uid is required. It tells a tenant from one that is created
//     anew under its name.
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

// Version identifies the document by a digest of its bytes, for audit. It is
// empty for a nil and a zero Policy.
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
	listed, ok := p.tenants.listed[id]
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
