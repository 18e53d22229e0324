package svid

import (
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/internal/leaf"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Expectation is who a server must be. The zero Expectation denies everyone.
type Expectation struct {
	ids []spiffeid.ID
	err error
}

// Expect returns an [Expectation] of a server that has one of the SPIFFE IDs,
// each written out, such as "spiffe://prod.example/inventory". There are no
// patterns. With an ID that is malformed, or with none, the Expectation denies
// everyone and [Expectation.Err] says why.
func Expect(ids ...string) Expectation {
	var e Expectation
	for _, s := range ids {
		id, err := parseID(s)
		if err != nil {
			return Expectation{err: err}
		}
		e.ids = append(e.ids, id)
	}
	return e
}

// Err returns why e denies everyone, or nil if there is somebody it allows.
// It has the reason [tenant.ServerUnexpected].
func (e Expectation) Err() error {
	if e.err == nil && len(e.ids) == 0 {
		return tenant.Deny(tenant.ServerUnexpected, "no server is expected: svid.Expect names who it must be")
	}
	return e.err
}

// Check fails with [tenant.ServerUnexpected] unless id is an expected one.
func (e Expectation) Check(id spiffeid.ID) error {
	if err := e.Err(); err != nil {
		return err
	}
	if id.IsZero() || !slices.Contains(e.ids, id) {
		return tenant.Deny(tenant.ServerUnexpected, "the server is %s, expected was %s", id, e)
	}
	return nil
}

// String names the expected IDs.
func (e Expectation) String() string {
	names := make([]string, len(e.ids))
	for i, id := range e.ids {
		names[i] = id.String()
	}
	return strings.Join(names, " or ")
}

// parseID parses a SPIFFE ID of a workload.
func parseID(s string) (spiffeid.ID, error) {
	if len(s) > leaf.MaxID {
		return spiffeid.ID{}, tenant.Deny(tenant.ServerUnexpected, "a SPIFFE ID has at most %d bytes, the expected one %d", leaf.MaxID, len(s))
	}
	id, err := spiffeid.FromString(s)
	if err != nil {
		return spiffeid.ID{}, tenant.Deny(tenant.ServerUnexpected, "%q is not a SPIFFE ID, so no server matches it: %w", s, err)
	}
	if id.Path() == "" {
		return spiffeid.ID{}, tenant.Deny(tenant.ServerUnexpected, "%q names a trust domain, not a workload, so no server matches it", s)
	}
	return id, nil
}
