package interceptors

import (
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/svid"
)

// reuse is how long a proof is presented again on its connection, for the
// method and the context that it was made for: far less than its freshness.
const reuse = 5 * time.Second

// maxSent is how many proofs are kept of those sent on a connection.
const maxSent = 2048

// sent is what a client keeps for a connection: the proofs that it sent, and
// what it knows of the server's slots.
type sent struct {
	mu     sync.Mutex
	m      map[sentKey]*sentProof
	filler *hop.Filler // nil: no slots are offered
}

type sentKey struct {
	chain  *hop.Chain
	method string
}

type sentProof struct {
	hop.Metadata
	until time.Time
	whole map[string]string // the metadata
	named map[string]string // the same by slots, as they were last
}

// sentOn returns what is kept for a connection.
func (c *client) sentOn(conn *svid.Conn) *sent {
	s, _ := conn.Attached(func() any {
		c.asks.Store(maxAsks)
		return &sent{m: map[sentKey]*sentProof{}}
	}).(*sent)
	return s
}

// maxAsks is how many calls look for an offer of slots, after a connection is new.
const maxAsks = 64

// learn takes the offer of slots in the header of a response.
func (s *sent) learn(header metadata.MD) {
	o := hop.ParseOffer(header[hop.SlotsKey])
	if o == (hop.Offer{}) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.filler == nil {
		s.filler = hop.NewFiller(o)
	}
}

// again returns the metadata to send again, nil if there are none.
func (s *sent) again(out *outbound, now time.Time) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.m[sentKey{out.chain, out.method}]
	if p == nil || !now.Before(p.until) || now.Before(p.until.Add(-reuse)) { // the clock may have been set back
		return nil
	}
	if s.filler == nil || out.streams {
		return p.whole
	}
	m := hop.Metadata{Hops: out.name(0, s.filler, p.Hops), Certs: out.name(1, s.filler, p.Certs)}
	if m == p.Metadata {
		return p.whole
	}
	if p.named[hop.HopsKey] != m.Hops || p.named[hop.CertsKey] != m.Certs {
		p.named = values(m)
	}
	return p.named
}

// add keeps a proof and returns its metadata.
func (s *sent) add(out *outbound, now time.Time, m hop.Metadata) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.m {
		if len(s.m) < maxSent {
			break
		}
		delete(s.m, key) // any
	}
	p := &sentProof{Metadata: m, until: now.Add(reuse), whole: values(m)}
	s.m[sentKey{out.chain, out.method}] = p
	if s.filler == nil || out.streams || m.Certs == "" {
		return p.whole
	}
	m.Certs = out.name(1, s.filler, m.Certs) // they are the same for many
	return values(m)
}

// values returns m as a credential does. It is never changed.
func values(m hop.Metadata) map[string]string {
	md := map[string]string{hop.HopsKey: m.Hops}
	if m.Certs != "" {
		md[hop.CertsKey] = m.Certs
	}
	return md
}

// name returns what to send for one of the two texts of an attempt.
func (c *outbound) name(i int, f *hop.Filler, text string) (value string) {
	c.filler = f
	value, c.slots[i] = f.Value(text)
	return value
}

// over says that the attempt is over, and whether the server answered it.
func (c *outbound) over(answered bool) {
	for i, s := range c.slots {
		if s != nil {
			c.filler.Done(s, answered)
			c.slots[i] = nil
		}
	}
}
