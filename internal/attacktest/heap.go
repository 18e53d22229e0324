package attacktest

import "runtime"

// Heap returns how many bytes of memory are in use.
func Heap() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first left to finalizers and pools
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
