package policy_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/tenant"
)

func ExampleWatchFile() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "tenantmesh.yaml")
	const doc = "version: 1\ntrust_domains: []\nworkloads: []\nmethods: []\ntenants: {acme: {uid: u1}}\n"
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			fmt.Println(err)
		}
	}

	write(doc)
	w, err := policy.WatchFile(context.Background(), path, policy.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer w.Close()
	acme, err := tenant.ParseID("acme")
	if err != nil {
		fmt.Println(err)
		return
	}
	show := func() {
		uid, listed := w.Current().TenantUID(acme)
		fmt.Printf("uid %q, listed %t; the last load failed: %t\n", uid, listed, w.Status().Err != nil)
	}
	show()

	// Nobody needs to ask for a reload; who does is told how it went.
	write("version: 1\n")
	fmt.Println(w.Reload(context.Background()) != nil)
	show()
	write(doc[:len(doc)-len("{acme: {uid: u1}}\n")] + "{}\n")
	fmt.Println(w.Reload(context.Background()))
	show()
	// Output:
	// uid "u1", listed true; the last load failed: false
	// true
	// uid "u1", listed true; the last load failed: true
	// <nil>
	// uid "", listed false; the last load failed: false
}
