package attackers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/e2e/mesh"
	"github.com/tenantmesh/tenantmesh/edge"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	meshv1 "github.com/tenantmesh/tenantmesh/internal/testproto/mesh/v1"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// refreshInterval is the least time between two fetches of keys.
const refreshInterval = 500 * time.Millisecond

// Front is the receiver of a process that lets clients with bearer tokens in: by HTTP,
// with a grpc-gateway behind the edge; and by gRPC, for a grpc-gateway in front of it.
// Both grpc-gateways pass all headers on.
type Front struct {
	env   *mesh.Env
	ctx   context.Context
	guard *interceptors.Guard
}

func runFront(ctx context.Context, env *mesh.Env) (any, error) {
	guard, err := env.Guard(ctx)
	return &Front{env, ctx, guard}, err
}

// FrontConfig is where the issuers are.
type FrontConfig struct {
	Issuers     string // address of both, by TLS
	Certificate []byte // DER
}

// FrontAddrs are where the front listens: the edge with a grpc-gateway behind it, a
// grpc-gateway before an edge, and one that leaves Authorization to grpc-gateway itself.
type FrontAddrs struct{ Behind, Doubling, Before string }

// Serve starts it.
func (f *Front) Serve(cfg FrontConfig, reply *FrontAddrs) error {
	cert, err := x509.ParseCertificate(cfg.Certificate)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	v, err := edge.NewVerifier(edge.Config{
		Issuers: []edge.Issuer{
			{URL: loginIssuer, Audience: attacktest.Audience},
			{URL: otherIssuer, Audience: attacktest.Audience, Type: "JWT", Tenants: []tenant.ID{attacktest.Must(tenant.ParseID("acme"))}},
		},
		Client: &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS13}, // the name in httptest's certificate
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, cfg.Issuers)
			},
		}},
		Leeway: 10 * time.Second, Audit: f.env.Audit(),
		Keys: edge.KeyLimits{RefreshInterval: refreshInterval, RefreshAfter: time.Second, MaxKeyAge: 2 * time.Second, Timeout: time.Second},
	})
	if err != nil {
		return err
	}
	orders := f.env.Peers["orders"]
	cc, err := grpc.NewClient("passthrough:///"+orders.Addr, f.guard.DialOptions(svid.Expect(orders.ID))...)
	if err != nil {
		return err
	}
	// HTTP → edge → grpc-gateway → orders.
	if reply.Behind, err = f.serve(edge.HTTP(v, f.guard, translate(cc, true))); err != nil {
		return err
	}
	// HTTP → grpc-gateway → gRPC → edge → orders. Between the two is the loopback.
	lis, err := new(net.ListenConfig).Listen(f.ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := grpc.NewServer(grpc.UnaryInterceptor(edge.UnaryServerInterceptor(v, f.guard)))
	desc := meshv1.MeshService_ServiceDesc
	desc.ServiceName = orders.Service
	srv.RegisterService(&desc, &behind{cc: cc, service: orders.Service})
	go func() { _ = srv.Serve(lis) }()
	inside, err := grpc.NewClient("passthrough:///"+lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	if reply.Doubling, err = f.serve(translate(inside, true)); err != nil {
		return err
	}
	reply.Before, err = f.serve(translate(inside, false))
	return err
}

func (f *Front) serve(h http.Handler) (addr string, err error) {
	host, _, err := net.SplitHostPort(f.env.Listen)
	if err != nil {
		return "", err
	}
	lis, err := new(net.ListenConfig).Listen(f.ctx, "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	go func() { _ = (&http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}).Serve(lis) }()
	return lis.Addr().String(), nil
}

// behind passes calls on with the context that the edge made.
type behind struct {
	meshv1.UnimplementedMeshServiceServer
	cc      *grpc.ClientConn
	service string
}

// Unary implements [meshv1.MeshServiceServer].
func (b *behind) Unary(ctx context.Context, in *meshv1.UnaryRequest) (*meshv1.UnaryResponse, error) {
	if md, ok := metadata.FromIncomingContext(ctx); ok { // as careless proxies do
		md = md.Copy()
		for key := range md {
			if strings.HasPrefix(key, ":") || key == "content-type" || key == "user-agent" {
				delete(md, key)
			}
		}
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	out := new(meshv1.UnaryResponse)
	return out, b.cc.Invoke(ctx, "/"+b.service+"/Unary", in, out)
}

// translate returns a grpc-gateway that passes all headers on under their own
// names; Authorization, which grpc-gateway passes on in any case, only if it is to. It does
// what generated code does for POST /v1/orders with body "*".
func translate(cc *grpc.ClientConn, authorization bool) http.Handler {
	mux := runtime.NewServeMux(runtime.WithIncomingHeaderMatcher(func(key string) (string, bool) {
		return key, authorization || key != "Authorization"
	}))
	err := mux.HandlePath(http.MethodPost, "/v1/orders", func(w http.ResponseWriter, req *http.Request, _ map[string]string) {
		in, out := runtime.MarshalerForRequest(mux, req)
		const method = "/mesh.v1.Orders/Unary"
		ctx, err := runtime.AnnotateContext(req.Context(), mux, req, method, runtime.WithHTTPPathPattern("/v1/orders"))
		if err != nil {
			runtime.HTTPError(ctx, mux, out, w, req, err)
			return
		}
		var r meshv1.UnaryRequest
		if err := in.NewDecoder(req.Body).Decode(&r); err != nil && !errors.Is(err, io.EOF) {
			runtime.HTTPError(ctx, mux, out, w, req, err)
			return
		}
		var answer meshv1.UnaryResponse
		var md runtime.ServerMetadata
		if err := cc.Invoke(ctx, method, &r, &answer, grpc.Header(&md.HeaderMD), grpc.Trailer(&md.TrailerMD)); err != nil {
			runtime.HTTPError(runtime.NewServerMetadataContext(ctx, md), mux, out, w, req, err)
			return
		}
		runtime.ForwardResponseMessage(runtime.NewServerMetadataContext(ctx, md), mux, out, w, req, &answer, mux.GetForwardResponseOptions()...)
	})
	if err != nil {
		panic(err)
	}
	return mux
}

// login are the two issuers, in this process.
type login struct {
	one, other *attacktest.Issuer
	server     *httptest.Server
	ahead      time.Duration // of the issuers' clock
}

func (r *run) login() (*login, error) {
	l := &login{}
	now := func() time.Time { return time.Now().Add(l.ahead) }
	l.one, l.other = attacktest.NewIssuer(now), attacktest.NewIssuer(now)
	l.one.URL, l.other.URL = loginIssuer, otherIssuer
	attacktest.PublishForAttacks(l.one, l.other)
	lis, err := new(net.ListenConfig).Listen(r.ctx, "tcp", net.JoinHostPort(r.m.Gateway(), "0"))
	if err != nil {
		return nil, err
	}
	l.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Host == strings.TrimPrefix(loginIssuer, "https://") {
			l.one.ServeHTTP(w, req)
		} else {
			l.other.ServeHTTP(w, req)
		}
	}))
	_ = l.server.Listener.Close()
	l.server.Listener = lis
	l.server.StartTLS()
	r.closing = append(r.closing, l.server.Close)
	return l, nil
}

