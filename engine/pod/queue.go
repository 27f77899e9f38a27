package pod

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/scheduler"
)

// offer takes in a pod as the store has it: new, changed, or seen again.
func (c *Controller) offer(ctx context.Context, p *core.Pod) {
	rec, known := c.loop.pods[p.UID]
	switch {
	case revisionOf(p) < c.loop.done[p.UID]:
		// From before its end.
	case known && rec.run != nil:
		if revisionOf(p) > revisionOf(rec.pod) {
			rec.pod = p
		}
		rec.run.update(p)
		c.ungated(rec)
	case known && rec.ending:
		if revisionOf(p) > revisionOf(rec.pod) {
			rec.pod = p
		}
	case known && revisionOf(p) < revisionOf(rec.pod):
	case p.Status.Phase.Terminal():
		c.drop(p.UID)
		if p.DeletionTimestamp != nil && hasFinalizer(p) {
			c.remove(ctx, p)
		}
	case p.Status.Claim != nil:
		c.adopt(ctx, p)
	case p.DeletionTimestamp != nil:
		c.drop(p.UID)
		if hasFinalizer(p) {
			c.remove(ctx, p)
		}
	default:
		c.enqueue(ctx, p)
	}
}

// drop forgets a pod that the loop has no more work with.
func (c *Controller) drop(uid string) {
	delete(c.loop.cold, uid)
	delete(c.loop.line, uid)
	if _, known := c.loop.pods[uid]; known {
		delete(c.loop.pods, uid)
		c.loop.sched.Withdraw(uid)
		c.loop.stale = true
	}
}

// enqueue puts a pod that waits for its grant into the queue, or refuses it.
func (c *Controller) enqueue(ctx context.Context, p *core.Pod) {
	rec, known := c.loop.pods[p.UID]
	if !known {
		rec = &record{written: scheduler.Wait{Reason: p.Status.Reason, Sentence: p.Status.Message}}
		c.loop.pods[p.UID] = rec
	}
	rec.pod = p
	item, reason, err := c.admissible(p)
	if stopAsked(p) != nil {
		reason, err = ReasonCancelled, errors.New("was stopped on request before it started")
	}
	switch {
	case err != nil:
		c.refuse(ctx, rec, reason, err.Error())
	case gated(p):
		c.loop.sched.Withdraw(p.UID)
		rec.item = item
		c.warmUp(ctx, rec)
	default:
		old := rec.item
		rec.item = item
		if !known || !rec.queued || old.Priority != item.Priority {
			rec.queued = true
			delete(c.loop.line, p.UID)
			c.loop.sched.Submit(item)
			c.loop.stale = true
		}
	}
}

// admissible is what a pod asks the scheduler for. The error says, with its
// reason, why it can never be admitted here.
func (c *Controller) admissible(p *core.Pod) (item scheduler.Item, reason string, err error) {
	if item, err = c.itemOf(p); err != nil {
		return item, ReasonInvalid, err
	}
	c.mu.Lock()
	node := c.node
	c.mu.Unlock()
	if err := scheduler.Fits(node, item.Demand); err != nil {
		return item, ReasonUnschedulable, fmt.Errorf("%w; ask for less, or run it on a larger machine", err)
	}
	return item, "", nil
}

// itemOf resolves a pod into what the scheduler needs to know.
func (c *Controller) itemOf(p *core.Pod) (scheduler.Item, error) {
	if err := check(&p.Spec); err != nil {
		return scheduler.Item{}, err
	}
	demand, err := Demand(&p.Spec, c.defaults())
	if err != nil {
		return scheduler.Item{}, err
	}
	item := scheduler.Item{ID: p.UID, Name: title(p), Namespace: p.Namespace, Demand: demand, Submitted: p.CreationTimestamp}
	if p.Spec.Priority != nil {
		item.Priority = *p.Spec.Priority
	}
	if ext := p.Spec.Skiff; ext != nil {
		item.Gang, item.GangSize = ext.Gang, ext.GangSize
	}
	return item, nil
}

