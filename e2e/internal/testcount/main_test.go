package main

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	const (
		pass = `{"Action":"pass","Package":"m","Test":"TestA"}` + "\n"
		fail = `{"Action":"fail","Package":"m","Test":"TestB"}` + "\n"
		skip = `{"Action":"skip","Package":"m","Test":"TestC"}` + "\n"
	)
	for _, c := range []struct {
		name, in  string
		skipFails bool
		ok        bool
		last      string
	}{
		{"passed", pass, true, true, "1 passed, 0 failed"},
		{"failed", pass + fail, true, false, "1 passed, 1 failed"},
		{"nothing ran", "", true, false, "0 passed, 0 failed"},
		{"skipped at home", pass + skip, false, true, "1 passed, 0 failed"},
		{"skipped in CI", pass + skip, true, false, "1 passed, 1 failed"},
		{"does not compile", `{"Action":"fail","Package":"m","FailedBuild":"m"}`, true, false, "0 passed, 1 failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			if ok := run(strings.NewReader(c.in), &out, c.skipFails); ok != c.ok {
				t.Errorf("run = %v, want %v", ok, c.ok)
			}
			if !strings.HasSuffix("\n"+out.String(), "\n"+c.last+"\n") {
				t.Errorf("the last line is not %q in\n%s", c.last, out.String())
			}
		})
	}
}
