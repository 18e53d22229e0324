package svid_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestMalformedPeer presents each wrong leaf to a server and to a client.
func TestMalformedPeer(t *testing.T) {
	d := newDomain(t, devdomain.Config{})
	honest := newWorkload(t, d, inventoryID)
	evil := newDomain(t, devdomain.Config{})
	type row struct {
		name  string
		issue func() ([]*x509.Certificate, crypto.Signer, error)
		want  tenant.Reason
	}
	rows := []row{
		{"I7 an ID of another trust domain", func() ([]*x509.Certificate, crypto.Signer, error) {
			return d.IssueRaw(func(c *x509.Certificate) { c.URIs[0].Host = "partner.example" })
		}, tenant.SVIDUntrusted},
		{"I7 another CA of the same name", func() ([]*x509.Certificate, crypto.Signer, error) {
			return evil.IssueRaw(nil)
		}, tenant.SVIDUntrusted},
		{"H8 three intermediates", func() ([]*x509.Certificate, crypto.Signer, error) {
			return d.IssueRaw(nil, devdomain.WithIntermediates(3))
		}, tenant.SVIDMalformed},
	}
	for _, l := range devdomain.WrongLeaves() {
		rows = append(rows, row{l.Name, func() ([]*x509.Certificate, crypto.Signer, error) { return l.Issue(d) }, tenant.SVIDMalformed})
	}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			chain, key, err := tt.issue()
			if err != nil {
				t.Fatal(err)
			}
			bad := attacker(chain, key, d.Bundle())

			t.Run("server refuses", func(t *testing.T) {
				var refused refusals
				server := svid.NewServerCredentials(honest, svid.WithRefused(refused.add))
				c, s := connect(t, svid.NewClientCredentials(bad, svid.Expect(inventoryID)), server)
				wantReason(t, s.err, tt.want)
				wantReason(t, refused.only(t), tt.want)
				if s.err == nil {
					return // the client would wait for the verdict for ever
				}
				if c.err != nil { // the server's verdict comes after the client's handshake
					t.Fatal(c.err)
				}
				if _, err := c.net.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "refused us") {
					t.Errorf("the client reads %v", err)
				}
			})
			t.Run("client refuses", func(t *testing.T) {
				var refused refusals
				client := svid.NewClientCredentials(honest, svid.Expect(gatewayID), svid.WithRefused(refused.add))
				c, s := connect(t, client, svid.NewServerCredentials(bad))
				wantReason(t, c.err, tt.want)
				wantReason(t, refused.only(t), tt.want)
				wantReason(t, s.err, tenant.PeerUnauthenticated) // it was told no more than "bad certificate"
			})
		})
	}
}

func TestExpectation(t *testing.T) {
	d := newDomain(t, devdomain.Config{})
	gateway, inventory := newWorkload(t, d, gatewayID), newWorkload(t, d, inventoryID)
	for _, tt := range []struct {
		name   string
		expect svid.Expectation
		want   tenant.Reason
		text   string
	}{
		{"the server", svid.Expect(inventoryID), "", ""},
		{"one of several", svid.Expect(gatewayID, inventoryID), "", ""},
		{"another", svid.Expect(gatewayID), tenant.ServerUnexpected, "the server is " + inventoryID + ", expected was " + gatewayID},
		{"I3 a prefix", svid.Expect("spiffe://prod.example/inv"), tenant.ServerUnexpected, "expected was"},
		{"I3 another trust domain", svid.Expect("spiffe://partner.example/inventory"), tenant.ServerUnexpected, "expected was"},
		{"the zero value", svid.Expectation{}, tenant.ServerUnexpected, "no server is expected"},
		{"nobody", svid.Expect(), tenant.ServerUnexpected, "no server is expected"},
		{"malformed", svid.Expect("inventory"), tenant.ServerUnexpected, `"inventory" is not a SPIFFE ID`},
		{"a malformed one beside the server", svid.Expect(inventoryID, "https://x"), tenant.ServerUnexpected, `"https://x" is not a SPIFFE ID`},
		{"a pattern", svid.Expect("spiffe://prod.example/*"), tenant.ServerUnexpected, "is not a SPIFFE ID"},
		{"a trust domain", svid.Expect("spiffe://prod.example"), tenant.ServerUnexpected, "names a trust domain"},
		{"another of 2,048 bytes", svid.Expect("spiffe://prod.example/" + strings.Repeat("a", 2048-22)), tenant.ServerUnexpected, "expected was"},
		{"I2 2,049 bytes", svid.Expect("spiffe://prod.example/" + strings.Repeat("a", 2049-22)), tenant.ServerUnexpected, "at most 2048 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := connect(t, svid.NewClientCredentials(gateway, tt.expect), svid.NewServerCredentials(inventory))
			wantReason(t, c.err, tt.want)
			if c.err != nil && !strings.Contains(c.err.Error(), tt.text) {
				t.Errorf("%v does not say %q", c.err, tt.text)
			}
		})
	}
}

