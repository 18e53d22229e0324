package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"

	"github.com/tenantmesh/tenantmesh/hop"
)

// What any kit pays that binds something to each call by the means that gRPC has: a credential that sends a
// text, the check at header time, an interceptor at each end, and a value in each context. None of them does
// anything but, in limit-signed, the cryptography of one P-256 signature, by itself.

type limitKey struct{}

// withValue returns a copy of ctx that carries a value.
func withValue(ctx context.Context) context.Context {
	return context.WithValue(ctx, limitKey{}, "acme")
}

// texter is a credential that sends what it returns.
type texter func() (string, error)

func (t texter) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	text, err := t()
	return map[string]string{hop.HopsKey: text}, err
}

func (texter) RequireTransportSecurity() bool { return true }

// limit returns what sends the text that a limit is named for.
func (m minter) limit(name string) texter {
	const alphabet = "!#$&'()*+;<>?@[]^`{|}~" // none of which HPACK's Huffman code shortens, as of the kit's text
	long := make([]byte, 1<<16)
	for i := range long {
		long[i] = alphabet[rand.IntN(len(alphabet))] //nolint:gosec // any
	}
	all := string(long)
	var n atomic.Int64
	next := func() string {
		at := int(n.Add(1)) * 7 % (len(all) - freshText)
		return all[at : at+freshText]
	}
	switch name {
	case "limit-fresh":
		return func() (string, error) { return next(), nil }
	case "limit-signed":
		return func() (string, error) {
			text := next()[:freshText-100]
			digest := sha256.Sum256([]byte(text))
			signature, err := m.key.Sign(nil, digest[:], crypto.SHA256)
			return text + "." + base64.RawURLEncoding.EncodeToString(signature), err
		}
	}
	return func() (string, error) { return "=0", nil } // as a slot is named
}

// freshText is about what a hop takes that holds the claims and a path of three hashes.
const freshText = 560

func limitClient(text texter) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithPerRPCCredentials(text),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(withValue(ctx), method, req, reply, cc, opts...)
		}),
	}
}

// limitServer returns what takes the text, and verifies it with key if that is not nil.
func limitServer(key *ecdsa.PublicKey) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.InTapHandle(func(ctx context.Context, _ *tap.Info) (context.Context, error) { return withValue(ctx), nil }),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			if key != nil {
				values := metadata.ValueFromIncomingContext(ctx, hop.HopsKey)
				text, signed, _ := strings.Cut(values[0], ".")
				signature, err := base64.RawURLEncoding.DecodeString(signed)
				digest := sha256.Sum256([]byte(text))
				if err != nil || !ecdsa.VerifyASN1(key, digest[:], signature) {
					return nil, errors.New("not signed")
				}
			}
			return handle(ctx, req)
		}),
	}
}
