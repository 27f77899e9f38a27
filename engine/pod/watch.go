package pod

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/store"
)

// listContainers asks the backend what there is until it answers: an engine
// that is down holds up pods, not the daemon.
func (c *Controller) listContainers(ctx context.Context) ([]runtime.Container, error) {
	for delay := 200 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		caps, err := c.backend.Capabilities(ctx)
		if err == nil {
			c.pulls.Store(caps.Images)
			var list []runtime.Container
			if list, err = c.backend.List(ctx); err == nil {
				return list, nil
			}
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		c.log.Warn("container runtime does not answer, trying again", "backend", c.backend.Name(), "error", err)
		if err := sleep(ctx, delay); err != nil {
			return nil, err
		}
	}
}

// takeUp joins the containers there are with the pods in the store and returns
// the revision from which changes are to be followed.
func (c *Controller) takeUp(ctx context.Context, containers []runtime.Container) (uint64, error) {
	for _, con := range containers {
		uid := con.Labels[core.LabelPodUID]
		left := c.leftover[uid]
		if left == nil {
			left = &leftover{}
			c.leftover[uid] = left
		}
		left.containers = append(left.containers, con)
	}
	revision, err := c.listActive(ctx)
	if err != nil {
		return 0, err
	}
	// Whatever no active pod has claimed is left over from one that ended, or
	// its pod is not in the store at all.
	c.mu.Lock()
	uids := make([]string, 0, len(c.leftover))
	for uid := range c.leftover {
		uids = append(uids, uid)
	}
	c.mu.Unlock()
	for _, uid := range uids {
		c.spawn(func() { c.clearUp(ctx, uid) })
	}
	return revision, nil
}

// listActive offers every active pod to the loop's state. Before the loop runs
// it may be called directly.
func (c *Controller) listActive(ctx context.Context) (uint64, error) {
	opts := store.ListOptions{Kind: KindName, Index: IndexActive, Prefix: active, Exact: true}
	var revision uint64
	for {
		page, err := c.store.List(ctx, opts)
		if err != nil {
			return 0, fmt.Errorf("list pods: %w", err)
		}
		if revision == 0 {
			// What changes between pages comes again by the watch.
			revision = page.Revision
		}
		for _, obj := range page.Items {
			c.offer(ctx, obj.(*core.Pod))
		}
		if page.Continue == "" {
			return revision, nil
		}
		opts.Continue = page.Continue
	}
}

// watchPods follows the pods from a revision on. Its error means that the
// store is of no more use.
func (c *Controller) watchPods(ctx context.Context, from uint64) error {
	for {
		err := c.followPods(ctx, &from)
		switch {
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, store.ErrGone):
			return fmt.Errorf("watch pods: %w", err)
		}
		c.log.Warn("fell behind the store's change log, listing pods again")
		type answer struct {
			revision uint64
			err      error
		}
		done := make(chan answer, 1)
		c.post(ctx, func() {
			revision, err := c.relist(ctx)
			done <- answer{revision, err}
		})
		select {
		case a := <-done:
			if a.err != nil {
				return a.err
			}
			from = a.revision
		case <-ctx.Done():
			return nil
		}
	}
}

// relist offers all active pods again and drops those that are active no more.
func (c *Controller) relist(ctx context.Context) (uint64, error) {
	before := make([]*record, 0, len(c.loop.pods))
	for _, rec := range c.loop.pods {
		before = append(before, rec)
	}
	clear(c.loop.done) // what is listed now is no past
	revision, err := c.listActive(ctx)
	if err != nil {
		return 0, err
	}
	for _, rec := range before {
		obj, err := c.store.Get(ctx, keyOf(rec.pod))
		switch {
		case errors.Is(err, store.ErrNotFound), err == nil && obj.Metadata().UID != rec.pod.UID:
			c.deleted(rec.pod)
		case err != nil:
			return 0, fmt.Errorf("read pod %s: %w", title(rec.pod), err)
		default:
			c.offer(ctx, obj.(*core.Pod))
		}
	}
	return revision, nil
}

