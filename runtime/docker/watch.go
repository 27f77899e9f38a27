package docker

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

const (
	// relist is how often everything is compared with the engine's list: events
	// drive all there is, this is the net under them.
	relist = 30 * time.Second
	// An engine that does not answer is asked again after firstRetry, and then
	// ever later up to lastRetry.
	firstRetry, lastRetry = 100 * time.Millisecond, 5 * time.Second
	// oomPatience is how long the engine is waited for where only it can tell
	// that a command was killed for memory.
	oomPatience = 5 * time.Second
)

// watcher is one Watch. The engine's events and lists name containers; each one
// that has not ended has a follower, which listens to its launcher, asks the
// engine when poked, and publishes what it learns.
type watcher struct {
	b    *Backend
	feed host.Feed[runtime.Container]
	ctx  context.Context //nolint:containedctx // It is the life of the followers, which the watcher owns.
	wg   sync.WaitGroup

	mu        sync.Mutex
	followers map[string]*follower // every container there is, ended ones too
}

// follower knows one container. The watcher's lock protects it.
type follower struct {
	meta meta
	last runtime.Container
	wake chan struct{} // holds at most one token
	stop context.CancelFunc
}

// Watch calls fn for every container there is and then for each change.
func (b *Backend) Watch(ctx context.Context, fn func(runtime.Container)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watcher{b: b, ctx: ctx, followers: map[string]*follower{}}
	b.mu.Lock()
	b.watchers[w] = struct{}{}
	b.mu.Unlock()
	w.wg.Go(w.keepUp)
	err := w.feed.Watch(ctx, fn)
	b.mu.Lock()
	delete(b.watchers, w)
	b.mu.Unlock()
	cancel(err)
	w.wg.Wait()
	return err
}

// keepUp stays subscribed to the engine until the watch ends.
func (w *watcher) keepUp() {
	retry := firstRetry
	for told := false; ; {
		lived, err := w.session()
		if w.ctx.Err() != nil {
			return
		}
		w.b.lostEngine()
		if lived {
			retry, told = firstRetry, false
		}
		if !told {
			w.b.cfg.Logger.Warn("engine does not answer, trying again", "host", w.b.cfg.Host, "error", err)
			told = true
		}
		timer := time.NewTimer(retry)
		select {
		case <-w.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		retry = min(2*retry, lastRetry)
	}
}

// session is one subscription: a list once it stands, so that nothing is
// missed, then events. lived says that both worked.
func (w *watcher) session() (lived bool, err error) {
	if _, err := w.b.reach(w.ctx); err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	stream, err := w.b.api.Events(ctx, core.LabelStore+"="+w.b.cfg.StoreID, time.Time{})
	if err != nil {
		return false, err
	}
	if err := w.compare(ctx); err != nil {
		return false, err
	}
	ticker := time.NewTicker(relist)
	defer ticker.Stop()
	for {
		select {
		case e, ok := <-stream.Events:
			if !ok {
				return true, stream.Err()
			}
			w.event(e)
		case <-ticker.C:
			if err := w.compare(ctx); err != nil {
				return true, err
			}
		}
	}
}

// compare brings the followers up to the engine's list.
func (w *watcher) compare(ctx context.Context) error {
	before := w.names()
	list, err := w.b.List(ctx)
	if err != nil {
		return err
	}
	for _, c := range list {
		delete(before, c.ID)
		w.learn(metaOfLabels(c.ID, c.Name, c.Labels), c)
	}
	for id, ended := range before {
		if ended {
			w.drop(id)
		} else {
			w.poke(id) // its inspect will say that it is gone
		}
	}
	return nil
}

// names returns the ids that are known, and whether each has ended.
func (w *watcher) names() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := make(map[string]bool, len(w.followers))
	for id, f := range w.followers {
		ids[id] = terminal(f.last.State)
	}
	return ids
}

// event acts on one word of the engine. A start needs no answer: the launcher
// speaks for itself.
func (w *watcher) event(e dockerapi.Event) {
	m := metaOfLabels(e.ID, e.Labels["name"], userLabels(e.Labels))
	switch e.Action {
	case "create":
		if !w.b.isGone(e.ID) {
			w.b.remember(m)
			w.learn(m, facts{meta: m}.container(runtime.StateCreated))
		}
	case "die", "oom", "rename":
		w.poke(e.ID)
	case "destroy":
		w.destroyed(e.ID)
	}
}

// userLabels drops what the engine adds to an event beside the labels.
func userLabels(attributes map[string]string) map[string]string {
	labels := make(map[string]string, len(attributes))
	for k, v := range attributes {
		if k != "name" && k != "image" {
			labels[k] = v
		}
	}
	return labels
}

// destroyed: one that had ended is forgotten, of another it must be learnt what
// became of it.
func (w *watcher) destroyed(id string) {
	w.mu.Lock()
	f := w.followers[id]
	w.mu.Unlock()
	if f == nil {
		return
	}
	if w.b.isGone(id) || w.names()[id] {
		w.drop(id)
		return
	}
	w.poke(id)
}

