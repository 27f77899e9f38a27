package pipeline

import (
	"context"
	"sync"
)

// mailbox is an unbounded queue of events for one execution. Unbounded, because
// whoever posts (the watch of all runs) must never wait for one of them; what
// can be in it is bounded by the run's own pods.
type mailbox struct {
	mu    sync.Mutex
	queue []event
	ring  chan struct{}
}

func newMailbox() *mailbox { return &mailbox{ring: make(chan struct{}, 1)} }

func (m *mailbox) post(e event) {
	m.mu.Lock()
	m.queue = append(m.queue, e)
	m.mu.Unlock()
	select {
	case m.ring <- struct{}{}:
	default:
	}
}

// take waits for events and returns all there are.
func (m *mailbox) take(ctx context.Context) ([]event, error) {
	for {
		m.mu.Lock()
		batch := m.queue
		m.queue = nil
		m.mu.Unlock()
		if len(batch) > 0 {
			return batch, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-m.ring:
		}
	}
}
