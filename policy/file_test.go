package policy

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// write writes a file in place.
func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// way is how a document and its tenants_file are changed.
type way struct {
	name string
	// setup writes pair 1 into a folder and returns the path to watch, and how to change to another pair.
	setup func(t *testing.T, dir string) (path string, change func(n int))
}

var ways = []way{
	{"in place", func(t *testing.T, dir string) (string, func(int)) {
		path := filepath.Join(dir, "p.yaml")
		change := func(n int) {
			write(t, filepath.Join(dir, "tenants.list"), pairedList(n))
			write(t, path, pairedDoc(n))
		}
		change(1)
		return path, change
	}},
	{"moved there", func(t *testing.T, dir string) (string, func(int)) {
		path := filepath.Join(dir, "p.yaml")
		change := func(n int) {
			write(t, filepath.Join(dir, "tenants.list.new"), pairedList(n))
			must(t, os.Rename(filepath.Join(dir, "tenants.list.new"), filepath.Join(dir, "tenants.list")))
			write(t, path+".new", pairedDoc(n))
			must(t, os.Rename(path+".new", path))
		}
		change(1)
		return path, change
	}},
	{"an editor's backup", func(t *testing.T, dir string) (string, func(int)) {
		path := filepath.Join(dir, "p.yaml")
		write(t, path, numbered(1)+"# tenant-1\n")
		return path, func(n int) {
			must(t, os.Rename(path, path+"~"))
			write(t, path, pairedDoc(n))
			write(t, filepath.Join(dir, "tenants.list"), pairedList(n))
			must(t, os.Remove(path+"~"))
		}
	}},
	{"deleted and created", func(t *testing.T, dir string) (string, func(int)) {
		path := filepath.Join(dir, "p.yaml")
		write(t, path, pairedDoc(1))
		write(t, filepath.Join(dir, "tenants.list"), pairedList(1))
		return path, func(n int) {
			must(t, os.Remove(path))
			write(t, filepath.Join(dir, "tenants.list"), pairedList(n))
			write(t, path, pairedDoc(n))
		}
	}},
	{"a ConfigMap", func(t *testing.T, dir string) (string, func(int)) {
		version := func(n int) string { return "..2024_" + string(rune('a'+n)) }
		put := func(n int) {
			must(t, os.Mkdir(filepath.Join(dir, version(n)), 0o700))
			write(t, filepath.Join(dir, version(n), "p.yaml"), pairedDoc(n))
			write(t, filepath.Join(dir, version(n), "tenants.list"), pairedList(n))
			must(t, os.Symlink(version(n), filepath.Join(dir, "..data_tmp")))
			must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		}
		put(1)
		for _, name := range []string{"p.yaml", "tenants.list"} {
			must(t, os.Symlink("..data/"+name, filepath.Join(dir, name)))
		}
		return filepath.Join(dir, "p.yaml"), put
	}},
	{"a link to a file elsewhere", func(t *testing.T, dir string) (string, func(int)) {
		elsewhere := t.TempDir()
		change := func(n int) {
			write(t, filepath.Join(elsewhere, "list"), pairedList(n))
			write(t, filepath.Join(elsewhere, "doc"), pairedDoc(n))
		}
		change(1)
		must(t, os.Symlink(filepath.Join(elsewhere, "doc"), filepath.Join(dir, "p.yaml")))
		must(t, os.Symlink(filepath.Join(elsewhere, "list"), filepath.Join(dir, "tenants.list")))
		return filepath.Join(dir, "p.yaml"), change
	}},
	{"only the tenants_file, in a folder below", func(t *testing.T, dir string) (string, func(int)) {
		must(t, os.Mkdir(filepath.Join(dir, "lists"), 0o700))
		change := func(n int) { write(t, filepath.Join(dir, "lists", "tenants.list"), pairedList(n)) }
		change(1)
		doc := strings.Replace(pairedDoc(2), "tenants.list", "lists/tenants.list", 1)
		write(t, filepath.Join(dir, "p.yaml"), strings.ReplaceAll(doc, "/p.S/M2", "/p.S/*"))
		return filepath.Join(dir, "p.yaml"), change
	}},
	{"with the size and the times that it had", func(t *testing.T, dir string) (string, func(int)) {
		path := filepath.Join(dir, "p.yaml")
		change := func(n int) {
			for name, text := range map[string]string{"tenants.list": pairedList(n), "p.yaml": pairedDoc(n)} {
				write(t, filepath.Join(dir, name), text)
				must(t, os.Chtimes(filepath.Join(dir, name), time.Unix(1, 0), time.Unix(1, 0)))
			}
		}
		change(1)
		return path, change
	}},
}

