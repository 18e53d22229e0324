// Authorizer-cedar shows how another authorizer, here a set of Cedar policies,
// decides beside the mesh's policy: it decides some calls and prints who allowed
// and who denied them.
package main

import (
	"context"
	_ "embed" // for the policies
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/tenant"
)

var (
	//go:embed tenantmesh.yaml
	meshPolicy []byte
	//go:embed authorizer.cedar
	cedarPolicies []byte
)

// billing is what Cedar knows of tenants; of initech it knows nothing.
var billing = types.EntityMap{}

func init() {
	for name, suspended := range map[string]bool{"acme": false, "globex": true} {
		uid := cedar.NewEntityUID("Tenant", cedar.String(name))
		billing[uid] = cedar.Entity{UID: uid, Attributes: cedar.NewRecord(cedar.RecordMap{"suspended": cedar.Boolean(suspended)})}
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	pol, err := policy.Parse("tenantmesh.yaml", meshPolicy)
	if err != nil {
		return err
	}
	auth, err := newAuthorizer("authorizer.cedar", cedarPolicies, billing)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, s := range samples {
		call, err := s.call(pol)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%s\n", s.what, verdict(decide(pol, auth, call)))
	}
	return w.Flush()
}

// decide is what a Guard does: both must allow, and the policy is asked first.
func decide(pol *policy.Policy, auth policy.Authorizer, call *policy.Call) error {
	if d := pol.Decide(call); d.Err() != nil {
		return d.Err()
	}
	return auth.Authorize(context.Background(), call)
}

func verdict(err error) string {
	if err == nil {
		return "allowed"
	}
	if e, ok := errors.AsType[*tenant.Error](err); ok {
		return fmt.Sprintf("%s (%s) %s", e.Reason, e.Detail, e.Rule)
	}
	return err.Error()
}

// sample is a call as a Guard would have verified it.
type sample struct {
	what, from, method, tenant, subject string
	scopes                              []string
	rctx                                map[string]string
}

var samples = []sample{
	{what: "alice lists at acme", from: "gateway", method: "List", tenant: "acme", subject: "alice", scopes: []string{"orders.read"}},
	{what: "alice creates without the scope", from: "gateway", method: "Create", tenant: "acme", subject: "alice", scopes: []string{"orders.read"}},
	{what: "bob lists at globex, suspended", from: "gateway", method: "List", tenant: "globex", subject: "bob", scopes: []string{"orders.read"}},
	{what: "bob creates there", from: "gateway", method: "Create", tenant: "globex", subject: "bob", scopes: []string{"orders.write"}},
	{
		what: "carol on duty", from: "console", method: "List", tenant: "acme", subject: "staff:carol", scopes: []string{"orders.read"},
		rctx: map[string]string{"ticket": "4711"},
	},
	{what: "carol without a ticket", from: "console", method: "List", tenant: "acme", subject: "staff:carol", scopes: []string{"orders.read"}},
	{what: "dave lists at initech, unknown to Cedar", from: "gateway", method: "List", tenant: "initech", subject: "dave", scopes: []string{"orders.read"}},
}

func (s sample) call(pol *policy.Policy) (*policy.Call, error) {
	id, err := tenant.ParseID(s.tenant)
	if err != nil {
		return nil, err
	}
	signer, err := spiffeid.FromString("spiffe://prod.example/" + s.from)
	if err != nil {
		return nil, err
	}
	uid, _ := pol.TenantUID(id)
	method, now := "/orders.v1.Orders/"+s.method, time.Now()
	claims := &hop.Claims{
		Transaction: "t1", Tenant: id, TenantUID: uid, Subject: s.subject, Scopes: s.scopes, Request: s.rctx,
		IssuedAt: now, Expires: now.Add(time.Minute),
	}
	if s.from == "gateway" {
		claims.Issuer = "https://login.example"
	}
	return &policy.Call{
		Method: method, Path: []hop.Step{{Signer: signer, Kind: hop.Call, Target: method}},
		Claims: claims, Scopes: s.scopes, Time: now,
	}, nil
}
