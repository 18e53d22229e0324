package natssource

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"

	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// TestMain lets pass what the client's Put, which only the tests call, leaves at times.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// start starts a NATS server with JetStream in a folder, at a port, or at any if it is -1.
func start(tb testing.TB, dir string, port int) *server.Server {
	tb.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true})
	if err != nil {
		tb.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		tb.Fatal("the server is not ready")
	}
	tb.Cleanup(func() { stop(s) })
	return s
}

func stop(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// connect returns a connection's JetStream.
func connect(tb testing.TB, url string) jetstream.JetStream {
	tb.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		tb.Fatal(err)
	}
	return js
}

const bucket = "policy"

// bound returns the store of another connection.
func bound(tb testing.TB, url string) jetstream.ObjectStore {
	tb.Helper()
	store, err := connect(tb, url).ObjectStore(tb.Context(), bucket)
	if err != nil {
		tb.Fatal(err)
	}
	return store
}

// newStore starts a server and makes a store in it.
func newStore(tb testing.TB) (*server.Server, jetstream.JetStream, jetstream.ObjectStore) {
	tb.Helper()
	s := start(tb, tb.TempDir(), -1)
	js := connect(tb, s.ClientURL())
	store, err := js.CreateObjectStore(tb.Context(), jetstream.ObjectStoreConfig{Bucket: bucket})
	if err != nil {
		tb.Fatal(err)
	}
	return s, js, store
}

func put(tb testing.TB, store jetstream.ObjectStore, name, text string) {
	tb.Helper()
	if _, err := store.PutString(tb.Context(), name, text); err != nil {
		tb.Fatal(err)
	}
}

const document = "prod/tenantmesh.yaml"

// doc is a document by which method n may be called and no other, with the
// tenants of a tenants_file.
func doc(n int, tenantsFile string) string {
	return fmt.Sprintf(`version: 1
trust_domains: [{name: td.example}]
workloads:
  - {name: a, match: spiffe://td.example/a, tenants: ["*"], calls: [/p.S/*]}
methods:
  - {match: /p.S/M%d, callers: [a]}
tenants_file: %s
tenants: {}
`, n, tenantsFile)
}

// list is a tenants_file of one tenant whose uid has the number.
func list(n int) string { return fmt.Sprintf("acme uid=u%d\nend: 1\n", n) }

// push puts a pair of both as the package comment says.
func push(tb testing.TB, store jetstream.ObjectStore, n int) {
	tb.Helper()
	name := fmt.Sprintf("tenants-%d.list", n)
	put(tb, store, "prod/"+name, list(n))
	put(tb, store, document, doc(n, name))
}

var acme, _ = tenant.ParseID("acme")

// number returns the pair that decides, and 0 if none does.
func number(t *testing.T, w *policy.Watcher) int {
	t.Helper()
	p := w.Current()
	uid, _ := p.TenantUID(acme)
	for n := 1; n < 100; n++ {
		d := p.Admit(fmt.Sprintf("/p.S/M%d", n), nil, spiffeid.RequireFromString("spiffe://td.example/a"))
		switch err := d.Err(); {
		case err == nil && uid != fmt.Sprintf("u%d", n):
			t.Errorf("P2 document %d decides beside the tenant %s", n, uid)
			return n
		case err == nil:
			return n
		case tenant.ReasonOf(err) != tenant.MethodNotCovered:
			t.Errorf("the reason is %s", tenant.ReasonOf(err))
			return 0
		}
	}
	return 0
}

func decides(t *testing.T, w *policy.Watcher, n int) {
	t.Helper()
	if got := number(t, w); got != n {
		t.Errorf("policy %d decides, want %d", got, n)
	}
}

// records are what a Watcher logged.
type records chan slog.Record

func (r records) Enabled(context.Context, slog.Level) bool        { return true }
func (r records) Handle(_ context.Context, rec slog.Record) error { r <- rec; return nil }
func (r records) WithAttrs([]slog.Attr) slog.Handler              { return r }
func (r records) WithGroup(string) slog.Handler                   { return r }

// next waits until something of the level is logged.
func (r records) next(t *testing.T, level slog.Level) {
	t.Helper()
	for late := time.After(30 * time.Second); ; {
		select {
		case rec := <-r:
			if rec.Level == level {
				return
			}
		case <-late:
			t.Fatalf("nothing of level %s is logged", level)
		}
	}
}

