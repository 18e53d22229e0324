package main

import (
	_ "embed"
	"fmt"
	"io"
	"math"
	"text/template"
)

//go:embed plot.svg.tmpl
var plotText string

var plotTemplate = template.Must(template.New("plot").Parse(plotText))

// The plot's measures, in its own units.
const (
	plotLeft  = 250
	plotRight = 860
	rowHeight = 18
	plotTop   = 68
)

// plotRow is a variant in the plot.
type plotRow struct {
	Label, Value, Class string
	Y                   int
	X, Q1, Q3           float64
	Goal                float64 // 0: none
}

type plotTick struct {
	X     float64
	Label string
}

// plot writes the ratios as a plot on a logarithmic scale, self-contained, in
// colours for light and for dark.
func (r *Report) plot(w io.Writer) error {
	most := 2.0
	for _, v := range r.Variants {
		most = max(most, v.Q3, v.Ratio)
	}
	// A little before 1, and a little after the largest.
	low, high := math.Log(0.9), math.Log(most*1.1)
	x := func(ratio float64) float64 {
		at := (math.Log(max(ratio, 0.9)) - low) / (high - low)
		return math.Round(10*(plotLeft+at*(plotRight-plotLeft))) / 10
	}
	var rows []plotRow
	for i, v := range r.Variants {
		row := plotRow{
			Label: fmt.Sprintf("%s, %d at once", v.Name, v.Concurrency), Value: fmt.Sprintf("%.2f", v.Ratio), Class: "ours",
			Y: plotTop + i*rowHeight, X: x(v.Ratio), Q1: x(v.Q1), Q3: x(v.Q3),
		}
		switch {
		case v.Bare:
			row.Class = "bare"
		case v.Peer:
			row.Class = "peer"
		}
		if v.Goal != nil {
			row.Goal = x(*v.Goal)
		}
		rows = append(rows, row)
	}
	var ticks []plotTick
	for _, t := range []float64{1, 1.2, 1.5, 2, 3, 4, 6, 8, 10, 15, 20} {
		if t <= most*1.1 {
			ticks = append(ticks, plotTick{x(t), fmt.Sprint(t)})
		}
	}
	return plotTemplate.Execute(w, struct {
		Rows                []plotRow
		Ticks               []plotTick
		One                 float64
		Top, Bottom, Height int
		Width, LabelX       int
		Machine             string
	}{rows, ticks, x(1), plotTop - 12, plotTop + len(rows)*rowHeight, plotTop + len(rows)*rowHeight + 24, plotRight + 60, plotLeft - 8, r.Machine.String()})
}
