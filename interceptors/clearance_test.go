package interceptors

import (
	"testing"
	"time"

	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
)

// TestClearance: the last yes stands for the policy, the identity, the connection and the time
// that it was given by and for, and for nothing else.
func TestClearance(t *testing.T) {
	now := time.Now()
	noted, conn := moment{policy: new(policy.Policy), snap: new(svid.Snapshot), now: now}, new(svid.Conn)
	until := now.Add(time.Minute)
	for name, tt := range map[string]struct {
		change func(is *moment, conn **svid.Conn)
		want   bool
	}{
		"nothing":                   {func(*moment, **svid.Conn) {}, true},
		"S2 later":                  {func(is *moment, _ **svid.Conn) { is.now = until.Add(-1) }, true},
		"S2 its time is over":       {func(is *moment, _ **svid.Conn) { is.now = until }, false},
		"I5 the clock was set back": {func(is *moment, _ **svid.Conn) { is.now = now.Add(-1) }, false},
		"P2 another policy":         {func(is *moment, _ **svid.Conn) { is.policy = new(policy.Policy) }, false},
		"I4 another identity":       {func(is *moment, _ **svid.Conn) { is.snap = new(svid.Snapshot) }, false},
		"I5 another connection":     {func(_ *moment, conn **svid.Conn) { *conn = new(svid.Conn) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			var c clearance
			is, on := noted, conn
			if c.stands(&is, on) {
				t.Error("it stands before it was given")
			}
			c.note(&is, on, until)
			tt.change(&is, &on)
			if got := c.stands(&is, on); got != tt.want {
				t.Errorf("it stands: %t, want %t", got, tt.want)
			}
		})
	}
}
