package interceptors_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestDecidedTogether: of two uses of a context that are decided at the same time, by the policy
// before and by the policy after, neither makes the other's answer stand for good: a condition on
// time is asked again.
func TestDecidedTogether(t *testing.T) {
	m := newMesh(t)
	at := time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
	plain := func() *policy.Policy { return parsePolicy(t, document) }
	timed := parsePolicy(t, strings.Replace(document, "UnaryCall\n", "UnaryCall\n    when: 'now < timestamp(\""+at+"\")'\n", 1))
	// Each stops who comes next, if it is there, until it is closed.
	type gate struct{ reached, open chan struct{} }
	var clock, asked atomic.Pointer[gate]
	stop := func(at *atomic.Pointer[gate]) {
		if g := at.Swap(nil); g != nil {
			close(g.reached)
			<-g.open
		}
	}
	newGate := func(at *atomic.Pointer[gate]) *gate {
		g := &gate{make(chan struct{}), make(chan struct{})}
		at.Store(g)
		return g
	}
	cfg := m.config(m.self, m.audit, func() time.Time { stop(&clock); return m.clock.now() })
	cfg.Authorizer = authorizer(func(context.Context, *policy.Call) error { stop(&asked); return nil })
	_, m.addr = m.serve(m.guardOf(cfg).ServerOptions()...)
	var after error
	m.ran.setHook(func(ctx context.Context) error {
		require := func() chan error {
			done := make(chan error, 1)
			go func() { _, err := tenant.Require(ctx); done <- err }()
			return done
		}
		m.policy.p.Store(plain()) // another than the call was decided by
		before := newGate(&clock)
		first := require()
		<-before.reached // it has the policy before
		m.policy.p.Store(timed)
		deciding := newGate(&asked)
		second := require()
		<-deciding.reached // it has found that the policy after has a condition
		close(before.open)
		if err := <-first; err != nil {
			t.Error(err)
		}
		close(deciding.open)
		if err := <-second; err != nil {
			t.Error(err)
		}
		m.clock.advance(time.Minute)
		_, after = tenant.Require(ctx)
		return nil
	})
	g, cc := m.client("gateway")
	err := shapes[0].call(acme(t, g), cc)
	if tenant.ReasonOf(after) != tenant.ConditionNotMet || reason(err) != tenant.ConditionNotMet {
		t.Errorf("P5 got %v, and the call %v, want %s", after, err, tenant.ConditionNotMet)
	}
}
