package mesh_test

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tenantmesh/tenantmesh/e2e/mesh"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestWriteHTML: the page has all that a report has, says what failed, and loads
// nothing.
func TestWriteHTML(t *testing.T) {
	h := &mesh.Histogram{}
	for i := range 1000 {
		h.Add(time.Duration(i) * 10 * time.Microsecond)
	}
	var seconds []mesh.Second
	for i := range 10 {
		seconds = append(seconds, mesh.Second{At: time.Duration(i) * time.Second, Right: 100, Refused: uint64(i), P50: 5 * time.Millisecond, P99: 9 * time.Millisecond})
	}
	r := &mesh.Report{
		Domain: "the embedded trust domain", Network: "the loopback", Began: time.Unix(1_800_000_000, 0), Took: time.Minute,
		Workloads: []mesh.WorkloadInfo{
			{Name: "partner", ID: "spiffe://partner.example/app", Calls: []string{"orders"}},
			{Name: "orders", ID: "spiffe://prod.example/orders", Calls: []string{"ledger"}},
			{Name: "ledger", ID: "spiffe://prod.example/ledger", Calls: []string{"partner"}},
		},
		Edges: []mesh.Edge{
			{From: "partner", To: "orders", Tenant: "acme", Allowed: 1234567},
			{From: "orders", To: "ledger", Tenant: "acme", Allowed: 3, Refused: 7},
			{From: "ledger", To: "partner", Tenant: "globex", Allowed: 1},
		},
		Loads: []mesh.LoadResult{{Name: "calm", Calls: 1000, Right: 1000, Took: 10 * time.Second, Began: time.Second, Timeline: seconds,
			Latency: map[mesh.Shape]*mesh.Histogram{mesh.Unary: h}}},
		Faults: []mesh.FaultResult{{Name: "link cut", What: "for 2 s", Began: 3 * time.Second, Lasted: 2 * time.Second, Calls: 10, Failed: 2,
			Refusals: map[string]uint64{"Unavailable": 2}, Passed: true}},
		Attacks: []mesh.AttackResult{
			{Line: "H1", Name: "a replay", Attacker: "intruder", Target: "orders", Want: tenant.SignerNotPeer, Got: tenant.SignerNotPeer, Saw: "Unauthenticated SIGNER_NOT_PEER", Passed: true},
			{Line: "M1", Name: "<script>alert(1)</script>", Attacker: "gateway", Target: "orders", Want: tenant.MetadataAmbiguous, Saw: "OK", Ran: true, Detail: "a handler ran"},
		},
		Omitted: []mesh.Omission{{Line: "P3", What: "rules permuted", Why: "nothing is to be seen"}},
		Checks:  []mesh.Check{{Name: "P2 no tenant beyond the policy", Detail: "3 edges", Passed: true}},
	}
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{
		"1 of 5 failed", "attack M1 &lt;script&gt;", "a handler ran", "SIGNER_<wbr>NOT_<wbr>PEER", "METADATA_<wbr>AMBIGUOUS", "partner → orders for acme: 1\u202f234\u202f567 calls",
		"ledger → partner for globex", "link cut", "rules permuted", "p50 5.12\u202fms", "spiffe://partner.example/app", "prefers-color-scheme: dark",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	for _, bad := range []string{"<script", "src=", "@import", "<link", "url(h", "NaN", "ZgotmplZ", "%!"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if found := regexp.MustCompile(`https?://`).FindAllString(text, -1); len(found) > 0 {
		t.Errorf("the page names other places: %q", found)
	}
	// Whoever ran nothing gets a page, too.
	if err := new(mesh.Report).WriteHTML(&b); err != nil {
		t.Error(err)
	}
}
