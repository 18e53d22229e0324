package edge_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/edge"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// service answers calls of all shapes and keeps what its handlers see.
type service struct {
	testpb.UnimplementedTestServiceServer
	mu    sync.Mutex
	calls int
	md    metadata.MD
	ctx   context.Context
}

func (s *service) saw(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	s.ctx = ctx
	s.md, _ = metadata.FromIncomingContext(ctx)
}

func (s *service) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	s.saw(ctx)
	return &testpb.SimpleResponse{}, nil
}

func (s *service) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, ss testpb.TestService_StreamingOutputCallServer) error {
	s.saw(ss.Context())
	return ss.Send(&testpb.StreamingOutputCallResponse{})
}

func (s *service) StreamingInputCall(ss testpb.TestService_StreamingInputCallServer) error {
	s.saw(ss.Context())
	if _, err := ss.Recv(); err != nil {
		return err
	}
	return ss.SendAndClose(&testpb.StreamingInputCallResponse{})
}

func (s *service) FullDuplexCall(ss testpb.TestService_FullDuplexCallServer) error {
	s.saw(ss.Context())
	for {
		if _, err := ss.Recv(); err != nil {
			return ignoreEOF(err)
		}
		if err := ss.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

// gate is a client of a listener of the edge, by TLS.
type gate struct {
	testpb.TestServiceClient
	addr string
}

func serve(t *testing.T, v *edge.Verifier, o edge.Originator) (*gate, *service) {
	impl := new(service)
	return serveWith(t, v, o, impl), impl
}

func serveWith(t *testing.T, v *edge.Verifier, o edge.Originator, impl testpb.TestServiceServer) *gate {
	t.Helper()
	addr := listen(t, impl, grpc.Creds(credentials.NewServerTLSFromCert(gateCert())),
		grpc.UnaryInterceptor(edge.UnaryServerInterceptor(v, o)), grpc.StreamInterceptor(edge.StreamServerInterceptor(v, o)))
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(gateTLS())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &gate{testpb.NewTestServiceClient(conn), addr}
}

// gateCert is the certificate of the edge, as clients know it by its name.
var gateCert = sync.OnceValue(func() *tls.Certificate {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"api.example"}, NotAfter: time.Now().Add(time.Hour)}
	der := must(x509.CreateCertificate(rand.Reader, template, template, attacktest.ECKey().Public(), attacktest.ECKey()))
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: attacktest.ECKey(), Leaf: must(x509.ParseCertificate(der))}
})

func gateTLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(gateCert().Leaf)
	return &tls.Config{RootCAs: roots, ServerName: "api.example"}
}

// shape is one way to make one call.
type shape struct {
	method string
	call   func(context.Context, testpb.TestServiceClient) error
}

func (s shape) String() string { return s.method }

var shapes = []shape{
	{"UnaryCall", func(ctx context.Context, c testpb.TestServiceClient) error {
		_, err := c.UnaryCall(ctx, &testpb.SimpleRequest{})
		return err
	}},
	{"StreamingOutputCall", func(ctx context.Context, c testpb.TestServiceClient) error {
		s, err := c.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	}},
	{"StreamingInputCall", func(ctx context.Context, c testpb.TestServiceClient) error {
		s, err := c.StreamingInputCall(ctx)
		if err == nil {
			s.Send(&testpb.StreamingInputCallRequest{})
			_, err = s.CloseAndRecv()
		}
		return err
	}},
	{"FullDuplexCall", func(ctx context.Context, c testpb.TestServiceClient) error {
		s, err := c.FullDuplexCall(ctx)
		if err == nil {
			s.Send(&testpb.StreamingOutputCallRequest{})
			_, err = s.Recv()
		}
		return err
	}},
}