func TestConn(t *testing.T) {
	d := newDomain(t, devdomain.Config{})
	gateway, inventory := newWorkload(t, d, gatewayID), newWorkload(t, d, inventoryID)
	client := svid.NewClientCredentials(gateway, svid.Expect(inventoryID))
	server := svid.NewServerCredentials(inventory)
	before, _ := gateway.Snapshot()
	c, s := connect(t, client, server.Clone())
	ck, sk := known(t, client, c), known(t, server, s)

	t.Run("who is who", func(t *testing.T) {
		if got := ck.PeerID().String(); got != inventoryID {
			t.Errorf("the client sees %s", got)
		}
		if got := sk.PeerID().String(); got != gatewayID {
			t.Errorf("the server sees %s", got)
		}
		if !sk.PeerChain()[0].Equal(before.SVID.Certificates[0]) {
			t.Error("PeerChain is not the peer's")
		}
		if err := errors.Join(ck.Check(), sk.Check()); err != nil {
			t.Error(err)
		}
	})
	t.Run("AuthInfo is exactly TLSInfo", func(t *testing.T) {
		for _, e := range []end{c, s} {
			if reflect.TypeOf(e.info) != reflect.TypeFor[credentials.TLSInfo]() {
				t.Fatalf("AuthInfo is a %T", e.info)
			}
			info := e.info.(credentials.TLSInfo)
			if err := credentials.CheckSecurityLevel(info, credentials.PrivacyAndIntegrity); err != nil {
				t.Error(err)
			}
			if info.State.Version != tls.VersionTLS13 || info.State.NegotiatedProtocol != "h2" {
				t.Errorf("version %x, protocol %q", info.State.Version, info.State.NegotiatedProtocol)
			}
		}
		if id := s.info.(credentials.TLSInfo).SPIFFEID.String(); id != gatewayID {
			t.Errorf("SPIFFEID is %s", id)
		}
	})
	t.Run("the server is not as expected", func(t *testing.T) {
		wantReason(t, svid.Expecting(ck, svid.Expect(gatewayID)).Check(), tenant.ServerUnexpected)
		wantReason(t, svid.Expecting(ck, svid.Expectation{}).Check(), tenant.ServerUnexpected)
	})
	t.Run("exporter", func(t *testing.T) {
		if ck.Binding() != sk.Binding() || ck.Binding() == [32]byte{} {
			t.Errorf("bindings %x and %x", ck.Binding(), sk.Binding())
		}
		c2, s2 := connect(t, client, server)
		if known(t, client, c2).Binding() == ck.Binding() || known(t, server, s2).Binding() == ck.Binding() {
			t.Error("two connections have one binding")
		}
		// crypto/tls shares parsed certificates, and so their URLs, between connections.
		if known(t, client, c) != ck || known(t, server, s) != sk {
			t.Error("a second connection took the place of the first")
		}
		state := s.info.(credentials.TLSInfo).State
		want, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32)
		if err != nil || [32]byte(want) != sk.Binding() {
			t.Errorf("not tls-exporter as RFC 9266 has it: %v", err)
		}
	})
	t.Run("Local stays after rotation", func(t *testing.T) {
		if err := gateway.Rotate(); err != nil {
			t.Fatal(err)
		}
		if ck.Local() != before.SVID {
			t.Error("Local is not what we presented")
		}
		if after, _ := gateway.Snapshot(); after.SVID == before.SVID || after.Generation <= before.Generation {
			t.Error("nothing rotated")
		}
		if err := errors.Join(ck.Check(), sk.Check()); err != nil {
			t.Error(err)
		}
	})
	t.Run("what is attached is made once, for one connection", func(t *testing.T) {
		made := 0
		attached := func(k *svid.Conn) any {
			return k.Attached(func() any { made++; return made })
		}
		if ofClient, ofServer := attached(ck), attached(sk); ofClient != 1 || ofServer != 2 || attached(ck) != ofClient {
			t.Errorf("attached %v and %v", ofClient, ofServer)
		}
	})
	t.Run("only their own connections", func(t *testing.T) {
		if _, ok := server.Conn(c.info); ok {
			t.Error("the server's credentials know the client's end")
		}
		info := s.info.(credentials.TLSInfo)
		forged := *info.SPIFFEID
		info.SPIFFEID = &forged
		if _, ok := server.Conn(info); ok {
			t.Error("an equal ID passed for the connection's")
		}
		for _, other := range []credentials.AuthInfo{nil, credentials.TLSInfo{}, &info} {
			if _, ok := server.Conn(other); ok {
				t.Errorf("%T passed for a connection", other)
			}
		}
	})
	t.Run("forgotten when closed", func(t *testing.T) {
		if client.Closed(c.info) || server.Closed(s.info) {
			t.Error("closed before it was")
		}
		c.net.Close()
		s.net.Close()
		if _, ok := client.Conn(c.info); ok {
			t.Error("the client's end is still known")
		}
		if _, ok := server.Conn(s.info); ok {
			t.Error("the server's end is still known")
		}
		if n := svid.InUse(client) + svid.InUse(server); n != 0 {
			t.Errorf("%d of the connections are still kept for use", n)
		}
		if !client.Closed(c.info) || !server.Closed(s.info) || server.Closed(c.info) || client.Closed(credentials.TLSInfo{}) {
			t.Error("it is not known to be closed, or another is")
		}
	})
	t.Run("forgotten with the garbage", func(t *testing.T) {
		before := [2]int{svid.KnownConns(client), svid.KnownConns(server)}
		func() {
			// As gRPC does when it cannot start: it closes the raw connections alone.
			cRaw, sRaw := tcp(t)
			go server.ServerHandshake(sRaw)
			conn, info, err := client.ClientHandshake(t.Context(), "", cRaw)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			runtime.GC()
			if svid.OpenConns(client) != 1 { // not Conn: gRPC asks for those alone that it closes
				t.Error("a connection that is held was forgotten")
			}
			runtime.KeepAlive(info)
			cRaw.Close()
			sRaw.Close()
		}()
		for deadline := time.Now().Add(10 * time.Second); svid.KnownConns(client) > before[0] || svid.KnownConns(server) > before[1]; runtime.GC() {
			if time.Now().After(deadline) {
				t.Fatalf("%d and %d connections are still known, before it were %d", svid.KnownConns(client), svid.KnownConns(server), before)
			}
		}
	})
}

