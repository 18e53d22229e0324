package hop

import (
	"crypto"
	"crypto/x509"
	"slices"
	"strings"
	"sync"
	"unique"
)

// Cache remembers results of verification that do not change: signatures that verified,
// the hops before the last of chains that did, certificates that chain to the bundles of a generation.
// Each is known by everything that entered it, and only successes are kept, so
// [Verify] gives the same answer with a Cache as without. It is bounded, and what
// one peer brings takes no room from other peers. The zero Cache is empty and ready; it
// is safe for concurrent use, and not to be copied.
type Cache struct {
	signatures store[proof, struct{}]
	prefixes   store[string, *prefix] // by their encoding
	signers    store[string, *signer] // by the encoding of their CertificateChain
	peers      store[*x509.Certificate, *presented]

	mu      sync.Mutex
	flights map[proof]*flight
}

// The most entries of each store. An entry takes some 500 bytes, 4 KiB and 8 KiB.
const (
	maxSignatures = 4096
	maxPrefixes   = 1024
	maxSigners    = 512
)

// presented is the certificates of a connection's peer, known by their place in
// memory: connections keep them, and nobody changes a certificate.
type presented struct {
	certs []*x509.Certificate
	by    *signer
}

// peer returns the signer that the peer of a connection is known to be, or nil.
func (c *Cache) peer(want *Expected) *signer {
	if c == nil {
		return nil
	}
	p, ok := c.peers.get(want.Peer[0])
	if !ok || !slices.Equal(p.certs, want.Peer) {
		return nil
	}
	return p.by
}

// proof is everything that a signature's verification depends on.
type proof struct {
	signer    hash // thumbprint
	kind      Kind
	size      uint32
	root      hash
	signature string
}

// prefix is the hops before the last of a chain that verified: several calls that a workload makes
// with the context of one share them.
type prefix struct {
	hops []signed
	sum  hash                  // of the last one's statement
	text unique.Handle[string] // of the signers' certificates
}

// prefix returns the hops that are encoded so, if they are remembered.
func (c *Cache) prefix(encoding string) *prefix {
	if c == nil || encoding == "" {
		return nil
	}
	p, _ := c.prefixes.get(encoding)
	return p
}

// flight is a verification under way.
type flight struct {
	done chan struct{}
	ok   bool // once done
}

// proven reports whether the signature of a hop is known to verify.
func (c *Cache) proven(h *signed) bool {
	if c == nil {
		return false
	}
	_, ok := c.signatures.get(h.proof())
	return ok
}

// verify verifies the signature of a hop that peer presented. Of calls that ask for the same at
// once, one verifies. What it finds holds for the others if it is success; they
// see for themselves otherwise.
func (c *Cache) verify(peer string, key crypto.PublicKey, h *signed) error {
	p := h.proof()
	alone := func() error { return verify(key, signedBytes(p.kind, p.size, p.root), []byte(p.signature)) }
	if c == nil {
		return alone()
	}
	c.mu.Lock()
	if f := c.flights[p]; f != nil {
		c.mu.Unlock()
		if <-f.done; f.ok {
			return nil
		}
		return alone()
	}
	if c.flights == nil {
		c.flights = make(map[proof]*flight)
	}
	f := &flight{done: make(chan struct{})}
	c.flights[p] = f
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.flights, p)
		c.mu.Unlock()
		close(f.done)
	}()
	if c.proven(h) {
		f.ok = true
		return nil
	}
	err := alone()
	if f.ok = err == nil; f.ok {
		p.signature = strings.Clone(p.signature) // without the metadata around it
		c.signatures.add(peer, p, struct{}{}, maxSignatures)
	}
	return err
}

// store is a bounded map, whose entries belong to the peers that brought them.
type store[K comparable, V any] struct {
	mu  sync.Mutex
	all map[K]V
	of  map[string]map[K]struct{} // by peer
}

func (s *store[K, V]) get(k K) (V, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.all[k]
	return v, ok
}

// add adds an entry that peer brought. A peer has a quarter of the room at most,
// and makes room for more from its own; where all is full, the peer with the most entries does.
func (s *store[K, V]) add(peer string, k K, v V, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.all[k]; known {
		return
	}
	if s.all == nil {
		s.all, s.of = make(map[K]V), make(map[string]map[K]struct{})
	}
	switch {
	case len(s.of[peer]) >= most/4:
		s.evict(peer)
	case len(s.all) >= most:
		s.evict(s.biggest())
	}
	if s.of[peer] == nil {
		s.of[peer] = make(map[K]struct{})
	}
	s.all[k], s.of[peer][k] = v, struct{}{}
}

// biggest returns the peer with the most entries.
func (s *store[K, V]) biggest() (peer string) {
	for p, own := range s.of {
		if len(own) > len(s.of[peer]) {
			peer = p
		}
	}
	return peer
}

// evict takes out an entry of peer, any.
func (s *store[K, V]) evict(peer string) {
	own := s.of[peer]
	for k := range own {
		delete(own, k)
		delete(s.all, k)
		break
	}
	if len(own) == 0 {
		delete(s.of, peer)
	}
}
