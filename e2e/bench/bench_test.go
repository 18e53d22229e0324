package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test's program be the processes that it starts.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		if err := runRole(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   Spread
	}{
		{nil, Spread{}},
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{4, 1}, Spread{2.5, 1.75, 3.25}},
		{[]float64{5, 1, 4, 2, 3}, Spread{3, 2, 4}},
		{[]float64{1, 1, 1, 1000}, Spread{1, 1, 250.75}},
	} {
		before := slices.Clone(c.values)
		if got := spread(c.values); got != c.want {
			t.Errorf("%v: %v, want %v", c.values, got, c.want)
		}
		if !slices.Equal(c.values, before) {
			t.Errorf("%v became %v", before, c.values)
		}
	}
}

// drifting returns slices of a machine that gets slower and slower, and of a variant that takes
// 1.5 times as long on it, with 6 allocations and 20 bytes more.
func drifting() []pair {
	var pairs []pair
	for i := range 5 {
		floor := time.Duration(i+1) * 20 * time.Microsecond
		pairs = append(pairs, pair{
			floor: Measured{PerCall: floor, Calls: 1000, Bytes: 300_000,
				Client: Sample{Mallocs: 50_000, CPU: 10 * time.Millisecond}, Server: Sample{Mallocs: 60_000, CPU: 10 * time.Millisecond}},
			variant: Measured{PerCall: floor * 3 / 2, Calls: 500, Bytes: 160_000,
				Client: Sample{Mallocs: 26_000, CPU: 10 * time.Millisecond}, Server: Sample{Mallocs: 32_000, CPU: 15 * time.Millisecond}},
		})
	}
	return pairs
}

func TestReport(t *testing.T) {
	r := &Report{Machine: thisMachine(), Skipped: []Skip{{"later", "it is not there"}}, Distinct: 100_000}
	r.add(&variant{name: "limit", bare: true}, 1, drifting())
	r.add(&variant{name: "warm", about: "a <variant>"}, 1, drifting())
	r.add(&variant{name: "jwt", about: "another", peer: true}, 32, drifting())
	r.compare()
	r.figure(growthFigure, 0, 63.999)
	r.figure(contextFigure, 0, 4097)

	v := r.Variants[1]
	if v.Ratio != 1.5 || v.Q1 != 1.5 || v.Q3 != 1.5 || v.FloorNsPerCall != 60_000 || v.NsPerCall != 90_000 {
		t.Errorf("the machine's drift shows: %+v", v)
	}
	if v.AddedAllocsClient != 2 || v.AddedAllocsServer != 4 || v.AddedBytes != 20 || v.CPURatio != 2.5 {
		t.Errorf("what is added: %+v", v)
	}
	met := func(name string) bool {
		i := slices.IndexFunc(r.Figures, func(f Figure) bool { return f.Name == name })
		return i >= 0 && *r.Figures[i].Met
	}
	if *v.Met || *v.Goal != 1.06 || r.Variants[2].Goal != nil {
		t.Errorf("goals: %+v", r.Variants)
	}
	if !met(allocFigure) || !met(bytesFigure) || !met(growthFigure) || met(contextFigure) {
		t.Errorf("figures: %+v", r.Figures)
	}

	var table, page, plot, doc bytes.Buffer
	if err := errors.Join(r.table(&table), r.page(&page, "x.svg"), r.plot(&plot), r.json(&doc)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"warm 1 1.500 1.500–1.500 ≤ 1.06 MISSED 90.00 +2.0 +4.0 +20.0 2.50", "later skipped: it is not there",
		allocFigure + " 1 4.00 ≤ 10.00 met", "warm ÷ limit 1 1.00", contextFigure + " 4,097 ≤ 4,096 MISSED"} {
		if !strings.Contains(regexp.MustCompile(` +`).ReplaceAllString(table.String(), " "), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
	for _, want := range []string{"| `warm` | a <variant> | 1 | 1.500 | 1.500–1.500 | ≤ 1.06 | MISSED | 90.00 | 60.00 |", "](x.svg)", "100,000 distinct"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, page.String())
		}
	}
	if strings.Count(plot.String(), "<g>") != 3 || strings.Count(plot.String(), `class="goal"`) != 1 {
		t.Errorf("the plot:\n%s", plot.String())
	}
	for dec := xml.NewDecoder(&plot); ; {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the plot is no XML: %v", err)
		}
	}
	var read struct {
		Variants []struct {
			Name        string
			Concurrency int
			Ratio, Goal float64
		}
	}
	if err := json.Unmarshal(doc.Bytes(), &read); err != nil || len(read.Variants) != 3 || read.Variants[1].Ratio != 1.5 || read.Variants[1].Goal != 1.06 {
		t.Errorf("the JSON: %v %+v", err, read)
	}
}

