package svid

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"
	"weak"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"

	"github.com/tenantmesh/tenantmesh/internal/leaf"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// exporterLabel and the empty context make the channel binding
// (RFC 9266, section 4.2).
const exporterLabel = "EXPORTER-Channel-Binding"

// Credentials are gRPC transport credentials that present the workload's
// X.509-SVID and check the peer's: TLS 1.3, mutual, with ALPN "h2", never
// resumed. They implement [credentials.TransportCredentials].
//
// The AuthInfo of a connection is a plain [credentials.TLSInfo], so that gRPC's
// own authorization works; [Credentials.Conn] tells the rest.
type Credentials struct {
	src     Snapshotter
	client  bool
	expect  Expectation
	now     func() time.Time
	refused func(net.Addr, error)
	conns   *registry // shared by clones
}

var _ credentials.TransportCredentials = (*Credentials)(nil)

// CredentialsOption changes [Credentials].
type CredentialsOption func(*Credentials)

// WithClock makes the credentials take the time from now instead of [time.Now].
func WithClock(now func() time.Time) CredentialsOption {
	return func(c *Credentials) { c.now = now }
}

// WithRefused makes the credentials call fn for each handshake that they
// refuse. The error carries a [tenant.Reason]. A connection that ends before it
// says anything, as probes make, and a caller who gives up are not refused.
// fn runs on the connection's goroutine and may be called concurrently.
func WithRefused(fn func(remote net.Addr, err error)) CredentialsOption {
	return func(c *Credentials) { c.refused = fn }
}

// NewServerCredentials returns the credentials of a server. They accept every
// workload with an SVID that chains to a bundle of src; who may call what is
// the policy's to say.
func NewServerCredentials(src Snapshotter, opts ...CredentialsOption) *Credentials {
	return newCredentials(&Credentials{src: src}, opts)
}

// NewClientCredentials returns the credentials of a client, which accept only
// a server that is as expected.
func NewClientCredentials(src Snapshotter, expect Expectation, opts ...CredentialsOption) *Credentials {
	return newCredentials(&Credentials{src: src, client: true, expect: expect}, opts)
}

func newCredentials(c *Credentials, opts []CredentialsOption) *Credentials {
	c.now = time.Now
	c.refused = func(net.Addr, error) {}
	c.conns = &registry{known: map[weak.Pointer[url.URL]]*Conn{}}
	for _, opt := range opts {
		opt(c)
	}
	return c
}

// Conn returns what is known of the connection with the given AuthInfo. It is
// false unless these credentials, or clones of them, made the connection and
// it is open.
func (c *Credentials) Conn(info credentials.AuthInfo) (*Conn, bool) {
	return c.conns.get(keyOf(info))
}

// Closed reports whether these credentials, or clones of them, made the
// connection with the given AuthInfo, and it is closed: nothing is sent on it any
// longer, and gRPC may not know yet.
func (c *Credentials) Closed(info credentials.AuthInfo) bool {
	return c.conns.closed(keyOf(info))
}

// ClientHandshake makes the client's side of a connection. Its errors have a
// [tenant.Reason], except those of ctx.
func (c *Credentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.handshake(ctx, authority, raw, true)
	if err == nil {
		return conn, info, nil
	}
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	return nil, nil, c.refuse(raw, err)
}

// ServerHandshake makes the server's side of a connection. Its errors have a
// [tenant.Reason], except io.EOF, which gRPC knows to be a probe.
func (c *Credentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.handshake(context.Background(), "", raw, false)
	switch {
	case err == nil:
		return conn, info, nil
	case tenant.ReasonOf(err) == "" && errors.Is(err, io.EOF):
		return nil, nil, io.EOF // gRPC compares with ==
	}
	return nil, nil, c.refuse(raw, err)
}

