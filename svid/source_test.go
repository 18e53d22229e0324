package svid_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// socketDir returns a directory whose path is short enough for sockets.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "svid")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newSource(t *testing.T, addr string) *svid.Source {
	t.Helper()
	s, err := svid.NewSource(t.Context(), svid.WithSocket(addr), svid.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// await waits until the source's state is as ok says.
func await(t *testing.T, s *svid.Source, ok func(*svid.Snapshot, error) bool) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		changed := s.Changed()
		if ok(s.Snapshot()) {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatal("the source did not change as it should")
		}
	}
}

func TestSource(t *testing.T) {
	dir := socketDir(t)
	d := newDomain(t, devdomain.Config{Dir: dir})
	partner := newDomain(t, devdomain.Config{TrustDomain: "partner.example"})
	w := newWorkload(t, d, gatewayID)
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", w.Addr())
	s := newSource(t, "")

	first, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if s.ID().String() != gatewayID || first.Generation == 0 {
		t.Errorf("%s, generation %d", s.ID(), first.Generation)
	}
	if err := w.Rotate(); err != nil {
		t.Fatal(err)
	}
	await(t, s, func(snap *svid.Snapshot, err error) bool {
		return err == nil && snap.Generation > first.Generation &&
			!snap.SVID.Certificates[0].Equal(first.SVID.Certificates[0])
	})
	d.Federate(partner)
	await(t, s, func(snap *svid.Snapshot, err error) bool {
		return err == nil && snap.Bundles.Has(partner.TrustDomain())
	})
	d.Unfederate("partner.example")
	await(t, s, func(snap *svid.Snapshot, err error) bool {
		return err == nil && !snap.Bundles.Has(partner.TrustDomain())
	})

	// It passes go-spiffe's checks.
	chain, key, err := d.IssueRaw(func(c *x509.Certificate) { c.URIs[0].Path = "" })
	if err != nil {
		t.Fatal(err)
	}
	malformed := &workloadapi.X509Context{
		SVIDs:   []*x509svid.SVID{{ID: w.ID(), Certificates: chain, PrivateKey: key}},
		Bundles: x509bundle.NewSet(),
	}
	t.Run("I1 an SVID that the profile does not allow", func(t *testing.T) {
		before, err := s.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		svid.Receive(s, malformed)
		after, err := s.Snapshot()
		if err != nil || after.SVID != before.SVID {
			t.Errorf("it took the place of the good one: %v", err)
		}
		if after.Bundles.Len() != 0 || after.Generation <= before.Generation {
			t.Error("the bundles that came with it do not count")
		}
		wantReason(t, s.Status().Err, tenant.SVIDMalformed)
		svid.Receive(s, &workloadapi.X509Context{SVIDs: []*x509svid.SVID{before.SVID}, Bundles: before.Bundles})
		if err := s.Status().Err; err != nil {
			t.Errorf("after a good one: %v", err)
		}
	})
	t.Run("nothing new", func(t *testing.T) {
		before, err := s.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		changed := s.Changed()
		svid.Receive(s, &workloadapi.X509Context{SVIDs: []*x509svid.SVID{before.SVID}, Bundles: before.Bundles})
		if after, err := s.Snapshot(); err != nil || after != before {
			t.Errorf("it counts as a change: %v", err)
		}
		select {
		case <-changed:
			t.Error("it was told as a change")
		default:
		}
	})
	t.Run("I5 withdrawn, and issued again", func(t *testing.T) {
		w.Remove()
		await(t, s, func(_ *svid.Snapshot, err error) bool { return tenant.ReasonOf(err) == tenant.IdentityUnavailable })
		if _, err := s.Snapshot(); !strings.Contains(err.Error(), "no identity issued") {
			t.Errorf("%v does not say why", err)
		}
		if !s.ID().IsZero() {
			t.Error("it still has an ID")
		}
		svid.Receive(s, malformed)
		if _, err := s.Snapshot(); err == nil {
			t.Error("I1 an SVID that the profile does not allow was taken, where there was none")
		}
		wantReason(t, s.Status().Err, tenant.SVIDMalformed)
		if _, err := d.Workload(gatewayID); err != nil {
			t.Fatal(err)
		}
		await(t, s, func(_ *svid.Snapshot, err error) bool { return err == nil })
	})
	t.Run("closed", func(t *testing.T) {
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
		_, err := s.Snapshot()
		wantReason(t, err, tenant.IdentityUnavailable)
	})
}

// lines is a log that tells when a line comes.
type lines chan string

func (l lines) Write(b []byte) (int, error) { l <- string(b); return len(b), nil }

