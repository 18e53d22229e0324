package attackers

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/e2e/mesh"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// headers makes the attacks by metadata beside an honest context, and by raw
// header fields.
func (r *run) headers() error {
	if err := r.take("gateway"); err != nil {
		return err
	}
	w := r.world(id(vault), true)
	c, err := r.callee(vault)
	if err != nil {
		return err
	}
	own, honest := r.svids["gateway"], w.Honest("gateway")
	cc, err := r.dial(w, c.p, own, honest)
	if err != nil {
		return err
	}
	joined, err := r.dial(w, c.p, own, attacktest.Joined(honest))
	if err != nil {
		return err
	}
	byFields := func(cc *grpc.ClientConn, fields ...string) caller {
		return func(s mesh.Shape) error { return call(r.ctx, cc, vaultService, s, nil, fields...) }
	}
	for _, h := range attacktest.BesideHonest() {
		if err := r.simple(c, h.Name, "gateway", h.Want, byFields(cc, h.Fields...)); err != nil {
			return err
		}
	}
	if err := r.simple(c, "M1 values joined by a comma", "gateway", tenant.MetadataAmbiguous, byFields(joined)); err != nil {
		return err
	}
	for _, name := range attacktest.TenantHeaders() {
		if err := r.ignored(c, "M2 "+name+" beside an honest context", byFields(cc, name, "globex", "baggage", "tenant=globex")); err != nil {
			return err
		}
	}
	bare, err := r.dial(w, c.p, own, nil)
	if err != nil {
		return err
	}
	if err := r.simple(c, "M2 x-tenant-id instead of a context", "gateway", tenant.ContextMissing, byFields(bare, "x-tenant-id", "acme")); err != nil {
		return err
	}
	for _, h := range attacktest.RawHeaders() {
		attack := r.rawCaller(c, own, func(raw *attacktest.Raw, s mesh.Shape) error {
			return raw.Call("/"+vaultService+"/"+string(s), h.Fields...)
		})
		if h.Want == "" {
			err = r.silent(c, h.Name+", by raw HTTP/2", "gateway", attack)
		} else {
			err = r.simple(c, h.Name+", by raw HTTP/2", "gateway", h.Want, attack)
		}
		if err != nil {
			return err
		}
	}
	return r.simple(c, "H8 over budget, refused before a message is read", "gateway", tenant.MetadataTooLarge, r.rawCaller(c, own, func(raw *attacktest.Raw, s mesh.Shape) error {
		return raw.Open("/"+vaultService+"/"+string(s), "tenantmesh-hops", strings.Repeat("A", 8000))
	}))
}

// rawCaller calls on a raw connection of its own each time.
func (r *run) rawCaller(c *callee, own *x509svid.SVID, f func(*attacktest.Raw, mesh.Shape) error) caller {
	return func(s mesh.Shape) error {
		raw, err := attacktest.DialRaw(r.ctx, c.p.Addr(), own)
		if err != nil {
			return err
		}
		defer raw.Close()
		return f(raw, s)
	}
}

// simple makes an attack in all shapes, of which the caller is told the reason.
func (r *run) simple(c *callee, name, attacker string, want tenant.Reason, attack caller) error {
	return r.made(c, name, attacker, want, func(j *judge, err error) { j.told(err, want) }, attack)
}

// silent makes an attack that HTTP/2 itself refuses: nothing is recorded.
func (r *run) silent(c *callee, name, attacker string, attack caller) error {
	return r.made(c, name, attacker, "", func(j *judge, err error) {
		if err == nil {
			j.wrong("it is answered OK")
		}
	}, attack)
}

// blind asserts that a peer without a proven identity is told nothing else.
func blind(j *judge, err error) {
	if st := status.Convert(err); st.Code() != codes.Unauthenticated || st.Message() != "unauthenticated" || len(st.Details()) > 0 {
		j.wrong("a peer without a proven identity was told more than that: %v", err)
	}
}

func (r *run) made(c *callee, name, attacker string, want tenant.Reason, told func(*judge, error), attack caller) error {
	j := &judge{res: mesh.AttackResult{Name: name, Attacker: attacker, Target: c.p.Name(), Want: want}}
	for _, shape := range mesh.Shapes {
		err := attack(shape)
		j.saw(err)
		told(j, err)
		t, ran, err := c.recorded()
		if err != nil {
			return err
		}
		n := 1
		if want == "" {
			n = 0
		}
		j.refused(t, ran, n)
	}
	r.report(j.res, j.against)
	return nil
}

// ignored makes a call in all shapes that goes on as what it is: for acme. What
// was claimed beside is recorded.
func (r *run) ignored(c *callee, name string, attack caller) error {
	if err := c.p.Trace(r.ctx, true); err != nil {
		return err
	}
	j := &judge{res: mesh.AttackResult{Name: name + ": it chooses nothing, and is recorded", Attacker: "gateway", Target: c.p.Name()}}
	for _, shape := range mesh.Shapes {
		err := attack(shape)
		j.saw(err)
		if err != nil {
			j.wrong("%s: %v", shape, err)
		}
		t, ran, err := c.recorded()
		if err != nil {
			return err
		}
		if ran != 1 || len(t.Events) != 1 || !t.Events[0].Allowed || t.Events[0].Tenant != "acme" || t.Events[0].Claimed != "globex" {
			j.wrong("%s: %d runs, %+v", shape, ran, t.Events)
		}
	}
	r.report(j.res, j.against)
	return c.p.Trace(r.ctx, false)
}

