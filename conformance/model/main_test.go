package main

import (
	"slices"
	"strings"
	"testing"
)

const full = `
(Spin Version 6.5.2 -- 6 December 2019)

Full statespace search for:
	never claim         	- (none specified)
	assertion violations	+

State-vector 124 byte, depth reached 111, errors: 0
   316715 states, stored
 12348303 states, matched
`

func TestComplete(t *testing.T) {
	if n, err := complete(full); n != "316715" || err != nil {
		t.Errorf("complete: %q, %v; want 316715", n, err)
	}
	for name, out := range map[string]string{
		"empty":            "",
		"an error":         strings.Replace(full, "errors: 0", "errors: 1", 1),
		"stopped":          "Warning: Search not completed\n" + full,
		"depth":            "error: max search depth too small\n" + full,
		"memory":           "pan: reached -DMEMLIM bound\n" + full,
		"bitstate hashing": strings.Replace(full, "Full statespace search", "Bit statespace search", 1),
		"no states":        strings.Replace(full, "states, stored", "", 1),
	} {
		if n, err := complete(out); err == nil {
			t.Errorf("%s: complete with %s states", name, n)
		}
	}
}

func TestMessages(t *testing.T) {
	got := messages("gateway calls orders\n  orders accepts\nVIOLATED replay: x\nspin: hopchain.pml:1, Error: assertion violated\nspin: y\n")
	want := []string{"gateway calls orders", "orders accepts", "VIOLATED replay: x"}
	if !slices.Equal(got, want) {
		t.Errorf("messages: %q, want %q", got, want)
	}
	if got := messages("spin: no trail\n"); got != nil {
		t.Errorf("messages: %q, want none", got)
	}
}