// refuse makes a pod fail that never got a claim.
func (c *Controller) refuse(ctx context.Context, rec *record, reason, message string) {
	c.loop.sched.Withdraw(rec.pod.UID)
	rec.ending = true
	p := rec.pod
	c.spawn(func() {
		_, err := c.amend(ctx, amendment{p, func(p *core.Pod) error { return failNow(p, reason, message, c.now()) }})
		if err != nil && !errors.Is(err, errMoot) {
			return
		}
		c.clearUp(ctx, p.UID) // a container that waited for it, before a restart
		c.post(ctx, func() {
			c.drop(p.UID)
			c.look(ctx, p)
		})
	})
}

// look reads a pod again whose handling ended while changes came in.
func (c *Controller) look(ctx context.Context, p *core.Pod) {
	c.spawn(func() {
		pods := []*core.Pod{p}
		if err := c.refresh(ctx, pods); err != nil {
			return
		}
		if fresh := pods[0]; !fresh.Status.Phase.Terminal() || fresh.DeletionTimestamp != nil {
			c.post(ctx, func() { c.offer(ctx, fresh) })
		}
	})
}

// adopt takes up a pod whose claim is in force, as after a restart.
func (c *Controller) adopt(ctx context.Context, p *core.Pod) {
	item, err := c.itemOf(p)
	if err != nil {
		// It was let in once; it only has to be brought to an end.
		item = scheduler.Item{ID: p.UID, Name: title(p), Namespace: p.Namespace, Submitted: p.CreationTimestamp}
	}
	if err := c.loop.sched.Adopt(grantOf(p), item); err != nil {
		c.log.Error("claims in the store contradict each other", "pod", title(p), "error", err)
	}
	c.loop.stale = true
	rec := &record{pod: p, item: item, run: c.newRun(p, item)}
	c.loop.pods[p.UID] = rec
	c.register(rec.run)
	c.spawn(func() { rec.run.live(ctx) })
}

// register lets observations and other goroutines find the run, and gives it
// what was listed of its containers.
func (c *Controller) register(r *run) {
	c.mu.Lock()
	c.runs[r.item.ID] = r
	left := c.leftover[r.item.ID]
	delete(c.leftover, r.item.ID)
	c.mu.Unlock()
	if left != nil {
		for _, con := range left.containers {
			r.observe(con)
		}
	}
}

func grantOf(p *core.Pod) scheduler.Grant {
	claim := p.Status.Claim
	return scheduler.Grant{
		ID: p.UID, CPUMilli: claim.CPUMilli, Memory: claim.MemoryBytes,
		GPUs: claim.GPUs, Pools: claim.Pools, HostPorts: claim.HostPorts,
	}
}

// schedule asks for a decision and sets it going.
func (c *Controller) schedule(ctx context.Context) {
	decision := c.loop.sched.Decide(c.now())
	gangs := make(map[string][]admission)
	var order []string
	for _, g := range decision.Grants {
		rec := c.loop.pods[g.ID]
		rec.admitting = true
		warm := rec.run != nil
		switch {
		case warm:
			c.cooled(ctx, rec)
		case rec.item.Gang == "" && startable(rec.pod):
			// Its container is made while the claim becomes durable.
			rec.run = c.newRun(rec.pod, rec.item)
			rec.run.admitted, rec.run.granted = false, true
			c.register(rec.run)
			c.spawn(func() { rec.run.live(ctx) })
			warm = true
		default:
			rec.run = c.newRun(rec.pod, rec.item)
			c.register(rec.run)
		}
		delete(c.loop.cold, g.ID)
		key := g.ID
		if rec.item.Gang != "" {
			key = "gang/" + rec.item.Namespace + "/" + rec.item.Gang
		}
		if gangs[key] == nil {
			order = append(order, key)
		}
		gangs[key] = append(gangs[key], admission{rec: rec, run: rec.run, warm: warm, grant: g})
	}
	for _, key := range order {
		batch := gangs[key]
		c.spawn(func() { c.admit(ctx, batch) })
	}
	for _, w := range decision.Waits {
		c.noteWait(w)
	}
	if len(decision.Waits) > 0 {
		c.loop.again.Reset(reorderInterval)
	} else {
		c.loop.again.Stop()
	}
}

