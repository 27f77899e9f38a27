package artifact

import (
	"context"
	"sync"
)

// DefaultHashWorkers leaves most of the machine to those who compute.
const DefaultHashWorkers = 2

// Result is what a Hasher found.
type Result struct {
	Namespace, URI string
	Digest
	// Err is set where there is no digest.
	Err error
}

// Hasher computes content hashes in the background, a few at a time, so that
// nothing but a cache look-up waits for one. What was added and not yet hashed
// is forgotten with the process: whoever added it does so again.
type Hasher struct {
	repository *Repository
	workers    int

	mu      sync.Mutex
	jobs    []job
	pending map[[2]string]struct{} // queued or under way
	wake    chan struct{}
}

type job struct {
	namespace, uri string
	done           func(context.Context, Result)
}

// NewHasher makes a Hasher with so many workers; 0 means DefaultHashWorkers.
func NewHasher(r *Repository, workers int) *Hasher {
	if workers <= 0 {
		workers = DefaultHashWorkers
	}
	return &Hasher{
		repository: r, workers: workers,
		pending: make(map[[2]string]struct{}), wake: make(chan struct{}, 1),
	}
}

// Add asks for the hash of a committed artifact. done is called from a worker,
// with Run's context, unless that ends first. What is asked for already is not
// asked for twice: then the first one's done is called alone.
func (h *Hasher) Add(namespace, uri string, done func(context.Context, Result)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := [2]string{namespace, uri}
	if _, asked := h.pending[key]; asked {
		return
	}
	h.pending[key] = struct{}{}
	h.jobs = append(h.jobs, job{namespace, uri, done})
	h.signal()
}

// Pending is how many hashes are queued or under way.
func (h *Hasher) Pending() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.pending)
}

// signal is called with mu held.
func (h *Hasher) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends and returns its cause.
func (h *Hasher) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range h.workers {
		workers.Go(func() {
			for {
				j, ok := h.next(ctx)
				if !ok {
					return
				}
				h.hash(ctx, j)
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// next waits for a job.
func (h *Hasher) next(ctx context.Context) (job, bool) {
	for {
		select {
		case <-ctx.Done():
			return job{}, false
		case <-h.wake:
		}
		h.mu.Lock()
		if len(h.jobs) == 0 {
			h.mu.Unlock()
			continue
		}
		j := h.jobs[0]
		h.jobs[0] = job{}
		h.jobs = h.jobs[1:]
		if len(h.jobs) > 0 {
			h.signal() // another worker may be free
		}
		h.mu.Unlock()
		return j, true
	}
}

func (h *Hasher) hash(ctx context.Context, j job) {
	result := Result{Namespace: j.namespace, URI: j.uri}
	result.Digest, result.Err = h.repository.Digest(ctx, j.namespace, j.uri)
	h.mu.Lock()
	delete(h.pending, [2]string{j.namespace, j.uri})
	h.mu.Unlock()
	if ctx.Err() == nil {
		j.done(ctx, result)
	}
}
