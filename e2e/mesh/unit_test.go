package mesh_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tenantmesh/tenantmesh/e2e/mesh"
)

// TestCheck has descriptions that contradict themselves refused before anything
// is started.
func TestCheck(t *testing.T) {
	for want, change := range map[string]func(*mesh.Description){
		"":                         func(*mesh.Description) {},
		"stands twice":             func(d *mesh.Description) { d.TrustDomains = append(d.TrustDomains, d.TrustDomains[0]) },
		`trust domain "Prod"`:      func(d *mesh.Description) { d.TrustDomains = append(d.TrustDomains, mesh.TrustDomain{Name: "Prod"}) },
		"cannot federate":          func(d *mesh.Description) { d.TrustDomains[0].Federates = []string{"other.example"} },
		"needs a name of its own":  func(d *mesh.Description) { d.Workloads[1].Name = d.Workloads[0].Name },
		"which the mesh has not":   func(d *mesh.Description) { d.Workloads[0].ID = "spiffe://other.example/a" },
		"workload ledger":          func(d *mesh.Description) { d.Workloads[0].ID = "ledger" },
		"does not federate with":   func(d *mesh.Description) { d.Workloads[0].Federates = []string{"other.example"} },
		"which serves nothing":     func(d *mesh.Description) { d.Workloads[0].Calls = []mesh.Call{{To: "gateway"}} },
		`cannot be as "nobody"`:    func(d *mesh.Description) { d.Workloads[0].ID, d.Workloads[0].As = "", "nobody" },
		`cannot be as "inventory"`: func(d *mesh.Description) { d.Workloads[0].As = "inventory" },
	} {
		d := mesh.Shop(time.Minute)
		change(&d)
		if err := d.Check(); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestHistogram has durations counted in buckets that hold them, and quantiles
// within an eighth.
func TestHistogram(t *testing.T) {
	var h mesh.Histogram
	if h.Quantile(0.5) != 0 {
		t.Error("an empty one has a quantile")
	}
	for i := range 10000 {
		h.Add(time.Duration(i) * time.Microsecond)
	}
	for i := range h.Buckets {
		if from, to := mesh.BucketStart(i), mesh.BucketStart(i+1); h.Buckets[i] > 0 && (to <= from || i > 0 && i < len(h.Buckets)-1 && h.Buckets[i] != uint64((to-from)/time.Microsecond)) {
			t.Errorf("bucket %d from %s to %s holds %d", i, from, to, h.Buckets[i])
		}
	}
	var both mesh.Histogram
	both.Merge(nil)
	both.Merge(&h)
	both.Merge(&h)
	for q, want := range map[float64]time.Duration{0.1: time.Millisecond, 0.5: 5 * time.Millisecond, 0.99: 9900 * time.Microsecond} {
		if got := both.Quantile(q); got < want || got > want*9/8+2*time.Microsecond {
			t.Errorf("quantile %g is %s, want %s", q, got, want)
		}
	}
	if both.N != 20000 {
		t.Errorf("%d are counted", both.N)
	}
}

// TestSweep has a mesh remove what a process left that was killed, and nothing else.
func TestSweep(t *testing.T) {
	gone := exec.CommandContext(t.Context(), "true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dir := func(pid int) string {
		path := filepath.Join(os.TempDir(), "tenantmesh-mesh-"+strconv.Itoa(pid)+"-0")
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(path) })
		return path
	}
	dead, alive := dir(gone.Process.Pid), dir(os.Getpid())
	start(t, mesh.Description{TrustDomains: []mesh.TrustDomain{{Name: "prod.example"}}, Policy: ownPolicy}, mesh.Options{Loopback: true})
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("what is dead was left: %v", err)
	}
	if _, err := os.Stat(alive); err != nil {
		t.Errorf("what lives was removed: %v", err)
	}
}
