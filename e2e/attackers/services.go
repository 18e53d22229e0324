package attackers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/e2e/mesh"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	meshv1 "github.com/tenantmesh/tenantmesh/internal/testproto/mesh/v1"
	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// straight are attacks on the shop's own services, by those who are on the
// paths there.
var straight = []struct {
	name   string
	path   string // who signs; the last presents
	target string
	do     func(*attacktest.World, *attacktest.Wire)
	method string // "" stands for the shapes
	want   tenant.Reason
	by     string // who presents it instead
}{
	{name: "M5 the front goes straight to the ledger", path: "gateway", target: "ledger", want: tenant.CallerNotAllowed},
	{name: "M5 orders goes straight to the ledger", path: "gateway orders", target: "ledger", want: tenant.CallerNotAllowed},
	{name: "M5 inventory calls billing", path: "gateway orders stock", target: "billing", want: tenant.CallerNotAllowed},
	{name: "M5 the ledger calls back", path: "gateway orders stock ledger", target: "orders", want: tenant.CallerNotAllowed},
	{name: "M5 a runner calls inventory", path: "tenant/acme/runner/1", target: "inventory", want: tenant.CallerNotAllowed},
	{name: "M5 the intruder calls orders", path: "intruder", target: "orders", want: tenant.CallerNotAllowed},
	{name: "M5 a method that no rule covers", path: "gateway orders", target: "inventory", method: "/mesh.v1.Inventory/Delete", want: tenant.MethodNotCovered},
	{name: "M5 a service that is another's", path: "gateway orders", target: "inventory", method: "/mesh.v1.Billing/Unary", want: tenant.MethodNotCovered},
	{name: "M5 reflection, which is not listed", path: "gateway", target: "orders", method: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", want: tenant.MethodNotCovered},
	{name: "H1 handed to inventory, and used by billing", path: "gateway orders stock", target: "ledger",
		do: func(w *attacktest.World, x *attacktest.Wire) { x.Replace(2, w.SVIDs["billing"]) }, by: "billing", want: tenant.AudienceMismatch},
	{name: "H4 orders starts a chain", path: "orders", target: "inventory", want: tenant.OriginationNotAllowed},
	{name: "H4 inventory starts a chain", path: "stock", target: "ledger", want: tenant.OriginationNotAllowed},
	{name: "T9 the runner of acme for globex", path: "tenant/acme/runner/1", target: "orders",
		do: attacktest.Globex, want: tenant.TenantNotBound},
	{name: "T9 the runner of globex for acme", path: "tenant/globex/runner/1", target: "orders", want: tenant.TenantNotBound},
	{name: "T9 the runner with a scope beyond its own", path: "tenant/acme/runner/1", target: "orders",
		do: attacktest.Claim(func(c *pb.Claims) { c.Scope = []string{"orders.read", "orders.write"} }), want: tenant.ScopeNotAllowed},
	{name: "H4 the partner for globex", path: attacktest.PartnerApp, target: "boundary", do: attacktest.Globex, want: tenant.TenantNotBound},
	{name: "T9 the partner with a scope beyond its own", path: attacktest.PartnerApp, target: "boundary",
		do: attacktest.Claim(func(c *pb.Claims) { c.Scope = []string{"orders.read", "orders.write"} }), want: tenant.ScopeNotAllowed},
	{name: "H4 billing hands the partner what is globex's", path: "gateway orders billing", target: "partner", do: attacktest.Globex, want: tenant.TenantNotBound},
	{name: "H5 the boundary passes the partner's chain on, to who has not its bundle", path: attacktest.PartnerApp + " boundary", target: "orders", want: tenant.SVIDUntrusted},
	{name: "H4 the boundary starts a chain for what it was not handed, by an issuer", path: "boundary", target: "orders",
		do: attacktest.Claim(func(c *pb.Claims) { c.Iss = loginIssuer }), want: tenant.IssuerNotAllowed},
}

// services attacks the shop's own services.
func (r *run) services() error {
	for _, a := range straight {
		path := strings.Fields(a.path)
		if err := r.take(slices.Concat(path, []string{"billing", "gateway"})...); err != nil {
			return err
		}
		target := r.m.Process(a.target)
		w := r.world(target.ID(), acts(path) && a.path != "boundary" && a.path != "orders" && a.path != "stock" && a.path != "intruder")
		do := a.do
		if do == nil {
			do = func(*attacktest.World, *attacktest.Wire) {}
		}
		c, err := r.callee(a.target)
		if err != nil {
			return err
		}
		presenter := path[len(path)-1]
		if a.by != "" {
			presenter = a.by
		}
		cc, err := r.dial(w, target, r.svids[presenter], w.Forged(do, path...))
		if err != nil {
			return err
		}
		if err := r.simple(c, a.name, presenter, a.want, func(s mesh.Shape) error {
			if a.method != "" {
				service, method, _ := strings.Cut(a.method[1:], "/")
				return call(r.ctx, cc, service, mesh.Shape(method), nil)
			}
			return call(r.ctx, cc, target.Service(), s, nil)
		}); err != nil {
			return err
		}
		r.close()
	}
	for _, name := range []string{"*", ".", "..", "%2e", "a|b", "a:b", "a\x00b", "ACME", "аcme", "acme/globex"} {
		if err := r.take("gateway"); err != nil {
			return err
		}
		w := r.world(id(vault), true)
		c, err := r.callee(vault)
		if err != nil {
			return err
		}
		cc, err := r.dial(w, c.p, r.svids["gateway"], w.Forged(attacktest.Claim(func(c *pb.Claims) { c.Tctx.Tenant = name }), "gateway"))
		if err != nil {
			return err
		}
		if err := r.simple(c, fmt.Sprintf("P4 a tenant named %q", name), "gateway", tenant.ContextMalformed, func(s mesh.Shape) error {
			return call(r.ctx, cc, vaultService, s, nil)
		}); err != nil {
			return err
		}
	}
	return r.unknownTenant()
}

// unknownTenant holds what is told of a tenant that is not listed against what is
// told of one that is not bound: they look the same.
func (r *run) unknownTenant() error {
	if err := r.take("tenant/acme/runner/1"); err != nil {
		return err
	}
	w := r.world(id(vault), false)
	c, err := r.callee(vault)
	if err != nil {
		return err
	}
	j := &judge{res: mesh.AttackResult{Name: "P4 a tenant that there is not looks like one that is not bound", Attacker: "tenant/acme/runner/1", Target: vault, Want: tenant.TenantNotBound}}
	var texts []string
	for _, do := range []func(*attacktest.World, *attacktest.Wire){attacktest.Globex, attacktest.Claim(func(c *pb.Claims) { c.Tctx.Tenant = "umbrella" })} {
		cc, err := r.dial(w, c.p, r.svids["tenant/acme/runner/1"], w.Forged(do, "tenant/acme/runner/1"))
		if err != nil {
			return err
		}
		err = call(r.ctx, cc, vaultService, mesh.Unary, nil)
		j.saw(err)
		j.told(err, tenant.TenantNotBound)
		texts = append(texts, status.Convert(err).Message())
		t, ran, err := c.recorded()
		if err != nil {
			return err
		}
		j.refused(t, ran, 1)
	}
	if texts[0] != texts[1] {
		j.wrong("they look different: %q, %q", texts[0], texts[1])
	}
	r.report(j.res, j.against)
	return nil
}

// streams attacks by messages of a stream, and holds streams to what they stand on.
func (r *run) streams() error {
	if err := r.take("gateway"); err != nil {
		return err
	}
	w := r.world(id(vault), true)
	c, err := r.callee(vault)
	if err != nil {
		return err
	}
	cc, err := r.dial(w, c.p, r.svids["gateway"], w.Honest("gateway"))
	if err != nil {
		return err
	}
	other := &meshv1.Work{Id: "s1", TenantId: "globex"}
	for _, shape := range mesh.Shapes {
		j := &judge{res: mesh.AttackResult{Name: "S1 a request that names another tenant", Attacker: "gateway", Target: vault, Shape: shape, Want: tenant.TenantMismatch}}
		err := call(r.ctx, cc, vaultService, shape, other)
		if j.saw(err); status.Code(err) == codes.OK {
			j.wrong("it is answered OK")
		}
		t, ran, err := c.recorded()
		if err != nil {
			return err
		}
		j.refused(lastRefusal(t), ran, 1)
		r.report(j.res, j.against)
	}
	if err := r.midStream(c, cc, "S1 another tenant's message after one of its own", tenant.TenantMismatch, func(s grpc.ClientStream) error {
		return s.SendMsg(&meshv1.BidiRequest{Work: other})
	}); err != nil {
		return err
	}
	for _, idle := range []bool{true, false} {
		name := "S2 claims expire on an idle stream"
		if !idle {
			name = "S2 claims expire on a stream with messages"
		}
		short, err := r.dial(w, c.p, r.svids["gateway"], w.Forged(func(_ *attacktest.World, x *attacktest.Wire) {
			x.Change(0, func(s *pb.Statement) { s.Claims.Exp, s.Exp = s.Claims.Iat+3, s.Claims.Iat+3 })
		}, "gateway"))
		if err != nil {
			return err
		}
		if err := r.midStream(c, short, name, tenant.ContextExpired, func(s grpc.ClientStream) error {
			if idle {
				return nil
			}
			for {
				if err := s.SendMsg(&meshv1.BidiRequest{Work: &meshv1.Work{Id: "first", TenantId: "acme"}}); err != nil && !errors.Is(err, io.EOF) {
					return err
				}
				if err := s.RecvMsg(new(meshv1.BidiResponse)); err != nil {
					return err
				}
			}
		}); err != nil {
			return err
		}
	}
	if d := r.m.Embedded(mesh.Prod); d != nil {
		own, err := d.Issue(id("gateway"), attacktest.Valid(-time.Minute, 3*time.Second))
		if err != nil {
			return err
		}
		old := r.svids["gateway"]
		r.svids["gateway"] = own
		cc, err := r.dial(w, c.p, own, w.Forged(func(_ *attacktest.World, x *attacktest.Wire) {}, "gateway"))
		if err != nil {
			return err
		}
		err = r.midStream(c, cc, "I5 an SVID expires on an open stream", tenant.SVIDExpired, func(grpc.ClientStream) error { return nil })
		r.svids["gateway"] = old
		if err != nil {
			return err
		}
		j := &judge{res: mesh.AttackResult{Name: "I5 a call on a connection whose SVID expired since", Attacker: "gateway", Target: vault, Want: tenant.SVIDExpired}}
		err = call(r.ctx, cc, vaultService, mesh.Unary, nil)
		j.saw(err)
		blind(j, err)
		t, ran, err := c.recorded()
		if err != nil {
			return err
		}
		j.refused(t, ran, 1)
		r.report(j.res, j.against)
	}
	r.close()
	return nil
}

func lastRefusal(t mesh.Trail) mesh.Trail {
	t.Events = slices.DeleteFunc(slices.Clone(t.Events), func(e audit.Event) bool { return e.Allowed })
	return t
}

// midStream opens a stream that is good, and then does what must end it.
func (r *run) midStream(c *callee, cc *grpc.ClientConn, name string, want tenant.Reason, do func(grpc.ClientStream) error) error {
	ctx, cancel := context.WithTimeout(r.ctx, timeout)
	defer cancel()
	j := &judge{res: mesh.AttackResult{Name: name, Attacker: "gateway", Target: vault, Shape: mesh.Bidi, Want: want}}
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/"+vaultService+"/Bidi")
	if err != nil {
		return err
	}
	if err := s.SendMsg(&meshv1.BidiRequest{Work: &meshv1.Work{Id: "first", TenantId: "acme"}}); err != nil {
		return err
	}
	if err := s.RecvMsg(new(meshv1.BidiResponse)); err != nil {
		j.wrong("its first message: %v", err)
	}
	if err = do(s); err == nil {
		err = drain(s)
	}
	if j.saw(err); err == nil || status.Code(err) == codes.DeadlineExceeded {
		j.wrong("it does not end: %v", err)
	}
	t, ran, err := c.recorded()
	if err != nil {
		return err
	}
	if ran != 1 {
		j.wrong("%d handlers ran", ran)
	}
	j.refused(lastRefusal(t), 0, 1)
	r.report(j.res, j.against)
	return nil
}

// servers puts servers that are not the ones expected where the vault should
// be, for a client with a guard.
func (r *run) servers() error {
	if err := r.take("gateway", "intruder", attacktest.PartnerApp); err != nil {
		return err
	}
	good := certificate(r.svids["intruder"])
	withTLS := func(change func(*tls.Config)) credentials.TransportCredentials {
		c := &tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
		change(c)
		return credentials.NewTLS(c)
	}
	type server struct {
		name  string
		creds credentials.TransportCredentials
		want  tenant.Reason
	}
	all := []server{
		{"I6 a plaintext listener in the place of a service", insecure.NewCredentials(), tenant.PeerUnauthenticated},
		{"I6 a server-only TLS listener in the place of a service", withTLS(func(c *tls.Config) { c.ClientAuth = tls.NoClientCert }), tenant.ServerUnexpected},
		{"I6 a TLS 1.2 listener in the place of a service", withTLS(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), tenant.PeerUnauthenticated},
		{"I3 a workload of the mesh in the place of another", withTLS(func(*tls.Config) {}), tenant.ServerUnexpected},
		{"I3 a workload of another trust domain in the place of a service", withTLS(func(c *tls.Config) {
			c.Certificates = []tls.Certificate{certificate(r.svids[attacktest.PartnerApp])}
		}), tenant.SVIDUntrusted}, // the gateway has no bundle of it
	}
	if d := r.m.Embedded(mesh.Prod); d != nil {
		for _, l := range wrongLeaves() {
			certs, key, err := l.issue(d)
			if err != nil {
				return err
			}
			cert := tls.Certificate{PrivateKey: key}
			for _, c := range certs {
				cert.Certificate = append(cert.Certificate, c.Raw)
			}
			all = append(all, server{l.name + ", of a server", withTLS(func(c *tls.Config) { c.Certificates = []tls.Certificate{cert} }), l.want})
		}
	}
	for _, s := range all {
		if err := r.server(s.name, s.creds, s.want); err != nil {
			return err
		}
	}
	return nil
}

// impostor counts what reaches it.
type impostor struct {
	meshv1.UnimplementedMeshServiceServer
	runs chan struct{}
}

func (i *impostor) Unary(context.Context, *meshv1.UnaryRequest) (*meshv1.UnaryResponse, error) {
	i.runs <- struct{}{}
	return &meshv1.UnaryResponse{}, nil
}

func (r *run) server(name string, creds credentials.TransportCredentials, want tenant.Reason) error {
	lis, err := new(net.ListenConfig).Listen(r.ctx, "tcp", net.JoinHostPort(r.m.Gateway(), "0"))
	if err != nil {
		return err
	}
	srv, imp := grpc.NewServer(grpc.Creds(creds)), &impostor{runs: make(chan struct{}, 10)}
	desc := meshv1.MeshService_ServiceDesc
	desc.ServiceName = "mesh.v1.Orders"
	srv.RegisterService(&desc, imp)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(lis) // it is stopped
	}()
	defer func() {
		srv.Stop()
		<-served
	}()

	// The real gateway is told that orders is there.
	gateway := r.m.Process("gateway")
	c, err := r.callee("gateway")
	if err != nil {
		return err
	}
	redirect := func(addr string) error {
		return gateway.Ask(r.ctx, "Redirect", mesh.Redirect{To: "orders", Addr: addr}, &mesh.None{})
	}
	if err := redirect(lis.Addr().String()); err != nil {
		return err
	}
	j := &judge{res: mesh.AttackResult{Name: name, Attacker: "a server", Target: "gateway", Want: want}}
	var got string
	err = gateway.Ask(r.ctx, "One", mesh.Generate{To: "orders", Tenants: []string{"acme"}, Shapes: []mesh.Shape{mesh.Unary}}, &got)
	if err != nil {
		return err
	}
	t, _, err := c.awaited()
	if err != nil {
		return err
	}
	if j.res.Saw = got; !strings.HasPrefix(got, codes.Unavailable.String()) {
		j.wrong("the call of the gateway ended with %q", got)
	}
	j.refused(t, uint64(len(imp.runs)), max(1, len(t.Events)))
	if err := redirect(""); err != nil {
		return err
	}
	// The mesh is whole again before the next one.
	for late := time.Now().Add(10 * time.Second); ; {
		if err := gateway.Ask(r.ctx, "One", mesh.Generate{To: "orders", Tenants: []string{"acme"}, Shapes: []mesh.Shape{mesh.Unary}}, &got); err != nil {
			return err
		}
		if got == "" {
			break
		}
		if time.Now().After(late) {
			return fmt.Errorf("attackers: the gateway does not find back to orders: %s", got)
		}
	}
	r.report(j.res, j.against)
	return nil
}

