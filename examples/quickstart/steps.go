package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// step is one thing that the demo tries.
type step struct {
	tried string
	// run returns what came back, or an error if that is not what was stated.
	run func(context.Context, *mesh) (outcome, error)
}

// outcome is what came back: the answer, the way the call took, and the reason
// of a refusal.
type outcome struct{ cameBack, path, reason string }

// notRun says why a step cannot be run here.
type notRun string

func (n notRun) Error() string { return string(n) }

var steps = []step{
	{"acme lists its orders, and orders asks inventory for stock", listOrders},
	{"acme's token, with the header x-tenant-id: globex", claimGlobex},
	{"acme asks for an order of globex, and for one that nobody has", probeGlobex},
	{"acme watches its orders: a server stream, with a call to inventory for each message", watchOrders},
	{"the notifier, taken over and bound to no tenant: calls orders; calls inventory with claims for acme that it signs itself", walkIn},
	{"the notifier captures a context and presents it to inventory: as it is; with its own hop for orders; with its own hop for inventory", replay},
	{"claims that expire: in the middle of a stream; presented by the notifier with its clock set back; the token, at the gateway", expire},
	{"all SVIDs are issued anew while 4 clients call", rotateSVIDs},
	{"the policy file is edited while acme watches its orders: nobody may act for acme; and then as it was", editPolicy},
	{"the policy file is edited, with a mistake", breakPolicy},
}

// listOrders: the path is what inventory has verified and recorded.
func listOrders(ctx context.Context, m *mesh) (outcome, error) {
	token, err := m.token(ctx, "acme", "5m")
	if err != nil {
		return outcome{}, err
	}
	r, err := m.get(ctx, "/orders", token)
	if err != nil {
		return outcome{}, err
	}
	if err := r.wantOrders("acme-1001 stock 12", "acme-1002 stock 3"); err != nil {
		return outcome{}, err
	}
	e, err := m.allowed(ctx, "inventory", r.transaction)
	if err != nil {
		return outcome{}, err
	}
	if want := []string{gatewayID, ordersID}; !slices.Equal(e.Path, want) || e.Tenant != "acme" {
		return outcome{}, fmt.Errorf("inventory verified the path %q for %s, want %q for acme", e.Path, e.Tenant, want)
	}
	return outcome{r.String(), way(append(e.Path, inventoryID)...), "allowed"}, nil
}

// claimGlobex: no header chooses a tenant, and the trail shows who tried.
func claimGlobex(ctx context.Context, m *mesh) (outcome, error) {
	token, err := m.token(ctx, "acme", "5m")
	if err != nil {
		return outcome{}, err
	}
	mark := m.trail.mark()
	r, err := m.get(ctx, "/orders", token, "X-Tenant-Id", "globex")
	if err != nil {
		return outcome{}, err
	}
	if err := r.wantOrders("acme-1001 stock 12", "acme-1002 stock 3"); err != nil {
		return outcome{}, err
	}
	if _, err := m.trail.await(ctx, "gateway", mark, "claimed_tenant globex", func(e entry) bool {
		return e.Point == string(audit.Edge) && e.Claimed == "globex" && e.Tenant == "acme"
	}); err != nil {
		return outcome{}, err
	}
	e, err := m.allowed(ctx, "inventory", r.transaction)
	if err != nil {
		return outcome{}, err
	}
	if e.Tenant != "acme" {
		return outcome{}, fmt.Errorf("inventory was called for %s", e.Tenant)
	}
	return outcome{r.String(), way(append(e.Path, inventoryID)...), "allowed, for acme; in the audit: claimed_tenant globex"}, nil
}

// probeGlobex: status, body and headers are the same, and only the trail tells.
func probeGlobex(ctx context.Context, m *mesh) (outcome, error) {
	token, err := m.token(ctx, "acme", "5m")
	if err != nil {
		return outcome{}, err
	}
	theirs, err := m.get(ctx, "/orders/globex-2001", token)
	if err != nil {
		return outcome{}, err
	}
	nobodys, err := m.get(ctx, "/orders/globex-9999", token)
	if err != nil {
		return outcome{}, err
	}
	if theirs.status != http.StatusNotFound {
		return outcome{}, fmt.Errorf("%s, want 404", theirs)
	}
	if theirs.status != nobodys.status || !bytes.Equal(theirs.body, nobodys.body) || theirs.headers != nobodys.headers {
		return outcome{}, fmt.Errorf("the answers differ: %s %s %s and %s %s %s",
			theirs, theirs.headers, theirs.body, nobodys, nobodys.headers, nobodys.body)
	}
	e, err := m.trail.await(ctx, "orders", 0, "TENANT_MISMATCH", func(e entry) bool {
		return e.Transaction == theirs.transaction && e.Reason == tenant.TenantMismatch
	})
	if err != nil {
		return outcome{}, err
	}
	// The order must exist, or this has shown nothing.
	token, err = m.token(ctx, "globex", "5m")
	if err != nil {
		return outcome{}, err
	}
	owner, err := m.get(ctx, "/orders/globex-2001", token)
	if err != nil {
		return outcome{}, err
	}
	if err := owner.wantOrders("globex-2001 stock 1"); err != nil {
		return outcome{}, fmt.Errorf("globex itself: %w", err)
	}
	return outcome{"404 and 404, not a byte between them (globex itself: " + owner.String() + ")",
		way(append(e.Path, ordersID)...), "in the audit alone: " + string(e.Reason)}, nil
}

