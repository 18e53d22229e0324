package policy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

// memFiles are [Files] in memory that count what is read.
type memFiles struct {
	files  fstest.MapFS
	opened int
	before func(name string) // is called before a file is opened
	err    error             // of reading any
}

func (m *memFiles) Open(name string) (fs.File, error) {
	m.opened++
	if m.before != nil {
		m.before(name)
	}
	f, err := m.files.Open(name)
	if err == nil && m.err != nil {
		f = failingFile{f, m.err}
	}
	return f, err
}

func (m *memFiles) Digest(name string) ([sha256.Size]byte, error) {
	f := m.files[name]
	if f == nil {
		return [sha256.Size]byte{}, fs.ErrNotExist
	}
	return sha256.Sum256(f.Data), nil
}

type failingFile struct {
	fs.File
	err error
}

func (f failingFile) Read([]byte) (int, error) { return 0, f.err }

// pair writes document n and a tenants_file for it: method n may be called, and
// tenant n is the only one.
func (m *memFiles) pair(n int) {
	if m.files == nil {
		m.files = fstest.MapFS{}
	}
	m.files["d/p.yaml"] = &fstest.MapFile{Data: []byte(pairedDoc(n))}
	m.files["d/tenants.list"] = &fstest.MapFile{Data: []byte(pairedList(n))}
}

func pairedDoc(n int) string {
	return strings.Replace(numbered(n), "tenants: {acme: {uid: u1}}", "tenants_file: tenants.list\ntenants: {}", 1)
}

func pairedList(n int) string { return fmt.Sprintf("tenant-%d uid=u\nend: 1\n", n) }

// isPair asserts that a policy is that of [memFiles.pair].
func isPair(t *testing.T, p *Policy, n int) {
	t.Helper()
	if reason := may(p, n); reason != "" {
		t.Errorf("P2 document %d is not in force: %s", n, reason)
	}
	if _, ok := p.TenantUID(mustTenant(fmt.Sprintf("tenant-%d", n))); !ok {
		t.Errorf("P2 document %d is in force beside the tenants of another", n)
	}
}

func TestReloader(t *testing.T) {
	load := func(t *testing.T, r *Reloader, m *memFiles) *Policy {
		t.Helper()
		p, err := r.Load(m, "d/p.yaml")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	t.Run("what has not changed is not compiled again", func(t *testing.T) {
		var r Reloader
		m := &memFiles{}
		m.pair(1)
		p := load(t, &r, m)
		isPair(t, p, 1)
		m.opened = 0
		if again := load(t, &r, m); again != p || m.opened != 0 {
			t.Errorf("another policy is returned, or %d files are opened", m.opened)
		}
		// Nor after a failure.
		m.files["d/p.yaml"].Data = nil
		if _, err := r.Load(m, "d/p.yaml"); err == nil {
			t.Error("an empty document loads")
		}
		m.pair(1)
		if again := load(t, &r, m); again != p {
			t.Error("another policy is returned after a failure")
		}
	})
	t.Run("P1 a broken file is not compiled again", func(t *testing.T) {
		var r Reloader
		m := &memFiles{}
		m.pair(1)
		m.files["d/tenants.list"].Data = []byte("tenant-1 uid=u\n")
		_, first := r.Load(m, "d/p.yaml")
		m.opened = 0
		_, again := r.Load(m, "d/p.yaml")
		if le, ok := errors.AsType[*LoadError](again); !ok || first == nil || again.Error() != first.Error() || le.File != "d/tenants.list" {
			t.Errorf("%v, then %v", first, again)
		}
		if m.opened != 0 {
			t.Errorf("%d files are opened", m.opened)
		}
		m.pair(1)
		isPair(t, load(t, &r, m), 1)
	})
	t.Run("P1 a file that could not be read is tried again", func(t *testing.T) {
		var r Reloader
		m := &memFiles{err: errors.New("input/output error")}
		m.pair(1)
		if _, err := r.Load(m, "d/p.yaml"); !errors.Is(err, m.err) {
			t.Errorf("%v", err)
		}
		m.err = nil
		isPair(t, load(t, &r, m), 1)
	})
	t.Run("P1 a tenants_file that was missing is found", func(t *testing.T) {
		var r Reloader
		m := &memFiles{}
		m.pair(1)
		delete(m.files, "d/tenants.list")
		if _, err := r.Load(m, "d/p.yaml"); err == nil || !strings.Contains(err.Error(), "tenants_file") {
			t.Errorf("%v", err)
		}
		m.pair(1)
		isPair(t, load(t, &r, m), 1)
	})
	t.Run("P1 a document over the limit", func(t *testing.T) {
		var r Reloader
		m := &memFiles{}
		m.pair(1)
		m.files["d/p.yaml"].Data = []byte(strings.Repeat("#\n", MaxDocument))
		for range 2 {
			if _, err := r.Load(m, "d/p.yaml"); err == nil || !strings.Contains(err.Error(), "over 4194304 bytes") {
				t.Errorf("%v", err)
			}
		}
	})
	for _, at := range []string{"d/p.yaml", "d/tenants.list"} {
		t.Run("P2 files that change while they are read, before "+at, func(t *testing.T) {
			var r Reloader
			m := &memFiles{}
			m.pair(1)
			load(t, &r, m)
			m.pair(2)
			m.before = func(name string) {
				if name == at {
					m.before = nil
					m.pair(3)
				}
			}
			isPair(t, load(t, &r, m), 3)
		})
	}
	t.Run("P2 files that change each time", func(t *testing.T) {
		var r Reloader
		m := &memFiles{}
		n := 1
		m.pair(n)
		m.before = func(name string) {
			if name == "d/tenants.list" {
				n++
				m.pair(n)
			}
		}
		if p, err := r.Load(m, "d/p.yaml"); err == nil || p != nil {
			t.Errorf("a policy of two documents: %v", p)
		}
		m.before = nil
		isPair(t, load(t, &r, m), n)
	})
	t.Run("no path", func(t *testing.T) {
		if _, err := new(Reloader).Load(&memFiles{}, "../p.yaml"); err == nil {
			t.Error("it loads")
		}
	})
}
