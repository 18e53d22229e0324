package devdomain

import (
	"context"
	"crypto/x509"
	"slices"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/svid"
)

// api is the SPIFFE Workload API of one workload. What is not here answers
// Unimplemented.
type api struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	w *Workload
}

func newAPI(w *Workload) *grpc.Server {
	s := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := checkHeader(ctx); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := checkHeader(stream.Context()); err != nil {
				return err
			}
			return next(srv, stream)
		}),
	)
	workload.RegisterSpiffeWorkloadAPIServer(s, &api{w: w})
	return s
}

// checkHeader asks for the metadata that keeps a browser or a confused proxy
// from calling (SPIFFE Workload Endpoint, section 5).
func checkHeader(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if !slices.Equal(md.Get("workload.spiffe.io"), []string{"true"}) {
		return status.Error(codes.InvalidArgument, "security header missing from request")
	}
	return nil
}

// FetchX509SVID streams the workload's SVID and bundles.
func (a *api) FetchX509SVID(_ *workload.X509SVIDRequest, stream workload.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	return a.follow(stream.Context(), func(snap *svid.Snapshot) error {
		certs, key, err := snap.SVID.MarshalRaw()
		if err != nil {
			return status.Errorf(codes.Internal, "marshal the SVID: %v", err)
		}
		own := a.w.d.td
		resp := &workload.X509SVIDResponse{FederatedBundles: map[string][]byte{}}
		for _, b := range snap.Bundles.Bundles() {
			if b.TrustDomain() == own {
				resp.Svids = []*workload.X509SVID{{
					SpiffeId: a.w.id.String(), X509Svid: certs, X509SvidKey: key, Bundle: der(b),
				}}
			} else {
				resp.FederatedBundles[b.TrustDomain().IDString()] = der(b)
			}
		}
		return stream.Send(resp)
	})
}

// FetchX509Bundles streams the bundles.
func (a *api) FetchX509Bundles(_ *workload.X509BundlesRequest, stream workload.SpiffeWorkloadAPI_FetchX509BundlesServer) error {
	return a.follow(stream.Context(), func(snap *svid.Snapshot) error {
		resp := &workload.X509BundlesResponse{Bundles: map[string][]byte{}}
		for _, b := range snap.Bundles.Bundles() {
			resp.Bundles[b.TrustDomain().IDString()] = der(b)
		}
		return stream.Send(resp)
	})
}

// follow sends the identity now and whenever it changes, until it is removed.
func (a *api) follow(ctx context.Context, send func(*svid.Snapshot) error) error {
	for {
		snap, changed := a.w.state()
		if snap == nil {
			// The text is SPIRE's, which people search for.
			return status.Error(codes.PermissionDenied, "no identity issued")
		}
		if err := send(snap); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// der returns the bundle's certificates, concatenated.
func der(b *x509bundle.Bundle) []byte {
	return slices.Concat(raws(b.X509Authorities())...)
}

func raws(certs []*x509.Certificate) [][]byte {
	out := make([][]byte, len(certs))
	for i, c := range certs {
		out[i] = c.Raw
	}
	return out
}
