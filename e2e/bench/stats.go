package main

import (
	"slices"
	"time"
)

// Spread is the median of figures and their quartiles.
type Spread struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"`
	Q3     float64 `json:"q3"`
}

// spread returns that of values, interpolated between neighbours; of none it
// is zero.
func spread(values []float64) Spread {
	sorted := slices.Sorted(slices.Values(values))
	return Spread{quantile(sorted, 0.5), quantile(sorted, 0.25), quantile(sorted, 0.75)}
}

func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

func median(values []float64) float64 { return spread(values).Median }

// pair holds a slice of the variant and the slice of the floor beside it.
type pair struct{ floor, variant Measured }

// each returns f of each pair.
func each(pairs []pair, f func(floor, variant Measured) float64) []float64 {
	out := make([]float64, len(pairs))
	for i, p := range pairs {
		out[i] = f(p.floor, p.variant)
	}
	return out
}

// added returns the median of what the variant has more than the floor.
func added(pairs []pair, f func(Measured) float64) float64 {
	return median(each(pairs, func(floor, variant Measured) float64 { return f(variant) - f(floor) }))
}

// Measured is what one slice came to.
type Measured struct {
	// PerCall is the time by which the calls of a slice follow each other: with
	// many at once, far less than one takes.
	PerCall time.Duration
	Calls   int
	Bytes   int64 // on the wire, both ways
	// What the processes used.
	Client, Server Sample
}

func (m Measured) time() float64          { return float64(m.PerCall) }
func (m Measured) bytes() float64         { return float64(m.Bytes) / float64(m.Calls) }
func (m Measured) clientMallocs() float64 { return float64(m.Client.Mallocs) / float64(m.Calls) }
func (m Measured) serverMallocs() float64 { return float64(m.Server.Mallocs) / float64(m.Calls) }
func (m Measured) clientCPU() float64     { return float64(m.Client.CPU) / float64(m.Calls) }
func (m Measured) serverCPU() float64     { return float64(m.Server.CPU) / float64(m.Calls) }
func (m Measured) cpu() float64           { return m.clientCPU() + m.serverCPU() }
