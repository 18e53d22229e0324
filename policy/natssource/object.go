package natssource

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tenantmesh/tenantmesh/policy"
)

// objects is the store as [policy.Files], for one load.
type objects struct {
	ctx    context.Context
	origin *origin
}

// Digest implements [policy.Files].
func (f objects) Digest(name string) (sum [sha256.Size]byte, err error) {
	info, err := f.origin.info(f.ctx, name)
	if err != nil {
		return sum, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	digest, err := jetstream.DecodeObjectDigest(info.Digest)
	if err != nil || len(digest) != len(sum) {
		return sum, &fs.PathError{Op: "stat", Path: name, Err: errors.New("no SHA-256 digest")}
	}
	return [sha256.Size]byte(digest), nil
}

// Open implements [fs.FS].
func (f objects) Open(name string) (fs.File, error) {
	o, err := f.open(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return o, nil
}

// open opens an object. If it is exchanged meanwhile for another one or a link,
// its digest will tell.
func (f objects) open(name string) (*object, error) {
	info, err := f.origin.info(f.ctx, name)
	switch {
	case err != nil:
		return nil, err
	case info.Size > policy.MaxTenantsFile: // the larger of two limits; the policy knows which one is due
		return nil, fmt.Errorf("the object has over %d bytes", policy.MaxTenantsFile)
	}
	ctx, cancel := context.WithCancel(f.ctx)
	late := time.AfterFunc(f.origin.patience, cancel)
	result, err := f.origin.store.Get(paced{ctx, f.origin.patience / 4}, name)
	if err != nil {
		cancel()
		return nil, err
	}
	o := &object{result, ctx, cancel, f.origin.patience, info}
	if !late.Stop() {
		o.Close()
		return nil, errors.New("the object does not come")
	}
	return o, nil
}

// paced is a context whose deadline is always near. The client's reader, which
// waits for bytes until the deadline and cannot be interrupted, looks at it anew
// each time, and can be asked again afterwards.
type paced struct {
	context.Context
	pace time.Duration
}

// Deadline implements [context.Context].
func (c paced) Deadline() (time.Time, bool) { return time.Now().Add(c.pace), true }

// object is an open one. It is its own [fs.FileInfo].
type object struct {
	result   jetstream.ObjectResult
	ctx      context.Context
	cancel   context.CancelFunc
	patience time.Duration
	info     *jetstream.ObjectInfo
}

// Read implements [fs.File]. At the end, the client compares the digest.
func (o *object) Read(b []byte) (int, error) {
	for start := time.Now(); ; {
		n, err := o.result.Read(b)
		switch {
		case o.ctx.Err() != nil:
			return 0, o.ctx.Err()
		case n > 0 || err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return n, err
		case time.Since(start) > o.patience: // as those of an object that was replaced
			return 0, errors.New("the object's bytes do not come")
		}
	}
}

// Close implements [fs.File].
func (o *object) Close() error {
	o.cancel()
	return o.result.Close()
}

// Stat implements [fs.File].
func (o *object) Stat() (fs.FileInfo, error) { return o, nil }

// The methods of [fs.FileInfo].
func (o *object) Name() string       { return path.Base(o.info.Name) }
func (o *object) Size() int64        { return int64(o.info.Size) } //nolint:gosec // MaxTenantsFile bounds it
func (o *object) Mode() fs.FileMode  { return 0o444 }
func (o *object) ModTime() time.Time { return o.info.ModTime }
func (o *object) IsDir() bool        { return false }
func (o *object) Sys() any           { return o.info }
