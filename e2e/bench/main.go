// Command bench compares what a signed, verified tenant costs with what others
// pay for the same: calls between two processes, over TLS 1.3 with X.509-SVIDs
// and loopback, as a multiple of the same call with mTLS alone.
//
//	go run . [-short] [-only regexp] [-json] [-out file] [-svg file] [-write file]
//
// Slices of a variant alternate with slices of the floor in the same two
// processes, so that what disturbs one disturbs the other; the figures are
// medians over the pairs. It is a module of its own because it holds the peers.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	var err error
	if role := os.Getenv(roleVar); role != "" {
		err = runRole(role)
	} else {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		err = drive(ctx, os.Args[1:], os.Stdout, os.Stderr)
		stop()
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// drive measures and reports, as the arguments say.
func drive(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	isShort := flags.Bool("short", false, "measure for about a minute: for a glance, not for figures to keep")
	only := flags.String("only", "", "measure only what matches this regular expression, such as ^warm/32$, or memory")
	asJSON := flags.Bool("json", false, "print JSON, not a table")
	out := flags.String("out", "", "write the JSON to this file, too")
	svg := flags.String("svg", "", "write a plot to this file")
	write := flags.String("write", "", "write a page in Markdown to this file, and its plot beside it")
	pairs := flags.Int("pairs", 0, "how many pairs of slices to measure; 0 is as usual")
	if err := flags.Parse(args); err != nil {
		return err
	}
	e := whole
	if *isShort {
		e = short
	}
	if *pairs > 0 {
		e.pairs = *pairs
	}
	var err error
	if e.only, err = regexp.Compile(*only); err != nil {
		return err
	}
	r, err := measure(ctx, e, stderr)
	if err != nil {
		return err
	}

	if *asJSON {
		err = r.json(stdout)
	} else {
		err = r.table(stdout)
	}
	plot := strings.TrimSuffix(*write, filepath.Ext(*write)) + ".svg"
	if *write != "" {
		err = errors.Join(err, save(*write, func(w io.Writer) error { return r.page(w, filepath.Base(plot)) }), save(plot, r.plot))
	}
	return errors.Join(err, save(*out, r.json), save(*svg, r.plot))
}

// save writes a file, unless no name is given.
func save(name string, write func(io.Writer) error) error {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// json writes the report for machines.
func (r *Report) json(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
