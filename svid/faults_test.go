package svid_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

func newMemory() *memory { return &memory{open: map[string]*bufconn.Listener{}} }

// The alarms of a Source.
const (
	notRenewed = "the SVID was not renewed at half of its life; it is used until it expires"
	hasExpired = "the SVID has expired; every call is refused"
)

// sleepUntil is for the bubble's time.
func sleepUntil(at time.Time) {
	time.Sleep(time.Until(at)) //nolint:forbidigo // The bubble's time, not ours.
	synctest.Wait()
}

// TestNoRenewal is I5: the agent goes away for longer than the SVIDs live.
func TestNoRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issued := time.Now()
		m := newMesh(t, newMemory(), devdomain.Config{TTL: time.Hour}, grpc.KeepaliveParams(
			keepalive.ServerParameters{MaxConnectionAge: 25 * time.Minute, MaxConnectionAgeGrace: time.Minute}))
		// An SVID lives from 10 seconds before it is issued, and renewal has a
		// tenth of its life beyond the half of it.
		life := time.Hour + 10*time.Second
		overdue, expires := issued.Add(-10*time.Second+life/2+life/10), issued.Add(time.Hour)
		good := func(overdue bool) {
			t.Helper()
			if err := m.call(t); err != nil {
				t.Errorf("after %s: %v", time.Since(issued), err)
			}
			s := m.client.Status()
			if s.ID.String() != gatewayID || !s.NotAfter.Equal(expires) || s.Overdue != overdue || s.Expired {
				t.Errorf("after %s the status is %+v", time.Since(issued), s)
			}
		}
		refused := func(want tenant.Reason) {
			t.Helper()
			if err := m.call(t); err == nil || !strings.Contains(err.Error(), string(want)) {
				t.Errorf("I5 after %s: %v, want %s", time.Since(issued), err, want)
			}
			if s := m.client.Status(); !s.Overdue || !s.Expired {
				t.Errorf("I5 after %s the status is %+v", time.Since(issued), s)
			}
		}
		good(false)
		if err := m.client.Status().Err; err != nil {
			t.Errorf("while all is well: %v", err)
		}
		sleepUntil(issued.Add(10 * time.Minute))
		m.domain.StopAgent()
		synctest.Wait()
		good(false)
		if m.client.Status().Err == nil {
			t.Error("the status does not say that the Workload API is away")
		}
		sleepUntil(overdue.Add(-1))
		good(false)
		sleepUntil(overdue)
		good(true)
		sleepUntil(expires.Add(-1))
		good(true)
		sleepUntil(expires)
		refused(tenant.SVIDExpired) // on the open connection
		sleepUntil(issued.Add(2 * time.Hour))
		refused(tenant.IdentityUnavailable) // there is no other

		for _, id := range []string{gatewayID, inventoryID} {
			for text, want := range map[string]time.Time{notRenewed: overdue, hasExpired: expires} {
				if got := m.log.times(slog.LevelError, text, id); len(got) != 1 || !got[0].Equal(want) {
					t.Errorf("I5 %s, %q: logged at %v, want once, at %v", id, text, got, want)
				}
			}
			if got := m.log.times(slog.LevelWarn, "the Workload API is away; keeping the last identity", id); len(got) != 1 {
				t.Errorf("the outage of %s was logged at %v", id, got)
			}
		}

		if err := m.domain.StartAgent(); err != nil {
			t.Fatal(err)
		}
		if _, err := m.pb.EmptyCall(t.Context(), &grpc_testing.Empty{}, grpc.WaitForReady(true)); err != nil {
			t.Errorf("with the agent back: %v", err)
		}
		if s := m.client.Status(); s.Overdue || s.Expired || s.Err != nil {
			t.Errorf("with the agent back, the status is %+v", s)
		}
		sleepUntil(issued.Add(24 * time.Hour)) // many renewals
		if got := m.log.times(slog.LevelError, notRenewed, gatewayID); len(got) != 1 {
			t.Errorf("false alarms at %v", got)
		}
	})
}

