package devdomain_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/internal/leaf"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

const (
	gatewayID   = "spiffe://prod.example/gateway"
	inventoryID = "spiffe://prod.example/inventory"
)

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

// TestFederatesWith has a workload get the bundles that its registration names,
// and no others.
func TestFederatesWith(t *testing.T) {
	d := newDomain(t, devdomain.Config{Dir: socketDir(t)})
	for _, name := range []string{"partner.example", "other.example"} {
		d.Federate(newDomain(t, devdomain.Config{TrustDomain: name}))
	}
	for path, tt := range map[string]struct {
		opts []devdomain.WorkloadOption
		want int
	}{
		"all":  {nil, 3},
		"one":  {[]devdomain.WorkloadOption{devdomain.WithFederatesWith("partner.example", "nobody.example")}, 2},
		"none": {[]devdomain.WorkloadOption{devdomain.WithFederatesWith()}, 1},
	} {
		w, err := d.Workload("spiffe://prod.example/"+path, tt.opts...)
		if err != nil {
			t.Fatal(err)
		}
		snap, err := w.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		for from, bundles := range map[string]*x509bundle.Set{"Snapshot": snap.Bundles, "the Workload API": watch(t, w.Addr()).next(t).Bundles} {
			if bundles.Len() != tt.want || bundles.Has(spiffeid.RequireTrustDomainFromString("other.example")) != (path == "all") {
				t.Errorf("%s: %s gets %d bundles", from, path, bundles.Len())
			}
		}
	}
}

// updates is a watcher that hands on what go-spiffe's client tells it.
type updates struct {
	got  chan *workloadapi.X509Context
	errs chan error
}

func (u updates) OnX509ContextUpdate(c *workloadapi.X509Context) { u.got <- c }
func (u updates) OnX509ContextWatchError(err error)              { u.errs <- err }

// quick tries again soon.
type quick struct{}

func (q quick) NewBackoff() workloadapi.Backoff { return q }
func (quick) Next() time.Duration               { return 10 * time.Millisecond }
func (quick) Reset()                            {}

