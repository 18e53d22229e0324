// Package natssource follows a policy in an object store of NATS JetStream, so
// that many servers have the same one at once.
//
//	js, err := jetstream.New(nc)
//	store, err := js.ObjectStore(ctx, "policy")
//	pol, err := natssource.Watch(ctx, store, "tenantmesh.yaml")
//
// Whoever may write to the store decides who may act for whom: let nobody but
// its publisher publish to $O.<bucket>.> or manage the stream OBJ_<bucket>, and
// give the policy a store of its own.
//
// # Publishing
//
// The document and its tenants_file are objects whose names are paths; that of
// the tenants_file is relative to the document's folder. The two are always
// taken as they were at one time. To change both at once, put the new
// tenants_file under a new name first, and then the document that names it.
//
// In a cluster, a question about an object may be answered by a replica that is
// behind. A change that this package was told of is not overlooked for that, but
// a reload that is asked for before may see what was. Where it must not, turn
// direct gets off before the servers start: nats stream edit OBJ_<bucket>
// --no-allow-direct.
package natssource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tenantmesh/tenantmesh/policy"
)

const (
	// pollStore is how often the store is asked whether the policy is still the
	// one, where nothing says that it changed.
	pollStore = 15 * time.Second
	// patience is how long NATS may take for an answer, or for the next bytes of an
	// object.
	patience = 5 * time.Second
	// A replica that is behind is asked again after firstWait, twice that and so
	// on, up to lastWait.
	firstWait, lastWait = 25 * time.Millisecond, 400 * time.Millisecond
	// maxAnnounced is how many announcements are kept in mind.
	maxAnnounced = 1024
)

// Watch is [policy.Watch] for the document of a name in the store, and its
// tenants_file. While NATS is away, the last policy stays in force, until it is
// stale. A link in place of an object is refused.
func Watch(ctx context.Context, store jetstream.ObjectStore, name string, opts ...policy.WatchOption) (*policy.Watcher, error) {
	if !fs.ValidPath(name) {
		return nil, fmt.Errorf("natssource: %q is no path, such as prod/tenantmesh.yaml", name)
	}
	return policy.Watch(ctx, newOrigin(store, name), opts...)
}

func newOrigin(store jetstream.ObjectStore, name string) *origin {
	return &origin{store: store, name: name, poll: pollStore, patience: patience, announced: map[string]time.Time{}}
}

// origin implements [policy.Origin].
type origin struct {
	store    jetstream.ObjectStore
	name     string
	poll     time.Duration
	patience time.Duration
	reloader policy.Reloader

	updates <-chan *jetstream.ObjectInfo // nil: there is no subscription
	cancel  context.CancelFunc           // of the subscription

	mu        sync.Mutex
	announced map[string]time.Time // when the objects changed that did
}

// Load implements [policy.Origin].
func (o *origin) Load(ctx context.Context) (*policy.Policy, error) {
	return o.reloader.Load(objects{ctx, o}, o.name)
}

// Next implements [policy.Origin].
func (o *origin) Next(ctx context.Context) {
	if o.updates == nil && o.subscribe(ctx) {
		return // it may have changed before
	}
	select {
	case <-ctx.Done():
	case <-time.After(o.poll):
	case info, ok := <-o.updates:
		o.note(info, ok)
	}
	for {
		select {
		case info, ok := <-o.updates:
			o.note(info, ok)
		default:
			return
		}
	}
}

// note keeps an announcement in mind, or the end of the subscription.
func (o *origin) note(info *jetstream.ObjectInfo, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !ok {
		o.updates = nil
		o.cancel()
	}
	if !ok || len(o.announced) >= maxAnnounced {
		clear(o.announced)
	}
	if info != nil {
		o.announced[info.Name] = info.ModTime
	}
}

// subscribe asks for announcements, and reports whether there will be any.
func (o *origin) subscribe(ctx context.Context) bool {
	// The subscription lives as long as the context that it is made with.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ctx, done := context.WithTimeout(ctx, o.patience)
	defer done()
	stop := context.AfterFunc(ctx, cancel)
	w, err := o.store.Watch(life, jetstream.UpdatesOnly())
	switch inTime := stop(); {
	case err != nil:
		cancel()
		return false
	case !inTime:
		end(w.Updates(), cancel)
		return false
	}
	o.updates, o.cancel = w.Updates(), cancel
	return true
}

// end ends a subscription.
func end(updates <-chan *jetstream.ObjectInfo, cancel context.CancelFunc) {
	cancel()
	go func() { // the client waits until what it announced is taken
		for range updates {
		}
	}()
}

// Close ends the subscription.
func (o *origin) Close() error {
	if o.updates != nil {
		end(o.updates, o.cancel)
	}
	return nil
}

// info returns what the store says of an object.
func (o *origin) info(ctx context.Context, name string) (*jetstream.ObjectInfo, error) {
	for wait := firstWait; ; wait *= 2 {
		info, err := o.ask(ctx, name)
		switch {
		case err != nil && !errors.Is(err, jetstream.ErrObjectNotFound):
			return nil, err
		case o.behind(name, info) && wait <= lastWait:
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(wait):
			}
		case err != nil:
			return nil, err
		case info.Deleted:
			return nil, jetstream.ErrObjectNotFound
		case o.behind(name, info):
			return nil, errors.New("the store's replica is behind")
		case info.Opts != nil && info.Opts.Link != nil:
			return nil, errors.New("a link")
		default:
			return info, nil
		}
	}
}

func (o *origin) ask(ctx context.Context, name string) (*jetstream.ObjectInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, o.patience)
	defer cancel()
	return o.store.GetInfo(ctx, name, jetstream.GetObjectInfoShowDeleted())
}

// behind reports whether an answer is older than what was announced. It is nil
// if the object was not found.
func (o *origin) behind(name string, info *jetstream.ObjectInfo) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	at, ok := o.announced[name]
	return ok && (info == nil || info.ModTime.Before(at))
}
