// Harness runs a mesh of many processes in two trust domains under load, breaks
// it in every way it knows, attacks it, and says what that cost.
//
//	SPIRE_BIN_DIR=/opt/spire/bin go run ./e2e/harness
//
// Without SPIRE_BIN_DIR the SVIDs are those of the embedded trust domain. The
// last lines say which it was, where the report is, and how many passed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/tenantmesh/tenantmesh/e2e/mesh"
)

// config is what is to be run.
type config struct {
	spire    string
	loopback bool
	calls    uint64
	kills    int
	streams  int
	only     string
	report   string
}

func (c *config) flags(f *flag.FlagSet) {
	f.StringVar(&c.spire, "spire", os.Getenv("SPIRE_BIN_DIR"), "the `directory` with spire-server and spire-agent; empty: the embedded trust domain")
	f.BoolVar(&c.loopback, "loopback", false, "do without network namespaces")
	f.Uint64Var(&c.calls, "calls", 1_000_000, "how many calls are made while processes are killed")
	f.IntVar(&c.kills, "kills", 200, "how many processes are killed meanwhile")
	f.IntVar(&c.streams, "streams", 10_000, "how many streams are open when a policy is pushed")
	f.StringVar(&c.only, "only", "", "a regular `expression` that the names of what is run must match")
	f.StringVar(&c.report, "report", "", "the `file` for the HTML report; empty: a temporary one")
}

func main() {
	mesh.Main(roles)
	var c config
	c.flags(flag.CommandLine)
	flag.Parse()
	// Also when the terminal goes: there are processes, namespaces and files to
	// take along. When whoever reads our output goes, it is a run without output.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := c.main(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		os.Exit(1)
	}
}

var errFailed = errors.New("not all passed")

func (c *config) main(ctx context.Context) error {
	p := newPrinter(os.Stdout)
	report, err := c.run(ctx, p)
	if err != nil {
		return err
	}
	if report.RealSPIRE {
		p.line("SVIDs came from real SPIRE: %s", report.Domain)
	} else {
		p.line("SVIDs came from %s; SPIRE_BIN_DIR=<directory> runs the same on SPIRE", report.Domain)
	}
	path, err := c.write(report)
	if err != nil {
		return err
	}
	p.line("report: %s", path)
	passed, failed := report.Count()
	p.line("%d passed, %d failed", passed, failed)
	if failed > 0 || passed == 0 {
		return errFailed
	}
	return nil
}
