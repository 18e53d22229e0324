package mesh

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tenantmesh/tenantmesh/tenant"
)

//go:embed report.html.tmpl
var pageText string

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"dur": roundly, "count": count, "join": func(s []string) string { return strings.Join(s, ", ") },
	"add": func(a, b int) int { return a + b },
	"verdict": func(ok bool) template.HTML {
		if ok {
			return `<span class="good" title="passed">✓</span>`
		}
		return `<b class="bad" title="failed">✗</b>`
	},
	"reason":    func(r tenant.Reason) template.HTML { return breakable(cmp.Or(string(r), "–")) },
	"breakable": breakable,
}).Parse(pageText))

// WriteHTML writes the report as one page that loads nothing.
func (r *Report) WriteHTML(w io.Writer) error {
	v := pageView{Report: r, Tenants: r.tenants()}
	v.Passed, v.Failed = r.Count()
	v.Graph = r.graph(v.Tenants)
	v.tiles()
	v.failures()
	v.EdgeRows = slices.SortedFunc(slices.Values(r.Edges), func(a, b Edge) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Tenant, b.Tenant))
	})
	v.AttackGroups = r.attackGroups()
	for i := range r.Loads {
		v.LoadViews = append(v.LoadViews, r.loadView(&r.Loads[i]))
	}
	return page.Execute(w, v)
}

// pageView is what the page shows.
type pageView struct {
	*Report
	Passed, Failed int
	Tenants        []string
	Tiles          []tile
	Failures       []named
	Graph          *graphView
	EdgeRows       []Edge
	AttackGroups   []attackGroup
	LoadViews      []loadView
}

type tile struct{ Value, Label, Class string }

type named struct{ Name, Detail string }

// maxColours is how many tenants have one.
const maxColours = 6

// tenants returns those of the edges that have a colour.
func (r *Report) tenants() []string {
	seen := map[string]bool{}
	for _, e := range r.Edges {
		if e.Tenant != "" && e.Allowed > 0 {
			seen[e.Tenant] = true
		}
	}
	all := slices.Sorted(maps.Keys(seen))
	return all[:min(len(all), maxColours)]
}

func (v *pageView) tiles() {
	var calls, right, refused, wrong, lost uint64
	for i := range v.Loads {
		l := &v.Loads[i]
		calls, right, refused, wrong, lost = calls+l.Calls, right+l.Right, refused+l.Refused(), wrong+l.Wrong, lost+l.Lost
	}
	class := func(bad bool) string {
		if bad {
			return "bad"
		}
		return "good"
	}
	if len(v.Loads) > 0 {
		v.Tiles = append(v.Tiles,
			tile{count(calls), "calls of all loads", ""},
			tile{count(wrong), "answers that were wrong", class(wrong > 0)},
			tile{count(lost), "calls lost without an error", class(lost > 0)},
			tile{count(refused), "refused with a status, for a fault", ""})
	}
	if n := len(v.Attacks); n > 0 {
		good := 0
		for _, a := range v.Attacks {
			if a.Passed {
				good++
			}
		}
		v.Tiles = append(v.Tiles, tile{fmt.Sprintf("%d\u2009/\u2009%d", good, n), "attacks ended as they must", class(good < n)})
	}
	if n := len(v.Faults); n > 0 {
		good := 0
		for _, f := range v.Faults {
			if f.Passed {
				good++
			}
		}
		v.Tiles = append(v.Tiles, tile{fmt.Sprintf("%d\u2009/\u2009%d", good, n), "faults cost no more than they may", class(good < n)})
	}
	v.Tiles = append(v.Tiles, tile{fmt.Sprint(len(v.Workloads)), "workloads, each its own process", ""})
}

func (v *pageView) failures() {
	for _, l := range v.Loads {
		if !l.Passed() {
			v.Failures = append(v.Failures, named{"load " + l.Name, strings.Join(l.Details, "; ")})
		}
	}
	for _, f := range v.Faults {
		if !f.Passed {
			v.Failures = append(v.Failures, named{"fault " + f.Name, f.Detail})
		}
	}
	for _, a := range v.Attacks {
		if !a.Passed {
			v.Failures = append(v.Failures, named{"attack " + a.Line + " " + a.Name, a.Detail})
		}
	}
	for _, c := range v.Checks {
		if !c.Passed {
			v.Failures = append(v.Failures, named{c.Name, c.Detail})
		}
	}
}

