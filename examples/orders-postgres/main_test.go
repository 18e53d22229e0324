package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/data/rls"
	ordersv1 "github.com/tenantmesh/tenantmesh/examples/proto/orders/v1"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/internal/pgtest"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
	"github.com/tenantmesh/tenantmesh/tenant"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// meshPolicy is that of the quickstart, in whose mesh this orders fits.
const meshPolicy = "../quickstart/tenantmesh.yaml"

// TestOrders calls the program from a gateway, over mTLS, for two tenants.
func TestOrders(t *testing.T) {
	db := pgtest.New(t)
	var script bytes.Buffer
	if err := run(t.Context(), []string{"sql"}, &script); err != nil {
		t.Fatal(err)
	}
	key, err := rls.NewKey("k1")
	if err != nil {
		t.Fatal(err)
	}
	db.Exec(t, pgtest.Owner, script.String(), key.InsertSQL())
	keyFile := filepath.Join(t.TempDir(), "rls.key")
	if err := os.WriteFile(keyFile, []byte(key.Text()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "spire") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	domain, err := devdomain.New(devdomain.Config{TrustDomain: "prod.example", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer domain.Close()
	workload := func(name string) *devdomain.Workload {
		w, err := domain.Workload("spiffe://prod.example/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", workload("orders").Addr())

	ctx, stop := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"--listen", "127.0.0.1:0", "--policy", meshPolicy, "--database", db.DSN(pgtest.App), "--key", keyFile}, w)
		w.Close()
	}()
	defer func() {
		stop()
		go io.Copy(io.Discard, r)
		if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	}()
	line := make([]byte, 256)
	n, err := r.Read(line)
	addr, ok := strings.CutPrefix(strings.TrimSpace(string(line[:n])), "ready ")
	if err != nil || !ok {
		t.Fatalf("%q, %v", line[:n], err)
	}
	go io.Copy(io.Discard, r)

	pol, err := policy.WatchFile(t.Context(), meshPolicy)
	if err != nil {
		t.Fatal(err)
	}
	defer pol.Close()
	guard, err := interceptors.New(interceptors.Config{Source: workload("gateway"), Policy: pol, Audit: audit.NewSlog(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer guard.Close()
	conn, err := grpc.NewClient(addr, guard.DialOptions(svid.Expect("spiffe://prod.example/orders"))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := ordersv1.NewOrdersServiceClient(conn)
	for name, want := range map[string]string{"acme": "anvil,rocket skates", "globex": "doomsday device"} {
		id, err := tenant.ParseID(name)
		if err != nil {
			t.Fatal(err)
		}
		ctx, err := guard.Originate(t.Context(), &hop.Claims{Tenant: id, Subject: "alice", Issuer: "http://127.0.0.1:8088", Scopes: []string{"orders.read"}})
		if err != nil {
			t.Fatal(err)
		}
		list, err := client.ListOrders(ctx, &ordersv1.ListOrdersRequest{})
		var items []string
		for _, o := range list.GetOrders() {
			items = append(items, o.GetItem())
		}
		if got := strings.Join(items, ","); err != nil || got != want {
			t.Errorf("D5 %s has %q, %v", name, got, err)
		}
		one, err := client.GetOrder(ctx, &ordersv1.GetOrderRequest{Id: list.GetOrders()[0].GetId()})
		if err != nil || one.GetOrder().GetItem() != items[0] {
			t.Errorf("its own order: %v, %v", one, err)
		}
		other := map[string]string{"acme": "2001", "globex": "1001"}[name]
		for _, id := range []string{other, "9999"} {
			if _, err := client.GetOrder(ctx, &ordersv1.GetOrderRequest{Id: id}); status.Code(err) != codes.NotFound || status.Convert(err).Message() != "not found" {
				t.Errorf("D4 %s, order %s: %v", name, id, err)
			}
		}
	}
}

// TestRefused starts the program on databases that it must not serve from.
func TestRefused(t *testing.T) {
	db := pgtest.New(t)
	keyFile := filepath.Join(t.TempDir(), "rls.key")
	for want, text := range map[string]string{"a key is": "secret", "not-installed": "k1:" + strings.Repeat("00", 32)} {
		if err := os.WriteFile(keyFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run(t.Context(), []string{"--database", db.DSN(pgtest.App), "--key", keyFile}, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
