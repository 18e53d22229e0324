package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/interceptors"
	"github.com/tenantmesh/tenantmesh/policy"
	"github.com/tenantmesh/tenantmesh/svid"
)

// options are the flags that roles have in common.
type options struct {
	*flag.FlagSet
	listen string
	policy string
	maxAge time.Duration
	pipe   bool
}

func newOptions(role string) *options {
	o := &options{FlagSet: flag.NewFlagSet("quickstart "+role, flag.ContinueOnError)}
	o.StringVar(&o.listen, "listen", "127.0.0.1:0", "the `address` to listen on")
	o.BoolVar(&o.pipe, "until-stdin-closes", false, "exit when stdin ends, as it does when whoever started this dies")
	return o
}

// forWorkload adds what those need that have an identity.
func (o *options) forWorkload() *options {
	o.StringVar(&o.policy, "policy", "tenantmesh.yaml", "the policy `file`")
	o.DurationVar(&o.maxAge, "max-connection-age", 0, "how long connections live; 0: a sixth of the SVID's life")
	return o
}

// parse parses the flags and returns a context that ends with stdin, if it is to.
// Lines of stdin that are commands are answered by do.
func (o *options) parse(ctx context.Context, args []string, do func(context.Context, []string) (string, error)) (context.Context, error) {
	if err := o.Parse(args); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			if do == nil || strings.TrimSpace(in.Text()) == "" {
				continue
			}
			answer, err := do(ctx, strings.Fields(in.Text()))
			if err != nil {
				answer = "error: " + err.Error()
			}
			fmt.Println("answer", strings.ReplaceAll(answer, "\n", " "))
		}
		if o.pipe {
			cancel()
		}
	}()
	return ctx, nil
}

// workload is what every process of the mesh needs: its identity and its guard.
type workload struct {
	policy *policy.Watcher
	source *svid.Source
	guard  *interceptors.Guard
	audit  audit.Sink
}

// open gets the identity from SPIFFE_ENDPOINT_SOCKET, and the policy, which it
// watches from then on.
func (o *options) open(ctx context.Context) (*workload, error) {
	pol, err := policy.WatchFile(ctx, o.policy)
	if err != nil {
		return nil, err
	}
	source, err := svid.NewSource(ctx)
	if err != nil {
		return nil, errors.Join(err, pol.Close())
	}
	sink := audit.NewSlog(slog.NewJSONHandler(os.Stdout, nil))
	guard, err := interceptors.New(interceptors.Config{
		Source:           source,
		Policy:           pol,
		Audit:            sink,
		MaxConnectionAge: o.maxAge,
	})
	if err != nil {
		return nil, errors.Join(err, source.Close(), pol.Close())
	}
	return &workload{pol, source, guard, sink}, nil
}

func (w *workload) Close() error {
	return errors.Join(w.guard.Close(), w.source.Close(), w.policy.Close())
}

// serverOptions puts go-grpc-middleware's recovery and logging around the
// guard. Whatever validates requests would come behind it.
func (w *workload) serverOptions() []grpc.ServerOption {
	log := logging.LoggerFunc(func(ctx context.Context, level logging.Level, msg string, fields ...any) {
		slog.Log(ctx, slog.Level(level), msg, fields...)
	})
	opts := []logging.Option{logging.WithLogOnEvents(logging.FinishCall), logging.WithFieldsFromContext(peerSerial)}
	return append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(logging.UnaryServerInterceptor(log, opts...), recovery.UnaryServerInterceptor()),
		grpc.ChainStreamInterceptor(logging.StreamServerInterceptor(log, opts...), recovery.StreamServerInterceptor()),
	}, w.guard.ServerOptions()...)
}

// peerSerial adds the serial number of the caller's SVID to the log, so that a
// rotation shows. The guard adds the tenant.
func peerSerial(ctx context.Context) logging.Fields {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			return logging.Fields{"peer.serial", info.State.PeerCertificates[0].SerialNumber.Text(16)}
		}
	}
	return nil
}

// serve serves until ctx ends.
func (o *options) serve(ctx context.Context, srv *grpc.Server) error {
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() {
		// A stream may not end by itself.
		hard := time.AfterFunc(500*time.Millisecond, srv.Stop)
		defer hard.Stop()
		srv.GracefulStop()
	})()
	ready(lis.Addr().String())
	return srv.Serve(lis)
}

// ready tells whoever started this process that it can be called, and where.
func ready(addr string) { _, _ = io.WriteString(os.Stdout, "ready "+addr+"\n") }