// admission is a grant on its way into the store.
type admission struct {
	rec *record
	run *run
	// warm: the run lives already.
	warm  bool
	grant scheduler.Grant
}

// admit makes grants durable, a gang's in one transaction, and lets the pods
// live. It is the goroutine of the first pod's life.
func (c *Controller) admit(ctx context.Context, batch []admission) {
	now := c.now()
	list := make([]amendment, len(batch))
	for i, a := range batch {
		list[i] = amendment{a.run.pod(), func(p *core.Pod) error { return admitted(p, a.grant, c.unmatched(p), now) }}
	}
	pods, err := c.amend(ctx, list...)
	switch {
	case err == nil:
		for i, a := range batch {
			a.run.update(pods[i])
			if i > 0 && !a.warm {
				c.spawn(func() { a.run.live(ctx) })
			}
		}
		if !batch[0].warm {
			batch[0].run.live(ctx)
		}
	case ctx.Err() == nil:
		// One of them was deleted or stopped meanwhile: take the grants back and
		// look at each anew.
		c.post(ctx, func() {
			for _, a := range batch {
				c.loop.sched.Release(a.grant.ID)
				if a.warm && a.rec.run == a.run && c.loop.pods[a.grant.ID] == a.rec {
					a.rec.admitting, a.rec.queued = false, false
					if a.run.granted {
						a.run.interrupt(errCold)
					}
					continue // its run ends it
				}
				c.unregister(a.run)
				delete(c.loop.pods, a.grant.ID)
				c.look(ctx, a.run.pod())
			}
			c.loop.stale = true
		})
	}
}

// admitted records a grant in the pod, with a note for people.
func admitted(p *core.Pod, g scheduler.Grant, note string, now time.Time) error {
	if stopAsked(p) != nil || p.Status.Phase.Terminal() || p.Status.Claim != nil || gated(p) {
		return errMoot
	}
	if !hasFinalizer(p) {
		p.Finalizers = append(p.Finalizers, Finalizer)
	}
	p.Status.Phase = core.PodPending
	p.Status.Reason, p.Status.Message = "", note
	p.Status.StartTime = now.UTC()
	p.Status.Claim = &core.Claim{
		CPUMilli: g.CPUMilli, MemoryBytes: g.Memory, GPUs: g.GPUs, Pools: g.Pools, HostPorts: g.HostPorts, GrantedAt: now.UTC(),
	}
	setCondition(p, "PodScheduled", true, "", note, now)
	return nil
}

func (c *Controller) unregister(r *run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.runs[r.item.ID] == r {
		delete(c.runs, r.item.ID)
	}
}

// released takes back what an ended pod held, and cleans up behind it. It runs
// in the loop, after the end is durable.
func (c *Controller) released(ctx context.Context, r *run) {
	c.loop.sched.Withdraw(r.item.ID) // a warm pod that was stopped in the queue
	c.loop.sched.Release(r.item.ID)
	if rec := c.loop.pods[r.item.ID]; rec != nil {
		c.cooled(ctx, rec)
	}
	delete(c.loop.pods, r.item.ID)
	delete(c.loop.cold, r.item.ID)
	c.loop.stale = true
	r.mu.Lock()
	switch {
	case r.removed: // nothing more will be shown of it
	case r.finalized:
		c.loop.done[r.item.ID] = math.MaxUint64 // until its deletion is shown
	default:
		c.loop.done[r.item.ID] = revisionOf(r.newest)
	}
	r.mu.Unlock()
	c.tidy(ctx, r)
}

// noteWait remembers why a pod waits, to be written when there is time.
func (c *Controller) noteWait(w scheduler.Wait) {
	rec := c.loop.pods[w.ID]
	if rec == nil || rec.ending {
		return
	}
	rec.wait = w
	if !rec.dirty && (w.Reason != rec.written.Reason || w.Sentence != rec.written.Sentence) {
		rec.dirty = true
		if len(c.loop.news) == 0 {
			c.loop.flush.Reset(waitInterval)
		}
		c.loop.news = append(c.loop.news, rec)
	}
}

