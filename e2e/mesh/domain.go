package mesh

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"google.golang.org/grpc/codes"

	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// Domain is a trust domain of the mesh, with what may go wrong in it. It is
// safe for concurrent use.
type Domain interface {
	// StopAgent ends the agent as its death would, so that the Workload API is gone.
	StopAgent(ctx context.Context) error
	// StartAgent starts it again, and waits until it serves.
	StartAgent(ctx context.Context) error
	// Disturb makes the Workload API fail to answer while it stays there.
	Disturb(ctx context.Context, on bool) error

	// PrepareRoot adds a root to the bundle, and returns its name.
	PrepareRoot(ctx context.Context) (string, error)
	// ActivateRoot makes it sign; the one that did is old then.
	ActivateRoot(ctx context.Context, name string) error
	// TaintOldRoot has all that the old root signed issued anew.
	TaintOldRoot(ctx context.Context) error
	// RevokeOldRoot takes it out of the bundle.
	RevokeOldRoot(ctx context.Context) error

	// Unfederate takes the bundle of another trust domain away, Federate gives
	// it back.
	Unfederate(ctx context.Context, other string) error
	Federate(ctx context.Context, other string) error

	// Delete deletes a workload's registration, Register restores it.
	Delete(ctx context.Context, w *Process) error
	Register(ctx context.Context, w *Process) error

	// socket returns the address of a workload's Workload API.
	socket(w *Process) string
	// describe says in words what it is.
	describe() string
	real() bool
	close() error
}

// embedded is a Domain in this process.
type embedded struct {
	m *Mesh
	d *devdomain.Domain

	mu  sync.Mutex
	all map[string]*devdomain.Workload // by ID
	old string                         // the root that is old
}

// newEmbedded starts a trust domain of a mesh.
func newEmbedded(m *Mesh, td TrustDomain) error {
	d, err := devdomain.New(devdomain.Config{
		TrustDomain: td.Name, TTL: td.ttl(), Dir: filepath.Join(m.dir, fmt.Sprint("d", len(m.domains))),
	})
	if err == nil {
		m.domains[td.Name] = &embedded{m: m, d: d, all: map[string]*devdomain.Workload{}}
	}
	return err
}

func (e *embedded) StopAgent(context.Context) error  { e.d.StopAgent(); return nil }
func (e *embedded) StartAgent(context.Context) error { return e.d.StartAgent() }

func (e *embedded) Disturb(_ context.Context, on bool) error {
	if on {
		e.d.Fail(codes.Unavailable)
	} else {
		e.d.Fail(codes.OK)
	}
	return nil
}

func (e *embedded) PrepareRoot(context.Context) (string, error) { return e.d.PrepareAuthority() }

func (e *embedded) ActivateRoot(_ context.Context, name string) error {
	for _, a := range e.d.Authorities() {
		if a.State == devdomain.Active {
			e.old = a.ID
		}
	}
	return e.d.ActivateAuthority(name)
}

func (e *embedded) TaintOldRoot(context.Context) error  { return e.d.TaintAuthority(e.old) }
func (e *embedded) RevokeOldRoot(context.Context) error { return e.d.RevokeAuthority(e.old) }

func (e *embedded) Unfederate(_ context.Context, other string) error {
	e.d.Unfederate(other)
	return nil
}

func (e *embedded) Federate(_ context.Context, other string) error {
	o, ok := e.m.domains[other].(*embedded)
	if !ok {
		return fmt.Errorf("mesh: no trust domain %q", other)
	}
	e.d.Federate(o.d)
	return nil
}

func (e *embedded) Register(_ context.Context, p *Process) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	opts := []devdomain.WorkloadOption{devdomain.WithFederatesWith(p.env.Workload.Federates...)}
	if p.uid != 0 {
		opts = append(opts, devdomain.WithUID(p.uid))
	}
	w, err := e.d.Workload(p.ID(), opts...)
	if err == nil {
		e.all[p.ID()] = w
	}
	return err
}

func (e *embedded) Delete(_ context.Context, p *Process) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	w := e.all[p.ID()]
	if w == nil {
		return errors.New("mesh: it is not registered")
	}
	w.Remove()
	return nil
}

func (e *embedded) socket(p *Process) string {
	if p.uid != 0 {
		return e.d.Addr()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.all[p.ID()].Addr()
}

func (e *embedded) describe() string { return "the embedded trust domain (svid/devdomain), not SPIRE" }
func (e *embedded) real() bool       { return false }
func (e *embedded) close() error     { return e.d.Close() }

// external is a Domain that others run.
type external struct{ td TrustDomain }

var errExternal = errors.New("mesh: the trust domain is not the mesh's to break")

func (external) StopAgent(context.Context) error             { return errExternal }
func (external) StartAgent(context.Context) error            { return errExternal }
func (external) Disturb(context.Context, bool) error         { return errExternal }
func (external) PrepareRoot(context.Context) (string, error) { return "", errExternal }
func (external) ActivateRoot(context.Context, string) error  { return errExternal }
func (external) TaintOldRoot(context.Context) error          { return errExternal }
func (external) RevokeOldRoot(context.Context) error         { return errExternal }
func (external) Unfederate(context.Context, string) error    { return errExternal }
func (external) Federate(context.Context, string) error      { return errExternal }
func (external) Delete(context.Context, *Process) error      { return errExternal }
func (external) Register(context.Context, *Process) error    { return nil } // whoever runs it did
func (x external) socket(*Process) string                    { return x.td.Agent }
func (x external) describe() string                          { return "the agent at " + x.td.Agent }
func (external) real() bool                                  { return true }
func (external) close() error                                { return nil }
