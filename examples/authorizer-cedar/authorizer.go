package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// authorizer asks a set of Cedar policies about calls that the mesh's policy
// allows. It implements [policy.Authorizer].
type authorizer struct {
	file     string
	policies *cedar.PolicySet
	tenants  types.EntityGetter // what Cedar is to know of tenants
}

var _ policy.Authorizer = (*authorizer)(nil)

func newAuthorizer(file string, text []byte, tenants types.EntityGetter) (*authorizer, error) {
	policies, err := cedar.NewPolicySetFromBytes(file, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &authorizer{file, policies, tenants}, nil
}

// Authorize implements [policy.Authorizer]. All in the request was verified.
func (a *authorizer) Authorize(_ context.Context, c *policy.Call) error {
	if len(c.Path) == 0 || c.Claims == nil {
		return tenant.Deny(tenant.AuthorizerDenied, "a call without path or claims")
	}
	signer := c.Path[len(c.Path)-1].Signer
	peer := workload(signer)
	method := cedar.NewEntityUID("Action", cedar.String(c.Method))
	asked := cedar.Request{
		Principal: peer,
		Action:    method,
		Resource:  cedar.NewEntityUID("Tenant", cedar.String(c.Claims.Tenant.String())),
		Context:   contextOf(c),
	}
	service := cedar.NewEntityUID("Action", cedar.String(c.Method[:strings.LastIndexByte(c.Method, '/')+1]+"*"))
	domain := cedar.NewEntityUID("TrustDomain", cedar.String(signer.TrustDomain().Name()))
	known := entities{a.tenants, types.EntityMap{
		peer:   {UID: peer, Parents: cedar.NewEntityUIDSet(domain)},
		method: {UID: method, Parents: cedar.NewEntityUIDSet(service)},
	}}
	decision, why := cedar.Authorize(a.policies, known, asked)
	switch {
	case len(why.Errors) > 0:
		// Cedar leaves out a policy that cannot be evaluated, be it one that
		// forbids. Here it denies. Cedar's message is left out: it may quote a claim.
		e := slices.MinFunc(why.Errors, func(x, y cedar.DiagnosticError) int { return cmp.Compare(x.Position.Line, y.Position.Line) })
		return a.deny(e.PolicyID, "cannot be evaluated")
	case decision == cedar.Allow:
		return nil
	case len(why.Reasons) > 0:
		r := slices.MinFunc(why.Reasons, func(x, y cedar.DiagnosticReason) int { return cmp.Compare(x.Position.Line, y.Position.Line) })
		return a.deny(r.PolicyID, "forbids it")
	default:
		return tenant.Deny(tenant.AuthorizerDenied, "no policy permits it")
	}
}

// deny names the policy by its @id, or by what Cedar calls it.
func (a *authorizer) deny(id cedar.PolicyID, why string) error {
	p := a.policies.Get(id)
	err := tenant.Deny(tenant.AuthorizerDenied, "policy %q %s", cmp.Or(string(p.Annotations()["id"]), string(id)), why)
	err.Rule = fmt.Sprintf("%s:%d", a.file, p.Position().Line)
	return err
}

// entities are what is known of tenants and of one call.
type entities struct {
	tenants types.EntityGetter
	call    types.EntityMap
}

func (e entities) Get(uid cedar.EntityUID) (cedar.Entity, bool) {
	if found, ok := e.call.Get(uid); ok {
		return found, true
	}
	return e.tenants.Get(uid)
}

func workload(id spiffeid.ID) cedar.EntityUID {
	return cedar.NewEntityUID("Workload", cedar.String(id.String()))
}

// contextOf is what policies see as context: the claims, and who signed them.
func contextOf(c *policy.Call) cedar.Record {
	return cedar.NewRecord(cedar.RecordMap{
		"origin":         workload(c.Path[0].Signer),
		"path":           signers(c.Path),
		"uid":            cedar.String(c.Claims.TenantUID),
		"subject":        cedar.String(c.Claims.Subject),
		"issuer":         cedar.String(c.Claims.Issuer),
		"scopes":         set(c.Scopes),
		"classification": cedar.Long(c.Claims.Classification),
		"tctx":           record(c.Claims.Attributes),
		"rctx":           record(c.Claims.Request),
		"time":           cedar.NewDatetime(c.Time),
	})
}

func signers(path []hop.Step) cedar.Set {
	var all []cedar.Value
	for _, s := range path {
		all = append(all, workload(s.Signer))
	}
	return cedar.NewSet(all...)
}

func set(texts []string) cedar.Set {
	var all []cedar.Value
	for _, t := range texts {
		all = append(all, cedar.String(t))
	}
	return cedar.NewSet(all...)
}

func record(m map[string]string) cedar.Record {
	r := cedar.RecordMap{}
	for k, v := range m {
		r[cedar.String(k)] = cedar.String(v)
	}
	return cedar.NewRecord(r)
}
