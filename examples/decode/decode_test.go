package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/vectors"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// The decoder is a second implementation: nothing of the first may be in it,
// nor of protobuf's.
func TestStandardLibraryAlone(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") {
				t.Errorf("%s imports %s", name, path)
			}
		}
		read++
	}
	if read == 0 {
		t.Fatal("no files")
	}
}

// capture is a call and what the verifier says of it.
type capture struct {
	metadata hop.Metadata
	chain    *hop.Chain
	claims   *hop.Claims
	path     []*x509svid.SVID // the signers, and the last callee
	methods  []string         // that were called with each hop
}

// record sends all claims from the gateway by way of orders and inventory to stock.
func record(t *testing.T) *capture {
	t.Helper()
	domain, err := devdomain.New(devdomain.Config{
		TrustDomain: "prod.example",
		Clock:       func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = domain.Close() })
	c := &capture{methods: []string{"/orders.v1.Orders/Place", "/inventory.v1.Inventory/Reserve", "/stock.v1.Stock/Take"}}
	for _, name := range []string{"gateway", "orders", "inventory", "stock"} {
		svid, err := domain.Issue("spiffe://prod.example/" + name)
		if err != nil {
			t.Fatal(err)
		}
		c.path = append(c.path, svid)
	}
	acme, err := tenant.ParseID("acme")
	if err != nil {
		t.Fatal(err)
	}
	c.claims = &hop.Claims{
		Transaction:    "01JQ8Z0000",
		Tenant:         acme,
		TenantUID:      "01J9AA0000",
		Subject:        "alice",
		Issuer:         "https://login.example",
		Scopes:         []string{"orders.read", "orders.write"},
		Classification: 2,
		Attributes:     map[string]string{"region": "eu", "cost-center": "42", "beta": ""},
		Request:        map[string]string{"ip": "192.0.2.1", "user-agent": "curl/8 — größer"},
		IssuedAt:       noon,
		Expires:        noon.Add(5 * time.Minute),
		Parent:         &hop.Parent{Transaction: "01JQ8Y0000", Statement: sha256.Sum256([]byte("parent"))},
		Elevation:      "elevation-7",
	}
	if c.chain, err = hop.Begin(c.claims); err != nil {
		t.Fatal(err)
	}
	narrowings := []*hop.Narrowing{
		nil,
		{Scopes: []string{"orders.read"}, Methods: []string{"/stock.v1.Stock/Take"}},
		{Methods: []string{}},
	}
	for i, method := range c.methods {
		at := noon.Add(time.Duration(i) * time.Second)
		binding := sha256.Sum256([]byte(method))
		c.metadata, err = c.chain.Sign(c.path[i], hop.Handover{
			Kind: hop.Call, Audience: c.path[i+1].ID.String(), Target: method, Binding: binding, Narrowing: narrowings[i], Now: at,
		})
		if err != nil {
			t.Fatal(err)
		}
		c.chain, err = hop.Verify(c.metadata, hop.Expected{
			Kind: hop.Call, Peer: c.path[i].Certificates, Self: c.path[i+1].ID, Target: method, Binding: binding,
			Bundles: domain.Bundle(), Now: at,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *capture) json(t *testing.T) string {
	t.Helper()
	b, err := json.Marshal(map[string]string{"tenantmesh-hops": c.metadata.Hops, "tenantmesh-certs": c.metadata.Certs})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What the decoder reads is what the verifier verified.
func TestDecode(t *testing.T) {
	c := record(t)
	got, err := decode(strings.NewReader(c.json(t)))
	if err != nil {
		t.Fatal(err)
	}

	var want strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&want, "  %-20s %s\n", name, fmt.Sprintf(format, args...))
	}
	attributes := func(name string, m map[string]string) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			line(name, "%s=%s", k, m[k])
		}
	}
	claims := c.chain.Claims()
	fmt.Fprintln(&want, "claims")
	line("txn", "%s", claims.Transaction)
	line("sub", "%s", claims.Subject)
	line("iss", "%s", claims.Issuer)
	line("scope", "%s", strings.Join(claims.Scopes, " "))
	line("tenant", "%s", claims.Tenant)
	line("tenant_uid", "%s", claims.TenantUID)
	line("classification", "%d", claims.Classification)
	attributes("tctx", claims.Attributes)
	attributes("rctx", claims.Request)
	line("iat", "%s", claims.IssuedAt.Format(time.RFC3339))
	line("exp", "%s", claims.Expires.Format(time.RFC3339))
	line("parent", "%s, statement %x", claims.Parent.Transaction, claims.Parent.Statement)
	line("elevation", "%s", claims.Elevation)
	for i, step := range c.chain.Path() {
		fmt.Fprintf(&want, "hop %d\n", i)
		line("kind", "%s", step.Kind)
		if i < len(c.methods)-1 {
			line("signer", "%s", step.Signer)
			line("signature", "verifies under the certificate that was sent")
		} else {
			line("signer", "the TLS peer (thumbprint %x)", sha256.Sum256(c.path[i].Certificates[0].Raw))
			line("signature", "not checked: its certificate is that of the connection")
		}
		line("aud", "%s", c.path[i+1].ID)
		line("target", "%s", step.Target)
		line("iat", "%s", noon.Add(time.Duration(i)*time.Second).Format(time.RFC3339))
		line("exp", "%s", claims.Expires.Format(time.RFC3339))
		switch i {
		case 1:
			line("narrowed to scopes", "%s", strings.Join(c.chain.Scopes(), " "))
			line("narrowed to methods", "/stock.v1.Stock/Take")
		case 2:
			line("narrowed to methods", "none")
		}
	}
	if diff := cmp.Diff(want.String(), got); diff != "" {
		t.Errorf("(-hop +decode):\n%s", diff)
	}
}