// TestUnbatched: what is measured without amortised signatures becomes a quotient.
func TestUnbatched(t *testing.T) {
	r := &Report{Variants: []Variant{{Name: "fresh", Concurrency: 32, Ratio: 1.6}, {Name: "fresh-unbatched", Concurrency: 32, Ratio: 4}}}
	r.compare()
	if len(r.Figures) != 1 || r.Figures[0].Value != 0.4 || !*r.Figures[0].Met {
		t.Errorf("%+v", r.Figures)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 1.005: "1.00", 1.006: "1.01", -0.5: "-0.50", 99.99: "99.99", 99.999: "100", 4800: "4,800", -1234567: "-1,234,567", 999.6: "1,000"} {
		if got := number(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

// TestGoals: each goal is about something that is measured.
func TestGoals(t *testing.T) {
	for _, g := range goals {
		base, isQuotient := strings.CutSuffix(g.name, unbatchedFigure)
		if isQuotient {
			base += "-unbatched"
		}
		i := slices.IndexFunc(variants, func(v variant) bool { return v.name == base })
		isFigure := slices.Contains([]string{boundFigure, allocFigure, bytesFigure, bytes3Figure, firstFigure, contextFigure, growthFigure}, g.name)
		if !isFigure && (i < 0 || !slices.Contains(variants[i].concurrency, g.concurrency)) {
			t.Errorf("nothing measures %+v", g)
		}
	}
}

// TestPeers: the peers do the work that they are compared for.
func TestPeers(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m, pub := minter{key}, key.Public()
	spiffe, err := spiffeCheck(pub)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := opaCheck(t.Context(), jwtCheck(pub, 1))
	if err != nil {
		t.Fatal(err)
	}
	mint := func(m minter, i int, earlier string) string {
		token, err := m.mint(i, earlier)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	one := mint(m, 1, "")
	for _, c := range []struct {
		name  string
		check check
		token string
		want  string // the tenant; "" is refused
	}{
		{"jwt", jwtCheck(pub, 1), one, "tenant-001"},
		{"jwt of another key", jwtCheck(pub, 1), mint(minter{other}, 1, ""), ""},
		{"jwt cut short", jwtCheck(pub, 1), one[:len(one)-4], ""},
		{"jwt-3", jwtCheck(pub, 3), mint(m, 1, mint(m, 1, one)), "tenant-001"},
		{"jwt-3 without the first", jwtCheck(pub, 3), mint(m, 1, one), ""},
		{"jwt-3 with a first of another tenant", jwtCheck(pub, 3), mint(m, 2, mint(m, 2, one)), ""},
		{"jwt-3 with a first of another key", jwtCheck(pub, 3), mint(m, 1, mint(m, 1, mint(minter{other}, 1, ""))), ""},
		{"jwt-svid", spiffe, one, "tenant-001"},
		{"jwt-svid of another key", spiffe, mint(minter{other}, 1, ""), ""},
		{"jwt-opa without a caller and a method", asked, one, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := c.check(context.Background(), c.token)
			if v.tenant != c.want || (err == nil) != (c.want != "") {
				t.Errorf("%+v, %v; want %q", v, err, c.want)
			}
		})
	}
}

// TestBench measures a little, with real processes.
func TestBench(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	log, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	e := effort{rounds: 2, pairs: 2, slice: 20 * time.Millisecond, only: regexp.MustCompile(`^warm/32$`)}
	r, err := measure(t.Context(), e, log)
	if err != nil {
		said, _ := os.ReadFile(name)
		t.Fatalf("%v\n%s", err, said)
	}
	if len(r.Variants) != 1 {
		t.Fatalf("%d variants, want warm", len(r.Variants))
	}
	for _, v := range r.Variants {
		if v.Ratio <= 0 || v.NsPerCall <= 0 || v.AllocsClient <= 0 || v.AllocsServer <= 0 || v.Bytes < 200 || v.CPUNsClient <= 0 || v.CPUNsServer <= 0 {
			t.Errorf("%+v", v)
		}
	}
}

// TestArguments: what cannot be understood is said before anything starts.
func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"-only", "("}, {"-pairs", "many"}, {"-nothing"}} {
		if err := drive(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q is understood", args)
		}
	}
}
