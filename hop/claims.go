package hop

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// Limits of sizes. What exceeds one is malformed, when signing as when
// verifying.
const (
	// MaxHops is the longest chain.
	MaxHops = 6
	// MaxMetadata is the most bytes that both metadata values have together,
	// as text.
	MaxMetadata = 7 << 10
	// MaxList is the most scopes, methods or attributes in one list.
	MaxList = 64

	maxText = 512 // bytes of any string but a SPIFFE ID
)

// Claims are what a chain says, under the names of
// draft-ietf-oauth-transaction-tokens. They stand in the first statement and
// never change along a chain.
type Claims struct {
	// Transaction is txn: it identifies the transaction through all its hops.
	Transaction string
	// Tenant and TenantUID stand in tctx. The UID tells the tenant from one
	// created anew under its name.
	Tenant    tenant.ID
	TenantUID string
	// Subject is sub: on whose behalf the transaction runs.
	Subject string
	// Issuer is iss: the external issuer that vouched for the subject; empty
	// if none did.
	Issuer string
	// Scopes is scope: sorted, each once.
	Scopes []string
	// Classification is the highest classification of data that the
	// transaction may touch; 0 is the lowest.
	Classification uint32
	// Attributes are further members of tctx.
	Attributes map[string]string
	// Request is rctx: what was true of the request that began the transaction.
	Request map[string]string
	// IssuedAt and Expires are iat and exp, in whole seconds.
	IssuedAt, Expires time.Time
	// Parent names what the chain was derived from; nil if it was not.
	Parent *Parent
	// Elevation identifies the elevation by which the tenant is reached; empty
	// if the bindings allow it.
	Elevation string
}

// Parent names the transaction and the statement from which a workload
// originated anew.
type Parent struct {
	Transaction string
	Statement   [32]byte
}

// Clone returns a deep copy of c.
func (c *Claims) Clone() *Claims {
	d := *c
	d.Scopes = slices.Clone(c.Scopes)
	d.Attributes = maps.Clone(c.Attributes)
	d.Request = maps.Clone(c.Request)
	if c.Parent != nil {
		p := *c.Parent
		d.Parent = &p
	}
	return &d
}

// Narrowing is what the workloads after a hop may do with the chain at the
// most. A nil list leaves what was allowed; an empty one allows nothing.
type Narrowing struct {
	// Scopes that remain, sorted, each once.
	Scopes []string
	// Methods that may be called with the chain after this hop, as full gRPC methods,
	// sorted, each once.
	Methods []string
}

// String names the tenant and the transaction and no other claim, so that
// claims may be logged.
func (c Claims) String() string {
	return "claims of " + c.Tenant.String() + " txn " + c.Transaction
}

// GoString keeps %#v from printing what String leaves out.
func (c Claims) GoString() string { return "hop.Claims{" + c.String() + "}" }

// LogValue keeps handlers of slog that print fields, such as its JSON handler,
// from printing what String leaves out.
func (c Claims) LogValue() slog.Value { return slog.StringValue(c.String()) }
