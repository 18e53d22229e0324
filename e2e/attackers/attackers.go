// Package attackers attacks a running mesh of package mesh: with the keys of
// workloads that were taken over, by clients that speak HTTP/2 frame by frame, with forged
// tokens through a grpc-gateway in front, and as servers that are not the ones expected.
//
//	mesh.Main(attackers.Roles)
//	m, err := mesh.Start(ctx, attackers.Join(mesh.Shop(ttl)), mesh.Options{})
//	results, err := attackers.Run(ctx, m, func(mesh.AttackResult) {})
//
// An attack passes if the callee's audit trail has the reason that is expected, and
// nothing else; if the caller is told what it should be told; and if the
// handlers' own log says that none ran.
package attackers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/e2e/mesh"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// The names of what Join adds: the service that all may call, and the HTTP server
// in front, of which the attacks' "gateway" has the SVID.
const (
	vault = "vault"
	front = "front"
)

const (
	vaultService = "mesh.v1.Vault"
	takenPrefix  = "taken-" // and the name in the attacks, of a workload that was taken over
	loginIssuer  = "https://login.example"
	otherIssuer  = "https://other.example"
)

// Roles are those of the processes that Join adds.
var Roles = map[string]mesh.Role{"taken": runTaken, front: runFront}

// paths are the cast's names in the shop, where they differ.
var paths = map[string]string{
	"gateway":                front,
	"stock":                  "inventory",
	"tenant/globex/runner/1": "tenant/globex/runner",
	"tenant/acme/runner/1":   "tenant/acme/runner",
	"tenant/acme/x/runner/1": "tenant/acme/x/runner",
}

// id returns the SPIFFE ID of one of the cast.
func id(name string) string {
	if strings.HasPrefix(name, "spiffe://") {
		return name
	}
	if p, ok := paths[name]; ok {
		name = p
	}
	return "spiffe://" + mesh.Prod + "/" + name
}

// extra are workloads that attack the shop's own services, beside attacktest.Cast.
var extra = []string{"billing", "boundary", "ledger"}

// workloadName is a name in the attacks as one that a workload may have.
func workloadName(name string) string {
	return takenPrefix + strings.NewReplacer("spiffe://", "", "/", ".").Replace(name)
}

// policyWorkloads and policyMethods are what the attacks need of the policy.
const policyWorkloads = `workloads:
  - name: front
    match: spiffe://prod.example/front
    tenants: ["*"]
    originate: {issuers: ["` + loginIssuer + `", "` + otherIssuer + `"], scopes: ["orders.*"], subjects: ["user-*"], classification: 2, max_ttl: 5m}
    calls: [/mesh.v1.Orders/*]
  - name: tts
    match: spiffe://prod.example/tts
    tenants: ["*"]
    originate: {issuers: ["` + loginIssuer + `"], scopes: ["orders.*"]}
    calls: [/mesh.v1.Orders/*]
  - name: reports
    match: spiffe://prod.example/reports
    tenants: [globex]
    originate: {issuers: ["` + loginIssuer + `"], scopes: ["orders.*"]}
    calls: [/mesh.v1.Orders/*]
  - name: pay
    match: spiffe://prod.example/service/pay
    tenants: ["*"]
    calls: [/mesh.v1.Orders/*]
  - name: dotted
    match: spiffe://prod.example/a.b
    tenants: ["*"]
    calls: [/mesh.v1.Orders/*]
  - name: intruder
    match: spiffe://prod.example/intruder
    calls: [/mesh.v1.Orders/*]
  - name: vault
    match: spiffe://prod.example/vault
    tenants: ["*"]
`

const policyMethods = `methods:
  - match: /mesh.v1.Vault/*
    callers: [front, tts, orders, inventory, billing, reports, pay, dotted, intruder, tenant-runner, partner]
    scopes: [orders.read]
`

