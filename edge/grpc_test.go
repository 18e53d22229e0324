package edge_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tenantmesh/tenantmesh/edge"
	"github.com/tenantmesh/tenantmesh/interceptors"
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
			return err
		}
		if err := ss.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

func serve(t *testing.T, v *edge.Verifier, o edge.Originator) (testpb.TestServiceClient, *service) {
	impl := new(service)
	return serveWith(t, v, o, impl), impl
}

func serveWith(t *testing.T, v *edge.Verifier, o edge.Originator, impl testpb.TestServiceServer) testpb.TestServiceClient {
	l := bufconn.Listen(1 << 20)
	srv := grpc.NewServer(grpc.UnaryInterceptor(edge.UnaryServerInterceptor(v, o)), grpc.StreamInterceptor(edge.StreamServerInterceptor(v, o)))
	testpb.RegisterTestServiceServer(srv, impl)
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	conn, err := grpc.NewClient("passthrough:///edge", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return testpb.NewTestServiceClient(conn)
}

// shapes are the ways to make one call.
var shapes = []struct {
	method string
	call   func(context.Context, testpb.TestServiceClient) error
}{
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
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, append([]string{"authorization", "Bearer " + token}, kv...)...)
}

func TestGRPCRefuses(t *testing.T) {
	w, one, two := mesh(t)
	o := new(originator)
	client, impl := serve(t, w.v, o)
	list := append(attacks(one, two), attack{"two tokens as two values", "", tenant.TokenMalformed, false})
	for _, a := range list {
		if a.local {
			continue
		}
		for _, s := range shapes {
			t.Run(a.name+"/"+s.method, func(t *testing.T) {
				ctx := bearing(t, a.token)
				if a.token == "" {
					ctx = bearing(t, one.good(nil), "authorization", "Bearer "+one.good(nil))
				}
				err := s.call(ctx, client)
				w.wantDenied(t, a.token, "/grpc.testing.TestService/"+s.method, a.want)
				st := status.Convert(err)
				if a.want == tenant.TokenTenant {
					if st.Code() != codes.PermissionDenied || interceptors.ReasonOf(err) != a.want {
						t.Errorf("status is %v", st)
					}
				} else if st.Code() != codes.Unauthenticated || st.Message() != "unauthenticated" || len(st.Details()) != 0 {
					t.Errorf("status is %v", st)
				}
				noLeak(t, a.token, st.String())
			})
		}
	}
	if impl.calls != 0 || o.last.Load() != nil {
		t.Error("a refused token got further")
	}
}

func TestGRPCAccepts(t *testing.T) {
	w, one, _ := mesh(t)
	o := new(originator)
	client, impl := serve(t, w.v, o)
	for _, s := range shapes {
		t.Run("M2 and M3 over "+s.method, func(t *testing.T) {
			w.sink.take()
			err := s.call(bearing(t, one.good(nil), "x-tenant-id", "globex", "grpc-metadata-tenant", "globex",
				"tenantmesh-hops", "CAES", "tenantmesh-certs-bin", "x", "grpcgateway-authorization", canary, "x-request-id", "r1"), client)
			if err != nil {
				t.Fatal(err)
			}
			list := w.sink.take()
			if len(list) != 1 || list[0].Claimed != "globex" || list[0].Tenant != "acme" || !list[0].Allowed {
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
			noLeak(t, one.good(nil), asJSON(list...), w.log.String())
		})
	}
}

func TestGRPCUnavailable(t *testing.T) {
	w, one, _ := mesh(t)
	client, _ := serve(t, w.v, &originator{err: tenant.Deny(tenant.PolicyUnavailable, canary)})
	for _, s := range shapes {
		t.Run(s.method, func(t *testing.T) {
			err := s.call(bearing(t, one.good(nil)), client)
			if status.Code(err) != codes.Unavailable || interceptors.ReasonOf(err) != tenant.PolicyUnavailable {
				t.Errorf("status is %v", err)
			}
			noLeak(t, "", status.Convert(err).String())
		})
	}
	var trailer metadata.MD
	client.UnaryCall(bearing(t, one.good(nil)), &testpb.SimpleRequest{}, grpc.Trailer(&trailer))
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
		s, err := client.StreamingInputCall(bearing(t, one.good(nil)))
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
		s, err := client.StreamingOutputCall(bearing(t, one.good(nil)), &testpb.StreamingOutputCallRequest{})
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
	s, err := client.FullDuplexCall(bearing(t, one.good(nil)))
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
