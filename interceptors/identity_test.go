package interceptors_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// wrongLeaf is a leaf that no verifier accepts.
type wrongLeaf struct {
	name  string
	want  tenant.Reason // at the handshake, and where a hop's signer has it, if it parses
	issue func(*devdomain.Domain) ([]*x509.Certificate, crypto.Signer, error)
}

func wrongLeaves() []wrongLeaf {
	leaves := []wrongLeaf{
		{"I7 an SVID of another trust domain than its CA's", tenant.SVIDUntrusted, func(d *devdomain.Domain) ([]*x509.Certificate, crypto.Signer, error) {
			return d.IssueRaw(func(c *x509.Certificate) { c.URIs[0].Host = "partner.example" })
		}},
		{"H8 three intermediates of the peer", tenant.SVIDMalformed, func(d *devdomain.Domain) ([]*x509.Certificate, crypto.Signer, error) {
			return d.IssueRaw(nil, devdomain.WithIntermediates(3))
		}},
	}
	for _, l := range devdomain.WrongLeaves() {
		leaves = append(leaves, wrongLeaf{l.Name, tenant.SVIDMalformed, l.Issue})
	}
	return leaves
}

// TestWrongLeaves presents each wrong leaf as client, as server, and as a
// signer on the chain of a workload that is good. CVE-2021-27098 and
// CVE-2021-27099 (SPIRE) are of I7's kind.
func TestWrongLeaves(t *testing.T) {
	m := newMesh(t)
	honest := m.honest("gateway", "orders")
	for _, l := range wrongLeaves() {
		certs, key, err := l.issue(m.domain)
		if err != nil {
			t.Fatal(err)
		}
		cert := tls.Certificate{PrivateKey: key}
		for _, c := range certs {
			cert.Certificate = append(cert.Certificate, c.Raw)
		}
		m.wrongPeer(l.name, cert, l.want)
		if strings.HasPrefix(l.name, "H8") {
			continue // TestChainAttacks has it
		}
		onChain := l.want
		if certs[0].PublicKey == nil {
			onChain = tenant.ContextMalformed // it does not parse
		}
		m.each(l.name+" on the chain", func(m *mesh, s shape) {
			cc := m.attack(m.svid("orders"), m.outfit().Forged(func(_ *attacktest.World, w *attacktest.Wire) {
				w.Replace(0, &x509svid.SVID{Certificates: certs, PrivateKey: key})
			}, "gateway", "orders"))
			if e := m.refused(s.call(deadline(m.t), cc), onChain); !strings.Contains(e.Detail, "(hop 0)") {
				m.t.Errorf("detail %q does not name hop 0", e.Detail)
			}
		})
	}
	// The harness itself lets an honest chain through.
	m.each("an honest chain", func(m *mesh, s shape) {
		m.allowed(s.call(deadline(m.t), m.attack(m.svid("orders"), honest)), "acme")
	})
}

// wrongPeer presents a certificate to the target and to a client.
func (m *mesh) wrongPeer(name string, cert tls.Certificate, want tenant.Reason) {
	m.t.Helper()
	m = m.anew() // an attempt more may be recorded late
	m.each(name+" of a client", func(m *mesh, s shape) {
		cc := m.dial(grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true,
		})))
		m.noConnection(s.call(deadline(m.t), cc), m.audit, want)
	})
	addr := m.serveBare(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert,
	})))
	m.each(name+" of a server", func(m *mesh, s shape) { m.noServer(addr, s, want) })
}

// serveBare serves without a guard.
func (m *mesh) serveBare(options ...grpc.ServerOption) (addr string) {
	m.t.Helper()
	_, addr = m.serve(options...)
	return addr
}

// noServer asserts that a guard refuses the server at addr.
func (m *mesh) noServer(addr string, s shape, want tenant.Reason) {
	m.t.Helper()
	sink := newTrail()
	g := m.newGuard(attacktest.Identity(m.svid("gateway"), m.bundles()), sink, time.Now)
	cc := m.dialTo(addr, g.DialOptions(svid.Expect(id("target"), id("gateway"), id("raw")))...)
	ctx := acme(m.t, g)
	sink.take() // the origination
	err := s.call(ctx, cc)
	if !strings.Contains(status.Convert(err).Message(), string(want)) {
		m.t.Errorf("the caller sees %v, want %s", err, want)
	}
	m.noConnection(err, sink, want)
}

