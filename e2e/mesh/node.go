package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/interceptors"
	meshv1 "github.com/tenantmesh/tenantmesh/internal/testproto/mesh/v1"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// node is a workload that serves and calls as its description says.
type node struct {
	meshv1.UnimplementedMeshServiceServer
	env     *Env
	guard   *interceptors.Guard
	targets map[string]*target
	records func(ctx context.Context) (string, error)
	handled handlerLog
}

// target is a workload that a node calls.
type target struct {
	Call
	peer     Peer
	resolver *manual.Resolver
	plain    *grpc.ClientConn
	retrying *grpc.ClientConn // by service config
}

// runNode implements [Role].
func runNode(ctx context.Context, env *Env) (any, error) {
	guard, err := env.Guard(ctx)
	if err != nil {
		return nil, err
	}
	n := &node{env: env, guard: guard, targets: map[string]*target{}}
	env.node = n
	if n.records, err = env.records(ctx); err != nil {
		return nil, err
	}
	for _, c := range env.Workload.Calls {
		t, err := n.dial(c)
		if err != nil {
			return nil, err
		}
		n.targets[c.To] = t
	}
	if env.Workload.Service != "" {
		if err := n.serve(ctx); err != nil {
			return nil, err
		}
	}
	return &driver{ctx: ctx, n: n}, nil
}

// retries is the service config of connections that retry (gRFC A6).
const retries = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s",
	"backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

func (n *node) dial(c Call) (*target, error) {
	t := &target{Call: c, peer: n.env.Peers[c.To], resolver: manual.NewBuilderWithScheme("mesh")}
	t.resolver.InitialState(at(t.peer.Addr))
	connect := grpc.ConnectParams{
		// Whoever was killed is back soon.
		Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
		MinConnectTimeout: 2 * time.Second,
	}
	for cc, opts := range map[**grpc.ClientConn][]grpc.DialOption{
		&t.plain:    {grpc.WithDisableRetry()},
		&t.retrying: {grpc.WithDefaultServiceConfig(retries)},
	} {
		opts = append(opts, grpc.WithResolvers(t.resolver), grpc.WithConnectParams(connect))
		conn, err := grpc.NewClient("mesh:///"+c.To, append(opts, n.guard.DialOptions(svid.Expect(t.peer.ID))...)...)
		if err != nil {
			return nil, err
		}
		n.env.closing = append(n.env.closing, conn.Close)
		*cc = conn
	}
	return t, nil
}

func at(addr string) resolver.State {
	return resolver.State{Endpoints: []resolver.Endpoint{{Addresses: []resolver.Address{{Addr: addr}}}}}
}

// serve serves MeshService's methods under the workload's own service name.
func (n *node) serve(ctx context.Context) error {
	if err := declare(n.env.Workload.Service); err != nil {
		return err
	}
	srv := grpc.NewServer(n.guard.ServerOptions()...)
	desc := meshv1.MeshService_ServiceDesc
	desc.ServiceName = n.env.Workload.Service
	srv.RegisterService(&desc, n)
	if err := n.guard.Check(srv); err != nil {
		return err
	}
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", n.env.Listen)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	n.env.closing = append(n.env.closing, func() error {
		hard := time.AfterFunc(500*time.Millisecond, srv.Stop) // a stream may not end by itself
		defer hard.Stop()
		srv.GracefulStop()
		if err := <-served; !errors.Is(err, grpc.ErrServerStopped) { // before it began
			return err
		}
		return nil
	})
	return nil
}

