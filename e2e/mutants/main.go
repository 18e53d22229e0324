// Command mutants shows that the tests notice: each *.patch beside this file
// takes one check out of the code, and the test it names must then go red.
// README.md has the form of a patch.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/tenantmesh/tenantmesh/e2e/internal/gotest"
	"github.com/tenantmesh/tenantmesh/e2e/internal/tree"
)

// parallel is how many tree copies, and so tests, are in use at once.
const parallel = 2

func main() {
	only := flag.String("only", "", "run only the mutants of this attack line, or of this file")
	dir := flag.String("dir", "e2e/mutants", "where the patches lie")
	which := part{1, 1}
	flag.Var(&which, "part", "run one part of the mutants, as 2/3, and see that the patches of the others apply")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ok, err := run(ctx, os.Stdout, ".", *dir, *only, which)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// part is one of several parts of a list: every of-th element.
type part struct{ number, of int }

func (p *part) String() string { return fmt.Sprintf("%d/%d", p.number, p.of) }

// Set implements [flag.Value].
func (p *part) Set(s string) error {
	number, of, _ := strings.Cut(s, "/")
	var errs [2]error
	p.number, errs[0] = strconv.Atoi(number)
	p.of, errs[1] = strconv.Atoi(of)
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	if p.number < 1 || p.number > p.of {
		return fmt.Errorf("%d is not one of %d parts", p.number, p.of)
	}
	return nil
}

func (p *part) holds(i int) bool { return i%p.of == p.number-1 }

// run tries the patches in dir on copies of the module at root, and says
// whether each turned its test red.
func run(ctx context.Context, out io.Writer, root, dir, only string, which part) (bool, error) {
	mutants, err := load(dir, only)
	if err != nil {
		return false, err
	}
	if len(mutants) == 0 {
		fmt.Fprintln(out, "there are no mutants yet in", dir)
		return true, nil
	}
	tmp, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	trees := make(chan string, parallel)
	for i := range parallel {
		dir := filepath.Join(tmp, fmt.Sprint(i))
		if err := tree.Copy(ctx, root, dir); err != nil {
			return false, err
		}
		trees <- dir
	}
	// in runs f in a tree of its own, as soon as one is free.
	in := func(f func(tree string)) {
		tree := <-trees
		f(tree)
		trees <- tree
	}

	// A test that fails anyway, or does not run, proves nothing. Those of a package run at once.
	unchanged := map[string]*baseline{}
	for _, m := range mutants {
		b := unchanged[m.test.pkg]
		if b == nil {
			b = &baseline{}
			unchanged[m.test.pkg] = b
		}
		b.add(m.test)
	}
	var wg sync.WaitGroup
	for _, b := range unchanged {
		wg.Go(func() {
			in(func(tree string) { b.sum, b.output, b.err = b.all.test(ctx, tree, "10m") })
		})
	}
	wg.Wait()
	results := make([]chan result, len(mutants))
	for i, m := range mutants {
		results[i] = make(chan result, 1)
		if r := unchanged[m.test.pkg].green(m.test); r.err != nil {
			results[i] <- r
			continue
		}
		try := m.try
		if !which.holds(i) {
			try = m.applies
		}
		go in(func(tree string) { results[i] <- try(ctx, tree) })
	}

	passed, failed, others := 0, 0, 0
	for i, m := range mutants {
		r := <-results[i]
		if r.err != nil {
			failed++
			fmt.Fprintf(out, "FAIL %s %s (%s): %v\n", strings.Join(m.lines, " "), m.check, m.file, r.err)
			for l := range strings.Lines(r.output) {
				fmt.Fprintf(out, "    %s\n", strings.TrimRight(l, "\n"))
			}
			continue
		}
		if r.red == "" {
			others++
			continue
		}
		passed++
		fmt.Fprintf(out, "ok   %s %s → %s went red\n", strings.Join(m.lines, " "), m.check, r.red)
	}
	if others > 0 {
		fmt.Fprintf(out, "the patches of %d others apply\n", others)
	}
	fmt.Fprintf(out, "%d passed, %d failed\n", passed, failed)
	return failed == 0, ctx.Err()
}

// result is how a try went: the test that went red, or why it is none.
type result struct {
	red    string
	err    error
	output string
}

// target is what go test is to run: a package and a -run pattern.
type target struct{ pkg, run string }

// flags are those of building tests: neither vet nor symbols would change a
// result, and both take time for each mutant.
var flags = []string{"-vet=off", "-ldflags=-s -w"}

// test builds and runs t in tree.
func (t target) test(ctx context.Context, tree, timeout string) (gotest.Summary, string, error) {
	args := slices.Concat([]string{"test", "-json", "-count=1", "-timeout=" + timeout}, flags, []string{"-run", t.run, t.pkg})
	return output(ctx, tree, args...)
}

// output runs go with args in dir and reads the test events that it prints.
func output(ctx context.Context, dir string, args ...string) (gotest.Summary, string, error) {
	var stdout, stderr, text bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PWD="+dir)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return gotest.Summary{}, "", ctx.Err()
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return gotest.Summary{}, "", err
	}
	sum, err := gotest.Read(&stdout, &text)
	return sum, text.String() + stderr.String(), err
}

