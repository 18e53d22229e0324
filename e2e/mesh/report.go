package mesh

import (
	"math"
	"math/bits"
	"time"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// Report is what a run of a mesh came to.
type Report struct {
	// Domain says in words where the SVIDs came from. RealSPIRE says whether
	// that was SPIRE.
	Domain    string
	RealSPIRE bool
	// Network says in words how the workloads reached each other.
	Network string
	Began   time.Time
	Took    time.Duration

	Workloads []WorkloadInfo
	// Edges are who called whom for which tenant, by the callees' audit trails.
	Edges   []Edge
	Loads   []LoadResult
	Faults  []FaultResult
	Attacks []AttackResult
	// Omitted are attacks that were not made.
	Omitted []Omission
	// Checks are all other things that must hold.
	Checks []Check
}

// Omission is what was not tried, and why.
type Omission struct{ Line, What, Why string }

// Count returns how many results passed and failed.
func (r *Report) Count() (passed, failed int) {
	count := func(ok bool) {
		if ok {
			passed++
		} else {
			failed++
		}
	}
	for _, l := range r.Loads {
		count(l.Passed())
	}
	for _, f := range r.Faults {
		count(f.Passed)
	}
	for _, a := range r.Attacks {
		count(a.Passed)
	}
	for _, c := range r.Checks {
		count(c.Passed)
	}
	return passed, failed
}

// WorkloadInfo is a workload that took part.
type WorkloadInfo struct {
	Name string
	ID   string
	Addr string
	// Service is what it serves, and Calls whom it calls, by name.
	Service string
	Calls   []string
	// Starts is how often its process was started.
	Starts int
}

// Edge is how often a callee let a caller act for a tenant, and how often it
// did not.
type Edge struct {
	// From and To are names of workloads, or From is a SPIFFE ID that is none's.
	From, To string
	// Tenant is empty where none was proven.
	Tenant           string
	Allowed, Refused uint64
}

// Check is something that must hold.
type Check struct {
	Name, Detail string
	Passed       bool
}

// AttackResult is how an attack on the running mesh went.
type AttackResult struct {
	// Line is that of the attack catalogue, such as "H1".
	Line string
	// Name says what was tried.
	Name string
	// Attacker says who tried it, Target is the workload's name, and Shape that
	// of the call, empty where there is none.
	Attacker, Target string
	Shape            Shape
	// Want is the reason to be recorded, Got the one that was; "" for none.
	Want, Got tenant.Reason
	// Saw is the caller's view: a status code, and the reason if it was told one.
	Saw string
	// Ran says that a handler ran.
	Ran bool
	// Passed says that all was as expected, and Detail what was not.
	Passed bool
	Detail string
}

// FaultResult is what a fault cost.
type FaultResult struct {
	// Name is short, What says what was done.
	Name, What string
	// Began is when it was done, from the run's start; Lasted how long it was
	// left so; Recovered how long after its end the last call failed.
	Began, Lasted, Recovered time.Duration
	// Calls were made from its begin until all was well again, of which Failed failed.
	Calls, Failed uint64
	// Refusals are those by status code, and reason if there was one.
	Refusals map[string]uint64
	Passed   bool
	Detail   string
}

// LoadResult is what a load came to. Each of its calls is accounted for: it
// was right, it failed with a status, or it was wrong.
type LoadResult struct {
	Name string
	// Calls were made by the load's generators. Hops are those that all
	// workloads handled because of them.
	Calls, Hops uint64
	Right       uint64
	// Refusals are by status code, and reason if there was one.
	Refusals map[string]uint64
	// Unexplained are refusals while nothing was broken, Wrong are answers that
	// are not those of the call or of its tenant, Lost are calls without an end.
	Unexplained, Wrong, Lost uint64
	// Details are of some that are wrong or unexplained.
	Details []string
	// Began is when it was started, from the run's start.
	Began, Took time.Duration
	// Latency of the calls that were right, by shape.
	Latency map[Shape]*Histogram
	// Timeline has an entry for each second.
	Timeline []Second
}

// Passed says that no call was wrong, lost or refused without a cause.
func (l *LoadResult) Passed() bool {
	return l.Calls > 0 && l.Right > 0 && l.Wrong == 0 && l.Lost == 0 && l.Unexplained == 0 && l.Right+l.Refused() == l.Calls
}

// Refused returns how many calls failed with a status.
func (l *LoadResult) Refused() (n uint64) {
	for _, k := range l.Refusals {
		n += k
	}
	return n
}

// Second is what happened in a second of a load.
type Second struct {
	// At is from the load's start.
	At             time.Duration
	Right, Refused uint64
	// P50 and P99 are the quantiles of the latency of the calls that were right.
	P50, P99 time.Duration
}

// Histogram counts durations in buckets, of which eight lie between a duration
// and its double. The zero Histogram is empty.
type Histogram struct {
	Buckets []uint64
	N       uint64
}

const perDoubling = 3 // as a power of two

// Add counts a duration. It has a resolution of a microsecond.
func (h *Histogram) Add(d time.Duration) {
	i := bucketOf(d)
	for len(h.Buckets) <= i {
		h.Buckets = append(h.Buckets, 0)
	}
	h.Buckets[i]++
	h.N++
}

// Merge adds what other counted.
func (h *Histogram) Merge(other *Histogram) {
	if other == nil {
		return
	}
	for len(h.Buckets) < len(other.Buckets) {
		h.Buckets = append(h.Buckets, 0)
	}
	for i, n := range other.Buckets {
		h.Buckets[i] += n
	}
	h.N += other.N
}

// Quantile returns the duration below which the part q of all lies, within
// an eighth; 0 for an empty Histogram.
func (h *Histogram) Quantile(q float64) time.Duration {
	want, seen := uint64(math.Ceil(q*float64(h.N))), uint64(0)
	for i, n := range h.Buckets {
		if seen += n; n > 0 && seen >= want {
			return BucketStart(i + 1)
		}
	}
	return 0
}

func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < 1<<perDoubling {
		return int(us)
	}
	exp := bits.Len64(us) - 1 - perDoubling
	return (exp+1)<<perDoubling + int(us>>exp)&(1<<perDoubling-1) //nolint:gosec // below 8
}

// BucketStart returns the least duration that the bucket counts.
func BucketStart(i int) time.Duration {
	if i < 1<<perDoubling {
		return time.Duration(i) * time.Microsecond
	}
	exp := i>>perDoubling - 1
	return time.Duration(1<<perDoubling+i&(1<<perDoubling-1)) << exp * time.Microsecond
}