func bearing(t *testing.T, token string, kv ...string) context.Context {
	return metadata.AppendToOutgoingContext(patient(t), append([]string{"authorization", "Bearer " + token}, kv...)...)
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestGRPCRefuses(t *testing.T) {
	w, one, two := mesh(t)
	o := new(originator)
	client, impl := serve(t, w.v, o)
	raw := dialRaw(t, client)
	good := "Bearer " + one.Good(nil)
	list := append(attacktest.TokenAttacks(one, two), attacktest.TokenAttack{Name: "T4 two tokens as two values", Want: tenant.TokenMalformed})
	for _, a := range list {
		if a.Local {
			continue
		}
		fields := []string{"authorization", "Bearer " + a.Token, "x-tenant-id", "initech"}
		if a.Token == "" {
			fields = append(fields, "authorization", good)
			fields[1] = good
		}
		each(t, a.Name, func(t *testing.T, s shape) {
			method := "/grpc.testing.TestService/" + s.method
			for _, call := range []func() error{
				func() error { return s.call(metadata.AppendToOutgoingContext(patient(t), fields...), client) },
				func() error { return raw.Call(method, fields...) },
			} {
				err := call()
				if e := w.wantDenied(t, a.Token, method, a.Want); e.Claimed != "initech" {
					t.Errorf("the event has claimed tenant %q, want initech", e.Claimed)
				}
				wantTold(t, err, a.Want)
				noLeak(t, a.Token, status.Convert(err).String())
				if impl.calls != 0 || o.last.Load() != nil {
					t.Error("the token got further")
				}
			}
		})
	}
}

// dialRaw connects to the edge without gRPC.
func dialRaw(t *testing.T, g *gate) *attacktest.Raw {
	t.Helper()
	raw, err := attacktest.Dial(t.Context(), g.addr, gateTLS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return raw
}

// wantTold fails the test unless a call ended as one whose token is refused for
// the reason does.
func wantTold(t *testing.T, err error, want tenant.Reason) {
	t.Helper()
	st := status.Convert(err)
	switch {
	case want == tenant.TokenTenant: // the token is good
		if st.Code() != codes.PermissionDenied || interceptors.ReasonOf(err) != want {
			t.Errorf("status is %v", st)
		}
	case want == tenant.KeysUnavailable:
		if st.Code() != codes.Unavailable || st.Message() != "unavailable" || len(st.Details()) != 0 {
			t.Errorf("status is %v", st)
		}
	case st.Code() != codes.Unauthenticated || st.Message() != "unauthenticated" || len(st.Details()) != 0:
		t.Errorf("status is %v", st)
	}
}

// What no gRPC library sends gets no further by raw HTTP/2.
func TestRawRefuses(t *testing.T) {
	w, one, two := mesh(t)
	o := new(originator)
	client, impl := serve(t, w.v, o)
	token := one.Good(nil)
	list := append(attacktest.TokenAttacks(one, two),
		attacktest.TokenAttack{Name: "T4 a NUL behind", Token: token + "\x00", Want: tenant.TokenMalformed, Local: true},
		attacktest.TokenAttack{Name: "T4 the key in upper case", Local: true},
	)
	for _, a := range list {
		if !a.Local {
			continue
		}
		each(t, a.Name, func(t *testing.T, s shape) {
			key, value := "authorization", "Bearer "+a.Token
			if a.Token == "" {
				key, value = "Authorization", "Bearer "+token
			}
			err := dialRaw(t, client).Call("/grpc.testing.TestService/"+s.method, key, value)
			if err == nil {
				t.Error("the call succeeded")
			}
			if a.Want == tenant.TokenTooLarge {
				w.wantDenied(t, "", "/grpc.testing.TestService/"+s.method, a.Want)
				wantTold(t, err, a.Want)
			} else if list := w.sink.take(); list != nil {
				t.Errorf("HTTP/2 let it through: %+v", list)
			}
			if impl.calls != 0 || o.last.Load() != nil {
				t.Error("the token got further")
			}
		})
	}
}

// Distinct tokens, good, malformed and oversized, leave memory flat.
func TestFlood(t *testing.T) {
	w, one, _ := mesh(t)
	client, _ := serve(t, w.v, new(originator))
	raw := dialRaw(t, client)
	good := one.Good(nil)
	flood := func(n int) {
		for i := range n {
			distinct := fmt.Sprintf("%08d", i)
			for token, want := range map[string]tenant.Reason{
				one.Good(claims{"sub": distinct}):               "",
				one.Headed(claims{"kid": distinct}):             tenant.TokenKeyUnknown,
				distinct + good:                                 tenant.TokenMalformed,
				good[:len(good)-20] + distinct + "AAAAAAAAAAAA": tenant.TokenSignature,
				strings.Repeat("A", 16<<10) + distinct:          tenant.TokenTooLarge,
			} {
				err := raw.Call("/grpc.testing.TestService/"+shapes[i%len(shapes)].method, "authorization", "Bearer "+token)
				list := w.sink.take()
				if want == "" && (err != nil || len(list) != 0) || want != "" && (len(list) != 1 || list[0].Reason != want) {
					t.Fatalf("got %v, events %+v, want %q", err, list, want)
				}
			}
		}
	}
	flood(50)
	before := attacktest.Heap()
	flood(250)
	if after := attacktest.Heap(); after > before+128<<10 { // 64 bytes a call
		t.Errorf("T8 the heap grew from %d to %d bytes", before, after)
	} else {
		t.Logf("%d bytes before, %d after", before, after)
	}
}

// kinds are the typ headers by which kinds of tokens differ.
var kinds = map[string]string{"an access token": "at+jwt", "an ID token": "JWT", "a Txn-Token": "txntoken+jwt", "a WIT": "wit+jwt"}

// Each kind of token is refused where another is accepted.
func TestKindsOfTokens(t *testing.T) {
	key := jwk("k1", "RS256", rsaKeys[0]().Public())
	var cfg edge.Config
	issuers := map[string]*issuer{}
	for name, typ := range kinds {
		issuers[name] = newIssuer(t, key)
		cfg.Issuers = append(cfg.Issuers, edge.Issuer{URL: issuers[name].URL, Audience: audience, Type: typ})
	}
	w := newWorld(t, cfg)
	client, impl := serve(t, w.v, new(originator))
	for name, is := range issuers {
		for sent, typ := range kinds {
			each(t, "T3 "+sent+" where "+name+" is accepted", func(t *testing.T, s shape) {
				impl.calls = 0
				err := s.call(bearing(t, is.Headed(claims{"typ": typ})), client)
				if sent == name {
					if err != nil || impl.calls != 1 {
						t.Errorf("got %v", err)
					}
					return
				}
				w.wantDenied(t, "", "/grpc.testing.TestService/"+s.method, tenant.TokenType)
				wantTold(t, err, tenant.TokenType)
				if impl.calls != 0 {
					t.Error("the handler ran")
				}
			})
		}
		each(t, "T3 a JWT-SVID where "+name+" is accepted", func(t *testing.T, s shape) {
			impl.calls = 0
			token := attacktest.SignToken(`{"alg":"RS256","kid":"k1","typ":"`+kinds[name]+`"}`, string(marshal(is.Payload(claims{"sub": gatewayID, "tenant": nil}))))
			wantTold(t, s.call(bearing(t, token), client), tenant.TokenClaimMissing)
			w.wantDenied(t, "", "/grpc.testing.TestService/"+s.method, tenant.TokenClaimMissing)
			if impl.calls != 0 {
				t.Error("the handler ran")
			}
		})
	}
}

// Keys that cannot be had, over the wire: the last good ones until their limit,
// then none.
func TestGRPCKeys(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"down":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"slow":    func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"huge":    func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 64<<10)) },
		"garbage": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) },
	} {
		is := newIssuer(t, jwk("k1", "RS256", rsaKeys[0]().Public()))
		short := limits
		short.Timeout = 100 * time.Millisecond
		w := newWorld(t, edge.Config{Issuers: []edge.Issuer{{URL: is.URL, Audience: audience}}, Keys: short})
		client, impl := serve(t, w.v, new(originator))
		token := is.Good(claims{"exp": start.Add(24 * time.Hour).Unix()})
		good := is.Answers()
		w.wantAccepted(t, token)
		is.Answer(answer)
		w.clock.Set(start.Add(limits.MaxKeyAge - 1))
		each(t, "T10 "+name+": the last good keys", func(t *testing.T, s shape) {
			if err := s.call(bearing(t, token), client); err != nil {
				t.Error(err)
			}
		})
		w.v.WaitFetches()
		w.clock.Set(start.Add(limits.MaxKeyAge))
		fetches := is.Fetches.Load()
		each(t, "T10 "+name+": refused from their limit on", func(t *testing.T, s shape) {
			impl.calls = 0
			wantTold(t, s.call(bearing(t, token), client), tenant.KeysUnavailable)
			w.wantDenied(t, token, "/grpc.testing.TestService/"+s.method, tenant.KeysUnavailable)
			if impl.calls != 0 {
				t.Error("the handler ran")
			}
		})
		if n := is.Fetches.Load() - fetches; n > 1 {
			t.Errorf("T10: %d fetches for four calls", n)
		}
		is.Answer(good)
		w.clock.Add(limits.RefreshInterval)
		w.wantAccepted(t, token)
	}
	w, is, token := oneIssuer(t)
	client, impl := serve(t, w.v, new(originator))
	w.wantAccepted(t, token)
	each(t, "T2 bounded refetch", func(t *testing.T, s shape) {
		for i := range 10 {
			wantTold(t, s.call(bearing(t, is.Headed(claims{"kid": fmt.Sprint("x", i)})), client), tenant.TokenKeyUnknown)
			w.wantDenied(t, "", "/grpc.testing.TestService/"+s.method, tenant.TokenKeyUnknown)
		}
		if n := is.Fetches.Load(); n != 1 || impl.calls != 0 {
			t.Errorf("%d fetches, %d handlers ran", n, impl.calls)
		}
	})
}