// learn takes news of a container and follows it from then on.
func (w *watcher) learn(m meta, c runtime.Container) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.followers[m.id]
	if f == nil {
		f = &follower{meta: m, wake: make(chan struct{}, 1), stop: func() {}}
		w.followers[m.id] = f
		if !terminal(c.State) && w.ctx.Err() == nil {
			ctx, cancel := context.WithCancel(w.ctx)
			f.stop = cancel
			w.wg.Go(func() { defer cancel(); w.follow(ctx, f) })
		}
	}
	w.publish(f, c)
}

// publish reports what is news; the caller holds the lock. News from different
// sources cross: a state is never followed by an earlier one.
func (w *watcher) publish(f *follower, c runtime.Container) {
	if w.followers[f.meta.id] != f {
		return // removed by us in the meantime
	}
	was, is := rank(f.last.State), rank(c.State)
	if was == finalRank || is < was {
		return
	}
	if c.IP == "" {
		c.IP = f.last.IP
	}
	if is == was && c.Held == nil {
		c.Held = f.last.Held // looked at before it was
	}
	if is == was && c.IP == f.last.IP && c.Name == f.last.Name && (c.Held == nil) == (f.last.Held == nil) {
		return
	}
	f.last = c
	w.feed.Publish(c.ID, c)
	if terminal(c.State) {
		f.stop()
	}
}

// poke makes a follower look again.
func (w *watcher) poke(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.followers[id]; f != nil {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// drop forgets a container.
func (w *watcher) drop(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.followers[id]; f != nil {
		f.stop()
		delete(w.followers, id)
		w.feed.Forget(id)
	}
}

// follow learns of one container until it has ended.
func (w *watcher) follow(ctx context.Context, f *follower) {
	words := make(chan host.Status)
	var listen sync.WaitGroup
	defer listen.Wait()
	listen.Go(func() {
		err := w.b.host.Follow(ctx, f.meta.control, func(s host.Status) {
			select {
			case words <- s:
			case <-ctx.Done():
			}
		})
		if err != nil && ctx.Err() == nil && !errors.Is(err, host.ErrClosed) {
			w.b.cfg.Logger.Warn("cannot listen to a launcher", "container", f.meta.name, "error", err)
			w.poke(f.meta.id)
		}
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
			w.look(ctx, f)
		case s := <-words:
			w.heard(ctx, f, s)
		}
	}
}

// look asks the engine and the disk.
func (w *watcher) look(ctx context.Context, f *follower) {
	c, err := w.b.observe(ctx, f.meta)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, runtime.ErrUnavailable) {
			w.b.cfg.Logger.Warn("cannot tell where a container stands", "container", f.meta.name, "error", err)
		}
		return // the next list asks again
	}
	w.learn(f.meta, c)
}

// heard takes a launcher's word.
func (w *watcher) heard(ctx context.Context, f *follower, s host.Status) {
	w.mu.Lock()
	ip := f.last.IP
	w.mu.Unlock()
	known := facts{meta: f.meta, ip: ip}
	switch {
	case s.Exit != nil && s.Exit.Reason == launch.ReasonError && s.Exit.Signal == int(syscall.SIGKILL):
		w.learn(f.meta, exited(w.whoKilled(ctx, known), s.Exit))
	case s.Exit != nil:
		w.learn(f.meta, exited(known, s.Exit))
	case s.Lost:
		// The engine will say so in an instant, and why.
		_ = w.b.api.ContainerWait(ctx, f.meta.id) // Its answer proves nothing; what follows does.
		w.look(ctx, f)
	case ip == "" && known.labels[labelControl] != "":
		w.look(ctx, f) // also the address
		w.learn(f.meta, running(known, s))
	default:
		w.learn(f.meta, running(known, s))
	}
}

// whoKilled asks the engine whether it was the kernel for memory, for launchers
// that cannot see their control group's counter.
func (w *watcher) whoKilled(ctx context.Context, f facts) facts {
	ctx, cancel := context.WithTimeout(ctx, oomPatience)
	defer cancel()
	if err := w.b.api.ContainerWait(ctx, f.id); err != nil {
		return f
	}
	c, err := w.b.api.ContainerInspect(ctx, f.id)
	if err != nil {
		return f
	}
	f.oom = c.State.OOMKilled
	return f
}

// finalRank is the rank of the states that nothing follows.
const finalRank = 4

// rank orders the states; an unknown one comes before all.
func rank(s runtime.State) int {
	switch s {
	case runtime.StateCreated:
		return 1
	case runtime.StateWaiting:
		return 2
	case runtime.StateRunning:
		return 3
	case runtime.StateExited, runtime.StateLost:
		return finalRank
	}
	return 0
}

func terminal(s runtime.State) bool { return rank(s) == finalRank }