// federation takes the partner's bundle away while it holds a connection.
func (r *run) federation() error {
	var attacks []attacktest.Attack
	for _, a := range attacktest.Attacks() {
		if a.Unfederated {
			attacks = append(attacks, a)
		}
	}
	names := []string{attacktest.PartnerApp}
	for _, a := range attacks {
		names = append(names, a.Signers()...)
	}
	if err := r.take(names...); err != nil {
		return err
	}
	w := r.world(id(vault), false)
	c, err := r.callee(vault)
	if err != nil {
		return err
	}
	cc, err := r.dial(w, c.p, r.svids[attacktest.PartnerApp], w.Honest(attacktest.PartnerApp))
	if err != nil {
		return err
	}
	if err := call(r.ctx, cc, vaultService, mesh.Unary, nil); err != nil {
		return fmt.Errorf("attackers: the partner: %w", err)
	}
	if _, _, err := c.recorded(); err != nil {
		return err
	}
	d := r.m.Domain(mesh.Prod)
	if err := d.Unfederate(r.ctx, mesh.Partner); err != nil {
		return err
	}
	if err := r.hasBundles(c.p, 1); err != nil {
		return err
	}
	if err := r.made(c, "I4 a bundle that is gone ends the calls of connections that there are", attacktest.PartnerApp, tenant.SVIDUntrusted, blind, func(s mesh.Shape) error {
		return call(r.ctx, cc, vaultService, s, nil)
	}); err != nil {
		return err
	}
	for _, a := range attacks {
		var at *attacktest.Attempt
		presenter := a.Signers()[len(a.Signers())-1]
		f, err := r.caller(w, c.p, r.svids[presenter], "gRPC", func(binding [32]byte, method string) (map[string]string, error) {
			return at.Metadata(binding, method)
		})
		if err != nil {
			return err
		}
		if err := r.simple(c, a.Name, presenter, a.Want, func(s mesh.Shape) error {
			at = a.In(w)
			at.Forging = true
			return f(s)
		}); err != nil {
			return err
		}
	}
	if err := d.Federate(r.ctx, mesh.Partner); err != nil {
		return err
	}
	return r.hasBundles(c.p, 2)
}

// hasBundles waits until a workload has the bundles of so many trust domains.
func (r *run) hasBundles(p *mesh.Process, n int) error {
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := p.Status(r.ctx)
		if err != nil {
			return err
		}
		if len(s.TrustDomains) == n {
			return nil
		}
		select {
		case <-tick.C:
		case <-late.C:
			return fmt.Errorf("attackers: %s has bundles of %q after a minute", p.Name(), s.TrustDomains)
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		}
	}
}