func TestSyscallConn(t *testing.T) {
	d := newDomain(t, devdomain.Config{})
	gateway, inventory := newWorkload(t, d, gatewayID), newWorkload(t, d, inventoryID)
	c, s := connect(t, svid.NewClientCredentials(gateway, svid.Expect(inventoryID)), svid.NewServerCredentials(inventory))
	for _, e := range []end{c, s} {
		if _, ok := e.net.(syscall.Conn); !ok {
			t.Errorf("%T hides the socket", e.net)
		}
	}
}

// countingCache notes whether a ticket ever came.
type countingCache struct {
	tls.ClientSessionCache
	puts atomic.Int32
}

func (c *countingCache) Put(key string, s *tls.ClientSessionState) {
	c.puts.Add(1)
	c.ClientSessionCache.Put(key, s)
}

func TestResumption(t *testing.T) {
	d := newDomain(t, devdomain.Config{})
	inventory := newWorkload(t, d, inventoryID)
	server := svid.NewServerCredentials(inventory)
	cache := &countingCache{ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	config := &tls.Config{
		InsecureSkipVerify: true,
		ServerName:         "inventory",
		NextProtos:         []string{"h2"},
		ClientSessionCache: cache,
		Certificates:       []tls.Certificate{issue(t, d, gatewayID)},
	}
	for i := range 3 {
		cRaw, sRaw := tcp(t)
		served := make(chan error, 1)
		go func() {
			conn, info, err := server.ServerHandshake(sRaw)
			if err == nil {
				if info.(credentials.TLSInfo).State.DidResume {
					t.Error("I4 the server resumed")
				}
				_, err = conn.Write([]byte("x")) // after any ticket
			}
			served <- err
		}()
		conn := tls.Client(cRaw, config)
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := <-served; err != nil {
			t.Fatal(err)
		}
		if conn.ConnectionState().DidResume {
			t.Errorf("I4 connection %d was resumed", i)
		}
		conn.Close()
	}
	if n := cache.puts.Load(); n != 0 {
		t.Errorf("I4 the server gave %d session tickets", n)
	}
	// Should the configuration ever let one through.
	err := svid.VerifyState(server, tls.ConnectionState{NegotiatedProtocol: "h2", DidResume: true})
	wantReason(t, err, tenant.PeerUnauthenticated)
}

// TestOpenConnection takes trust away while a connection is open.
func TestOpenConnection(t *testing.T) {
	type world struct {
		prod, partner      *devdomain.Domain
		gateway, inventory *devdomain.Workload
		clock              *clock
		client, server     *svid.Conn
	}
	for _, tt := range []struct {
		name           string
		change         func(*testing.T, *world)
		client, server tenant.Reason
	}{
		{"nothing", func(*testing.T, *world) {}, "", ""},
		{"I4 de-federated by the server", func(_ *testing.T, w *world) { w.prod.Unfederate("partner.example") }, "", tenant.SVIDUntrusted},
		{"I4 de-federated by the client", func(_ *testing.T, w *world) { w.partner.Unfederate("prod.example") }, tenant.SVIDUntrusted, ""},
		{"I4 a new root beside the old", func(t *testing.T, w *world) {
			if err := w.partner.RotateRoot(); err != nil {
				t.Fatal(err)
			}
		}, "", ""},
		{"I4 the old root dropped", func(t *testing.T, w *world) {
			if err := w.partner.RotateRoot(); err != nil {
				t.Fatal(err)
			}
			w.partner.DropOldRoots()
		}, "", tenant.SVIDUntrusted},
		{"I5 both rotated", func(t *testing.T, w *world) {
			if err := errors.Join(w.gateway.Rotate(), w.inventory.Rotate()); err != nil {
				t.Fatal(err)
			}
		}, "", ""},
		{"I5 just before expiry", func(_ *testing.T, w *world) { w.clock.Advance(time.Hour - 1) }, "", ""},
		{"I5 expired", func(_ *testing.T, w *world) { w.clock.Advance(time.Hour) }, tenant.SVIDExpired, tenant.SVIDExpired},
		{"I5 expired though both rotated since", func(t *testing.T, w *world) {
			w.clock.Advance(time.Hour)
			if err := errors.Join(w.gateway.Rotate(), w.inventory.Rotate()); err != nil {
				t.Fatal(err)
			}
		}, tenant.SVIDExpired, tenant.SVIDExpired},
		{"H5 clock set back", func(_ *testing.T, w *world) { w.clock.Advance(-time.Hour) }, tenant.SVIDExpired, tenant.SVIDExpired},
		{"our own identity withdrawn", func(_ *testing.T, w *world) { w.inventory.Remove() }, "", tenant.IdentityUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{clock: newClock()}
			w.prod = newDomain(t, devdomain.Config{Clock: w.clock.Now})
			w.partner = newDomain(t, devdomain.Config{Clock: w.clock.Now, TrustDomain: "partner.example"})
			w.prod.Federate(w.partner)
			w.partner.Federate(w.prod)
			w.gateway, w.inventory = newWorkload(t, w.partner, "spiffe://partner.example/gateway"), newWorkload(t, w.prod, inventoryID)
			client := svid.NewClientCredentials(w.gateway, svid.Expect(inventoryID), svid.WithClock(w.clock.Now))
			server := svid.NewServerCredentials(w.inventory, svid.WithClock(w.clock.Now))
			c, s := connect(t, client, server)
			w.client, w.server = known(t, client, c), known(t, server, s)
			if err := errors.Join(w.client.Check(), w.server.Check()); err != nil {
				t.Fatal(err)
			}

			tt.change(t, w)
			for range 2 { // the second answer comes from what the first left behind
				wantReason(t, w.client.Check(), tt.client)
				wantReason(t, w.server.Check(), tt.server)
			}
		})
	}
}

