// Orders-postgres is the quickstart's orders with its data in PostgreSQL: no
// query names the tenant, and each sees the rows of the one that its call has proven.
package main

import (
	"context"
	_ "embed" // for the schema
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/data/rls"
	ordersv1 "github.com/tenantmesh/tenantmesh/examples/proto/orders/v1"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
)

//go:embed schema.sql
var tables string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "orders-postgres:", err)
		os.Exit(1) //nolint:gocritic // stop has nothing to undo
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 && args[0] == "sql" {
		return writeSQL(out)
	}
	flags := flag.NewFlagSet("orders-postgres", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:9001", "the `address` to listen on")
	policyFile := flags.String("policy", "tenantmesh.yaml", "the policy `file`")
	database := flags.String("database", "", "how to connect to PostgreSQL, as the application's role; empty: by PGHOST and so on")
	keyFile := flags.String("key", "rls.key", "the `file` with the key that proves tenants to it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	sink := audit.NewSlog(slog.NewJSONHandler(out, nil))
	pool, rows, err := open(ctx, *database, *keyFile, sink)
	if err != nil {
		return err
	}
	defer pool.Close()
	pol, err := policy.WatchFile(ctx, *policyFile)
	if err != nil {
		return err
	}
	defer pol.Close()
	source, err := svid.NewSource(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	guard, err := interceptors.New(interceptors.Config{Source: source, Policy: pol, Audit: sink})
	if err != nil {
		return err
	}
	defer guard.Close()

	srv := grpc.NewServer(guard.ServerOptions()...)
	ordersv1.RegisterOrdersServiceServer(srv, &orders{rows: rows})
	if err := guard.Check(srv); err != nil {
		return err
	}
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, srv.GracefulStop)()
	fmt.Fprintln(out, "ready", lis.Addr())
	return srv.Serve(lis)
}

// open connects to the database. It fails where the check finds something.
func open(ctx context.Context, database, keyFile string, sink audit.Sink) (*pgxpool.Pool, *rls.Pool[pgx.Tx], error) {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, nil, err
	}
	key, err := rls.ParseKey(string(text))
	if err != nil {
		return nil, nil, err
	}
	pool, err := pgxpool.New(ctx, database)
	if err != nil {
		return nil, nil, err
	}
	rows, err := rls.Open(ctx, pool, rls.Config{Key: key, Audit: sink})
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	return pool, rows, nil
}

// writeSQL writes what sets up a database: the migrations of the kit, the tables and what holds them to tenants.
func writeSQL(out io.Writer) error {
	files, err := fs.Glob(rls.Migrations(), "*.sql")
	if err != nil {
		return err
	}
	for _, name := range files {
		text, err := fs.ReadFile(rls.Migrations(), name)
		if err != nil {
			return err
		}
		if _, err := out.Write(text); err != nil {
			return err
		}
	}
	_, err = io.WriteString(out, tables+rls.Schema{}.EnableSQL("public", "orders", "text"))
	return err
}
