package natssource_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/policy/natssource"
	"github.com/tenantmesh/tenantmesh/tenant"
)

func Example() {
	if err := run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// acme is listed: true
	// acme is listed: false
	// object not found: true, acme is listed: false
}

func run(ctx context.Context) error {
	// A server of the example's own. Yours runs already.
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true})
	if err != nil {
		return err
	}
	srv.Start()
	defer srv.WaitForShutdown()
	defer srv.Shutdown()
	if !srv.ReadyForConnections(10 * time.Second) {
		return fmt.Errorf("the server is not ready")
	}

	nc, err := nats.Connect(srv.ClientURL(), nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}

	// The publisher: the tenants_file first, under a name of its own.
	store, err := js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: "policy"})
	if err != nil {
		return err
	}
	publish := func(version, tenants string) error {
		if _, err := store.PutString(ctx, version+".list", tenants); err != nil {
			return err
		}
		_, err := store.PutString(ctx, "tenantmesh.yaml", "version: 1\ntrust_domains: []\nworkloads: []\nmethods: []\n"+
			"tenants_file: "+version+".list\ntenants: {}\n")
		return err
	}
	if err := publish("v1", "acme uid=01J9ZK3V\nend: 1\n"); err != nil {
		return err
	}

	// Each server. What is published later takes effect by itself; Reload is for
	// who wants to know that it has.
	pol, err := natssource.Watch(ctx, store, "tenantmesh.yaml", policy.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	defer pol.Close()
	acme, err := tenant.ParseID("acme")
	if err != nil {
		return err
	}
	listed := func() bool { _, ok := pol.Current().TenantUID(acme); return ok }
	fmt.Println("acme is listed:", listed())

	if err := publish("v2", "globex uid=01JA2M4N\nend: 1\n"); err != nil {
		return err
	}
	if err := pol.Reload(ctx); err != nil {
		return err
	}
	fmt.Println("acme is listed:", listed())

	// A document that is gone is no empty one: the last policy stays.
	if err := store.Delete(ctx, "tenantmesh.yaml"); err != nil {
		return err
	}
	err = pol.Reload(ctx)
	fmt.Printf("object not found: %t, acme is listed: %t\n", err != nil && pol.Status().Err != nil, listed())
	return nil
}
