package store

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// A request's life: queued until the committer takes it or its caller
// withdraws it; never both.
const (
	requestQueued int32 = iota
	requestTaken
	requestWithdrawn
)

// maxAttempts is how often a caller prepares an unconditional write anew
// because another came in between; then the committer does it, alone.
const maxAttempts = 3

// errStale sends a request back to its caller to be prepared anew.
var errStale = errors.New("prepared from an older state")

// request is one transaction on its way through the committer.
type request struct {
	ops []Op
	// changes are nil where the committer is to prepare them.
	changes []prepared
	// readAt is the revision of the transaction that changes were prepared in.
	readAt uint64

	state    atomic.Int32
	done     chan struct{}
	revision uint64
	err      error
}

// size is roughly the bytes the request writes.
func (r *request) size() int {
	n := 0
	for i := range r.changes {
		n += 2 * len(r.changes[i].value)
	}
	return n
}

// Commit applies all ops or none and returns when they are durable. A context
// that ends while the request still waits for its turn withdraws it; after
// that Commit waits for the outcome, which is a matter of one disk write.
func (s *Store) Commit(ctx context.Context, ops ...Op) (uint64, error) {
	if len(ops) == 0 {
		return s.Revision(), nil
	}
	saved := saveMeta(ops)
	for attempt := 1; ; attempt++ {
		r := &request{ops: ops, done: make(chan struct{})}
		finished, err := s.prepareRequest(ctx, r, attempt)
		if err == nil && !finished {
			err = s.submit(ctx, r)
		}
		switch {
		case err == nil:
			for i := range r.changes {
				if c := &r.changes[i]; c.object != nil {
					c.object.Metadata().ResourceVersion = formatRevision(c.base)
				}
			}
			return r.revision, nil
		case errors.Is(err, errStale):
			saved.restore()
		default:
			saved.restore()
			return 0, err
		}
	}
}

// prepareRequest checks and encodes the ops outside the committer. finished is
// true where nothing needs to be written.
func (s *Store) prepareRequest(ctx context.Context, r *request, attempt int) (finished bool, err error) {
	if attempt > maxAttempts {
		return false, nil
	}
	err = s.read(func(b buckets, revision uint64) error {
		r.readAt = revision
		r.changes, err = s.prepare(b.record, r.ops)
		return err
	})
	finished = err == nil
	for i := range r.changes {
		finished = finished && r.changes[i].event == ""
	}
	if err != nil || finished {
		// What is answered from here rests on what was read.
		r.revision = r.readAt
		return finished, errors.Join(err, s.durable.wait(ctx, r.readAt))
	}
	return false, nil
}

// submit queues a request and waits for its outcome.
func (s *Store) submit(ctx context.Context, r *request) error {
	if err := s.queue.push(r); err != nil {
		return err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.state.CompareAndSwap(requestQueued, requestWithdrawn) {
			return context.Cause(ctx)
		}
		<-r.done
	}
	return r.err
}

// queue hands requests to the committer.
type queue struct {
	mu     sync.Mutex
	items  []*request
	closed bool
	// wake holds a token while items may be there.
	wake chan struct{}
}

func (q *queue) init() { q.wake = make(chan struct{}, 1) }

func (q *queue) push(r *request) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	q.items = append(q.items, r)
	q.signal()
	return nil
}

// signal is called with mu held.
func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits for requests and returns up to one group of them, those withdrawn
// left out; nil once the queue is closed and empty.
func (q *queue) take() []*request {
	for {
		<-q.wake
		q.mu.Lock()
		group, bytes := make([]*request, 0, min(len(q.items), maxGroup)), 0
		rest := 0
		for _, r := range q.items {
			if len(group) == maxGroup || bytes > maxGroupBytes {
				break
			}
			rest++
			if r.state.CompareAndSwap(requestQueued, requestTaken) {
				group = append(group, r)
				bytes += r.size()
			}
		}
		if rest == len(q.items) {
			clear(q.items)
			q.items = q.items[:0]
		} else {
			q.items = append([]*request(nil), q.items[rest:]...)
		}
		closed := q.closed
		if len(q.items) > 0 || closed {
			q.signal()
		}
		q.mu.Unlock()
		if len(group) > 0 || closed {
			return group
		}
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// durable is the newest revision on disk, and a way to wait for one.
type durable struct {
	revision atomic.Uint64
	mu       sync.Mutex
	// advanced is closed at the next change; nil while nobody waits.
	advanced chan struct{}
	err      error
}

func (d *durable) init(revision uint64) { d.revision.Store(revision) }
func (d *durable) load() uint64         { return d.revision.Load() }

func (d *durable) set(revision uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.revision.Store(revision)
	d.broadcast()
}

// fail ends every wait, now and later: what is waited for will not come.
func (d *durable) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
	}
	d.broadcast()
}

// broadcast is called with mu held.
func (d *durable) broadcast() {
	if d.advanced != nil {
		close(d.advanced)
		d.advanced = nil
	}
}

// wait returns once revision is on disk.
func (d *durable) wait(ctx context.Context, revision uint64) error {
	for {
		if d.revision.Load() >= revision {
			return nil
		}
		d.mu.Lock()
		if d.revision.Load() >= revision || d.err != nil {
			err := d.err
			if d.revision.Load() >= revision {
				err = nil
			}
			d.mu.Unlock()
			return err
		}
		if d.advanced == nil {
			d.advanced = make(chan struct{})
		}
		advanced := d.advanced
		d.mu.Unlock()
		select {
		case <-advanced:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
