package main

import (
	_ "embed"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"
)

// Report is all that was measured, as it is printed in JSON.
type Report struct {
	Machine  Machine   `json:"machine"`
	Variants []Variant `json:"variants"`
	Figures  []Figure  `json:"figures"`
	Skipped  []Skip    `json:"skipped,omitempty"`
	// Distinct is how many contexts the figure of memory is about.
	Distinct int `json:"distinct_contexts,omitempty"`
}

// Variant compares a variant with the floor. Ratios and what is added are
// medians over pairs of slices, the rest medians over slices.
type Variant struct {
	Name        string `json:"name"`
	About       string `json:"about"`
	Peer        bool   `json:"peer,omitempty"`
	Bare        bool   `json:"bare,omitempty"`
	Concurrency int    `json:"concurrency"`
	// Ratio of the time per call, and its quartiles.
	Ratio float64  `json:"ratio"`
	Q1    float64  `json:"q1"`
	Q3    float64  `json:"q3"`
	Goal  *float64 `json:"goal,omitempty"`
	Met   *bool    `json:"met,omitempty"`
	Pairs int      `json:"pairs"`

	// Nanoseconds by which calls follow each other.
	NsPerCall      float64 `json:"ns_per_call"`
	FloorNsPerCall float64 `json:"floor_ns_per_call"`

	AddedAllocsClient float64 `json:"added_allocs_client"`
	AddedAllocsServer float64 `json:"added_allocs_server"`
	AllocsClient      float64 `json:"allocs_client"`
	AllocsServer      float64 `json:"allocs_server"`

	// Bytes on the wire per call, both ways, with TLS.
	AddedBytes float64 `json:"added_bytes"`
	Bytes      float64 `json:"bytes"`

	// CPU of both processes as a multiple of the floor's, and nanoseconds per call.
	CPURatio    float64 `json:"cpu_ratio"`
	CPUNsClient float64 `json:"cpu_ns_client"`
	CPUNsServer float64 `json:"cpu_ns_server"`
}

// Figure is one that is not a multiple of the floor.
type Figure struct {
	Name        string   `json:"name"`
	Concurrency int      `json:"concurrency,omitempty"`
	Value       float64  `json:"value"`
	Goal        *float64 `json:"goal,omitempty"`
	Met         *bool    `json:"met,omitempty"`
}

// Skip is a variant that was not measured.
type Skip struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// add adds a variant by its pairs.
func (r *Report) add(v *variant, concurrency int, pairs []pair) {
	ratio := ratios(pairs)
	// of returns the median of f over the variant's slices.
	of := func(f func(Measured) float64) float64 {
		return median(each(pairs, func(_, variant Measured) float64 { return f(variant) }))
	}
	out := Variant{
		Name: v.name, About: v.about, Peer: v.peer, Bare: v.bare, Concurrency: concurrency,
		Ratio: ratio.Median, Q1: ratio.Q1, Q3: ratio.Q3, Pairs: len(pairs),
		NsPerCall:         of(Measured.time),
		FloorNsPerCall:    median(each(pairs, func(floor, _ Measured) float64 { return floor.time() })),
		AddedAllocsClient: added(pairs, Measured.clientMallocs),
		AddedAllocsServer: added(pairs, Measured.serverMallocs),
		AllocsClient:      of(Measured.clientMallocs),
		AllocsServer:      of(Measured.serverMallocs),
		AddedBytes:        added(pairs, Measured.bytes),
		Bytes:             of(Measured.bytes),
		CPURatio:          median(each(pairs, func(floor, variant Measured) float64 { return variant.cpu() / floor.cpu() })),
		CPUNsClient:       of(Measured.clientCPU),
		CPUNsServer:       of(Measured.serverCPU),
	}
	out.Goal, out.Met = judge(v.name, concurrency, out.Ratio)
	r.Variants = append(r.Variants, out)
}

// ratios returns the time per call as multiples of the floor's.
func ratios(pairs []pair) Spread {
	return spread(each(pairs, func(floor, variant Measured) float64 { return variant.time() / floor.time() }))
}

// figure adds a figure.
func (r *Report) figure(name string, concurrency int, value float64) {
	f := Figure{Name: name, Concurrency: concurrency, Value: value}
	f.Goal, f.Met = judge(name, concurrency, value)
	r.Figures = append(r.Figures, f)
}

// judge returns a figure's goal and whether the value meets it as it is
// printed; nil where no goal is set.
func judge(name string, concurrency int, value float64) (*float64, *bool) {
	goal := goalOf(name, concurrency)
	if goal == nil {
		return nil, nil
	}
	met := round(value) <= *goal
	return goal, &met
}

// round rounds to what is printed: two places, and none from a hundred on.
func round(v float64) float64 {
	if math.Abs(v) >= 100 {
		return math.Round(v)
	}
	return math.Round(100*v) / 100
}

// variant returns what was measured of one, or nil.
func (r *Report) variant(name string, concurrency int) *Variant {
	for i, v := range r.Variants {
		if v.Name == name && v.Concurrency == concurrency {
			return &r.Variants[i]
		}
	}
	return nil
}

// funcs are what the templates call.
var funcs = template.FuncMap{
	"number": number,
	"goal": func(goal *float64) string {
		if goal == nil {
			return ""
		}
		return "≤ " + number(*goal)
	},
	"met": func(met *bool) string {
		switch {
		case met == nil:
			return ""
		case *met:
			return "met"
		}
		return "MISSED"
	},
	"plus":    func(v float64) string { return fmt.Sprintf("%+.1f", v) },
	"micro":   func(ns float64) string { return number(ns / float64(time.Microsecond)) },
	"sum":     func(a, b float64) float64 { return a + b },
	"chapter": func(text string) string { return text + "\n" + strings.Repeat("-", len(text)) },
	"count":   func(n int) string { return number(float64(n)) },
}

// number prints what round returns, with commas between thousands.
func number(v float64) string {
	v = round(v)
	if math.Abs(v) < 100 {
		return fmt.Sprintf("%.2f", v)
	}
	digits := fmt.Sprintf("%.0f", math.Abs(v))
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if v < 0 {
		digits = "-" + digits
	}
	return digits
}

//go:embed table.tmpl
var tableText string

//go:embed performance.tmpl
var pageText string

var (
	tableTemplate = template.Must(template.New("table").Funcs(funcs).Parse(tableText))
	pageTemplate  = template.Must(template.New("page").Funcs(funcs).Parse(pageText))
)

// table writes the report for people.
func (r *Report) table(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if err := tableTemplate.Execute(tw, r); err != nil {
		return err
	}
	return tw.Flush()
}

// page writes docs/performance.md, which shows the plot beside it.
func (r *Report) page(w io.Writer, plot string) error {
	return pageTemplate.Execute(w, struct {
		*Report
		Plot string
	}{r, plot})
}
