package interceptors_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// forgery makes metadata for a connection to the target and a method.
type forgery func(conn *svid.Conn, method string) (map[string]string, error)

// TestChainAttacks: workloads with valid SVIDs present contexts that are wrong,
// over real mTLS connections, in all four shapes. hop's own tests have the
// attacks on single fields.
func TestChainAttacks(t *testing.T) {
	m := newMesh(t)
	gateway, orders, intruder := m.issue("gateway"), m.issue("orders"), m.issue("intruder")
	bundles := m.bundles()

	begin := func(change ...func(*hop.Claims)) *hop.Chain {
		c := claims("acme")
		for _, f := range change {
			f(c)
		}
		chain, err := hop.Begin(c)
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	// handed is the chain that a workload holds after another handed it one.
	handed := func(chain *hop.Chain, from *x509svid.SVID, to string, change ...func(*hop.Handover)) *hop.Chain {
		c, err := received(chain, from, id(to), bundles, time.Now(), change...)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	// signs adds the presenter's own hop, honest but for change.
	signs := func(chain *hop.Chain, change ...func(*svid.Conn, *hop.Handover)) forgery {
		return func(conn *svid.Conn, method string) (map[string]string, error) {
			h := handOver(conn, method)
			for _, f := range change {
				f(conn, &h)
			}
			return onWire(chain.Sign(conn.Local(), h))
		}
	}
	// presents sends what another workload signed, perfect but for its signer.
	presents := func(chain *hop.Chain, by *x509svid.SVID) forgery {
		return func(conn *svid.Conn, method string) (map[string]string, error) {
			return onWire(chain.Sign(by, handOver(conn, method)))
		}
	}
	wide := strings.Repeat("A", hop.MaxMetadata+1)

	rows := []struct {
		name   string
		by     *x509svid.SVID
		forge  forgery
		reason tenant.Reason
		hop    int
	}{
		{"H1 a captured context presented by another workload", intruder,
			presents(begin(), gateway), tenant.SignerNotPeer, 0},
		{"H1 a context handed to orders, forwarded by the intruder", intruder,
			signs(handed(begin(), gateway, "orders")), tenant.AudienceMismatch, 0},
		{"H1 a hop made for another connection", gateway,
			signs(begin(), func(_ *svid.Conn, h *hop.Handover) { h.Binding[0] ^= 1 }), tenant.ChannelMismatch, 0},
		{"H1 a hop made for another method", gateway,
			signs(begin(), func(_ *svid.Conn, h *hop.Handover) { h.Target = "/grpc.testing.TestService/EmptyCall" }), tenant.TargetMismatch, 0},
		{"H1 a hop made for another callee", gateway,
			signs(begin(), func(_ *svid.Conn, h *hop.Handover) { h.Audience = id("orders") }), tenant.AudienceMismatch, 0},
		{"H2 a message presented as a call", gateway,
			signs(begin(), func(_ *svid.Conn, h *hop.Handover) { h.Kind = hop.Message }), tenant.KindMismatch, 0},
		{"H2 a grant presented as a call", gateway,
			signs(begin(), func(_ *svid.Conn, h *hop.Handover) { h.Kind, h.Target = hop.Grant, "" }), tenant.KindMismatch, 0},
		{"H3 a method that was narrowed away upstream", orders,
			func(conn *svid.Conn, method string) (map[string]string, error) {
				narrow := func(h *hop.Handover) {
					h.Narrowing = &hop.Narrowing{Methods: []string{"/grpc.testing.TestService/EmptyCall"}}
				}
				honest := handOver(conn, "/grpc.testing.TestService/EmptyCall")
				md, err := handed(begin(), gateway, "orders", narrow).Sign(conn.Local(), honest)
				if err != nil {
					return nil, err
				}
				return onWire(resign(md, conn.Local(), func(s *hop.Statement) { s.Target = method }))
			}, tenant.MethodNarrowed, 1},
		{"H3 a scope that was narrowed away upstream", orders,
			func(conn *svid.Conn, method string) (map[string]string, error) {
				narrow := func(h *hop.Handover) { h.Narrowing = &hop.Narrowing{Scopes: []string{}} }
				md, err := handed(begin(), gateway, "orders", narrow).Sign(conn.Local(), handOver(conn, method))
				if err != nil {
					return nil, err
				}
				return onWire(resign(md, conn.Local(), func(s *hop.Statement) {
					s.Narrowing = &hop.Narrowing{Scopes: []string{"orders.read"}}
				}))
			}, tenant.ScopeWidened, 1},
		{"H6 a signature under another kind's prefix", gateway,
			func(conn *svid.Conn, method string) (map[string]string, error) {
				md, err := begin().Sign(conn.Local(), handOver(conn, method))
				if err != nil {
					return nil, err
				}
				return onWire(resignAs(md, conn.Local(), "tenantmesh-v1-message\x00", func(*hop.Statement) {}))
			}, tenant.SignatureInvalid, 0},
		{"H4 the last signer is not the TLS peer", intruder,
			presents(handed(begin(), gateway, "orders"), orders), tenant.SignerNotPeer, 1},
		{"H4 a workload on the path that may not act for the tenant", orders,
			signs(handed(handed(begin(), gateway, "intruder"), intruder, "orders")), tenant.TenantNotBound, 1},
		{"H4 a first signer that may only forward", orders,
			signs(begin()), tenant.OriginationNotAllowed, 0},
		{"H4 a peer that is bound to another tenant", m.issue("reports"),
			signs(begin()), tenant.TenantNotBound, 0},
		{"H5 a last hop that is not fresh", gateway,
			signs(begin(func(c *hop.Claims) { c.IssuedAt = c.IssuedAt.Add(-time.Minute) }),
				func(_ *svid.Conn, h *hop.Handover) { h.Now = h.Now.Add(-hop.Freshness - 2*time.Second) }), tenant.ContextStale, 0},
		{"H5 a hop from the future", gateway,
			signs(begin(), func(_ *svid.Conn, h *hop.Handover) { h.Now = h.Now.Add(hop.Skew + 5*time.Second) }), tenant.ContextNotYetValid, 0},
		{"H5 claims past exp", gateway,
			signs(begin(func(c *hop.Claims) {
				c.IssuedAt, c.Expires = c.IssuedAt.Add(-2*time.Minute), c.IssuedAt.Add(-10*time.Second)
			}), func(_ *svid.Conn, h *hop.Handover) { h.Now = h.Now.Add(-30 * time.Second) }), tenant.ContextExpired, 0},
		{"H5 a signer whose certificate is not valid yet", orders,
			notYetValid(m, begin()), tenant.SVIDExpired, 0},
		{"H8 one byte over the budget", gateway,
			func(*svid.Conn, string) (map[string]string, error) { return map[string]string{hop.HopsKey: wide}, nil }, tenant.MetadataTooLarge, -1},
		{"H7 bytes that are no chain", gateway,
			func(*svid.Conn, string) (map[string]string, error) {
				return map[string]string{hop.HopsKey: "AAAA"}, nil
			}, tenant.ContextMalformed, -1},
		{"M1 an empty value", gateway,
			func(*svid.Conn, string) (map[string]string, error) { return map[string]string{hop.HopsKey: ""}, nil }, tenant.ContextMalformed, -1},
		{"no context", gateway,
			func(*svid.Conn, string) (map[string]string, error) { return nil, nil }, tenant.ContextMissing, -1},
		{"T9 a scope that the first signer may not originate", gateway,
			signs(begin(func(c *hop.Claims) { c.Scopes = []string{"billing.read"} })), tenant.ScopeNotAllowed, 0},
		{"T9 an issuer that the first signer may not originate for", gateway,
			signs(begin(func(c *hop.Claims) { c.Issuer = "https://evil.example" })), tenant.IssuerNotAllowed, 0},
		{"T9 a subject that the first signer may not originate for", gateway,
			signs(begin(func(c *hop.Claims) { c.Subject = "root" })), tenant.SubjectNotAllowed, 0},
		{"T9 a classification above the first signer's", gateway,
			signs(begin(func(c *hop.Claims) { c.Classification = 3 })), tenant.ClassificationNotAllowed, 0},
		{"T9 a lifetime above the first signer's", gateway,
			signs(begin(func(c *hop.Claims) { c.Expires = c.IssuedAt.Add(6 * time.Minute) })), tenant.LifetimeNotAllowed, 0},
		{"T9 a tenant that is not listed", gateway,
			signs(begin(func(c *hop.Claims) { c.Tenant, _ = tenant.ParseID("umbrella") })), tenant.TenantNotBound, 0},
		{"D10 a tenant that was created anew", gateway,
			signs(begin(func(c *hop.Claims) { c.TenantUID = "acme-uid-0" })), tenant.TenantReplaced, 0},
		{"E1 an elevation that nothing grants", gateway,
			signs(begin(func(c *hop.Claims) { c.Elevation = "please" })), tenant.ElevationNotAllowed, 0},
	}
	for _, row := range rows {
		for _, shape := range shapes {
			t.Run(row.name+"/"+shape.name, func(t *testing.T) {
				m := *m
				m.t = t
				cc := m.attack(fixed{row.by, bundles}, row.forge)
				event := m.refused(shape.call(deadline(t), cc), row.reason)
				if row.hop >= 0 && !strings.Contains(event.Detail, fmt.Sprintf("(hop %d)", row.hop)) {
					t.Errorf("detail %q does not name hop %d", event.Detail, row.hop)
				}
				if row.hop >= 0 && (event.Transaction != "txn-1" || event.Proven != slices.Contains(policyReasons, row.reason)) {
					t.Errorf("the event cannot be tied to its transaction: %+v", event)
				}
				if event.Peer != row.by.ID.String() || event.Method != shape.method || event.DecisionID == "" {
					t.Errorf("incomplete event: %+v", event)
				}
			})
		}
	}
}

// policyReasons are those of rows whose chain is good, so that only policy
// refuses it.
var policyReasons = []tenant.Reason{
	tenant.TenantNotBound, tenant.TenantReplaced, tenant.OriginationNotAllowed, tenant.ScopeNotAllowed, tenant.IssuerNotAllowed,
	tenant.SubjectNotAllowed, tenant.ClassificationNotAllowed, tenant.LifetimeNotAllowed, tenant.ElevationNotAllowed,
}

// notYetValid presents a chain whose first signer's certificate becomes valid
// in a minute.
func notYetValid(m *mesh, chain *hop.Chain) forgery {
	own := m.issue("gateway", devdomain.ValidFrom(time.Now().Add(time.Minute), time.Now().Add(time.Hour)))
	return func(conn *svid.Conn, method string) (map[string]string, error) {
		now := time.Now()
		later := now.Add(62 * time.Second)
		held, err := received(chain, own, id("orders"), m.bundles(), later, func(h *hop.Handover) { h.Now = now.Add(5 * time.Second) })
		if err != nil {
			return nil, err
		}
		h := handOver(conn, method)
		h.Now = later
		md, err := held.Sign(conn.Local(), h)
		if err != nil {
			return nil, err
		}
		return onWire(resign(md, conn.Local(), func(s *hop.Statement) { s.IssuedAt = now.Truncate(time.Second) }))
	}
}

// TestMetadata: security keys that are ambiguous, and tenant headers.
func TestMetadata(t *testing.T) {
	m := newMesh(t)
	bundles, gateway := m.bundles(), m.issue("gateway")
	chain, err := hop.Begin(claims("acme"))
	if err != nil {
		t.Fatal(err)
	}
	honest := func(conn *svid.Conn, method string) (map[string]string, error) {
		return onWire(chain.Sign(conn.Local(), handOver(conn, method)))
	}
	for _, shape := range shapes {
		for name, extra := range map[string][]string{
			"M1 two values":                  {hop.HopsKey, "AAAA"},
			"M1 certificates twice":          {hop.CertsKey, "AAAA", hop.CertsKey, "AAAA"},
			"M1 a -bin twin":                 {hop.HopsKey + "-bin", "AAAA"},
			"M1 an underscore variant":       {"tenantmesh_hops", "AAAA"},
			"M1 an underscore certs variant": {"tenantmesh_certs", "AAAA"},
			"M1 a gateway's variant":         {"grpcgateway-tenantmesh-hops", "AAAA"},
		} {
			t.Run(name+"/"+shape.name, func(t *testing.T) {
				m := *m
				m.t = t
				cc := m.attack(fixed{gateway, bundles}, honest)
				m.refused(shape.call(withMetadata(deadline(t), extra...), cc), tenant.MetadataAmbiguous)
			})
		}
		t.Run("M1 values joined by a comma/"+shape.name, func(t *testing.T) {
			m := *m
			m.t = t
			cc := m.attack(fixed{gateway, bundles}, func(conn *svid.Conn, method string) (map[string]string, error) {
				md, err := honest(conn, method)
				if err == nil {
					md[hop.HopsKey] += "," + md[hop.HopsKey]
				}
				return md, err
			})
			m.refused(shape.call(deadline(t), cc), tenant.MetadataAmbiguous)
		})
		for _, key := range []string{"x-tenant-id", "grpc-metadata-x-tenant-id", "grpcgateway-tenant", "X-Tenant"} {
			t.Run("M2 "+key+" chooses no tenant/"+shape.name, func(t *testing.T) {
				m := *m
				m.t = t
				cc := m.attack(fixed{gateway, bundles}, honest)
				event := m.allowed(shape.call(withMetadata(deadline(t), key, "globex", "baggage", "tenant=globex"), cc), "acme")
				if event.Claimed != "globex" {
					t.Errorf("the audit has claimed tenant %q, want globex", event.Claimed)
				}
			})
		}
		t.Run("M3 security metadata never reaches a handler/"+shape.name, func(t *testing.T) {
			m := *m
			m.t = t
			var seen metadata.MD
			m.ran.setHook(func(ctx context.Context) error {
				seen, _ = metadata.FromIncomingContext(ctx)
				return nil
			})
			defer m.ran.setHook(nil)
			cc := m.attack(fixed{gateway, bundles}, honest)
			m.allowed(shape.call(withMetadata(deadline(t), "x-request-id", "7"), cc), "acme")
			for key := range seen {
				if strings.Contains(key, "tenantmesh") {
					t.Errorf("the handler sees %s", key)
				}
			}
			if got := seen.Get("x-request-id"); len(got) != 1 || got[0] != "7" {
				t.Errorf("the handler sees x-request-id %q", got)
			}
		})
	}
}

// TestApplicationSetsSecurityKey: M1, on the sending side.
func TestApplicationSetsSecurityKey(t *testing.T) {
	m := newMesh(t)
	g, cc := m.client("gateway")
	for _, key := range []string{hop.HopsKey, hop.CertsKey, "Tenantmesh_Hops", "tenantmesh-hops-bin"} {
		for _, shape := range shapes {
			t.Run("M1 the application sets "+key+"/"+shape.name, func(t *testing.T) {
				err := shape.call(withMetadata(acme(t, g), key, "AAAA"), cc)
				if got := reason(err); got != tenant.MetadataAmbiguous {
					t.Errorf("got %v, want %s", err, tenant.MetadataAmbiguous)
				}
				if events := m.audit.take(); len(events) != 0 {
					t.Errorf("the call left: %+v", events)
				}
			})
		}
	}
	t.Run("M1 a call credential sets it beside ours", func(t *testing.T) {
		for _, shape := range shapes {
			err := shape.call(acme(t, g), cc, grpc.PerRPCCredentials(&staticCredential{hop.HopsKey, "AAAA"}))
			m.refused(err, tenant.MetadataAmbiguous)
		}
	})
	t.Run("M1 a call credential of the application's works beside ours", func(t *testing.T) {
		for _, shape := range shapes {
			m.allowed(shape.call(acme(t, g), cc, grpc.PerRPCCredentials(&staticCredential{"authorization", "Bearer x"})), "acme")
		}
	})
}

type staticCredential struct{ key, value string }

func (c *staticCredential) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{c.key: c.value}, nil
}
func (c *staticCredential) RequireTransportSecurity() bool { return true }

// TestMethods: who may call what, and what is not there.
func TestMethods(t *testing.T) {
	m := newMesh(t)
	g, cc := m.client("gateway")

	t.Run("M5 a method that no rule covers is refused at run time", func(t *testing.T) {
		cc := m.attack(fixed{m.issue("gateway"), m.bundles()}, nil)
		_, err := grpc_testing.NewTestServiceClient(cc).CacheableUnaryCall(deadline(t), &grpc_testing.SimpleRequest{})
		m.refused(err, tenant.MethodNotCovered)
		uncovered := status.Convert(err).Message()

		for _, method := range []string{"/grpc.testing.TestService/NoSuch", "/no.such.Service/Method"} {
			err := cc.Invoke(deadline(t), method, &grpc_testing.Empty{}, &grpc_testing.Empty{})
			m.refused(err, tenant.MethodNotCovered)
			if got := status.Convert(err); got.Code() != codes.PermissionDenied || got.Message() != uncovered {
				t.Errorf("%s answers %v, which tells it from a method that is there", method, got)
			}
		}
	})
	t.Run("M5 a method that is covered but not registered looks the same", func(t *testing.T) {
		m.policy.p.Store(parsePolicy(t, strings.Replace(document, "TestService/EmptyCall", "TestService/NotThere", 1)))
		defer m.policy.p.Store(parsePolicy(t, document))
		cc := m.attack(fixed{m.issue("gateway"), m.bundles()}, nil)
		err := cc.Invoke(deadline(t), "/grpc.testing.TestService/NotThere", &grpc_testing.Empty{}, &grpc_testing.Empty{})
		if reason(err) != tenant.MethodNotCovered || status.Code(err) != codes.PermissionDenied {
			t.Errorf("got %v", err)
		}
		m.audit.take()
	})
	t.Run("M5 a registered method that no rule covers fails the start", func(t *testing.T) {
		err := m.guard.Check(m.server)
		if reason(err) != tenant.MethodNotCovered {
			t.Fatalf("got %v", err)
		}
		for _, want := range []string{"CacheableUnaryCall", "HalfDuplexCall", "UnimplementedCall", "callers", "exempt"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not name %s", err, want)
			}
		}
		if strings.Contains(err.Error(), "/UnaryCall") {
			t.Errorf("%v names a covered method", err)
		}
	})
	t.Run("an exempt method runs without a tenant", func(t *testing.T) {
		_, err := grpc_testing.NewTestServiceClient(cc).EmptyCall(deadline(t), &grpc_testing.Empty{})
		m.allowed(err, "")
	})
	t.Run("an exempt method never sees a tenant, whatever is sent", func(t *testing.T) {
		ctx := acme(t, g)
		_, err := grpc_testing.NewTestServiceClient(cc).EmptyCall(ctx, &grpc_testing.Empty{})
		m.allowed(err, "")
	})
	t.Run("a peer that is no caller", func(t *testing.T) {
		for _, shape := range shapes {
			cc := m.attack(fixed{m.issue("bystander"), m.bundles()}, nil)
			m.refused(shape.call(deadline(t), cc), tenant.CallerNotAllowed)
		}
	})
	t.Run("a peer that policy does not know", func(t *testing.T) {
		for _, shape := range shapes {
			cc := m.attack(fixed{m.issue("nobody"), m.bundles()}, nil)
			m.refused(shape.call(deadline(t), cc), tenant.WorkloadUnknown)
		}
	})
	t.Run("a tenant that is unknown and one that is not bound look the same", func(t *testing.T) {
		var seen []*status.Status
		for _, name := range []string{"globex", "umbrella"} {
			c := claims(name)
			chain, err := hop.Begin(c)
			if err != nil {
				t.Fatal(err)
			}
			cc := m.attack(fixed{m.issue("intruder"), m.bundles()}, func(conn *svid.Conn, method string) (map[string]string, error) {
				return onWire(chain.Sign(conn.Local(), handOver(conn, method)))
			})
			err = shapes[0].call(deadline(t), cc)
			m.refused(err, tenant.TenantNotBound)
			seen = append(seen, status.Convert(err))
		}
		if seen[0].Code() != seen[1].Code() || seen[0].Message() != seen[1].Message() {
			t.Errorf("%v and %v differ", seen[0], seen[1])
		}
	})
}

