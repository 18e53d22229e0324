package interceptors_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/tenant"
)

// anyMethod calls a method that no stub knows, with an empty message.
func anyMethod(ctx context.Context, cc *grpc.ClientConn, s shape, method string) error {
	stream, err := cc.NewStream(ctx, &grpc.StreamDesc{
		ServerStreams: strings.HasPrefix(s.name, "server") || strings.HasPrefix(s.name, "bidi"),
		ClientStreams: strings.HasPrefix(s.name, "client") || strings.HasPrefix(s.name, "bidi"),
	}, method)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&grpc_testing.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return drain(func() (any, error) { return nil, stream.RecvMsg(&grpc_testing.Empty{}) })
}

// TestMethods: what may be called, and what is not there.
func TestMethods(t *testing.T) {
	m := newMesh(t)
	g, cc := m.client("gateway")
	bare := m.attack(m.svid("gateway"), m.honest("gateway"))
	const notThere = "/grpc.testing.TestService/NotThere"

	m.each("M5 what no rule covers and what is not there look the same", func(m *mesh, s shape) {
		_, rule, _ := strings.Cut(document, "  - match: "+s.method)
		rule, _, _ = strings.Cut(rule, "  - ")
		m.policy.p.Store(parsePolicy(m.t, strings.Replace(document, "  - match: "+s.method+rule, "", 1)))
		defer m.policy.p.Store(parsePolicy(m.t, document))
		err := s.call(deadline(m.t), bare)
		m.refused(err, tenant.MethodNotCovered)
		uncovered := status.Convert(err)
		for _, method := range []string{notThere, "/no.such.Service/Method", "/x.Y/Z"} {
			err := anyMethod(deadline(m.t), bare, s, method)
			m.refused(err, tenant.MethodNotCovered)
			if got := status.Convert(err); got.Code() != codes.PermissionDenied || got.Message() != uncovered.Message() {
				m.t.Errorf("%s answers %v, a method that is there %v", method, got, uncovered)
			}
		}
	})
	m.each("M5 what is covered and not registered looks the same", func(m *mesh, s shape) {
		m.policy.p.Store(parsePolicy(m.t, strings.Replace(document, "TestService/EmptyCall", "TestService/NotThere", 1)))
		defer m.policy.p.Store(parsePolicy(m.t, document))
		err := anyMethod(deadline(m.t), bare, s, notThere)
		if reason(err) != tenant.MethodNotCovered || status.Code(err) != codes.PermissionDenied {
			m.t.Errorf("got %v", err)
		}
		if events := m.audit.take(); len(events) != 2 || events[1].Reason != tenant.MethodNotCovered { // it was let in before
			m.t.Errorf("audit: %+v", events)
		}
	})
	t.Run("M5 a registered method that no rule covers fails the start", func(t *testing.T) {
		err := m.guard.Check(m.server)
		if reason(err) != tenant.MethodNotCovered {
			t.Fatalf("got %v", err)
		}
		for _, want := range []string{
			"CacheableUnaryCall", "HalfDuplexCall", "UnimplementedCall", "callers", "exempt",
			"/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not name %s", err, want)
			}
		}
		if strings.Contains(err.Error(), "/UnaryCall") {
			t.Errorf("%v names a covered method", err)
		}
		all := strings.Replace(document, "methods:\n", "methods:\n  - {match: /grpc.health.v1.Health/*, exempt: true}\n"+
			"  - {match: /grpc.reflection.v1.ServerReflection/*, exempt: true}\n  - {match: /grpc.reflection.v1alpha.ServerReflection/*, exempt: true}\n"+
			"  - {match: /grpc.testing.TestService/CacheableUnaryCall, exempt: true}\n  - {match: /grpc.testing.TestService/HalfDuplexCall, exempt: true}\n"+
			"  - {match: /grpc.testing.TestService/UnimplementedCall, exempt: true}\n", 1)
		m.policy.p.Store(parsePolicy(t, all))
		if err := m.guard.Check(m.server); err != nil {
			t.Errorf("all is covered: %v", err)
		}
		m.policy.p.Store(nil)
		defer m.policy.p.Store(parsePolicy(t, document))
		if err := m.guard.Check(m.server); reason(err) != tenant.PolicyUnavailable {
			t.Errorf("P6 without a policy: got %v", err)
		}
	})
	for name, call := range map[string]func(context.Context) error{
		"health": func(ctx context.Context) error {
			_, err := healthpb.NewHealthClient(bare).Check(ctx, &healthpb.HealthCheckRequest{})
			return err
		},
		"a watch of health": func(ctx context.Context) error {
			s, err := healthpb.NewHealthClient(bare).Watch(ctx, &healthpb.HealthCheckRequest{})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"reflection": func(ctx context.Context) error {
			s, err := grpc_reflection_v1.NewServerReflectionClient(bare).ServerReflectionInfo(ctx)
			if err != nil {
				return err
			}
			if err := s.Send(&grpc_reflection_v1.ServerReflectionRequest{
				MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{},
			}); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			_, err = s.Recv()
			return err
		},
	} {
		t.Run("M5 "+name+" only where it is listed", func(t *testing.T) {
			m.refused(call(deadline(t)), tenant.MethodNotCovered)
			m.policy.p.Store(parsePolicy(t, strings.Replace(document, "methods:\n",
				"methods:\n  - {match: /grpc.health.v1.Health/*, exempt: true}\n  - {match: /grpc.reflection.v1.ServerReflection/*, exempt: true}\n", 1)))
			defer m.policy.p.Store(parsePolicy(t, document))
			if err := call(deadline(t)); err != nil {
				t.Errorf("listed: %v", err)
			}
			m.audit.take()
		})
	}
	t.Run("an exempt method runs without a tenant, whatever is sent", func(t *testing.T) {
		for name, cc := range map[string]*grpc.ClientConn{"by the rules": cc, "with a chain": bare} {
			_, err := grpc_testing.NewTestServiceClient(cc).EmptyCall(acme(t, g), &grpc_testing.Empty{})
			if event := m.allowed(err, ""); event.Proven || event.Transaction != "" {
				t.Errorf("%s: %+v", name, event)
			}
		}
	})
	t.Run("a tenant that is unknown and one that is not bound look the same", func(t *testing.T) {
		var seen []*status.Status
		for _, path := range []string{"tenant/globex/runner/1", "tenant/umbrella/runner/1"} {
			cc := m.attack(m.svid(path), m.honest(path))
			err := shapes[0].call(deadline(t), cc)
			m.refused(err, tenant.TenantNotBound)
			seen = append(seen, status.Convert(err))
		}
		if seen[0].Code() != seen[1].Code() || seen[0].Message() != seen[1].Message() {
			t.Errorf("%v and %v differ", seen[0], seen[1])
		}
	})
	m.each("H4 a peer that is no caller", func(m *mesh, s shape) {
		m.refused(s.call(deadline(m.t), m.attack(m.svid("bystander"), nil)), tenant.CallerNotAllowed) // before anything else
	})
}
