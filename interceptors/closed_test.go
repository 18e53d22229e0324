package interceptors_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/svid"
)

// TestClosedConnection is I5, as far as no call is lost: one whose connection
// is closed, as when its age has come, between gRPC's choice of it and the
// signature goes to another, without a retry policy.
func TestClosedConnection(t *testing.T) {
	m := newMesh(t)
	m.each("I5 the connection closes before the statement is signed", func(m *mesh, s shape) {
		g := m.newGuard(attacktest.Identity(m.svid("gateway"), m.bundles()), newTrail(), time.Now)
		c := &closer{}
		cc := m.dial(append([]grpc.DialOption{
			grpc.WithDisableRetry(), // that of the application's; gRPC's own stays
			grpc.WithContextDialer(c.dial),
			grpc.WithPerRPCCredentials(c), // asked before the guard's
		}, g.DialOptions(svid.Expect(id("target")))...)...)
		m.allowed(s.call(acme(m.t, g), cc), "acme")
		if c.dialed != 2 {
			m.t.Errorf("%d connections, want 2", c.dialed)
		}
	})
}

// closer closes the first connection when the first call asks for its credentials.
type closer struct {
	mu     sync.Mutex
	first  *closing
	dialed int
	once   sync.Once
}

type closing struct {
	net.Conn
	once   sync.Once
	closed chan struct{} // by gRPC
}

func (c *closing) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *closer) dial(ctx context.Context, addr string) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialed++
	conn := &closing{Conn: raw, closed: make(chan struct{})}
	if c.first == nil {
		c.first = conn
	}
	return conn, nil
}

func (c *closer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	c.once.Do(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		_ = c.first.Conn.Close()
		<-c.first.closed
	})
	return nil, nil
}

func (c *closer) RequireTransportSecurity() bool { return true }