// Info describes the protocol.
func (c *Credentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone returns a copy that knows the same connections.
func (c *Credentials) Clone() credentials.TransportCredentials {
	clone := *c
	return &clone
}

// OverrideServerName fails: who the server must be is said by [Expect] alone.
func (c *Credentials) OverrideServerName(string) error {
	return errors.New("svid: a server is known by its SPIFFE ID, not by a name: use svid.Expect")
}

// refuse gives err a reason, if it has none, and reports it.
func (c *Credentials) refuse(raw net.Conn, err error) error {
	if tenant.ReasonOf(err) == "" {
		err = explain(err, c.client)
	}
	c.refused(raw.RemoteAddr(), err)
	return err
}

func (c *Credentials) handshake(ctx context.Context, authority string, raw net.Conn, client bool) (net.Conn, credentials.AuthInfo, error) {
	if client != c.client {
		return nil, nil, tenant.Deny(tenant.Internal, "a server's credentials were used for a client, or the other way round")
	}
	if client {
		if err := c.expect.Err(); err != nil {
			return nil, nil, err
		}
	}
	snap, err := Current(c.src)
	if err != nil {
		return nil, nil, err
	}
	if err := checkOwn(snap.SVID, c.now()); err != nil {
		return nil, nil, err
	}

	// A config of its own for each handshake: so it is known which SVID we
	// presented, and the bundles cannot change half-way.
	h := &handshake{creds: c, snap: snap}
	config := h.config(authority)
	var conn *tls.Conn
	if client {
		conn = tls.Client(raw, config)
	} else {
		conn = tls.Server(raw, config)
	}
	var state tls.ConnectionState
	var binding []byte
	if err = conn.HandshakeContext(ctx); err == nil {
		err = h.finished()
	}
	if err == nil {
		state = conn.ConnectionState()
		binding, err = state.ExportKeyingMaterial(exporterLabel, nil, 32)
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	known := &Conn{creds: c, chain: state.PeerCertificates, local: snap.SVID, binding: [32]byte(binding)}
	known.peer.Store(&checkedPeer{generation: snap.Generation, verified: h.peer})
	// This copy of the ID is the connection's name in the registry: gRPC hands
	// the pointer through unchanged, and a wrapped AuthInfo would hide TLSInfo.
	key := h.peer.ID.URL()
	forget := c.conns.add(key, known)
	info := credentials.TLSInfo{
		State:          state,
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		SPIFFEID:       key,
	}
	return wrap(raw, conn, forget), info, nil
}

// handshake is the state of one handshake.
type handshake struct {
	creds *Credentials
	snap  *Snapshot
	peer  *leaf.Verified
	asked bool // the server asked for our certificate
}

func (h *handshake) config(authority string) *tls.Config {
	cert := certificate(h.snap.SVID)
	config := &tls.Config{
		Time:       h.creds.now,
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		// Runs in every handshake, which VerifyPeerCertificate does not.
		VerifyConnection: h.verify,
		// A resumed session would keep an identity alive past its bundle.
		SessionTicketsDisabled: true,
	}
	if !h.creds.client {
		config.Certificates = []tls.Certificate{cert}
		config.ClientAuth = tls.RequireAnyClientCert // verify does the rest
		return config
	}
	config.ServerName = authority // SNI, for routers; it proves nothing
	if host, _, err := net.SplitHostPort(authority); err == nil {
		config.ServerName = host
	}
	config.InsecureSkipVerify = true // names in DNS do not count; verify does
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		h.asked = true
		return &cert, nil
	}
	return config
}

// verify checks the peer before the handshake ends.
func (h *handshake) verify(state tls.ConnectionState) error {
	if state.NegotiatedProtocol != "h2" {
		return tenant.Deny(tenant.PeerUnauthenticated, "the peer did not agree on the protocol h2 (ALPN), so it speaks no gRPC")
	}
	if state.DidResume {
		return tenant.Deny(tenant.PeerUnauthenticated, "a resumed TLS session")
	}
	peer, err := leaf.Verify(state.PeerCertificates, h.snap.Bundles, h.creds.now())
	if err != nil {
		return err
	}
	if h.creds.client {
		if err := h.creds.expect.Check(peer.ID); err != nil {
			return err
		}
	}
	h.peer = peer
	return nil
}

// finished checks what is known only when the handshake is done.
func (h *handshake) finished() error {
	if h.peer == nil {
		return tenant.Deny(tenant.Internal, "a handshake without verification")
	}
	if h.creds.client && !h.asked {
		return tenant.Deny(tenant.ServerUnexpected,
			"%s did not ask for our certificate: server-only TLS does not authenticate its callers", h.peer.ID)
	}
	return nil
}

func certificate(s *x509svid.SVID) tls.Certificate {
	cert := tls.Certificate{PrivateKey: s.PrivateKey, Leaf: s.Certificates[0]}
	for _, c := range s.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

// explain gives a failure of TLS itself a reason and the likely cause.
func explain(err error, client bool) error {
	peer := "the client"
	if client {
		peer = "the server"
	}
	var record tls.RecordHeaderError
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &record):
		return tenant.Deny(tenant.PeerUnauthenticated, "%s speaks no TLS; is it plaintext? %w", peer, err)
	case strings.Contains(err.Error(), "failed to parse") && strings.Contains(err.Error(), "certificate"):
		// crypto/tls has no type for this.
		return tenant.Deny(tenant.SVIDMalformed, "%s: %w", peer, err)
	case errors.As(err, &op) && op.Op == "remote error":
		return tenant.Deny(tenant.PeerUnauthenticated, "%s refused us; its own log says why: %w", peer, err)
	case errors.Is(err, io.EOF):
		return tenant.Deny(tenant.PeerUnauthenticated, "%s closed the connection in the handshake; is it plaintext? %w", peer, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return tenant.Deny(tenant.PeerUnauthenticated, "%s did not finish the TLS handshake in time; is it plaintext? %w", peer, err)
	}
	return tenant.Deny(tenant.PeerUnauthenticated, "TLS with %s: %w", peer, err)
}

// registry knows the connections by the SPIFFEID of their TLSInfo. It does not
// keep that alive: the entry goes with the garbage, also where gRPC drops a
// connection right after the handshake without closing what we returned.
type registry struct {
	mu    sync.Mutex
	known map[weak.Pointer[url.URL]]*Conn // nil for one that is closed
	// inUse holds those on which there were calls, by *url.URL: gRPC closes them. Making a
	// weak pointer takes long beside looking one up.
	inUse sync.Map
}

// keyOf returns what a connection is known by; for an AuthInfo that is not ours
// it is nil, which none is known by.
func keyOf(info credentials.AuthInfo) *url.URL {
	t, _ := info.(credentials.TLSInfo)
	return t.SPIFFEID
}

// get returns an open connection.
func (r *registry) get(id *url.URL) (*Conn, bool) {
	if c, ok := r.inUse.Load(id); ok {
		return c.(*Conn), true //nolint:errcheck // nothing else is stored
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.known[weak.Make(id)]
	if c != nil {
		r.inUse.Store(id, c)
	}
	return c, c != nil
}

func (r *registry) closed(id *url.URL) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, known := r.known[weak.Make(id)]
	return known && c == nil
}

// add returns what is to be called when c is closed.
func (r *registry) add(id *url.URL, c *Conn) (forget func()) {
	key := weak.Make(id)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known[key] = c
	runtime.AddCleanup(id, r.drop, key)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.known[key] != nil { // else it is gone already
			r.known[key] = nil
		}
		r.inUse.Delete(id)
	}
}

func (r *registry) drop(key weak.Pointer[url.URL]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, key)
}
