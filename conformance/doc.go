// Package conformance holds language-neutral test vectors of the wire format
// (vectors/*.json, listed in manifest.json), which gen writes, and their runner,
// its test. README.md describes the format for implementations in other
// languages. The package exports nothing.
package conformance

//go:generate go run ./gen -dir .
