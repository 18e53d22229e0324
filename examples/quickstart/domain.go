package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// runTrustDomain serves a Workload API for each workload until ctx ends, as a
// SPIRE agent would. The command
//
//	rotate <workload>…
//
// on stdin gives workloads new SVIDs, and is answered with their serial numbers.
func runTrustDomain(ctx context.Context, args []string) error {
	o := newOptions("trust-domain")
	dir := o.String("dir", "", "the `directory` for the sockets")
	registered := make(chan map[string]*devdomain.Workload, 1)
	ctx, err := o.parse(ctx, args, func(ctx context.Context, words []string) (string, error) {
		select {
		case workloads := <-registered:
			defer func() { registered <- workloads }()
			return rotate(workloads, words)
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})
	if err != nil {
		return err
	}
	if *dir == "" {
		return errors.New("--dir is missing")
	}
	d, err := devdomain.New(devdomain.Config{TrustDomain: trustDomain, Dir: *dir})
	if err != nil {
		return err
	}
	defer d.Close()
	workloads := map[string]*devdomain.Workload{}
	var sockets []string
	for _, id := range []string{gatewayID, ordersID, inventoryID, notifierID} {
		w, err := d.Workload(id)
		if err != nil {
			return err
		}
		workloads[short(id)] = w
		sockets = append(sockets, short(id)+"="+w.Addr())
	}
	registered <- workloads
	ready(strings.Join(sockets, " "))
	<-ctx.Done()
	return nil
}

func rotate(workloads map[string]*devdomain.Workload, words []string) (string, error) {
	if len(words) < 2 || words[0] != "rotate" {
		return "", errors.New("the command is: rotate <workload>…")
	}
	var serials []string
	for _, name := range words[1:] {
		w, ok := workloads[name]
		if !ok {
			return "", fmt.Errorf("there is no workload %q", name)
		}
		if err := w.Rotate(); err != nil {
			return "", err
		}
		snap, err := w.Snapshot()
		if err != nil {
			return "", err
		}
		serials = append(serials, name+"="+snap.SVID.Certificates[0].SerialNumber.Text(16))
	}
	return strings.Join(serials, " "), nil
}

// short returns a SPIFFE ID without its trust domain.
func short(id string) string { return strings.TrimPrefix(id, "spiffe://"+trustDomain+"/") }
