package gotest

import (
	"strings"
	"testing"
)

const stream = `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestPlain"}
{"Action":"output","Package":"m/a","Test":"TestPlain","Output":"quiet\n"}
{"Action":"pass","Package":"m/a","Test":"TestPlain"}
{"Action":"run","Package":"m/a","Test":"TestTable"}
{"Action":"run","Package":"m/a","Test":"TestTable/one"}
{"Action":"run","Package":"m/a","Test":"TestTable/two"}
{"Action":"pass","Package":"m/a","Test":"TestTable/one"}
{"Action":"output","Package":"m/a","Test":"TestTable/two","Output":"9 passed, 0 failed\n"}
{"Action":"fail","Package":"m/a","Test":"TestTable/two"}
{"Action":"fail","Package":"m/a","Test":"TestTable"}
{"Action":"run","Package":"m/a","Test":"TestOwn"}
{"Action":"run","Package":"m/a","Test":"TestOwn/fine"}
{"Action":"pass","Package":"m/a","Test":"TestOwn/fine"}
{"Action":"fail","Package":"m/a","Test":"TestOwn"}
{"Action":"run","Package":"m/a","Test":"TestGood"}
{"Action":"run","Package":"m/a","Test":"TestGood/sub"}
{"Action":"pass","Package":"m/a","Test":"TestGood/sub"}
{"Action":"pass","Package":"m/a","Test":"TestGood"}
{"Action":"run","Package":"m/a","Test":"TestSkip"}
{"Action":"output","Package":"m/a","Test":"TestSkip","Output":"no database\n"}
{"Action":"skip","Package":"m/a","Test":"TestSkip"}
{"Action":"fail","Package":"m/a"}
{"ImportPath":"m/b [m/b.test]","Action":"build-output","Output":"b/b.go:3:1: syntax error\n"}
{"ImportPath":"m/b [m/b.test]","Action":"build-fail"}
{"Action":"fail","Package":"m/b","FailedBuild":"m/b [m/b.test]"}
{"Action":"output","Package":"m/c","Output":"goleak: a goroutine is left\n"}
{"Action":"fail","Package":"m/c"}
{"Action":"output","Package":"m/d","Output":"?   \tm/d\t[no test files]\n"}
{"Action":"skip","Package":"m/d"}
go: a line that is not JSON
`

func TestRead(t *testing.T) {
	var out strings.Builder
	sum, err := Read(strings.NewReader(stream), &out)
	if err != nil {
		t.Fatal(err)
	}
	names := func(ts []Test) string {
		var s []string
		for _, t := range ts {
			s = append(s, t.Name)
		}
		return strings.Join(s, " ")
	}
	for _, c := range []struct{ what, got, want string }{
		{"passed", names(sum.Passed), "TestPlain TestTable/one TestOwn/fine TestGood/sub"},
		{"failed", names(sum.Failed), "TestTable/two TestOwn"},
		{"skipped", names(sum.Skipped), "TestSkip"},
		{"broken", strings.Join(sum.Broken, " "), "m/b m/c"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
		}
	}
	if !sum.BuildFailed {
		t.Error("BuildFailed is not set")
	}
	for _, want := range []string{
		"\n    9 passed, 0 failed\n", // indented: it is no total
		"no database", "syntax error", "goleak: a goroutine is left", "go: a line that is not JSON",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "quiet") {
		t.Error("the output of a passed test shows")
	}
}
