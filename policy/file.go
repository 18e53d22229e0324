package policy

import (
	"cmp"
	"context"
	"crypto/sha256"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// pollFile is how often a file is read to see whether it changed, where no
	// event says so, as on network file systems.
	pollFile = 5 * time.Second
	// settle is how long a folder must be quiet before the file is read: editors
	// and copies write in several steps. mostSettle is how long it may go on.
	settle, mostSettle = 25 * time.Millisecond, 250 * time.Millisecond
)

// WatchFile is [Watch] for the document at path and its tenants_file. It takes
// note of changes in place, of files that are moved there, and of symbolic links
// that are exchanged, as Kubernetes exchanges those of a ConfigMap. What no
// event tells of is seen within 5 seconds. The files are judged by what they
// hold, never by their times. Give them a folder in which nothing else is
// written often, since they are read again then.
func WatchFile(ctx context.Context, path string, opts ...WatchOption) (*Watcher, error) {
	o := &fileOrigin{path: path, poll: pollFile}
	if notify, err := fsnotify.NewWatcher(); err == nil { // or else the system has none to spare, and polling has to do
		o.notify, o.events, o.errors = notify, notify.Events, notify.Errors
	}
	return Watch(ctx, o, opts...)
}

type fileOrigin struct {
	path     string
	poll     time.Duration
	reloader Reloader

	notify *fsnotify.Watcher // nil: there are no events
	events <-chan fsnotify.Event
	errors <-chan error
}

// Load implements [Origin].
func (o *fileOrigin) Load(context.Context) (*Policy, error) {
	dir, name := filepath.Split(o.path)
	dir = cmp.Or(dir, ".")
	return o.reloader.load(folder{os.DirFS(dir), dir, o}, name, o.path)
}

// folder is [Files] in a folder.
type folder struct {
	fs.FS
	dir    string
	origin *fileOrigin
}

// Open implements [fs.FS].
func (f folder) Open(name string) (fs.File, error) {
	f.origin.watch(filepath.Join(f.dir, name)) // first, so that no change falls between the two
	return f.FS.Open(name)
}

// Digest implements [Files].
func (f folder) Digest(name string) (sum [sha256.Size]byte, err error) {
	file, err := f.Open(name)
	if err != nil {
		return sum, err
	}
	defer file.Close() // only read
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(file, MaxTenantsFile+1)); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// watch asks for events of a file: of its folder, since files are replaced, and
// of the one that symbolic links lead to. To ask again renews what ended when a
// folder was replaced.
func (o *fileOrigin) watch(path string) {
	if o.notify == nil {
		return
	}
	_ = o.notify.Add(filepath.Dir(path)) // where this fails, polling has to do
	if at, err := filepath.EvalSymlinks(path); err == nil {
		_ = o.notify.Add(filepath.Dir(at))
	}
}

// Next implements [Origin].
func (o *fileOrigin) Next(ctx context.Context) {
	if !o.event(ctx, o.poll) {
		return
	}
	for end := time.Now().Add(mostSettle); o.event(ctx, settle) && time.Now().Before(end); {
	}
}

// event waits for an event, and reports whether one came before the time was
// over. An error counts as one: events may have been lost.
func (o *fileOrigin) event(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return false
	case <-o.events:
		return true
	case <-o.errors: //nolint:errcheck // whatever it is
		return true
	}
}

// Close ends the events.
func (o *fileOrigin) Close() error {
	if o.notify == nil {
		return nil
	}
	return o.notify.Close()
}
