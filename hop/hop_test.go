package hop

import (
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// equateIDs lets cmp compare tenant IDs as == does.
var equateIDs = cmpopts.EquateComparable(tenant.ID{})

func TestRoundTrip(t *testing.T) {
	names := []string{"gateway", "orders", "inventory", "stock", "billing", "mail", "archive"}
	for _, tt := range []struct {
		key  string
		make func() crypto.Signer
		hops int // as many as the budget lets through with all claims
	}{
		{"P-256", func() crypto.Signer { return newKey(elliptic.P256()) }, 6},
		{"P-384", p384, 5},
		{"RSA 2048", rsa2048, 4},
	} {
		for hops := 1; hops <= tt.hops; hops++ {
			t.Run(fmt.Sprintf("%s/%d", tt.key, hops), func(t *testing.T) {
				var path []*x509svid.SVID
				for _, name := range names[:hops+1] {
					path = append(path, root().issueFor(tt.make(), name))
				}
				c := send(t, goodClaims(), path, nil)
				chain, err := c.verify(t)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(goodClaims(), chain.Claims(), equateIDs); diff != "" {
					t.Errorf("claims (-sent +received):\n%s", diff)
				}
				if diff := cmp.Diff(goodClaims().Scopes, chain.Scopes()); diff != "" {
					t.Errorf("scopes (-sent +received):\n%s", diff)
				}
				var want []Step
				for i := range hops {
					want = append(want, Step{path[i].ID, Call, methodOf(path[i+1])})
				}
				if diff := cmp.Diff(want, chain.Path(), cmpopts.EquateComparable(path[0].ID)); diff != "" {
					t.Errorf("path (-sent +received):\n%s", diff)
				}
				if err := chain.Valid(noon); err != nil {
					t.Errorf("Valid: %v", err)
				}
				if err := chain.Trusted(root().bundles(), 0, noon); err != nil {
					t.Errorf("Trusted: %v", err)
				}
			})
		}
	}
}

// The keys of a path need not be of one kind.
func TestMixedKeys(t *testing.T) {
	c := send(t, goodClaims(), []*x509svid.SVID{
		root().issue("gateway"),
		root().issueFor(p384(), "orders"),
		root().issueFor(rsa2048(), "inventory"),
		newCA(newCA(root())).issue("stock"),
		root().issue("billing"),
	}, nil)
	if _, err := c.verify(t); err != nil {
		t.Fatal(err)
	}
}

// What every sender needs: SPEC.md, section 4 has nothing that must be there besides.
func TestLeastClaims(t *testing.T) {
	claims := &Claims{
		Transaction: "t",
		Tenant:      must(tenant.ParseID("acme")),
		TenantUID:   "u",
		Subject:     "s",
		IssuedAt:    noon,
		Expires:     noon.Add(time.Minute),
	}
	chain, err := send(t, claims, path("gateway", "orders"), nil).verify(t)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(claims, chain.Claims(), equateIDs); diff != "" {
		t.Errorf("(-sent +received):\n%s", diff)
	}
}

// Three hops without certificates are to stay within 1.5 KiB.
func TestSize(t *testing.T) {
	claims := goodClaims()
	claims.Attributes, claims.Request, claims.Parent, claims.Elevation = nil, nil, nil, ""
	c := send(t, claims, path("gateway", "orders", "inventory", "stock"), nil)
	m := c.metadata(t)
	if len(m.Hops) > 1536 {
		t.Errorf("three hops take %d bytes", len(m.Hops))
	}
	t.Logf("three hops: %d bytes, and %d bytes of certificates", len(m.Hops), len(m.Certs))
	for size, most := range map[int]int{2: 48, 8: 140, 32: 231, 256: 368} { // SPEC.md, section 5
		c.grow(2, 2, Call, size-1, size)
		if n := len(c.metadata(t).Hops) - len(m.Hops); n > most {
			t.Errorf("a place among %d takes %d bytes, more than %d", size, n, most)
		}
	}
}

// Fractions of seconds have no place on the wire.
func TestBeginTruncates(t *testing.T) {
	claims := goodClaims()
	claims.IssuedAt = noon.Add(300 * time.Millisecond).In(time.FixedZone("CET", 3600))
	claims.Expires = noon.Add(2*time.Second + 700*time.Millisecond)
	chain, err := Begin(claims)
	if err != nil {
		t.Fatal(err)
	}
	want := goodClaims()
	want.IssuedAt, want.Expires = noon, noon.Add(2*time.Second)
	if diff := cmp.Diff(want, chain.Claims(), equateIDs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	claims.Expires = claims.IssuedAt.Add(500 * time.Millisecond)
	if _, err := Begin(claims); tenant.ReasonOf(err) != tenant.ContextMalformed {
		t.Errorf("claims that expire in the second they are issued: %v, want %s", err, tenant.ContextMalformed)
	}
}

// A Chain does not change with what was put into it or read from it.
func TestImmutable(t *testing.T) {
	spoil := func(c *Claims) {
		c.Subject, c.Scopes[0], c.Attributes["region"], c.Request["ip"], c.Parent.Transaction = "x", "x", "x", "x", "x"
	}
	claims := goodClaims()
	begun, err := Begin(claims)
	if err != nil {
		t.Fatal(err)
	}
	verified, err := calls(t).verify(t)
	if err != nil {
		t.Fatal(err)
	}
	spoil(claims)
	for name, chain := range map[string]*Chain{"begun": begun, "verified": verified} {
		spoil(chain.Claims())
		chain.Scopes()[0] = "x"
		if diff := cmp.Diff(goodClaims(), chain.Claims(), equateIDs); diff != "" {
			t.Errorf("%s: claims (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(goodClaims().Scopes, chain.Scopes()); diff != "" {
			t.Errorf("%s: scopes (-want +got):\n%s", name, diff)
		}
	}
}

func TestScopes(t *testing.T) {
	for _, tt := range []struct {
		name       string
		narrowings []*Narrowing // by each hop
		want       []string
	}{
		{"none", []*Narrowing{nil, nil}, goodClaims().Scopes},
		{"absent scopes leave them", []*Narrowing{{Methods: []string{"/inventory.v1.Service/Do"}}, nil}, goodClaims().Scopes},
		{"narrowed once", []*Narrowing{{Scopes: []string{"orders.read"}}, nil}, []string{"orders.read"}},
		{"narrowed by the last hop", []*Narrowing{nil, {Scopes: []string{"orders.read"}}}, []string{"orders.read"}},
		{"narrowed twice", []*Narrowing{{Scopes: []string{"orders.read", "orders.write"}}, {Scopes: []string{"orders.write"}}}, []string{"orders.write"}},
		{"narrowed to none", []*Narrowing{nil, {Scopes: []string{}}}, []string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := send(t, goodClaims(), path("gateway", "orders", "inventory"), func(i int, h *Handover) {
				h.Narrowing = tt.narrowings[i]
			})
			chain, err := c.verify(t)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, chain.Scopes(), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("Scopes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(goodClaims(), chain.Claims(), equateIDs); diff != "" {
				t.Errorf("the claims changed (-want +got):\n%s", diff)
			}
		})
	}
}

// A workload that stands on the path twice signs both hops, and its
// certificates are sent once.
func TestWorkloadTwice(t *testing.T) {
	for _, tt := range []struct {
		path  []string
		certs int // signers before the last hop
	}{
		{[]string{"a", "b", "a", "c"}, 2},
		{[]string{"a", "b", "a", "c", "d"}, 2},
		{[]string{"a", "b", "a", "b", "a", "b"}, 2},
		{[]string{"a", "a", "a"}, 1},
	} {
		c := send(t, goodClaims(), path(tt.path...), nil)
		if _, err := c.verify(t); err != nil {
			t.Errorf("%v: %v", tt.path, err)
		}
		if n := len(c.certs.Chains); n != tt.certs {
			t.Errorf("%v: certificates of %d signers were sent, want %d", tt.path, n, tt.certs)
		}
	}
}

// A chain may be handed on more than once.
func TestForwardTwice(t *testing.T) {
	p := path("gateway", "orders", "inventory", "stock")
	chain, err := send(t, goodClaims(), p[:2], nil).verify(t)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, callee := range p[2:] {
		to := Handover{Kind: Call, Audience: callee.ID.String(), Target: methodOf(callee), Binding: [32]byte{1}, Now: noon}
		m, err := chain.Sign(p[1], to)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Verify(m, Expected{
			Kind: Call, Peer: p[1].Certificates, Self: callee.ID, Target: to.Target, Binding: to.Binding, Bundles: root().bundles(), Now: noon,
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Path()) != 2 || len(chain.Path()) != 1 {
			t.Errorf("paths of %d and %d hops, want 2 and 1", len(got.Path()), len(chain.Path()))
		}
		seen[m.Hops] = true
	}
	if len(seen) != 2 {
		t.Error("the same hop twice")
	}
}

func TestValid(t *testing.T) {
	check := func(t *testing.T, chain *Chain, at time.Time, want tenant.Reason, hop int) {
		t.Helper()
		if err := chain.Valid(at.Add(-time.Nanosecond)); err != nil {
			t.Errorf("just before: %v", err)
		}
		if until := chain.Until(); !until.Equal(at) {
			t.Errorf("until %s, want %s", until, at)
		}
		err := chain.Valid(at)
		if tenant.ReasonOf(err) != want {
			t.Errorf("at its end: %v, want %s", err, want)
		}
		var e *tenant.Error
		if hopOf(err, &e) != hop {
			t.Errorf("at its end: %v, want hop %d", err, hop)
		}
	}
	verified := func(t *testing.T, gateway *x509svid.SVID) *Chain {
		t.Helper()
		chain, err := send(t, goodClaims(), append([]*x509svid.SVID{gateway}, path("orders", "inventory")...), nil).verify(t)
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	t.Run("claims", func(t *testing.T) {
		begun, err := Begin(goodClaims())
		if err != nil {
			t.Fatal(err)
		}
		check(t, begun, noon.Add(5*time.Minute), tenant.ContextExpired, -1)
		check(t, verified(t, root().issue("gateway")), noon.Add(5*time.Minute), tenant.ContextExpired, -1)
	})
	t.Run("statement", func(t *testing.T) {
		gateway := root().issue("gateway", between(noon, noon.Add(time.Minute)))
		check(t, verified(t, gateway), noon.Add(time.Minute), tenant.ContextExpired, 0)
	})
	t.Run("intermediate", func(t *testing.T) {
		gateway := newCA(root(), between(noon, noon.Add(time.Minute))).issue("gateway")
		check(t, verified(t, gateway), noon.Add(time.Minute), tenant.SVIDExpired, 0)
	})
	t.Run("zero", func(t *testing.T) {
		if err := new(Chain).Valid(noon); tenant.ReasonOf(err) != tenant.ContextMissing {
			t.Errorf("%v, want %s", err, tenant.ContextMissing)
		}
		if c, v := new(Chain).Claims(), new(Chain).View(); c != nil || v != nil {
			t.Errorf("claims of the zero Chain: %v, %v", c, v)
		}
		if until := new(Chain).Until(); !until.IsZero() {
			t.Errorf("the zero Chain is valid until %s", until)
		}
		if got := new(Chain).String(); got != "no claims" {
			t.Errorf("the zero Chain prints as %q", got)
		}
	})
}

// Timely asks of a chain what Verify asks of times.
func TestTimely(t *testing.T) {
	c := calls(t)
	chain, err := c.verify(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		at   time.Duration
		want tenant.Reason
	}{
		{0, ""}, {Freshness, ""}, {-Skew, ""},
		{Freshness + time.Second, tenant.ContextStale}, {-Skew - time.Second, tenant.ContextNotYetValid}, {5 * time.Minute, tenant.ContextExpired},
	} {
		c.want.Now = noon.Add(tt.at)
		_, err := c.verify(t)
		if got := chain.Timely(c.want.Now); tenant.ReasonOf(got) != tt.want || fmt.Sprint(got) != fmt.Sprint(err) {
			t.Errorf("%s: %v, and Verify %v; want %q", tt.at, got, err, tt.want)
		}
	}
	if err := new(Chain).Timely(noon); tenant.ReasonOf(err) != tenant.ContextMissing {
		t.Errorf("the zero Chain: %v, want %s", err, tenant.ContextMissing)
	}
}

// The parent of what is derived from a chain is its last statement.
func TestOrigin(t *testing.T) {
	c := calls(t)
	chain, err := c.verify(t)
	if err != nil {
		t.Fatal(err)
	}
	want := &Parent{Transaction: goodClaims().Transaction, Statement: sha256.Sum256(c.hops.Hops[2].Statement)}
	if diff := cmp.Diff(want, chain.Origin()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	begun, err := Begin(goodClaims())
	if err != nil {
		t.Fatal(err)
	}
	for name, chain := range map[string]*Chain{"only begun": begun, "zero": new(Chain)} {
		if p := chain.Origin(); p != nil {
			t.Errorf("a chain that is %s is the parent %v", name, p)
		}
	}
}

func TestTrusted(t *testing.T) {
	chain, err := calls(t).verify(t)
	if err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		name    string
		bundles x509bundle.Source
		now     time.Time
		want    tenant.Reason
	}{
		{"today's bundle", root().bundles(), noon, ""},
		{"the bundle removed", x509bundle.NewSet(), noon, tenant.SVIDUntrusted},
		{"the authority replaced", newCA(nil).bundles(), noon, tenant.SVIDUntrusted},
		{"later", root().bundles(), noon.Add(time.Hour), tenant.SVIDExpired},
	} {
		for _, generation := range []uint64{uint64(i) + 1, 0} { // without a number, nothing is remembered
			err := chain.Trusted(tt.bundles, generation, tt.now)
			if tenant.ReasonOf(err) != tt.want || err == nil != (tt.want == "") {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			}
			var e *tenant.Error
			if err != nil && hopOf(err, &e) != 0 {
				t.Errorf("%s: %v, want hop 0", tt.name, err)
			}
		}
	}
}

// Chains that were verified with one cache ask once for a signer and a generation of the bundles.
func TestTrustedOnce(t *testing.T) {
	c := calls(t)
	m, want := c.metadata(t), c.want
	want.Cache, want.Generation = new(Cache), 1
	var chains []*Chain
	for range 3 {
		chains = append(chains, must(Verify(m, want)))
	}
	asked := &countingBundles{Source: want.Bundles}
	for _, chain := range chains {
		if err := chain.Trusted(asked, 2, noon); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked.n; n != len(c.hops.Hops) {
		t.Errorf("the bundles were asked %d times for %d signers", n, len(c.hops.Hops))
	}
}

// countingBundles counts how often it is asked.
type countingBundles struct {
	x509bundle.Source
	n int
}

func (b *countingBundles) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	b.n++
	return b.Source.GetX509BundleForTrustDomain(td)
}

// The bytes that are signed, written out from SPEC.md, section 5.
func TestSignedBytes(t *testing.T) {
	leaf := sha256.Sum256([]byte("\x00statement"))
	for kind, prefix := range map[Kind]string{
		Call: "tenantmesh-v1-call\x00", Message: "tenantmesh-v1-message\x00", Grant: "tenantmesh-v1-grant\x00",
	} {
		want := prefix + "\x00\x00\x00\x01" + string(leaf[:])
		if got := string(signedAlone(kind, []byte("statement"))); got != want {
			t.Errorf("%s: %q, want %q", kind, got, want)
		}
	}
}

// A random signature has the higher s half the time.
func TestSignIsLowS(t *testing.T) {
	for _, key := range []crypto.Signer{newKey(elliptic.P256()), p384()} {
		for range 32 {
			signature, err := sign(key, signedAlone(Call, []byte("statement")))
			if err != nil {
				t.Fatal(err)
			}
			if err := verify(key.Public(), signedAlone(Call, []byte("statement")), signature); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The claims for the audit trail of a refusal are those of a chain whose
// structure is good, and none where there is no such chain.
func TestUnverifiedClaims(t *testing.T) {
	c := calls(t)
	for i := range c.hops.Hops {
		c.hops.Hops[i].Signature = nil // nothing is proven
	}
	m := c.metadata(t)
	if diff := cmp.Diff(goodClaims(), UnverifiedClaims(m), equateIDs); diff != "" {
		t.Errorf("claims (-sent +read):\n%s", diff)
	}
	c.hops.Hops[1] = c.hops.Hops[2]
	for name, m := range map[string]Metadata{
		"no metadata":  {},
		"no base64":    {Hops: "?"},
		"a broken one": c.metadata(t),
		"over budget":  {Hops: m.Hops + strings.Repeat("A", MaxMetadata+1-len(m.Hops))},
	} {
		if got := UnverifiedClaims(m); got != nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// What Marshal refuses, besides what attacks and Sign's refusals show: nothing
// that ParseStatement would not take back.
func TestMarshalRefuses(t *testing.T) {
	good := func() *Statement {
		return &Statement{
			Kind: Call, Audience: "spiffe://prod.example/orders", Target: "/a.B/C", Binding: [32]byte{1},
			IssuedAt: noon, Expires: noon.Add(time.Minute), Claims: goodClaims(),
		}
	}
	b, err := good().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if s, err := ParseStatement(b); err != nil || !cmp.Equal(s, good(), equateIDs) {
		t.Fatalf("%v, %v", s, err)
	}
	for name, tt := range map[string]struct {
		do   func(*Statement)
		want tenant.Reason
	}{
		"no claims at index 0":        {func(s *Statement) { s.Claims = nil }, tenant.ChainBroken},
		"claims at index 1":           {func(s *Statement) { s.Index = 1 }, tenant.ChainBroken},
		"index -1":                    {func(s *Statement) { s.Index, s.Claims = -1, nil }, tenant.ChainBroken},
		"index 6":                     {func(s *Statement) { s.Index, s.Claims = MaxHops, nil }, tenant.ChainBroken},
		"no kind":                     {func(s *Statement) { s.Kind = 0 }, tenant.KindMismatch},
		"a grant with a target":       {func(s *Statement) { s.Kind = Grant }, tenant.ContextMalformed},
		"exp in the second of iat":    {func(s *Statement) { s.Expires = s.IssuedAt.Add(999 * time.Millisecond) }, tenant.ContextMalformed},
		"claims that are none":        {func(s *Statement) { s.Claims.Subject = "" }, tenant.ContextMalformed},
		"an aud that is text":         {func(s *Statement) { s.Audience = "orders" }, tenant.ContextMalformed},
		"a narrowing that is no set":  {func(s *Statement) { s.Narrowing = &Narrowing{Scopes: []string{"b", "a"}} }, tenant.ContextMalformed},
		"a narrowing to no method":    {func(s *Statement) { s.Narrowing = &Narrowing{Methods: []string{"C"}} }, tenant.ContextMalformed},
		"exp in the year 10000":       {func(s *Statement) { s.Expires = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, tenant.ContextMalformed},
		"iat in the second of 1970":   {func(s *Statement) { s.IssuedAt = time.Unix(0, 0) }, tenant.ContextMalformed},
		"a message without a subject": {func(s *Statement) { s.Kind, s.Target = Message, "" }, tenant.ContextMalformed},
	} {
		s := good()
		tt.do(s)
		if b, err := s.Marshal(); tenant.ReasonOf(err) != tt.want || b != nil {
			t.Errorf("%s: %x, %v, want %s", name, b, err, tt.want)
		}
	}
}

// The names of SPEC.md, section 4.1, which refusals show.
func TestKindString(t *testing.T) {
	for kind, want := range map[Kind]string{1: "call", 2: "message", 3: "grant", 0: "unknown kind", 4: "unknown kind", -1: "unknown kind"} {
		if got := kind.String(); got != want {
			t.Errorf("kind %d is %q, want %q", int32(kind), got, want)
		}
	}
}

// An error of another maker, should one come, denies as a fault of ours.
func TestAtHop(t *testing.T) {
	other := errors.New("other")
	err := atHop(fmt.Errorf("wrapped: %w", other), 2)
	var e *tenant.Error
	if hopOf(err, &e) != 2 || e.Reason != tenant.Internal || !errors.Is(err, other) {
		t.Errorf("%v, want %s at hop 2", err, tenant.Internal)
	}
}

// No signature verifies with a key that the profile does not allow, whoever asks.
func TestVerifyRefusesKeys(t *testing.T) {
	edKey, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, pub := range map[string]crypto.PublicKey{
		"Ed25519": edKey, "P-224": newKey(elliptic.P224()).Public(), "RSA 1024": must(rsa.GenerateKey(rand.Reader, 1024)).Public(), "none": nil,
	} {
		if err := verify(pub, nil, nil); tenant.ReasonOf(err) != tenant.KeyUnsupported {
			t.Errorf("H6 %s: %v, want %s", name, err, tenant.KeyUnsupported)
		}
	}
}
