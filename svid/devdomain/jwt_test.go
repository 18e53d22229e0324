package devdomain_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenantmesh/tenantmesh/svid/devdomain"
)

// client returns go-spiffe's client for a socket.
func client(t *testing.T, addr string) *workloadapi.Client {
	t.Helper()
	c, err := workloadapi.New(t.Context(), workloadapi.WithAddr(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func fetchJWT(t *testing.T, addr string, audience ...string) *jwtsvid.SVID {
	t.Helper()
	s, err := client(t, addr).FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: audience[0], ExtraAudiences: audience[1:]})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestJWT(t *testing.T) {
	d := newDomain(t, devdomain.Config{Dir: socketDir(t)})
	w := newWorkload(t, d, gatewayID)
	partner := newDomain(t, devdomain.Config{TrustDomain: "partner.example", Dir: socketDir(t)})
	namesake := newDomain(t, devdomain.Config{Dir: socketDir(t)})

	good := fetchJWT(t, w.Addr(), "inventory", "orders")
	if left := time.Until(good.Expiry); good.ID != w.ID() || left > 5*time.Minute || left < 4*time.Minute {
		t.Errorf("%s, for %s", good.ID, left)
	}
	token := good.Marshal()
	for _, tt := range []struct {
		name, token, audience, want string // no want: it is valid
	}{
		{"good", token, "inventory", ""},
		{"good for another audience", token, "orders", ""},
		{"T7 another audience", token, "gateway", "expected audience"},
		{"T7 no audience", token, "", "audience must be specified"},
		{"T1 another signature", token[:len(token)-8] + "AAAAAAAA", "inventory", "unable to get claims"},
		{"no token", "", "inventory", "svid must be specified"},
		{"I7 of a trust domain that is not federated", fetchJWT(t, newWorkload(t, partner, "spiffe://partner.example/a").Addr(), "inventory").Marshal(), "inventory", "no bundle found"},
		{"I7 of another trust domain of the same name", fetchJWT(t, newWorkload(t, namesake, gatewayID).Addr(), "inventory").Marshal(), "inventory", "no JWT authority"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := plain(t, w.Addr()).ValidateJWTSVID(withHeader(t), &workload.ValidateJWTSVIDRequest{Svid: tt.token, Audience: tt.audience})
			switch {
			case tt.want == "" && (err != nil || resp.GetSpiffeId() != gatewayID || resp.GetClaims().GetFields()["sub"].GetStringValue() != gatewayID):
				t.Errorf("%v, %v", resp, err)
			case tt.want != "" && (status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v does not say %q", err, tt.want)
			}
		})
	}
	t.Run("T6 expired", func(t *testing.T) {
		past := newDomain(t, devdomain.Config{Dir: socketDir(t), Clock: func() time.Time { return time.Now().Add(-time.Hour) }})
		api := plain(t, newWorkload(t, past, gatewayID).Addr())
		resp, err := api.FetchJWTSVID(withHeader(t), &workload.JWTSVIDRequest{Audience: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = api.ValidateJWTSVID(withHeader(t), &workload.ValidateJWTSVIDRequest{Svid: resp.GetSvids()[0].GetSvid(), Audience: "a"})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "token has expired") {
			t.Error(err)
		}
	})
	t.Run("requests that cannot be met", func(t *testing.T) {
		for want, req := range map[string]*workload.JWTSVIDRequest{
			"audience must be specified":  {},
			"invalid requested SPIFFE ID": {Audience: []string{"a"}, SpiffeId: "gateway"},
		} {
			if _, err := plain(t, w.Addr()).FetchJWTSVID(withHeader(t), req); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q", err, want)
			}
		}
		w := newWorkload(t, d, "spiffe://prod.example/removed")
		w.Remove()
		if _, err := plain(t, w.Addr()).FetchJWTSVID(withHeader(t), &workload.JWTSVIDRequest{Audience: []string{"a"}}); status.Code(err) != codes.PermissionDenied {
			t.Error(err)
		}
	})
	t.Run("I7 CVE-2021-27098: another's identity", func(t *testing.T) {
		other := newWorkload(t, d, inventoryID)
		_, err := client(t, w.Addr()).FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: "a", Subject: other.ID()})
		if status.Code(err) != codes.PermissionDenied {
			t.Error(err)
		}
	})
}

// TestJWTBundles: a verifier follows a federation.
func TestJWTBundles(t *testing.T) {
	d := newDomain(t, devdomain.Config{Dir: socketDir(t)})
	partner := newDomain(t, devdomain.Config{TrustDomain: "partner.example", Dir: socketDir(t), KeyType: devdomain.ECP384})
	foreign := fetchJWT(t, newWorkload(t, partner, "spiffe://partner.example/a").Addr(), "gateway")
	w := newWorkload(t, d, gatewayID)
	stream, err := plain(t, w.Addr()).FetchJWTBundles(withHeader(t), &workload.JWTBundlesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	follow := func(want ...string) {
		t.Helper()
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, td := range want {
			if len(resp.GetBundles()[td]) == 0 {
				t.Errorf("no bundle of %s", td)
			}
		}
		if len(resp.GetBundles()) != len(want) {
			t.Errorf("%d bundles", len(resp.GetBundles()))
		}
	}
	valid := func() bool {
		_, err := client(t, w.Addr()).ValidateJWTSVID(t.Context(), foreign.Marshal(), "gateway")
		return err == nil
	}
	follow("spiffe://prod.example")
	if valid() {
		t.Error("valid before the federation")
	}
	d.Federate(partner)
	follow("spiffe://prod.example", "spiffe://partner.example")
	if !valid() {
		t.Error("not valid in the federation")
	}
	// Whoever has no identity may verify tokens of the own trust domain only.
	removed := newWorkload(t, d, "spiffe://prod.example/removed")
	removed.Remove()
	if _, err := client(t, removed.Addr()).ValidateJWTSVID(t.Context(), fetchJWT(t, w.Addr(), "a").Marshal(), "a"); err != nil {
		t.Error(err)
	}
	if _, err := client(t, removed.Addr()).ValidateJWTSVID(t.Context(), foreign.Marshal(), "gateway"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("I7 without an identity: %v", err)
	}
	if err := w.Rotate(); err != nil { // nothing new for this stream
		t.Fatal(err)
	}
	d.Unfederate("partner.example")
	follow("spiffe://prod.example")
	if valid() {
		t.Error("valid after the federation")
	}

	src, err := workloadapi.NewJWTSource(t.Context(), workloadapi.WithClientOptions(workloadapi.WithAddr(w.Addr())))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	b, err := src.GetJWTBundleForTrustDomain(spiffeid.RequireTrustDomainFromString("prod.example"))
	if err != nil || !b.Equal(d.JWTBundle()) {
		t.Errorf("go-spiffe's source has another bundle: %v", err)
	}
	if _, err := src.FetchJWTSVID(context.Background(), jwtsvid.Params{Audience: "a"}); err != nil {
		t.Error(err)
	}
}
