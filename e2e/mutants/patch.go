package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mutant is a parsed patch file.
type mutant struct {
	file  string   // its base name
	check string   // what it takes out
	lines []string // the attack lines that the check is there for
	test  target   // what must go red
	diff  string
}

// load reads the patches in dir that only picks; it picks all if it is empty.
func load(dir, only string) ([]mutant, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	var ms []mutant
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		m, err := parse(filepath.Base(f), string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		if only == "" || slices.Contains(m.lines, only) || strings.TrimSuffix(m.file, ".patch") == strings.TrimSuffix(only, ".patch") {
			ms = append(ms, m)
		}
	}
	if only != "" && len(ms) == 0 {
		return nil, fmt.Errorf("no mutant in %s is named %s or is for that attack line", dir, only)
	}
	return ms, nil
}

// parse reads a patch: the header lines Check, Line and Test, each once, and
// then the diff.
func parse(file, text string) (mutant, error) {
	m := mutant{file: file}
	header := map[string]string{}
	rest := text
	for rest != "" && !strings.HasPrefix(rest, "diff --git ") && !strings.HasPrefix(rest, "--- ") {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok || !slices.Contains([]string{"Check", "Line", "Test"}, key) {
			return m, fmt.Errorf("header line %q is neither Check nor Line nor Test", line)
		}
		if _, twice := header[key]; twice {
			return m, fmt.Errorf("a second header line %s", key)
		}
		header[key] = strings.TrimSpace(value)
	}
	if m.diff = rest; m.diff == "" {
		return m, errors.New("no diff")
	}
	if m.check = header["Check"]; m.check == "" {
		return m, errors.New("no header line Check")
	}
	m.lines = strings.FieldsFunc(header["Line"], func(r rune) bool { return r == ',' || r == ' ' })
	if len(m.lines) == 0 {
		return m, errors.New("no header line Line")
	}
	test := strings.Fields(header["Test"])
	if len(test) != 2 || !strings.HasPrefix(test[0], "./") || strings.HasSuffix(test[0], "...") {
		return m, fmt.Errorf("header line Test %q: want one package and one -run pattern, as in ./hop TestVerify/H1", header["Test"])
	}
	m.test = target{test[0], test[1]}
	return m, nil
}
