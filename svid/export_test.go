package svid

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
)

// OpenConns returns how many open connections the registry holds.
func OpenConns(c *Credentials) (n int) {
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	for _, conn := range c.conns.known {
		if conn != nil {
			n++
		}
	}
	return n
}

// KnownConns returns how many it holds, with those that are closed.
func KnownConns(c *Credentials) int {
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	return len(c.conns.known)
}

// InUse returns how many connections it keeps for calls.
func InUse(c *Credentials) (n int) {
	c.conns.inUse.Range(func(any, any) bool { n++; return true })
	return n
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
func Receive(s *Source, x *workloadapi.X509Context) {
	watcher{s, context.Background()}.OnX509ContextUpdate(x)
}

// WithDialer gives a Source another way to the Workload API than a socket.
func WithDialer(dial func(ctx context.Context, addr string) (net.Conn, error)) Option {
	return func(o *options) { o.dial = append(o.dial, grpc.WithContextDialer(dial)) }
}

// VerifyState has c check the state of a handshake that crypto/tls never comes
// to with our configuration.
func VerifyState(c *Credentials, state tls.ConnectionState) error {
	return (&handshake{creds: c}).verify(state)
}

// Unverified has c finish a handshake in which nobody was verified.
func Unverified(c *Credentials) error { return (&handshake{creds: c}).finished() }

// Explain is explain.
var Explain = explain

// Diagnose is diagnose.
var Diagnose = diagnose

// Age is age.
var Age = age
