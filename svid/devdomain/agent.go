package devdomain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
)

// maxSocket is the longest path of a unix socket: sun_path less its NUL.
const maxSocket = 107

// endpoint is a socket of the agent.
type endpoint struct {
	path  string
	mode  os.FileMode
	api   *api
	creds credentials.TransportCredentials // nil for none

	// Guarded by d.mu; nil while the agent is stopped.
	server *grpc.Server
	served chan struct{} // closed when server has ended
}

// open adds a socket to the agent, and serves it unless the agent is stopped;
// d.mu is held or d is new.
func (d *Domain) open(name string, mode os.FileMode, a *api, creds credentials.TransportCredentials) (*endpoint, error) {
	e := &endpoint{path: filepath.Join(d.cfg.Dir, name), mode: mode, api: a, creds: creds}
	if len(e.path) > maxSocket {
		return nil, fmt.Errorf("devdomain: the socket's path has %d bytes, a unix socket's at most %d; choose a shorter Dir: %s", len(e.path), maxSocket, e.path)
	}
	if !d.stopped {
		if err := d.serve(e); err != nil {
			return nil, err
		}
	}
	d.endpoints = append(d.endpoints, e)
	return e, nil
}

// addr returns the endpoint's address; "" if there is none.
func (e *endpoint) addr() string {
	if e == nil {
		return ""
	}
	return (&url.URL{Scheme: "unix", Path: e.path}).String()
}

// serve opens the socket and serves the Workload API on it; d.mu is held or d is new.
func (d *Domain) serve(e *endpoint) error {
	l, err := d.listen(e)
	if err != nil {
		return fmt.Errorf("devdomain: %w", err)
	}
	opts := []grpc.ServerOption{grpc.UnaryInterceptor(checkUnary), grpc.StreamInterceptor(checkStream)}
	if e.creds != nil {
		opts = append(opts, grpc.Creds(e.creds))
	}
	server, served := grpc.NewServer(opts...), make(chan struct{})
	workload.RegisterSpiffeWorkloadAPIServer(server, e.api)
	e.server, e.served = server, served
	go func() {
		defer close(served)
		_ = server.Serve(l) // ends by Stop
	}()
	return nil
}

// StopAgent ends the agent as its death would: the sockets go and all streams
// end. What was issued stays valid, and the CA goes on rotating.
func (d *Domain) StopAgent() {
	d.mu.Lock()
	d.stopped = true
	var stopping []endpoint
	for _, e := range d.endpoints {
		if e.server != nil {
			stopping = append(stopping, *e)
			e.server, e.served = nil, nil
		}
	}
	d.mu.Unlock()
	for _, e := range stopping {
		e.server.Stop() // outside mu, which its streams may be taking; its listener removes the socket
		<-e.served
	}
}

// StartAgent starts the agent again after [Domain.StopAgent].
func (d *Domain) StartAgent() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed
	}
	d.stopped = false
	var errs []error
	for _, e := range d.endpoints {
		if e.server == nil {
			errs = append(errs, d.serve(e))
		}
	}
	return errors.Join(errs...)
}

// Fail makes the Workload API end every stream that is open, and answer every
// call, with a status of the code; [codes.OK] heals it.
func (d *Domain) Fail(code codes.Code) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = code
	d.wake()
}

// listen opens the endpoint's socket.
func (d *Domain) listen(e *endpoint) (net.Listener, error) {
	if d.cfg.Listen != nil {
		return d.cfg.Listen(e.path)
	}
	l, err := net.Listen("unix", e.path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if !dead(e.path) {
			return nil, fmt.Errorf("another process serves it: %w", err)
		}
		if err = os.Remove(e.path); err == nil {
			l, err = net.Listen("unix", e.path)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(e.path, e.mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// dead says whether nobody serves a socket any longer, as when a process that
// was killed left it behind.
func dead(path string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
