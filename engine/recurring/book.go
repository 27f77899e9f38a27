package recurring

import (
	"container/heap"
	"time"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// entry is an enabled recurring run.
type entry struct {
	key store.Key
	// r is what the store's changes tell; only read. It is nil where the recurring
	// run is disabled or gone and an attempt for it is still on its way.
	r *skiff.RecurringRun
	// busy is true while an attempt for it is on its way; until the changes have
	// come to revision after, nothing new is decided.
	busy  bool
	after uint64
	// faults counts the attempts in a row that failed; none is made before retry.
	faults int
	retry  time.Time

	// at is when it is to be looked at, place where it is in the heap; -1 for not.
	at    time.Time
	place int
	// touched and queued say that it is in the list of that name.
	touched, queued bool
}

// book is what the loop knows: all of it derives from the store and the clock.
// An entry is in the heap, in the queue, or waits for a change.
type book struct {
	entries map[store.Key]*entry
	// active are the names of the active runs of each recurring run.
	active map[store.Key]map[string]struct{}
	// seen is the revision up to which changes have come.
	seen uint64

	times timeHeap
	// dirty are to be looked at now; queue are due and wait for a worker.
	dirty, queue []*entry
}

func newBook() *book {
	return &book{entries: map[store.Key]*entry{}, active: map[store.Key]map[string]struct{}{}}
}

func keyOf(namespace, name string) store.Key {
	return store.Key{Kind: KindName, Namespace: namespace, Name: name}
}

// hear takes in what the store tells.
func (b *book) hear(n news) {
	if n.revision > 0 {
		b.restart(n)
	}
	for _, e := range n.events {
		switch obj := e.Object.(type) {
		case *skiff.RecurringRun:
			b.put(obj, e.Type == store.Deleted)
		case *skiff.Run:
			b.count(obj, e.Type == store.Deleted)
		}
		b.seen = e.Revision
	}
}

// restart begins from lists; attempts that are on their way stay known.
func (b *book) restart(n news) {
	listed := make(map[store.Key]bool, len(n.all))
	b.active = make(map[store.Key]map[string]struct{})
	b.seen = n.revision
	for _, run := range n.runs {
		b.count(run, false)
	}
	for _, r := range n.all {
		listed[keyOf(r.Namespace, r.Name)] = true
		b.put(r, false)
	}
	for key, e := range b.entries {
		if !listed[key] {
			b.drop(e)
		}
	}
}

func (b *book) put(r *skiff.RecurringRun, gone bool) {
	key := keyOf(r.Namespace, r.Name)
	e := b.entries[key]
	switch {
	case gone || r.Spec.Disabled:
		if e != nil {
			b.drop(e)
		}
		return
	case e == nil:
		e = &entry{key: key, place: -1}
		b.entries[key] = e
	}
	e.r = r
	b.touch(e)
}

// drop forgets an entry, with an attempt on its way when that has ended; lists
// that hold it pass it over.
func (b *book) drop(e *entry) {
	e.r = nil
	b.unset(e)
	if !e.busy {
		delete(b.entries, e.key)
	}
}

// count keeps the number of a recurring run's active runs.
func (b *book) count(run *skiff.Run, gone bool) {
	if run.Spec.RecurringRun == "" {
		return
	}
	key := keyOf(run.Namespace, run.Spec.RecurringRun)
	names := b.active[key]
	if gone || run.Status.State.Terminal() {
		delete(names, run.Name)
		if len(names) == 0 {
			delete(b.active, key)
		}
	} else {
		if names == nil {
			names = make(map[string]struct{}, 1)
			b.active[key] = names
		}
		names[run.Name] = struct{}{}
	}
	if e := b.entries[key]; e != nil {
		b.touch(e)
	}
}

// touch has an entry looked at.
func (b *book) touch(e *entry) {
	if !e.touched {
		e.touched = true
		b.dirty = append(b.dirty, e)
	}
}

func (b *book) known(e *entry) bool { return e.r != nil && b.entries[e.key] == e }

// done takes note that an attempt has ended, having seen or made a revision.
func (b *book) done(e *entry, revision uint64) {
	e.busy, e.after = false, max(e.after, revision)
	if e.r == nil {
		delete(b.entries, e.key)
		return
	}
	b.touch(e)
}

// wake looks at everything whose time has come or that was touched, and queues
// what is due.
func (b *book) wake(now time.Time) {
	for len(b.times) > 0 && !b.times[0].at.After(now) {
		e := b.times[0]
		b.unset(e)
		b.touch(e)
	}
	for _, e := range b.dirty {
		e.touched = false
		if b.known(e) {
			b.look(e, now)
		}
	}
	clear(b.dirty)
	b.dirty = b.dirty[:0]
}

// look decides where an entry belongs.
func (b *book) look(e *entry, now time.Time) {
	b.unset(e)
	if e.busy || e.queued || b.seen < e.after {
		return
	}
	at := e.r.Next()
	if at.IsZero() {
		return
	}
	if at.Before(e.retry) {
		at = e.retry
	}
	switch {
	case at.After(now):
		e.at = at
		heap.Push(&b.times, e)
	case len(b.active[e.key]) < e.r.Spec.MaxConcurrency:
		e.queued = true
		b.queue = append(b.queue, e)
	}
}

// take is the next entry to make a run for, nil where there is none.
func (b *book) take() *entry {
	for len(b.queue) > 0 {
		e := b.queue[0]
		b.queue[0] = nil
		b.queue = b.queue[1:]
		e.queued = false
		// It may have changed while it was in the queue.
		if b.known(e) && !e.busy && len(b.active[e.key]) < e.r.Spec.MaxConcurrency {
			return e
		}
	}
	b.queue = nil
	return nil
}

// first is the time to wake at; zero for none.
func (b *book) first() time.Time {
	if len(b.times) == 0 {
		return time.Time{}
	}
	return b.times[0].at
}

func (b *book) unset(e *entry) {
	if e.place >= 0 {
		heap.Remove(&b.times, e.place)
	}
}

// timeHeap is a heap of entries by their time.
type timeHeap []*entry

var _ heap.Interface = (*timeHeap)(nil)

// Len implements heap.Interface.
func (h timeHeap) Len() int { return len(h) }

// Less implements heap.Interface.
func (h timeHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }

// Swap implements heap.Interface.
func (h timeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push implements heap.Interface.
func (h *timeHeap) Push(x any) {
	e := x.(*entry)
	e.place = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *timeHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.place = -1
	return e
}
