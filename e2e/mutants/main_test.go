package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	code = `package door

func Open(key string) bool {
	if key == "" {
		return false
	}
	return true
}
`
	codeTest = `package door

import "testing"

func TestOpen(t *testing.T) {
	t.Run("no key", func(t *testing.T) {
		if Open("") {
			t.Error("opened")
		}
	})
	t.Run("key", func(t *testing.T) {
		if !Open("k") {
			t.Error("stayed shut")
		}
	})
}

func TestRed(t *testing.T) { t.Error("always") }

func TestSkip(t *testing.T) { t.Skip("a program is missing") }
`
	// The hunk of a patch that changes the line in Open.
	hunk = `diff --git a/door.go b/door.go
--- a/door.go
+++ b/door.go
@@ -2,5 +2,5 @@

 func Open(key string) bool {
 	if key == "" {
-		return false
+		return LINE
 	}
`
)

// module makes a git tree with one package and the patches, which go by name.
func module(t *testing.T, patches map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"go.mod": "module door\n\ngo 1.26\n", "door.go": code, "door_test.go": codeTest}
	for name, text := range patches {
		files["mutants/"+name] = text
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("git", "-C", dir, "init", "-q").CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	return dir
}

func header(line, test string) string {
	return "Check: key check removed\nLine: " + line + "\nTest: " + test + "\n\n"
}

func with(line string) string { return strings.Replace(hunk, "LINE", line, 1) }

func TestRun(t *testing.T) {
	dir := module(t, map[string]string{
		"a-good.patch":     header("H1", "./ TestOpen/no_key") + with("true"),
		"b-survives.patch": header("H2", "./ TestOpen/^key$") + with("true"),
		"c-compile.patch":  header("H3", "./ TestOpen/no_key") + with("nonsense"),
		"d-stale.patch":    header("H4", "./ TestOpen/no_key") + strings.Replace(with("true"), "key string", "old string", 1),
		"e-notest.patch":   header("H5", "./ TestGone") + with("true"),
		"f-nosub.patch":    header("H6", "./ TestOpen/gone") + with("true"),
		"g-red.patch":      header("H7", "./ TestRed") + with("true"),
		"h-skip.patch":     header("H8", "./ TestSkip") + with("true"),
		"i-exit.patch":     header("H9", "./ TestOpen/no_key") + strings.NewReplacer(`return LINE`, `os.Exit(3); return true`, "@@ -2,5 +2,5 @@\n\n", "@@ -1,6 +1,8 @@\n package door\n \n+import \"os\"\n+\n").Replace(hunk),
		"j-again.patch":    header("H1, H10", "./ TestOpen/no_key") + with("true"),
		"k-package.patch":  header("H11", "./gone TestX") + with("true"),
		"l-panic.patch":    header("H12", "./ TestOpen/no_key") + with(`func() bool { panic("boom") }()`),
	})
	var out strings.Builder
	ok, err := run(t.Context(), &out, dir, filepath.Join(dir, "mutants"), "", part{1, 1})
	if ok || err != nil {
		t.Errorf("run = %v, %v; want false, nil", ok, err)
	}
	var got []string
	for l := range strings.Lines(out.String()) {
		if !strings.HasPrefix(l, " ") {
			got = append(got, strings.TrimSpace(l))
		}
	}
	want := []string{
		"ok   H1 key check removed → TestOpen/no_key went red",
		"FAIL H2 key check removed (b-survives.patch): the test still passes",
		"FAIL H3 key check removed (c-compile.patch): the changed code does not compile",
		"FAIL H4 key check removed (d-stale.patch): the patch does not apply: ",
		"FAIL H5 key check removed (e-notest.patch): no test runs for ./ -run TestGone",
		"FAIL H6 key check removed (f-nosub.patch): no test runs for ./ -run TestOpen/gone",
		"FAIL H7 key check removed (g-red.patch): the test fails on the unchanged code",
		"FAIL H8 key check removed (h-skip.patch): no test runs for ./ -run TestSkip",
		"FAIL H9 key check removed (i-exit.patch): the package fails, but no test of it",
		"ok   H1 H10 key check removed → TestOpen/no_key went red",
		"FAIL H11 key check removed (k-package.patch): the test fails on the unchanged code",
		"ok   H12 key check removed → TestOpen/no_key went red",
		"3 passed, 9 failed",
	}
	for i, w := range want {
		if i >= len(got) || !strings.HasPrefix(got[i], w) {
			t.Fatalf("line %d: want %q in\n%s", i, w, out.String())
		}
	}
	if last := got[len(got)-1]; last != want[len(want)-1] {
		t.Errorf("the last line is %q", last)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "door.go")); err != nil || string(text) != code {
		t.Errorf("the tree itself was changed: %v\n%s", err, text)
	}
}

