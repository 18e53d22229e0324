package hop

import (
	"encoding/base64"
	"encoding/hex"
	"testing"

	"github.com/tenantmesh/tenantmesh/internal/vectors"
)

// vectorInputs returns the inputs of a file of conformance/vectors, as far as
// T has members for them.
func vectorInputs[T any](t testing.TB, file string) []T {
	t.Helper()
	list, err := vectors.Inputs[T]("../conformance/vectors/" + file) // fails if it is empty
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// vectorStatements returns the statements of the vectors.
func vectorStatements(t testing.TB) (out [][]byte) {
	t.Helper()
	for _, v := range vectorInputs[struct{ Statement string }](t, "statements.json") {
		out = append(out, must(hex.DecodeString(v.Statement)))
	}
	return out
}

// vectorCall is a vector of chains.json. Those without hops or a peer are left out.
type vectorCall struct {
	Hops, Certs           vectors.Text
	Peer                  []string
	Self, Method, Binding string
	Bundles               map[string][]string
	Now                   int64
}

// vectorCalls returns the calls of the vectors whose signers are all of prod.example.
func vectorCalls(t testing.TB) (out []*golden) {
	t.Helper()
	for _, v := range vectorInputs[vectorCall](t, "chains.json") {
		roots := v.Bundles["prod.example"]
		if v.Hops == "" || len(v.Peer) == 0 || len(v.Bundles) != 1 || len(roots) != 1 {
			continue
		}
		g := &golden{
			Hops: string(v.Hops), Certs: string(v.Certs), Self: v.Self, Target: v.Method, Binding: must(hex.DecodeString(v.Binding)),
			Authority: must(base64.StdEncoding.DecodeString(roots[0])), Now: fromSeconds(uint64(v.Now)),
		}
		for _, der := range v.Peer {
			g.Peer = append(g.Peer, must(base64.StdEncoding.DecodeString(der)))
		}
		out = append(out, g)
	}
	return out
}

// vectorClaims is a vector of claims.json.
type vectorClaims struct {
	Claims struct {
		Txn, Sub, Iss string
		Scope         []string
		Tctx          struct {
			Tenant         string
			TenantUID      string `json:"tenant_uid"`
			Classification uint32
			Attributes     map[string]string
		}
		Rctx      struct{ Attributes map[string]string }
		Iat, Exp  int64
		Parent    struct{ Txn string }
		Elevation struct{ ID string }
	}
}
