package interceptors_test

import (
	"context"
	"crypto"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// heldKey is a key that can be held: then it says that it was asked, and waits.
type heldKey struct {
	crypto.Signer
	hold    atomic.Bool
	asked   chan struct{}
	release chan struct{}
}

func (k *heldKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.hold.Load() {
		k.asked <- struct{}{}
		<-k.release
	}
	return k.Signer.Sign(random, digest, opts)
}

// identity is a snapshot that stays.
type identity svid.Snapshot

func (i *identity) Snapshot() (*svid.Snapshot, error) { return (*svid.Snapshot)(i), nil }

// A call that ends while its statement waits for others' signature ends at once, and the others' go on.
func TestCallsWaitForASignature(t *testing.T) {
	d, err := devdomain.New(devdomain.Config{TrustDomain: "prod.example"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	snapshot := func(name string) *identity {
		w, err := d.Workload(id(name))
		if err != nil {
			t.Fatal(err)
		}
		snap, err := svid.Current(w)
		if err != nil {
			t.Fatal(err)
		}
		own := identity(*snap)
		return &own
	}
	guard := func(src svid.Snapshotter) *interceptors.Guard {
		g, err := interceptors.New(interceptors.Config{
			Source: src, Policy: parsePolicy(t, document), Audit: newTrail(), Logger: slog.New(slog.DiscardHandler), MaxConnectionAge: time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	gateway := snapshot("gateway")
	key := &heldKey{Signer: gateway.SVID.PrivateKey, asked: make(chan struct{}), release: make(chan struct{})}
	gateway.SVID = &x509svid.SVID{ID: gateway.SVID.ID, Certificates: gateway.SVID.Certificates, PrivateKey: key}
	client := guard(gateway)

	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(guard(snapshot("target")).ServerOptions()...)
	grpc_testing.RegisterTestServiceServer(srv, &silent{})
	go func() { _ = srv.Serve(lis) }()
	t.Cleanup(srv.Stop)
	cc, err := grpc.NewClient("passthrough:"+lis.Addr().String(), client.DialOptions(svid.Expect(id("target")))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	call := func(ctx context.Context) error {
		ctx, err := client.Originate(ctx, claims("acme"))
		if err != nil {
			return err
		}
		_, err = grpc_testing.NewTestServiceClient(cc).UnaryCall(ctx, &grpc_testing.SimpleRequest{})
		return err
	}
	if err := call(t.Context()); err != nil { // connects
		t.Fatal(err)
	}

	key.hold.Store(true)
	var all sync.WaitGroup
	all.Go(func() {
		if err := call(t.Context()); err != nil {
			t.Errorf("the call that signs: %v", err)
		}
	})
	<-key.asked
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { gone <- call(ctx) }()
	for range 8 {
		all.Go(func() {
			if err := call(t.Context()); err != nil {
				t.Errorf("a call that waited: %v", err)
			}
		})
	}
	cancel()
	if err := <-gone; status.Code(err) != codes.Canceled {
		t.Errorf("H11 a call that ended while it waited: %v, want %s", err, codes.Canceled)
	}
	key.hold.Store(false)
	close(key.release)
	all.Wait()
}

// A guard has a signer for each SVID, and forgets old ones.
func TestSigners(t *testing.T) {
	var own []*x509svid.SVID
	for range 100 {
		own = append(own, new(x509svid.SVID))
	}
	if n, same := interceptors.Signers(own...); n != 8 || !same {
		t.Errorf("%d signers, the same for one SVID: %v", n, same)
	}
}
