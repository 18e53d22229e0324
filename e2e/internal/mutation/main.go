// Command mutation changes one operator at a time in the packages that decide,
// with gremlins, and demands that nearly all changes turn a test red. The ones
// that do not are explained in e2e/mutants/SURVIVORS.md.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/tenantmesh/tenantmesh/e2e/internal/tree"
)

// least is the score below which the run fails.
const least = 0.85

// packages are those whose operators are changed.
var packages = []string{"tenant", "hop", "internal/leaf", "internal/claimed", "svid"}

// arguments are those of gremlins: every mutation that it has; two workers for two
// cores; and time enough that a noisy machine does not look like an endless loop.
var arguments = []string{
	"unleash", "--output-statuses=lt", "--workers=2", "--timeout-coefficient=15", "--exclude-files=^devdomain/",
	"--arithmetic-base", "--conditionals-boundary", "--conditionals-negation", "--increment-decrement", "--invert-assignments", "--invert-bitwise",
	"--invert-bwassign", "--invert-logical", "--invert-loopctrl", "--invert-negatives", "--remove-self-assignments",
}

// shim stands before the go command in gremlins' PATH and mends two things.
// gremlins does not run mutants of the conditions of a switch, because profiles of
// coverage leave those out; so all of a file that was covered in part is. And it
// takes code that does not compile for code that a test refuses, because go test
// exits alike for both; 2 is the code by which gremlins knows the former.
const shim = `#!/bin/sh
out=$('%s' "$@" 2>&1)
code=$?
printf '%%s\n' "$out"
case $out in *'[build failed]'*) code=2 ;; esac
last=
for a; do
	if [ "$last" = -coverprofile ]; then sed -n 's/\.go:.* [1-9][0-9]*$/.go:1.1,99999.1 1 1/p' "$a" | sort -u >>"$a"; fi
	last=$a
done
exit $code
`

func main() {
	only := flag.String("only", "", "mutate this package alone")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	pkgs := packages
	if *only != "" {
		pkgs = []string{*only}
	}
	g := gremlins{root: ".", modfile: "tools/go.mod"}
	ok, err := g.run(ctx, os.Stdout, "e2e/mutants/SURVIVORS.md", pkgs, *only == "")
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutation:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// gremlins runs the tool on a copy of the tree.
type gremlins struct {
	root    string // of the module
	modfile string // where gremlins is pinned

	tmp, tree string
	tool      string
	env       []string
}

// run mutates the packages, and says whether the score is reached and every
// survivor explained in a file; and, of all packages, whether nothing else is.
func (g *gremlins) run(ctx context.Context, out io.Writer, survivors string, pkgs []string, all bool) (bool, error) {
	text, err := os.ReadFile(survivors)
	if err != nil {
		return false, err
	}
	why, err := explanations(string(text))
	if err != nil {
		return false, err
	}
	if g.tmp, err = os.MkdirTemp("", "mutation-"); err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(g.tmp) }()
	if err := g.prepare(ctx); err != nil {
		return false, err
	}
	var mutants []mutant
	for _, pkg := range pkgs {
		list, err := g.unleash(ctx, pkg)
		if err != nil {
			return false, fmt.Errorf("%s: %w", pkg, err)
		}
		fmt.Fprintf(out, "%s: %s\n", pkg, count(list))
		mutants = append(mutants, list...)
	}
	return report(out, mutants, why, all), nil
}

func (g *gremlins) prepare(ctx context.Context) error {
	g.tree = filepath.Join(g.tmp, "tree")
	if err := tree.Copy(ctx, g.root, g.tree); err != nil {
		return err
	}
	tool, err := exec.CommandContext(ctx, "go", "tool", "-modfile="+g.modfile, "-n", "gremlins").Output()
	if err != nil {
		return fmt.Errorf("go tool gremlins: %w", err)
	}
	g.tool = strings.TrimSpace(string(tool))
	goTool, err := exec.LookPath("go")
	if err != nil {
		return err
	}
	bin := filepath.Join(g.tmp, "bin")
	if err := os.Mkdir(bin, 0o750); err != nil {
		return err
	}
	g.env = append(os.Environ(),
		"PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"),
		"PWD="+g.tree,
		"TMPDIR="+g.tmp,
		// A cached result would set the time limit of all other runs.
		"GOFLAGS="+os.Getenv("GOFLAGS")+" -count=1 -vet=off '-ldflags=-s -w'")
	return os.WriteFile(filepath.Join(bin, "go"), fmt.Appendf(nil, shim, goTool), 0o700)
}

