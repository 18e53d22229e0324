// Package mesh starts a mesh of workloads from a description, each as a process
// of its own with its own SVID, drives calls through it, and breaks parts of it.
//
//	func main() {
//		mesh.Main() // in the processes of workloads this does not return
//		m, err := mesh.Start(ctx, mesh.Description{…}, mesh.Options{})
//		defer m.Close()
//		load, err := m.StartLoad(ctx, mesh.Load{…})
//
// SVIDs come from an embedded trust domain (svid/devdomain), or from real SPIRE.
// As root, each workload has a uid and a network namespace with an address of
// its own; else all are on the loopback. docs/mesh.md says how to point it at
// your own services and SPIRE.
//
// It is for tests: its workloads answer everyone whom policy lets in, and
// whoever starts it can have any SVID of its trust domains.
package mesh

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Description says what a mesh consists of.
type Description struct {
	TrustDomains []TrustDomain
	Workloads    []Workload
	// Policy is the document of all workloads that have none of their own.
	Policy string
}

// TrustDomain is one that the mesh has.
type TrustDomain struct {
	// Name is such as "prod.example".
	Name string
	// TTL is how long SVIDs live; 0 stands for 1 minute. They are renewed at half of it.
	TTL time.Duration
	// Federates names the other trust domains whose bundles it has.
	Federates []string
	// Agent is the address of a Workload API that is there already, such as that
	// of your own SPIRE agent, instead of one that the mesh starts. Registrations
	// are yours to make, by the workloads' UIDs; the mesh breaks nothing of it.
	Agent string
}

// Workload is a process of the mesh.
type Workload struct {
	// Name is unique in the mesh.
	Name string
	// ID is its SPIFFE ID, of one of the mesh's trust domains.
	ID string
	// As names another workload whose ID and uid it shares, instead of an ID of
	// its own: as one replica among others, or as one that was taken over.
	As string
	// Federates names the trust domains whose bundles it gets beside its own;
	// all of them must be the trust domain's too.
	Federates []string

	// UID is the uid of its process, for which the mesh must be root; 0 stands for
	// one that the mesh chooses, from 47001 on.
	UID uint32

	// Role names what it does, as [Main] was told; "" stands for [Node].
	Role string
	// Command is a program of your own that is run instead of a role. Its
	// environment has SPIFFE_ENDPOINT_SOCKET, MESH_LISTEN with the address to listen
	// on, MESH_POLICY with the path of its policy, and MESH_ADDR_<NAME> with the
	// address of each other workload.
	Command []string
	// Service is the gRPC service that it serves, such as "mesh.v1.Orders"; "" for none.
	Service string
	// Calls are the workloads that it calls.
	Calls []Call
	// Anew says that it originates anew for the calls it makes while it handles one.
	Anew bool
	// Tenants are those that a load which it generates is for.
	Tenants []string
	// Database is where it keeps its records; nil for its memory.
	Database *Database
	// Policy is its own document; "" stands for the description's.
	Policy string
	// MaxPolicyAge is how long it goes on with a policy that is not confirmed; 0
	// stands for the kit's own limit.
	MaxPolicyAge time.Duration
	// MaxConnectionAge bounds the age of connections to it; 0 stands for the mesh's own bound.
	MaxConnectionAge time.Duration
}

// Call is a workload that another calls.
type Call struct {
	// To is its name.
	To string
	// Tenants are those for which it is called; nil stands for all.
	Tenants []string
}

// For says whether the call is made for a tenant.
func (c Call) For(tenant string) bool { return c.Tenants == nil || slices.Contains(c.Tenants, tenant) }

// Check says what is wrong with the description.
func (d *Description) Check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("mesh: "+format, args...)) }
	domains := map[string]TrustDomain{}
	for _, td := range d.TrustDomains {
		if _, err := spiffeid.TrustDomainFromString(td.Name); err != nil {
			wrong("trust domain %q: %w", td.Name, err)
		}
		if _, twice := domains[td.Name]; twice {
			wrong("trust domain %s stands twice", td.Name)
		}
		domains[td.Name] = td
	}
	for _, td := range d.TrustDomains {
		for _, other := range td.Federates {
			if _, ok := domains[other]; !ok || other == td.Name {
				wrong("trust domain %s cannot federate with %q", td.Name, other)
			}
		}
	}
	names := map[string]*Workload{}
	for i := range d.Workloads {
		w := &d.Workloads[i]
		if w.Name == "" || strings.ContainsAny(w.Name, "/\x00") || names[w.Name] != nil {
			wrong("workload %q needs a name of its own", w.Name)
		}
		names[w.Name] = w
	}
	for _, w := range d.Workloads {
		switch other := names[w.As]; {
		case w.As != "" && (other == nil || other.As != "" || w.ID != ""):
			wrong("workload %s cannot be as %q", w.Name, w.As)
		case w.As != "":
		default:
			id, err := spiffeid.FromString(w.ID)
			if err != nil {
				wrong("workload %s: %w", w.Name, err)
				break
			}
			td, ok := domains[id.TrustDomain().Name()]
			if !ok {
				wrong("workload %s is of trust domain %s, which the mesh has not", w.Name, id.TrustDomain().Name())
			}
			for _, f := range w.Federates {
				if !slices.Contains(td.Federates, f) {
					wrong("workload %s: its trust domain does not federate with %q", w.Name, f)
				}
			}
		}
		for _, c := range w.Calls {
			if to := names[c.To]; to == nil || to.Service == "" && to.Command == nil {
				wrong("workload %s calls %q, which serves nothing", w.Name, c.To)
			}
		}
	}
	return errors.Join(errs...)
}

// find returns the workload of a name, nil if there is none.
func (d *Description) find(name string) *Workload {
	for i := range d.Workloads {
		if d.Workloads[i].Name == name {
			return &d.Workloads[i]
		}
	}
	return nil
}

// id returns the SPIFFE ID of a workload.
func (d *Description) id(w *Workload) string {
	if w.As != "" {
		return d.find(w.As).ID
	}
	return w.ID
}

// Shape is a shape of gRPC calls, by the name of MeshService's method.
type Shape string

// The shapes.
const (
	Unary        Shape = "Unary"
	ServerStream Shape = "ServerStream"
	ClientStream Shape = "ClientStream"
	Bidi         Shape = "Bidi"
)

// Shapes are all of them.
var Shapes = []Shape{Unary, ServerStream, ClientStream, Bidi}
