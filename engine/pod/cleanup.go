package pod

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/store"
)

// leftover is what may still exist of a pod that has ended. done, where set, is
// closed when somebody's attempt to clear it up has ended.
type leftover struct {
	containers []runtime.Container
	done       chan struct{}
}

// tidyTries bounds how often the removal of an ended container is tried before
// it is left to the next start.
const tidyTries = 6

// tidyTime bounds the removal of one pod's containers, and with it how long the
// end of a daemon waits for an engine that does not answer.
const tidyTime = 10 * time.Second

// tidy clears up behind a run in the background.
func (c *Controller) tidy(ctx context.Context, r *run) {
	left := &leftover{done: make(chan struct{})}
	r.mu.Lock()
	for _, con := range r.seen {
		if con.ID != "" {
			left.containers = append(left.containers, con)
		}
	}
	removed := r.removed || r.finalized
	r.mu.Unlock()
	c.mu.Lock()
	delete(c.runs, r.item.ID)
	c.leftover[r.item.ID] = left
	c.mu.Unlock()
	c.spawn(func() {
		defer close(left.done)
		// A daemon that ends takes what has ended along: the next one on this
		// state folder may come much later, or never.
		removing, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
		defer cancel()
		if c.discard(removing, left.containers) {
			c.settled(r.item.ID, left)
			if !removed {
				clearFolder(r.dir)
			}
		}
		if !removed {
			c.look(ctx, r.pod()) // it may have been deleted meanwhile
		}
	})
}

// settled forgets leftovers that are gone.
func (c *Controller) settled(uid string, left *leftover) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leftover[uid] == left {
		delete(c.leftover, uid)
	}
}

// discard removes ended containers; false where some are still there.
func (c *Controller) discard(ctx context.Context, list []runtime.Container) bool {
	all := true
	for _, con := range list {
		delay := 100 * time.Millisecond
		for try := 1; ; try++ {
			err := c.discardOne(ctx, con)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return false
			}
			// What is believed of it may be of one before it that had its name, and
			// what lives cannot be removed: from now on it is stopped first.
			con.State = runtime.StateRunning
			if try == tidyTries {
				c.log.Warn("container cannot be removed; it is tried again at the next start", "container", con.Name, "error", err)
				all = false
				break
			}
			if sleep(ctx, delay) != nil {
				return false
			}
			delay = min(2*delay, 5*time.Second)
		}
	}
	return all
}

func (c *Controller) discardOne(ctx context.Context, con runtime.Container) error {
	if stateRank(con.State) < stateRank(runtime.StateLost) {
		if err := c.backend.Stop(ctx, con.ID, 0); err != nil && !errors.Is(err, runtime.ErrNotFound) {
			return err
		}
	}
	return c.backend.Remove(ctx, con.ID)
}

// remove finalizes a pod that has no run, in a goroutine of its own.
func (c *Controller) remove(ctx context.Context, p *core.Pod) {
	c.loop.pods[p.UID] = &record{pod: p, ending: true}
	c.spawn(func() {
		c.mu.Lock()
		left := c.leftover[p.UID]
		c.mu.Unlock()
		if left != nil && left.done != nil {
			select {
			case <-left.done:
			case <-ctx.Done():
				return
			}
		}
		if left == nil || c.discard(ctx, left.containers) {
			if left != nil {
				c.settled(p.UID, left)
			}
			c.finalize(ctx, p, false)
		}
		c.post(ctx, func() { delete(c.loop.pods, p.UID) })
	})
}

// finalize removes what a deleted pod leaves on the host, and then lets the
// object go. A pod with a run still has its containers: they are removed first.
func (c *Controller) finalize(ctx context.Context, p *core.Pod, hasRun bool) {
	if hasRun {
		c.mu.Lock()
		r := c.runs[p.UID]
		c.mu.Unlock()
		if r != nil {
			r.mu.Lock()
			var list []runtime.Container
			for _, con := range r.seen {
				if con.ID != "" {
					con.State = runtime.StateLost // halted before: nothing of it runs
					list = append(list, con)
				}
			}
			r.finalized = true
			r.mu.Unlock()
			c.discard(ctx, list)
		}
	}
	if err := os.RemoveAll(filepath.Join(c.podsDir, p.UID)); err != nil {
		c.log.Warn("folder of a deleted pod is not gone", "pod", title(p), "error", err)
	}
	_, err := c.amend(ctx, amendment{p, func(p *core.Pod) error {
		if !hasFinalizer(p) {
			return errMoot
		}
		kept := p.Finalizers[:0]
		for _, f := range p.Finalizers {
			if f != Finalizer {
				kept = append(kept, f)
			}
		}
		p.Finalizers = kept
		p.Status.Claim = nil
		if !p.Status.Phase.Terminal() {
			p.Status.Phase, p.Status.Reason, p.Status.Message = core.PodFailed, ReasonCancelled, "was deleted"
		}
		return nil
	}})
	if err != nil && !errors.Is(err, errMoot) && ctx.Err() == nil {
		c.log.Error("deleted pod cannot be let go", "pod", title(p), "error", err)
	}
}

// clearFolder empties an ended pod's folder, except for logs and exit records. What is in it is
// not trusted; nothing is followed.
func clearFolder(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		full := filepath.Join(dir, e.Name())
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			_ = os.RemoveAll(full)
			continue
		}
		clearControl(full)
	}
}