func TestDecodeRefuses(t *testing.T) {
	c := record(t)
	other := record(t)
	for _, tt := range []struct {
		name        string
		hops, certs string
		want        string // a part of the error
	}{
		{"no hops", "", "", "no tenantmesh-hops"},
		{"padding", c.metadata.Hops + "=", c.metadata.Certs, "illegal base64"},
		{"a line end", c.metadata.Hops + "\n", c.metadata.Certs, "a line end"},
		{"an unknown field", textEncoding.EncodeToString([]byte{0xc0, 0x3e, 1}) + c.metadata.Hops, c.metadata.Certs, "unknown field 1000"},
		{"a varint that is not minimal", textEncoding.EncodeToString([]byte{0x0a, 0x80, 0}), "", "not minimal"},
		{"a default value written out", textEncoding.EncodeToString([]byte{0x0a, 2, 0x0a, 0}), "", "its default value is written out"},
		{"no certificates", c.metadata.Hops, "", "its signer's certificate was not sent"},
		{"the certificates of another call", c.metadata.Hops, other.metadata.Certs, "its signer's certificate was not sent"},
		{"more than the budget", c.metadata.Hops, strings.Repeat("A", 7168), "more than 7168"},
	} {
		b, err := json.Marshal(map[string]string{"tenantmesh-hops": tt.hops, "tenantmesh-certs": tt.certs})
		if err != nil {
			t.Fatal(err)
		}
		out, err := decode(strings.NewReader(string(b)))
		if err == nil || out != "" || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want one that says %q", tt.name, err, tt.want)
		}
	}
}

// Whatever the last character of a signature or a statement is, it counts.
func TestDecodeRefusesChanges(t *testing.T) {
	c := record(t)
	hops, err := fromText(c.metadata.Hops)
	if err != nil {
		t.Fatal(err)
	}
	first, err := readHops(c.metadata.Hops)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct {
		name string
		b    []byte
		want string
	}{
		{"the signature of hop 0", first[0].signature, "hop 0: wrong signature"},
		{"the signature of hop 1", first[1].signature, "hop 1: wrong signature"},
		{"prev of hop 1", first[1].message.bytes(4), "hop 1: prev is not the statement before"},
		{"jti of hop 0", first[0].message.bytes(11), "hop 0: wrong signature"},
	} {
		changed := strings.Replace(string(hops), string(part.b), string(append(slices.Clone(part.b[:len(part.b)-1]), part.b[len(part.b)-1]^1)), 1)
		b, err := json.Marshal(map[string]string{"tenantmesh-hops": textEncoding.EncodeToString([]byte(changed)), "tenantmesh-certs": c.metadata.Certs})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(strings.NewReader(string(b))); err == nil || err.Error() != part.want {
			t.Errorf("%s: %v, want %s", part.name, err, part.want)
		}
	}
}

// H11: of the calls with trees among the conformance vectors, the good ones are read.
func TestDecodeTrees(t *testing.T) {
	list, err := vectors.Read("../../conformance/vectors/chains.json")
	if err != nil {
		t.Fatal(err)
	}
	counts := map[bool]int{}
	for _, v := range list {
		if !slices.Contains(v.Lines, "H11") {
			continue
		}
		var in struct{ Hops, Certs vectors.Text }
		if err := json.Unmarshal(v.Input, &in); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(map[string]string{"tenantmesh-hops": string(in.Hops), "tenantmesh-certs": string(in.Certs)})
		if err != nil {
			t.Fatal(err)
		}
		good := v.Reason == ""
		if _, err := decode(strings.NewReader(string(b))); (err == nil) != good {
			t.Errorf("%s: %v", v.ID, err)
		}
		counts[good]++
	}
	if counts[true] == 0 || counts[false] == 0 {
		t.Errorf("%d good ones and %d others", counts[true], counts[false])
	}
}

// The capture that the repository holds was made once and reads the same for ever.
func TestCapture(t *testing.T) {
	f, err := os.Open("testdata/capture.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := decode(f)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/capture.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-capture.txt +decode):\n%s", diff)
	}
}