func TestWorkloadAPIGoesAway(t *testing.T) {
	dir := socketDir(t)
	d := newDomain(t, devdomain.Config{Dir: dir})
	w := newWorkload(t, d, gatewayID)
	log := make(lines, 100)
	s, err := svid.NewSource(t.Context(), svid.WithSocket(w.Addr()), svid.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	for line := range log {
		if strings.Contains(line, "keeping the last identity") {
			break
		}
	}
	if after, err := s.Snapshot(); err != nil || after != before {
		t.Errorf("the last identity is gone: %v", err)
	}

	// Another agent takes the place.
	again := newDomain(t, devdomain.Config{Dir: dir})
	newWorkload(t, again, gatewayID)
	await(t, s, func(snap *svid.Snapshot, err error) bool { return err == nil && snap.Generation > before.Generation })
}

func TestNewSourceFails(t *testing.T) {
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
	uid := strconv.Itoa(os.Getuid())
	dir := socketDir(t)
	d := newDomain(t, devdomain.Config{Dir: dir})
	removed := newWorkload(t, d, gatewayID)
	removed.Remove()

	dead := filepath.Join(dir, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()

	mute := filepath.Join(dir, "mute.sock")
	if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: mute, Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	other := filepath.Join(dir, "other.sock")
	ol, err := net.Listen("unix", other)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	go srv.Serve(ol)
	defer srv.Stop()

	for _, tt := range []struct {
		name, addr string
		want       []string
	}{
		{"no variable", "", []string{"SPIFFE_ENDPOINT_SOCKET is not set", "unix:///"}},
		{"bad syntax", "/run/agent.sock", []string{`"/run/agent.sock"`, "scheme", "unix:///path"}},
		{"bad tcp", "tcp://agent", []string{`"tcp://agent"`, "IP:port"}},
		{"two slashes", "unix://run/agent.sock", []string{`"unix://run/agent.sock"`, "unix:///path"}},
		{"no socket", "unix://" + dir + "/none.sock", []string{dir + "/none.sock", "no such file", "is the agent running"}},
		{"nobody listens", "unix://" + dead, []string{dead, "connection refused", "has died"}},
		{"no entry", removed.Addr(), []string{removed.Addr(), "no identity issued", "spire-server entry create", "-selector unix:uid:" + uid}},
		{"no answer", "unix://" + mute, []string{mute, "next:"}},
		{"another service", "unix://" + other, []string{other, "no SPIFFE Workload API"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := svid.NewSource(t.Context(), svid.WithSocket(tt.addr), svid.WithTimeout(500*time.Millisecond),
				svid.WithLogger(slog.New(slog.DiscardHandler)))
			if err == nil {
				s.Close()
				t.Fatal("it succeeded")
			}
			wantReason(t, err, tenant.IdentityUnavailable)
			for _, want := range append(tt.want, "uid "+uid) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not say %q", err, want)
				}
			}
		})
	}
	t.Run("I1 an SVID that the profile does not allow", func(t *testing.T) {
		err := svid.Diagnose("unix://"+mute, time.Second, tenant.Deny(tenant.SVIDMalformed, "two URI SANs"), nil)
		wantReason(t, err, tenant.IdentityUnavailable)
		if !strings.Contains(err.Error(), "SPEC.md, section 2") {
			t.Error(err)
		}
	})
	for want, last := range map[string]error{
		"it has not answered":     nil,
		"no SPIFFE Workload API":  status.Error(codes.InvalidArgument, "no header"),
		"see the agent's log for": status.Error(codes.Unavailable, "later"),
	} {
		t.Run(want, func(t *testing.T) {
			if err := svid.Diagnose("unix://"+mute, time.Second, last, nil); !strings.Contains(err.Error(), want) {
				t.Error(err)
			}
		})
	}
	t.Run("an address that does not parse", func(t *testing.T) {
		wantReason(t, svid.Diagnose("unix://%zz", time.Second, nil, nil), tenant.IdentityUnavailable)
	})
	t.Run("ctx ends", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(io.ErrClosedPipe)
		_, err := svid.NewSource(ctx, svid.WithSocket("unix://"+mute))
		wantReason(t, err, tenant.IdentityUnavailable)
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%v does not say why the wait ended", err)
		}
	})
}

// TestAgentComesLate starts the agent after the workload.
func TestAgentComesLate(t *testing.T) {
	dir := socketDir(t)
	d := newDomain(t, devdomain.Config{Dir: dir})
	got := make(chan error, 1)
	go func() {
		s, err := svid.NewSource(t.Context(), svid.WithSocket("unix://"+dir+"/gateway.sock"), svid.WithLogger(slog.New(slog.DiscardHandler)))
		if err == nil {
			err = s.Close()
		}
		got <- err
	}()
	newWorkload(t, d, gatewayID)
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// TestRotationLosesNoCall is I5: real sockets, real streams, real TCP, and
// connections so short-lived that each rotation meets new ones.
func TestRotationLosesNoCall(t *testing.T) {
	d := newDomain(t, devdomain.Config{Dir: socketDir(t)})
	gateway, inventory := newWorkload(t, d, gatewayID), newWorkload(t, d, inventoryID)
	server := svid.NewServerCredentials(newSource(t, inventory.Addr()))
	client := svid.NewClientCredentials(newSource(t, gateway.Addr()), svid.Expect(inventoryID))
	addr := listen(t, append(checkCalls(server),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 30 * time.Millisecond}))...)
	conn, err := grpc.NewClient("passthrough:"+addr, grpc.WithTransportCredentials(client))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	const workers, calls, between = 4, 250, 25 // a rotation each so many calls
	rotate := make(chan struct{})
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range calls {
				if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
					t.Errorf("I5 a call was lost: %v", err)
				}
				if i%between == 0 {
					rotate <- struct{}{}
				}
			}
		})
	}
	go func() { wg.Wait(); close(rotate) }()
	rotations := 0
	for range rotate {
		rotations++
		if err := errors.Join(gateway.Rotate(), inventory.Rotate()); err != nil {
			t.Error(err)
		}
		if err := call(t, addr, client); err != nil {
			t.Errorf("I5 a new connection failed: %v", err)
		}
	}
	if rotations != workers*calls/between {
		t.Errorf("%d rotations", rotations)
	}
}
