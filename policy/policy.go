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

// MaxDocument is the size in bytes of the largest document. The worst document
// of this size takes about a second and 700 MB to be refused.
const MaxDocument = 1 << 20

// Source yields the policy in force, or nil if there is none, in which case
// everything is denied with [tenant.PolicyUnavailable]. A decision takes it
// once and holds on to it. A Source is safe for concurrent use.
type Source interface{ Current() *Policy }

// Policy is a compiled document. It is immutable and safe for concurrent use.
// A nil and a zero Policy deny everything, with [tenant.PolicyUnavailable].
type Policy struct {
	version string // empty for the zero Policy
	domains map[string]*domain
	methods map[string]*service
	tenants map[tenant.ID]string // uid by ID
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
	uid, ok = p.tenants[id]
	return uid, ok
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
	originate *origination // nil: may only forward
	calls     callSet
}

// tenantSet is a list of tenants in the document. The zero set has none.
type tenantSet struct {
	all      bool // "*"
	captured bool // "{tenant}"
	ids      map[tenant.ID]bool
}

// has reports whether id is in the set, of an entry whose pattern captured the
// given tenant.
func (s *tenantSet) has(id, captured tenant.ID) bool {
	return s.all || s.captured && !captured.IsZero() && id == captured || s.ids[id]
}

// origination is what a workload may start chains with.
type origination struct {
	issuers        []string // nil: only claims without one
	scopes         []scopePattern
	subjects       []glob // nil: any but the empty one
	classification uint32
	maxTTL         time.Duration
}

// index finds the workload that matches an ID within a trust domain.
type index struct {
	exact map[string]*workload // by path
	fixed map[int][]*workload  // by number of segments
	rest  []*workload          // those that end with **
}

func (ix *index) add(w *workload) {
	switch n := len(w.match.segments); {
	case w.match.rest:
		ix.rest = append(ix.rest, w)
	case w.match.literal():
		if ix.exact == nil {
			ix.exact = map[string]*workload{}
		}
		ix.exact[w.match.path] = w
	default:
		if ix.fixed == nil {
			ix.fixed = map[int][]*workload{}
		}
		ix.fixed[n] = append(ix.fixed[n], w)
	}
}

// find returns the entry that matches the path and the tenant it captured. For
// allowing entries there is at most one; of denying ones any will do.
func (ix *index) find(path string) (*workload, tenant.ID) {
	if w := ix.exact[path]; w != nil {
		return w, tenant.ID{}
	}
	for _, w := range ix.fixed[countSegments(path)] {
		if id, ok := w.match.matches(path); ok {
			return w, id
		}
	}
	for _, w := range ix.rest {
		if id, ok := w.match.matches(path); ok {
			return w, id
		}
	}
	return nil, tenant.ID{}
}
