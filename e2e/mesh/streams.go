package mesh

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	meshv1 "github.com/tenantmesh/tenantmesh/internal/testproto/mesh/v1"
)

// Open is for streams that stay open.
type Open struct {
	// To is the workload that is called, N how many streams, of its caller's
	// Tenants by turns.
	To string
	N  int
}

// Opened is what became of the streams.
type Opened struct {
	// Open is how many are open, by tenant.
	Open map[string]int
	// Ended is how many have ended, by tenant, status code and reason.
	Ended map[string]int
	// LastEnd is when the last one ended.
	LastEnd time.Time
}

// streams are those that a node holds open.
type streams struct {
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu  sync.Mutex
	has Opened
}

// OpenStreams opens streams and waits until each had an answer.
func (d *driver) OpenStreams(o Open, _ *None) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.n.targets[o.To]
	if t == nil {
		return fmt.Errorf("%q is not called", o.To)
	}
	if d.streams != nil {
		return errors.New("streams are open already")
	}
	s := &streams{has: Opened{Open: map[string]int{}, Ended: map[string]int{}}}
	ctx, cancel := context.WithCancel(d.ctx)
	s.cancel, d.streams = cancel, s
	tenants := d.n.env.Workload.Tenants
	contexts := map[string]context.Context{}
	for _, name := range tenants {
		var err error
		if contexts[name], err = d.n.originate(ctx, name); err != nil {
			return err
		}
	}
	var opening errgroup.Group
	opening.SetLimit(32)
	for i := range o.N {
		name := tenants[i%len(tenants)]
		opening.Go(func() error {
			return s.open(contexts[name], t, name, fmt.Sprint("stream-", i))
		})
	}
	return opening.Wait()
}

func (s *streams) open(ctx context.Context, t *target, tenantID, id string) error {
	cs, err := t.plain.NewStream(ctx, Bidi.description(), "/"+t.peer.Service+"/"+string(Bidi))
	if err != nil {
		return err
	}
	if err := cs.SendMsg(&meshv1.BidiRequest{Work: &meshv1.Work{Id: id, TenantId: tenantID}}); err != nil {
		return err
	}
	if err := cs.RecvMsg(new(meshv1.BidiResponse)); err != nil {
		return err
	}
	s.mu.Lock()
	s.has.Open[tenantID]++
	s.mu.Unlock()
	s.all.Go(func() { s.follow(cs, tenantID) })
	return nil
}

// follow waits for the stream's end.
func (s *streams) follow(cs grpc.ClientStream, tenantID string) {
	err := cs.RecvMsg(new(meshv1.BidiResponse))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.has.Open[tenantID]--
	s.has.Ended[tenantID+" "+keyOf(err)]++
	s.has.LastEnd = time.Now()
}

// Streams says what became of them.
func (d *driver) Streams(_ None, reply *Opened) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.streams == nil {
		return nil
	}
	s := d.streams
	s.mu.Lock()
	defer s.mu.Unlock()
	*reply = Opened{Open: map[string]int{}, Ended: map[string]int{}, LastEnd: s.has.LastEnd}
	for k, n := range s.has.Open {
		reply.Open[k] = n
	}
	for k, n := range s.has.Ended {
		reply.Ended[k] = n
	}
	return nil
}

// CloseStreams ends those that are open.
func (d *driver) CloseStreams(None, *None) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.streams != nil {
		d.streams.cancel()
		d.streams.all.Wait()
		d.streams = nil
	}
	return nil
}
