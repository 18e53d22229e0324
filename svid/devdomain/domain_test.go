package devdomain_test

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

const gatewayID = "spiffe://prod.example/gateway"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "dev")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newDomain(t *testing.T, cfg devdomain.Config) *devdomain.Domain {
	t.Helper()
	if cfg.TrustDomain == "" {
		cfg.TrustDomain = "prod.example"
	}
	d, err := devdomain.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func newWorkload(t *testing.T, d *devdomain.Domain, id string) *devdomain.Workload {
	t.Helper()
	w, err := d.Workload(id)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// updates is a watcher that hands on what go-spiffe's client tells it.
type updates struct {
	got  chan *workloadapi.X509Context
	errs chan error
}

func (u updates) OnX509ContextUpdate(c *workloadapi.X509Context) { u.got <- c }
func (u updates) OnX509ContextWatchError(err error)              { u.errs <- err }

// watch follows a workload with go-spiffe's own client.
func watch(t *testing.T, addr string) updates {
	t.Helper()
	u := updates{make(chan *workloadapi.X509Context, 100), make(chan error, 100)}
	client, err := workloadapi.New(t.Context(), workloadapi.WithAddr(addr))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); client.WatchX509Context(ctx, u) }()
	t.Cleanup(func() { cancel(); <-done; client.Close() })
	return u
}

// next returns the next update.
func (u updates) next(t *testing.T) *workloadapi.X509Context {
	t.Helper()
	return receive(t, u.got)
}

// fails returns the next error.
func (u updates) fails(t *testing.T) error {
	t.Helper()
	return receive(t, u.errs)
}

func receive[T any](t *testing.T, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(30 * time.Second):
		t.Fatalf("no %T", v)
	}
	return v
}

// verify checks the own SVID of c against its own bundles, as any peer would.
func verify(t *testing.T, c *workloadapi.X509Context) {
	t.Helper()
	if _, _, err := x509svid.Verify(c.DefaultSVID().Certificates, c.Bundles); err != nil {
		t.Error(err)
	}
}

func TestWorkloadAPI(t *testing.T) {
	d := newDomain(t, devdomain.Config{Dir: socketDir(t)})
	partner := newDomain(t, devdomain.Config{TrustDomain: "partner.example"})
	w := newWorkload(t, d, gatewayID)
	u := watch(t, w.Addr())

	first := u.next(t)
	verify(t, first)
	if got := first.DefaultSVID().ID; got.String() != gatewayID || got != w.ID() {
		t.Errorf("the SVID is of %s", got)
	}

	if err := w.Rotate(); err != nil {
		t.Fatal(err)
	}
	rotated := u.next(t)
	verify(t, rotated)
	a, b := first.DefaultSVID().Certificates[0], rotated.DefaultSVID().Certificates[0]
	if a.Equal(b) || string(a.RawSubjectPublicKeyInfo) == string(b.RawSubjectPublicKeyInfo) {
		t.Error("rotation kept the leaf or the key")
	}

	d.Federate(partner)
	if !u.next(t).Bundles.Has(partner.TrustDomain()) {
		t.Error("no bundle of the federated trust domain")
	}
	if err := partner.RotateRoot(); err != nil {
		t.Fatal(err)
	}
	if got, _ := u.next(t).Bundles.Get(partner.TrustDomain()); len(got.X509Authorities()) != 2 || !got.Equal(partner.Bundle()) {
		t.Error("the federated bundle did not follow")
	}
	d.Unfederate("partner.example")
	if u.next(t).Bundles.Has(partner.TrustDomain()) {
		t.Error("the bundle stayed")
	}

	if err := d.RotateRoot(); err != nil {
		t.Fatal(err)
	}
	// The new root and the new leaf may come in one update or in two.
	reissued := u.next(t)
	for verify(t, reissued); reissued.DefaultSVID().Certificates[0].Equal(b); verify(t, reissued) {
		reissued = u.next(t)
	}
	d.DropOldRoots()
	last := u.next(t)
	verify(t, last)
	if _, _, err := x509svid.Verify([]*x509.Certificate{b}, last.Bundles); err == nil {
		t.Error("a leaf of the dropped root is trusted")
	}

	w.Remove()
	if err := u.fails(t); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "no identity issued") {
		t.Errorf("after Remove: %v", err)
	}
	if err := w.Rotate(); err == nil {
		t.Error("a removed workload rotated")
	}
	if _, err := w.Snapshot(); tenant.ReasonOf(err) != tenant.IdentityUnavailable {
		t.Errorf("Snapshot after Remove: %v", err)
	}
	if again := newWorkload(t, d, gatewayID); again != w {
		t.Error("registered again, it is another")
	}
	verify(t, u.next(t))
}

