package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// printer prints the demo's lines, in colour on a terminal.
type printer struct {
	w      io.Writer
	failed func(error) // is called when nobody reads it
	colour bool
}

// newPrinter returns one for a file. It honours NO_COLOR (no-color.org).
func newPrinter(f *os.File, failed func(error)) *printer {
	info, err := f.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &printer{w: f, failed: failed, colour: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// The colours, as SGR parameters (ECMA-48).
const (
	green  = "32"
	red    = "31"
	yellow = "33"
	dim    = "2"
)

func (p *printer) paint(sgr, s string) string {
	if !p.colour || s == "" {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

func (p *printer) line(format string, args ...any) {
	if _, err := fmt.Fprintf(p.w, format+"\n", args...); err != nil {
		p.failed(err)
	}
}

// step prints how one step ended.
func (p *printer) step(n, of int, word, sgr string, s step, o outcome) {
	columns := []string{s.tried, o.cameBack, o.path, o.reason}
	for len(columns) > 0 && columns[len(columns)-1] == "" {
		columns = columns[:len(columns)-1]
	}
	p.line("%s %s  %s", p.paint(dim, fmt.Sprintf("%d/%d", n, of)), p.paint(sgr, word), strings.Join(columns, p.paint(dim, " | ")))
}
