package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"

	"github.com/tenantmesh/tenantmesh/audit"
	"github.com/tenantmesh/tenantmesh/svid"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// Server is the process that is called: one server that checks nothing but
// mTLS, and one that checks what the variant says.
type Server struct{ key *ecdsa.PrivateKey }

// Addrs are the addresses of the two.
type Addrs struct{ Floor, Variant string }

// Setup starts both.
func (s *Server) Setup(setup Setup, out *Addrs) error {
	ctx := context.Background()
	var err error
	if s.key, err = parseKey(setup.TokenKey); err != nil {
		return err
	}
	src, err := setup.source(ctx, "target")
	if err != nil {
		return err
	}
	floor := grpc.NewServer(grpc.Creds(svid.NewServerCredentials(src)))
	register(floor, func(context.Context) error { return nil })
	if out.Floor, err = serve(floor); err != nil {
		return err
	}
	opts, handle, err := s.options(ctx, &setup, src)
	if err != nil {
		return err
	}
	srv := grpc.NewServer(opts...)
	register(srv, handle)
	out.Variant, err = serve(srv)
	return err
}

// options returns what the variant's server is made of, and a handler that
// reads the tenant as handlers do.
func (s *Server) options(ctx context.Context, setup *Setup, src *svid.Source) ([]grpc.ServerOption, handler, error) {
	var c check
	switch setup.Server {
	case "floor", "limit", "limit-signed":
		opts := []grpc.ServerOption{grpc.Creds(svid.NewServerCredentials(src))}
		switch setup.Server {
		case "limit":
			opts = append(opts, limitServer(nil)...)
		case "limit-signed":
			opts = append(opts, limitServer(&s.key.PublicKey)...)
		}
		return opts, func(context.Context) error { return nil }, nil
	case "guard", "guard-json":
		var sink audit.Sink = &counter{}
		if setup.Server == "guard-json" {
			var err error
			if sink, err = jsonSink(); err != nil {
				return nil, nil, err
			}
		}
		g, err := setup.guard(ctx, "target", sink, nil)
		if err != nil {
			return nil, nil, err
		}
		return g.ServerOptions(), func(ctx context.Context) error { _, err := tenant.Require(ctx); return err }, nil
	case "jwt":
		c = jwtCheck(s.key.Public(), 1)
	case "jwt-3":
		c = jwtCheck(s.key.Public(), 3)
	case "jwt-opa":
		var err error
		if c, err = opaCheck(ctx, jwtCheck(s.key.Public(), 1)); err != nil {
			return nil, nil, err
		}
	case "jwt-svid":
		var err error
		if c, err = spiffeCheck(s.key.Public()); err != nil {
			return nil, nil, err
		}
	default:
		return nil, nil, fmt.Errorf("no server %q", setup.Server)
	}
	opts := append(peerOptions(c), grpc.Creds(svid.NewServerCredentials(src)))
	return opts, func(ctx context.Context) error {
		if v, _ := ctx.Value(verifiedKey{}).(verified); v.tenant == "" {
			return errors.New("no tenant")
		}
		return nil
	}, nil
}

// serve serves on a port of its own and returns its address.
func serve(srv *grpc.Server) (string, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() { _ = srv.Serve(lis) }()
	return lis.Addr().String(), nil
}

// Sample says what the process has used so far, after a collection of garbage
// if that is asked for.
func (s *Server) Sample(garbage bool, out *Sample) (err error) {
	if garbage {
		collect()
	}
	*out, err = takeSample()
	return err
}

// Verify says how long one P-256 verification takes, tried for d.
func (s *Server) Verify(d time.Duration, out *time.Duration) error {
	digest := sha256.Sum256([]byte("a statement"))
	signature, err := ecdsa.SignASN1(rand.Reader, s.key, digest[:])
	if err != nil {
		return err
	}
	*out, err = pace(d, func() error {
		if !ecdsa.VerifyASN1(&s.key.PublicKey, digest[:], signature) {
			return errors.New("the signature does not verify")
		}
		return nil
	})
	return err
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T", key)
	}
	return ec, nil
}