// TestRenewalOverdueAtStart: a workload starts while its agent cannot renew.
func TestRenewalOverdueAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, mem := &journal{}, newMemory()
		late := time.Now()
		d := newDomain(t, devdomain.Config{TTL: time.Hour, Dir: "/memory", Listen: mem.listen, Clock: func() time.Time { return late.Add(-50 * time.Minute) }})
		s := (&mesh{log: log, memory: mem}).source(t, newWorkload(t, d, gatewayID))
		if got := log.times(slog.LevelError, notRenewed, gatewayID); len(got) != 1 {
			t.Errorf("I5 logged at %v", got)
		}
		if st := s.Status(); !st.Overdue || st.Expired {
			t.Errorf("I5 the status is %+v", st)
		}
		changed := s.Changed()
		d.Federate(newDomain(t, devdomain.Config{TrustDomain: "partner.example"})) // an update, of the same SVID
		<-changed
		if got := log.times(slog.LevelError, notRenewed, gatewayID); len(got) != 1 {
			t.Errorf("I5 logged again, at %v", got)
		}
	})
}

// TestOverdue: the alarm comes a tenth of a life after half of it, at least ten
// seconds, but with a quarter of it left.
func TestOverdue(t *testing.T) {
	start := time.Now()
	for life, want := range map[time.Duration]time.Duration{
		time.Hour: 36 * time.Minute, time.Minute: 40 * time.Second, 20 * time.Second: 15 * time.Second,
	} {
		overdue, expires := svid.Age([]*x509.Certificate{{NotBefore: start, NotAfter: start.Add(life)}})
		if got := overdue.Sub(start); got != want || !expires.Equal(start.Add(life)) {
			t.Errorf("of %s: after %s, not %s", life, got, want)
		}
	}
}

// TestChainExpires: an intermediate expires before its leaf.
func TestChainExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, newMemory(), devdomain.Config{TTL: time.Hour, Intermediates: 2, KeyType: devdomain.ECP384})
		if err := m.call(t); err != nil {
			t.Error(err)
		}
		snap, err := m.client.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		snap.SVID.Certificates[2].NotAfter = time.Now().Add(time.Minute) // so that no CA needs to be made for it
		if got := m.client.Status().NotAfter; !got.Equal(time.Now().Add(time.Minute)) {
			t.Errorf("I5 the SVID holds until %s", got)
		}
	})
}

// TestAgentAnswers has the agent answer each code for a while.
func TestAgentAnswers(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		t.Run("I5 "+code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMesh(t, newMemory(), devdomain.Config{})
				before, err := m.client.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				m.domain.Fail(code)
				sleepUntil(time.Now().Add(time.Minute))
				during, err := m.client.Snapshot()
				called := m.call(t)
				if got := status.Code(m.client.Status().Err); got != code {
					t.Errorf("the status has the code %s", got)
				}
				if code == codes.PermissionDenied {
					wantReason(t, err, tenant.IdentityUnavailable)
					if got := status.Code(err); got != codes.Unknown {
						t.Errorf("the agent's status shows through: %s", got)
					}
					if called == nil {
						t.Error("a call was made without an identity")
					}
					if got := m.log.times(slog.LevelError, "identity withdrawn", gatewayID); len(got) != 1 {
						t.Errorf("logged at %v", got)
					}
				} else if during != before || called != nil {
					t.Errorf("the last identity is gone: %v, %v", err, called)
				}

				m.domain.Fail(codes.OK)
				sleepUntil(time.Now().Add(time.Minute))
				if err := m.client.Status().Err; err != nil {
					t.Errorf("after it: %v", err)
				}
				if err := errors.Join(m.gateway.Rotate(), m.inventory.Rotate()); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if after, err := m.client.Snapshot(); err != nil || after.SVID.Certificates[0].Equal(before.SVID.Certificates[0]) {
					t.Errorf("after it, no rotation comes through: %v", err)
				}
				if _, err := m.pb.EmptyCall(t.Context(), &grpc_testing.Empty{}, grpc.WaitForReady(true)); err != nil {
					t.Error(err)
				}
				if back := m.log.times(slog.LevelInfo, "the Workload API is back", gatewayID); (len(back) == 1) != (code != codes.PermissionDenied) {
					t.Errorf("its return was logged at %v", back)
				}
			})
		})
	}
}