// watchOrders: one stream from orders, which calls inventory while it is open.
func watchOrders(ctx context.Context, m *mesh) (outcome, error) {
	token, err := m.token(ctx, "acme", "5m")
	if err != nil {
		return outcome{}, err
	}
	r, err := m.get(ctx, "/watch/orders", token)
	if err != nil {
		return outcome{}, err
	}
	if err := r.wantOrders("acme-1001 stock 12", "acme-1002 stock 3"); err != nil {
		return outcome{}, err
	}
	e, err := m.allowed(ctx, "inventory", r.transaction)
	if err != nil {
		return outcome{}, err
	}
	return outcome{fmt.Sprintf("%d, %d messages", r.status, len(r.lines())), way(append(e.Path, inventoryID)...), "allowed"}, nil
}

// walkIn: a valid SVID alone is leave for nothing.
func walkIn(ctx context.Context, m *mesh) (outcome, error) {
	if err := m.capture(ctx, "5m"); err != nil { // so that it knows a tenant's uid
		return outcome{}, err
	}
	if _, err := m.attack(ctx, "walk-in", m.orders, tenant.CallerNotAllowed); err != nil {
		return outcome{}, err
	}
	if _, err := m.attack(ctx, "forge", m.inventory, tenant.TenantNotBound); err != nil {
		return outcome{}, err
	}
	return outcome{"refused; refused", way(notifierID, ordersID) + "; " + way(notifierID, inventoryID),
		reasons(tenant.CallerNotAllowed, tenant.TenantNotBound)}, nil
}

// replay: a context is of use only to the workload that it was handed to, with
// a hop of its own for the callee, if policy binds it to the tenant.
func replay(ctx context.Context, m *mesh) (outcome, error) {
	if err := m.capture(ctx, "5m"); err != nil {
		return outcome{}, err
	}
	if _, err := m.attack(ctx, "replay", m.inventory, tenant.SignerNotPeer); err != nil {
		return outcome{}, err
	}
	if _, err := m.attack(ctx, "redirect", m.inventory, tenant.AudienceMismatch); err != nil {
		return outcome{}, err
	}
	e, err := m.attack(ctx, "append", m.inventory, tenant.TenantNotBound)
	if err != nil {
		return outcome{}, err
	}
	// The last one was proven, hop by hop, before policy refused it.
	if want := []string{gatewayID, ordersID, notifierID}; !slices.Equal(e.Path, want) {
		return outcome{}, fmt.Errorf("inventory verified the path %q, want %q", e.Path, want)
	}
	return outcome{"refused; refused; refused", way(append(e.Path, inventoryID)...),
		reasons(tenant.SignerNotPeer, tenant.AudienceMismatch, tenant.TenantNotBound)}, nil
}

// expire: who works for a tenant, who verifies and who lets in each ask the time.
func expire(ctx context.Context, m *mesh) (outcome, error) {
	token, err := m.token(ctx, "acme", "3s")
	if err != nil {
		return outcome{}, err
	}
	if err := m.captureWith(ctx, token); err != nil {
		return outcome{}, err
	}
	// A stream that would go on for ever. Its end is the event to wait for.
	r, err := m.get(ctx, "/watch/orders?follow=true", token)
	if err != nil {
		return outcome{}, err
	}
	lines := r.lines()
	var end problem
	if r.status != http.StatusOK || len(lines) != 3 || json.Unmarshal(lines[2], &end) != nil || end.Reason != tenant.ContextExpired {
		return outcome{}, fmt.Errorf("the stream gave %s %q, want two orders and %s", r, r.body, tenant.ContextExpired)
	}
	if _, err := m.attack(ctx, "late", m.inventory, tenant.ContextExpired); err != nil {
		return outcome{}, err
	}
	mark := m.trail.mark()
	r, err = m.get(ctx, "/orders", token)
	if err != nil {
		return outcome{}, err
	}
	if r.status != http.StatusUnauthorized {
		return outcome{}, fmt.Errorf("the expired token: %s, want 401", r)
	}
	if _, err := m.trail.await(ctx, "gateway", mark, string(tenant.TokenExpired), func(e entry) bool {
		return e.Point == string(audit.Edge) && e.Reason == tenant.TokenExpired
	}); err != nil {
		return outcome{}, err
	}
	return outcome{fmt.Sprintf("2 messages and the end; refused; %d", r.status),
		strings.Join([]string{way(gatewayID, ordersID, inventoryID), way(notifierID, inventoryID), "gateway"}, "; "),
		reasons(tenant.ContextExpired, tenant.ContextExpired, tenant.TokenExpired)}, nil
}

