package policy

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// bigDocument has 10,000 workloads, a third with patterns, and 2,000 methods.
var bigDocument = sync.OnceValue(func() []byte {
	var b strings.Builder
	b.WriteString("version: 1\ntrust_domains: [{name: prod.example}]\nworkloads:\n")
	b.WriteString("  - {name: gateway, match: spiffe://prod.example/ns/edge/sa/gateway, tenants: [\"*\"], " +
		"originate: {issuers: [\"https://login.example\"], scopes: [\"orders.*\"]}, calls: [/shop.v1.Service7/*]}\n")
	for i := range 9_999 {
		switch i % 3 {
		case 0:
			fmt.Fprintf(&b, "  - {name: w%d, match: spiffe://prod.example/ns/prod/sa/svc-%d, tenants: [\"*\"], calls: [/shop.v1.Service%d/*]}\n", i, i, i%200)
		case 1:
			fmt.Fprintf(&b, "  - {name: w%d, match: \"spiffe://prod.example/ns/tenant-{tenant}/sa/svc-%d\", tenants: [\"{tenant}\"], calls: [/shop.v1.Service%d/*]}\n", i, i, i%200)
		case 2:
			fmt.Fprintf(&b, "  - {name: w%d, match: spiffe://prod.example/team-%d/**, tenants: [\"*\"], calls: [/shop.v1.Service%d/*]}\n", i, i, i%200)
		}
	}
	b.WriteString("methods:\n")
	for i := range 200 {
		fmt.Fprintf(&b, "  - {match: /shop.v1.Service%d/*, callers: [gateway, w%d]}\n", i, i)
		for j := range 9 {
			fmt.Fprintf(&b, "  - {match: /shop.v1.Service%d/Method%d, scopes: [orders.read]}\n", i, j)
		}
	}
	b.WriteString("  - {match: /shop.v1.Service7/Conditional, when: 'claims.classification <= 2 && path[0].workload == \"gateway\"'}\n")
	b.WriteString("tenants_file: tenants.list\ntenants: {}\n")
	return []byte(b.String())
})

// tenantList is a tenants_file of n tenants.
func tenantList(n int) []byte {
	b := make([]byte, 0, 64*n)
	for i := range n {
		b = fmt.Appendf(b, "tenant-%d uid=01J9ZK3V5Q8W7RBN%010d tier=%s region=%s\n", i, i, []string{"gold", "silver"}[i%2], []string{"eu", "us", "ap"}[i%3])
	}
	return fmt.Appendf(b, "end: %d\n", n)
}

func bigPolicy(tb testing.TB, tenants int) *Policy {
	tb.Helper()
	p, err := Load(fstest.MapFS{"p.yaml": {Data: bigDocument()}, "tenants.list": {Data: tenantList(tenants)}}, "p.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// bigCalls are calls by way of the gateway and another workload, for tenants
// that lie far apart in memory.
func bigCalls(n int, method string) []*Call {
	rng := rand.New(rand.NewPCG(5, 6))
	calls := make([]*Call, 1024)
	for i := range calls {
		t := rng.IntN(n)
		id, _ := tenant.ParseID("tenant-" + strconv.Itoa(t))
		c := callOf(method, ids("ns/edge/sa/gateway"), &hop.Claims{
			Transaction: "t", Tenant: id, TenantUID: fmt.Sprintf("01J9ZK3V5Q8W7RBN%010d", t), Subject: "ann", Issuer: "https://login.example",
			Scopes: []string{"orders.read"}, IssuedAt: now, Expires: now.Add(5 * time.Minute),
		}, nil)
		calls[i] = &c
	}
	return calls
}

func benchmarkDecide(b *testing.B, tenants int, method string) {
	p, calls := bigPolicy(b, tenants), bigCalls(tenants, method)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		d := p.Decide(calls[i%len(calls)])
		if d.err != nil {
			b.Fatal(d.err)
		}
		i++
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 1000, 1_000_000} {
		b.Run(fmt.Sprintf("tenants=%d", n), func(b *testing.B) { benchmarkDecide(b, n, "/shop.v1.Service7/Method3") })
	}
}

func BenchmarkDecideCEL(b *testing.B) { benchmarkDecide(b, 1_000_000, "/shop.v1.Service7/Conditional") }

// BenchmarkLoad reports beside the time how much the heap grows.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{1_000_000} {
		b.Run(fmt.Sprintf("tenants=%d", n), func(b *testing.B) {
			fsys := fstest.MapFS{"p.yaml": {Data: bigDocument()}, "tenants.list": {Data: tenantList(n)}}
			heap := func() float64 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return float64(m.HeapAlloc)
			}
			before := heap()
			var p *Policy
			for b.Loop() {
				var err error
				if p, err = Load(fsys, "p.yaml"); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((heap()-before)/(1<<20), "MiB-heap")
			runtime.KeepAlive(p)
			runtime.KeepAlive(fsys)
		})
	}
}

// TestNoAllocation: an allowed decision without a condition allocates nothing.
func TestNoAllocation(t *testing.T) {
	p := mesh(t)
	one, two := callOf(listOrders, ids("gateway"), claims(), nil), callOf(get, ids("gateway", "orders"), claims(), nil)
	self := ids("gateway")[0]
	for name, decide := range map[string]func() Decision{
		"one hop":   func() Decision { return p.Decide(&one) },
		"two hops":  func() Decision { return p.Decide(&two) },
		"admit":     func() Decision { return p.Admit(listOrders, nil, self) },
		"call":      func() Decision { return p.MayCall(self, listOrders, nil) },
		"originate": func() Decision { return p.MayOriginate(self, one.Claims, nil) },
	} {
		if d := decide(); d.Err() != nil {
			t.Errorf("%s: %v", name, d.Err())
		}
		if n := testing.AllocsPerRun(100, func() {
			if d := decide(); d.Err() != nil {
				t.Error(d.Err())
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// reloads is an [Origin] whose every load yields another version.
type reloads struct {
	list []byte
	n    int
}

// Load implements [Origin].
func (o *reloads) Load(context.Context) (*Policy, error) {
	o.n++
	doc := fmt.Appendf(bytes.Clone(bigDocument()), "# %d\n", o.n)
	return Load(fstest.MapFS{"p.yaml": {Data: doc}, "tenants.list": {Data: o.list}}, "p.yaml")
}

// Next implements [Origin].
func (*reloads) Next(ctx context.Context) { <-ctx.Done() }

// BenchmarkReload loads a million tenants again and again while 32 callers
// decide a thousand times a second each, and reports how long their decisions
// take: the 99th percentile, and the longest.
func BenchmarkReload(b *testing.B) {
	const tenants = 1_000_000
	w, err := Watch(b.Context(), &reloads{list: tenantList(tenants)}, WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	calls := bigCalls(tenants, "/shop.v1.Service7/Method3")
	stop := make(chan struct{})
	took := make([][]time.Duration, 32)
	var callers sync.WaitGroup
	for i := range took {
		callers.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				begin := time.Now()
				d := w.Current().Decide(calls[n%len(calls)])
				took[i] = append(took[i], time.Since(begin))
				if d.Err() != nil {
					b.Error(d.Err())
					return
				}
			}
		})
	}
	for b.Loop() {
		if err := w.Reload(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	close(stop)
	callers.Wait()
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	b.ReportMetric(all[len(all)*99/100].Seconds()*1e3, "ms-p99")
	b.ReportMetric(all[len(all)-1].Seconds()*1e3, "ms-max")
}