func TestGRPCAccepts(t *testing.T) {
	w, one, _ := mesh(t)
	o := new(originator)
	client, impl := serve(t, w.v, o)
	each(t, "M2 and M3", func(t *testing.T, s shape) {
		w.sink.take()
		err := s.call(bearing(t, one.Good(nil), "x-tenant-id", "globex", "grpc-metadata-tenant", "initech", "tenant", "../"+canary,
			"tenantmesh-hops", "CAES", "tenantmesh-certs-bin", "x", "grpcgateway-authorization", canary, "x-request-id", "r1"), client)
		if err != nil {
			t.Fatal(err)
		}
		list := w.sink.take()
		if len(list) != 1 || list[0].Claimed != "globex, initech, (not a tenant ID)" || list[0].Tenant != "acme" || !list[0].Allowed {
			t.Errorf("events are %+v", list)
		}
		impl.mu.Lock()
		defer impl.mu.Unlock()
		for _, name := range []string{"authorization", "x-tenant-id", "grpc-metadata-tenant", "tenantmesh-hops", "tenantmesh-certs-bin", "grpcgateway-authorization"} {
			if impl.md.Get(name) != nil {
				t.Errorf("the handler sees %s", name)
			}
		}
		if impl.md.Get("x-request-id") == nil || impl.ctx.Value(originatedKey{}) == nil {
			t.Error("the handler misses what it is to see")
		}
		noLeak(t, one.Good(nil), asJSON(list...), w.log.String())
	})
}

