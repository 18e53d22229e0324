package svid

import "github.com/spiffe/go-spiffe/v2/workloadapi"

// OpenConns returns how many connections the registry holds.
func OpenConns(c *Credentials) int {
	c.conns.mu.RLock()
	defer c.conns.mu.RUnlock()
	return len(c.conns.open)
}

// Expecting returns a connection that differs from c in who the server must be.
func Expecting(c *Conn, e Expectation) *Conn {
	creds := *c.creds
	creds.expect = e
	other := &Conn{creds: &creds, chain: c.chain, local: c.local, binding: c.binding}
	other.peer.Store(c.peer.Load())
	return other
}

// Receive has s take an update as if the agent had sent it.
func Receive(s *Source, x *workloadapi.X509Context) { watcher{s}.OnX509ContextUpdate(x) }

// Diagnose is diagnose.
var Diagnose = diagnose
