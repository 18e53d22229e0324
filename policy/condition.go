package policy

import (
	"bytes"
	"reflect"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/leaf"
)

// condition is a CEL expression over [variables].
type condition struct {
	program cel.Program
	text    string // as it is written, but on one line
}

// variables are what conditions may ask about. A value is nil where there is
// none, so that a condition that asks for it fails and does not see an empty
// text in its place: tenant.tier != "free" is not for tenants without a tier.
var variables = map[string]struct {
	typ   *cel.Type
	value func(*facts) any
}{
	"peer.id":               {cel.StringType, func(f *facts) any { return f.peer().ID }},
	"peer.trust_domain":     {cel.StringType, func(f *facts) any { return f.peer().TrustDomain }},
	"peer.workload":         {cel.StringType, func(f *facts) any { return f.peer().Workload }},
	"path":                  {cel.ListType(hopType), func(f *facts) any { return f.path }},
	"tenant.id":             {cel.StringType, func(f *facts) any { return f.claims.Tenant.String() }},
	"tenant.uid":            {cel.StringType, func(f *facts) any { return f.claims.TenantUID }},
	"tenant.tier":           {cel.StringType, func(f *facts) any { return present(f.tenant.tier, "") }},
	"tenant.region":         {cel.StringType, func(f *facts) any { return present(f.tenant.region, "") }},
	"tenant.classification": {cel.IntType, func(f *facts) any { return present(f.tenant.classification, -1) }},
	"claims.sub":            {cel.StringType, func(f *facts) any { return f.claims.Subject }},
	"claims.iss":            {cel.StringType, func(f *facts) any { return present(f.claims.Issuer, "") }},
	"claims.txn":            {cel.StringType, func(f *facts) any { return f.claims.Transaction }},
	"claims.scope":          {cel.ListType(cel.StringType), func(f *facts) any { return f.scopes }},
	"claims.classification": {cel.IntType, func(f *facts) any { return int64(f.claims.Classification) }},
	"claims.tctx":           {cel.MapType(cel.StringType, cel.StringType), func(f *facts) any { return f.claims.Attributes }},
	"claims.rctx":           {cel.MapType(cel.StringType, cel.StringType), func(f *facts) any { return f.claims.Request }},
	"claims.iat":            {cel.TimestampType, func(f *facts) any { return f.claims.IssuedAt }},
	"claims.exp":            {cel.TimestampType, func(f *facts) any { return f.claims.Expires }},
	"method":                {cel.StringType, func(f *facts) any { return f.method }},
	"now":                   {cel.TimestampType, func(f *facts) any { return f.time() }},
}

// conditionHop is an element of path.
type conditionHop struct {
	ID          string `cel:"id"`
	TrustDomain string `cel:"trust_domain"`
	Workload    string `cel:"workload"`
	Method      string `cel:"method"`
}

var hopType = cel.ObjectType(reflect.TypeFor[conditionHop]().String())

// facts are what conditions are about.
type facts struct {
	path   []conditionHop
	tenant attributes
	claims hop.Claims
	scopes []string
	method string
	now    time.Time
}

func (f *facts) peer() *conditionHop { return &f.path[len(f.path)-1] }

func (f *facts) time() any {
	if f.now.IsZero() {
		return nil
	}
	return f.now
}

// present returns v, or nil if it is what stands for none.
func present[T comparable](v, none T) any {
	if v == none {
		return nil
	}
	return v
}

// ResolveName implements [cel.Activation].
func (f *facts) ResolveName(name string) (any, bool) {
	variable, known := variables[name]
	if !known {
		return nil, false
	}
	v := variable.value(f)
	return v, v != nil
}

// Parent implements [cel.Activation].
func (*facts) Parent() cel.Activation { return nil }

// pool spares conditions the allocation of their facts.
var pool = sync.Pool{New: func() any { return new(facts) }}

// facts returns what conditions may ask about a call; the caller frees it.
func (d *Decision) facts(c *Call) *facts {
	f, _ := pool.Get().(*facts)
	for i := range d.signers {
		s := &d.path[i]
		f.path = append(f.path, conditionHop{s.id.String(), s.id.TrustDomain().Name(), s.workload.name, c.Path[i].Target})
	}
	f.tenant, f.claims, f.scopes, f.method, f.now = *d.policy.tenants.attributes(d.tenant), *c.Claims, c.Scopes, d.target, c.Time
	return f
}