func (r records) until(t *testing.T, w *policy.Watcher, n int) {
	t.Helper()
	for number(t, w) != n {
		r.next(t, slog.LevelInfo)
	}
}

// watch is Watch with another interval.
func watch(t *testing.T, store jetstream.ObjectStore, poll time.Duration) (*policy.Watcher, records) {
	t.Helper()
	o, r := newOrigin(store, document), make(records, 1000)
	o.poll = poll
	w, err := policy.Watch(t.Context(), o, policy.WithLogger(slog.New(r)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w, r
}

func TestWatch(t *testing.T) {
	s, js, store := newStore(t)
	push(t, store, 1)
	w, r := watch(t, bound(t, s.ClientURL()), time.Hour)
	decides(t, w, 1)
	push(t, store, 2)
	r.until(t, w, 2)

	n := 2
	for _, tt := range []struct {
		name    string
		breakIt func(t *testing.T)
		want    string // of the failure
	}{
		{"P1 an unknown field", func(t *testing.T) { put(t, store, document, doc(90, "tenants-2.list")+"colour: blue\n") }, `unknown key "colour"`},
		{"P1 cut short", func(t *testing.T) { put(t, store, document, doc(90, "tenants-2.list")[:150]) }, "may have been cut short"},
		{"P1 empty", func(t *testing.T) { put(t, store, document, "") }, "the document is empty"},
		{"P1 deleted", func(t *testing.T) {
			if err := store.Delete(t.Context(), document); err != nil {
				t.Fatal(err)
			}
		}, "object not found"},
		{"P1 a tenants_file cut short", func(t *testing.T) { put(t, store, fmt.Sprintf("prod/tenants-%d.list", n), "acme uid=u90\n") }, "may have been cut short"},
		{"P1 no tenants_file", func(t *testing.T) { put(t, store, document, doc(90, "none.list")) }, "object not found"},
		{"P1 a link", func(t *testing.T) {
			link(t, js, store, fmt.Sprintf("tenants-%d.list", n))
		}, "a link"},
		{"P1 no digest", func(t *testing.T) {
			info, err := store.GetInfo(t.Context(), document)
			if err != nil {
				t.Fatal(err)
			}
			info.Digest = "MD5=AAAA"
			publish(t, js, info)
		}, "no SHA-256 digest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			version := w.Status().Version
			tt.breakIt(t)
			r.next(t, slog.LevelError)
			decides(t, w, n)
			if s := w.Status(); s.Err == nil || !strings.Contains(s.Err.Error(), tt.want) || s.Version != version || s.Stale {
				t.Errorf("status %+v", s)
			}
			if err := w.Reload(t.Context()); err == nil {
				t.Error("a reload of what is broken is acknowledged")
			}
			decides(t, w, n)
			n++
			push(t, store, n)
			r.until(t, w, n)
		})
	}
}

// TestPolling: the end of the store, which nothing announces, is seen, and so is
// a new one.
func TestPolling(t *testing.T) {
	s, js, store := newStore(t)
	push(t, store, 1)
	w, r := watch(t, bound(t, s.ClientURL()), 100*time.Millisecond)
	if err := js.DeleteObjectStore(t.Context(), bucket); err != nil {
		t.Fatal(err)
	}
	r.next(t, slog.LevelError)
	decides(t, w, 1)
	store, err := js.CreateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: bucket})
	if err != nil {
		t.Fatal(err)
	}
	push(t, store, 2)
	r.until(t, w, 2)
}

// link puts a link in place of the document, to one by which method 90 may be
// called.
func link(t *testing.T, js jetstream.JetStream, store jetstream.ObjectStore, tenantsFile string) {
	t.Helper()
	put(t, store, "other", doc(90, tenantsFile))
	publish(t, js, &jetstream.ObjectInfo{Bucket: bucket, NUID: "link", ObjectMeta: jetstream.ObjectMeta{
		Name: document, Opts: &jetstream.ObjectMetaOptions{Link: &jetstream.ObjectLink{Bucket: bucket, Name: "other"}},
	}})
}