// TestFaultsLoseNoCall: real sockets, real TLS, and an agent that dies, comes
// back and answers errors all the time.
func TestFaultsLoseNoCall(t *testing.T) {
	m := newMesh(t, nil, devdomain.Config{}, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 50 * time.Millisecond}))
	stop := make(chan struct{})
	var calls atomic.Int64
	var load sync.WaitGroup
	for range 3 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := m.call(t); err != nil {
					t.Errorf("I5 a call was lost: %v", err)
					return
				}
				calls.Add(1)
			}
		})
	}
	some := func() { // calls, in the state that the agent is in
		for until := calls.Load() + 50; calls.Load() < until && !t.Failed(); {
			if err := m.call(t); err != nil {
				t.Errorf("I5 a call was lost: %v", err)
			}
		}
	}
	for range 3 {
		before, err := m.client.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		m.domain.StopAgent()
		some()
		if err := errors.Join(m.gateway.Rotate(), m.inventory.Rotate(), m.domain.StartAgent()); err != nil {
			t.Fatal(err)
		}
		await(t, m.client, func(s *svid.Snapshot, err error) bool { return err == nil && s.Generation > before.Generation })
		some()
		m.domain.Fail(codes.Unavailable)
		some()
		m.domain.Fail(codes.OK)
	}
	close(stop)
	load.Wait()
}

// TestThirtySeconds is I5 at a TTL of 30 seconds, with rotations every 15, under
// unary calls and streams. Streams as long as a connection's grace are not cut.
func TestThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const age, grace = 7500 * time.Millisecond, 3750 * time.Millisecond // as the guard has them
		m := newMesh(t, newMemory(), devdomain.Config{TTL: 30 * time.Second}, grpc.KeepaliveParams(
			keepalive.ServerParameters{MaxConnectionAge: age, MaxConnectionAgeGrace: grace}))
		first, err := m.client.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		end := time.Now().Add(3 * time.Minute)
		// stream says something every 100 ms for as long, and returns how it ended.
		stream := func(long time.Duration) error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			say, err := m.chat(ctx)
			for until := time.Now().Add(long); err == nil && time.Now().Before(until); {
				err = say()
				time.Sleep(100 * time.Millisecond) //nolint:forbidigo // The bubble's time, not ours.
			}
			return err
		}
		var load sync.WaitGroup
		load.Go(func() {
			for time.Now().Before(end) {
				if err := m.call(t); err != nil {
					t.Errorf("I5 a call was lost: %v", err)
				}
				time.Sleep(50 * time.Millisecond) //nolint:forbidigo // The bubble's time, not ours.
			}
		})
		for range 3 {
			load.Go(func() {
				for time.Now().Before(end) {
					if err := stream(grace - 200*time.Millisecond); err != nil {
						t.Errorf("I5 a stream was lost: %v", err)
					}
				}
			})
		}
		cut := 0
		load.Go(func() { // longer than any connection: it is cut for its age, never for an SVID
			for ; time.Now().Before(end); cut++ {
				if err := stream(time.Hour); status.Code(err) != codes.Unavailable {
					t.Errorf("I5 a long stream ended with %v", err)
				}
			}
		})
		load.Wait()
		if last, err := m.client.Snapshot(); err != nil || last.Generation-first.Generation < 10 {
			t.Errorf("%v, or too few rotations", err)
		}
		if cut < 10 {
			t.Errorf("long streams were cut %d times", cut)
		}
		for _, id := range []string{gatewayID, inventoryID} {
			if got := m.log.times(slog.LevelError, notRenewed, id); len(got) != 0 {
				t.Errorf("false alarms at %v", got)
			}
		}
	})
}

