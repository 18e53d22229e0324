package vectors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The Wycheproof vectors come as a Go module, pinned here and not in go.mod:
// no user of this module should have to fetch them, and 100 MB of them would
// be embedded in whatever imports it.
const (
	wycheproof    = "github.com/c2sp/wycheproof@v0.0.0-20260902155932-3fa63dd0344a"
	wycheproofSum = "h1:pNbL2nztRsWfW/ispAwsvcDFxs9Id38uIsR2/Up5G2c="
)

// Wycheproof decodes a file of Wycheproof's testvectors_v1 into v. The module
// is downloaded unless the module cache has it.
func Wycheproof(ctx context.Context, file string, v any) error {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", wycheproof)
	cmd.Dir = os.TempDir() // no module: go.mod and go.sum stay as they are
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, runErr := cmd.Output()
	var m struct{ Dir, Sum, Error string }
	if err := json.Unmarshal(out, &m); err != nil {
		return fmt.Errorf("go mod download %s: %w", wycheproof, errors.Join(runErr, err))
	}
	if m.Error != "" || m.Sum != wycheproofSum {
		return fmt.Errorf("go mod download %s: sum %q, %s", wycheproof, m.Sum, m.Error)
	}
	text, err := os.ReadFile(filepath.Join(m.Dir, "testvectors_v1", file))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}