// mutant is one change that was tried.
type mutant struct {
	file, kind, status string
	line               string // the line of code, with @ before the operator that was changed
}

func (m mutant) String() string { return fmt.Sprintf("`%s` %s `%s`", m.file, m.kind, m.line) }

// unleash returns the mutants of a package.
func (g *gremlins) unleash(ctx context.Context, pkg string) ([]mutant, error) {
	file := filepath.Join(g.tmp, "out.json")
	_ = os.Remove(file)
	cmd := exec.CommandContext(ctx, g.tool, append(slices.Clone(arguments), "--output="+file, "./"+pkg)...)
	cmd.Dir, cmd.Env = g.tree, g.env
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr // the progress, by what survives
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Files []struct {
			Name      string `json:"file_name"`
			Mutations []struct {
				Type, Status string
				Line, Column int
			}
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	var out []mutant
	for _, f := range doc.Files {
		name := path.Join(pkg, f.Name)
		code, err := os.ReadFile(filepath.Join(g.tree, name))
		if err != nil {
			return nil, err
		}
		lines := strings.Split(string(code), "\n")
		for _, m := range f.Mutations {
			l := lines[m.Line-1]
			out = append(out, mutant{name, m.Type, m.Status, strings.TrimSpace(l[:m.Column-1] + "@" + l[m.Column-1:])})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no mutants: %s", text)
	}
	return out, nil
}

// tally counts mutants by their status.
type tally map[string]int

func count(mutants []mutant) tally {
	t := tally{}
	for _, m := range mutants {
		t[m.status]++
	}
	return t
}

// survived is the number of those that a test might have found, and did not.
func (t tally) survived() int { return t["LIVED"] + t["TIMED OUT"] + t["NOT COVERED"] }

func (t tally) score() float64 { return float64(t["KILLED"]) / float64(t["KILLED"]+t.survived()) }

func (t tally) String() string {
	return fmt.Sprintf("%.1f %%: %d killed, %d lived, %d timed out, %d not covered; %d do not compile",
		100*t.score(), t["KILLED"], t["LIVED"], t["TIMED OUT"], t["NOT COVERED"], t["NOT VIABLE"])
}

// entry is a line of SURVIVORS.md.
var entry = regexp.MustCompile("^- (`[^`]+` [A-Z_]+ `.+`): (.+)$")

// explanations returns why mutants survive, by what [mutant.String] says of them.
func explanations(text string) (map[string]string, error) {
	out := map[string]string{}
	for l := range strings.Lines(text) {
		l = strings.TrimSpace(l)
		if !strings.HasPrefix(l, "- `") {
			continue
		}
		m := entry.FindStringSubmatch(l)
		if m == nil {
			return nil, fmt.Errorf("not an entry: %s", l)
		}
		out[m[1]] = m[2]
	}
	return out, nil
}

// report writes what survived, and says whether all of it is explained and few
// enough. Of a run of all packages it also demands that nothing else is explained, but for
// loops without an end: what they take may kill them before the time is over.
func report(out io.Writer, mutants []mutant, why map[string]string, all bool) bool {
	ok := true
	used := map[string]bool{}
	for _, m := range mutants {
		if m.status == "KILLED" && strings.Contains(why[m.String()], "timed out") {
			used[m.String()] = true
		}
		if m.status == "KILLED" || m.status == "NOT VIABLE" {
			continue
		}
		if used[m.String()] = true; why[m.String()] == "" {
			ok = false
			fmt.Fprintf(out, "FAIL %s, and nothing says why:\n- %s: \n", m.status, m)
		}
	}
	for m := range why {
		if all && !used[m] {
			ok = false
			fmt.Fprintf(out, "FAIL does not survive any more: %s\n", m)
		}
	}
	total := count(mutants)
	fmt.Fprintf(out, "mutation score: %s\n", total)
	return ok && total.score() >= least
}