func (c *Controller) followPods(ctx context.Context, from *uint64) error {
	w, err := c.store.Watch(ctx, store.WatchOptions{Kinds: []string{KindName}, From: *from})
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return err
		}
		c.post(ctx, func() {
			for i := range events {
				c.changed(ctx, &events[i])
			}
		})
		*from = events[len(events)-1].Revision
	}
}

func (c *Controller) changed(ctx context.Context, e *store.Event) {
	p, isPod := e.Object.(*core.Pod)
	if isPod && (e.Type == store.Deleted || e.Revision >= c.loop.done[p.UID]) {
		delete(c.loop.done, p.UID)
	}
	switch {
	case !isPod:
	case e.Type == store.Deleted:
		c.deleted(p)
	case e.Type == store.Added || e.Type == store.Modified:
		c.offer(ctx, p)
	}
}

// deleted deals with a pod that is gone from the store.
func (c *Controller) deleted(p *core.Pod) {
	rec, known := c.loop.pods[p.UID]
	switch {
	case !known || rec.ending:
	case rec.run != nil:
		rec.run.vanish()
	default:
		c.drop(p.UID)
	}
}

// watchContainers follows the backend for as long as ctx lives.
func (c *Controller) watchContainers(ctx context.Context) {
	c.spawn(func() { c.resync(ctx) })
	for delay := 100 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		began := c.now()
		err := c.backend.Watch(ctx, func(con runtime.Container) { c.observe(ctx, con) })
		if ctx.Err() != nil {
			return
		}
		c.log.Warn("lost sight of the containers, looking again", "backend", c.backend.Name(), "error", err)
		if c.now().Sub(began) > time.Minute {
			delay = 100 * time.Millisecond
		}
		if sleep(ctx, delay) != nil {
			return
		}
		select {
		case c.blind <- struct{}{}:
		default:
		}
	}
}

// resync compares what runs with what the backend has, now and then while
// anything runs: a watch tells of what is there, not of what went away before
// it began. So it looks soon after each beginning.
func (c *Controller) resync(ctx context.Context) {
	timer := time.NewTimer(min(time.Second, c.cfg.ResyncInterval))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.blind:
			timer.Reset(min(time.Second, c.cfg.ResyncInterval))
			continue
		case <-timer.C:
		}
		c.mu.Lock()
		idle := len(c.runs) == 0
		c.mu.Unlock()
		if !idle {
			c.reconcile(ctx)
		}
		timer.Reset(c.cfg.ResyncInterval)
	}
}

// reconcile finds what vanished while nobody watched.
func (c *Controller) reconcile(ctx context.Context) {
	type expected struct {
		run   *run
		names []string
	}
	var all []expected
	c.mu.Lock()
	for _, r := range c.runs {
		all = append(all, expected{r, r.expects()})
	}
	c.mu.Unlock()
	list, err := c.listContainers(ctx)
	if err != nil {
		return
	}
	there := make(map[string]bool, len(list))
	for _, con := range list {
		there[con.Name] = true
		c.observe(ctx, con)
	}
	for _, e := range all {
		for _, name := range e.names {
			if !there[name] {
				e.run.observe(runtime.Container{Name: name, State: runtime.StateLost})
			}
		}
	}
}

// expects are the containers that the backend must know of.
func (r *run) expects() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name, con := range r.seen {
		if con.ID != "" && stateRank(con.State) < stateRank(runtime.StateLost) {
			names = append(names, name)
		}
	}
	return names
}

// observe hands a report of the backend to the run it belongs to.
func (c *Controller) observe(ctx context.Context, con runtime.Container) {
	uid := con.Labels[core.LabelPodUID]
	c.mu.Lock()
	r, left := c.runs[uid], c.leftover[uid]
	c.mu.Unlock()
	switch {
	case r != nil:
		r.observe(con)
	case left == nil && con.State != runtime.StateLost:
		c.post(ctx, func() { c.noteStray(ctx, con) })
	}
}
