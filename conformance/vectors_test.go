package conformance

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// lines are those of the attacks that a vector can express; README.md describes
// all, and says why the others are not among them. Each has five vectors at least.
var lines = strings.Fields("T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 H1 H2 H3 H4 H5 H6 H7 H8 H11 I1 I2 I3 I4 I5 I7 M1 M2 M4 M5 P1 P3 P4 P5 P6")

// runners give a vector's input to what it is for. They return what stands in
// ok where the input is accepted.
var runners = map[string]func(*testing.T, json.RawMessage) (any, error){
	"certificates.json": runCertificates,
	"chains.json":       runChain,
	"claims.json":       runClaims,
	"metadata.json":     runMetadata,
	"policy.json":       runPolicy,
	"slots.json":        runSlots,
	"statements.json":   runStatement,
	"tokens.json":       runToken,
}

type manifest struct {
	Files []struct {
		Name     string `json:"name"`
		SHA256   string `json:"sha256"`
		Vectors  int    `json:"vectors"`
		Negative int    `json:"negative"`
	} `json:"files"`
	Lines map[string]int `json:"lines"`
}

func TestVectors(t *testing.T) {
	text, err := os.ReadFile("manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	var m manifest
	if err := vectors.Strict(text, &m); err != nil {
		t.Fatal(err)
	}
	var listed []string
	counts := map[string]int{}
	total, negative := 0, 0
	for _, f := range m.Files {
		listed = append(listed, f.Name)
		list := checkFile(t, f.Name, f.SHA256)
		bad := 0
		for _, v := range list {
			if v.Reason != "" {
				bad++
			}
			for _, line := range v.Lines {
				counts[line]++
			}
		}
		if len(list) != f.Vectors || bad != f.Negative {
			t.Errorf("%s has %d vectors, %d of them negative; the manifest says %d and %d", f.Name, len(list), bad, f.Vectors, f.Negative)
		}
		total, negative = total+len(list), negative+bad
		runFile(t, f.Name, list)
	}
	checkDirectory(t, listed)
	if diff := cmp.Diff(m.Lines, counts); diff != "" {
		t.Errorf("vectors by line (-manifest +files):\n%s", diff)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		if counts[line] < 5 {
			t.Errorf("%s has %d vectors, want five at least", line, counts[line])
		}
		if !strings.Contains(string(readme), "\n| "+line+" | ") {
			t.Errorf("README.md does not describe %s", line)
		}
	}
	for line := range counts {
		if !slices.Contains(lines, line) {
			t.Errorf("vectors for %q, which is not a line of the runner", line)
		}
	}
	if 4*negative < 3*total {
		t.Errorf("%d of %d vectors are negative, less than three quarters", negative, total)
	}
	if says := fmt.Sprintf("%d vectors, %d of them negative", total, negative); !strings.Contains(string(readme), says) {
		t.Errorf("README.md does not say %q", says)
	}
	t.Logf("vectors: %d total, %d negative", total, negative)
}

// checkFile reads a file, whose content is the one that the manifest lists.
func checkFile(t *testing.T, name, want string) []vectors.Vector {
	t.Helper()
	file := filepath.Join("vectors", name)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != want {
		t.Errorf("%s is not the file that the manifest lists", name)
	}
	list, err := vectors.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// checkDirectory refuses files that the manifest does not list.
func checkDirectory(t *testing.T, listed []string) {
	t.Helper()
	entries, err := os.ReadDir("vectors")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		found = append(found, e.Name())
	}
	if diff := cmp.Diff(listed, found); diff != "" {
		t.Errorf("vectors/ (-listed +found):\n%s", diff)
	}
}

func runFile(t *testing.T, name string, list []vectors.Vector) {
	t.Helper()
	run := runners[name]
	if run == nil {
		t.Fatalf("nothing runs %s", name)
	}
	inputs := map[string]string{}
	for _, v := range list {
		if same := inputs[string(v.Input)]; same != "" {
			t.Errorf("%s: %s and %s are the same", name, same, v.ID)
		}
		inputs[string(v.Input)] = v.ID
		t.Run(strings.TrimSuffix(name, ".json")+"/"+v.ID, func(t *testing.T) {
			// H9: what was verified before changes nothing.
			for _, again := range []string{"", "again: "} {
				got, err := run(t, v.Input)
				if why := differs(v, got, err); why != "" {
					t.Errorf("%s%s", again, why)
				}
			}
		})
	}
}

// differs says how an outcome differs from what the vector expects.
func differs(v vectors.Vector, got any, err error) string {
	if v.Reason != "" {
		hop := -1
		if v.Hop != nil {
			hop = *v.Hop
		}
		e, ok := err.(*tenant.Error) //nolint:errorlint // the verifiers return nothing else
		if !ok {
			return "accepted, or another kind of error"
		}
		if string(e.Reason) != v.Reason || e.Hop != hop {
			return e.Error() + ", want " + v.Reason
		}
		return ""
	}
	if err != nil {
		return err.Error()
	}
	text, err := json.Marshal(got)
	if err != nil {
		return err.Error()
	}
	return cmp.Diff(value(v.OK), value(text))
}

// value decodes JSON, with texts put together.
func value(text []byte) any {
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	if o, ok := v.(map[string]any); ok {
		for name, member := range o {
			if list, ok := member.([]any); ok && len(list) > 0 {
				var joined vectors.Text
				if text, err := json.Marshal(list); err == nil && json.Unmarshal(text, &joined) == nil {
					o[name] = string(joined)
				}
			}
		}
	}
	return v
}
