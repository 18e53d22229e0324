// Package vectors reads the files of conformance/vectors, for their runner and
// as seeds of fuzz tests. conformance/README.md describes the format.
package vectors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Vector is one test vector. Either Input or Base and Override stand in the
// file; Read leaves in Input what they come to. Either OK or Reason is set.
type Vector struct {
	ID       string          `json:"id"`
	Lines    []string        `json:"lines"`
	Comment  string          `json:"comment"`
	Base     string          `json:"base,omitempty"`
	Input    json.RawMessage `json:"input,omitempty"`
	Override json.RawMessage `json:"override,omitempty"`
	OK       json.RawMessage `json:"ok,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Hop      *int            `json:"hop,omitempty"`
}

// Read reads one file of vectors. It fails for an empty one, and for what
// conformance/README.md does not allow.
func Read(file string) ([]Vector, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []Vector
	if err := Strict(text, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: no vectors", file)
	}
	bases := make(map[string]json.RawMessage)
	seen := make(map[string]bool)
	for _, v := range list {
		if seen[v.ID] {
			return nil, fmt.Errorf("%s: two vectors with the id %q", file, v.ID)
		}
		seen[v.ID] = true
		if v.Base == "" && v.OK != nil {
			bases[v.ID] = v.Input
		}
	}
	for i := range list {
		if err := list[i].complete(bases); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", file, list[i].ID, err)
		}
	}
	return list, nil
}

// Inputs reads the inputs of one file of vectors, as far as T has members for
// them. It fails as [Read] does.
func Inputs[T any](file string) ([]T, error) {
	list, err := Read(file)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(list))
	for i, v := range list {
		if err := json.Unmarshal(v.Input, &out[i]); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", file, v.ID, err)
		}
	}
	return out, nil
}

func (v *Vector) complete(bases map[string]json.RawMessage) error {
	switch {
	case v.ID == "" || v.Comment == "":
		return errors.New("no id or no comment")
	case (v.OK == nil) == (v.Reason == ""):
		return errors.New("either ok or reason stands")
	case v.Hop != nil && v.Reason == "":
		return errors.New("a hop without a reason")
	case v.Base == "":
		if v.OK == nil {
			return errors.New("a negative vector is an override of a positive one")
		}
		if v.Input == nil || v.Override != nil {
			return errors.New("without base, input stands and override does not")
		}
		return nil
	case v.Input != nil || v.Override == nil:
		return errors.New("with base, override stands and input does not")
	case bases[v.Base] == nil:
		return fmt.Errorf("the base %q is not a positive vector with an input", v.Base)
	}
	var base, patch any
	if err := errors.Join(json.Unmarshal(bases[v.Base], &base), json.Unmarshal(v.Override, &patch)); err != nil {
		return err
	}
	var err error
	v.Input, err = json.Marshal(merge(base, patch))
	return err
}

// merge applies a JSON merge patch (RFC 7396).
func merge(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, _ := target.(map[string]any)
	out := make(map[string]any)
	for k, v := range t {
		out[k] = v
	}
	for k, v := range p {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = merge(out[k], v)
		}
	}
	return out
}

// Strict decodes one JSON value without members that v does not have.
func Strict(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the value")
	}
	return nil
}

// Text is a string that may be long: in JSON a string, or a list of pairs of a
// string and how many times it stands, one after the other.
type Text string

// UnmarshalJSON reads either form.
func (t *Text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(t))
	}
	var parts [][2]json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	var out strings.Builder
	for _, p := range parts {
		var s string
		var n int
		if err := errors.Join(json.Unmarshal(p[0], &s), json.Unmarshal(p[1], &n)); err != nil {
			return err
		}
		if n < 1 || n*len(s) > 1<<21 {
			return fmt.Errorf("a text %d times", n)
		}
		out.WriteString(strings.Repeat(s, n))
	}
	*t = Text(out.String())
	return nil
}