// TestLocalExpired has a peer that outlives us: what we presented is gone.
func TestLocalExpired(t *testing.T) {
	clk := newClock()
	d := newDomain(t, devdomain.Config{Clock: clk.Now})
	long, err := d.Issue(gatewayID, devdomain.ValidFrom(clk.Now(), clk.Now().Add(24*time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	server := svid.NewServerCredentials(newWorkload(t, d, inventoryID), svid.WithClock(clk.Now))
	peer := attacker(long.Certificates, long.PrivateKey, d.Bundle())
	client := svid.NewClientCredentials(peer, svid.Expect(inventoryID), svid.WithClock(clk.Now))
	c, s := connect(t, client, server)
	conn := known(t, server, s)
	for who, until := range map[string]time.Time{"server": conn.Until(), "client": known(t, client, c).Until()} {
		if want := clk.Now().Add(time.Hour); !until.Equal(want) {
			t.Errorf("I5 the %s's end holds until %s, not %s", who, until, want)
		}
	}
	clk.Advance(2 * time.Hour)
	t.Run("I5 on an open connection", func(t *testing.T) { wantReason(t, conn.Check(), tenant.IdentityUnavailable) })

	fresh := newWorkload(t, d, "spiffe://prod.example/new")
	for name, off := range map[string]time.Duration{"I5 at the handshake": 2 * time.Hour, "H5 not yet valid at the handshake": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			var refused refusals
			server := svid.NewServerCredentials(fresh, svid.WithRefused(refused.add),
				svid.WithClock(func() time.Time { return clk.Now().Add(off) }))
			_, s := connect(t, svid.NewClientCredentials(peer, svid.Expect(fresh.ID().String()), svid.WithClock(clk.Now)), server)
			wantReason(t, s.err, tenant.IdentityUnavailable)
			wantReason(t, refused.only(t), tenant.IdentityUnavailable)
		})
	}
}

// failing is a Snapshotter of somebody else's that fails in its own words.
type failing struct{ err error }

func (f failing) Snapshot() (*svid.Snapshot, error) { return nil, f.err }

func TestNoIdentity(t *testing.T) {
	d := newDomain(t, devdomain.Config{})
	inventory := newWorkload(t, d, inventoryID)
	removed := newWorkload(t, d, gatewayID)
	removed.Remove()
	for name, src := range map[string]svid.Snapshotter{"nil": nil, "removed": removed, "empty": stolen{}, "nothing in it": stolen{&svid.Snapshot{}}} {
		t.Run(name, func(t *testing.T) {
			c, _ := connect(t, svid.NewClientCredentials(src, svid.Expect(inventoryID)), svid.NewServerCredentials(inventory))
			wantReason(t, c.err, tenant.IdentityUnavailable)
			_, s := connect(t, svid.NewClientCredentials(inventory, svid.Expect(inventoryID)), svid.NewServerCredentials(src))
			wantReason(t, s.err, tenant.IdentityUnavailable)
		})
	}
	for want, err := range map[tenant.Reason]error{
		tenant.IdentityUnavailable: io.ErrUnexpectedEOF,
		tenant.SVIDExpired:         tenant.Deny(tenant.SVIDExpired, "by its own word"),
	} {
		t.Run("an error: "+string(want), func(t *testing.T) {
			c, _ := connect(t, svid.NewClientCredentials(failing{err}, svid.Expect(inventoryID)), svid.NewServerCredentials(inventory))
			wantReason(t, c.err, want)
		})
	}
	t.Run("nobody was verified", func(t *testing.T) {
		wantReason(t, svid.Unverified(svid.NewServerCredentials(inventory)), tenant.Internal)
	})
	t.Run("a name instead of an ID", func(t *testing.T) {
		if err := svid.NewClientCredentials(inventory, svid.Expect(inventoryID)).OverrideServerName("inventory"); err == nil {
			t.Error("a server's name was taken")
		}
	})
	t.Run("the wrong side", func(t *testing.T) {
		c, s := connect(t, svid.NewServerCredentials(inventory), svid.NewClientCredentials(inventory, svid.Expect(inventoryID)))
		wantReason(t, c.err, tenant.Internal)
		wantReason(t, s.err, tenant.Internal)
	})
}

// listen serves health checks with the given credentials.
func listen(t *testing.T, opts ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(srv, health.NewServer())
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	return l.Addr().String()
}

// issue returns a certificate of d for a peer that is not ours.
func issue(t *testing.T, d *devdomain.Domain, id string) tls.Certificate {
	t.Helper()
	own, err := d.Issue(id)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{own.Certificates[0].Raw}, PrivateKey: own.PrivateKey, Leaf: own.Certificates[0]}
}