// writeWaits writes the waiting sentences that changed, a bounded number at a
// time and each pod's not too often.
func (c *Controller) writeWaits(ctx context.Context) {
	now := c.now()
	var later, batch []*record
	for i, rec := range c.loop.news {
		if len(batch) == waitBatch {
			later = append(later, c.loop.news[i:]...)
			break
		}
		same := rec.wait.Reason == rec.written.Reason && rec.wait.Sentence == rec.written.Sentence
		switch current := c.loop.pods[rec.pod.UID]; {
		case current != rec || rec.run != nil || rec.ending || same:
			rec.dirty = false
		case now.Sub(rec.writtenAt) < messageInterval:
			later = append(later, rec)
		default:
			rec.dirty, rec.written, rec.writtenAt = false, rec.wait, now
			batch = append(batch, rec)
		}
	}
	c.loop.news = later
	if len(later) > 0 {
		c.loop.flush.Reset(waitInterval)
	}
	if len(batch) == 0 {
		return
	}
	pods := make([]*core.Pod, len(batch))
	waits := make([]scheduler.Wait, len(batch))
	for i, rec := range batch {
		pods[i], waits[i] = rec.pod, rec.wait
	}
	c.spawn(func() { c.tell(ctx, pods, waits) })
}

// tell writes sentences, several side by side so that they share syncs.
func (c *Controller) tell(ctx context.Context, pods []*core.Pod, waits []scheduler.Wait) {
	now := c.now()
	const together = 16
	next := make(chan int)
	workers := min(together, len(pods))
	done := make(chan struct{})
	for range workers {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range next {
				// What fails here is told again with the next change.
				_, _ = c.amend(ctx, amendment{pods[i], func(p *core.Pod) error { return waiting(p, waits[i], now) }})
			}
		}()
	}
	for i := range pods {
		next <- i
	}
	close(next)
	for range workers {
		<-done
	}
}

func waiting(p *core.Pod, w scheduler.Wait, now time.Time) error {
	if p.Status.Claim != nil || p.Status.Phase.Terminal() {
		return errMoot
	}
	p.Status.Phase = core.PodPending
	p.Status.Reason, p.Status.Message = w.Reason, w.Sentence
	setCondition(p, "PodScheduled", false, ReasonUnschedulable, w.Sentence, now)
	return nil
}

// check refuses what a pod may never ask for here, and what makes no sense.
func check(spec *core.PodSpec) error {
	if len(spec.Containers) == 0 {
		return errors.New("spec.containers: a pod needs at least one container")
	}
	if spec.HostNetwork || spec.HostPID || spec.HostIPC {
		return errors.New("spec.hostNetwork, hostPID and hostIPC are not allowed: a container has namespaces of its own; remove the field")
	}
	var names []string
	for _, list := range [][]core.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			name := list[i].Name
			if !isDNSLabel(name) {
				return fmt.Errorf("container name %q: want lower-case letters, digits and '-', at most 63", name)
			}
			if slices.Contains(names, name) {
				return fmt.Errorf("container name %q is used twice", name)
			}
			if s := list[i].SecurityContext; s != nil && s.Privileged != nil && *s.Privileged {
				return fmt.Errorf("container %s: securityContext.privileged is not allowed; remove it", name)
			}
			if list[i].Image == "" {
				return fmt.Errorf("container %s: image is required", name)
			}
			names = append(names, name)
		}
	}
	if err := lookable(spec); err != nil {
		return err
	}
	if s := spec.ActiveDeadlineSeconds; s != nil && *s < 0 {
		return fmt.Errorf("spec.activeDeadlineSeconds: must not be negative, is %d", *s)
	}
	return nil
}

// isDNSLabel also keeps container names apart from this package's own files in
// a pod's folder, which start with a dot.
func isDNSLabel(name string) bool {
	if name == "" || len(name) > 63 || name[0] == '-' || name[len(name)-1] == '-' {
		return false
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return true
}
