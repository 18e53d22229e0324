package interceptors

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Observe names methods whose decisions are made and recorded but not enforced,
// until a date: for services that take the kit into use while their callers do
// not sign yet. The peer's identity is still checked, and so are policy and audit.
// A call that would have been denied runs, with the tenant if one was proven
// and else with none, so that [tenant.Require] fails.
type Observe struct {
	// Methods are full methods, or /package.Service/* for all of a service.
	Methods []string
	// Until is when they are enforced. It is required.
	Until time.Time
}

// check fails where o does not say what it must.
func (o *Observe) check() error {
	if o == nil {
		return nil
	}
	if o.Until.IsZero() {
		return errors.New("interceptors: Observe.Until is missing: when will the methods be enforced?")
	}
	if len(o.Methods) == 0 {
		return errors.New("interceptors: Observe.Methods is empty: leave Observe out")
	}
	for _, m := range o.Methods {
		if service, all := strings.CutSuffix(m, "/*"); !hop.ValidMethod(m) && !(all && hop.ValidMethod(service+"/x")) {
			return fmt.Errorf("interceptors: Observe.Methods: %q is no method: /package.Service/Method, or /package.Service/*", m)
		}
	}
	return nil
}

// covers reports whether decisions about a method are only observed now.
func (o *Observe) covers(method string, clock func() time.Time) bool {
	if o == nil || !clock().Before(o.Until) {
		return false
	}
	for _, m := range o.Methods {
		if service, all := strings.CutSuffix(m, "*"); m == method || all && strings.HasPrefix(method, service) && hop.ValidMethod(method) {
			return true
		}
	}
	return false
}

// isObservable says whether a denial may be overlooked: not one of a peer that
// is not proven, of metadata that more than one reader could take for
// different things, and of what cannot be decided.
func isObservable(r tenant.Reason) bool {
	switch r {
	case tenant.PeerUnauthenticated, tenant.SVIDMalformed, tenant.SVIDExpired, tenant.SVIDUntrusted, tenant.KeyUnsupported,
		tenant.ServerUnexpected, tenant.MetadataAmbiguous, tenant.MetadataTooLarge, tenant.Internal:
		return false
	default:
		return codeOf(r) != codes.Unavailable
	}
}