// declare makes a service with MeshService's methods known under another name,
// so that guards find what the .proto says of its messages.
func declare(name string) error {
	like := meshv1.File_mesh_v1_mesh_proto.Services().ByName("MeshService")
	full := protoreflect.FullName(name)
	if !full.IsValid() {
		return fmt.Errorf("%q is no name of a service", name)
	}
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(full); err == nil {
		if d, ok := d.(protoreflect.ServiceDescriptor); ok && d.Methods().Len() == like.Methods().Len() {
			return nil
		}
		return fmt.Errorf("%s is another's", name)
	}
	s := protodesc.ToServiceDescriptorProto(like)
	s.Name = proto.String(string(full.Name()))
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("mesh/" + name + ".proto"), Package: proto.String(string(full.Parent())), Syntax: proto.String("proto3"),
		Dependency: []string{meshv1.File_mesh_v1_mesh_proto.Path()}, Service: []*descriptorpb.ServiceDescriptorProto{s},
	}, protoregistry.GlobalFiles)
	if err != nil {
		return err
	}
	return protoregistry.GlobalFiles.RegisterFile(file)
}

// messages is how many of them a stream has in a direction.
const messages = 2

// Unary implements [meshv1.MeshServiceServer], as do the others.
func (n *node) Unary(ctx context.Context, r *meshv1.UnaryRequest) (*meshv1.UnaryResponse, error) {
	a, err := n.answer(ctx, Unary, r.GetWork())
	return &meshv1.UnaryResponse{Answer: a}, err
}

func (n *node) ServerStream(r *meshv1.ServerStreamRequest, s grpc.ServerStreamingServer[meshv1.ServerStreamResponse]) error {
	a, err := n.answer(s.Context(), ServerStream, r.GetWork())
	if err != nil {
		return err
	}
	for range messages {
		if err := s.Send(&meshv1.ServerStreamResponse{Answer: a}); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) ClientStream(s grpc.ClientStreamingServer[meshv1.ClientStreamRequest, meshv1.ClientStreamResponse]) error {
	var work *meshv1.Work
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if work != nil && !proto.Equal(work, r.GetWork()) {
			return status.Error(codes.DataLoss, "a stream of different works")
		}
		work = r.GetWork()
	}
	a, err := n.answer(s.Context(), ClientStream, work)
	if err != nil {
		return err
	}
	return s.SendAndClose(&meshv1.ClientStreamResponse{Answer: a})
}

func (n *node) Bidi(s grpc.BidiStreamingServer[meshv1.BidiRequest, meshv1.BidiResponse]) error {
	var a *meshv1.Answer
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if a == nil || a.GetId() != r.GetWork().GetId() {
			if a, err = n.answer(s.Context(), Bidi, r.GetWork()); err != nil {
				return err
			}
		}
		if err := s.Send(&meshv1.BidiResponse{Answer: a}); err != nil {
			return err
		}
	}
}

// answer does the work: it says what it saw, and asks whom it calls.
func (n *node) answer(ctx context.Context, shape Shape, w *meshv1.Work) (*meshv1.Answer, error) {
	tc, err := tenant.Require(ctx)
	n.handled.add(w.GetId(), tc)
	if err != nil {
		return nil, err
	}
	name, t := n.env.Workload.Name, tc.Tenant().String()
	kept, err := n.records(ctx)
	if err != nil {
		return nil, err
	}
	visit := &meshv1.Visit{Workload: name, Tenant: t, Record: kept}
	for _, step := range tc.Path() {
		visit.Path = append(visit.Path, step.Workload.String())
	}
	a := &meshv1.Answer{Id: w.GetId(), TenantId: t, Visits: []*meshv1.Visit{visit}}
	if w.GetDepth() == 0 || len(n.targets) == 0 {
		return a, nil
	}
	if n.env.Workload.Anew {
		claims := &hop.Claims{Tenant: tc.Tenant(), TenantUID: tc.TenantUID(), Subject: tc.Subject(), Scopes: tc.Scopes()}
		if ctx, err = n.guard.OriginateAnew(ctx, claims); err != nil {
			return nil, err
		}
	}
	for _, c := range n.env.Workload.Calls {
		if !c.For(t) {
			continue
		}
		got, err := n.targets[c.To].do(ctx, n.targets[c.To].plain, shape, &meshv1.Work{Id: w.GetId(), TenantId: t, Depth: w.GetDepth() - 1})
		if err != nil {
			return nil, err
		}
		a.Visits = append(a.Visits, got.GetVisits()...)
	}
	return a, nil
}

