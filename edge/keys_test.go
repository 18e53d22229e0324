package edge_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantmesh/tenantmesh/edge"
	"github.com/tenantmesh/tenantmesh/internal/attacktest"
	"github.com/tenantmesh/tenantmesh/tenant"
)

var limits = edge.KeyLimits{
	RefreshInterval: time.Minute, RefreshAfter: 10 * time.Minute, MaxKeyAge: time.Hour, MaxDocument: 32 << 10, MaxKeys: 8,
}

// oneIssuer returns a world with one issuer that has published k1. Its tokens live a day.
func oneIssuer(t *testing.T) (*world, *issuer, string) {
	is := newIssuer(t, jwk("k1", "RS256", rsaKeys[0]().Public()))
	w := newWorld(t, edge.Config{Issuers: []edge.Issuer{{URL: is.URL, Audience: audience}}, Keys: limits})
	return w, is, is.Good(claims{"exp": start.Add(24 * time.Hour).Unix()})
}

func TestKeysAreNotFetchedPerRequest(t *testing.T) {
	t.Run("T10 never fetched per request", func(t *testing.T) {
		w, is, token := oneIssuer(t)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := w.v.Verify(context.Background(), token); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		w.clock.Add(limits.RefreshAfter - 1)
		w.wantAccepted(t, token)
		if n := is.Fetches.Load(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
		w.clock.Add(1)
		w.wantAccepted(t, token)
		w.v.WaitFetches()
		if n := is.Fetches.Load(); n != 2 {
			t.Errorf("%d fetches after RefreshAfter, want 2", n)
		}
	})
	t.Run("T2 bounded refetch", func(t *testing.T) {
		w, is, token := oneIssuer(t)
		w.wantAccepted(t, token)
		rotated := is.Token(jose.ES256, "k2", attacktest.ECKey(), nil)
		is.Publish(jwk("k1", "RS256", rsaKeys[0]().Public()), jwk("k2", "ES256", attacktest.ECKey().Public()))
		for i := range 50 {
			w.wantReason(t, is.Headed(claims{"kid": fmt.Sprint("x", i)}), tenant.TokenKeyUnknown)
		}
		w.wantReason(t, rotated, tenant.TokenKeyUnknown)
		if n := is.Fetches.Load(); n != 1 {
			t.Errorf("%d fetches within the interval, want 1", n)
		}
		w.clock.Add(limits.RefreshInterval)
		w.wantAccepted(t, rotated)
		w.wantReason(t, is.Headed(claims{"kid": "x"}), tenant.TokenKeyUnknown)
		if n := is.Fetches.Load(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
	})
	t.Run("T10 a token that is malformed causes no fetch", func(t *testing.T) {
		w, is, _ := oneIssuer(t)
		w.wantReason(t, is.Headed(claims{"alg": "none"}), tenant.TokenAlgorithm)
		w.wantReason(t, is.Headed(claims{"kid": nil}), tenant.TokenKeyUnknown)
		w.wantReason(t, is.Headed(claims{"jku": "x"}), tenant.TokenHeader)
		if n := is.Fetches.Load(); n != 0 {
			t.Errorf("%d fetches, want 0", n)
		}
	})
}

func TestWithdrawnKey(t *testing.T) {
	w, is, token := oneIssuer(t)
	w.wantAccepted(t, token)
	is.Publish()
	w.clock.Add(limits.RefreshAfter)
	w.wantReason(t, token, tenant.TokenKeyUnknown) // by the very request that finds the keys due
}

// A clock that was set back does not make old keys fresh.
func TestClockSetBack(t *testing.T) {
	w, is, token := oneIssuer(t)
	w.wantAccepted(t, token)
	is.Publish()
	w.clock.Add(-time.Second)
	w.wantReason(t, token, tenant.TokenKeyUnknown)
}

func TestKeysEndpointFails(t *testing.T) {
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(s)) }
	}
	elsewhere := httptest.NewServer(text(`{"keys":[]}`))
	defer elsewhere.Close()
	nine := make([]any, 9)
	for i := range nine {
		nine[i] = jwk(fmt.Sprint("k", i), "RS256", rsaKeys[0]().Public())
	}
	for name, answer := range map[string]http.HandlerFunc{
		"T10 down":  func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"T10 error": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) },
		"T10 error with keys": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			w.Write([]byte(`{"keys":[]}`))
		},
		"T10 not found": http.NotFound,
		"T10 huge": func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte(`{"keys":[],"x":"` + strings.Repeat("x", 64<<10) + `"}`))
		},
		"T10 huge, of spaces": func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte(`{"keys":[]}` + strings.Repeat(" ", 64<<10)))
		},
		"T10 endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				w.Write(make([]byte, 1<<10))
			}
		},
		"T10 garbage":   text("<html>"),
		"T10 empty":     text(""),
		"T10 truncated": text(`{"keys":[`),
		"T10 cut short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte(`{"keys":[]}`))
		},
		"T10 no keys member": text(`{}`),
		"T10 keys null":      text(`{"keys":null}`),
		"T10 keys twice":     text(`{"keys":[],"keys":[]}`),
		"T10 Keys":           text(`{"Keys":[]}`),
		"T10 deep":           text(`{"keys":` + strings.Repeat("[", 20<<10)),
		"T10 too many keys":  text(string(marshal(map[string]any{"keys": nine}))),
		"T10 redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, is, token := oneIssuer(t)
			good := is.Answers()
			w.wantAccepted(t, token)
			is.Answer(answer)
			for age := limits.RefreshAfter; age < limits.MaxKeyAge; age += 10 * time.Minute {
				w.clock.Set(start.Add(age))
				w.wantAccepted(t, token)
				w.v.WaitFetches()
			}
			w.clock.Set(start.Add(limits.MaxKeyAge - 1))
			w.wantAccepted(t, token)
			w.v.WaitFetches()
			w.clock.Set(start.Add(limits.MaxKeyAge))
			w.wantReason(t, token, tenant.KeysUnavailable)
			before := is.Fetches.Load()
			w.wantReason(t, token, tenant.KeysUnavailable)
			if is.Fetches.Load() != before {
				t.Error("fetched again within the interval")
			}
			is.Answer(good)
			w.clock.Add(limits.RefreshInterval)
			w.wantAccepted(t, token)
			noLeak(t, token, w.log.String())
		})
	}
}