// rotateSVIDs: calls go on while every SVID is replaced. It ends when both
// servers have seen a new one on a connection.
func rotateSVIDs(ctx context.Context, m *mesh) (outcome, error) {
	if m.domain == nil && m.settings.rotation == 0 {
		return outcome{}, notRun("an outside trust domain rotates in its own time; --await-rotation <duration> waits for that")
	}
	token, err := m.token(ctx, "acme", "5m")
	if err != nil {
		return outcome{}, err
	}
	mark := m.trail.mark()
	if _, err := m.get(ctx, "/orders", token); err != nil {
		return outcome{}, err
	}
	before, err := m.serials(ctx, mark, func(string, string) bool { return true })
	if err != nil {
		return outcome{}, err
	}
	calling, stop := context.WithCancel(ctx)
	defer stop()
	calls, failures := m.callUntil(calling, 4)

	mark = m.trail.mark()
	isNew := func(name, serial string) bool { return serial != before[name] }
	if m.domain != nil {
		answer, err := m.domain.ask(ctx, "rotate gateway orders inventory notifier")
		if err != nil {
			return outcome{}, err
		}
		issued := pairs(answer)
		isNew = func(name, serial string) bool { return serial == issued[name] }
	}
	if _, err := m.serials(ctx, mark, isNew); err != nil {
		return outcome{}, err
	}
	stop()
	if err := <-failures; err != nil {
		return outcome{}, err
	}
	return outcome{fmt.Sprintf("%d calls, none failed; gateway and orders call with new SVIDs", calls.Load()),
		way(gatewayID, ordersID, inventoryID), "allowed"}, nil
}

// editPolicy: an edit takes effect without a restart, on open streams too.
func editPolicy(ctx context.Context, m *mesh) (outcome, error) {
	token, err := m.token(ctx, "acme", "5m")
	if err != nil {
		return outcome{}, err
	}
	before, err := os.ReadFile(m.policy)
	if err != nil {
		return outcome{}, err
	}
	narrowed := bytes.ReplaceAll(before, []byte(`tenants: ["*"]`), []byte("tenants: [globex]"))
	if bytes.Equal(narrowed, before) {
		return outcome{}, notRun("this policy binds nobody to all tenants")
	}
	opened := make(chan struct{})
	watching := make(chan error, 1)
	var watched *reply
	go func() {
		var err error
		watched, err = m.follow(ctx, "/watch/orders?follow=true", token, opened)
		watching <- err
	}()
	select {
	case <-opened:
	case err := <-watching:
		return outcome{}, fmt.Errorf("the stream did not open: %w", err)
	}
	if err := m.setPolicy(ctx, narrowed, inForce); err != nil {
		return outcome{}, err
	}
	if err := <-watching; err != nil {
		return outcome{}, err
	}
	lines := watched.lines()
	var end problem
	if err := json.Unmarshal(lines[len(lines)-1], &end); err != nil || end.Reason != tenant.TenantNotBound {
		return outcome{}, fmt.Errorf("the stream gave %q, want %s at its end", watched.body, tenant.TenantNotBound)
	}
	refused, err := m.get(ctx, "/orders", token)
	if err != nil {
		return outcome{}, err
	}
	if refused.status != http.StatusForbidden {
		return outcome{}, fmt.Errorf("acme: %s, want 403", refused)
	}
	if err := m.setPolicy(ctx, before, inForce); err != nil {
		return outcome{}, err
	}
	again, err := m.get(ctx, "/orders", token)
	if err != nil {
		return outcome{}, err
	}
	if err := again.wantOrders("acme-1001 stock 12", "acme-1002 stock 3"); err != nil {
		return outcome{}, err
	}
	return outcome{fmt.Sprintf("the stream ended; %d; then %s", refused.status, again),
		way(gatewayID, ordersID, inventoryID), reasons(tenant.TenantNotBound, tenant.TenantNotBound) + "; allowed"}, nil
}