// watch follows a workload with go-spiffe's own client.
func watch(t *testing.T, addr string) updates {
	t.Helper()
	u := updates{make(chan *workloadapi.X509Context, 100), make(chan error, 100)}
	client, err := workloadapi.New(t.Context(), workloadapi.WithAddr(addr), workloadapi.WithBackoffStrategy(quick{}))
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
		"FetchJWTBundles": func(ctx context.Context) error {
			s, err := client.FetchJWTBundles(ctx, &workload.JWTBundlesRequest{})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"ValidateJWTSVID": func(ctx context.Context) error {
			_, err := client.ValidateJWTSVID(ctx, &workload.ValidateJWTSVIDRequest{Audience: "a", Svid: "a.b.c"})
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
		{"JWT", "FetchJWTSVID", good, codes.OK},
		{"no header, JWT bundles", "FetchJWTBundles", nil, codes.InvalidArgument},
		{"no header, validation", "ValidateJWTSVID", nil, codes.InvalidArgument},
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
	for text, id := range map[string]string{
		"registered already":               gatewayID,
		"is no workload of":                "spiffe://partner.example/gateway",
		"of the trust domain":              "spiffe://prod.example",
		"scheme is missing":                "gateway",
		"choose a shorter Dir":             "spiffe://prod.example/" + strings.Repeat("a", 107),
		"path cannot contain dot segments": "spiffe://prod.example/../agent",
		"path cannot contain empty":        "spiffe://prod.example//agent",
		"path segment characters":          "spiffe://prod.example/%2e%2e/agent",
	} {
		t.Run("I7 CVE-2021-27099 "+id[:min(len(id), 40)], func(t *testing.T) {
			if _, err := d.Workload(id); err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%v does not say %q", err, text)
			}
			if _, err := d.Issue(id); err == nil && text != "registered already" && text != "choose a shorter Dir" {
				t.Error("an SVID was issued")
			}
		})
	}
	for text, cfg := range map[string]devdomain.Config{
		"trust domain":     {TrustDomain: "Prod"},
		"a TTL of -1s":     {TrustDomain: "prod.example", TTL: -time.Second},
		"-1 intermediates": {TrustDomain: "prod.example", Intermediates: -1},
		"is no key type":   {TrustDomain: "prod.example", KeyType: "ec-p521"},
		"not a directory":  {TrustDomain: "prod.example", Dir: "/dev/null/x"},
		"a shorter Dir":    {TrustDomain: "prod.example", Dir: t.TempDir() + "/" + strings.Repeat("a", 107)},
	} {
		if _, err := devdomain.New(cfg); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v does not say %q", cfg, err, text)
		}
	}
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"RotateRoot": d.RotateRoot(),
		"StartAgent": d.StartAgent(),
		"Workload":   second(d.Workload("spiffe://prod.example/late")),
	} {
		if err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("%s of a closed domain: %v", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestSockets(t *testing.T) {
	dir := socketDir(t)
	d := newDomain(t, devdomain.Config{Dir: dir})
	// IDs that a careless naming would put into one file.
	a, b := newWorkload(t, d, "spiffe://prod.example/a/b"), newWorkload(t, d, "spiffe://prod.example/a-b")
	if a.Addr() == b.Addr() {
		t.Error("two workloads share a socket")
	}
	if _, err := devdomain.New(devdomain.Config{TrustDomain: "prod.example", Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process serves it") {
		t.Errorf("the agent's socket, in use, was taken over: %v", err)
	}
	// A domain of another name has its own agent, but a workload's file may clash.
	other := newDomain(t, devdomain.Config{TrustDomain: "partner.example", Dir: dir})
	if _, err := other.Workload("spiffe://partner.example/a-b"); err == nil || !strings.Contains(err.Error(), "another process serves it") {
		t.Errorf("a workload's socket, in use, was taken over: %v", err)
	}
	for addr, want := range map[string]os.FileMode{d.Addr(): 0o777, a.Addr(): 0o600} {
		info, err := os.Stat(strings.TrimPrefix(addr, "unix://"))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", addr, info.Mode(), err)
		}
	}
	d.Close()
	other.Close()
	if left, _ := filepath.Glob(dir + "/*"); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}

	// A process that was killed leaves its socket behind.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/prod.example+.sock", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	newDomain(t, devdomain.Config{Dir: dir})

	if none := newDomain(t, devdomain.Config{}); none.Addr() != "" || newWorkload(t, none, gatewayID).Addr() != "" {
		t.Error("a socket without a directory")
	}
}

// TestKeyTypes issues and serves each type of key, below intermediates.
func TestKeyTypes(t *testing.T) {
	for kt, want := range map[devdomain.KeyType]string{
		"": "P-256", devdomain.ECP256: "P-256", devdomain.ECP384: "P-384", devdomain.RSA2048: "RSA 2048",
	} {
		t.Run(string(kt), func(t *testing.T) {
			d := newDomain(t, devdomain.Config{Dir: socketDir(t), KeyType: kt, Intermediates: 1})
			w := newWorkload(t, d, gatewayID)
			c := watch(t, w.Addr()).next(t)
			verify(t, c)
			chain := c.DefaultSVID().Certificates
			if len(chain) != 2 {
				t.Errorf("%d certificates", len(chain))
			}
			for _, cert := range append(chain, d.Bundle().X509Authorities()...) {
				var got string
				switch k := cert.PublicKey.(type) {
				case *ecdsa.PublicKey:
					got = k.Params().Name
				case *rsa.PublicKey:
					got = fmt.Sprintf("RSA %d", k.N.BitLen())
				}
				if got != want {
					t.Errorf("the key of %s is %s", cert.Subject, got)
				}
			}
			token := fetchJWT(t, w.Addr(), "a")
			if _, err := jwtsvid.ParseAndValidate(token.Marshal(), d.JWTBundle(), []string{"a"}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWrongLeaves: they are as wrong as their names say, and signed well.
func TestWrongLeaves(t *testing.T) {
	d := newDomain(t, devdomain.Config{})
	names := map[string]bool{}
	for _, l := range devdomain.WrongLeaves() {
		t.Run(l.Name, func(t *testing.T) {
			if names[l.Name] {
				t.Error("a second one of this name")
			}
			names[l.Name] = true
			chain, key, err := l.Issue(d)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := leaf.Verify(chain, d.Bundle(), time.Now()); tenant.ReasonOf(err) != tenant.SVIDMalformed {
				t.Error(err)
			}
			cert, err := x509.ParseCertificate(chain[0].Raw)
			if err != nil {
				if l.Name != "I2 look-alike" || chain[0].NotAfter.IsZero() {
					t.Error(err)
				}
				return
			}
			if err := cert.CheckSignatureFrom(d.Bundle().X509Authorities()[0]); err != nil {
				t.Error(err)
			}
			if pub, ok := key.Public().(*ecdsa.PublicKey); !ok || !pub.Equal(cert.PublicKey) {
				t.Error("it is another's key")
			}
		})
	}
	if _, err := d.Issue("spiffe://prod.example/а"); err == nil {
		t.Error("I2 a look-alike was issued as an SVID")
	}
	if _, _, err := d.IssueRaw(func(c *x509.Certificate) { c.SerialNumber = big.NewInt(-1) }); err == nil {
		t.Error("a certificate that cannot be made was made")
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
	_, weak, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = d.Issue(gatewayID, devdomain.WithKey(weak)); err != nil || s.PrivateKey.Public() == nil || !weak.Equal(s.PrivateKey) {
		t.Errorf("another key than the one given: %v", err)
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
