package interceptors_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tenantmesh/tenantmesh/hop"
	"github.com/tenantmesh/tenantmesh/tenant"
)

// rawClient speaks HTTP/2 frame by frame over mTLS, with a valid SVID, so that
// it may send what no gRPC library would.
type rawClient struct {
	t       *testing.T
	conn    *tls.Conn
	framer  *http2.Framer
	headers bytes.Buffer
	encoder *hpack.Encoder
	stream  uint32
}

func (m *mesh) raw(own *x509svid.SVID) *rawClient {
	m.t.Helper()
	cert := tls.Certificate{PrivateKey: own.PrivateKey}
	for _, c := range own.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	conn, err := tls.Dial("tcp", m.addr, &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		InsecureSkipVerify: true, // the attacker does not care whom it attacks
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	c := &rawClient{t: m.t, conn: conn, framer: http2.NewFramer(conn, conn), stream: 1}
	c.encoder = hpack.NewEncoder(&c.headers)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		m.t.Fatal(err)
	}
	if err := c.framer.WriteSettings(); err != nil {
		m.t.Fatal(err)
	}
	return c
}

// call sends a unary call with an empty message and returns the response's
// headers and trailers, or how the stream or the connection ended.
func (c *rawClient) call(path string, extra ...string) (map[string]string, error) {
	c.t.Helper()
	c.headers.Reset()
	fields := []string{":method", "POST", ":scheme", "https", ":path", path, ":authority", "target", "content-type", "application/grpc", "te", "trailers"}
	for i := 0; i < len(fields)+len(extra); i += 2 {
		f := slices.Concat(fields, extra)[i:]
		if err := c.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			c.t.Fatal(err)
		}
	}
	id := c.stream
	c.stream += 2
	block := c.headers.Bytes()
	first := block[:min(len(block), 16<<10)]
	rest := block[len(first):]
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndHeaders: len(rest) == 0}); err != nil {
		return nil, err
	}
	for len(rest) > 0 {
		part := rest[:min(len(rest), 16<<10)]
		rest = rest[len(part):]
		if err := c.framer.WriteContinuation(id, len(rest) == 0, part); err != nil {
			return nil, err
		}
	}
	message := binary.BigEndian.AppendUint32([]byte{0}, 0)
	if err := c.framer.WriteData(id, true, message); err != nil {
		return nil, err
	}
	got := map[string]string{}
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return got, err
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			if f.StreamID != id {
				continue
			}
			for _, h := range f.Fields {
				got[h.Name] = h.Value
			}
			if f.StreamEnded() {
				return got, nil
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return got, errors.New(f.ErrCode.String())
			}
		case *http2.GoAwayFrame:
			return got, errors.New(f.ErrCode.String())
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if err := c.framer.WriteSettingsAck(); err != nil {
					return got, err
				}
			}
		}
	}
}

// TestRawPaths: M4, paths that no gRPC client sends never reach a handler.
func TestRawPaths(t *testing.T) {
	m := newMesh(t)
	own := m.issue("gateway")
	for _, shape := range shapes {
		service, method, _ := strings.Cut(shape.method[1:], "/")
		for name, path := range map[string]string{
			"no slash": service + "/" + method, "two slashes": "//" + service + "/" + method, "two slashes inside": "/" + service + "//" + method,
			"percent 2F": "/" + service + "%2F" + method, "percent 2f before": "%2f" + service + "/" + method,
			"fragment": shape.method + "#x", "query": shape.method + "?x=1", "trailing slash": shape.method + "/",
			"dots": "/x/../" + service + "/" + method, "upper case": strings.ToUpper(shape.method), "empty": "", "a slash": "/",
			"a space": shape.method + " ", "a NUL escape": shape.method + "%00", "an authority": "https://target" + shape.method,
		} {
			t.Run("M4 "+name+"/"+shape.name, func(t *testing.T) {
				m := *m
				m.t = t
				got, err := m.raw(own).call(path)
				if err == nil && (got["grpc-status"] == "" || got["grpc-status"] == "0") {
					t.Errorf("the server answers %q", got)
				}
				if runs := m.ran.take(); len(runs) != 0 {
					t.Errorf("the handler ran for %q", runs)
				}
				for _, e := range m.audit.take() {
					if e.Allowed || e.Reason != tenant.MethodNotCovered {
						t.Errorf("audit: %+v", e)
					}
				}
			})
		}
	}
}

// TestRawMetadata: M1 and H8, what only a raw client sends in metadata.
func TestRawMetadata(t *testing.T) {
	m := newMesh(t)
	own := m.issue("gateway")
	path := shapes[0].method
	wide := strings.Repeat("A", hop.MaxMetadata)
	rows := []struct {
		name   string
		extra  []string
		reason tenant.Reason // empty where HTTP/2 itself refuses
	}{
		{"M1 the key in upper case", []string{"Tenantmesh-Hops", "AAAA"}, ""},
		{"M1 two equal values", []string{hop.HopsKey, "AAAA", hop.HopsKey, "AAAA"}, tenant.MetadataAmbiguous},
		{"M1 a -bin twin alone", []string{hop.HopsKey + "-bin", "AAAA"}, tenant.MetadataAmbiguous},
		{"M1 certificates alone", []string{hop.CertsKey, "AAAA"}, tenant.ContextMissing},
		{"M1 a value with a space", []string{hop.HopsKey, "AA AA"}, tenant.ContextMalformed},
		{"M1 a value with padding", []string{hop.HopsKey, "AAA="}, tenant.ContextMalformed},
		{"M1 a value in the other alphabet", []string{hop.HopsKey, "+/+/"}, tenant.ContextMalformed},
		{"H8 the budget is for both keys together", []string{hop.HopsKey, wide[:5000], hop.CertsKey, wide[:2169]}, tenant.MetadataTooLarge},
		{"H8 more than all headers may be", []string{hop.HopsKey, wide, "x-1", wide, "x-2", wide}, ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			m := *m
			m.t = t
			got, err := m.raw(own).call(path, row.extra...)
			if row.reason == "" {
				if err == nil && (got["grpc-status"] == "" || got["grpc-status"] == "0") {
					t.Errorf("the server answers %q", got)
				}
				if runs, events := m.ran.take(), m.audit.take(); len(runs)+len(events) != 0 {
					t.Errorf("the handler ran for %q, audit: %+v", runs, events)
				}
				return
			}
			if want := strings.ToLower(strings.ReplaceAll(string(row.reason), "_", " ")); err != nil || got["grpc-message"] != want {
				t.Errorf("the caller sees %q, %v, want %q", got, err, want)
			}
			m.recorded(row.reason)
		})
	}
}
