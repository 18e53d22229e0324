package policy

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"path"
)

// Files is a file system that can tell what a file holds without handing it out.
type Files interface {
	fs.FS
	// Digest returns the SHA-256 digest of what the file holds now.
	Digest(name string) ([sha256.Size]byte, error)
}

// Reloader is [Load] for an [Origin]: it compiles a document only where that or
// its tenants_file changed since, and takes both as they were at one time. Its
// zero value is ready. It is for one document, and not safe for concurrent use.
type Reloader struct{ good, bad loaded }

// maxLoads is how often files are read anew that change meanwhile.
const maxLoads = 3

// Load returns the policy of the document as it is now.
func (r *Reloader) Load(files Files, name string) (*Policy, error) {
	return r.load(files, name, name)
}

func (r *Reloader) load(files Files, name, shown string) (*Policy, error) {
	dir, err := fs.Sub(files, path.Dir(name))
	if err != nil {
		return nil, err
	}
	for range maxLoads {
		digest, err := files.Digest(name)
		if err != nil {
			return nil, err
		}
		for _, l := range []*loaded{&r.good, &r.bad} {
			if l.holds(files, path.Dir(name), digest) {
				return l.policy, l.err
			}
		}
		switch l := load(dir, path.Base(name), shown); {
		case l.cut:
			return nil, l.err // and is tried again the next time
		case l.err != nil:
			r.bad = l
		default:
			r.good, r.bad = l, loaded{}
		}
	}
	return nil, errors.New("the policy's files changed each time that they were read")
}

// holds reports whether the document, whose digest is given, and its
// tenants_file are still those that were read.
func (l *loaded) holds(files Files, dir string, digest [sha256.Size]byte) bool {
	if len(l.parts) == 0 || l.parts[0].digest != digest {
		return false
	}
	for _, p := range l.parts[1:] {
		if now, err := files.Digest(path.Join(dir, p.name)); err != nil || now != p.digest {
			return false
		}
	}
	return true
}
