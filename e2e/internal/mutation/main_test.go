package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// One operator of door is tested, one is not, one cannot be changed so that
// the code compiles; and one stands in a case, which profiles of coverage leave out.
const (
	door = `package door

func Open(key string, tries int) string {
	switch {
	case key == "":
		return "no " + "key"
	}
	if tries > 3 {
		return "shut"
	}
	return "open"
}
`
	doorTest = `package door

import "testing"

func TestOpen(t *testing.T) {
	if Open("", 0) != "no key" || Open("k", 0) != "open" || Open("k", 5) != "shut" {
		t.Error("wrong")
	}
}
`
	boundary = "- `door/door.go` CONDITIONALS_BOUNDARY `if tries @> 3 {`: "
)

func TestRun(t *testing.T) {
	modfile, err := filepath.Abs("../../../tools/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module x\n\ngo 1.26\n", "door/door.go": door, "door/door_test.go": doorTest} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("git", "-C", root, "init", "-q").CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	survivors := filepath.Join(t.TempDir(), "SURVIVORS.md")
	if err := os.WriteFile(survivors, []byte(boundary+"nobody tries four times\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := gremlins{root: root, modfile: modfile}
	var out strings.Builder
	ok, err := g.run(t.Context(), &out, survivors, []string{"door"}, true)
	// 2 of 3 are less than the score.
	if want := "66.7 %: 2 killed, 1 lived, 0 timed out, 0 not covered; 1 do not compile\n"; ok || err != nil || out.String() != "door: "+want+"mutation score: "+want {
		t.Errorf("%v, %v: %s", ok, err, out.String())
	}
}

func TestReport(t *testing.T) {
	killed := mutant{"a.go", "T", "KILLED", "x @< y"}
	lived, timedOut, uncovered := killed, killed, killed
	lived.status, timedOut.status, uncovered.status = "LIVED", "TIMED OUT", "NOT COVERED"
	broken := killed
	broken.status = "NOT VIABLE"
	many := func(n int, more ...mutant) []mutant {
		for range n {
			more = append(more, killed)
		}
		return more
	}
	why := map[string]string{killed.String(): "it is so"}
	for _, tt := range []struct {
		name    string
		mutants []mutant
		why     map[string]string
		all, ok bool
	}{
		{"all killed", many(1), nil, true, true},
		{"one survives unexplained", many(99, lived), nil, true, false},
		{"one survives", many(99, lived), why, true, true},
		{"the score is reached", many(17, lived, timedOut, uncovered), why, true, true},
		{"the score is missed", many(16, lived, timedOut, uncovered), why, true, false},
		{"what does not compile does not count", many(16, lived, timedOut, uncovered, broken, broken), why, true, false},
		{"a timeout is unexplained", many(99, timedOut), nil, true, false},
		{"what is not covered is unexplained", many(99, uncovered), nil, true, false},
		{"an explanation of nothing", many(9), why, true, false},
		{"an explanation for another package", many(9), why, false, true},
		{"nothing was tried", nil, nil, true, false},
	} {
		var out strings.Builder
		if got := report(&out, tt.mutants, tt.why, tt.all); got != tt.ok {
			t.Errorf("%s: %v, want %v: %s", tt.name, got, tt.ok, out.String())
		}
	}
}

func TestExplanations(t *testing.T) {
	why, err := explanations("# Survivors\n\n" + boundary + "nobody tries four times\n- text\n")
	if want := (mutant{file: "door/door.go", kind: "CONDITIONALS_BOUNDARY", line: "if tries @> 3 {"}); err != nil || len(why) != 1 || why[want.String()] != "nobody tries four times" {
		t.Errorf("%v, %v", why, err)
	}
	for _, text := range []string{strings.TrimSuffix(boundary, ": "), boundary, "- `a.go`: why"} {
		if why, err := explanations(text); err == nil {
			t.Errorf("%q is read as %v", text, why)
		}
	}
}
