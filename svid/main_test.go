package svid_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"go.uber.org/goleak"
	"google.golang.org/grpc/credentials"

	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

const (
	gatewayID   = "spiffe://prod.example/gateway"
	inventoryID = "spiffe://prod.example/inventory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that tests move.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ns.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(0, c.ns.Load()).UTC() }
func (c *clock) Advance(d time.Duration) { c.ns.Add(int64(d)) }

func newDomain(t *testing.T, cfg devdomain.Config) *devdomain.Domain {
	t.Helper()
	if cfg.TrustDomain == "" {
		cfg.TrustDomain = "prod.example"
	}
	d, err := devdomain.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func newWorkload(t *testing.T, d *devdomain.Domain, id string) *devdomain.Workload {
	t.Helper()
	w, err := d.Workload(id)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// stolen is a Snapshotter for an attacker: any chain, with an honest bundle.
type stolen struct{ snap *svid.Snapshot }

func (s stolen) Snapshot() (*svid.Snapshot, error) { return s.snap, nil }

func attacker(chain []*x509.Certificate, key crypto.Signer, bundle *x509bundle.Bundle) stolen {
	return stolen{&svid.Snapshot{
		SVID:       &x509svid.SVID{ID: spiffeid.RequireFromString(gatewayID), Certificates: chain, PrivateKey: key},
		Bundles:    x509bundle.NewSet(bundle),
		Generation: 1,
	}}
}

// refusals collects what WithRefused reports.
type refusals struct {
	mu   sync.Mutex
	errs []error
}

func (r *refusals) add(_ net.Addr, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}

// only returns the one refusal there was, or nil if there was none.
func (r *refusals) only(t *testing.T) error {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch len(r.errs) {
	case 0:
		return nil
	case 1:
		return r.errs[0]
	}
	t.Fatalf("several refusals: %v", r.errs)
	return nil
}

// end is one end of a connection after the handshake.
type end struct {
	raw  net.Conn
	net  net.Conn
	info credentials.AuthInfo
	err  error
}

// connect makes a connection over TCP and returns both ends.
func connect(t *testing.T, client, server credentials.TransportCredentials) (c, s end) {
	t.Helper()
	cRaw, sRaw := tcp(t)
	c.raw, s.raw = cRaw, sRaw
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.net, s.info, s.err = server.ServerHandshake(sRaw)
		if s.err != nil {
			sRaw.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c.net, c.info, c.err = client.ClientHandshake(ctx, "inventory:443", cRaw)
	if c.err != nil {
		cRaw.Close()
	}
	<-done
	for _, e := range []end{c, s} {
		if e.err == nil {
			t.Cleanup(func() { e.net.Close() })
		}
	}
	return c, s
}

// tcp returns the two ends of a TCP connection.
func tcp(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// known returns what creds know of the end, which must be a connection of theirs.
func known(t *testing.T, creds *svid.Credentials, e end) *svid.Conn {
	t.Helper()
	if e.err != nil {
		t.Fatalf("handshake: %v", e.err)
	}
	c, ok := creds.Conn(e.info)
	if !ok {
		t.Fatal("the connection is not known")
	}
	return c
}

func wantReason(t *testing.T, err error, want tenant.Reason) {
	t.Helper()
	if got := tenant.ReasonOf(err); got != want {
		t.Errorf("reason %q, want %q (%v)", got, want, err)
	}
}