// call makes one call to addr.
func call(t *testing.T, addr string, creds credentials.TransportCredentials) error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:"+addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	return err
}

// TestServerName: routers see the host that was dialled, without its port.
func TestServerName(t *testing.T) {
	gateway := newWorkload(t, newDomain(t, devdomain.Config{}), gatewayID)
	for authority, want := range map[string]string{"orders.example:443": "orders.example", "orders.example": "orders.example"} {
		var name string
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			_ = tls.Server(server, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				name = h.ServerName
				return nil, io.ErrClosedPipe
			}}).HandshakeContext(t.Context())
		}()
		_, _, err := svid.NewClientCredentials(gateway, svid.Expect(inventoryID)).ClientHandshake(t.Context(), authority, client)
		if err == nil || name != want {
			t.Errorf("%s: routers see %q (%v)", authority, name, err)
		}
	}
}

func TestForeignServer(t *testing.T) {
	d := newDomain(t, devdomain.Config{})
	gateway := newWorkload(t, d, gatewayID)
	cert := issue(t, d, inventoryID)
	for _, tt := range []struct {
		name  string
		creds credentials.TransportCredentials
		want  tenant.Reason
		text  string
	}{
		{"I6 plaintext", insecure.NewCredentials(), tenant.PeerUnauthenticated, "is it plaintext?"},
		{"I6 server-only TLS", credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}}), tenant.ServerUnexpected, "did not ask for our certificate"},
		{"I6 TLS 1.2", credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}), tenant.PeerUnauthenticated, "protocol version"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var refused refusals
			err := call(t, listen(t, grpc.Creds(tt.creds)),
				svid.NewClientCredentials(gateway, svid.Expect(inventoryID), svid.WithRefused(refused.add)))
			if err == nil || !strings.Contains(err.Error(), string(tt.want)) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("the call failed with %v", err)
			}
			wantReason(t, refused.only(t), tt.want)
		})
	}
	t.Run("I6 no ALPN", func(t *testing.T) {
		cRaw, sRaw := tcp(t)
		go tls.Server(sRaw, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert}).Handshake()
		_, _, err := svid.NewClientCredentials(gateway, svid.Expect(inventoryID)).ClientHandshake(t.Context(), "", cRaw)
		wantReason(t, err, tenant.PeerUnauthenticated)
	})
	t.Run("I6 closed in the handshake", func(t *testing.T) {
		cRaw, sRaw := tcp(t)
		sRaw.(*net.TCPConn).CloseWrite()
		_, _, err := svid.NewClientCredentials(gateway, svid.Expect(inventoryID)).ClientHandshake(t.Context(), "", cRaw)
		wantReason(t, err, tenant.PeerUnauthenticated)
		if !strings.Contains(err.Error(), "closed the connection in the handshake") {
			t.Error(err)
		}
	})
	t.Run("I6 silent in the handshake", func(t *testing.T) {
		cRaw, _ := tcp(t)
		cRaw.SetDeadline(time.Now().Add(time.Millisecond))
		_, _, err := svid.NewClientCredentials(gateway, svid.Expect(inventoryID)).ClientHandshake(t.Context(), "", cRaw)
		wantReason(t, err, tenant.PeerUnauthenticated)
		if !strings.Contains(err.Error(), "did not finish the TLS handshake in time") {
			t.Error(err)
		}
	})
	t.Run("another failure of TLS", func(t *testing.T) {
		err := svid.Explain(io.ErrShortWrite, true)
		wantReason(t, err, tenant.PeerUnauthenticated)
		if !errors.Is(err, io.ErrShortWrite) || !strings.Contains(err.Error(), "TLS with the server") {
			t.Error(err)
		}
	})
	t.Run("ctx ends", func(t *testing.T) {
		cRaw, _ := tcp(t)
		var refused refusals
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err := svid.NewClientCredentials(gateway, svid.Expect(inventoryID), svid.WithRefused(refused.add)).ClientHandshake(ctx, "", cRaw)
		if !errors.Is(err, context.Canceled) || refused.only(t) != nil {
			t.Errorf("%v, refused %v", err, refused.only(t))
		}
	})
}

