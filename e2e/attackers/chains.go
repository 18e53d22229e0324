package attackers

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tenantmesh/tenantmesh/e2e/mesh"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	meshv1 "github.com/tenantmesh/tenantmesh/internal/testproto/mesh/v1"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// timeout bounds a call.
const timeout = 10 * time.Second

// viewOf is the caller's view of how a call ended.
func viewOf(err error) string {
	if err == nil {
		return "OK"
	}
	if _, ok := status.FromError(err); !ok {
		return "no status"
	}
	text := status.Code(err).String()
	if reason := reasonOf(err); reason != "" {
		text += " " + string(reason)
	}
	return text
}

func reasonOf(err error) tenant.Reason { return interceptors.ReasonOf(err) }

// call makes a call with one message in each direction in which there is one.
func call(ctx context.Context, cc *grpc.ClientConn, service string, shape mesh.Shape, work *meshv1.Work, pairs ...string) error {
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, pairs...), timeout)
	defer cancel()
	// All requests are alike on the wire, and all responses.
	desc := &grpc.StreamDesc{StreamName: string(shape), ClientStreams: true, ServerStreams: true}
	s, err := cc.NewStream(ctx, desc, "/"+service+"/"+string(shape))
	if err != nil {
		return err
	}
	if err := s.SendMsg(&meshv1.UnaryRequest{Work: work}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	return drain(s)
}

func drain(s grpc.ClientStream) error {
	for {
		var m proto.Message = new(meshv1.UnaryResponse)
		if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// dial connects to a workload by an SVID, without a guard.
func (r *run) dial(w *attacktest.World, p *mesh.Process, own *x509svid.SVID, forge attacktest.Forgery) (*grpc.ClientConn, error) {
	cc, err := w.Dial(p.Addr(), own, forge, grpc.WithDisableRetry())
	if err == nil {
		r.closing = append(r.closing, func() { _ = cc.Close() })
	}
	return cc, err
}

// chains makes the attacks by contexts on the vault: each in all shapes, by gRPC and
// by raw HTTP/2, and twice, the second time warm.
func (r *run) chains() error {
	for _, a := range attacktest.Attacks() {
		if a.Unfederated {
			continue // federation has it
		}
		for _, client := range []string{"gRPC", "raw HTTP/2"} {
			if err := r.chain(a, client); err != nil {
				return err
			}
			r.close()
		}
	}
	return nil
}

// caller makes a call in a shape.
type caller func(shape mesh.Shape) error

func (r *run) caller(w *attacktest.World, p *mesh.Process, own *x509svid.SVID, client string, forge attacktest.Forgery) (caller, error) {
	service := p.Service()
	if client == "gRPC" {
		cc, err := r.dial(w, p, own, forge)
		return func(s mesh.Shape) error { return call(r.ctx, cc, service, s, nil) }, err
	}
	raw, err := attacktest.DialRaw(r.ctx, p.Addr(), own)
	if err != nil {
		return nil, err
	}
	r.closing = append(r.closing, func() { _ = raw.Close() })
	return func(s mesh.Shape) error { return raw.CallForged("/"+service+"/"+string(s), forge) }, nil
}

// acts says whether the first of a path acts for an external issuer.
func acts(path []string) bool {
	return !strings.HasPrefix(path[0], "tenant/") && !strings.HasPrefix(path[0], "spiffe://")
}

func (r *run) chain(a attacktest.Attack, client string) error {
	signers := a.Signers()
	presenter := signers[len(signers)-1]
	j := &judge{res: mesh.AttackResult{Name: a.Name + ", by " + client, Attacker: presenter, Target: vault, Want: a.Want}}
	if a.By != "" {
		j.res.Attacker = a.By
	}
	names := append(signers, "intruder", "stock")
	if a.By != "" {
		names = append(names, a.By)
	}
	if err := r.take(names...); err != nil {
		return err
	}
	w := r.world(id(vault), acts(signers))
	c, err := r.callee(vault)
	if err != nil {
		return err
	}
	var at *attacktest.Attempt
	forge := func(binding [32]byte, method string) (map[string]string, error) { return at.Metadata(binding, method) }
	honest, err := r.caller(w, c.p, r.svids[presenter], client, forge)
	if err != nil {
		return err
	}
	attack := honest
	if a.By != "" {
		if attack, err = r.caller(w, c.p, r.svids[a.By], client, forge); err != nil {
			return err
		}
	}
	for _, shape := range mesh.Shapes {
		at = a.In(w)
		if a.Forged() {
			if err := honest(shape); err != nil {
				j.wrong("%s: the honest call before it fails: %v", shape, err)
			}
			t, ran, err := c.recorded()
			if err != nil {
				return err
			}
			if len(t.Events) != 0 || ran != 1 {
				j.wrong("%s: the honest call before it: %d refusals, %d runs", shape, len(t.Events), ran)
			}
		}
		at.Forging = true
		for range 2 {
			err := attack(shape)
			if errNoCA(err) {
				return nil // Omitted names it
			}
			j.saw(err)
			j.told(err, a.Want)
			t, ran, err := c.recorded()
			if err != nil {
				return err
			}
			j.refused(t, ran, 1)
		}
	}
	r.report(j.res, j.against)
	return nil
}
