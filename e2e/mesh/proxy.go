package mesh

import (
	"context"
	"net"
	"sync"
	"time"
)

// Proxy hands on bytes to a workload, late. It sees no more than a router would.
type Proxy struct {
	to    string
	delay time.Duration
	lis   net.Listener

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
	all    sync.WaitGroup
}

// NewProxy returns a proxy to the workload that hands on what it gets in both
// directions after a delay.
func (m *Mesh) NewProxy(ctx context.Context, to *Process, delay time.Duration) (*Proxy, error) {
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(m.Gateway(), "0"))
	if err != nil {
		return nil, err
	}
	x := &Proxy{to: to.Addr(), delay: delay, lis: lis, conns: map[net.Conn]bool{}}
	x.all.Go(x.accept)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.proxies = append(m.proxies, x)
	return x, nil
}

// Addr returns the address at which the proxy listens.
func (x *Proxy) Addr() string { return x.lis.Addr().String() }

// Cut ends all connections and takes no others.
func (x *Proxy) Cut() { x.close() }

func (x *Proxy) close() {
	x.mu.Lock()
	x.closed = true
	x.lis.Close()
	for c := range x.conns {
		c.Close()
	}
	x.mu.Unlock()
	x.all.Wait()
}

func (x *Proxy) accept() {
	for {
		in, err := x.lis.Accept()
		if err != nil {
			return
		}
		if !x.keep(in) {
			return
		}
		x.all.Go(func() { x.serve(in) })
	}
}

// keep notes a connection, so that it is closed with the proxy.
func (x *Proxy) keep(c net.Conn) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		c.Close()
		return false
	}
	x.conns[c] = true
	return true
}

func (x *Proxy) drop(c net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.conns, c)
	c.Close()
}

func (x *Proxy) serve(in net.Conn) {
	defer x.drop(in)
	out, err := (&net.Dialer{Timeout: 5 * time.Second}).Dial("tcp", x.to)
	if err != nil || !x.keep(out) {
		return
	}
	defer x.drop(out)
	var both sync.WaitGroup
	both.Go(func() { x.copy(out, in) })
	both.Go(func() { x.copy(in, out) })
	both.Wait()
}

// chunk is what was read at once, and when it is to be written.
type chunk struct {
	b   []byte
	due time.Time
}

// copy hands on until one end closes.
func (x *Proxy) copy(to, from net.Conn) {
	chunks := make(chan chunk, 1024)
	var writing sync.WaitGroup
	writing.Go(func() {
		for c := range chunks {
			<-time.After(time.Until(c.due))
			if _, err := to.Write(c.b); err != nil {
				from.Close() // which ends the reading
			}
		}
		to.Close()
	})
	for {
		b := make([]byte, 16<<10)
		n, err := from.Read(b)
		if n > 0 {
			chunks <- chunk{b[:n], time.Now().Add(x.delay)}
		}
		if err != nil {
			break
		}
	}
	close(chunks)
	writing.Wait()
}