func TestForeignClient(t *testing.T) {
	d := newDomain(t, devdomain.Config{})
	inventory := newWorkload(t, d, inventoryID)
	cert := issue(t, d, gatewayID)
	for _, tt := range []struct {
		name  string
		creds credentials.TransportCredentials
		want  tenant.Reason
		text  string
	}{
		{"I6 plaintext", insecure.NewCredentials(), tenant.PeerUnauthenticated, "is it plaintext?"},
		{"I6 no certificate", credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}), tenant.PeerUnauthenticated, "certificate"},
		{"I6 TLS 1.2", credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12}), tenant.PeerUnauthenticated, "version"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refused := make(chan error, 10) // gRPC tries again
			addr := listen(t, grpc.Creds(svid.NewServerCredentials(inventory,
				svid.WithRefused(func(_ net.Addr, err error) { refused <- err }))))
			if err := call(t, addr, tt.creds); err == nil {
				t.Fatal("the call succeeded")
			}
			err := <-refused
			wantReason(t, err, tt.want)
			if !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v does not say %q", err, tt.text)
			}
		})
	}
	t.Run("I6 no ALPN", func(t *testing.T) {
		cRaw, sRaw := tcp(t)
		go tls.Client(cRaw, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}}).Handshake()
		_, _, err := svid.NewServerCredentials(inventory).ServerHandshake(sRaw)
		wantReason(t, err, tenant.PeerUnauthenticated)
	})
	t.Run("a certificate that does not parse", func(t *testing.T) {
		cRaw, sRaw := tcp(t)
		bad := tls.Certificate{Certificate: [][]byte{{0x30, 0x00}}, PrivateKey: cert.PrivateKey, Leaf: cert.Leaf}
		go tls.Client(cRaw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{bad}}).Handshake()
		_, _, err := svid.NewServerCredentials(inventory).ServerHandshake(sRaw)
		wantReason(t, err, tenant.SVIDMalformed)
	})
	t.Run("a probe is not a refusal", func(t *testing.T) {
		cRaw, sRaw := tcp(t)
		cRaw.Close()
		var refused refusals
		_, _, err := svid.NewServerCredentials(inventory, svid.WithRefused(refused.add)).ServerHandshake(sRaw)
		//nolint:errorlint // gRPC compares with ==, so a wrapped one would not do.
		if err != io.EOF || refused.only(t) != nil {
			t.Errorf("%v, refused %v", err, refused.only(t))
		}
	})
}

func TestRegistryEmpties(t *testing.T) {
	d := newDomain(t, devdomain.Config{})
	gateway, inventory := newWorkload(t, d, gatewayID), newWorkload(t, d, inventoryID)
	server := svid.NewServerCredentials(inventory)
	client := svid.NewClientCredentials(gateway, svid.Expect(inventoryID))
	l := bufconn.Listen(1 << 16)
	srv := grpc.NewServer(grpc.Creds(server))
	healthpb.RegisterHealthServer(srv, health.NewServer())
	served := make(chan struct{})
	go func() { defer close(served); srv.Serve(l) }()
	for range 3 {
		conn, err := grpc.NewClient("passthrough:inventory", grpc.WithTransportCredentials(client),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		if svid.OpenConns(client) == 0 || svid.OpenConns(server) == 0 {
			t.Error("an open connection is not known")
		}
		conn.Close()
	}
	srv.Stop()
	<-served
	if n := svid.OpenConns(server); n != 0 {
		t.Errorf("%d connections left at the server", n)
	}
	if n := svid.OpenConns(client); n != 0 {
		t.Errorf("%d connections left at the client", n)
	}
}
