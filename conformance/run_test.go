package conformance

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/edge"
	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/internal/leaf"
	"github.com/tenantmesh/tenantmesh/internal/vectors"
	"github.com/tenantmesh/tenantmesh/policy"
	pb "github.com/tenantmesh/tenantmesh/proto/tenantmesh/v1"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// decode reads an input of the runner's types, and fails for members that
// these do not have.
func decode[T any](t *testing.T, input json.RawMessage) T {
	t.Helper()
	var v T
	if err := vectors.Strict(input, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// der is certificates in base64.
type der []string

func (d der) certificates() (out []*x509.Certificate) {
	for _, s := range d {
		out = append(out, must(x509.ParseCertificate(must(base64.StdEncoding.DecodeString(s)))))
	}
	return out
}

// bundleSet is roots by trust domain.
type bundleSet map[string]der

func (b bundleSet) source() x509bundle.Source {
	set := x509bundle.NewSet()
	for name, roots := range b {
		set.Add(x509bundle.FromX509Authorities(spiffeid.RequireTrustDomainFromString(name), roots.certificates()))
	}
	return set
}

// cache is one for all vectors.
var (
	cache       hop.Cache
	generations = map[string]uint64{}
)

// generation tells b from other bundles.
func (b bundleSet) generation() uint64 {
	text := string(must(json.Marshal(b)))
	if generations[text] == 0 {
		generations[text] = uint64(len(generations) + 1)
	}
	return generations[text]
}

func runCertificates(t *testing.T, input json.RawMessage) (any, error) {
	in := decode[struct {
		Chain   der       `json:"chain"`
		Bundles bundleSet `json:"bundles"`
		Now     int64     `json:"now"`
	}](t, input)
	v, err := leaf.Verify(in.Chain.certificates(), in.Bundles.source(), time.Unix(in.Now, 0))
	if err != nil {
		return nil, err
	}
	return map[string]string{"id": v.ID.String()}, nil
}

func runMetadata(t *testing.T, input json.RawMessage) (any, error) {
	in := decode[struct {
		Headers []header `json:"headers"`
	}](t, input)
	m, err := hop.ParseMetadata(join(in.Headers))
	return texts(m), err
}

// texts is what metadata vectors have of m.
func texts(m hop.Metadata) map[string]string {
	out := map[string]string{}
	if m.Hops != "" {
		out["hops"] = m.Hops
	}
	if m.Certs != "" {
		out["certs"] = m.Certs
	}
	return out
}

// runSlots runs a connection: what counts is the outcome of the last call.
func runSlots(t *testing.T, input json.RawMessage) (any, error) {
	in := decode[struct {
		Offer string           `json:"offer"`
		Calls [][]vectors.Text `json:"calls"`
	}](t, input)
	var slots *hop.Slots
	if o := hop.ParseOffer([]string{in.Offer}); o != (hop.Offer{}) {
		slots = hop.NewSlots(o)
	}
	var m hop.Metadata
	for i, c := range in.Calls {
		m = hop.Metadata{Hops: string(c[0])}
		if len(c) > 1 {
			m.Certs = string(c[1])
		}
		var err error
		if m, err = slots.Resolve(m); err != nil {
			if i < len(in.Calls)-1 {
				t.Fatalf("call %d: %v", i, err)
			}
			return nil, err
		}
	}
	return texts(m), nil
}

// header is a name and a value.
type header [2]vectors.Text

// join gathers values by name, as gRPC and HTTP libraries do.
func join(headers []header) map[string][]string {
	m := map[string][]string{}
	for _, h := range headers {
		m[string(h[0])] = append(m[string(h[0])], string(h[1]))
	}
	return m
}

func runChain(t *testing.T, input json.RawMessage) (any, error) {
	in := decode[struct {
		Hops    *vectors.Text `json:"hops"`
		Certs   *vectors.Text `json:"certs"`
		Headers []header      `json:"headers"`
		Peer    der           `json:"peer"`
		Self    string        `json:"self"`
		Method  string        `json:"method"`
		Binding string        `json:"binding"`
		Bundles bundleSet     `json:"bundles"`
		Now     int64         `json:"now"`
		Policy  string        `json:"policy"`
	}](t, input)
	if in.Hops != nil {
		in.Headers = append(in.Headers, header{hop.HopsKey, *in.Hops})
	}
	if in.Certs != nil {
		in.Headers = append(in.Headers, header{hop.CertsKey, *in.Certs})
	}
	var pol *policy.Policy
	peer := in.Peer.certificates()
	if in.Policy != "" {
		pol = must(policy.Parse("policy.yaml", []byte(in.Policy)))
		if d := pol.Admit(in.Method, nil, must(leaf.ID(peer[0]))); d.Err() != nil {
			return nil, d.Err()
		}
	}
	m, err := hop.ParseMetadata(join(in.Headers))
	if err != nil {
		return nil, err
	}
	want := hop.Expected{
		Kind: hop.Call, Peer: peer, Self: spiffeid.RequireFromString(in.Self), Target: in.Method,
		Binding: [32]byte(must(hex.DecodeString(in.Binding))), Bundles: in.Bundles.source(), Now: time.Unix(in.Now, 0),
	}
	cold, coldErr := hop.Verify(m, want)
	want.Cache, want.Generation = &cache, in.Bundles.generation()
	chain, err := hop.Verify(m, want)
	// H9: what the cache remembers of all other vectors changes nothing.
	if fmt.Sprint(coldErr) != fmt.Sprint(err) || err == nil && !reflect.DeepEqual(cold.Path(), chain.Path()) {
		t.Errorf("with a cache %v, and without %v", err, coldErr)
	}
	if err != nil {
		return nil, err
	}
	var path []spiffeid.ID
	for _, s := range chain.Path() {
		path = append(path, s.Signer)
	}
	c := chain.Claims()
	if pol != nil {
		d := pol.Decide(&policy.Call{Method: in.Method, Path: chain.Path(), Claims: c, Scopes: chain.Scopes(), Time: time.Unix(in.Now, 0)})
		if err := d.Err(); err != nil {
			return nil, err
		}
	}
	return map[string]any{
		"tenant": c.Tenant.String(), "sub": c.Subject, "txn": c.Transaction,
		"scopes": append([]string{}, chain.Scopes()...), "path": path,
	}, nil
}

// claims are those of SPEC.md, section 4.2.
type claims struct {
	Txn   string   `json:"txn"`
	Sub   string   `json:"sub"`
	Iss   string   `json:"iss,omitempty"`
	Scope []string `json:"scope,omitempty"`
	Tctx  struct {
		Tenant         string            `json:"tenant"`
		TenantUID      string            `json:"tenant_uid"`
		Classification uint32            `json:"classification,omitempty"`
		Attributes     map[string]string `json:"attributes,omitempty"`
	} `json:"tctx"`
	Rctx      *request   `json:"rctx,omitempty"`
	Iat       int64      `json:"iat"`
	Exp       int64      `json:"exp"`
	Parent    *parent    `json:"parent,omitempty"`
	Elevation *elevation `json:"elevation,omitempty"`
}

type (
	request struct {
		Attributes map[string]string `json:"attributes"`
	}
	parent struct {
		Txn       string `json:"txn"`
		Statement string `json:"statement"`
	}
	elevation struct {
		ID string `json:"id"`
	}
)

func (c claims) hop() *hop.Claims {
	out := &hop.Claims{
		Transaction: c.Txn, Tenant: must(tenant.ParseID(c.Tctx.Tenant)), TenantUID: c.Tctx.TenantUID, Subject: c.Sub, Issuer: c.Iss,
		Scopes: c.Scope, Classification: c.Tctx.Classification, Attributes: c.Tctx.Attributes,
		IssuedAt: time.Unix(c.Iat, 0), Expires: time.Unix(c.Exp, 0),
	}
	if c.Rctx != nil {
		out.Request = c.Rctx.Attributes
	}
	if p := c.Parent; p != nil {
		out.Parent = &hop.Parent{Transaction: p.Txn, Statement: [32]byte(must(hex.DecodeString(p.Statement)))}
	}
	if e := c.Elevation; e != nil {
		out.Elevation = e.ID
	}
	return out
}

func claimsOf(c *hop.Claims) *claims {
	out := &claims{Txn: c.Transaction, Sub: c.Subject, Iss: c.Issuer, Scope: c.Scopes, Iat: c.IssuedAt.Unix(), Exp: c.Expires.Unix()}
	out.Tctx.Tenant, out.Tctx.TenantUID = c.Tenant.String(), c.TenantUID
	out.Tctx.Classification, out.Tctx.Attributes = c.Classification, c.Attributes
	if c.Request != nil {
		out.Rctx = &request{c.Request}
	}
	if c.Parent != nil {
		out.Parent = &parent{c.Parent.Transaction, hex.EncodeToString(c.Parent.Statement[:])}
	}
	if c.Elevation != "" {
		out.Elevation = &elevation{c.Elevation}
	}
	return out
}

func runClaims(t *testing.T, input json.RawMessage) (any, error) {
	in := decode[struct {
		Claims claims `json:"claims"`
		Self   string `json:"self"`
		Policy string `json:"policy"`
		Now    int64  `json:"now"`
	}](t, input)
	c := in.Claims.hop()
	chain, err := hop.Begin(c)
	if err != nil {
		return nil, err
	}
	if err := chain.Valid(time.Unix(in.Now, 0)); err != nil {
		return nil, err
	}
	pol := must(policy.Parse("policy.yaml", []byte(in.Policy)))
	if d := pol.MayOriginate(spiffeid.RequireFromString(in.Self), c, nil); d.Err() != nil {
		return nil, d.Err()
	}
	// Claims are encoded within the first statement.
	s := &hop.Statement{
		Kind: hop.Call, Audience: in.Self, Target: "/a.B/C", IssuedAt: c.IssuedAt, Expires: c.Expires, Claims: chain.Claims(),
	}
	var m pb.Statement
	if err := proto.Unmarshal(must(s.Marshal()), &m); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"encoding": hex.EncodeToString(must(proto.MarshalOptions{Deterministic: true}.Marshal(m.Claims)))}, nil
}

// policyText is a policy's text, or an object that stands for its encoding.
type policyText []byte

func (p *policyText) UnmarshalJSON(b []byte) error {
	if b[0] == '{' {
		*p = append(bytes.Clone(b), '\n')
		return nil
	}
	var text string
	err := json.Unmarshal(b, &text)
	*p = []byte(text)
	return err
}

func runPolicy(t *testing.T, input json.RawMessage) (any, error) {
	in := decode[struct {
		Policy      policyText `json:"policy"`
		TenantsFile string     `json:"tenants_file"`
		Question    string     `json:"question"`
		Method      string     `json:"method"`
		Queue       string     `json:"queue"`
		Path        []struct {
			ID     string `json:"id"`
			Method string `json:"method"`
		} `json:"path"`
		Claims *claims  `json:"claims"`
		Scopes []string `json:"scopes"`
		From   []string `json:"from"`
		Now    int64    `json:"now"`
	}](t, input)
	files := fstest.MapFS{"policy.yaml": {Data: in.Policy}}
	if in.TenantsFile != "" {
		files["tenants.list"] = &fstest.MapFile{Data: []byte(in.TenantsFile)}
	}
	pol, err := policy.Load(files, "policy.yaml")
	if err != nil {
		pol = nil // none is in force
	}
	var path []hop.Step
	for _, s := range in.Path {
		path = append(path, hop.Step{Signer: spiffeid.RequireFromString(s.ID), Kind: hop.Call, Target: s.Method})
	}
	var self spiffeid.ID
	if len(path) > 0 {
		self = path[len(path)-1].Signer
	}
	var c *hop.Claims
	if in.Claims != nil {
		c = in.Claims.hop()
	}
	var d policy.Decision
	switch in.Question {
	case "covers":
		d = pol.Covers(in.Method, nil)
	case "admit":
		d = pol.Admit(in.Method, nil, self)
	case "decide":
		d = pol.Decide(&policy.Call{Method: in.Method, Path: path, Claims: c, Scopes: in.Scopes, Time: time.Unix(in.Now, 0)})
	case "call":
		d = pol.MayCall(self, in.Method, nil)
	case "originate":
		var from []hop.Step
		for _, td := range in.From {
			from = append(from, hop.Step{Signer: spiffeid.RequireFromString("spiffe://" + td + "/w")})
		}
		d = pol.MayOriginate(self, c, from)
	case "publish":
		d = pol.MayPublish(self, in.Queue)
	case "consume":
		d = pol.MayConsume(self, in.Queue)
	default:
		t.Fatalf("the question is %q", in.Question)
	}
	if d.Err() != nil {
		return nil, d.Err()
	}
	return map[string]any{"workloads": d.Workloads(), "exempt": d.Exempt()}, nil
}

func runStatement(t *testing.T, input json.RawMessage) (any, error) {
	in := decode[struct {
		Statement string `json:"statement"`
	}](t, input)
	b := must(hex.DecodeString(in.Statement))
	s, err := hop.ParseStatement(b)
	if err != nil {
		return nil, err
	}
	if again := must(s.Marshal()); !bytes.Equal(again, b) {
		t.Errorf("it encodes to %x", again)
	}
	out := map[string]any{
		"kind": s.Kind.String(), "index": s.Index, "x5t_s256": hex.EncodeToString(s.Signer[:]), "aud": s.Audience,
		"iat": s.IssuedAt.Unix(), "exp": s.Expires.Unix(), "jti": hex.EncodeToString(s.TokenID[:]),
	}
	if s.Index > 0 {
		out["prev"] = hex.EncodeToString(s.Prev[:])
	}
	if s.Kind != hop.Grant {
		out["target"], out["binding"] = s.Target, hex.EncodeToString(s.Binding[:])
	}
	if s.Claims != nil {
		out["claims"] = claimsOf(s.Claims)
	}
	if n := s.Narrowing; n != nil {
		narrowing := map[string][]string{}
		if n.Scopes != nil {
			narrowing["scope"] = n.Scopes
		}
		if n.Methods != nil {
			narrowing["methods"] = n.Methods
		}
		out["narrowing"] = narrowing
	}
	return out, nil
}

// keySet is a JWK Set: text, or an object that stands for its encoding.
type keySet []byte

func (k *keySet) UnmarshalJSON(b []byte) error {
	if b[0] == '{' {
		*k = bytes.Clone(b)
		return nil
	}
	var text vectors.Text
	err := json.Unmarshal(b, &text)
	*k = []byte(text)
	return err
}

func runToken(t *testing.T, input json.RawMessage) (any, error) {
	in := decode[struct {
		Token   vectors.Text `json:"token"`
		Now     int64        `json:"now"`
		Leeway  int          `json:"leeway"`
		Issuers map[string]struct {
			Audience string   `json:"audience"`
			Type     string   `json:"type"`
			Tenants  []string `json:"tenants"`
			JWKS     keySet   `json:"jwks"`
		} `json:"issuers"`
	}](t, input)
	served := documents{}
	cfg := edge.Config{
		Client: &http.Client{Transport: served},
		Clock:  func() time.Time { return time.Unix(in.Now, 0) },
		Leeway: time.Duration(in.Leeway) * time.Second,
		Audit:  audit.NewSlog(slog.DiscardHandler),
		Logger: slog.New(slog.DiscardHandler),
	}
	for url, is := range in.Issuers {
		var ids []tenant.ID
		for _, s := range is.Tenants {
			ids = append(ids, must(tenant.ParseID(s)))
		}
		cfg.Issuers = append(cfg.Issuers, edge.Issuer{URL: url, JWKSURL: url + "/jwks", Audience: is.Audience, Type: is.Type, Tenants: ids})
		served[url+"/jwks"] = is.JWKS
	}
	v, err := edge.NewVerifier(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	c, err := v.Verify(t.Context(), string(in.Token))
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"iss": c.Issuer, "sub": c.Subject, "tenant": c.Tenant.String(), "scopes": c.Scopes, "exp": c.Expires.Unix(),
	}, nil
}

// documents answers requests by their URLs.
type documents map[string][]byte

// RoundTrip is that of [http.RoundTripper].
func (d documents) RoundTrip(r *http.Request) (*http.Response, error) {
	body, ok := d[r.URL.String()]
	if !ok {
		return nil, fmt.Errorf("no document at %s", r.URL)
	}
	return &http.Response{
		StatusCode: http.StatusOK, Request: r, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(body))),
	}, nil
}
