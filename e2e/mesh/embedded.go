package mesh

import "github.com/tenantmesh/tenantmesh/svid/devdomain"

// Embedded returns the embedded trust domain of a name, which signs whatever it
// is asked to; nil on real SPIRE.
func (m *Mesh) Embedded(name string) *devdomain.Domain {
	e, ok := m.domains[name].(*embedded)
	if !ok {
		return nil
	}
	return e.d
}
