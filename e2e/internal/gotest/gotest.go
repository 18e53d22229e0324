// Package gotest reads what go test -json writes.
package gotest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Test names a test, or a subtest as "TestName/sub".
type Test struct{ Package, Name string }

// Summary is the outcome of a go test run. A test with subtests counts only
// through them, unless it failed and none of them did.
type Summary struct {
	Passed, Failed, Skipped []Test
	// Broken are the packages that failed although none of their tests did:
	// one that does not compile, that exits on its own, or whose TestMain fails.
	Broken []string
	// BuildFailed says that one of Broken does not compile.
	BuildFailed bool
}

// event is a line of go test -json; see go doc test2json.
type event struct {
	Action, Package, Test, Output, FailedBuild string
}

type test struct {
	output      []string
	parent      bool // has subtests
	childFailed bool
}

type reader struct {
	w     io.Writer
	sum   Summary
	tests map[Test]*test  // without a name: a package's own output
	fails map[string]bool // packages with a failed test
}

// Read reads r to its end. It writes to w one line for each package, and the
// output of what failed, indented.
func Read(r io.Reader, w io.Writer) (Summary, error) {
	rd := &reader{w: w, tests: map[Test]*test{}, fails: map[string]bool{}}
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			rd.line(line)
		}
		if errors.Is(err, io.EOF) {
			return rd.sum, nil
		}
		if err != nil {
			return rd.sum, err
		}
	}
}

func (rd *reader) line(line string) {
	var e event
	if json.Unmarshal([]byte(line), &e) != nil {
		rd.print([]string{line}) // not from a test: go itself has something to say
		return
	}
	id := Test{e.Package, e.Test}
	t := rd.test(id)
	switch e.Action {
	case "build-output":
		rd.print([]string{e.Output})
	case "run":
		if parent := id.parent(); parent != id {
			rd.test(parent).parent = true
		}
	case "output":
		t.output = append(t.output, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			rd.packageDone(e, t)
		} else {
			rd.testDone(id, e.Action, t)
		}
	}
}

func (rd *reader) testDone(id Test, action string, t *test) {
	switch action {
	case "pass":
		if !t.parent {
			rd.sum.Passed = append(rd.sum.Passed, id)
		}
	case "skip":
		rd.sum.Skipped = append(rd.sum.Skipped, id)
		fmt.Fprintf(rd.w, "skip %s %s\n", id.Package, id.Name)
		rd.print(t.output)
	case "fail":
		if parent := id.parent(); parent != id {
			rd.test(parent).childFailed = true
		}
		rd.fails[id.Package] = true
		if !t.childFailed {
			rd.sum.Failed = append(rd.sum.Failed, id)
		}
		fmt.Fprintf(rd.w, "FAIL %s %s\n", id.Package, id.Name)
		rd.print(t.output)
	}
	t.output = nil
}

func (rd *reader) packageDone(e event, t *test) {
	switch {
	case e.Action == "pass":
		fmt.Fprintf(rd.w, "ok   %s\n", e.Package)
	case e.Action == "fail":
		fmt.Fprintf(rd.w, "FAIL %s\n", e.Package)
		rd.print(t.output)
		if !rd.fails[e.Package] {
			rd.sum.Broken = append(rd.sum.Broken, e.Package)
			rd.sum.BuildFailed = rd.sum.BuildFailed || e.FailedBuild != ""
		}
	}
}

func (rd *reader) test(id Test) *test {
	if rd.tests[id] == nil {
		rd.tests[id] = &test{}
	}
	return rd.tests[id]
}

// parent is the test that t is a subtest of, and t if it is none.
func (t Test) parent() Test {
	if i := strings.LastIndexByte(t.Name, '/'); i > 0 {
		t.Name = t.Name[:i]
	}
	return t
}

// print writes lines indented, so that nothing a test writes looks like a line
// of this package.
func (rd *reader) print(lines []string) {
	for l := range strings.Lines(strings.Join(lines, "")) {
		fmt.Fprintf(rd.w, "    %s\n", strings.TrimRight(l, "\r\n"))
	}
}
