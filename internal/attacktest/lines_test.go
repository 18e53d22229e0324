package attacktest

import (
	"slices"
	"testing"
)

type shape string

func (s shape) String() string { return string(s) }

func TestAccount(t *testing.T) {
	a := new(Account)
	shapes := []shape{"unary", "stream"}
	Run(a, t, "H1 and M2, not RS256 nor X1Y", shapes, func(*testing.T, shape) {})
	Run(a, t, "I3 in one shape", shapes[:1], func(*testing.T, shape) {})
	if got, want := missing(a, shapes, []string{"H1", "M2", "I3", "T4", "S256"}), []string{
		"no test of I3 over stream", "no test of T4 over unary", "no test of T4 over stream",
		"no test of S256 over unary", "no test of S256 over stream",
	}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
