package hop

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/tenantmesh/tenantmesh/internal/claimed"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// The metadata keys.
const (
	// HopsKey holds the hop chain.
	HopsKey = "tenantmesh-hops"
	// CertsKey holds the certificates of the signers before the peer.
	CertsKey = "tenantmesh-certs"
)

// Metadata is a chain on the wire: the values of the keys [HopsKey] and
// [CertsKey]. Certs is empty for a chain of one hop, and the key then absent.
type Metadata struct {
	// Hops and Certs are the values, text as SPEC.md, section 3, has it.
	Hops, Certs string
}

// String says how much it is, and not what: the claims can be read from it.
func (m Metadata) String() string {
	return fmt.Sprintf("%d bytes of hops, %d of certificates", len(m.Hops), len(m.Certs))
}

// GoString keeps %#v from printing what String leaves out.
func (m Metadata) GoString() string { return "hop.Metadata{" + m.String() + "}" }

// LogValue keeps handlers of slog from printing what String leaves out.
func (m Metadata) LogValue() slog.Value { return slog.StringValue(m.String()) }

// ParseMetadata reads the kit's keys from the headers of a call, whose names
// are in lower case. It fails with [tenant.MetadataAmbiguous],
// [tenant.ContextMalformed] for an empty value, or [tenant.MetadataTooLarge].
// Headers without the keys give the zero Metadata.
func ParseMetadata(headers map[string][]string) (Metadata, error) {
	var m Metadata
	empty := "" // a key whose value is; ambiguity counts first
	for key, values := range headers {
		if !IsMetadataKey(key) {
			continue
		}
		if len(values) != 1 || key != HopsKey && key != CertsKey || strings.Contains(values[0], ",") {
			return Metadata{}, tenant.Deny(tenant.MetadataAmbiguous, "%q stands %d times", key, len(values))
		}
		if values[0] == "" {
			empty = key
		}
		if key == HopsKey {
			m.Hops = values[0]
		} else {
			m.Certs = values[0]
		}
	}
	if empty != "" {
		return Metadata{}, malformed("%q is empty", empty)
	}
	if err := m.checkSize(); err != nil {
		return Metadata{}, err
	}
	return m, nil
}

// IsMetadataKey reports whether a header's name is one of the kit's keys, or
// one that a reader who is less exact could take for one (SPEC.md, section 3).
func IsMetadataKey(name string) bool {
	if len(name) < len(HopsKey) { // as are those of gRPC; nothing plain is longer than its name
		return false
	}
	plain, _ := claimed.Plain(name)
	return plain == HopsKey || plain == CertsKey
}

// checkSize holds m to the budget of both values together.
func (m Metadata) checkSize() error {
	if n := len(m.Hops) + len(m.Certs); n > MaxMetadata {
		return tenant.Deny(tenant.MetadataTooLarge, "%d bytes of metadata, at most %d are allowed", n, MaxMetadata)
	}
	return nil
}
