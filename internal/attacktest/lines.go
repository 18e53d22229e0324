// Package attacktest holds what tests of attacks share: the attacks themselves, made
// against a target by workloads with valid SVIDs or by raw HTTP/2 clients, an account of the
// lines of the attack catalogue (T1, H2, …) that ran, and a measure of memory.
package attacktest

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"
)

// Account says which lines ran in which shape of call. The lines stand in the
// names of tests, so that go test -v lists them. The zero Account is empty. It is
// safe for concurrent use.
type Account struct {
	mu  sync.Mutex
	ran map[entry]bool
}

type entry struct{ line, shape string }

var line = regexp.MustCompile(`\b[A-Z][0-9]+\b`)

// Run runs f as a subtest for each shape, and enters the lines that name has.
func Run[S fmt.Stringer](a *Account, t *testing.T, name string, shapes []S, f func(*testing.T, S)) {
	t.Helper()
	for _, s := range shapes {
		t.Run(name+"/"+s.String(), func(t *testing.T) {
			a.enter(name, s.String())
			f(t, s)
		})
	}
}

func (a *Account) enter(name, shape string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ran == nil {
		a.ran = map[entry]bool{}
	}
	for _, l := range line.FindAllString(name, -1) {
		a.ran[entry{l, shape}] = true
	}
}

// Main runs the tests of a package and returns its exit code: that of the
// tests, or 1 if all ran and passed and yet a line did not run in some shape.
func Main[S fmt.Stringer](a *Account, m *testing.M, shapes []S, lines ...string) int {
	code := m.Run()
	if code == 0 && !partial() {
		for _, text := range missing(a, shapes, lines) {
			fmt.Fprintln(os.Stderr, text)
			code = 1
		}
	}
	return code
}

// partial says whether a flag left tests out.
func partial() bool {
	return slices.ContainsFunc([]string{"test.run", "test.skip", "test.list", "test.fuzz"}, func(name string) bool {
		f := flag.Lookup(name)
		return f != nil && f.Value.String() != ""
	})
}

// missing says which lines did not run in which shapes.
func missing[S fmt.Stringer](a *Account, shapes []S, lines []string) (out []string) {
	for _, l := range lines {
		for _, s := range shapes {
			if !a.ran[entry{l, s.String()}] {
				out = append(out, fmt.Sprintf("no test of %s over %s", l, s))
			}
		}
	}
	return out
}
