package policy

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// pollFile is how often a file is looked at where no event comes, as on
	// network file systems.
	pollFile = 2 * time.Second
	// settle is how long a folder must be quiet before the file is read: editors
	// and copies write in several steps. mostSettle is how long it may go on.
	settle, mostSettle = 25 * time.Millisecond, 250 * time.Millisecond
	// racy is how old a change must be for its time to tell it from a later one:
	// the clocks of file systems are coarse.
	racy = time.Second
)

// WatchFile is [Watch] for the document at path and its tenants_file. It takes
// note of changes in place, of files moved there, and of symbolic links that
// are swapped, as Kubernetes does with those of a ConfigMap.
func WatchFile(ctx context.Context, path string, opts ...WatchOption) (*Watcher, error) {
	o := &fileOrigin{path: path}
	// The folder is watched, since files are replaced. Where that cannot be,
	// polling alone does.
	if notify, err := fsnotify.NewWatcher(); err == nil {
		_ = notify.Add(filepath.Dir(path))
		o.notify = notify
	} else {
		o.notify = &fsnotify.Watcher{} // whose channels are nil
	}
	return Watch(ctx, o, opts...)
}

type fileOrigin struct {
	path   string
	notify *fsnotify.Watcher
	loaded *Policy
	files  map[string]fs.FileInfo // what it was loaded from; nil if unsure
}

// Load implements [Origin].
func (o *fileOrigin) Load(context.Context) (*Policy, error) {
	if o.unchanged() {
		return o.loaded, nil
	}
	o.files = nil
	now := time.Now()
	p, files, err := loadFile(o.path)
	if err != nil {
		return nil, err
	}
	o.loaded = p
	for _, f := range files {
		if now.Sub(f.ModTime()) < racy {
			return p, nil
		}
	}
	o.files = files
	return p, nil
}

// unchanged reports whether the files are those that were loaded.
func (o *fileOrigin) unchanged() bool {
	for name, before := range o.files {
		now, err := os.Stat(name)
		if err != nil || !os.SameFile(before, now) || before.Size() != now.Size() || !before.ModTime().Equal(now.ModTime()) {
			return false
		}
	}
	return o.files != nil
}

// Next implements [Origin].
func (o *fileOrigin) Next(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(pollFile):
		return
	case <-o.notify.Events:
	case <-o.notify.Errors:
	}
	enough := time.After(mostSettle)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(settle):
			return
		case <-enough:
			return
		case <-o.notify.Events:
		case <-o.notify.Errors:
		}
	}
}

// Close ends the events.
func (o *fileOrigin) Close() error { return o.notify.Close() }