// Join adds to the shop's description the vault, which is what most attacks
// aim at, the front, and the workloads that were taken over. It is for
// [mesh.Shop], however its workloads are set up.
func Join(d mesh.Description) mesh.Description {
	d.Policy = strings.ReplaceAll(d.Policy, "calls: [", "calls: [/"+vaultService+"/*, ")
	d.Policy = strings.Replace(d.Policy, "workloads:\n", strings.ReplaceAll(policyWorkloads, "calls: [", "calls: [/"+vaultService+"/*, "), 1)
	d.Policy = strings.Replace(d.Policy, "methods:\n", policyMethods, 1)
	d.Policy = strings.Replace(d.Policy, "callers: [gateway, tenant-runner, boundary]", "callers: [gateway, tenant-runner, boundary, front]", 1)
	d.Workloads = append(slices.Clone(d.Workloads),
		mesh.Workload{Name: vault, ID: id(vault), Service: vaultService, Federates: []string{mesh.Partner}},
		mesh.Workload{Name: front, ID: id(front), Role: front, Calls: []mesh.Call{{To: "orders"}, {To: vault}}},
	)
	for _, name := range slices.Concat(attacktest.Cast(), extra) {
		w := mesh.Workload{Name: workloadName(name), Role: "taken", Calls: []mesh.Call{{To: vault}}}
		if i := slices.IndexFunc(d.Workloads, func(other mesh.Workload) bool { return other.ID == id(name) }); i >= 0 {
			w.As = d.Workloads[i].Name
		} else {
			w.ID = id(name)
		}
		d.Workloads = append(d.Workloads, w)
	}
	return d
}

// Key is what whoever takes a workload over has of it: its SVID and bundles, in PEM.
type Key struct {
	Certificates, Private []byte
	Bundles               map[string][]byte
}

// Taken is the receiver of a workload that was taken over.
type Taken struct{ env *mesh.Env }

func runTaken(ctx context.Context, env *mesh.Env) (any, error) {
	_, err := env.Source(ctx)
	return &Taken{env}, err
}

// Key gives the workload's identity away.
func (t *Taken) Key(_ mesh.None, reply *Key) error {
	source, err := t.env.Source(context.Background())
	if err != nil {
		return err
	}
	snap, err := source.Snapshot()
	if err != nil {
		return err
	}
	if reply.Certificates, reply.Private, err = snap.SVID.Marshal(); err != nil {
		return err
	}
	reply.Bundles = map[string][]byte{}
	for _, b := range snap.Bundles.Bundles() {
		if reply.Bundles[b.TrustDomain().Name()], err = b.Marshal(); err != nil {
			return err
		}
	}
	return nil
}

// run is a run of all attacks.
type run struct {
	ctx     context.Context
	m       *mesh.Mesh
	each    func(mesh.AttackResult)
	results []mesh.AttackResult
	uids    map[string]string
	svids   map[string]*x509svid.SVID
	bundles *x509bundle.Set
	seen    map[string]int // the place in each trail up to which it was looked at
	closing []func()
}

// Run makes all attacks on a mesh that Join described and under no load, one after another, and
// tells each of the results. It fails only if it cannot go on.
func Run(ctx context.Context, m *mesh.Mesh, each func(mesh.AttackResult)) ([]mesh.AttackResult, error) {
	r := &run{ctx: ctx, m: m, each: each, svids: map[string]*x509svid.SVID{}, seen: map[string]int{}, uids: map[string]string{}}
	defer r.close()
	for _, s := range regexp.MustCompile(`(?m)^  ([a-z]+): \{uid: (\w+)\}`).FindAllStringSubmatch(mesh.ShopPolicy, -1) {
		r.uids[s[1]] = s[2]
	}
	for _, step := range []func() error{r.chains, r.headers, r.paths, r.clients, r.services, r.streams, r.servers, r.tokens, r.federation, r.logs} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return r.results, nil
}

// logs looks for what stood in claims and tokens (M6).
func (r *run) logs() error {
	j := &judge{res: mesh.AttackResult{Name: "M6 what stands in claims and tokens shows in no log", Attacker: "everybody", Target: "all workloads"}}
	files, err := filepath.Glob(filepath.Join(r.m.Dir(), "log", "*"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("attackers: no logs: %w", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), attacktest.TokenCanary) {
			j.wrong("%s shows it", filepath.Base(name))
		}
	}
	r.report(j.res, j.against)
	return nil
}