// clearControl keeps a control folder's log files and its exit record: those
// who follow the log learn from it that nothing more comes, and it still tells
// the truth where the store had to be restored from a backup.
func clearControl(dir string) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return
	}
	defer func() { _ = root.Close() }()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return
	}
	for _, e := range entries {
		kept := strings.HasPrefix(e.Name(), launch.LogPrefix) || e.Name() == launch.ExitFile
		if !kept || !e.Type().IsRegular() {
			_ = root.RemoveAll(e.Name())
		}
	}
}

// podByUID finds a pod whose name is not known; nil where there is none.
func (c *Controller) podByUID(ctx context.Context, uid string) (*core.Pod, error) {
	page, err := c.store.List(ctx, store.ListOptions{Kind: KindName, Index: IndexUID, Prefix: uid, Exact: true, Limit: 1})
	if err != nil || len(page.Items) == 0 {
		return nil, err
	}
	return page.Items[0].(*core.Pod), nil
}

// clearUp deals with containers that no active pod claims: those of ended pods
// are removed now, those of unknown ones after a grace.
func (c *Controller) clearUp(ctx context.Context, uid string) {
	p, err := c.podByUID(ctx, uid)
	if err != nil {
		return
	}
	c.mu.Lock()
	left, claimed := c.leftover[uid], c.runs[uid] != nil
	c.mu.Unlock()
	if left == nil || claimed {
		return
	}
	if p == nil {
		c.settled(uid, left)
		for _, con := range left.containers {
			c.log.Warn("container belongs to no pod in this store; it is left alone for a while", "container", con.Name, "grace", c.cfg.OrphanGrace)
			c.post(ctx, func() { c.noteStray(ctx, con) })
		}
		return
	}
	if !p.Status.Phase.Terminal() {
		return // its deletion is under way, or it will run again
	}
	if c.discard(ctx, left.containers) {
		c.settled(uid, left)
		clearFolder(filepath.Join(c.podsDir, uid))
	}
}

// noteStray gives a container that nobody claims its grace.
func (c *Controller) noteStray(ctx context.Context, con runtime.Container) {
	uid := con.Labels[core.LabelPodUID]
	if _, known := c.loop.strays[con.ID]; known || c.loop.pods[uid] != nil {
		return
	}
	c.loop.strays[con.ID] = stray{uid, time.AfterFunc(c.cfg.OrphanGrace, func() {
		c.post(ctx, func() {
			delete(c.loop.strays, con.ID)
			if c.loop.pods[uid] == nil {
				c.spawn(func() { c.removeStray(ctx, con) })
			}
		})
	})}
}

// stray is a container that nobody claims, and when its grace ends.
type stray struct {
	uid   string
	timer *time.Timer
}

func (l *loop) hasStray(uid string) bool {
	for _, s := range l.strays {
		if s.uid == uid {
			return true
		}
	}
	return false
}

func (c *Controller) removeStray(ctx context.Context, con runtime.Container) {
	uid := con.Labels[core.LabelPodUID]
	p, err := c.podByUID(ctx, uid)
	if err != nil || (p != nil && !p.Status.Phase.Terminal()) {
		return
	}
	con.State = runtime.StateRunning // whatever it was then: stop it first
	if !c.discard(ctx, []runtime.Container{con}) {
		return
	}
	if p == nil && isFolderName(uid) {
		_ = os.RemoveAll(filepath.Join(c.podsDir, uid))
	}
	c.log.Info("removed a container that belongs to no pod", "container", con.Name)
}

// isFolderName guards paths that are made from labels.
func isFolderName(uid string) bool {
	return uid != "" && uid != "." && uid != ".." && !strings.ContainsAny(uid, "/\x00")
}

// sweepFolders removes the folders of pods that are gone and empties those of
// pods whose end was not cleared up, once after a start. It takes its time.
func (c *Controller) sweepFolders(ctx context.Context) {
	dir, err := os.Open(c.podsDir)
	if err != nil {
		return
	}
	defer func() { _ = dir.Close() }()
	for {
		names, err := dir.Readdirnames(256)
		for _, uid := range names {
			if uid == markFile || uid == spareFolder {
				continue
			}
			if c.sweepFolder(ctx, uid) != nil {
				return
			}
		}
		if err != nil || sleep(ctx, 10*time.Millisecond) != nil {
			return
		}
	}
}

func (c *Controller) sweepFolder(ctx context.Context, uid string) error {
	c.mu.Lock()
	busy := c.runs[uid] != nil || c.leftover[uid] != nil
	c.mu.Unlock()
	if busy {
		return nil
	}
	p, err := c.podByUID(ctx, uid)
	switch {
	case err != nil:
		return err
	case p == nil:
		// A container that is still there keeps its folder until it goes.
		known := make(chan bool, 1)
		c.post(ctx, func() { known <- c.loop.pods[uid] != nil || c.loop.hasStray(uid) })
		select {
		case busy := <-known:
			if !busy {
				_ = os.RemoveAll(filepath.Join(c.podsDir, uid))
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	case p.Status.Phase.Terminal():
		clearFolder(filepath.Join(c.podsDir, uid))
	}
	return nil
}
