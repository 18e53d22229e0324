package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// entry is a line of a process's audit trail or log.
type entry struct {
	Message string `json:"msg"`

	// Of audit events.
	Point       string        `json:"point"`
	Allowed     bool          `json:"allowed"`
	Reason      tenant.Reason `json:"reason"`
	Tenant      string        `json:"tenant"`
	Transaction string        `json:"txn"`
	Peer        string        `json:"peer"`
	Method      string        `json:"method"`
	Path        []string      `json:"path"`
	Claimed     string        `json:"claimed_tenant"`

	// Of the log of calls: go-grpc-middleware's fields, and ours.
	LoggedTenant string `json:"tenant.id"`
	LoggedPeer   string `json:"peer.spiffe_id"`
	PeerSerial   string `json:"peer.serial"`

	process string
}

// trail holds what all processes have written, in the order of its arrival.
type trail struct {
	mu      sync.Mutex
	entries []entry
	changed chan struct{}
}

func newTrail() *trail { return &trail{changed: make(chan struct{})} }

// add takes a line; what is no JSON is a message.
func (t *trail) add(process, line string) {
	var e entry
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		e = entry{Message: line}
	}
	e.process = process
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries = append(t.entries, e)
	close(t.changed)
	t.changed = make(chan struct{})
}

// mark returns the place where the trail ends now.
func (t *trail) mark() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries)
}

// await returns the first entry of the process after a mark that is as wanted.
// It waits for it: a line may take a moment longer than the answer of the call
// that it tells of. ctx bounds the wait.
func (t *trail) await(ctx context.Context, process string, after int, wanted string, is func(entry) bool) (entry, error) {
	for {
		t.mu.Lock()
		entries, changed := t.entries[after:], t.changed
		t.mu.Unlock()
		if i := slices.IndexFunc(entries, func(e entry) bool { return e.process == process && is(e) }); i >= 0 {
			return entries[i], nil
		}
		after += len(entries) // each is looked at once
		select {
		case <-changed:
		case <-ctx.Done():
			return entry{}, fmt.Errorf("%s has not recorded %s: %w", process, wanted, context.Cause(ctx))
		}
	}
}
