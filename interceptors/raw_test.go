package interceptors_test

import (
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
	c, err := attacktest.DialRaw(m.t.Context(), m.addr, own)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// TestRawPaths: paths that no gRPC client sends (CVE-2026-33186) never reach a
// handler.
func TestRawPaths(t *testing.T) {
	m := newMesh(t)
	for name := range attacktest.Paths(shapes[0].method) {
		m.each("M4 "+name, func(m *mesh, s shape) {
			if err := m.raw("gateway").Call(attacktest.Paths(s.method)[name]); err == nil {
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
	for _, row := range attacktest.RawHeaders() {
		m.each(row.Name, func(m *mesh, s shape) {
			err := m.raw("gateway").Call(s.method, row.Fields...)
			if row.Want != "" {
				m.refused(err, row.Want)
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
		m.refused(m.raw("gateway").Open(s.method, hop.HopsKey, strings.Repeat("A", hop.MaxMetadata+1)), tenant.MetadataTooLarge)
	})
}