func (f *facts) free() {
	clear(f.path)
	*f = facts{path: f.path[:0]}
	pool.Put(f)
}

// conditionEnv returns the environment that conditions are compiled in. It has
// no regular expressions, as the rest of the policy has none: they are too easily
// taken for a match of the whole, and those that a claim brings have no bound.
var conditionEnv = sync.OnceValues(func() (*cel.Env, error) {
	opts := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(env.NewLibrarySubset().AddExcludedFunctions(env.NewFunction("matches")))),
		cel.ParserExpressionSizeLimit(maxCondition),
		ext.NativeTypes(reflect.TypeFor[conditionHop](), ext.ParseStructTags(true)),
	}
	for name, v := range variables {
		opts = append(opts, cel.Variable(name, v.typ))
	}
	return cel.NewCustomEnv(opts...)
})

const (
	// maxCost bounds a condition by CEL's own measure, in which comparing two
	// short texts is about 1 and takes some 50 ns. A condition that may cost more
	// does not load, so that none needs to be watched while it runs.
	maxCost = 10_000
	// zoneCost is the cost of reading a time zone's file.
	zoneCost = 500
	// maxCondition is the longest condition in characters, maxConditions how many
	// a document may have: each takes about a tenth of a millisecond to compile.
	maxCondition, maxConditions = 4096, 4000
)

// maxText and maxName are the most bytes that a text of a verified statement
// and the name of a workload have.
const maxText, maxName = 512, 128

// sizes tells CEL's estimate the most that a variable may hold.
type sizes struct{}

// EstimateSize implements [cost.Estimator].
func (sizes) EstimateSize(element cost.AstNode) *cost.SizeEstimate {
	path := element.Path()
	if len(path) == 0 {
		path = []string{""} // no variable's
	}
	most := uint64(leaf.MaxID) // of all texts, the longest
	switch kind, last := element.Type().Kind(), path[len(path)-1]; {
	case last == "path":
		most = hop.MaxHops
	case kind == types.ListKind || kind == types.MapKind:
		most = hop.MaxList
	case strings.HasSuffix(last, "workload"):
		most = maxName
	case last == "method" || strings.HasPrefix(path[0], "claims."):
		most = maxText
	}
	return &cost.SizeEstimate{Max: most}
}

// EstimateCallCost implements [cost.Estimator].
func (sizes) EstimateCallCost(_, overload string, _ *cost.AstNode, _ []cost.AstNode) *cost.CallEstimate {
	if strings.HasSuffix(overload, "_with_tz") {
		return &cost.CallEstimate{CostEstimate: cost.FixedCostEstimate(zoneCost)}
	}
	return nil
}

// condition compiles the expression of a method rule.
func (l *loader) condition(t text) *condition {
	if !t.set {
		return nil
	}
	if l.conditions++; l.conditions > maxConditions {
		l.fail(t.pos, "when: over %d conditions: write those that say the same as one rule", maxConditions)
		return nil
	}
	env, err := conditionEnv()
	if err != nil {
		l.fail(t.pos, "when: %v", err)
		return nil
	}
	ast, issues := env.Compile(t.value)
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
	estimate, err := env.EstimateCost(ast, sizes{})
	if err != nil || estimate.Max > maxCost {
		l.fail(t.pos, "when: the condition may cost %d and %d is the most: it goes through long lists or texts more than once", estimate.Max, maxCost)
		return nil
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		l.fail(t.pos, "when: %v", err)
		return nil
	}
	return &condition{program, strings.Join(strings.Fields(t.value), " ")}
}

// within returns the place of a character of an expression that stands on one
// line of the document as it is; otherwise that of the expression. The line
// counts from 1, the column from 0.
func (l *loader) within(t text, line, column int) pos {
	rows := bytes.Split(l.doc, []byte("\n"))
	row := []rune(string(rows[min(int(t.n), len(rows))-1])) // YAML knows other ends of lines, too
	for _, quote := range []int{0, 1} {
		start := t.column - 1 + quote
		if line == 1 && column >= 0 && start <= len(row) && strings.HasPrefix(string(row[start:]), t.value) {
			return pos{t.line, start + 1 + column}
		}
	}
	return t.pos
}

// holds evaluates the condition. What errs, panics (which the library turns
// into an error) or meets an absent attribute does not hold.
func (c *condition) holds(f *facts) bool {
	v, _, err := c.program.Eval(f)
	return err == nil && v == types.True
}