// watchFile is WatchFile without polling.
func watchFile(t *testing.T, path string, opts ...WatchOption) *Watcher {
	t.Helper()
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	w, err := Watch(t.Context(), &fileOrigin{path: path, poll: time.Hour, notify: notify, events: notify.Events, errors: notify.Errors}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// until waits until the tenants of the pair are in force.
func (r records) until(t *testing.T, w *Watcher, n int) {
	t.Helper()
	listed := func() bool { _, ok := w.Current().TenantUID(mustTenant(fmt.Sprintf("tenant-%d", n))); return ok }
	for !listed() || may(w.Current(), n) != "" {
		r.next(t, slog.LevelInfo)
	}
	isPair(t, w.Current(), n)
}

func TestWatchFile(t *testing.T) {
	for _, way := range ways {
		t.Run("events/"+way.name, func(t *testing.T) {
			path, change := way.setup(t, t.TempDir())
			r := make(records, 100)
			w := watchFile(t, path, r.option())
			change(2)
			r.until(t, w, 2)
		})
		t.Run("reload/"+way.name, func(t *testing.T) {
			path, change := way.setup(t, t.TempDir())
			w, err := WatchFile(t.Context(), path, make(records, 100).option())
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			change(2)
			if err := w.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			isPair(t, w.Current(), 2)
		})
		t.Run("polling/"+way.name, func(t *testing.T) {
			path, change := way.setup(t, t.TempDir())
			synctest.Test(t, func(t *testing.T) {
				w, err := Watch(t.Context(), &fileOrigin{path: path, poll: pollFile}, make(records, 100).option())
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				change(2)
				pass(pollFile)
				isPair(t, w.Current(), 2)
			})
		})
	}
}

// TestWatchFileBroken: what does not load leaves the old policy in force, raises
// an alarm, and what loads afterwards takes effect (P1).
func TestWatchFileBroken(t *testing.T) {
	broken := map[string]func(t *testing.T, path string){
		"P1 an unknown field": func(t *testing.T, path string) { write(t, path, numbered(2)+"colour: blue\n") },
		"P1 cut short":        func(t *testing.T, path string) { write(t, path, numbered(2)[:100]) },
		"P1 half-written": func(t *testing.T, path string) {
			write(t, path, strings.TrimSuffix(numbered(2), "tenants: {acme: {uid: u1}}\n"))
		},
		"P1 empty":     func(t *testing.T, path string) { write(t, path, "") },
		"P1 deleted":   func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"P1 a folder":  func(t *testing.T, path string) { must(t, os.Remove(path)); must(t, os.Mkdir(path, 0o700)) },
		"P1 over size": func(t *testing.T, path string) { write(t, path, numbered(2)+strings.Repeat("#\n", MaxDocument/2)) },
		"P1 no tenants_file": func(t *testing.T, path string) {
			write(t, path, pairedDoc(2))
		},
		"P1 a tenants_file cut short": func(t *testing.T, path string) {
			write(t, filepath.Join(filepath.Dir(path), "tenants.list"), "tenant-2 uid=u\n")
			write(t, path, pairedDoc(2))
		},
		"P1 the folder deleted": func(t *testing.T, path string) { must(t, os.RemoveAll(filepath.Dir(path))) },
	}
	for name, breakIt := range broken {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			must(t, os.Mkdir(dir, 0o700))
			path, r := filepath.Join(dir, "p.yaml"), make(records, 100)
			write(t, path, numbered(1))
			w := watchFile(t, path, r.option())
			breakIt(t, path)
			r.next(t, slog.LevelError)
			inForce(t, w, 1)
			if s := w.Status(); s.Err == nil || s.Version != numberedPolicy(t, 1).Version() {
				t.Errorf("status %+v", s)
			}
			if err := w.Reload(t.Context()); err == nil {
				t.Error("a reload of what is broken is acknowledged")
			}
			must(t, os.RemoveAll(path))
			must(t, os.MkdirAll(dir, 0o700))
			write(t, path, numbered(3))
			r.next(t, slog.LevelInfo)
			inForce(t, w, 3)
		})
	}
}

func TestWatchFileStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.yaml")
	if w, err := WatchFile(t.Context(), path); err == nil || w != nil {
		t.Errorf("P6 no file: %v", w)
	}
	write(t, path, "version: 1\n")
	if w, err := WatchFile(t.Context(), path); err == nil || w != nil {
		t.Errorf("P6 a broken file: %v", w)
	}
	// By a name without a folder.
	write(t, path, numbered(1))
	t.Chdir(filepath.Dir(path))
	w, err := WatchFile(t.Context(), "p.yaml", make(records, 100).option())
	if err != nil {
		t.Fatal(err)
	}
	inForce(t, w, 1)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	inForce(t, w, 0)
}

// TestFileEvents: lost events count as events, and a folder that is never quiet
// holds nothing up.
func TestFileEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs, events := make(chan error, 1), make(chan fsnotify.Event)
		o := &fileOrigin{poll: time.Hour, events: events, errors: errs}
		after := func() time.Duration {
			start := time.Now()
			o.Next(t.Context())
			return time.Since(start)
		}
		errs <- fsnotify.ErrEventOverflow
		if d := after(); d != settle {
			t.Errorf("lost events: it waits %s", d)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			for ctx.Err() == nil {
				select {
				case events <- fsnotify.Event{}:
					time.Sleep(settle / 2) //nolint:forbidigo // in a bubble
				case <-ctx.Done():
				}
			}
		})
		if d := after(); d < mostSettle || d > mostSettle+settle {
			t.Errorf("events without end: it waits %s", d)
		}
		cancel()
		wg.Wait()
		if d := after(); d != time.Hour {
			t.Errorf("no events: it waits %s", d)
		}
		o.Next(ctx) // returns at once
	})
}

// BenchmarkPush measures how long it takes until a policy that is moved into
// place decides, and how much of that is beyond its load time.
func BenchmarkPush(b *testing.B) {
	for _, n := range []int{10, 1_000_000} {
		b.Run(fmt.Sprintf("tenants=%d", n), func(b *testing.B) {
			dir := b.TempDir()
			path := filepath.Join(dir, "p.yaml")
			write(b, filepath.Join(dir, "tenants.list"), string(tenantList(n)))
			write(b, path, string(bigDocument()))
			r := make(records, 100)
			w, err := WatchFile(b.Context(), path, r.option())
			if err != nil {
				b.Fatal(err)
			}
			defer w.Close()
			<-r
			var pushing, loading time.Duration
			for i := 0; b.Loop(); i++ {
				write(b, path+".new", fmt.Sprintf("%s# %d\n", bigDocument(), i))
				start := time.Now()
				must(b, os.Rename(path+".new", path))
				<-r
				pushing += time.Since(start)

				b.StopTimer()
				start = time.Now()
				if _, err := LoadFile(path); err != nil {
					b.Fatal(err)
				}
				loading += time.Since(start)
				b.StartTimer()
			}
			b.ReportMetric(float64((pushing-loading).Milliseconds())/float64(b.N), "ms-beyond-load")
		})
	}
}
