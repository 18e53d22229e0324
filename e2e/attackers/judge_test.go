package attackers

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/e2e/mesh"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestJudge: an attack that ended otherwise than it must does not pass.
func TestJudge(t *testing.T) {
	good := audit.Event{Reason: tenant.SignerNotPeer}
	for name, tt := range map[string]struct {
		events []audit.Event
		ran    uint64
		saw    []error
		want   string // what speaks against it; "" if it passes
	}{
		"as it must":           {[]audit.Event{good}, 0, nil, ""},
		"a handler ran":        {[]audit.Event{good}, 1, nil, "a handler ran"},
		"nothing recorded":     {nil, 0, nil, "0 events instead of 1"},
		"recorded twice":       {[]audit.Event{good, good}, 0, nil, "2 events instead of 1"},
		"another reason":       {[]audit.Event{{Reason: tenant.SignatureInvalid}}, 0, nil, "recorded: allowed false, SIGNATURE_INVALID"},
		"allowed":              {[]audit.Event{{Allowed: true, Reason: tenant.SignerNotPeer}}, 0, nil, "recorded: allowed true"},
		"a claim in the trail": {[]audit.Event{{Reason: tenant.SignerNotPeer, Detail: attacktest.TokenCanary}}, 0, nil, "M6: the audit trail"},
		"a claim in the error": {[]audit.Event{good}, 0, []error{errors.New(attacktest.TokenCanary)}, "M6: the caller"},
		"two views":            {[]audit.Event{good}, 0, []error{status.Error(codes.Unauthenticated, ""), nil}, "the caller saw OK, too"},
	} {
		t.Run(name, func(t *testing.T) {
			j := &judge{res: mesh.AttackResult{Name: "H1 x", Want: tenant.SignerNotPeer}}
			for _, err := range tt.saw {
				j.saw(err)
			}
			j.refused(mesh.Trail{Events: tt.events}, tt.ran, 1)
			if tt.want == "" && len(j.against) > 0 || !strings.Contains(strings.Join(j.against, "; "), tt.want) {
				t.Errorf("against it speaks %q, want %q", j.against, tt.want)
			}
			if j.res.Ran != (tt.ran > 0) {
				t.Error("the result does not say whether a handler ran")
			}
			var got mesh.AttackResult
			r := &run{each: func(a mesh.AttackResult) { got = a }}
			r.report(j.res, j.against)
			if got.Passed != (tt.want == "") || got.Line != "H1" || got.Name != "x" || len(r.results) != 1 {
				t.Errorf("reported: %+v", got)
			}
		})
	}
	for name, err := range map[string]error{
		"a status with a text": status.Error(codes.Unauthenticated, "your SVID has expired"),
		"another code":         status.Error(codes.PermissionDenied, "unauthenticated"),
		"nothing":              nil,
	} {
		j := &judge{}
		if blind(j, err); len(j.against) == 0 {
			t.Errorf("%s passes for what a peer without an identity is told", name)
		}
	}
	j := &judge{}
	if blind(j, status.Error(codes.Unauthenticated, "unauthenticated")); len(j.against) > 0 {
		t.Errorf("the fixed text: %q", j.against)
	}
	if j.told(status.Error(codes.PermissionDenied, "no"), tenant.TenantNotBound); len(j.against) == 0 {
		t.Error("a caller who was told no reason passes for one who was")
	}
}

// TestCast: all that attack are in the mesh, each once.
func TestCast(t *testing.T) {
	d := Join(mesh.Shop(0))
	if err := d.Check(); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(attacktest.Cast(), extra...) {
		n := 0
		for _, w := range d.Workloads {
			if w.Name == workloadName(name) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s is %d times in the mesh", name, n)
		}
	}
}