// breakPolicy: a document that is wrong changes nothing.
func breakPolicy(ctx context.Context, m *mesh) (outcome, error) {
	token, err := m.token(ctx, "acme", "5m")
	if err != nil {
		return outcome{}, err
	}
	before, err := os.ReadFile(m.policy)
	if err != nil {
		return outcome{}, err
	}
	if err := m.setPolicy(ctx, bytes.Replace(before, []byte("workloads:"), []byte("worklods:"), 1), notLoaded); err != nil {
		return outcome{}, err
	}
	r, err := m.get(ctx, "/orders", token)
	if err != nil {
		return outcome{}, err
	}
	if err := r.wantOrders("acme-1001 stock 12", "acme-1002 stock 3"); err != nil {
		return outcome{}, err
	}
	return outcome{r.String(), way(gatewayID, ordersID, inventoryID), "allowed, by the policy as it was"}, m.replacePolicy(before)
}

// What a policy.Watcher logs.
const (
	inForce   = "a policy came into force"
	notLoaded = "the policy could not be loaded"
)

// setPolicy replaces the policy file and waits until every workload has logged
// what it made of it.
func (m *mesh) setPolicy(ctx context.Context, doc []byte, logged string) error {
	mark := m.trail.mark()
	if err := m.replacePolicy(doc); err != nil {
		return err
	}
	for _, p := range []*process{m.gateway, m.orders, m.inventory} {
		if _, err := m.trail.await(ctx, p.name, mark, logged, func(e entry) bool { return strings.HasPrefix(e.Message, logged) }); err != nil {
			return err
		}
	}
	return nil
}

// replacePolicy moves a new file to the place of the old, as editors do.
func (m *mesh) replacePolicy(doc []byte) error {
	info, err := os.Stat(m.policy)
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.policy+".new", doc, info.Mode()); err != nil {
		return err
	}
	return os.Rename(m.policy+".new", m.policy)
}

// serials waits until gateway and orders have called with SVIDs whose serial
// numbers are as wanted, by what their servers logged after the mark, and
// returns the numbers.
func (m *mesh) serials(ctx context.Context, mark int, wanted func(name, serial string) bool) (map[string]string, error) {
	found := map[string]string{}
	for caller, server := range map[string]string{"gateway": "orders", "orders": "inventory"} {
		e, err := m.trail.await(ctx, server, mark, "a call with another SVID of "+caller, func(e entry) bool {
			return e.LoggedTenant != "" && short(e.LoggedPeer) == caller && wanted(caller, e.PeerSerial)
		})
		if err != nil {
			return nil, err
		}
		found[caller] = e.PeerSerial
	}
	return found, nil
}

// callUntil has n clients call, for acme and globex in turn, until ctx ends. It
// returns the number of calls so far, and a channel for the first failure, or
// nil if there was none, once all have stopped.
func (m *mesh) callUntil(ctx context.Context, n int) (*atomic.Int64, <-chan error) {
	var calls atomic.Int64
	failed := make(chan error, n)
	done := make(chan error, 1)
	var clients sync.WaitGroup
	for i := range n {
		name, want := "acme", []string{"acme-1001 stock 12", "acme-1002 stock 3"}
		if i%2 == 1 {
			name, want = "globex", []string{"globex-2001 stock 1"}
		}
		clients.Go(func() {
			token, err := m.token(ctx, name, "5m")
			for err == nil {
				var r *reply
				// A call that has begun is to end: that ctx ends is no failure.
				if r, err = m.get(context.WithoutCancel(ctx), "/orders", token); err == nil {
					err = r.wantOrders(want...)
				}
				if err == nil {
					calls.Add(1)
					if ctx.Err() != nil {
						return
					}
				}
			}
			failed <- err
		})
	}
	go func() {
		clients.Wait()
		select {
		case err := <-failed:
			done <- fmt.Errorf("a call failed, after %d that did not: %w", calls.Load(), err)
		default:
			done <- nil
		}
	}()
	return &calls, done
}

// capture makes orders tell the notifier of an order, and so hand it a context.
func (m *mesh) capture(ctx context.Context, life string) error {
	token, err := m.token(ctx, "acme", life)
	if err != nil {
		return err
	}
	return m.captureWith(ctx, token)
}

func (m *mesh) captureWith(ctx context.Context, token string) error {
	r, err := m.get(ctx, "/orders/acme-1001", token)
	if err != nil {
		return err
	}
	return r.wantOrders("acme-1001 stock 12")
}

