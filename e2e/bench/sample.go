package main

import (
	"context"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tenantmesh/tenantmesh/audit"
)

// Sample is what a process has used so far, or between two moments.
type Sample struct {
	Mallocs uint64        // objects
	CPU     time.Duration // user and system
	Heap    uint64        // bytes in use: not a count
}

func takeSample() (Sample, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return Sample{}, err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Sample{Mallocs: m.Mallocs, CPU: time.Duration(u.Utime.Nano() + u.Stime.Nano()), Heap: m.HeapAlloc}, nil
}

// recordingMallocs returns how many objects the recording of a decision takes.
func recordingMallocs() float64 {
	const n = 1000
	r := audit.Recorder{Sink: &counter{}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		_ = r.Allow(context.Background(), audit.Event{}) // the counter takes all
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / n
}

// since returns what was used between before and s.
func (s Sample) since(before Sample) Sample {
	return Sample{Mallocs: s.Mallocs - before.Mallocs, CPU: s.CPU - before.CPU, Heap: s.Heap}
}

// collect collects garbage, so that no slice pays for what was before it.
func collect() {
	runtime.GC()
	runtime.GC() // what the first left to finalizers and pools
}

// wire counts the bytes that its connections send and receive, TLS included.
type wire struct{ bytes atomic.Int64 }

// dial is for [grpc.WithContextDialer].
func (w *wire) dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return countingConn{c, w}, nil
}

type countingConn struct {
	net.Conn
	w *wire
}

func (c countingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.w.bytes.Add(int64(n))
	return n, err
}

func (c countingConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.w.bytes.Add(int64(n))
	return n, err
}

// pace returns the mean time that f takes, tried for d.
func pace(d time.Duration, f func() error) (time.Duration, error) {
	n, start := 0, time.Now()
	for time.Since(start) < d {
		if err := f(); err != nil {
			return 0, err
		}
		n++
	}
	return time.Since(start) / time.Duration(max(n, 1)), nil
}