// baseline is how the tests of a package go on the unchanged code: all that
// mutants name.
type baseline struct {
	all    target
	sum    gotest.Summary
	output string
	err    error
}

func (b *baseline) add(t target) {
	if b.all.run != "" {
		b.all.run += "|"
	}
	b.all = target{t.pkg, b.all.run + t.elements()[0]}
}

// green demands that t passes by itself, and that one test runs as deep as
// the pattern goes: for TestA/H1, go test is content with TestA alone.
func (b *baseline) green(t target) result {
	fails := func(failed gotest.Test) bool { return t.matches(failed.Name) }
	switch {
	case b.err != nil:
		return result{err: b.err}
	case len(b.sum.Broken) > 0 || slices.ContainsFunc(b.sum.Failed, fails):
		return result{err: errors.New("the test fails on the unchanged code"), output: b.output}
	}
	for _, test := range b.sum.Passed {
		if strings.Count(test.Name, "/") >= len(t.elements())-1 && t.matches(test.Name) {
			return result{}
		}
	}
	return result{err: fmt.Errorf("no test runs for %s -run %s", t.pkg, t.run)}
}

// matches reports whether go test -run runs a test of that name for t.
func (t target) matches(name string) bool {
	elements := t.elements()
	for i, part := range strings.Split(name, "/") {
		if i == len(elements) {
			break
		}
		if ok, err := regexp.MatchString(elements[i], part); !ok || err != nil {
			return false
		}
	}
	return true
}

// elements returns the patterns for the parts of a test's name: what stands
// between slashes that are not in brackets.
func (t target) elements() (out []string) {
	depth, start := 0, 0
	for i, c := range t.run {
		switch c {
		case '(', '[':
			depth++
		case ')', ']':
			depth--
		case '/':
			if depth == 0 {
				out = append(out, t.run[start:i])
				start = i + 1
			}
		}
	}
	return append(out, t.run[start:])
}

// applies demands that the patch applies to tree, and does no more.
func (m mutant) applies(ctx context.Context, tree string) result {
	if err := m.apply(ctx, tree, "--check"); err != nil {
		return result{err: fmt.Errorf("the patch does not apply: %w", err)}
	}
	return result{}
}

// try applies the patch in tree, demands that the test goes red, and takes the
// patch back.
func (m mutant) try(ctx context.Context, tree string) result {
	if err := m.apply(ctx, tree); err != nil {
		return result{err: fmt.Errorf("the patch does not apply: %w", err)}
	}
	r := m.red(ctx, tree)
	if err := m.apply(ctx, tree, "--reverse"); err != nil {
		return result{err: fmt.Errorf("the patch cannot be taken back: %w", err)}
	}
	return r
}

func (m mutant) red(ctx context.Context, tree string) result {
	sum, output, err := m.test.test(ctx, tree, "2m")
	switch {
	case err != nil:
		return result{err: err}
	case sum.BuildFailed:
		return result{err: errors.New("the changed code does not compile"), output: output}
	case len(sum.Failed) > 0:
		return result{red: sum.Failed[0].Name}
	case len(sum.Broken) > 0:
		return result{err: errors.New("the package fails, but no test of it"), output: output}
	default:
		return result{err: errors.New("the test still passes")}
	}
}

// apply runs git apply in tree, which is no repository.
func (m mutant) apply(ctx context.Context, tree string, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", append([]string{"apply"}, args...)...)
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(tree))
	cmd.Stdin = strings.NewReader(m.diff)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git apply: %w: %s", err, strings.ReplaceAll(string(bytes.TrimSpace(text)), "\n", "; "))
	}
	return nil
}
