package pod

import (
	"cmp"
	"container/heap"
	"context"
	"sync"

	"github.com/skiff-ml/skiff/scheduler"
)

// startGate lets a bounded number of containers be created and started at a
// time; of those that wait, the one first in the scheduler's order goes first.
type startGate struct {
	mu   sync.Mutex
	free int
	line waiters
}

type waiter struct {
	item  scheduler.Item
	ready chan struct{}
	index int
}

func newStartGate(n int) *startGate { return &startGate{free: n} }

// enter waits for a place; its error is ctx's cause.
func (g *startGate) enter(ctx context.Context, item scheduler.Item) error {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return nil
	}
	w := &waiter{item: item, ready: make(chan struct{})}
	heap.Push(&g.line, w)
	g.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.index >= 0 {
		heap.Remove(&g.line, w.index)
	} else {
		// The place came at the same moment: hand it on.
		g.leaveLocked()
	}
	return context.Cause(ctx)
}

func (g *startGate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leaveLocked()
}

func (g *startGate) leaveLocked() {
	if len(g.line) == 0 {
		g.free++
		return
	}
	close(heap.Pop(&g.line).(*waiter).ready)
}

// waiters is a heap in the scheduler's order.
type waiters []*waiter

func (w waiters) Len() int { return len(w) }
func (w waiters) Less(i, j int) bool {
	a, b := &w[i].item, &w[j].item
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), a.Submitted.Compare(b.Submitted), cmp.Compare(a.ID, b.ID)) < 0
}

func (w waiters) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}

// Push implements heap.Interface.
func (w *waiters) Push(x any) {
	one := x.(*waiter)
	one.index = len(*w)
	*w = append(*w, one)
}

// Pop implements heap.Interface.
func (w *waiters) Pop() any {
	old := *w
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*w = old[:len(old)-1]
	last.index = -1
	return last
}
