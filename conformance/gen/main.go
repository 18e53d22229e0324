// Command gen writes conformance/vectors and conformance/manifest.json. Its
// output is the same on every run: keys, times and identifiers are fixed, and
// all signatures are deterministic. It signs by SPEC.md, not with package hop,
// so that the two check each other.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
)

// noon is when the calls are made, and the time of most vectors.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func main() {
	dir := flag.String("dir", "conformance", "the directory of package conformance")
	flag.Parse()
	for name, text := range generate(*dir) {
		if err := os.WriteFile(filepath.Join(*dir, filepath.FromSlash(name)), text, 0o600); err != nil {
			log.Fatal(err)
		}
	}
}

// generate returns the content of all files by their paths below dir, where
// the test keys are. It panics where a vector cannot be built.
func generate(dir string) map[string][]byte {
	loadKeys(dir)
	files := map[string][]vectors.Vector{
		"certificates.json": certificateVectors(),
		"chains.json":       chainVectors(),
		"claims.json":       claimsVectors(),
		"metadata.json":     metadataVectors(),
		"policy.json":       policyVectors(),
		"slots.json":        slotVectors(),
		"statements.json":   statementVectors(),
		"tokens.json":       tokenVectors(),
	}
	out := make(map[string][]byte)
	m := manifest{Lines: map[string]int{}}
	for name, list := range files {
		slices.SortFunc(list, func(a, b vectors.Vector) int {
			if a, b := rank(a), rank(b); a != b {
				return a - b
			}
			return strings.Compare(a.ID, b.ID)
		})
		text := encode(list)
		out["vectors/"+name] = text
		sum := sha256.Sum256(text)
		f := manifestFile{Name: name, SHA256: hex.EncodeToString(sum[:]), Vectors: len(list)}
		for _, v := range list {
			if v.Reason != "" {
				f.Negative++
			}
			for _, line := range v.Lines {
				m.Lines[line]++
			}
		}
		m.Files = append(m.Files, f)
	}
	slices.SortFunc(m.Files, func(a, b manifestFile) int { return strings.Compare(a.Name, b.Name) })
	out["manifest.json"] = encode(m)
	return out
}

// rank puts bases first, then the other positive vectors, then the negative ones.
func rank(v vectors.Vector) int {
	switch {
	case v.Base == "":
		return 0
	case v.Reason == "":
		return 1
	}
	return 2
}

type manifest struct {
	Files []manifestFile `json:"files"`
	Lines map[string]int `json:"lines"` // vectors by line of the attack catalogue
}

type manifestFile struct {
	Name     string `json:"name"`
	SHA256   string `json:"sha256"`
	Vectors  int    `json:"vectors"`
	Negative int    `json:"negative"`
}

// object is a JSON object.
type object map[string]any

// base returns a positive vector that others override.
func base(id, comment string, input, ok object) vectors.Vector {
	return vectors.Vector{ID: id, Lines: []string{}, Comment: comment, Input: compact(input), OK: compact(ok)}
}

// derived returns a vector that overrides a base where its input differs: a
// positive one if reason is empty. Its id comes from its comment.
func derived(lines, comment string, from vectors.Vector, input, ok object, reason string, hop int) vectors.Vector {
	v := vectors.Vector{ID: slug(lines + " " + comment), Lines: fields(lines), Comment: comment, Base: from.ID, Reason: reason}
	var was, is object
	check(json.Unmarshal(from.Input, &was))
	check(json.Unmarshal(compact(input), &is))
	patch := diff(was, is)
	if len(patch) == 0 {
		panic(v.ID + " changes nothing")
	}
	v.Override = compact(patch)
	if reason == "" {
		v.OK = compact(ok)
	} else if hop >= 0 {
		v.Hop = &hop
	}
	return v
}

// diff returns the merge patch (RFC 7396) that makes is of was.
func diff(was, is object) object {
	patch := object{}
	for k := range was {
		if _, ok := is[k]; !ok {
			patch[k] = nil
		}
	}
	for k, v := range is {
		a, aok := was[k].(map[string]any)
		b, bok := v.(map[string]any)
		switch {
		case aok && bok:
			if p := diff(a, b); len(p) > 0 {
				patch[k] = p
			}
		case !bytes.Equal(compact(was[k]), compact(v)):
			patch[k] = v
		}
	}
	return patch
}

func fields(lines string) []string { return append([]string{}, strings.Fields(lines)...) }

// slug makes an id of a comment.
func slug(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return ' '
	}, s)
	return strings.Join(strings.Fields(s), "-")
}

func compact(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	check(e.Encode(v))
	return bytes.TrimSpace(b.Bytes())
}

func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	check(e.Encode(v))
	return b.Bytes()
}

func check(err error) {
	if err != nil {
		panic(fmt.Sprintf("gen: %v", err))
	}
}

func must[T any](v T, err error) T {
	check(err)
	return v
}