// do makes a call, and returns its answers, which must be the same.
func (t *target) do(ctx context.Context, cc *grpc.ClientConn, shape Shape, w *meshv1.Work) (*meshv1.Answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	method := "/" + t.peer.Service + "/" + string(shape)
	switch shape {
	case Unary:
		out := new(meshv1.UnaryResponse)
		err := cc.Invoke(ctx, method, &meshv1.UnaryRequest{Work: w}, out)
		return out.GetAnswer(), err
	case ServerStream:
		return stream[meshv1.ServerStreamResponse](ctx, cc, method, shape, &meshv1.ServerStreamRequest{Work: w})
	case ClientStream:
		return stream[meshv1.ClientStreamResponse](ctx, cc, method, shape, &meshv1.ClientStreamRequest{Work: w})
	case Bidi:
		return stream[meshv1.BidiResponse](ctx, cc, method, shape, &meshv1.BidiRequest{Work: w})
	default:
		return nil, status.Errorf(codes.Internal, "no shape %q", shape)
	}
}

// description returns that of the shape's streams.
func (s Shape) description() *grpc.StreamDesc {
	return &grpc.StreamDesc{StreamName: string(s), ClientStreams: s == ClientStream || s == Bidi, ServerStreams: s == ServerStream || s == Bidi}
}

// stream makes a call of one of the streaming shapes.
func stream[T any, P interface {
	*T
	proto.Message
	GetAnswer() *meshv1.Answer
}](ctx context.Context, cc *grpc.ClientConn, method string, shape Shape, r proto.Message) (*meshv1.Answer, error) {
	desc := shape.description()
	s, err := cc.NewStream(ctx, desc, method)
	if err != nil {
		return nil, err
	}
	sends, wants := 1, 1
	if desc.ClientStreams {
		sends = messages
	}
	if desc.ServerStreams {
		wants = messages
	}
	for range sends {
		if err := s.SendMsg(r); err != nil && !errors.Is(err, io.EOF) { // then RecvMsg says why
			return nil, err
		}
	}
	if err := s.CloseSend(); err != nil {
		return nil, err
	}
	var first *meshv1.Answer
	got := 0
	for ; ; got++ {
		m := P(new(T))
		err := s.RecvMsg(m)
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if first == nil {
			first = m.GetAnswer()
		} else if !proto.Equal(first, m.GetAnswer()) {
			return nil, status.Error(codes.DataLoss, "a stream of different answers")
		}
		if !desc.ServerStreams {
			got++
			break
		}
	}
	if got != wants {
		return nil, status.Errorf(codes.DataLoss, "%d answers instead of %d", got, wants)
	}
	return first, nil
}

// Handled is the log of a workload's handlers.
type Handled struct {
	// Runs is how often one ran.
	Runs uint64
	// Last are the last thousand, as "id tenant caller".
	Last []string
}

const maxHandled = 1000

// handlerLog is a ring.
type handlerLog struct {
	mu   sync.Mutex
	runs uint64
	last [maxHandled][3]string
}

func (h *handlerLog) add(id string, tc tenant.Context) {
	caller := ""
	if path := tc.Path(); len(path) > 0 {
		caller = path[len(path)-1].Workload.String()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last[h.runs%maxHandled] = [3]string{id, tc.Tenant().String(), caller}
	h.runs++
}

func (h *handlerLog) get() Handled {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := Handled{Runs: h.runs}
	for i := h.runs - min(h.runs, maxHandled); i < h.runs; i++ {
		out.Last = append(out.Last, strings.Join(h.last[i%maxHandled][:], " "))
	}
	return out
}