// Omitted names what of the attack catalogue is not made here, and where it is.
func Omitted(m *mesh.Mesh) []mesh.Omission {
	all := []mesh.Omission{
		{Line: "H9", What: "no two inputs share a key of a cache", Why: "it cannot be seen from outside; hop's tests"},
		{Line: "H10", What: "a message's jti, and the replay store", Why: "no queue takes part here; a retry on another connection is in the loads"},
		{Line: "H11", What: "a forged root that many calls wait for, a cancelled batch leader", Why: "who waits for whom is within one process; hop's and interceptors' tests"},
		{Line: "I4", What: "a resumed TLS session", Why: "servers give no session to resume; interceptors' tests"},
		{Line: "M5", What: "a method without a rule fails the start", Why: "such a workload does not start; interceptors' tests. At run time it is made here"},
		{Line: "P1, P2, P6", What: "files that are broken, pushes under load, no policy", Why: "they are faults, not attacks: see there"},
		{Line: "P3", What: "rules permuted", Why: "nothing is to be seen: all is decided as before; policy's tests"},
		{Line: "P5", What: "a condition that errs, or runs long", Why: "the mesh's policy has no condition; policy's tests"},
		{Line: "S2", What: "policy or bundles change under an open stream", Why: "see the step of streams and a policy push, and interceptors' tests"},
		{Line: "T4", What: "tokens with line breaks", Why: "no HTTP client sends them; edge's tests"},
		{Line: "T7, T8", What: "an empty audience, and memory per token", Why: "the one fails the start, the other is measured within a process; edge's tests"},
	}
	if m.Embedded(mesh.Prod) == nil {
		all = append(all, mesh.Omission{Line: "H5, H6, H8, I1, I2, I5, I7", What: "certificates that are wrong, expired, or of other keys",
			Why: "SPIRE signs no such certificate; a run with the embedded trust domain has them"})
	}
	return all
}

func (r *run) close() {
	for _, f := range slices.Backward(r.closing) {
		f()
	}
	r.closing = nil
}

// take takes the SVID of one of the cast, as it is now.
func (r *run) take(names ...string) error {
	for _, name := range names {
		var k Key
		if err := r.m.Process(workloadName(name)).Ask(r.ctx, "Key", mesh.None{}, &k); err != nil {
			return err
		}
		own, err := x509svid.Parse(k.Certificates, k.Private)
		if err != nil {
			return err
		}
		r.svids[name] = own
		if len(k.Bundles) > 1 || r.bundles == nil {
			set := x509bundle.NewSet()
			for td, pem := range k.Bundles {
				b, err := x509bundle.Parse(spiffeid.RequireTrustDomainFromString(td), pem)
				if err != nil {
					return err
				}
				set.Add(b)
			}
			r.bundles = set
		}
	}
	return nil
}

// world is what the attackers hold now, against a target; issued says that the first
// workload of the path acts for an external issuer.
func (r *run) world(target string, issued bool) *attacktest.World {
	return &attacktest.World{
		Target: target, SVIDs: r.svids, Domain: r.m.Embedded(mesh.Prod),
		Bundles: func() *x509bundle.Set { return r.bundles },
		Claims:  func(name string) *hop.Claims { return r.claims(name, issued) },
	}
}

func (r *run) claims(name string, issued bool) *hop.Claims {
	now := time.Now()
	c := &hop.Claims{
		Transaction: "txn-" + name, Tenant: attacktest.Must(tenant.ParseID(name)), TenantUID: r.uids[name], Subject: "user-1",
		Scopes: []string{"orders.read"}, IssuedAt: now, Expires: now.Add(4 * time.Minute),
		Attributes: map[string]string{"note": attacktest.TokenCanary},
	}
	if issued {
		c.Issuer = loginIssuer
	}
	return c
}

// callee looks at a workload that is attacked.
type callee struct {
	r    *run
	p    *mesh.Process
	runs uint64
}