// attack has the notifier attack, and demands that the victim refuses it and
// records why. It returns the victim's record.
func (m *mesh) attack(ctx context.Context, name string, victim *process, want tenant.Reason) (entry, error) {
	mark := m.trail.mark()
	answer, err := m.intruder.ask(ctx, "%s %s", name, victim.addr)
	if err != nil {
		return entry{}, err
	}
	var r result
	if err := json.Unmarshal([]byte(answer), &r); err != nil {
		return entry{}, err
	}
	if r.Reason != want {
		return entry{}, fmt.Errorf("%s: %s gave %s, reason %q, want %s", name, victim.name, r.Code, r.Reason, want)
	}
	return m.trail.await(ctx, victim.name, mark, string(want), func(e entry) bool {
		return e.Point == string(audit.Server) && !e.Allowed && e.Reason == want && e.Peer == notifierID
	})
}

// allowed returns the record of a call that a server let run.
func (m *mesh) allowed(ctx context.Context, server, transaction string) (entry, error) {
	return m.trail.await(ctx, server, 0, "an allowed call of "+transaction, func(e entry) bool {
		return e.Point == string(audit.Server) && e.Allowed && e.Transaction == transaction
	})
}

// token returns an access token for a user of the tenant.
func (m *mesh) token(ctx context.Context, tenant, life string) (string, error) {
	return m.issuer.ask(ctx, "mint %s alice@%[1]s.example %s", tenant, life)
}

// reply is the answer to a request.
type reply struct {
	status      int
	headers     string // those that are not of this very request
	body        []byte
	transaction string
}

// get asks the gateway, as any client would.
func (m *mesh) get(ctx context.Context, path, token string, headers ...string) (*reply, error) {
	return m.follow(ctx, path, token, nil, headers...)
}

// follow is get, and closes opened when the first byte of the body is there.
func (m *mesh) follow(ctx context.Context, path, token string, opened chan<- struct{}, headers ...string) (*reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.gateway.addr+path, nil) //nolint:gosec // the gateway said where it listens
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	for pair := range slices.Chunk(headers, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	resp, err := m.client.Do(req) //nolint:gosec // as above
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	if _, err := in.Peek(1); err == nil && opened != nil {
		close(opened)
	}
	body, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	r := &reply{status: resp.StatusCode, body: body, transaction: resp.Header.Get(transactionHeader)}
	resp.Header.Del(transactionHeader)
	resp.Header.Del("Date")
	r.headers = fmt.Sprint(resp.Header) // fmt sorts them
	return r, nil
}

// lines returns the lines of the body.
func (r *reply) lines() [][]byte { return bytes.Split(bytes.TrimSpace(r.body), []byte("\n")) }

// orders returns the orders in the body: of a list, of one, or of a watch.
func (r *reply) orders() ([]string, error) {
	type order struct {
		ID    string `json:"id"`
		Stock uint32 `json:"stock"`
	}
	var found []string
	for _, line := range r.lines() {
		var body struct {
			Orders []order `json:"orders"`
			Order  *order  `json:"order"`
		}
		if err := json.Unmarshal(line, &body); err != nil {
			return nil, fmt.Errorf("%d %q: %w", r.status, r.body, err)
		}
		if body.Order != nil {
			body.Orders = append(body.Orders, *body.Order)
		}
		for _, o := range body.Orders {
			found = append(found, fmt.Sprintf("%s stock %d", o.ID, o.Stock))
		}
	}
	return found, nil
}

// wantOrders says how the reply differs from a 200 with just these orders.
func (r *reply) wantOrders(want ...string) error {
	if r.status != http.StatusOK {
		return fmt.Errorf("%d %s", r.status, bytes.TrimSpace(r.body))
	}
	got, err := r.orders()
	if err != nil {
		return err
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("%d with the orders %q, want %q", r.status, got, want)
	}
	return nil
}

// String names the status and the orders.
func (r *reply) String() string {
	found, err := r.orders()
	if err != nil || len(found) == 0 {
		return fmt.Sprint(r.status)
	}
	return fmt.Sprintf("%d, %s", r.status, strings.Join(found, ", "))
}

// way writes a path.
func way(ids ...string) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = short(id)
	}
	return strings.Join(names, " → ")
}

func reasons(list ...tenant.Reason) string {
	words := make([]string, len(list))
	for i, r := range list {
		words[i] = string(r)
	}
	return strings.Join(words, "; ")
}

// pairs reads "name=value name=value".
func pairs(s string) map[string]string {
	m := map[string]string{}
	for pair := range strings.FieldsSeq(s) {
		name, value, _ := strings.Cut(pair, "=")
		m[name] = value
	}
	return m
}