// noConnection asserts that a call failed for want of a connection, which was
// refused for the reason, and that no handler ran.
func (m *mesh) noConnection(err error, sink *trail, want tenant.Reason) {
	m.t.Helper()
	if status.Code(err) != codes.Unavailable {
		m.t.Errorf("got %v, want a failed connection", err)
	}
	// In TLS 1.3 a client is done before the server, and it may try again.
	for _, e := range sink.await(m.t) {
		if e.Point != audit.Handshake || e.Allowed || e.Reason != want || e.Peer != "" || e.Tenant != "" {
			m.t.Errorf("audit: %+v, want a handshake refused for %s", e, want)
		}
	}
	m.notRun()
}

// TestForeignTLS: connections that are no mTLS by SVIDs, at either end.
func TestForeignTLS(t *testing.T) {
	m := newMesh(t)
	cert := tls.Certificate{Certificate: [][]byte{m.svid("gateway").Certificates[0].Raw}, PrivateKey: m.svid("gateway").PrivateKey}
	server := func(change func(*tls.Config)) credentials.TransportCredentials {
		c := &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
		change(c)
		return credentials.NewTLS(c)
	}
	for _, l := range []struct {
		name  string
		creds credentials.TransportCredentials
		want  tenant.Reason
	}{
		{"I6 a plaintext listener", insecure.NewCredentials(), tenant.PeerUnauthenticated},
		{"I6 a server-only TLS listener", server(func(c *tls.Config) { c.ClientAuth = tls.NoClientCert }), tenant.ServerUnexpected},
		{"I6 a TLS 1.2 listener", server(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), tenant.PeerUnauthenticated},
	} {
		addr := m.serveBare(grpc.Creds(l.creds))
		m.each(l.name, func(m *mesh, s shape) { m.noServer(addr, s, l.want) })
	}
	for _, c := range []struct {
		name  string
		creds credentials.TransportCredentials
	}{
		{"I6 a plaintext client", insecure.NewCredentials()},
		{"I6 a client without a certificate", credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})},
		{"I6 a TLS 1.2 client", credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12})},
	} {
		m.anew().each(c.name, func(m *mesh, s shape) {
			cc := m.dial(grpc.WithTransportCredentials(c.creds))
			m.noConnection(s.call(deadline(m.t), cc), m.audit, tenant.PeerUnauthenticated)
		})
	}
	other := newMesh(t, grpc.Creds(insecure.NewCredentials()))
	other.each("I6 credentials of others after ours", func(m *mesh, s shape) {
		cc := m.dial(grpc.WithTransportCredentials(insecure.NewCredentials()))
		m.refusedBlindly(s.call(withMetadata(deadline(m.t), hop.HopsKey, "AAAA"), cc), tenant.PeerUnauthenticated)
	})
	addr := m.serveBare(grpc.Creds(svid.NewServerCredentials(m.self)))
	m.each("I3 a client that expects nobody, or a prefix", func(m *mesh, s shape) {
		for _, expect := range []svid.Expectation{{}, svid.Expect(), svid.Expect(""), svid.Expect(id("tar")), svid.Expect(id("")), svid.Expect("spiffe://partner.example/target")} {
			sink := newTrail()
			g := m.newGuard(attacktest.Identity(m.svid("gateway"), m.bundles()), sink, time.Now)
			cc := m.dialTo(addr, g.DialOptions(expect)...)
			ctx := acme(m.t, g)
			sink.take()
			m.noConnection(s.call(ctx, cc), sink, tenant.ServerUnexpected)
		}
	})
}

