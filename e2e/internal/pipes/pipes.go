// Package pipes has a process and its driver talk over the process's stdin and
// stdout.
package pipes

import "io"

// Conn is two pipes as the one connection that net/rpc asks for.
type Conn struct {
	io.ReadCloser
	Out io.WriteCloser
}

func (c Conn) Write(b []byte) (int, error) { return c.Out.Write(b) }

// Close closes what is written to, at which the other side ends.
func (c Conn) Close() error { return c.Out.Close() }
