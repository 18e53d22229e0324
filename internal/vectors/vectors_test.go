package vectors

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func read(t *testing.T, text string) ([]Vector, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "v.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Read(file)
}

const good = `{"id": "a", "lines": [], "comment": "c", "input": {"x": 1, "y": {"z": 2, "w": 3}, "v": [1]}, "ok": {}}`

func TestRead(t *testing.T) {
	list, err := read(t, `[`+good+`, {"id": "b", "lines": ["H1"], "comment": "c", "base": "a",
		"override": {"x": null, "y": {"z": 4}, "v": [2], "u": 5}, "reason": "R", "hop": 0}]`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(list[1].Input), `{"u":5,"v":[2],"y":{"w":3,"z":4}}`; got != want {
		t.Errorf("the override makes %s, want %s", got, want)
	}
}

func TestInputs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "v.json")
	if err := os.WriteFile(file, []byte("["+good+"]"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := Inputs[struct{ V []int }](file)
	if err != nil || len(list) != 1 || len(list[0].V) != 1 || list[0].V[0] != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if list, err := Inputs[struct{ V string }](file); err == nil {
		t.Errorf("a list is read as text: %v", list)
	}
	if list, err := Inputs[struct{}](file + "x"); err == nil {
		t.Errorf("no file gives %v", list)
	}
}

func TestReadRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no vectors":               `[]`,
		"an unknown member":        `[{"id": "a", "lines": [], "comment": "c", "input": {}, "ok": {}, "note": 1}]`,
		"something behind":         `[` + good + `] []`,
		"an id twice":              `[` + good + `, ` + good + `]`,
		"no id":                    `[{"lines": [], "comment": "c", "input": {}, "ok": {}}]`,
		"no comment":               `[{"id": "a", "lines": [], "input": {}, "ok": {}}]`,
		"neither ok nor reason":    `[{"id": "a", "lines": [], "comment": "c", "input": {}}]`,
		"ok and reason":            `[{"id": "a", "lines": [], "comment": "c", "input": {}, "ok": {}, "reason": "R"}]`,
		"a hop beside ok":          `[{"id": "a", "lines": [], "comment": "c", "input": {}, "ok": {}, "hop": 0}]`,
		"a negative without base":  `[{"id": "a", "lines": [], "comment": "c", "input": {}, "reason": "R"}]`,
		"an override without base": `[{"id": "a", "lines": [], "comment": "c", "override": {}, "ok": {}}]`,
		"input and override":       `[` + good + `, {"id": "b", "lines": [], "comment": "c", "base": "a", "input": {}, "override": {}, "reason": "R"}]`,
		"an unknown base":          `[` + good + `, {"id": "b", "lines": [], "comment": "c", "base": "x", "override": {}, "reason": "R"}]`,
		"a base that is negative":  `[` + good + `, {"id": "b", "lines": [], "comment": "c", "base": "a", "override": {}, "reason": "R"}, {"id": "d", "lines": [], "comment": "c", "base": "b", "override": {}, "reason": "R"}]`,
	} {
		if _, err := read(t, text); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

func TestText(t *testing.T) {
	for text, want := range map[string]string{`"abc"`: "abc", `[["ab", 2], ["c", 1]]`: "ababc", `[]`: ""} {
		var got Text
		if err := json.Unmarshal([]byte(text), &got); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{`1`, `["a"]`, `[["a", 0]]`, `[["a", 3000000]]`, `[[1, 1]]`, `{}`} {
		var got Text
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s: %s", text, strings.Repeat("x", min(9, len(got))))
		}
	}
}
