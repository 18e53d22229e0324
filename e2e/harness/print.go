package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// printer prints lines, and on a terminal below them what is going on.
type printer struct {
	f        *os.File
	terminal bool
	began    time.Time

	mu     sync.Mutex
	status string
	last   time.Time
}

func newPrinter(f *os.File) *printer {
	info, err := f.Stat()
	return &printer{f: f, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb", began: time.Now()}
}

func (p *printer) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintf(p.f, format+"\n", args...)
}

// result prints how something went.
func (p *printer) result(ok bool, name, text string) {
	word := "ok    "
	if !ok {
		word = "FAILED"
	}
	p.line("%6.1fs %s %s: %s", time.Since(p.began).Seconds(), word, name, text)
}

// progress shows what is going on: always on a terminal, now and then elsewhere.
func (p *printer) progress(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	switch {
	case p.terminal:
		p.clear()
		p.status = text
		fmt.Fprint(p.f, text)
	case time.Since(p.last) > 15*time.Second:
		fmt.Fprintf(p.f, "%6.1fs        … %s\n", time.Since(p.began).Seconds(), text)
	default:
		return
	}
	p.last = time.Now()
}

// clear takes the status away; p.mu is held.
func (p *printer) clear() {
	if p.status != "" {
		fmt.Fprint(p.f, "\r\x1b[K")
		p.status = ""
	}
}

// list returns counts in words, the most frequent first.
func list(counts map[string]uint64) string {
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		if counts[a] != counts[b] {
			return int(counts[b]) - int(counts[a]) //nolint:gosec // few
		}
		return strings.Compare(a, b)
	})
	for i, k := range keys {
		keys[i] = fmt.Sprintf("%d %s", counts[k], k)
	}
	return strings.Join(keys, ", ")
}