func TestGRPCUnavailable(t *testing.T) {
	w, one, _ := mesh(t)
	client, _ := serve(t, w.v, &originator{err: tenant.Deny(tenant.PolicyUnavailable, canary)})
	for _, s := range shapes {
		t.Run(s.method, func(t *testing.T) {
			err := s.call(bearing(t, one.Good(nil)), client)
			if status.Code(err) != codes.Unavailable || interceptors.ReasonOf(err) != tenant.PolicyUnavailable {
				t.Errorf("status is %v", err)
			}
			noLeak(t, "", status.Convert(err).String())
		})
	}
	var trailer metadata.MD
	client.UnaryCall(bearing(t, one.Good(nil)), &testpb.SimpleRequest{}, grpc.Trailer(&trailer))
	if got := trailer.Get("grpc-retry-pushback-ms"); len(got) != 1 || got[0] != "-1" {
		t.Errorf("the trailer is %v", trailer)
	}
}

// What a handler neither receives nor sends once the token has expired, whatever
// it does about the other direction.
func TestStreamEndsBothWays(t *testing.T) {
	w, one, _ := mesh(t)
	impl := &oneWay{expire: func() { w.clock.Add(2 * time.Hour) }}
	client := serveWith(t, w.v, new(originator), impl)
	refused := func(t *testing.T, err error) {
		t.Helper()
		if status.Code(err) != codes.Unauthenticated || interceptors.ReasonOf(err) != tenant.TokenExpired {
			t.Errorf("the stream ended with %v", err)
		}
		w.wantDenied(t, "", "/grpc.testing.TestService/"+impl.method, tenant.TokenExpired)
	}
	t.Run("no message is received", func(t *testing.T) {
		w.clock.Set(start)
		s, err := client.StreamingInputCall(bearing(t, one.Good(nil)))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			s.Send(&testpb.StreamingInputCallRequest{})
		}
		_, err = s.CloseAndRecv()
		refused(t, err)
		if impl.received != 1 {
			t.Errorf("%d messages reached the handler, want 1", impl.received)
		}
	})
	t.Run("no message is sent", func(t *testing.T) {
		w.clock.Set(start)
		s, err := client.StreamingOutputCall(bearing(t, one.Good(nil)), &testpb.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
		_, err = s.Recv()
		refused(t, err)
	})
}

// oneWay expires its token after the first message.
type oneWay struct {
	testpb.UnimplementedTestServiceServer
	expire   func()
	received int
	method   string
}

func (s *oneWay) StreamingInputCall(ss testpb.TestService_StreamingInputCallServer) error {
	s.method, s.received = "StreamingInputCall", 0
	for {
		if _, err := ss.Recv(); err != nil {
			return err // io.EOF too: nothing is sent here
		}
		s.received++
		s.expire()
	}
}

func (s *oneWay) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, ss testpb.TestService_StreamingOutputCallServer) error {
	s.method = "StreamingOutputCall"
	if err := ss.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
		return err
	}
	s.expire()
	return ss.Send(&testpb.StreamingOutputCallResponse{})
}

// No message passes on an open stream once its token has expired.
func TestStreamEndsWithItsToken(t *testing.T) {
	w, one, _ := mesh(t)
	client, _ := serve(t, w.v, new(originator))
	s, err := client.FullDuplexCall(bearing(t, one.Good(nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	w.clock.Add(time.Hour + 10*time.Second)
	s.Send(&testpb.StreamingOutputCallRequest{})
	_, err = s.Recv()
	if status.Code(err) != codes.Unauthenticated || interceptors.ReasonOf(err) != tenant.TokenExpired {
		t.Errorf("the stream ended with %v", err)
	}
}