func (r *run) callee(name string) (*callee, error) {
	c := &callee{r: r, p: r.m.Process(name)}
	t, err := c.p.Trail(r.ctx, r.seen[name])
	if err != nil {
		return nil, err
	}
	r.seen[name] = t.Next
	c.runs, err = c.handled()
	return c, err
}

func (c *callee) handled() (uint64, error) {
	h, err := c.p.Handled(c.r.ctx)
	return h.Runs, err
}

// recorded returns what was recorded since the last time, and how often
// handlers ran.
func (c *callee) recorded() (mesh.Trail, uint64, error) {
	name := c.p.Name()
	t, err := c.p.Trail(c.r.ctx, c.r.seen[name])
	if err != nil {
		return t, 0, err
	}
	c.r.seen[name] = t.Next
	runs, err := c.handled()
	ran := runs - c.runs
	c.runs = runs
	return t, ran, err
}

// awaited is recorded that waits for an event, for at most 5 seconds: a refused
// handshake is known to the client before it is recorded.
func (c *callee) awaited() (mesh.Trail, uint64, error) {
	late := time.Now().Add(5 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		t, ran, err := c.recorded()
		if err != nil || len(t.Events) > 0 || time.Now().After(late) {
			return t, ran, err
		}
		select {
		case <-tick.C:
		case <-c.r.ctx.Done():
			return t, ran, context.Cause(c.r.ctx)
		}
	}
}

// report adds a result, which passed if nothing speaks against it.
func (r *run) report(res mesh.AttackResult, against []string) {
	res.Line, res.Name, _ = strings.Cut(res.Name, " ")
	if !regexp.MustCompile(`^[A-Z]\d+$`).MatchString(res.Line) {
		res.Name, res.Line = res.Line+" "+res.Name, ""
	}
	res.Passed, res.Detail = len(against) == 0, strings.Join(against, "; ")
	r.results = append(r.results, res)
	r.each(res)
}

// judge looks at what one attack came to.
type judge struct {
	res     mesh.AttackResult
	against []string
}

func (j *judge) wrong(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(j.against, text) && len(j.against) < 4 {
		j.against = append(j.against, text)
	}
}

// saw notes the caller's view, which must be the same each time.
func (j *judge) saw(err error) {
	text := viewOf(err)
	if j.res.Saw != "" && j.res.Saw != text {
		j.wrong("the caller saw %s, too", text)
		return
	}
	j.res.Saw = text
	if strings.Contains(fmt.Sprint(err), attacktest.TokenCanary) {
		j.wrong("M6: the caller sees a claim")
	}
}

// told asserts that the caller was told the reason, or if the peer has no proven identity,
// that it was not.
func (j *judge) told(err error, want tenant.Reason) {
	if got := reasonOf(err); got != want {
		j.wrong("the caller was told %q", got)
	}
}

// refused asserts what a callee recorded: refusals for the one reason, and no run.
func (j *judge) refused(t mesh.Trail, ran uint64, n int) {
	if ran > 0 {
		j.res.Ran = true
		j.wrong("a handler ran")
	}
	if len(t.Events) != n {
		j.wrong("%d events instead of %d", len(t.Events), n)
	}
	for _, e := range t.Events {
		j.res.Got = e.Reason
		if e.Allowed || e.Reason != j.res.Want {
			j.wrong("recorded: allowed %t, %s %s", e.Allowed, e.Reason, e.Detail)
		}
		if strings.Contains(fmt.Sprintf("%+v", e), attacktest.TokenCanary) {
			j.wrong("M6: the audit trail shows a claim")
		}
	}
}

// errNoCA says that an attack needs a CA that signs what is wrong.
func errNoCA(err error) bool {
	return errors.Is(err, attacktest.ErrNoCA) || strings.Contains(fmt.Sprint(err), attacktest.ErrNoCA.Error())
}

// certificate is an SVID for TLS.
func certificate(own *x509svid.SVID) tls.Certificate {
	c := tls.Certificate{PrivateKey: own.PrivateKey}
	for _, cert := range own.Certificates {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}