func TestKeysEndpointSlow(t *testing.T) {
	_, is, token := oneIssuer(t)
	patient := limits
	patient.Timeout = time.Hour // so that who waits for the fetch hangs
	w := newWorld(t, edge.Config{Issuers: []edge.Issuer{{URL: is.URL, Audience: audience}}, Keys: patient, Client: new(http.Client)})
	w.wantAccepted(t, token)
	is.Answer(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	w.clock.Add(limits.RefreshAfter)
	w.wantAccepted(t, token) // the issuer is now known to fail
	entered := make(chan struct{}, 1)
	is.Answer(func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
	})
	t.Run("T10 slow: last good keys, without waiting", func(t *testing.T) {
		w.clock.Add(limits.RefreshInterval)
		w.wantAccepted(t, token)
		<-entered
		w.wantAccepted(t, token) // while the fetch hangs
	})
	t.Run("T10 slow: a caller who gives up, without keys", func(t *testing.T) {
		w.clock.Set(start.Add(limits.MaxKeyAge))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.v.Verify(ctx, token); tenant.ReasonOf(err) != tenant.KeysUnavailable {
			t.Errorf("Verify = %v", err)
		}
	})
	t.Run("Close ends the fetch", func(t *testing.T) {
		w.v.Close() // returns only when the fetch has ended
		w.wantReason(t, token, tenant.KeysUnavailable)
	})
}

func TestKeysOneFetchAtATime(t *testing.T) {
	w, is, token := oneIssuer(t)
	good := is.Answers()
	entered, release := make(chan struct{}, 2), make(chan struct{})
	is.Answer(func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-release
		good(w, r)
	})
	first := make(chan error, 1)
	go func() {
		_, err := w.v.Verify(t.Context(), token)
		first <- err
	}()
	<-entered
	w.clock.Add(limits.RefreshInterval)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.v.Verify(gone, token); tenant.ReasonOf(err) != tenant.KeysUnavailable {
		t.Errorf("who does not wait for the fetch gets %v", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Errorf("who waits for the fetch gets %v", err)
	}
	w.v.WaitFetches()
	if n := is.Fetches.Load(); n != 1 {
		t.Errorf("T10: %d fetches, want 1", n)
	}
}

