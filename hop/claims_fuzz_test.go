package hop

import (
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// Claims that a chain can begin with come out of its first statement as they
// went in; all others are refused, and for their form.
func FuzzBegin(f *testing.F) {
	for _, v := range vectorInputs[vectorClaims](f, "claims.json") {
		c := v.Claims
		attributes := ""
		for _, name := range slices.Sorted(maps.Keys(c.Tctx.Attributes)) {
			attributes += name + "=" + c.Tctx.Attributes[name] + ";"
		}
		f.Add(c.Txn, c.Sub, c.Iss, strings.Join(c.Scope, " "), c.Tctx.Tenant, c.Tctx.TenantUID, c.Tctx.Classification,
			attributes, c.Iat, c.Exp, c.Parent.Txn, c.Elevation.ID)
	}
	f.Fuzz(func(t *testing.T, txn, sub, iss, scopes, name, uid string, classification uint32, attributes string, iat, exp int64, parent, elevation string) {
		id, _ := tenant.ParseID(name) // the zero ID is refused too
		in := &Claims{
			Transaction: txn, Subject: sub, Issuer: iss, Tenant: id, TenantUID: uid, Classification: classification,
			Scopes: strings.Split(scopes, " "), Attributes: map[string]string{}, Elevation: elevation,
			IssuedAt: time.Unix(iat, 0).UTC(), Expires: time.Unix(exp, 0).UTC(),
		}
		for _, a := range strings.Split(attributes, ";") {
			if name, value, ok := strings.Cut(a, "="); ok {
				in.Attributes[name] = value
			}
		}
		in.Request = in.Attributes
		if parent != "" {
			in.Parent = &Parent{Transaction: parent, Statement: sha256.Sum256([]byte(parent))}
		}
		chain, err := Begin(in)
		if err != nil {
			if chain != nil || tenant.ReasonOf(err) != tenant.ContextMalformed {
				t.Fatalf("%v, %v", chain, err)
			}
			return
		}
		s := &Statement{
			Kind: Call, Audience: "spiffe://prod.example/orders", Target: "/a.B/C", IssuedAt: in.IssuedAt, Expires: in.Expires, Claims: chain.Claims(),
		}
		b, err := s.Marshal()
		if err != nil {
			t.Fatalf("begun and does not marshal: %v", err)
		}
		again, err := ParseStatement(b)
		if err != nil {
			t.Fatalf("begun and does not parse: %v", err)
		}
		if diff := cmp.Diff(in, again.Claims, equateIDs, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("claims (-in +out):\n%s", diff)
		}
	})
}
