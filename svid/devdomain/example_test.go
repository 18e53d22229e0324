package devdomain_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// Any SPIFFE client library gets its identity from an embedded trust domain.
func Example() {
	dir, err := os.MkdirTemp("/tmp", "dev") // short: unix sockets ask for it
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	d, err := devdomain.New(devdomain.Config{TrustDomain: "prod.example", Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	w, err := d.Workload("spiffe://prod.example/gateway")
	if err != nil {
		log.Fatal(err)
	}

	client, err := workloadapi.New(context.Background(), workloadapi.WithAddr(w.Addr()))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	s, err := client.FetchX509SVID(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.ID)
	// Output: spiffe://prod.example/gateway
}
