// Command model searches the model of the hop chain in hopchain.pml with spin:
// with all checks in it there must be no attack, and without one of them there
// must be. README.md says what follows from that and what does not.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

//go:embed hopchain.pml
var model []byte

// limit is for one search; the longest takes under a minute on an idle machine.
const limit = 10 * time.Minute

// search is one run of spin.
type search struct {
	name    string
	defines string // the switches of hopchain.pml
	bounds  [4]int // statements by gateway, orders, inventory, insider
	finds   string // the property whose violation must be found; empty: there must be none
	says    string // what to print of a run that went as it must, in place of "attack found"
}

var searches = []search{
	{name: "honest calls, and the insider's own, are accepted", defines: "WITNESS METHODS=1", bounds: [4]int{2, 2, 0, 1},
		finds: "nothing", says: "such a run exists"},

	{name: "all checks", defines: "LEAK ORIGINATE", bounds: [4]int{2, 2, 1, 1}},
	{name: "all checks, a busier insider", defines: "LEAK ORIGINATE METHODS=1", bounds: [4]int{2, 1, 1, 2}},
	{name: "all checks, the busiest insider", defines: "METHODS=1", bounds: [4]int{2, 1, 0, 3}},

	{name: "without the audience check", defines: "NO_AUD", bounds: [4]int{2, 2, 1, 1}, finds: "path integrity"},
	{name: "without the channel binding", defines: "NO_BINDING", bounds: [4]int{2, 2, 1, 1}, finds: "replay"},
	{name: "without the prev check", defines: "NO_PREV METHODS=1", bounds: [4]int{2, 1, 0, 3}, finds: "path integrity"},

	{name: "without the channel binding, where there is no relay", defines: "NO_BINDING NO_RELAY", bounds: [4]int{2, 2, 1, 1}},
	{name: "without the last hop's signer, aud and target, where a relay has its own connection",
		defines: "NO_PEER NO_LAST_AUD NO_TARGET", bounds: [4]int{2, 2, 1, 1}},
	{name: "without the target check, where a relay shares a connection", defines: "NO_TARGET SHARED REPLAYED",
		bounds: [4]int{2, 2, 1, 1}, finds: "agreement"},
	{name: "all checks but for replay, where a relay shares a connection", defines: "SHARED REPLAYED", bounds: [4]int{2, 2, 1, 1}},
	{name: "all checks, where a relay shares a connection", defines: "SHARED", bounds: [4]int{2, 2, 1, 1},
		finds: "replay", says: "the known limit"},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	failed := run(ctx, os.Stdout, searches)
	stop()
	if failed {
		os.Exit(1)
	}
}

// run makes the searches one after the other and says how each went.
func run(ctx context.Context, w io.Writer, searches []search) (failed bool) {
	passed := 0
	for _, s := range searches {
		outcome, trail, err := s.run(ctx)
		if err != nil {
			fmt.Fprintf(w, "FAIL %s: %v\n", s.name, err)
		} else {
			fmt.Fprintf(w, "ok   %s: %s\n", s.name, outcome)
			passed++
		}
		for _, line := range trail {
			fmt.Fprintln(w, "         "+line)
		}
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", passed, len(searches)-passed)
	return passed != len(searches) || passed == 0
}

// run generates, compiles and runs the verifier in a directory of its own. The
// trail is the shortest run that spin found, as messages.
func (s search) run(ctx context.Context) (outcome string, trail []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "model")
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.WriteFile(filepath.Join(dir, "hopchain.pml"), model, 0o600); err != nil {
		return "", nil, err
	}

	var defines []string
	for _, d := range strings.Fields(s.defines) {
		defines = append(defines, "-D"+d)
	}
	for i, who := range []string{"GATEWAY", "ORDERS", "INVENTORY", "INSIDER"} {
		defines = append(defines, fmt.Sprintf("-DBY_%s=%d", who, s.bounds[i]))
	}
	if _, err := command(ctx, dir, "spin", append(defines, "-a", "hopchain.pml")...); err != nil {
		return "", nil, err
	}
	// A depth-first search is quicker, a breadth-first one finds the shortest attack.
	order := "-DNOREDUCE"
	if s.finds != "" {
		order = "-DBFS"
	}
	if _, err := command(ctx, dir, "gcc", "-O2", "-w", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=1900", "-DVECTORSZ=2048",
		order, "-o", "pan", "pan.c"); err != nil {
		return "", nil, err
	}
	// -E: that nobody can go on within the bounds is no error.
	out, err := command(ctx, dir, "./pan", "-E", "-m20000")
	if err != nil {
		return "", nil, err
	}
	if s.finds == "" {
		states, err := complete(out)
		if err == nil {
			return "no attack in " + states + " states", nil, nil
		}
		if trail, _ := s.replay(ctx, dir, defines); trail != nil {
			return "", trail, errors.New("attack found")
		}
		return "", nil, err
	}
	trail, err = s.replay(ctx, dir, defines)
	if err != nil {
		return "", nil, err
	}
	if trail == nil {
		return "", nil, errors.New("no attack found")
	}
	last := trail[len(trail)-1]
	what, ok := strings.CutPrefix(last, "VIOLATED "+s.finds+": ")
	if !ok {
		return "", trail, fmt.Errorf("no violation of %s found, but another", s.finds)
	}
	if s.says != "" {
		return s.says, trail[:len(trail)-1], nil
	}
	return "attack found: " + s.finds + ": " + what, trail[:len(trail)-1], nil
}

// replay returns the run that the verifier recorded, or nil if there is none.
func (s search) replay(ctx context.Context, dir string, defines []string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(dir, "hopchain.pml.trail")); err != nil {
		return nil, nil //nolint:nilerr // Without a file there is no run.
	}
	out, err := command(ctx, dir, "spin", append(defines, "-t", "-T", "hopchain.pml")...)
	if err != nil {
		return nil, err
	}
	return messages(out), nil
}

// messages takes from a replay what the model printed.
func messages(replay string) []string {
	said, _, _ := strings.Cut(replay, "spin: ")
	said = strings.TrimSpace(said)
	if said == "" {
		return nil
	}
	lines := strings.Split(said, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return lines
}

var stored = regexp.MustCompile(`(?m)^\s*([0-9.e+]+) states, stored`)

// complete returns the number of states that the verifier visited if it visited
// all of them and found no error.
func complete(out string) (string, error) {
	for _, bad := range []string{
		"Search not completed", // an error, or a limit
		"max search depth too small", "reached -DMEMLIM bound", "out of memory", "Warning:",
	} {
		if strings.Contains(out, bad) {
			return "", fmt.Errorf("the search was cut short: %s", bad)
		}
	}
	n := stored.FindStringSubmatch(out)
	if n == nil || !strings.Contains(out, "Full statespace search for:") || !strings.Contains(out, "errors: 0\n") {
		return "", fmt.Errorf("the verifier did not report a full search without errors:\n%s", out)
	}
	return n[1], nil
}

// command runs a program in dir and returns what it printed.
func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // spin, gcc and what they made, with the flags above.
	cmd.Dir = dir
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return "", fmt.Errorf("%s: %w\n%s", name, err, out.Bytes())
	}
	return out.String(), nil
}
