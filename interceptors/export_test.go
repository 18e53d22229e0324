package interceptors

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/protobuf/proto"

	"github.com/tenantmesh/tenantmesh/internal/fields"
	"github.com/tenantmesh/tenantmesh/internal/mint"
)

// MaxProofs is how many proofs are kept of a connection.
const MaxProofs = maxProofs

// Proofs returns how many proofs a guard keeps.
func Proofs(g *Guard) int { return int(g.proofs.Load()) }

// MaxSent is how many proofs are kept of a context.
const MaxSent = maxSent

// SentProofs returns how many proofs a context keeps.
func SentProofs(ctx context.Context) int {
	c := mint.From(ctx).Carrier.(*carried)
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.proofs)
}

// Signers returns how many signers a guard keeps once it was asked for those of SVIDs, and whether it
// gives the same SVID the same one.
func Signers(own ...*x509svid.SVID) (kept int, same bool) {
	s := new(signing)
	same = true
	for _, o := range own {
		first := s.of(o)
		same = same && s.of(o) == first
	}
	return len(s.m), same
}

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
