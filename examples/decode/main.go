// Decode prints a captured call: the claims that it carries and the path that it took.
//
//	decode capture.json
//	decode < capture.json
//	go run ./examples/decode examples/decode/testdata/capture.json
//
// A capture is a JSON object with the values of the two metadata keys of a call:
//
//	{"tenantmesh-hops": "CpgC…", "tenantmesh-certs": "CrgD…"}
//
// The program imports the standard library alone and was written from SPEC.md without a look at this
// module's Go code; it shows that the specification is enough for a second implementation to read the
// wire. It is a reader and not a verifier. It refuses bytes that are not canonical, a chain whose hops do
// not follow one another, and a wrong signature of a hop whose certificate was sent. It knows neither the
// connection, nor the trust domains' bundles, nor the policy, so what it prints is not proven.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	in := io.Reader(os.Stdin)
	if len(os.Args) > 1 {
		f, err := os.Open(os.Args[1])
		if err != nil {
			fail(err)
		}
		defer f.Close()
		in = f
	}
	out, err := decode(in)
	if err != nil {
		fail(err)
	}
	fmt.Print(out)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "decode:", err)
	os.Exit(1)
}

// decode reads a capture and returns it in plain text.
func decode(r io.Reader) (string, error) {
	var capture struct {
		Hops  string `json:"tenantmesh-hops"`
		Certs string `json:"tenantmesh-certs"`
	}
	dec := json.NewDecoder(io.LimitReader(r, 64<<10))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&capture); err != nil {
		return "", fmt.Errorf("reading the capture: %w", err)
	}
	if capture.Hops == "" {
		return "", errors.New("the capture has no tenantmesh-hops")
	}
	if n := len(capture.Hops) + len(capture.Certs); n > 7168 {
		return "", fmt.Errorf("both values together have %d bytes, more than 7168", n)
	}
	hops, err := readHops(capture.Hops)
	if err != nil {
		return "", fmt.Errorf("tenantmesh-hops: %w", err)
	}
	certs, err := readCertificates(capture.Certs)
	if err != nil {
		return "", fmt.Errorf("tenantmesh-certs: %w", err)
	}
	if err := check(hops, certs); err != nil {
		return "", err
	}
	return describe(hops, certs), nil
}
