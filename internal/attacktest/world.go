package attacktest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net/url"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// World is what attackers hold of the mesh that they attack. Its policy lists
// the tenants acme and globex, and has, by the names in the attacks' paths: gateway
// and tts, which originate for both tenants; orders and stock, which forward for both;
// reports, which originates for globex alone; intruder, which is bound to no tenant;
// tenant/{tenant}/runner/*, which originates for its own; PartnerApp, which originates for
// acme; and service/pay and a.b, which forward. All may call the target.
type World struct {
	// Target is the SPIFFE ID of the server that is attacked.
	Target string
	// Claims returns what gateway may originate for a tenant.
	Claims func(tenant string) *hop.Claims
	// SVIDs has one SVID for each name of Cast.
	SVIDs map[string]*x509svid.SVID
	// Bundles returns those of all trust domains.
	Bundles func() *x509bundle.Set
	// Domain signs certificates that are wrong. Without it, attacks that need
	// one fail with ErrNoCA.
	Domain *devdomain.Domain
}

// ErrNoCA is the error of attacks that no CA makes on request.
var ErrNoCA = errors.New("attacktest: needs a CA that signs wrong certificates")

// Cast names all workloads that attacks need an SVID of: by a path in the
// target's trust domain, or by a SPIFFE ID.
func Cast() []string {
	names := []string{"intruder", "stock"}
	for _, a := range Attacks() {
		names = append(append(names, a.Signers()...), a.By)
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "" })
}

func (w *World) issue(id string, options ...devdomain.LeafOption) (*x509svid.SVID, error) {
	if w.Domain == nil {
		return nil, ErrNoCA
	}
	return w.Domain.Issue(id, options...)
}

// underExpired issues an SVID by an intermediate that expired a second ago.
func (w *World) underExpired(id spiffeid.ID) (*x509svid.SVID, error) {
	if w.Domain == nil {
		return nil, ErrNoCA
	}
	now := time.Now()
	ca, caKey, err := w.Domain.IssueRaw(func(c *x509.Certificate) {
		c.URIs, c.IsCA, c.KeyUsage = []*url.URL{w.Domain.TrustDomain().ID().URL()}, true, x509.KeyUsageCertSign
		c.NotBefore, c.NotAfter = now.Add(-3*time.Second), now.Add(-time.Second)
	})
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), URIs: []*url.URL{id.URL()}, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotBefore: now.Add(-3 * time.Second), NotAfter: now.Add(time.Hour),
	}, ca[0], key.Public(), caKey)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &x509svid.SVID{ID: id, Certificates: append([]*x509.Certificate{leaf}, ca...), PrivateKey: key}, nil
}

// Forgery makes metadata for a connection to the target, known by its binding,
// and a method.
type Forgery func(binding [32]byte, method string) (map[string]string, error)

// Honest presents what the last workload of the path may.
func (w *World) Honest(path ...string) Forgery { return w.Forged(func(*World, *Wire) {}, path...) }

// Forged presents what do makes of what the last workload of the path may present.
func (w *World) Forged(do func(*World, *Wire), path ...string) Forgery {
	return func(binding [32]byte, method string) (map[string]string, error) {
		out, err := w.Send(binding, method, path...)
		if err != nil {
			return nil, err
		}
		do(w, out)
		return out.Values()
	}
}

// Dial returns a connection to the target by an SVID, without a guard: it
// presents what forge makes, if that is not nil.
func (w *World) Dial(addr string, by *x509svid.SVID, forge Forgery, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	creds := svid.NewClientCredentials(Identity(by, w.Bundles()), svid.Expect(w.Target))
	return grpc.NewClient("passthrough:///"+addr, append(options,
		grpc.WithTransportCredentials(creds), grpc.WithPerRPCCredentials(NewCredential(creds, forge)))...)
}

// DialRaw connects to addr with an SVID, without gRPC.
func DialRaw(ctx context.Context, addr string, by *x509svid.SVID) (*Raw, error) {
	return Dial(ctx, addr, &tls.Config{
		Certificates:       []tls.Certificate{{Certificate: [][]byte{by.Certificates[0].Raw}, PrivateKey: by.PrivateKey}},
		InsecureSkipVerify: true, //nolint:gosec // the attacker does not care whom it attacks
	})
}

// CallForged calls a method with the metadata of forge.
func (c *Raw) CallForged(method string, forge Forgery) error {
	binding, err := c.Binding()
	if err != nil {
		return err
	}
	md, err := forge(binding, method)
	if err != nil {
		return err
	}
	var fields []string
	for key, value := range md {
		fields = append(fields, key, value)
	}
	return c.Call(method, fields...)
}

// NewCredential returns the credential of a workload that sends what it likes.
func NewCredential(creds *svid.Credentials, forge Forgery) credentials.PerRPCCredentials {
	return &credential{creds, forge}
}

type credential struct {
	creds *svid.Credentials
	forge Forgery
}

func (c *credential) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	info, _ := credentials.RequestInfoFromContext(ctx)
	conn, ok := c.creds.Conn(info.AuthInfo)
	if !ok {
		return nil, errors.New("attacktest: no connection")
	}
	if c.forge == nil {
		return nil, nil
	}
	return c.forge(conn.Binding(), info.Method)
}

func (c *credential) RequireTransportSecurity() bool { return true }

// Identity is an identity that never changes.
func Identity(own *x509svid.SVID, bundles *x509bundle.Set) svid.Snapshotter {
	return fixed{&svid.Snapshot{SVID: own, Bundles: bundles, Generation: 1}}
}

// fixed gives the same snapshot always, as a source does whose identity does not change: what is
// known by the snapshot stays known.
type fixed struct{ snap *svid.Snapshot }

func (f fixed) Snapshot() (*svid.Snapshot, error) { return f.snap, nil }