// count writes a number with its thousands apart.
func count(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// breakable lets a line break after an underscore.
func breakable(s string) template.HTML {
	return template.HTML(strings.ReplaceAll(template.HTMLEscapeString(s), "_", "_<wbr>")) //nolint:gosec // it is escaped
}

// roundly writes a duration with two or three digits.
func roundly(d time.Duration) string {
	switch {
	case d >= 10*time.Minute:
		return d.Round(time.Minute).String()
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return fmt.Sprintf("%.1f\u202fs", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.3g\u202fms", float64(d)/float64(time.Millisecond))
	case d > 0:
		return fmt.Sprintf("%d\u202fµs", d.Microseconds())
	default:
		return "0"
	}
}

type attackGroup struct {
	Letter, Title string
	Rows          []AttackResult
	Failed        int
}

// lines are the catalogue's parts.
var lines = map[string]string{
	"T": "external tokens, and claims", "H": "the hop chain", "I": "identity", "M": "metadata and routing", "P": "policy",
	"S": "streams", "D": "data", "E": "elevation", "": "others",
}

func (r *Report) attackGroups() (out []attackGroup) {
	for _, letter := range []string{"T", "H", "I", "M", "P", "S", "D", "E", ""} {
		g := attackGroup{Letter: cmp.Or(letter, "–"), Title: lines[letter]}
		for _, a := range r.Attacks {
			if a.Line == "" && letter == "" || letter != "" && strings.HasPrefix(a.Line, letter) {
				g.Rows = append(g.Rows, a)
				if !a.Passed {
					g.Failed++
				}
			}
		}
		slices.SortStableFunc(g.Rows, func(a, b AttackResult) int {
			return cmp.Or(cmp.Compare(len(a.Line), len(b.Line)), cmp.Compare(a.Line, b.Line))
		})
		if len(g.Rows) > 0 {
			out = append(out, g)
		}
	}
	return out
}

// The graph's measures.
const (
	nodeWidth, nodeHeight = 176, 46
	columnWidth           = 244
	rowGap                = 84
	lineGap               = 7
)

type graphView struct {
	Width, Height int
	Nodes         []nodeView
	Paths         []pathView
}

type nodeView struct {
	Name, ID       string
	X, Y, W, H, CX int
	Foreign        bool
}

type pathView struct {
	D, Title string
	Tenant   int
	W        float64
}

// graph lays the workloads out in columns, callers left of whom they call. Edges of
// who is none of the workloads are left out.
func (r *Report) graph(tenants []string) *graphView {
	taking := map[string]bool{}
	for _, e := range r.Edges {
		if e.Allowed > 0 {
			taking[e.From], taking[e.To] = true, true
		}
	}
	var all []WorkloadInfo
	for _, w := range r.Workloads {
		if taking[w.Name] {
			all = append(all, w)
		}
	}
	if len(all) == 0 {
		return nil
	}
	columns := layers(all)
	g := &graphView{Width: 20 + len(columns)*columnWidth - (columnWidth - nodeWidth)}
	tallest := 0
	for _, c := range columns {
		tallest = max(tallest, len(c))
	}
	g.Height = tallest*rowGap + 30
	at := map[string]nodeView{}
	home := homeOf(all)
	for i, c := range columns {
		for j, w := range c {
			path := w.ID[min(len(w.ID), len("spiffe://")):]
			n := nodeView{Name: w.Name, ID: path, W: nodeWidth, H: nodeHeight, X: 10 + i*columnWidth, Foreign: domainOf(w.ID) != home,
				Y: (tallest-len(c))*rowGap/2 + j*rowGap + 14}
			n.CX = n.X + nodeWidth/2
			if domainOf(w.ID) == home {
				n.ID = strings.TrimPrefix(path, home)
			}
			at[w.Name] = n
			g.Nodes = append(g.Nodes, n)
		}
	}
	g.edges(r.Edges, tenants, at)
	return g
}

// edges draws a line for each tenant, side by side.
func (g *graphView) edges(edges []Edge, tenants []string, at map[string]nodeView) {
	most := 1.0
	pairs := map[[2]string][]Edge{}
	for _, e := range edges {
		_, from := at[e.From]
		_, to := at[e.To]
		if from && to && e.Allowed > 0 && slices.Contains(tenants, e.Tenant) {
			pairs[[2]string{e.From, e.To}] = append(pairs[[2]string{e.From, e.To}], e)
			most = max(most, float64(e.Allowed))
		}
	}
	keys := slices.SortedFunc(maps.Keys(pairs), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	for _, k := range keys {
		from, to := at[k[0]], at[k[1]]
		for _, e := range pairs[k] {
			i := slices.Index(tenants, e.Tenant)
			shift := lineGap * (2*i - len(tenants) + 1) / 2
			x1, y1, x2, y2 := from.X+from.W, from.Y+from.H/2+shift, to.X-1, to.Y+to.H/2+shift
			bend := max((x2-x1)/2, 24)
			d := fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x1, y1, x1+bend, y1, x2-bend, y2, x2, y2)
			if x2 <= x1 { // back: below all others
				low, r := g.Height-20+shift, 16
				x1, y1, x2, y2 = from.CX+shift, from.Y+from.H, to.CX+shift, to.Y+to.H
				side := r
				if x2 < x1 {
					side = -r
				}
				d = fmt.Sprintf("M%d %dV%dQ%d %d %d %dH%dQ%d %d %d %dV%d", x1, y1, low-r, x1, low, x1+side, low, x2-side, x2, low, x2, low-r, y2)
			}
			g.Paths = append(g.Paths, pathView{D: d, Tenant: i,
				W:     math.Round(10*(1.4+3.6*math.Log1p(float64(e.Allowed))/math.Log1p(most))) / 10,
				Title: fmt.Sprintf("%s → %s for %s: %s calls", e.From, e.To, e.Tenant, count(e.Allowed))})
		}
	}
}

func domainOf(id string) string {
	td, _, _ := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/")
	return td
}

// homeOf returns the trust domain that most are of.
func homeOf(all []WorkloadInfo) string {
	n := map[string]int{}
	for _, w := range all {
		n[domainOf(w.ID)]++
	}
	return slices.MaxFunc(slices.Sorted(maps.Keys(n)), func(a, b string) int { return cmp.Compare(n[a], n[b]) })
}

// layers puts each workload in a column right of those that call it. Calls that
// lead back to who is on the way count for nothing: it is best to start with
// those of other trust domains, which stand outside.
func layers(all []WorkloadInfo) [][]WorkloadInfo {
	home := homeOf(all)
	by := map[string]WorkloadInfo{}
	called := map[string]bool{}
	for _, w := range all {
		by[w.Name] = w
		for _, c := range w.Calls {
			called[c] = true
		}
	}
	order := slices.SortedStableFunc(slices.Values(all), func(a, b WorkloadInfo) int {
		rank := func(w WorkloadInfo) int {
			switch {
			case domainOf(w.ID) != home:
				return 0
			case !called[w.Name]:
				return 1
			default:
				return 2
			}
		}
		return cmp.Compare(rank(a), rank(b))
	})
	forward := map[string][]string{}
	state := map[string]int{} // 1: on the way, 2: done
	var visit func(name string)
	visit = func(name string) {
		state[name] = 1
		for _, c := range by[name].Calls {
			if _, ok := by[c]; !ok || state[c] == 1 {
				continue
			}
			forward[name] = append(forward[name], c)
			if state[c] == 0 {
				visit(c)
			}
		}
		state[name] = 2
	}
	for _, w := range order {
		if state[w.Name] == 0 {
			visit(w.Name)
		}
	}
	depth := map[string]int{}
	for range all { // longest paths: as many rounds as there are workloads do
		for name, calls := range forward {
			for _, c := range calls {
				depth[c] = max(depth[c], depth[name]+1)
			}
		}
	}
	for _, w := range all { // whom nobody calls stands next to whom it calls
		if !called[w.Name] && len(forward[w.Name]) > 0 {
			next := len(all)
			for _, c := range forward[w.Name] {
				next = min(next, depth[c])
			}
			depth[w.Name] = next - 1
		}
	}
	columns := make([][]WorkloadInfo, slices.Max(slices.Collect(maps.Values(depth)))+1)
	for _, w := range all {
		columns[depth[w.Name]] = append(columns[depth[w.Name]], w)
	}
	return columns
}

type loadView struct {
	*LoadResult
	RefusedCount uint64
	RefusalRows  []refusalRow
	Shapes       *shapesView
	Timeline     *timelineView
}

// Passed is that of the result.
func (l loadView) Passed() bool { return l.LoadResult.Passed() }

type refusalRow struct {
	Key string
	N   uint64
}

func (r *Report) loadView(l *LoadResult) loadView {
	v := loadView{LoadResult: l, RefusedCount: l.Refused(), Shapes: l.shapes(), Timeline: r.timeline(l)}
	for k, n := range l.Refusals {
		v.RefusalRows = append(v.RefusalRows, refusalRow{k, n})
	}
	slices.SortFunc(v.RefusalRows, func(a, b refusalRow) int {
		return cmp.Or(cmp.Compare(b.N, a.N), strings.Compare(a.Key, b.Key))
	})
	return v
}

type tick struct {
	X, Y  float64
	Label string
}

type shapesView struct {
	Width, Height int
	Ticks         []tick
	Rows          []shapeRow
}

type shapeRow struct {
	Label, P50, P99, N  string
	X50, X90, X99, X999 float64
	W90, W99            float64
	Y, Top              float64
}

// decades are the marks of logarithmic scales.
func decades(from, to time.Duration) (out []time.Duration) {
	for d := time.Microsecond; d <= to; d *= 10 {
		for _, mark := range []time.Duration{d, d + 2*d} {
			if mark >= from && mark <= to {
				out = append(out, mark)
			}
		}
	}
	return out
}

// scale maps durations from low to high, logarithmically, to from to to.
func scale(low, high time.Duration, from, to float64) func(time.Duration) float64 {
	a, b := math.Log(float64(low)), math.Log(float64(high))
	return func(d time.Duration) float64 {
		at := (math.Log(float64(min(max(d, low), high))) - a) / (b - a)
		return math.Round(10*(from+at*(to-from))) / 10
	}
}

func (l *LoadResult) shapes() *shapesView {
	low, high := time.Hour, time.Microsecond
	for _, h := range l.Latency {
		if h.N > 0 {
			low, high = min(low, h.Quantile(0.5)), max(high, h.Quantile(0.999))
		}
	}
	if low > high {
		return nil
	}
	low, high = low*7/10, high*12/10
	const rowHeight = 28
	v := &shapesView{Width: 1100}
	x := scale(low, high, 120, 860)
	y := 36.0
	for _, s := range Shapes {
		h := l.Latency[s]
		if h == nil || h.N == 0 {
			continue
		}
		row := shapeRow{Label: string(s), N: count(h.N) + " calls", P50: roundly(h.Quantile(0.5)), P99: roundly(h.Quantile(0.99)),
			X50: x(h.Quantile(0.5)), X90: x(h.Quantile(0.9)), X99: x(h.Quantile(0.99)), X999: x(h.Quantile(0.999)), Y: y, Top: y - 6}
		row.W90, row.W99 = max(row.X90-row.X50, 2), max(row.X99-row.X90, 0)
		v.Rows = append(v.Rows, row)
		y += rowHeight
	}
	v.Height = int(y) - 8
	for _, d := range decades(low, high) {
		v.Ticks = append(v.Ticks, tick{x(d), y - 12, roundly(d)})
	}
	return v
}

type timelineView struct {
	Width, Height  int
	YTicks, XTicks []tick
	Bars, Faults   []barView
	P50, P99       string
	Most           string
	CallsY         float64
}

type barView struct {
	Name       string
	X, Y, W, H float64
}

// timeline shows the seconds of a load that lasted some.
func (r *Report) timeline(l *LoadResult) *timelineView {
	if len(l.Timeline) < 5 {
		return nil
	}
	low, high, most := time.Hour, time.Microsecond, uint64(0)
	for _, s := range l.Timeline {
		if s.P50 > 0 {
			low, high = min(low, s.P50), max(high, s.P99)
		}
		most = max(most, s.Refused)
	}
	if low > high {
		return nil
	}
	low, high = low*7/10, high*12/10
	const left, right, top, bottom, barsTop = 60, 1080, 18, 210, 240
	barsBottom := 290
	if most == 0 {
		barsBottom = 204 // none
	}
	v := &timelineView{Width: 1100, Height: barsBottom + 26, Most: count(most), CallsY: barsTop - 6}
	y := scale(low, high, bottom, top)
	width := float64(right-left) / float64(len(l.Timeline))
	x := func(at time.Duration) float64 {
		return math.Round(10*(left+at.Seconds()*width)) / 10
	}
	for _, d := range decades(low, high) {
		v.YTicks = append(v.YTicks, tick{right, y(d), roundly(d)})
	}
	step := time.Second
	for _, s := range []int{1, 2, 5, 10, 15, 30, 60, 120, 300} {
		if step = time.Duration(s) * time.Second; len(l.Timeline)/s <= 14 {
			break
		}
	}
	for at := time.Duration(0); at < time.Duration(len(l.Timeline))*time.Second; at += step {
		v.XTicks = append(v.XTicks, tick{x(at), float64(barsBottom) + 18, roundly(at)})
	}
	pen50, pen99 := "M", "M"
	for _, s := range l.Timeline {
		at := x(s.At) + math.Round(5*width)/10
		if s.P50 > 0 {
			v.P50 += fmt.Sprintf("%s%.1f %.1f", pen50, at, y(s.P50))
			v.P99 += fmt.Sprintf("%s%.1f %.1f", pen99, at, y(s.P99))
			pen50, pen99 = "L", "L"
		} else { // nothing was right in this second
			pen50, pen99 = "M", "M"
		}
		if s.Refused > 0 {
			h := max(math.Round(10*float64(barsBottom-barsTop)*float64(s.Refused)/float64(most))/10, 1.5)
			v.Bars = append(v.Bars, barView{fmt.Sprintf("%s refused", count(s.Refused)), x(s.At), float64(barsBottom) - h, max(math.Round(8*width)/10, 1.5), h})
		}
	}
	for _, f := range r.Faults {
		from, to := f.Began-l.Began, f.Began+f.Lasted-l.Began
		if l.Began == 0 || to < 0 || from > time.Duration(len(l.Timeline))*time.Second {
			continue
		}
		v.Faults = append(v.Faults, barView{f.Name, x(max(from, 0)), top, max(x(to)-x(max(from, 0)), 2), float64(barsBottom - top)})
	}
	return v
}