// paths sends :paths that no gRPC client sends.
func (r *run) paths() error {
	if err := r.take("gateway"); err != nil {
		return err
	}
	c, err := r.callee(vault)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(attacktest.Paths("/a/b"))) {
		j := &judge{res: mesh.AttackResult{Name: "M4 :path " + name, Attacker: "gateway", Target: vault, Want: tenant.MethodNotCovered}}
		for _, shape := range mesh.Shapes {
			err := r.rawCaller(c, r.svids["gateway"], func(raw *attacktest.Raw, s mesh.Shape) error {
				return raw.Call(attacktest.Paths("/" + vaultService + "/" + string(s))[name])
			})(shape)
			if err == nil {
				j.wrong("%s: it is answered OK", shape)
			}
			j.saw(err)
			t, ran, err := c.recorded()
			if err != nil {
				return err
			}
			if len(t.Events) == 0 {
				j.res.Want = "" // grpc's own refusal
			}
			j.refused(t, ran, len(t.Events))
		}
		r.report(j.res, j.against)
	}
	return nil
}

// clients connects without an SVID that is good.
func (r *run) clients() error {
	if err := r.take("gateway", "orders"); err != nil {
		return err
	}
	good := certificate(r.svids["gateway"])
	for _, cl := range []struct {
		name  string
		creds credentials.TransportCredentials
	}{
		{"I6 a plaintext client", insecure.NewCredentials()},
		{"I6 a client without a certificate", credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})},                                                        //nolint:gosec // an attacker
		{"I6 a TLS 1.2 client", credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12})}, //nolint:gosec // an attacker
	} {
		if err := r.handshake(cl.name, cl.creds, tenant.PeerUnauthenticated); err != nil {
			return err
		}
	}
	d := r.m.Embedded(mesh.Prod)
	if d == nil {
		return nil // Omitted says so
	}
	for _, l := range wrongLeaves() {
		certs, key, err := l.issue(d)
		if err != nil {
			return err
		}
		own := &x509svid.SVID{Certificates: certs, PrivateKey: key}
		if err := r.handshake(l.name+", of a client", credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{certificate(own)}, InsecureSkipVerify: true, //nolint:gosec // an attacker
		}), l.want); err != nil {
			return err
		}
		if strings.HasPrefix(l.name, "H8") || strings.HasPrefix(l.name, "I5") {
			continue // chains has them
		}
		onChain := l.want
		if certs[0].PublicKey == nil {
			onChain = tenant.ContextMalformed // it does not parse
		}
		if err := r.onChain(l.name+", on the chain", own, onChain); err != nil {
			return err
		}
	}
	return nil
}

type wrongLeaf struct {
	name  string
	want  tenant.Reason
	issue func(*devdomain.Domain) ([]*x509.Certificate, crypto.Signer, error)
}

func wrongLeaves() []wrongLeaf {
	leaves := []wrongLeaf{
		{"I7 an SVID of another trust domain than its CA's", tenant.SVIDUntrusted, func(d *devdomain.Domain) ([]*x509.Certificate, crypto.Signer, error) {
			return d.IssueRaw(func(c *x509.Certificate) { c.URIs[0].Host = mesh.Partner })
		}},
		{"H8 three intermediates of the peer", tenant.SVIDMalformed, func(d *devdomain.Domain) ([]*x509.Certificate, crypto.Signer, error) {
			return d.IssueRaw(nil, devdomain.WithIntermediates(3))
		}},
		{"I5 an SVID that has expired", tenant.SVIDUntrusted, func(d *devdomain.Domain) ([]*x509.Certificate, crypto.Signer, error) {
			own, err := d.Issue(id("gateway"), attacktest.Valid(-time.Minute, -time.Second))
			if err != nil {
				return nil, nil, err
			}
			return own.Certificates, own.PrivateKey, nil
		}},
	}
	for _, l := range devdomain.WrongLeaves() {
		leaves = append(leaves, wrongLeaf{l.Name, tenant.SVIDMalformed, l.Issue})
	}
	return leaves
}

// handshake attacks by a connection that must not come about.
func (r *run) handshake(name string, creds credentials.TransportCredentials, want tenant.Reason) error {
	c, err := r.callee(vault)
	if err != nil {
		return err
	}
	cc, err := grpc.NewClient("passthrough:///"+c.p.Addr(), grpc.WithTransportCredentials(creds), grpc.WithDisableRetry())
	if err != nil {
		return err
	}
	defer cc.Close()
	j := &judge{res: mesh.AttackResult{Name: name, Attacker: "a client without an SVID", Target: vault, Want: want}}
	err = call(r.ctx, cc, vaultService, mesh.Unary, nil)
	if j.saw(err); status.Code(err) != codes.Unavailable {
		j.wrong("it is not that there is no connection: %v", err)
	}
	t, ran, err := c.awaited()
	if err != nil {
		return err
	}
	j.refused(t, ran, max(len(t.Events), 1)) // the client may try again
	for _, e := range t.Events {
		if e.Point != audit.Handshake || e.Peer != "" || e.Tenant != "" {
			j.wrong("recorded: %+v", e)
		}
	}
	// What it tried again is recorded before the next attack looks.
	_ = cc.Close()
	r.report(j.res, j.against)
	return nil
}

// onChain presents a chain whose first signer has a wrong leaf.
func (r *run) onChain(name string, own *x509svid.SVID, want tenant.Reason) error {
	c, err := r.callee(vault)
	if err != nil {
		return err
	}
	w := r.world(id(vault), true)
	cc, err := r.dial(w, c.p, r.svids["orders"], w.Forged(func(_ *attacktest.World, x *attacktest.Wire) { x.Replace(0, own) }, "gateway", "orders"))
	if err != nil {
		return err
	}
	return r.simple(c, name, "orders", want, func(s mesh.Shape) error { return call(r.ctx, cc, vaultService, s, nil) })
}