func TestOnly(t *testing.T) {
	dir := filepath.Join(module(t, map[string]string{
		"a.patch": header("H1", "./ TestOpen") + with("true"),
		"b.patch": header("H10", "./ TestOpen") + with("true"),
	}), "mutants")
	for only, want := range map[string]int{"": 2, "H1": 1, "H10": 1, "a": 1, "b.patch": 1} {
		if ms, err := load(dir, only); err != nil || len(ms) != want {
			t.Errorf("load(%q) = %d mutants, %v; want %d", only, len(ms), err, want)
		}
	}
	if _, err := load(dir, "H2"); err == nil {
		t.Error("a filter that picks nothing is no error")
	}
}

// TestPart: the patches of the other parts are not tried, and must apply.
func TestPart(t *testing.T) {
	dir := module(t, map[string]string{
		"a-good.patch":     header("H1", "./ TestOpen/no_key") + with("true"),
		"b-survives.patch": header("H2", "./ TestOpen/^key$") + with("true"),
		"c-good.patch":     header("H3", "./ TestOpen/no_key") + with("true"),
		"d-stale.patch":    header("H4", "./ TestOpen/no_key") + strings.Replace(with("true"), "key string", "old string", 1),
	})
	var out strings.Builder
	if ok, err := run(t.Context(), &out, dir, filepath.Join(dir, "mutants"), "", part{1, 2}); ok || err != nil {
		t.Errorf("run = %v, %v; want false, nil", ok, err)
	}
	for _, want := range []string{"ok   H1", "ok   H3", "FAIL H4 key check removed (d-stale.patch): the patch does not apply", "the patches of 1 others apply", "2 passed, 1 failed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	for _, s := range []string{"", "1", "0/2", "3/2", "a/b", "1/2/3", "-1/2"} {
		if err := new(part).Set(s); err == nil {
			t.Errorf("%q is a part", s)
		}
	}
	var p part
	if err := p.Set("2/3"); err != nil || p.String() != "2/3" || p.holds(0) || !p.holds(1) || p.holds(2) || !p.holds(4) {
		t.Errorf("2/3 is %v, %v", p, err)
	}
}

func TestNone(t *testing.T) {
	var out strings.Builder
	if ok, err := run(t.Context(), &out, ".", t.TempDir(), "", part{1, 1}); !ok || err != nil {
		t.Errorf("run = %v, %v", ok, err)
	}
	if !strings.Contains(out.String(), "no mutants yet") {
		t.Errorf("it says %q", out.String())
	}
}

func TestParse(t *testing.T) {
	m, err := parse("x.patch", "Check: audience check\nLine: H1, H2\nTest: ./hop TestVerify/H1\n\n"+hunk)
	if err != nil {
		t.Fatal(err)
	}
	if m.check != "audience check" || strings.Join(m.lines, "+") != "H1+H2" || m.test != (target{"./hop", "TestVerify/H1"}) || m.diff != hunk {
		t.Errorf("parse = %+v", m)
	}
	for name, text := range map[string]string{
		"no check":      "Line: H1\nTest: ./hop TestX\n" + hunk,
		"no line":       "Check: c\nTest: ./hop TestX\n" + hunk,
		"no test":       "Check: c\nLine: H1\n" + hunk,
		"no pattern":    "Check: c\nLine: H1\nTest: ./hop\n" + hunk,
		"many packages": "Check: c\nLine: H1\nTest: ./... TestX\n" + hunk,
		"twice":         "Check: c\nCheck: d\nLine: H1\nTest: ./hop TestX\n" + hunk,
		"unknown key":   "Check: c\nLine: H1\nTests: ./hop TestX\n" + hunk,
		"free text":     "Takes out a check.\nCheck: c\nLine: H1\nTest: ./hop TestX\n" + hunk,
		"no diff":       "Check: c\nLine: H1\nTest: ./hop TestX\n",
	} {
		if _, err := parse("x.patch", text); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
