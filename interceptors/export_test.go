package interceptors

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/tenantmesh/tenantmesh/internal/fields"
	"github.com/tenantmesh/tenantmesh/internal/mint"
)

// MaxProofs is how many proofs are kept of a connection.
const MaxProofs = maxProofs

// Proofs returns how many proofs a guard keeps.
func Proofs(g *Guard) int { return int(g.kept.Load()) }

// NewMessageCheck returns what a call of a tenant makes of the messages of a
// type that it receives.
func NewMessageCheck(m proto.Message, tenant string, classification uint32) (func(proto.Message) error, error) {
	t, err := fields.Of(m.ProtoReflect().Descriptor())
	c := &call{contract: &contract{in: t}, record: &mint.Record{Facts: &mint.Facts{Tenant: tenant, Classification: classification}}}
	return func(m proto.Message) error {
		_, err := c.check(context.Background(), m, fields.ServerReceives)
		return err
	}, err
}
