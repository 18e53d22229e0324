package policy

import (
	"reflect"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/leaf"
)

// condition is a CEL expression over [facts].
type condition struct {
	program cel.Program
	text    string // as it is written
}

// The types that conditions see.
type (
	conditionPeer struct {
		ID          string `cel:"id"`
		TrustDomain string `cel:"trust_domain"`
		Workload    string `cel:"workload"`
	}
	conditionHop struct {
		ID          string `cel:"id"`
		TrustDomain string `cel:"trust_domain"`
		Workload    string `cel:"workload"`
		Method      string `cel:"method"`
	}
	conditionTenant struct {
		ID             string `cel:"id"`
		UID            string `cel:"uid"`
		Tier           string `cel:"tier"`
		Region         string `cel:"region"`
		Classification int64  `cel:"classification"`
	}
	conditionClaims struct {
		Sub            string            `cel:"sub"`
		Iss            string            `cel:"iss"`
		Txn            string            `cel:"txn"`
		Scope          []string          `cel:"scope"`
		Classification int64             `cel:"classification"`
		Tctx           map[string]string `cel:"tctx"`
		Rctx           map[string]string `cel:"rctx"`
		Iat            time.Time         `cel:"iat"`
		Exp            time.Time         `cel:"exp"`
	}
)

// facts is what conditions are about; it resolves their variables.
type facts struct {
	peer   conditionPeer
	path   []conditionHop
	tenant conditionTenant
	claims conditionClaims
	method string
	now    time.Time
}

// ResolveName implements [cel.Activation].
func (f *facts) ResolveName(name string) (any, bool) {
	switch name {
	case "peer":
		return &f.peer, true
	case "path":
		return f.path, true
	case "tenant":
		return &f.tenant, true
	case "claims":
		return &f.claims, true
	case "method":
		return f.method, true
	case "now":
		return f.now, true
	}
	return nil, false
}

// pool spares conditions the allocations of their facts.
var pool = sync.Pool{New: func() any { return new(facts) }}

// facts returns what conditions may ask about a call; the caller frees it.
func (d *Decision) facts(c *Call) *facts {
	f, _ := pool.Get().(*facts)
	for i := range d.signers {
		s := &d.path[i]
		f.path = append(f.path, conditionHop{s.id.String(), s.id.TrustDomain().Name(), s.workload.name, c.Path[i].Target})
	}
	peer := &f.path[d.signers-1]
	f.peer = conditionPeer{peer.ID, peer.TrustDomain, peer.Workload}
	a := d.policy.tenants.attributes(d.tenant)
	f.tenant = conditionTenant{c.Claims.Tenant.String(), d.tenant.uid, a.tier, a.region, int64(a.classification)}
	f.claims = conditionClaims{
		Sub: c.Claims.Subject, Iss: c.Claims.Issuer, Txn: c.Claims.Transaction, Scope: c.Scopes, Classification: int64(c.Claims.Classification),
		Tctx: c.Claims.Attributes, Rctx: c.Claims.Request, Iat: c.Claims.IssuedAt, Exp: c.Claims.Expires,
	}
	f.method, f.now = d.about, c.Time
	return f
}

func (f *facts) free() {
	clear(f.path)
	*f = facts{path: f.path[:0]}
	pool.Put(f)
}

// Parent implements [cel.Activation].
func (*facts) Parent() cel.Activation { return nil }

// newConditionEnv returns the environment that conditions are compiled in.
func newConditionEnv() (*cel.Env, error) {
	object := func(t reflect.Type) *cel.Type { return cel.ObjectType(t.String()) }
	peer, step := reflect.TypeFor[conditionPeer](), reflect.TypeFor[conditionHop]()
	tenant, claims := reflect.TypeFor[conditionTenant](), reflect.TypeFor[conditionClaims]()
	return cel.NewEnv(
		cel.ParserExpressionSizeLimit(maxCondition),
		ext.NativeTypes(peer, step, tenant, claims, ext.ParseStructTags(true)),
		cel.Variable("peer", object(peer)),
		cel.Variable("path", cel.ListType(object(step))),
		cel.Variable("tenant", object(tenant)),
		cel.Variable("claims", object(claims)),
		cel.Variable("method", cel.StringType),
		cel.Variable("now", cel.TimestampType),
	)
}

const (
	// maxCost bounds a condition by CEL's own measure, in which comparing two
	// short texts is about 1. A condition that may cost more does not load, so
	// that none needs to be watched while it runs.
	maxCost = 50_000
	// maxCondition is the longest condition in characters.
	maxCondition = 4096
)

// sizes tells CEL's estimate the most that a variable may hold. A verified
// statement has no longer texts and lists than these.
type sizes struct{}

// EstimateSize implements [cost.Estimator].
func (sizes) EstimateSize(element cost.AstNode) *cost.SizeEstimate {
	path := element.Path()
	switch element.Type().Kind() {
	case types.ListKind:
		if len(path) == 1 && path[0] == "path" {
			return &cost.SizeEstimate{Max: hop.MaxHops}
		}
		return &cost.SizeEstimate{Max: hop.MaxList}
	case types.MapKind:
		return &cost.SizeEstimate{Max: hop.MaxList}
	}
	return &cost.SizeEstimate{Max: leaf.MaxID} // of all texts, the longest
}

// EstimateCallCost implements [cost.Estimator].
func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// condition compiles the expression of a method rule.
func (l *loader) condition(t text) *condition {
	if !t.set {
		return nil
	}
	if l.env == nil {
		env, err := newConditionEnv()
		if err != nil {
			l.fail(t.pos, "conditions: %v", err)
			return nil
		}
		l.env = env
	}
	ast, issues := l.env.Compile(t.value)
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			l.fail(l.within(t, e.Location.Line(), e.Location.Column()), "when: %s", e.Message)
		}
		return nil
	}
	if ast.OutputType() != cel.BoolType {
		l.fail(t.pos, "when: a condition is true or false, this one is %s", ast.OutputType())
		return nil
	}
	estimate, err := l.env.EstimateCost(ast, sizes{})
	if err != nil || estimate.Max > maxCost {
		l.fail(t.pos, "when: the condition may cost %d and %d is the most: it goes through long lists or texts more than once", estimate.Max, maxCost)
		return nil
	}
	program, err := l.env.Program(ast, cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		l.fail(t.pos, "when: %v", err)
		return nil
	}
	return &condition{program, t.value}
}

// holds evaluates the condition. What errs, panics (which the library turns
// into an error) or meets an absent attribute does not hold.
func (c *condition) holds(f *facts) bool {
	v, _, err := c.program.Eval(f)
	return err == nil && v == types.True
}
