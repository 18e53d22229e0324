package svid_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// mesh is two workloads with an identity each from a Workload API, of which one
// calls the other.
type mesh struct {
	domain             *devdomain.Domain
	gateway, inventory *devdomain.Workload
	client, server     *svid.Source
	log                *journal // of the sources
	memory             *memory
	addr               string
	conn               *grpc.ClientConn
	pb                 grpc_testing.TestServiceClient
}

// newMesh starts a mesh on real sockets, or in a synctest bubble on mem.
func newMesh(t *testing.T, mem *memory, cfg devdomain.Config, opts ...grpc.ServerOption) *mesh {
	t.Helper()
	m := &mesh{log: &journal{}, memory: mem, addr: "127.0.0.1:0"}
	if mem != nil {
		cfg.Dir, cfg.Listen = "/memory", mem.listen
	} else {
		cfg.Dir = socketDir(t)
	}
	m.domain = newDomain(t, cfg)
	m.gateway, m.inventory = newWorkload(t, m.domain, gatewayID), newWorkload(t, m.domain, inventoryID)
	m.client, m.server = m.source(t, m.gateway), m.source(t, m.inventory)

	creds := svid.NewServerCredentials(m.server)
	srv := grpc.NewServer(append(checkCalls(creds), opts...)...)
	grpc_testing.RegisterTestServiceServer(srv, echo{})
	l, err := mem.listenServer(&m.addr)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); srv.Serve(l) }()
	t.Cleanup(func() { srv.Stop(); <-served })
	m.conn = m.dial(t)
	m.pb = grpc_testing.NewTestServiceClient(m.conn)
	return m
}

// source returns a Source for the workload that logs to m.log.
func (m *mesh) source(t *testing.T, w *devdomain.Workload) *svid.Source {
	t.Helper()
	opts := []svid.Option{svid.WithSocket(w.Addr()), svid.WithLogger(slog.New(m.log))}
	if m.memory != nil {
		opts = append(opts, svid.WithDialer(m.memory.dial))
	}
	s, err := svid.NewSource(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// dial returns a new connection to the server.
func (m *mesh) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	opts := []grpc.DialOption{grpc.WithTransportCredentials(svid.NewClientCredentials(m.client, svid.Expect(inventoryID)))}
	if m.memory != nil {
		opts = append(opts, grpc.WithContextDialer(m.memory.dial))
	}
	conn, err := grpc.NewClient("passthrough:"+m.addr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// call makes a call that does not wait for the server.
func (m *mesh) call(t *testing.T) error {
	t.Helper()
	_, err := m.pb.EmptyCall(t.Context(), &grpc_testing.Empty{})
	return err
}

// chat opens a stream and returns what sends a message and waits for the answer.
func (m *mesh) chat(ctx context.Context) (say func() error, err error) {
	s, err := m.pb.FullDuplexCall(ctx)
	if err != nil {
		return nil, err
	}
	return func() error {
		if err := s.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		_, err := s.Recv()
		return err
	}, nil
}

// echo answers every message.
type echo struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (echo) EmptyCall(context.Context, *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return &grpc_testing.Empty{}, nil
}

func (echo) FullDuplexCall(s grpc_testing.TestService_FullDuplexCallServer) error {
	for {
		if _, err := s.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.Send(&grpc_testing.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

// checkCalls are server options that check the connection at each call and at
// each message that comes.
func checkCalls(creds *svid.Credentials) []grpc.ServerOption {
	check := func(ctx context.Context) error {
		p, _ := peer.FromContext(ctx)
		c, ok := creds.Conn(p.AuthInfo)
		if !ok {
			return errors.New("the connection is not known")
		}
		return c.Check()
	}
	return []grpc.ServerOption{
		grpc.Creds(creds),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := check(ctx); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return next(srv, checked{ss, check})
		}),
	}
}

type checked struct {
	grpc.ServerStream
	check func(context.Context) error
}

func (c checked) RecvMsg(m any) error {
	if err := c.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return c.check(c.Context())
}

// memory is a network in memory. A nil one stands for the real one.
type memory struct {
	mu   sync.Mutex
	open map[string]*bufconn.Listener // by the last part of the address
}

func (m *memory) listen(addr string) (net.Listener, error) {
	l := bufconn.Listen(1 << 16)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open[path.Base(addr)] = l
	return l, nil
}

func (m *memory) dial(ctx context.Context, addr string) (net.Conn, error) {
	m.mu.Lock()
	l := m.open[path.Base(addr)]
	m.mu.Unlock()
	if l == nil {
		return nil, net.ErrClosed
	}
	return l.DialContext(ctx)
}

// listenServer opens a listener and puts its address into addr.
func (m *memory) listenServer(addr *string) (net.Listener, error) {
	if m != nil {
		return m.listen(*addr)
	}
	l, err := net.Listen("tcp", *addr)
	if err == nil {
		*addr = l.Addr().String()
	}
	return l, err
}

// journal is a log that remembers.
type journal struct {
	mu      sync.Mutex
	records []slog.Record
}

func (*journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler     { return j }
func (j *journal) WithGroup(string) slog.Handler          { return j }

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records = append(j.records, r)
	return nil
}

// times returns when messages of this text about this workload were logged.
func (j *journal) times(level slog.Level, text, id string) []time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	var times []time.Time
	for _, r := range j.records {
		var about []string
		r.Attrs(func(a slog.Attr) bool { about = append(about, a.Value.String()); return true })
		if r.Level == level && r.Message == text && slices.Contains(about, id) {
			times = append(times, r.Time)
		}
	}
	return times
}
