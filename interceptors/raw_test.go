package interceptors_test

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// raw connects to the target with the SVID of a workload, without gRPC.
func (m *mesh) raw(name string) *attacktest.Raw {
	m.t.Helper()
	c := m.rawBy(m.svid(name))
	m.t.Cleanup(func() { _ = c.Close() })
	return c
}

// rawBy is raw for who closes the connection.
func (m *mesh) rawBy(own *x509svid.SVID) *attacktest.Raw {
	m.t.Helper()
	c, err := attacktest.Dial(m.t.Context(), m.addr, &tls.Config{
		Certificates:       []tls.Certificate{{Certificate: [][]byte{own.Certificates[0].Raw}, PrivateKey: own.PrivateKey}},
		InsecureSkipVerify: true, // the attacker does not care whom it attacks
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// TestRawPaths: paths that no gRPC client sends (CVE-2026-33186) never reach a
// handler.
func TestRawPaths(t *testing.T) {
	m := newMesh(t)
	for name, change := range map[string]func(service, method string) string{
		"without its slash":  func(s, m string) string { return s + "/" + m },
		"two slashes":        func(s, m string) string { return "//" + s + "/" + m },
		"two slashes inside": func(s, m string) string { return "/" + s + "//" + m },
		"%2F":                func(s, m string) string { return "/" + s + "%2F" + m },
		"%2f before":         func(s, m string) string { return "%2f" + s + "/" + m },
		"#":                  func(s, m string) string { return "/" + s + "/" + m + "#x" },
		"?":                  func(s, m string) string { return "/" + s + "/" + m + "?x=1" },
		"a trailing slash":   func(s, m string) string { return "/" + s + "/" + m + "/" },
		"dots":               func(s, m string) string { return "/x/../" + s + "/" + m },
		"upper case":         func(s, m string) string { return strings.ToUpper("/" + s + "/" + m) },
		"empty":              func(string, string) string { return "" },
		"a slash":            func(string, string) string { return "/" },
		"a space":            func(s, m string) string { return "/" + s + "/" + m + " " },
		"%00":                func(s, m string) string { return "/" + s + "/" + m + "%00" },
		"an authority":       func(s, m string) string { return "https://target/" + s + "/" + m },
	} {
		m.each("M4 "+name, func(m *mesh, s shape) {
			service, method, _ := strings.Cut(s.method[1:], "/")
			if err := m.raw("gateway").Call(change(service, method)); err == nil {
				m.t.Error("the server answers OK")
			}
			m.notRun()
			for _, e := range m.audit.take() {
				if e.Allowed || e.Reason != tenant.MethodNotCovered {
					m.t.Errorf("audit: %+v", e)
				}
			}
		})
	}
}

// TestRawMetadata: what only a raw client sends in metadata.
func TestRawMetadata(t *testing.T) {
	m := newMesh(t)
	wide := strings.Repeat("A", hop.MaxMetadata)
	for _, row := range []struct {
		name  string
		extra []string
		want  tenant.Reason // empty where HTTP/2 itself refuses
	}{
		{"M1 the key in upper case", []string{"Tenantmesh-Hops", "AAAA"}, ""},
		{"M1 two equal values", []string{hop.HopsKey, "AAAA", hop.HopsKey, "AAAA"}, tenant.MetadataAmbiguous},
		{"M1 a -bin twin alone", []string{hop.HopsKey + "-bin", "AAAA"}, tenant.MetadataAmbiguous},
		{"M1 certificates alone", []string{hop.CertsKey, "AAAA"}, tenant.ContextMissing},
		{"M1 a value with a space", []string{hop.HopsKey, "AA AA"}, tenant.ContextMalformed},
		{"M1 a value with padding", []string{hop.HopsKey, "AAA="}, tenant.ContextMalformed},
		{"M1 a value in the other alphabet", []string{hop.HopsKey, "+/+/"}, tenant.ContextMalformed},
		{"H8 the budget is for both keys together", []string{hop.HopsKey, wide[:5000], hop.CertsKey, wide[:2169]}, tenant.MetadataTooLarge},
		{"H8 more than all headers may be", []string{hop.HopsKey, wide, "x-1", wide, "x-2", wide}, ""},
	} {
		m.each(row.name, func(m *mesh, s shape) {
			err := m.raw("gateway").Call(s.method, row.extra...)
			if row.want != "" {
				m.refused(err, row.want)
				return
			}
			if err == nil {
				t.Error("the server answers OK")
			}
			m.notRun()
			if events := m.audit.take(); len(events) != 0 {
				m.t.Errorf("audit: %+v", events)
			}
		})
	}
	m.each("H8 refused at header time, before a message is read", func(m *mesh, s shape) {
		m.refused(m.raw("gateway").Open(s.method, hop.HopsKey, wide+"A"), tenant.MetadataTooLarge)
	})
}
