package svid

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/internal/leaf"
)

// Conn is what is known of one open connection. It is safe for concurrent use.
type Conn struct {
	creds   *Credentials
	chain   []*x509.Certificate
	local   *x509svid.SVID
	binding [32]byte
	peer    atomic.Pointer[checkedPeer]

	once     sync.Once
	attached any
}

// checkedPeer is the peer as it was verified against one generation of bundles.
type checkedPeer struct {
	generation uint64
	verified   *leaf.Verified
}

// PeerID returns the peer's SPIFFE ID.
func (c *Conn) PeerID() spiffeid.ID { return c.peer.Load().verified.ID }

// PeerChain returns the certificates that the peer presented, the leaf first.
func (c *Conn) PeerChain() []*x509.Certificate { return slices.Clone(c.chain) }

// Local returns the SVID that we presented on this connection. Its key signs
// for the connection, also when the workload has a newer SVID since.
func (c *Conn) Local() *x509svid.SVID { return c.local }

// Binding returns the channel binding tls-exporter (RFC 9266, section 4.2). It
// is the same at both ends and differs between connections.
func (c *Conn) Binding() [32]byte { return c.binding }

// Attached returns what is kept for the connection as long as it is open: what
// create made when it was first asked for.
func (c *Conn) Attached(create func() any) any {
	c.once.Do(func() { c.attached = create() })
	return c.attached
}

// Check says whether the connection may still be used; it is for every call.
// It fails with [tenant.SVIDExpired] or [tenant.SVIDUntrusted] if the peer's
// SVID is not valid now or does not chain to today's bundle, with
// [tenant.ServerUnexpected] if a client's server is not as expected, and with
// [tenant.IdentityUnavailable] if the workload's identity, or the SVID that it
// presented here, is gone. Signatures are verified only when the bundles changed.
func (c *Conn) Check() error {
	snap, err := Current(c.creds.src)
	if err != nil {
		return err
	}
	return c.CheckAt(snap, c.creds.now())
}

// CheckAt is [Conn.Check] for who has asked already what identity is in force and what time it is.
func (c *Conn) CheckAt(snap *Snapshot, now time.Time) (err error) {
	peer := c.peer.Load()
	if peer.generation == snap.Generation {
		err = peer.verified.Valid(now)
	} else {
		var v *leaf.Verified
		if v, err = leaf.Verify(c.chain, snap.Bundles, now); err == nil {
			peer = &checkedPeer{generation: snap.Generation, verified: v}
			c.peer.Store(peer)
		}
	}
	if err != nil {
		return err
	}
	if c.creds.client {
		if err := c.creds.expect.Check(peer.verified.ID); err != nil {
			return err
		}
	}
	return checkOwn(c.local, now)
}

// Until returns the first time at which [Conn.Check] fails, if nothing but time
// changes.
func (c *Conn) Until() time.Time {
	until, own := c.peer.Load().verified.NotAfter, expiry(c.local.Certificates)
	if own.Before(until) {
		return own
	}
	return until
}

// conn is a connection that leaves the registry when it is closed.
type conn struct {
	net.Conn
	forget func()
}

// Close closes the connection and forgets it.
func (c *conn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// Read says what an alert after the handshake means: in TLS 1.3 a server
// refuses the client's certificate only then.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
			err = fmt.Errorf("the peer refused us after the handshake; its own log says why: %w", err)
		}
	}
	return n, err
}

// syscallConn shows the socket to gRPC's channelz.
type syscallConn struct {
	*conn
	syscall.Conn
}

func wrap(raw, tlsConn net.Conn, forget func()) net.Conn {
	c := &conn{Conn: tlsConn, forget: forget}
	if s, ok := raw.(syscall.Conn); ok {
		return &syscallConn{conn: c, Conn: s}
	}
	return c
}
