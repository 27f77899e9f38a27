package store

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"

	"github.com/skiff-ml/skiff/api/core"
)

const (
	// ringEntries and ringBytes bound the changes kept in memory. A watcher
	// further behind reads the change log on disk.
	ringEntries = 2048
	ringBytes   = 4 << 20
	// nextEvents is about how many events one Next returns; a commit is never
	// taken apart.
	nextEvents = 1000
)

// entry is one change on its way to watchers. All but object is fixed.
type entry struct {
	event    EventType
	revision uint64
	// current is the revision of the record after the change, 0 for none.
	current uint64
	key     Key
	rawKey  string
	kind    *kindInfo
	json    []byte

	once   sync.Once
	object core.Object
	err    error
}

// decoded makes the object at the first call: most changes have no watcher
// that is behind the one that made them, some have ten.
func (e *entry) decoded() (core.Object, error) {
	e.once.Do(func() { e.object, e.err = e.kind.decode(e.key, e.revision, e.json) })
	return e.object, e.err
}

// hub holds the newest changes and tells watchers of them.
type hub struct {
	store *Store
	mu    sync.Mutex
	// ring is the newest changes in order, from first on; those before head's
	// revision floor have been dropped.
	ring  []*entry
	bytes int
	// floor is the newest revision of which the ring lacks a change, head the
	// newest that was appended.
	floor, head uint64
	compacted   uint64
	watchers    map[*watcher]struct{}
	closed      bool
}

func newHub(s *Store) *hub {
	return &hub{
		store: s, floor: s.state.revision, head: s.state.revision,
		compacted: s.state.compacted, watchers: make(map[*watcher]struct{}),
	}
}

// append adds a group's changes and wakes those who wait for them.
func (h *hub) append(events []*entry, next state) {
	h.mu.Lock()
	defer h.mu.Unlock()
	kinds := make(map[string]struct{}, 4)
	for _, e := range events {
		h.ring = append(h.ring, e)
		h.bytes += len(e.json)
		kinds[e.key.Kind] = struct{}{}
	}
	drop := 0
	for drop < len(h.ring) && (len(h.ring)-drop > ringEntries || h.bytes > ringBytes) {
		h.bytes -= len(h.ring[drop].json)
		h.floor = h.ring[drop].revision
		drop++
	}
	clear(h.ring[:drop])
	h.ring = h.ring[drop:]
	before := h.head
	h.head, h.compacted = next.revision, next.compacted
	for w := range h.watchers {
		switch {
		case w.wantsAny(kinds):
			w.signal()
		case w.after == before:
			// It has seen all there was, and this is nothing for it. So a
			// watcher of a quiet kind never falls behind the change log.
			w.after = h.head
		}
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for w := range h.watchers {
		w.signal()
	}
}

// watcher is one consumer's place in the changes. It holds no events, so a slow
// consumer costs nothing.
type watcher struct {
	hub       *hub
	kinds     map[string]struct{} // nil for all
	namespace string
	// after is the newest revision that the consumer has seen or need not see;
	// guarded by hub.mu.
	after  uint64
	closed bool // guarded by hub.mu
	wake   chan struct{}
}

// Watch begins after opts.From. ErrGone where that is older than the change log
// or newer than the store (which was then restored from a backup).
func (s *Store) Watch(_ context.Context, opts WatchOptions) (Watcher, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	w := &watcher{hub: s.hub, namespace: opts.Namespace, after: opts.From, wake: make(chan struct{}, 1)}
	if len(opts.Kinds) > 0 {
		w.kinds = make(map[string]struct{}, len(opts.Kinds))
		for _, name := range opts.Kinds {
			if _, err := s.kind(name); err != nil {
				return nil, fmt.Errorf("watch: %w", err)
			}
			w.kinds[name] = struct{}{}
		}
	}
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	switch {
	case s.hub.closed:
		return nil, ErrClosed
	case opts.From == 0:
		w.after = s.hub.head
	case opts.From < s.hub.compacted:
		return nil, fmt.Errorf("watch from revision %d: the change log begins after %d: %w", opts.From, s.hub.compacted, ErrGone)
	case opts.From > s.durable.load():
		return nil, fmt.Errorf("watch from revision %d: the store is at %d: %w", opts.From, s.durable.load(), ErrGone)
	}
	s.hub.watchers[w] = struct{}{}
	return w, nil
}

func (w *watcher) wantsAny(kinds map[string]struct{}) bool {
	if w.kinds == nil {
		return true
	}
	for k := range kinds {
		if _, ok := w.kinds[k]; ok {
			return true
		}
	}
	return false
}

func (w *watcher) wants(key Key) bool {
	if w.namespace != "" && key.Namespace != w.namespace {
		return false
	}
	if w.kinds == nil {
		return true
	}
	_, ok := w.kinds[key.Kind]
	return ok
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Close ends the watch; a Next that waits returns ErrClosed.
func (w *watcher) Close() {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	w.closed = true
	delete(w.hub.watchers, w)
	w.signal()
}

// Next blocks for at least one event and returns all that are ready, up to
// about a thousand, those of one commit always together.
func (w *watcher) Next(ctx context.Context) ([]Event, error) {
	for {
		entries, err := w.ready()
		if err != nil {
			return nil, err
		}
		if len(entries) > 0 {
			return events(entries)
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func events(entries []*entry) ([]Event, error) {
	out := make([]Event, 0, len(entries))
	for _, e := range entries {
		obj, err := e.decoded()
		if err != nil {
			return nil, listAgain(err)
		}
		out = append(out, Event{Type: e.event, Key: e.key, Revision: e.revision, Object: obj})
	}
	return out, nil
}

// ready returns what can be had without waiting and moves the watcher past it.
func (w *watcher) ready() ([]*entry, error) {
	h := w.hub
	for {
		h.mu.Lock()
		switch {
		case w.closed || h.closed:
			h.mu.Unlock()
			return nil, ErrClosed
		case w.after >= h.floor:
			entries, after := w.fromRing()
			w.after = after
			h.mu.Unlock()
			return entries, nil
		case w.after < h.compacted:
			err := fmt.Errorf("watch from revision %d: the change log begins after %d: %w", w.after, h.compacted, ErrGone)
			h.mu.Unlock()
			return nil, err
		}
		from, to := w.after, h.head
		h.mu.Unlock()

		entries, after, err := h.store.readLog(from, to, w.wants)
		if err != nil {
			return nil, listAgain(err)
		}
		h.mu.Lock()
		w.after = max(w.after, after)
		h.mu.Unlock()
		if len(entries) > 0 {
			return entries, nil
		}
	}
}

// listAgain makes damage in the change log what it is for a consumer: a reason
// to list, since the objects themselves may be sound. So are changes that were
// sealed with a key that is no longer used.
func listAgain(err error) error {
	if (errors.Is(err, ErrCorrupt) || errors.Is(err, ErrKey)) && !errors.Is(err, ErrGone) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

// fromRing is called with hub.mu held and after at or past the ring's floor.
func (w *watcher) fromRing() (entries []*entry, after uint64) {
	ring := w.hub.ring
	first := sort.Search(len(ring), func(i int) bool { return ring[i].revision > w.after })
	for i := first; i < len(ring); i++ {
		if len(entries) >= nextEvents && ring[i].revision != ring[i-1].revision {
			return entries, ring[i-1].revision
		}
		if w.wants(ring[i].key) {
			entries = append(entries, ring[i])
		}
	}
	return entries, max(w.after, w.hub.head)
}
