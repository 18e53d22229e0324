package attacktest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// timeout bounds a call, so that no test hangs on one.
const timeout = 20 * time.Second

// maxFrame is the most bytes of a frame without leave from the peer.
const maxFrame = 16 << 10

// Raw is a connection that speaks HTTP/2 frame by frame (RFC 9113). It makes one
// call at a time.
type Raw struct {
	conn    *tls.Conn
	framer  *http2.Framer
	headers bytes.Buffer
	encoder *hpack.Encoder
	stream  uint32
}

// Dial connects by TLS with ALPN "h2", whatever config says of that.
func Dial(ctx context.Context, addr string, config *tls.Config) (*Raw, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	conn := tls.Client(raw, config)
	c := &Raw{conn: conn, framer: http2.NewFramer(conn, conn), stream: 1}
	c.encoder = hpack.NewEncoder(&c.headers)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := c.start(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *Raw) start(ctx context.Context) error {
	if err := c.conn.HandshakeContext(ctx); err != nil {
		return err
	}
	if _, err := io.WriteString(c.conn, http2.ClientPreface); err != nil {
		return err
	}
	return c.framer.WriteSettings()
}

// Binding returns the channel binding tls-exporter (RFC 9266).
func (c *Raw) Binding() ([32]byte, error) {
	state := c.conn.ConnectionState()
	b, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	if err != nil {
		return [32]byte{}, err
	}
	return [32]byte(b), nil
}

// Close closes the connection.
func (c *Raw) Close() error { return c.conn.Close() }

// Call sends the path, further header fields in pairs, and one empty message.
// It returns nil if the answer's status is OK, the status as an error, or how else
// the stream or the connection ended.
func (c *Raw) Call(path string, fields ...string) error {
	id, err := c.open(path, fields)
	if err != nil {
		return err
	}
	if err := c.framer.WriteData(id, true, make([]byte, 5)); err != nil { // not compressed, no bytes
		return err
	}
	return c.answer(id)
}

// Open is Call without the message: the stream stays open on the client's side
// until the server has answered.
func (c *Raw) Open(path string, fields ...string) error {
	id, err := c.open(path, fields)
	if err != nil {
		return err
	}
	return c.answer(id)
}

func (c *Raw) open(path string, more []string) (id uint32, err error) {
	fields := append([]string{":method", "POST", ":scheme", "https", ":path", path, ":authority", "target",
		"content-type", "application/grpc", "te", "trailers"}, more...)
	c.headers.Reset()
	for i := 0; i < len(fields); i += 2 {
		if err := c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			return 0, err
		}
	}
	if err := c.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	id, c.stream = c.stream, c.stream+2
	block := c.headers.Next(maxFrame)
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: c.headers.Len() == 0}); err != nil {
		return 0, err
	}
	for c.headers.Len() > 0 {
		block := c.headers.Next(maxFrame)
		if err := c.framer.WriteContinuation(id, c.headers.Len() == 0, block); err != nil {
			return 0, err
		}
	}
	return id, nil
}

// answer reads until the stream ends.
func (c *Raw) answer(id uint32) error {
	got := map[string]string{}
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return err
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
				return statusOf(got)
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return http2.StreamError{StreamID: id, Code: f.ErrCode}
			}
		case *http2.GoAwayFrame:
			return http2.ConnectionError(f.ErrCode)
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if err := c.framer.WriteSettingsAck(); err != nil {
					return err
				}
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				if err := c.framer.WritePing(true, f.Data); err != nil {
					return err
				}
			}
		}
	}
}

// statusOf returns the status that response headers and trailers have.
func statusOf(got map[string]string) error {
	if text, ok := got["grpc-status-details-bin"]; ok {
		raw, err := base64.RawStdEncoding.DecodeString(text)
		if err != nil {
			return fmt.Errorf("grpc-status-details-bin: %w", err)
		}
		s := new(spb.Status)
		if err := proto.Unmarshal(raw, s); err != nil {
			return fmt.Errorf("grpc-status-details-bin: %w", err)
		}
		return status.ErrorProto(s)
	}
	code, err := strconv.ParseUint(got["grpc-status"], 10, 8)
	if err != nil {
		return fmt.Errorf("an answer without a status: %v", got)
	}
	message, err := url.PathUnescape(got["grpc-message"])
	if err != nil {
		return err
	}
	return status.Error(codes.Code(code), message)
}