// tokens attacks the front with forged tokens, and with headers beside good ones.
func (r *run) tokens() error {
	l, err := r.login()
	if err != nil {
		return err
	}
	var addrs FrontAddrs
	if err := r.m.Process(front).Ask(r.ctx, "Serve", FrontConfig{l.server.Listener.Addr().String(), l.server.Certificate().Raw}, &addrs); err != nil {
		return err
	}
	e, err := r.callee(front)
	if err != nil {
		return err
	}
	c, err := r.callee("orders")
	if err != nil {
		return err
	}
	f := &frontAttack{r: r, l: l, edge: e, orders: c}
	list := attacktest.TokenAttacks(l.one, l.other)
	for i, a := range list {
		if a.Local || strings.HasSuffix(a.Name, "behind") {
			continue // no HTTP client sends it
		}
		token := a.Token
		if strings.Contains(a.Name, "future") || strings.Contains(a.Name, "edge") { // anew, so that they are of this moment
			if l.ahead = 0; strings.Contains(a.Name, "future") {
				l.ahead = 2 * time.Second
			}
			token = attacktest.TokenAttacks(l.one, l.other)[i].Token
			l.ahead = 0
		}
		if err := f.refused(a.Name, addrs.Behind, a.Want, http.Header{"Authorization": {"Bearer " + token}}); err != nil {
			return err
		}
	}
	for _, a := range []struct {
		name   string
		header http.Header
		want   tenant.Reason
	}{
		{"T6 no token", nil, tenant.TokenMissing},
		{"T4 two tokens", http.Header{"Authorization": {"Bearer " + l.one.Good(nil), "Bearer " + l.one.Good(nil)}}, tenant.TokenMalformed},
		{"T9 a tenant that is not listed", bearer(l.one.Good(attacktest.TokenClaims{"tenant": "umbrella"})), tenant.TenantNotBound},
		{"T9 a scope beyond the front's own", bearer(l.one.Good(attacktest.TokenClaims{"scope": "billing.read"})), tenant.ScopeNotAllowed},
		{"T9 a subject that the front may not act for", bearer(l.one.Good(attacktest.TokenClaims{"sub": "root"})), tenant.SubjectNotAllowed},
	} {
		if err := f.refused(a.name, addrs.Behind, a.want, a.header); err != nil {
			return err
		}
	}
	good := l.one.Good(nil)
	if err := f.beside("a grpc-gateway behind the edge", addrs.Behind, good); err != nil {
		return err
	}
	if err := f.beside("a grpc-gateway before the edge", addrs.Before, good); err != nil {
		return err
	}
	if err := f.refused("M1 a grpc-gateway that passes Authorization on twice", addrs.Doubling, tenant.TokenMalformed, bearer(good)); err != nil {
		return err
	}
	return f.keys(addrs.Behind)
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// frontAttack attacks the front and looks at it and at orders behind it.
type frontAttack struct {
	r            *run
	l            *login
	edge, orders *callee
}

// answer is what a client of the front is told.
type answer struct {
	code   int
	reason string
	body   string
}

func (f *frontAttack) post(addr string, header http.Header) (answer, error) {
	req, err := http.NewRequestWithContext(f.r.ctx, http.MethodPost, "http://"+addr+"/v1/orders", strings.NewReader(`{"work": {"id": "http"}}`))
	if err != nil {
		return answer{}, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return answer{}, err
	}
	var p struct{ Reason string }
	_ = json.Unmarshal(body, &p) // not all have one
	return answer{resp.StatusCode, p.Reason, string(body)}, nil
}

// refused makes an attack that the edge refuses.
func (f *frontAttack) refused(name, addr string, want tenant.Reason, header http.Header) error {
	j := &judge{res: mesh.AttackResult{Name: name, Attacker: "a client", Target: front, Want: want}}
	got, err := f.post(addr, header)
	if err != nil {
		return err
	}
	j.res.Saw = strings.TrimSpace(fmt.Sprint("HTTP ", got.code, " ", got.reason))
	if strings.Contains(got.body, attacktest.TokenCanary) {
		j.wrong("M6: the client is told a claim")
	}
	proven := slices.Contains([]tenant.Reason{tenant.TokenTenant, tenant.TenantNotBound, tenant.ScopeNotAllowed, tenant.SubjectNotAllowed}, want)
	if code := map[bool]int{true: http.StatusForbidden, false: http.StatusUnauthorized}[proven]; got.code != code || proven != (got.reason == string(want)) {
		j.wrong("the client was told %s", got.body)
	}
	t, _, err := f.edge.recorded()
	if err != nil {
		return err
	}
	behind, ran, err := f.orders.recorded()
	if err != nil {
		return err
	}
	if len(behind.Events) > 0 {
		j.wrong("it got as far as orders: %+v", behind.Events)
	}
	j.refused(t, ran, 1)
	f.r.report(j.res, j.against)
	return nil
}

// beside sends headers beside a good token, through a grpc-gateway that passes all on: they choose nothing.
func (f *frontAttack) beside(where, addr, good string) error {
	r := f.r
	for _, c := range []*callee{f.edge, f.orders} {
		if err := c.p.Trace(r.ctx, true); err != nil {
			return err
		}
		if _, _, err := c.recorded(); err != nil {
			return err
		}
	}
	for _, h := range []struct {
		name, value string
		claimed     bool
		line        string
	}{
		{"X-Tenant-Id", "globex", true, "M2"},
		{"X-Tenant", "globex", true, "M2"},
		{"Grpc-Metadata-X-Tenant-Id", "globex", true, "M2"},
		{"Grpcgateway-Tenant", "globex", true, "M2"},
		{"Baggage", "tenant=globex", false, "M2"},
		{"Tenantmesh-Hops", "AAAA", false, "M1"},
		{"Tenantmesh-Certs", "AAAA", false, "M1"},
		{"Grpc-Metadata-Tenantmesh-Hops", "AAAA", false, "M1"},
		{"Tenantmesh_hops", "AAAA", false, "M1"},
		{"Tenantmesh-Hops-Bin", "AAAA", false, "M1"},
		{"Connection", "close", false, "M1"}, // HTTP/2 has no such field (RFC 9113, section 8.2.2)
	} {
		breaks := h.name == "Connection"
		j := &judge{res: mesh.AttackResult{Name: h.line + " " + h.name + ": " + h.value + ", through " + where, Attacker: "a client", Target: "orders"}}
		header := bearer(good)
		header[h.name] = []string{h.value}
		got, err := f.post(addr, header)
		if err != nil {
			return err
		}
		j.res.Saw = strings.TrimSpace(fmt.Sprint("HTTP ", got.code, " ", got.reason))
		atEdge, _, err := f.edge.recorded()
		if err != nil {
			return err
		}
		t, ran, err := f.orders.recorded()
		if err != nil {
			return err
		}
		if breaks {
			if got.code != http.StatusInternalServerError || ran != 0 || len(t.Events) != 0 {
				j.wrong("HTTP %d, %d runs, orders recorded %+v", got.code, ran, t.Events)
			}
		} else if got.code != http.StatusOK || ran != 1 || len(t.Events) != 1 || !t.Events[0].Allowed || t.Events[0].Tenant != "acme" {
			j.wrong("HTTP %d, %d runs, orders recorded %+v", got.code, ran, t.Events)
		}
		if claimed := slices.ContainsFunc(atEdge.Events, func(e audit.Event) bool { return e.Point == audit.Edge && e.Claimed == "globex" }); claimed != h.claimed {
			j.wrong("the edge recorded %+v", atEdge.Events)
		}
		if strings.Contains(fmt.Sprintf("%+v%+v%s", atEdge, t, got.body), attacktest.TokenCanary) {
			j.wrong("M6: a claim shows")
		}
		r.report(j.res, j.against)
	}
	for _, c := range []*callee{f.edge, f.orders} {
		if err := c.p.Trace(r.ctx, false); err != nil {
			return err
		}
	}
	return nil
}

// keys takes the issuers' keys away: the last good ones are used until their
// limit, and keys are never fetched per request.
func (f *frontAttack) keys(addr string) error {
	is, good := f.l.one, f.l.one.Good(nil)
	answers := is.Answers()
	defer is.Answer(answers)
	faults := map[string]http.HandlerFunc{
		"down":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"garbage": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"keys":[` + strings.Repeat(" ", 1<<20) + `]}`))
		},
		"slow": func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() },
	}
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		j := &judge{res: mesh.AttackResult{Name: "T10 the JWKS endpoint is " + name, Attacker: "a client", Target: front, Want: tenant.KeysUnavailable}}
		is.Answer(answers)
		if err := f.until(addr, good, http.StatusOK); err != nil {
			return err
		}
		is.Answer(faults[name])
		began, before, requests := time.Now(), is.Fetches.Load(), 0
		got, err := f.post(addr, bearer(good))
		if err != nil {
			return err
		}
		if got.code != http.StatusOK {
			j.wrong("the last good keys are not used: HTTP %d", got.code)
		}
		if err := f.until(addr, good, http.StatusServiceUnavailable); err != nil {
			return err
		}
		if _, _, err := f.edge.recorded(); err != nil {
			return err
		}
		if _, _, err := f.orders.recorded(); err != nil {
			return err
		}
		for ; requests < 10; requests++ {
			if got, err = f.post(addr, bearer(good)); err != nil {
				return err
			}
		}
		j.res.Saw = fmt.Sprint("HTTP ", got.code)
		if fetches, most := int64(is.Fetches.Load()-before), int64(time.Since(began)/refreshInterval)+2; fetches > most {
			j.wrong("%d fetches in %s, for %d requests", fetches, time.Since(began), requests)
		}
		t, _, err := f.edge.recorded()
		if err != nil {
			return err
		}
		_, ran, err := f.orders.recorded()
		if err != nil {
			return err
		}
		j.refused(t, ran, requests)
		f.r.report(j.res, j.against)
	}
	return nil
}

// until asks until the front answers with a code.
func (f *frontAttack) until(addr, token string, code int) error {
	late := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := f.post(addr, bearer(token))
		if err != nil {
			return err
		}
		if got.code == code {
			return nil
		}
		if time.Now().After(late) {
			return fmt.Errorf("attackers: the front answers HTTP %d instead of %d: %s", got.code, code, got.body)
		}
		select {
		case <-tick.C:
		case <-f.r.ctx.Done():
			return context.Cause(f.r.ctx)
		}
	}
}
