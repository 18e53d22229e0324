package devdomain

import (
	"context"
	"slices"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// api is the SPIFFE Workload API on one socket. What is not here answers
// Unimplemented, as SPIRE does.
type api struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	d      *Domain
	attest attest
}

func newAgentAPI(d *Domain) *api { return &api{d: d, attest: byUID} }

func newOwnAPI(w *Workload) *api { return &api{d: w.d, attest: itself(w)} }

// checkHeader asks for the metadata that keeps a browser or a confused proxy
// from calling (SPIFFE Workload Endpoint, section 5).
func checkHeader(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if !slices.Equal(md.Get("workload.spiffe.io"), []string{"true"}) {
		return status.Error(codes.InvalidArgument, "security header missing from request")
	}
	return nil
}

func checkUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := checkHeader(ctx); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func checkStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := checkHeader(stream.Context()); err != nil {
		return err
	}
	return next(srv, stream)
}

// view is what a caller may see, at one moment.
type view struct {
	svids   []*x509svid.SVID // by registration, one for each hint
	bundles *spiffebundle.Set
	changed <-chan struct{} // closed when there may be more to see
}

// view returns what the caller may see. A caller without an identity sees the
// bundles alone, and of those the own.
func (a *api) view(ctx context.Context) (*view, error) {
	fits, err := a.attest(ctx)
	if err != nil {
		return nil, err
	}
	d := a.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault != codes.OK {
		return nil, status.Error(d.fault, "a fault on request")
	}
	v := &view{bundles: spiffebundle.NewSet(d.published()), changed: d.changed}
	hints := map[string]bool{"": false}
	var is []*Workload
	for _, w := range d.workloads {
		if w.svid == nil || !fits(w) || hints[w.hint] {
			continue
		}
		hints[w.hint] = w.hint != ""
		is = append(is, w)
		v.svids = append(v.svids, w.svid)
	}
	v.bundles = d.bundles(is...)
	return v, nil
}

// identity is [api.view] for a caller who must have one.
func (a *api) identity(ctx context.Context) (*view, error) {
	v, err := a.view(ctx)
	if err == nil && len(v.svids) == 0 {
		err = errNoIdentity
	}
	return v, err
}

// The text is SPIRE's, which people search for.
var errNoIdentity = status.Error(codes.PermissionDenied, "no identity issued")

// follow sends what compose makes of the caller's view, now and whenever it is
// another, until the caller has no identity.
func follow[T any, P interface {
	*T
	proto.Message
}](a *api, stream grpc.ServerStreamingServer[T], compose func(*view) (P, error)) error {
	ctx := stream.Context()
	var last P
	for {
		v, err := a.identity(ctx)
		if err != nil {
			return err
		}
		next, err := compose(v)
		if err != nil {
			return status.Errorf(codes.Internal, "compose the answer: %v", err)
		}
		if last == nil || !proto.Equal(last, next) {
			if err := stream.Send(next); err != nil {
				return err
			}
			last = next
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// FetchX509SVID streams the caller's SVIDs and bundles.
func (a *api) FetchX509SVID(_ *workload.X509SVIDRequest, stream workload.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	return follow(a, stream, func(v *view) (*workload.X509SVIDResponse, error) {
		resp := &workload.X509SVIDResponse{FederatedBundles: map[string][]byte{}}
		var own []byte
		for _, b := range v.bundles.Bundles() {
			if b.TrustDomain() == a.d.td {
				own = der(b)
			} else {
				resp.FederatedBundles[b.TrustDomain().IDString()] = der(b)
			}
		}
		for _, s := range v.svids {
			certs, key, err := s.MarshalRaw()
			if err != nil {
				return nil, err
			}
			resp.Svids = append(resp.Svids, &workload.X509SVID{
				SpiffeId: s.ID.String(), X509Svid: certs, X509SvidKey: key, Bundle: own, Hint: s.Hint,
			})
		}
		return resp, nil
	})
}

// FetchX509Bundles streams the bundles.
func (a *api) FetchX509Bundles(_ *workload.X509BundlesRequest, stream workload.SpiffeWorkloadAPI_FetchX509BundlesServer) error {
	return follow(a, stream, func(v *view) (*workload.X509BundlesResponse, error) {
		resp := &workload.X509BundlesResponse{Bundles: map[string][]byte{}}
		for _, b := range v.bundles.Bundles() {
			resp.Bundles[b.TrustDomain().IDString()] = der(b)
		}
		return resp, nil
	})
}

// FetchJWTBundles streams the bundles that verify JWT-SVIDs.
func (a *api) FetchJWTBundles(_ *workload.JWTBundlesRequest, stream workload.SpiffeWorkloadAPI_FetchJWTBundlesServer) error {
	return follow(a, stream, func(v *view) (*workload.JWTBundlesResponse, error) {
		resp := &workload.JWTBundlesResponse{Bundles: map[string][]byte{}}
		for _, b := range v.bundles.Bundles() {
			doc, err := b.JWTBundle().Marshal()
			if err != nil {
				return nil, err
			}
			resp.Bundles[b.TrustDomain().IDString()] = doc
		}
		return resp, nil
	})
}

// FetchJWTSVID issues a JWT-SVID for each of the caller's identities, or for
// the one that it names.
func (a *api) FetchJWTSVID(ctx context.Context, req *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	if len(req.GetAudience()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "audience must be specified")
	}
	var only spiffeid.ID
	if req.GetSpiffeId() != "" {
		var err error
		if only, err = spiffeid.FromString(req.GetSpiffeId()); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "invalid requested SPIFFE ID: %v", err)
		}
	}
	v, err := a.view(ctx)
	if err != nil {
		return nil, err
	}
	resp := &workload.JWTSVIDResponse{}
	for _, s := range v.svids {
		if !only.IsZero() && s.ID != only {
			continue
		}
		token, err := a.d.jwt.issue(s.ID, req.GetAudience(), a.d.cfg.Clock())
		if err != nil {
			return nil, status.Errorf(codes.Internal, "sign a JWT-SVID: %v", err)
		}
		resp.Svids = append(resp.Svids, &workload.JWTSVID{SpiffeId: s.ID.String(), Svid: token, Hint: s.Hint})
	}
	if len(resp.GetSvids()) == 0 {
		return nil, errNoIdentity
	}
	return resp, nil
}

// ValidateJWTSVID validates a JWT-SVID of a trust domain that the caller has
// the bundle of.
func (a *api) ValidateJWTSVID(ctx context.Context, req *workload.ValidateJWTSVIDRequest) (*workload.ValidateJWTSVIDResponse, error) {
	switch {
	case req.GetAudience() == "":
		return nil, status.Error(codes.InvalidArgument, "audience must be specified")
	case req.GetSvid() == "":
		return nil, status.Error(codes.InvalidArgument, "svid must be specified")
	}
	v, err := a.view(ctx)
	if err != nil {
		return nil, err
	}
	id, claims, err := validate(req.GetSvid(), v.bundles, req.GetAudience())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &workload.ValidateJWTSVIDResponse{SpiffeId: id.String(), Claims: claims}, nil
}

// der returns the bundle's certificates, concatenated.
func der(b *spiffebundle.Bundle) []byte {
	var all []byte
	for _, c := range b.X509Authorities() {
		all = append(all, c.Raw...)
	}
	return all
}
