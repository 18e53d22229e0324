package interceptors

import (
	"sync"
	"time"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/svid"
)

// reuse is how long a proof is presented again on its connection, for the
// method and the context that it was made for: far less than its freshness.
const reuse = 5 * time.Second

// maxSent is how many proofs are kept of those sent on a connection.
const maxSent = 2048

// sent are the proofs that were sent on a connection.
type sent struct {
	mu sync.Mutex
	m  map[sentKey]sentProof
}

type sentKey struct {
	chain  *hop.Chain
	method string
}

type sentProof struct {
	md    map[string]string // never changed
	until time.Time
}

// sentOn returns those of a connection.
func sentOn(conn *svid.Conn) *sent {
	s, _ := conn.Attached(newSent).(*sent)
	return s
}

func newSent() any { return &sent{m: map[sentKey]sentProof{}} }

// get returns the metadata to send again, nil if there are none.
func (s *sent) get(chain *hop.Chain, method string, now time.Time) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.m[sentKey{chain, method}]
	if !ok || !now.Before(p.until) || now.Before(p.until.Add(-reuse)) { // the clock may have been set back
		return nil
	}
	return p.md
}

// add keeps a proof and returns its metadata.
func (s *sent) add(chain *hop.Chain, method string, now time.Time, m hop.Metadata) map[string]string {
	md := map[string]string{hop.HopsKey: m.Hops}
	if m.Certs != "" {
		md[hop.CertsKey] = m.Certs
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.m {
		if len(s.m) < maxSent {
			break
		}
		delete(s.m, key) // any
	}
	s.m[sentKey{chain, method}] = sentProof{md, now.Add(reuse)}
	return md
}