// publish puts what the store is to say of an object.
func publish(t *testing.T, js jetstream.JetStream, info *jetstream.ObjectInfo) {
	t.Helper()
	data, err := json.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	m := nats.NewMsg("$O." + info.Bucket + ".M." + base64.URLEncoding.EncodeToString([]byte(info.Name)))
	m.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	m.Data = data
	if _, err := js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

func TestWatchStart(t *testing.T) {
	s, _, store := newStore(t)
	for _, name := range []string{"", "/etc/policy", "../policy", "a//b"} {
		if w, err := Watch(t.Context(), store, name); err == nil || !strings.Contains(err.Error(), "is no path") || w != nil {
			t.Errorf("P6 %q: %v, %v", name, w, err)
		}
	}
	if w, err := Watch(t.Context(), store, document); !errors.Is(err, jetstream.ErrObjectNotFound) || w != nil {
		t.Errorf("P6 no document: %v, %v", w, err)
	}
	stop(s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if w, err := Watch(ctx, store, document); !errors.Is(err, context.Canceled) || w != nil {
		t.Errorf("P6 no server: %v, %v", w, err)
	}
}

// TestManyWatchers: what was pushed once decides everywhere, when each has
// acknowledged it, and without being asked.
func TestManyWatchers(t *testing.T) {
	s, _, store := newStore(t)
	push(t, store, 1)
	type one struct {
		w *policy.Watcher
		r records
	}
	var all []one
	for range 20 {
		w, r := watch(t, bound(t, s.ClientURL()), time.Hour)
		all = append(all, one{w, r})
	}
	push(t, store, 2)
	for _, o := range all {
		if err := o.w.Reload(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, o := range all {
		decides(t, o.w, 2) // P2
	}
	push(t, store, 3)
	for _, o := range all {
		o.r.until(t, o.w, 3)
	}
}

// BenchmarkPush measures how long it takes from the beginning of a push until it
// decides at 20 servers.
func BenchmarkPush(b *testing.B) {
	s, _, store := newStore(b)
	push(b, store, 1)
	var all []records
	for range 20 {
		r := make(records, 1000)
		w, err := Watch(b.Context(), bound(b, s.ClientURL()), document, policy.WithLogger(slog.New(r)))
		if err != nil {
			b.Fatal(err)
		}
		defer w.Close()
		<-r
		all = append(all, r)
	}
	for n := 2; b.Loop(); n++ {
		push(b, store, n)
		for _, r := range all {
			<-r
		}
	}
}

// TestRestart: while NATS is away the last policy stays, and when it is back what
// was pushed takes effect.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, -1)
	js := connect(t, s.ClientURL())
	store, err := js.CreateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: bucket})
	if err != nil {
		t.Fatal(err)
	}
	push(t, store, 1)
	w, r := watch(t, bound(t, s.ClientURL()), time.Hour)
	for n := 2; n < 4; n++ {
		port := s.Addr().(*net.TCPAddr).Port
		stop(s)
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		if err := w.Reload(ctx); err == nil {
			t.Error("P1 a reload is acknowledged while NATS is away")
		}
		cancel()
		r.next(t, slog.LevelError)
		decides(t, w, n-1)

		s = start(t, dir, port)
		push(t, bound(t, s.ClientURL()), n)
		r.until(t, w, n)
		if s := w.Status(); s.Err != nil {
			t.Errorf("status %+v", s)
		}
	}
}

// TestTenants: a tenants_file of 50,000 lines, in many chunks.
func TestTenants(t *testing.T) {
	s, _, store := newStore(t)
	var b strings.Builder
	b.WriteString("acme uid=u1\n")
	for i := range 50_000 {
		fmt.Fprintf(&b, "tenant-%d uid=01J9ZK3V5Q8W7RBN%010d tier=gold region=eu\n", i, i)
	}
	b.WriteString("end: 50001\n")
	put(t, store, "prod/large.list", b.String())
	put(t, store, document, doc(1, "large.list"))
	w, _ := watch(t, bound(t, s.ClientURL()), time.Hour)
	decides(t, w, 1)
	id, err := tenant.ParseID("tenant-49999")
	if err != nil {
		t.Fatal(err)
	}
	if uid, ok := w.Current().TenantUID(id); !ok || uid != "01J9ZK3V5Q8W7RBN0000049999" {
		t.Errorf("uid %q, listed %t", uid, ok)
	}
}

// fakeStore is a store of which a test changes some answers.
type fakeStore struct {
	jetstream.ObjectStore
	info    func(name string, info *jetstream.ObjectInfo, err error) (*jetstream.ObjectInfo, error)
	before  func(ctx context.Context, name string) // is called before an object is read
	fetched atomic.Int32
}

func (s *fakeStore) GetInfo(ctx context.Context, name string, opts ...jetstream.GetObjectInfoOpt) (*jetstream.ObjectInfo, error) {
	info, err := s.ObjectStore.GetInfo(ctx, name, opts...)
	if s.info != nil {
		return s.info(name, info, err)
	}
	return info, err
}

func (s *fakeStore) Get(ctx context.Context, name string, opts ...jetstream.GetObjectOpt) (jetstream.ObjectResult, error) {
	s.fetched.Add(1)
	if s.before != nil {
		s.before(ctx, name)
	}
	return s.ObjectStore.Get(ctx, name, opts...)
}

func loaded(t *testing.T, o *origin) *policy.Policy {
	t.Helper()
	p, err := o.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOrigin(t *testing.T) {
	_, js, store := newStore(t)

	t.Run("what has not changed is not read again", func(t *testing.T) {
		push(t, store, 1)
		f := &fakeStore{ObjectStore: store}
		o := newOrigin(f, document)
		p := loaded(t, o)
		f.fetched.Store(0)
		push(t, store, 1) // other objects, with the same bytes
		if again := loaded(t, o); again != p || f.fetched.Load() != 0 {
			t.Errorf("another policy is returned, or %d objects are read", f.fetched.Load())
		}
	})
	t.Run("P1 an object over the limit is not read", func(t *testing.T) {
		push(t, store, 1)
		f := &fakeStore{ObjectStore: store, info: func(_ string, info *jetstream.ObjectInfo, err error) (*jetstream.ObjectInfo, error) {
			if err == nil {
				info.Size = policy.MaxTenantsFile + 1
			}
			return info, err
		}}
		if _, err := newOrigin(f, document).Load(t.Context()); err == nil || !strings.Contains(err.Error(), "over 134217728 bytes") || f.fetched.Load() != 0 {
			t.Errorf("%v, %d objects are read", err, f.fetched.Load())
		}
	})
	t.Run("P1 a document over its limit", func(t *testing.T) {
		put(t, store, document, strings.Repeat("#\n", policy.MaxDocument))
		if _, err := newOrigin(store, document).Load(t.Context()); err == nil || !strings.Contains(err.Error(), "over 4194304 bytes") {
			t.Error(err)
		}
	})
	t.Run("P2 a pair that changes while it is read", func(t *testing.T) {
		put(t, store, "prod/tenants.list", list(1))
		put(t, store, document, doc(1, "tenants.list"))
		f := &fakeStore{ObjectStore: store}
		f.before = func(_ context.Context, name string) {
			if name == "prod/tenants.list" {
				f.before = nil
				put(t, store, document, doc(2, "tenants.list"))
				put(t, store, name, list(2))
			}
		}
		p := loaded(t, newOrigin(f, document))
		if uid, _ := p.TenantUID(acme); uid != "u2" {
			t.Errorf("uid %s", uid)
		}
		if d := p.Covers("/p.S/M2", nil); d.Err() != nil {
			t.Error(d.Err())
		}
	})
	t.Run("P2 an object that is replaced before it is read", func(t *testing.T) {
		push(t, store, 1)
		f := &fakeStore{ObjectStore: store}
		f.before = func(context.Context, string) {
			f.before = nil
			push(t, store, 2)
		}
		if d := loaded(t, newOrigin(f, document)).Covers("/p.S/M2", nil); d.Err() != nil {
			t.Error(d.Err())
		}
	})
	t.Run("P1 an object that a link replaces before it is read", func(t *testing.T) {
		push(t, store, 1)
		f := &fakeStore{ObjectStore: store}
		f.before = func(context.Context, string) {
			f.before = nil
			link(t, js, store, "tenants-1.list")
		}
		if p, err := newOrigin(f, document).Load(t.Context()); err == nil || !strings.Contains(err.Error(), "a link") {
			t.Errorf("%v, %v", p, err)
		}
	})
	t.Run("P1 a change before the subscription", func(t *testing.T) {
		push(t, store, 1)
		o := newOrigin(store, document)
		o.poll = time.Hour
		loaded(t, o)
		push(t, store, 2)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		o.Next(ctx)
		defer o.Close()
		if ctx.Err() != nil {
			t.Error("nobody asks for it")
		}
	})
	t.Run("P1 an object that does not come", func(t *testing.T) {
		push(t, store, 1)
		f := &fakeStore{ObjectStore: store, before: func(ctx context.Context, _ string) { <-ctx.Done() }}
		o := newOrigin(f, document)
		o.patience = 100 * time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := o.Load(ctx); err == nil || ctx.Err() != nil {
			t.Error(err)
		}
	})
	t.Run("P1 an object whose bytes do not come", func(t *testing.T) {
		push(t, store, 1)
		info, err := store.GetInfo(t.Context(), document)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := js.Stream(t.Context(), "OBJ_"+bucket)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject("$O."+bucket+".C."+info.NUID)); err != nil {
			t.Fatal(err)
		}
		o := newOrigin(store, document)
		o.patience = 200 * time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := o.Load(ctx); err == nil || !strings.Contains(err.Error(), "do not come") {
			t.Error(err)
		}
		o.patience = patience // for which nobody waits who is gone
		ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := o.Load(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		push(t, store, 2)
		loaded(t, o)
	})
	t.Run("P1 other bytes than the digest's", func(t *testing.T) {
		push(t, store, 1)
		info, err := store.GetInfo(t.Context(), document)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(nil)
		info.Digest = "SHA-256=" + base64.URLEncoding.EncodeToString(sum[:])
		publish(t, js, info)
		if _, err := newOrigin(store, document).Load(t.Context()); !errors.Is(err, jetstream.ErrDigestMismatch) {
			t.Error(err)
		}
	})
}

// TestBehind: a replica that is behind does not hide what was announced (P2).
func TestBehind(t *testing.T) {
	_, _, store := newStore(t)
	push(t, store, 1)
	old := map[string]*jetstream.ObjectInfo{}
	var behind atomic.Int32 // how many answers are yet to come from there
	f := &fakeStore{ObjectStore: store, info: func(name string, info *jetstream.ObjectInfo, err error) (*jetstream.ObjectInfo, error) {
		if name == document && behind.Add(-1) >= 0 {
			if info := old[name]; info != nil {
				return info, nil
			}
			return nil, jetstream.ErrObjectNotFound
		}
		return info, err
	}}
	announced := func(t *testing.T, change func()) *origin {
		t.Helper()
		o := newOrigin(f, document)
		loaded(t, o)
		o.Next(t.Context()) // subscribes
		t.Cleanup(func() { o.Close() })
		change()
		for {
			o.Next(t.Context())
			o.mu.Lock()
			_, ok := o.announced[document]
			o.mu.Unlock()
			if ok {
				return o
			}
		}
	}
	t.Run("P2 for a while", func(t *testing.T) {
		for _, was := range []*jetstream.ObjectInfo{info(t, store), nil} {
			push(t, store, 1)
			old[document] = was
			o := announced(t, func() { push(t, store, 2) })
			behind.Store(3)
			if d := loaded(t, o).Covers("/p.S/M2", nil); d.Err() != nil {
				t.Error(d.Err())
			}
		}
	})
	t.Run("P2 for long", func(t *testing.T) {
		old[document] = info(t, store)
		o := announced(t, func() { push(t, store, 3) })
		behind.Store(1000)
		defer behind.Store(0)
		if _, err := o.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "behind") {
			t.Error(err)
		}
	})
	t.Run("P1 an announced deletion", func(t *testing.T) {
		old[document] = info(t, store)
		o := announced(t, func() {
			if err := store.Delete(t.Context(), document); err != nil {
				t.Fatal(err)
			}
		})
		behind.Store(3)
		if _, err := o.Load(t.Context()); !errors.Is(err, jetstream.ErrObjectNotFound) {
			t.Error(err)
		}
	})
}

func info(t *testing.T, store jetstream.ObjectStore) *jetstream.ObjectInfo {
	t.Helper()
	info, err := store.GetInfo(t.Context(), document)
	if err != nil {
		t.Fatal(err)
	}
	return info
}
