package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tenantmesh/tenantmesh/e2e/attackers"
	"github.com/tenantmesh/tenantmesh/e2e/mesh"
)

// attacked makes all attacks, on a mesh of its own: nothing else is in its
// audit trails then.
func attacked(ctx context.Context, r *runner) (err error) {
	if err := r.endLoad(); err != nil {
		return err
	}
	began := time.Now()
	r.out.progress("attacks: starting a mesh for them")
	m, err := mesh.Start(ctx, attackers.Join(mesh.Shop(prodTTL)), mesh.Options{SPIRE: r.spire, Loopback: r.loopback, Log: r.out.line})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	n := 0
	r.report.Attacks, err = attackers.Run(ctx, m, func(a mesh.AttackResult) {
		if n++; a.Passed {
			r.out.progress("attacks: %d, %s %s", n, a.Line, a.Name)
		} else {
			r.out.result(false, "attack "+a.Line, fmt.Sprintf("%s, by %s on %s: wanted %q, got %q, the caller saw %s: %s", a.Name, a.Attacker, a.Target, a.Want, a.Got, a.Saw, a.Detail))
		}
	})
	if err != nil {
		return err
	}
	r.report.Omitted = attackers.Omitted(m)
	lines := map[string][2]int{} // passed and failed
	for _, a := range r.report.Attacks {
		c := lines[a.Line]
		if a.Passed {
			c[0]++
		} else {
			c[1]++
		}
		lines[a.Line] = c
	}
	var texts []string
	failed := 0
	for _, line := range slices.Sorted(maps.Keys(lines)) {
		texts = append(texts, fmt.Sprintf("%s %d", line, lines[line][0]+lines[line][1]))
		failed += lines[line][1]
	}
	r.out.result(failed == 0, "attacks", fmt.Sprintf("%d made and %d ended as they must, in %s: %s", len(r.report.Attacks), len(r.report.Attacks)-failed,
		time.Since(began).Round(time.Second), strings.TrimSpace(strings.Join(texts, ", "))))
	return nil
}
