package interceptors

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/svid"
)

// reuse is how long a proof is presented again on its connection, for the
// method and the context that it was made for: far less than its freshness.
const reuse = 5 * time.Second

// maxSent is how many proofs are kept of a context.
const maxSent = 64

// carried is a chain on its way out of this workload, and the proofs that were made of it. They go
// with the context that carries it, so that one that is used once leaves nothing.
type carried struct {
	chain *hop.Chain

	mu     sync.Mutex
	proofs []sentProof
}

// sentProof is what was sent on a connection for a method.
type sentProof struct {
	conn   *svid.Conn
	method string
	until  time.Time

	hop.Metadata
	whole map[string]string // the metadata
	named map[string]string // the same by slots, as they were last
}

// sent is what a client keeps for a connection: what it knows of the server's slots.
type sent struct {
	filler atomic.Pointer[hop.Filler] // nil: no slots are offered
}

// sentOn returns what is kept for a connection.
func (c *client) sentOn(conn *svid.Conn) *sent {
	s, _ := conn.Attached(func() any {
		c.asks.Store(maxAsks)
		return new(sent)
	}).(*sent)
	return s
}

// maxAsks is how many calls look for an offer of slots, after a connection is new.
const maxAsks = 64

// learn takes the offer of slots in the header of a response.
func (s *sent) learn(header metadata.MD) {
	if o := hop.ParseOffer(header[hop.SlotsKey]); o != (hop.Offer{}) && s.filler.Load() == nil {
		s.filler.CompareAndSwap(nil, hop.NewFiller(o))
	}
}

// again returns the metadata to send again on a connection, nil if there are none.
func (c *carried) again(out *outbound, conn *svid.Conn, f *hop.Filler, now time.Time) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.proofs, func(p sentProof) bool { return p.conn == conn && p.method == out.method })
	if i < 0 {
		return nil
	}
	p := &c.proofs[i]
	if !now.Before(p.until) || now.Before(p.until.Add(-reuse)) { // the clock may have been set back
		return nil
	}
	if f == nil || out.streams {
		return p.whole
	}
	m := hop.Metadata{Hops: out.name(0, f, p.Hops), Certs: out.name(1, f, p.Certs)}
	if m == p.Metadata {
		return p.whole
	}
	if p.named[hop.HopsKey] != m.Hops || p.named[hop.CertsKey] != m.Certs {
		p.named = values(m)
	}
	return p.named
}

// add keeps a proof and returns its metadata.
func (c *carried) add(out *outbound, conn *svid.Conn, f *hop.Filler, now time.Time, m hop.Metadata) map[string]string {
	p := sentProof{conn: conn, method: out.method, until: now.Add(reuse), Metadata: m, whole: values(m)}
	c.keep(p, now)
	if f == nil || out.streams || m.Certs == "" {
		return p.whole
	}
	m.Certs = out.name(1, f, m.Certs) // they are the same for many
	return values(m)
}

// keep keeps a proof, in the place of one that is over if there is one, or of any if all are taken.
func (c *carried) keep(p sentProof, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.proofs, func(was sentProof) bool {
		return was.conn == p.conn && was.method == p.method || !now.Before(was.until)
	})
	switch {
	case i >= 0:
		c.proofs[i] = p
	case len(c.proofs) < maxSent:
		c.proofs = append(c.proofs, p)
	default:
		c.proofs[0] = p
	}
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