// TestIdentity: the peer is checked at every call.
func TestIdentity(t *testing.T) {
	t.Run("I5 an SVID that expires on an open connection", func(t *testing.T) {
		for _, shape := range shapes {
			m := newMesh(t)
			now := time.Now()
			own := m.issue("gateway", devdomain.ValidFrom(now.Add(-time.Minute), now.Add(10*time.Minute)))
			cc := m.attack(fixed{own, m.bundles()}, nil)
			m.refused(shape.call(deadline(t), cc), tenant.ContextMissing)
			m.clock.advance(11 * time.Minute)
			m.refusedBlindly(shape.call(deadline(t), cc), tenant.SVIDExpired)
		}
	})
	t.Run("I4 a bundle that is gone ends existing connections' calls", func(t *testing.T) {
		for _, shape := range shapes {
			m := newMesh(t)
			partner, err := devdomain.New(devdomain.Config{TrustDomain: "partner.example"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = partner.Close() })
			m.domain.Federate(partner)
			partner.Federate(m.domain)
			app, err := partner.Workload("spiffe://partner.example/app")
			if err != nil {
				t.Fatal(err)
			}
			g := m.newGuard(app, new(trail), time.Now)
			cc := m.dial(g.DialOptions(svid.Expect(id("target")))...)
			m.allowed(shape.call(acme(t, g), cc), "acme")

			other, err := hop.Begin(claims("globex"))
			if err != nil {
				t.Fatal(err)
			}
			forged := m.attack(app, func(conn *svid.Conn, method string) (map[string]string, error) {
				return onWire(other.Sign(conn.Local(), handOver(conn, method)))
			})
			m.refused(shape.call(deadline(t), forged), tenant.TenantNotBound) // confined to acme

			m.domain.Unfederate("partner.example")
			m.refusedBlindly(shape.call(acme(t, g), cc), tenant.SVIDUntrusted)
		}
	})
	t.Run("I1 a handshake with a malformed SVID is recorded", func(t *testing.T) {
		m := newMesh(t)
		m.audit.notify = make(chan struct{}, 100) // the client may try again
		certs, key, err := m.domain.IssueRaw(func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) })
		if err != nil {
			t.Fatal(err)
		}
		cc := m.attack(fixed{&x509svid.SVID{ID: m.issue("gateway").ID, Certificates: certs, PrivateKey: key}, m.bundles()}, nil)
		if err := shapes[0].call(deadline(t), cc); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v, want a failed connection", err)
		}
		select { // in TLS 1.3 the client is done before the server
		case <-m.audit.notify:
		case <-deadline(t).Done():
		}
		events := m.audit.take()
		if len(events) == 0 || events[0].Reason != tenant.SVIDMalformed || events[0].Peer != "" {
			t.Errorf("audit: %+v, want %s", events, tenant.SVIDMalformed)
		}
	})
	t.Run("I6 credentials that are not the kit's are refused, whatever options come after", func(t *testing.T) {
		m := newMesh(t, grpc.Creds(insecure.NewCredentials()))
		for _, shape := range shapes {
			cc := m.dial(grpc.WithTransportCredentials(insecure.NewCredentials()))
			m.refusedBlindly(shape.call(withMetadata(deadline(t), hop.HopsKey, "AAAA"), cc), tenant.PeerUnauthenticated)
		}
	})
	t.Run("I4 the client checks the server at every call too", func(t *testing.T) {
		for _, shape := range shapes {
			m := newMesh(t)
			sink := new(trail)
			now := time.Now()
			g := m.newGuard(fixed{m.issue("gateway", devdomain.ValidFrom(now.Add(-time.Minute), now.Add(3*time.Hour))), m.bundles()}, sink, m.clock.now)
			cc := m.dial(g.DialOptions(svid.Expect(id("target")))...)
			m.allowed(shape.call(acme(t, g), cc), "acme")
			m.clock.advance(90 * time.Minute) // past the target's SVID
			late := claims("acme")
			late.Expires = time.Time{}
			ctx, err := g.Originate(deadline(t), late)
			if err != nil {
				t.Fatal(err)
			}
			sink.take()
			if err := shape.call(ctx, cc); reason(err) != tenant.SVIDExpired {
				t.Errorf("%s: got %v", shape.name, err)
			}
			if events := sink.take(); len(events) != 1 || events[0].Reason != tenant.SVIDExpired {
				t.Errorf("%s: the client's audit has %+v", shape.name, events)
			}
			if events := m.audit.take(); len(events) != 0 {
				t.Errorf("%s: the call left: %+v", shape.name, events)
			}
		}
	})
	t.Run("the client refuses a server that it does not expect", func(t *testing.T) {
		m := newMesh(t)
		g := m.newGuard(m.workload("gateway"), new(trail), time.Now)
		cc := m.dial(g.DialOptions(svid.Expect(id("orders")))...)
		if err := shapes[0].call(acme(t, g), cc); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), string(tenant.ServerUnexpected)) {
			t.Errorf("got %v, want a failed connection for %s", err, tenant.ServerUnexpected)
		}
		if runs := m.ran.take(); len(runs) != 0 {
			t.Errorf("the handler ran for %q", runs)
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

// TestUnavailable: what the guard cannot decide, it denies.
func TestUnavailable(t *testing.T) {
	for _, shape := range shapes {
		t.Run("P6 no policy/"+shape.name, func(t *testing.T) {
			m := newMesh(t)
			g, cc := m.client("gateway")
			ctx := acme(t, g)
			m.policy.p.Store(nil)
			if err := shape.call(ctx, cc); reason(err) != tenant.PolicyUnavailable {
				t.Errorf("the client: got %v", err)
			}
			var trailer metadata.MD
			raw := m.attack(fixed{m.issue("gateway"), m.bundles()}, nil)
			m.refused(shape.call(deadline(t), raw, grpc.Trailer(&trailer)), tenant.PolicyUnavailable)
			if got := trailer.Get("grpc-retry-pushback-ms"); len(got) != 1 || got[0] != "-1" {
				t.Errorf("pushback %q, want -1", got)
			}
		})
		t.Run("E2 an audit sink that is down/"+shape.name, func(t *testing.T) {
			m := newMesh(t)
			g, cc := m.client("gateway")
			m.audit.setFail(errors.New("disk full"))
			err := shape.call(acme(t, g), cc)
			if reason(err) != tenant.AuditUnavailable || status.Code(err) != codes.Unavailable {
				t.Errorf("got %v", err)
			}
			if runs := m.ran.take(); len(runs) != 0 {
				t.Errorf("the handler ran for %q", runs)
			}
		})
		t.Run("a closed guard/"+shape.name, func(t *testing.T) {
			m := newMesh(t)
			g, cc := m.client("gateway")
			ctx := acme(t, g)
			if err := m.guard.Close(); err != nil {
				t.Fatal(err)
			}
			m.refused(shape.call(ctx, cc), tenant.PolicyUnavailable)
		})
	}
}