func TestX509Source(t *testing.T) {
	d := newDomain(t, devdomain.Config{Dir: socketDir(t)})
	w := newWorkload(t, d, "spiffe://prod.example/tenant/acme/runner/r-1")
	src, err := workloadapi.NewX509Source(t.Context(), workloadapi.WithClientOptions(workloadapi.WithAddr(w.Addr())))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if s, err := src.GetX509SVID(); err != nil || s.ID != w.ID() {
		t.Errorf("%v, %v", s, err)
	}
	client, err := workloadapi.New(t.Context(), workloadapi.WithAddr(w.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	set, err := client.FetchX509Bundles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := set.Get(d.TrustDomain()); !ok || !b.Equal(d.Bundle()) {
		t.Error("FetchX509Bundles lacks the own bundle")
	}
}

func TestProtocol(t *testing.T) {
	d := newDomain(t, devdomain.Config{Dir: socketDir(t)})
	w := newWorkload(t, d, gatewayID)
	info, err := os.Stat(strings.TrimPrefix(w.Addr(), "unix://"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	conn, err := grpc.NewClient(w.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := workload.NewSpiffeWorkloadAPIClient(conn)
	good := metadata.Pairs("workload.spiffe.io", "true")

	calls := map[string]func(context.Context) error{
		"FetchX509SVID": func(ctx context.Context) error {
			s, err := client.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"FetchX509Bundles": func(ctx context.Context) error {
			s, err := client.FetchX509Bundles(ctx, &workload.X509BundlesRequest{})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"FetchJWTSVID": func(ctx context.Context) error {
			_, err := client.FetchJWTSVID(ctx, &workload.JWTSVIDRequest{Audience: []string{"a"}})
			return err
		},
	}
	for _, tt := range []struct {
		name, call string
		md         metadata.MD
		want       codes.Code
	}{
		{"X509 SVID", "FetchX509SVID", good, codes.OK},
		{"X509 bundles", "FetchX509Bundles", good, codes.OK},
		{"no header", "FetchX509SVID", nil, codes.InvalidArgument},
		{"no header, bundles", "FetchX509Bundles", nil, codes.InvalidArgument},
		{"no header, unary", "FetchJWTSVID", nil, codes.InvalidArgument},
		{"header false", "FetchX509SVID", metadata.Pairs("workload.spiffe.io", "false"), codes.InvalidArgument},
		{"header twice", "FetchX509SVID", metadata.Join(good, good), codes.InvalidArgument},
		{"JWT", "FetchJWTSVID", good, codes.Unimplemented},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(t.Context(), tt.md))
			defer cancel()
			if err := calls[tt.call](ctx); status.Code(err) != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	d := newDomain(t, devdomain.Config{Dir: socketDir(t)})
	newWorkload(t, d, gatewayID)
	for name, id := range map[string]string{
		"registered already":   gatewayID,
		"is no workload of":    "spiffe://partner.example/gateway",
		"of the trust domain":  "spiffe://prod.example",
		"scheme is missing":    "gateway",
		"choose a shorter Dir": "spiffe://prod.example/" + strings.Repeat("a", 107),
	} {
		if _, err := d.Workload(id); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v does not say %q", id, err, name)
		}
	}
	if _, err := devdomain.New(devdomain.Config{TrustDomain: "Prod"}); err == nil {
		t.Error("a malformed trust domain was taken")
	}
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	if _, err := d.Workload("spiffe://prod.example/late"); err == nil {
		t.Error("a closed domain registered a workload")
	}
	if err := d.RotateRoot(); err == nil {
		t.Error("a closed domain rotated")
	}
}

func TestSockets(t *testing.T) {
	dir := socketDir(t)
	d := newDomain(t, devdomain.Config{Dir: dir})
	// IDs that a careless naming would put into one file.
	a, b := newWorkload(t, d, "spiffe://prod.example/a/b"), newWorkload(t, d, "spiffe://prod.example/a-b")
	if a.Addr() == b.Addr() {
		t.Error("two workloads share a socket")
	}
	if _, err := newDomain(t, devdomain.Config{Dir: dir}).Workload("spiffe://prod.example/a-b"); err == nil {
		t.Error("a socket in use was taken over")
	}
	d.Close()
	if left, _ := filepath.Glob(dir + "/*"); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestIssue(t *testing.T) {
	d := newDomain(t, devdomain.Config{})
	from := time.Now().Add(-time.Hour).Truncate(time.Second)
	s, err := d.Issue(gatewayID, devdomain.WithIntermediates(2), devdomain.ValidFrom(from, from.Add(2*time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Certificates) != 3 || !s.Certificates[0].NotBefore.Equal(from) || !s.Certificates[0].NotAfter.Equal(from.Add(2*time.Hour)) {
		t.Error("the options were not followed")
	}
	if id, _, err := x509svid.Verify(s.Certificates, d.Bundle()); err != nil || id != spiffeid.RequireFromString(gatewayID) {
		t.Errorf("%s, %v", id, err)
	}
	cert, key, err := s.MarshalRaw()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x509svid.ParseRaw(cert, key); err != nil {
		t.Error(err)
	}
	if _, err := d.Issue("spiffe://partner.example/gateway"); err == nil {
		t.Error("an SVID of another trust domain was issued")
	}
}

// TestHalfLife waits for the timer in fake time, without a socket.
func TestHalfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDomain(t, devdomain.Config{TTL: time.Hour})
		w := newWorkload(t, d, gatewayID)
		if w.Addr() != "" {
			t.Errorf("a socket at %s", w.Addr())
		}
		for range 5 {
			before, err := w.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			changed, start := w.Changed(), time.Now()
			<-changed
			if waited := time.Since(start); waited != 30*time.Minute {
				t.Errorf("rotated after %s", waited)
			}
			after, err := w.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			if after.Generation <= before.Generation || after.SVID == before.SVID {
				t.Error("nothing new")
			}
		}
		w.Remove()
		time.Sleep(2 * time.Hour) //nolint:forbidigo // The bubble's time, not ours.
		if _, err := w.Snapshot(); err == nil {
			t.Error("a removed workload was rotated")
		}
	})
}
