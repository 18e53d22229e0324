package interceptors

import (
	"sync"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/hop"
)

// mostSigners is how many SVIDs a guard keeps a signer for: the current one, and
// those that connections still present since.
const mostSigners = 8

// signing holds the signers of the SVIDs that connections present.
type signing struct {
	maxBatch int
	calls    atomic.Int64 // under way: a stream until it is open

	mu sync.Mutex
	m  map[*x509svid.SVID]*hop.Signer
}

// of returns the signer of an SVID: the same for all connections that present it, so
// that their statements share signatures.
func (s *signing) of(own *x509svid.SVID) *hop.Signer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if signer := s.m[own]; signer != nil {
		return signer
	}
	for old := range s.m {
		if len(s.m) < mostSigners {
			break
		}
		delete(s.m, old) // any; who signs with it now goes on
	}
	if s.m == nil {
		s.m = make(map[*x509svid.SVID]*hop.Signer)
	}
	signer := &hop.Signer{SVID: own, MaxBatch: s.maxBatch, Busy: func() bool { return s.calls.Load() > 1 }}
	s.m[own] = signer
	return signer
}
