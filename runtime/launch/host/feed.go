package host

import (
	"context"
	"sync"
)

// Feed hands the latest state of many things to many watchers. A slow watcher
// sees fewer steps of a thing, but always its last state. The zero Feed is ready.
type Feed[V any] struct {
	mu       sync.Mutex
	latest   map[string]V
	watchers map[*feedWatcher[V]]struct{}
}

type feedWatcher[V any] struct {
	pending map[string]V
	order   []string
	wake    chan struct{}
}

// Publish sets the state of the thing named key.
func (f *Feed[V]) Publish(key string, v V) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.latest == nil {
		f.latest = map[string]V{}
	}
	f.latest[key] = v
	for w := range f.watchers {
		w.put(key, v)
	}
}

// Forget drops a thing: watchers to come will not hear of it.
func (f *Feed[V]) Forget(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.latest, key)
}

// Watch calls fn with the state of each thing there is and then with each
// change, one call at a time, until ctx ends; it returns ctx's cause.
func (f *Feed[V]) Watch(ctx context.Context, fn func(V)) error {
	w := &feedWatcher[V]{pending: map[string]V{}, wake: make(chan struct{}, 1)}
	f.mu.Lock()
	for key, v := range f.latest {
		w.put(key, v)
	}
	if f.watchers == nil {
		f.watchers = map[*feedWatcher[V]]struct{}{}
	}
	f.watchers[w] = struct{}{}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.watchers, w)
		f.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.wake:
		}
		for {
			f.mu.Lock()
			if len(w.order) == 0 {
				f.mu.Unlock()
				break
			}
			key := w.order[0]
			w.order = w.order[1:]
			v := w.pending[key]
			delete(w.pending, key)
			f.mu.Unlock()
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			fn(v)
		}
	}
}

// put queues a state; the caller holds the feed's lock.
func (w *feedWatcher[V]) put(key string, v V) {
	if _, queued := w.pending[key]; !queued {
		w.order = append(w.order, key)
	}
	w.pending[key] = v
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