// TestBundleRemoved is I4 over a real Workload API: calls on open connections end.
func TestBundleRemoved(t *testing.T) {
	type world struct {
		*mesh
		partner *devdomain.Domain
		say     func() error
	}
	works := func(t *testing.T, w *world) {
		t.Helper()
		if err := errors.Join(w.call(t), w.say()); err != nil {
			t.Error(err)
		}
	}
	// The client is of a federated trust domain.
	start := func(t *testing.T) *world {
		w := &world{mesh: newMesh(t, nil, devdomain.Config{})}
		w.partner = newDomain(t, devdomain.Config{TrustDomain: "partner.example", Dir: socketDir(t)})
		w.domain.Federate(w.partner)
		w.partner.Federate(w.domain)
		w.client = w.source(t, newWorkload(t, w.partner, "spiffe://partner.example/gateway"))
		await(t, w.server, func(s *svid.Snapshot, err error) bool { return err == nil && s.Bundles.Has(w.partner.TrustDomain()) })
		w.pb = grpc_testing.NewTestServiceClient(w.dial(t))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		t.Cleanup(cancel)
		var err error
		if w.say, err = w.chat(ctx); err != nil {
			t.Fatal(err)
		}
		works(t, w)
		return w
	}
	t.Run("I4 de-federated", func(t *testing.T) {
		w := start(t)
		w.domain.Unfederate("partner.example")
		await(t, w.server, func(s *svid.Snapshot, err error) bool { return err == nil && !s.Bundles.Has(w.partner.TrustDomain()) })
		for what, err := range map[string]error{"a stream": w.say(), "a call": w.call(t)} {
			if err == nil || !strings.Contains(err.Error(), string(tenant.SVIDUntrusted)) {
				t.Errorf("I4 %s goes on: %v", what, err)
			}
		}
	})
	t.Run("I4 a root rotated in SPIRE's steps", func(t *testing.T) {
		w := start(t)
		old := w.partner.Authorities()[0].ID
		roots := func(n int) func(*svid.Snapshot, error) bool {
			return func(s *svid.Snapshot, err error) bool {
				b, ok := s.Bundles.Get(w.partner.TrustDomain())
				return err == nil && ok && len(b.X509Authorities()) == n
			}
		}
		before, err := w.client.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		next, err := w.partner.PrepareAuthority()
		if err != nil {
			t.Fatal(err)
		}
		await(t, w.server, roots(2))
		works(t, w)
		if err := errors.Join(w.partner.ActivateAuthority(next), w.partner.TaintAuthority(old)); err != nil {
			t.Fatal(err)
		}
		await(t, w.client, func(s *svid.Snapshot, err error) bool {
			return err == nil && !s.SVID.Certificates[0].Equal(before.SVID.Certificates[0])
		})
		works(t, w) // with the old leaf
		if err := w.partner.RevokeAuthority(old); err != nil {
			t.Fatal(err)
		}
		await(t, w.server, roots(1))
		for what, err := range map[string]error{"a stream": w.say(), "a call": w.call(t)} {
			if err == nil || !strings.Contains(err.Error(), string(tenant.SVIDUntrusted)) {
				t.Errorf("I4 %s with a leaf of the revoked root goes on: %v", what, err)
			}
		}
		w.pb = grpc_testing.NewTestServiceClient(w.dial(t))
		if err := w.call(t); err != nil {
			t.Errorf("a new connection: %v", err)
		}
	})
}

// TestHints chooses among several SVIDs of one caller at the agent's socket.
func TestHints(t *testing.T) {
	d := newDomain(t, devdomain.Config{Dir: socketDir(t)})
	uid := devdomain.WithUID(uint32(os.Getuid()))
	register := func(name string, opts ...devdomain.WorkloadOption) *devdomain.Workload {
		t.Helper()
		w, err := d.Workload("spiffe://prod.example/"+name, opts...)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	register("plain", uid)
	register("internal", uid, devdomain.WithHint("internal"))
	external := register("external", uid, devdomain.WithHint("external"))
	open := func(opts ...svid.Option) (*svid.Source, error) {
		s, err := svid.NewSource(t.Context(), append(opts, svid.WithSocket(d.Addr()), svid.WithLogger(slog.New(slog.DiscardHandler)))...)
		if err == nil {
			t.Cleanup(func() { s.Close() })
		}
		return s, err
	}
	for hint, want := range map[string]string{"": "plain", "internal": "internal", "external": "external"} {
		t.Run("hint "+hint, func(t *testing.T) {
			s, err := open(svid.WithHint(hint))
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Status(); got.ID.Path() != "/"+want || got.Hint != hint || s.ID() != got.ID {
				t.Errorf("%+v", got)
			}
		})
	}
	t.Run("I3 an unknown hint", func(t *testing.T) {
		_, err := open(svid.WithHint("inter"), svid.WithTimeout(200*time.Millisecond))
		wantReason(t, err, tenant.IdentityUnavailable)
		for _, want := range []string{`no SVID has the hint "inter"`, `"" (spiffe://prod.example/plain)`,
			`"internal" (spiffe://prod.example/internal)`, `"external" (spiffe://prod.example/external)`, "svid.WithHint"} {
			if !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("%v\ndoes not say %q", err, want)
			}
		}
	})
	t.Run("I5 withdrawn, though others stay", func(t *testing.T) {
		s, err := open(svid.WithHint("external"))
		if err != nil {
			t.Fatal(err)
		}
		external.Remove()
		await(t, s, func(_ *svid.Snapshot, err error) bool { return err != nil })
		_, err = s.Snapshot()
		wantReason(t, err, tenant.IdentityUnavailable)
		if st := s.Status(); !st.ID.IsZero() || st.Err == nil {
			t.Errorf("the status is %+v", st)
		}
		register("external", uid, devdomain.WithHint("external"))
		await(t, s, func(_ *svid.Snapshot, err error) bool { return err == nil })
	})
}