func TestKeysTimeout(t *testing.T) {
	_, is, token := oneIssuer(t)
	short := limits
	short.Timeout = time.Millisecond
	w := newWorld(t, edge.Config{Issuers: []edge.Issuer{{URL: is.URL, Audience: audience}}, Keys: short, Client: new(http.Client)})
	is.Answer(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := w.v.Verify(ctx, token); tenant.ReasonOf(err) != tenant.KeysUnavailable || ctx.Err() != nil {
		t.Errorf("Verify = %v, %v", err, ctx.Err())
	}
}

func TestKeysRedirected(t *testing.T) {
	_, is, token := oneIssuer(t)
	keys := is.Answers()
	for n, want := range map[int]tenant.Reason{1: "", 3: "", 4: tenant.KeysUnavailable} {
		t.Run(fmt.Sprintf("T10 redirected %d times", n), func(t *testing.T) {
			w := newWorld(t, edge.Config{Issuers: []edge.Issuer{{URL: is.URL, Audience: audience}}})
			left := n
			is.Answer(func(w http.ResponseWriter, r *http.Request) {
				if left--; left >= 0 {
					http.Redirect(w, r, is.URL+"/jwks", http.StatusFound)
					return
				}
				keys(w, r)
			})
			if _, err := w.v.Verify(t.Context(), token); tenant.ReasonOf(err) != want {
				t.Errorf("Verify = %v, want %q", err, want)
			}
		})
	}
	t.Run("T10 redirected to another scheme", func(t *testing.T) {
		target := "https" + strings.TrimPrefix(is.URL, "http") + "/jwks"
		w := newWorld(t, edge.Config{
			Issuers: []edge.Issuer{{URL: is.URL, Audience: audience}},
			Client:  &http.Client{Transport: redirecting{keys, target}},
		})
		w.wantReason(t, token, tenant.KeysUnavailable)
	})
}

// redirecting answers the JWK Set at one URL, and redirects to it from others.
type redirecting struct {
	keys   http.HandlerFunc
	target string
}

func (d redirecting) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	switch {
	case r.URL.String() == d.target:
		d.keys(rec, r)
	case strings.HasPrefix(r.URL.Path, "/.well-known/"):
		base := "http://" + r.URL.Host
		rec.Write(marshal(map[string]any{"issuer": base, "jwks_uri": base + "/jwks"}))
	default:
		http.Redirect(rec, r, d.target, http.StatusFound)
	}
	return rec.Result(), nil
}

// Of a document that never ends, no more is read than it may have.
func TestKeysEndless(t *testing.T) {
	_, is, token := oneIssuer(t)
	body := new(endless)
	w := newWorld(t, edge.Config{
		Issuers: []edge.Issuer{{URL: is.URL, JWKSURL: is.URL + "/jwks", Audience: audience}}, Keys: limits,
		Client: &http.Client{Transport: body},
	})
	w.wantReason(t, token, tenant.KeysUnavailable)
	if body.n > limits.MaxDocument+1<<10 {
		t.Errorf("T10: %d bytes were read, more than %d", body.n, limits.MaxDocument)
	}
}

// endless answers with spaces, for longer than any test wants to wait.
type endless struct{ n int64 }

func (e *endless) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Body: io.NopCloser(e)}, nil
}

func (e *endless) Read(p []byte) (int, error) {
	if e.n > 16<<20 {
		return 0, io.EOF
	}
	p = p[:min(len(p), 1<<10)]
	for i := range p {
		p[i] = ' '
	}
	e.n += int64(len(p))
	return len(p), nil
}

func TestDiscovery(t *testing.T) {
	for name, change := range map[string]func(m map[string]any){
		"another issuer":         func(m map[string]any) { m["issuer"] = "https://evil.example" },
		"issuer with a slash":    func(m map[string]any) { m["issuer"] = m["issuer"].(string) + "/" },
		"no issuer":              func(m map[string]any) { delete(m, "issuer") },
		"no jwks_uri":            func(m map[string]any) { delete(m, "jwks_uri") },
		"jwks_uri without TLS":   func(m map[string]any) { m["jwks_uri"] = "http://192.0.2.1/jwks" },
		"jwks_uri of a file":     func(m map[string]any) { m["jwks_uri"] = "file:///etc/passwd" },
		"ISSUER beside issuer":   func(m map[string]any) { m["ISSUER"] = m["issuer"] },
		"jwks_uri not a string":  func(m map[string]any) { m["jwks_uri"] = 1 },
		"jwks_uri with password": func(m map[string]any) { m["jwks_uri"] = "https://u:p@login.example/" },
	} {
		t.Run(name, func(t *testing.T) {
			is := newIssuer(t)
			url := "https://login.example"
			m := map[string]any{"issuer": url, "jwks_uri": url + "/jwks"}
			keys := map[string]any{"keys": []any{jwk("k1", "RS256", rsaKeys[0]().Public())}}
			cfg := edge.Config{
				Issuers: []edge.Issuer{{URL: url, Audience: audience}},
				Client:  &http.Client{Transport: anywhere{m, keys}},
			}
			token := is.Good(claims{"iss": url})
			newWorld(t, cfg).wantAccepted(t, token)
			change(m)
			newWorld(t, cfg).wantReason(t, token, tenant.KeysUnavailable)
		})
	}
}

// anywhere answers at every URL: discovery documents where these are, and keys
// elsewhere.
type anywhere struct{ discovery, keys map[string]any }

func (a anywhere) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	if strings.HasPrefix(r.URL.Path, "/.well-known/") {
		rec.Write(marshal(a.discovery))
	} else {
		rec.Write(marshal(a.keys))
	}
	return rec.Result(), nil
}