// TestIdentity: who was accepted at the handshake is checked at every call.
func TestIdentity(t *testing.T) {
	shared := newMesh(t)
	shared.each("I5 an SVID that expires on an open connection", func(m *mesh, s shape) {
		m = m.anew()
		cc := m.attack(m.issue("gateway", attacktest.Valid(-time.Minute, 10*time.Minute)), nil)
		m.refused(s.call(deadline(m.t), cc), tenant.ContextMissing)
		m.clock.advance(11 * time.Minute)
		m.refusedBlindly(s.call(deadline(m.t), cc), tenant.SVIDExpired)
	})
	shared.each("I4 a bundle that is gone ends existing connections' calls", func(m *mesh, s shape) {
		cc := m.attack(m.svid(attacktest.PartnerApp), m.honest(attacktest.PartnerApp))
		m.allowed(s.call(deadline(m.t), cc), "acme")
		m.domain.Unfederate("partner.example")
		defer m.domain.Federate(m.partner)
		m.refusedBlindly(s.call(deadline(m.t), cc), tenant.SVIDUntrusted)
	})
	shared.each("I4 a client that wants to resume is authorized again", func(m *mesh, s shape) {
		m = m.anew()
		own := m.svid(attacktest.PartnerApp)
		resumed := make(chan bool, 100)
		config := &tls.Config{
			Certificates:       []tls.Certificate{{Certificate: [][]byte{own.Certificates[0].Raw}, PrivateKey: own.PrivateKey}},
			InsecureSkipVerify: true, ServerName: "target", ClientSessionCache: tls.NewLRUClientSessionCache(8),
			VerifyConnection: func(c tls.ConnectionState) error { resumed <- c.DidResume; return nil },
		}
		m.refused(s.call(deadline(m.t), m.dial(grpc.WithTransportCredentials(credentials.NewTLS(config)))), tenant.ContextMissing)
		m.domain.Unfederate("partner.example")
		defer m.domain.Federate(m.partner)
		m.noConnection(s.call(deadline(m.t), m.dial(grpc.WithTransportCredentials(credentials.NewTLS(config)))), m.audit, tenant.SVIDUntrusted)
		for len(resumed) > 0 {
			if <-resumed {
				m.t.Error("a session was resumed")
			}
		}
	})
	shared.each("I4 the client checks the server at every call too", func(m *mesh, s shape) {
		sink, c := newTrail(), new(clock)
		g := m.newGuard(attacktest.Identity(m.issue("gateway", attacktest.Valid(-time.Minute, 3*time.Hour)), m.bundles()), sink, c.now)
		cc := m.dial(g.DialOptions(svid.Expect(id("target")))...)
		m.allowed(s.call(acme(m.t, g), cc), "acme")
		c.advance(90 * time.Minute) // past the target's SVID
		late := claims("acme")
		late.Expires = time.Time{}
		ctx, err := g.Originate(deadline(m.t), late)
		if err != nil {
			m.t.Fatal(err)
		}
		sink.take()
		m.notLeft(s.call(ctx, cc), tenant.SVIDExpired)
		if events := sink.take(); len(events) != 1 || events[0].Reason != tenant.SVIDExpired || events[0].Point != audit.Client {
			m.t.Errorf("the client's audit has %+v", events)
		}
	})
}

// refusedBlindly asserts that a peer without a proven identity was refused for
// the recorded reason and told nothing.
func (m *mesh) refusedBlindly(err error, want tenant.Reason) {
	m.t.Helper()
	st := status.Convert(err)
	if st.Code() != codes.Unauthenticated || st.Message() != "unauthenticated" || len(st.Details()) != 0 {
		m.t.Errorf("the caller sees %v %v, want the fixed text and nothing more", st, st.Details())
	}
	m.recorded(want)
}

// notLeft asserts that a call was refused before it left its workload.
func (m *mesh) notLeft(err error, want tenant.Reason) {
	m.t.Helper()
	if got := reason(err); got != want {
		m.t.Errorf("got %v, want %s", err, want)
	}
	if events := m.audit.take(); len(events) != 0 {
		m.t.Errorf("the call left: %+v", events)
	}
	m.notRun()
}
