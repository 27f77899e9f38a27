package pod

import (
	"cmp"
	"context"
	"errors"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
)

// A gated pod's container may be created and started before the pod is admitted:
// its launcher then waits, and the command reaches it milliseconds after the
// grant. Such a pod is warm. It holds memory, but no claim, so there is a bound
// on how many there are; and it is no more than an attempt: where no container
// can be made, the pod begins anew when its turn comes, and where one is lost
// the pod has failed by no fault of its user's, at no cost to anybody's retries.

// errCold breaks off the work of a warm pod that is no use any more.
var errCold = errors.New("the waiting container has ended")

// warmable says whether a gated pod may be warm.
func warmable(p *core.Pod) bool {
	return len(p.Spec.SchedulingGates) == 1 && p.Spec.SchedulingGates[0].Name == core.GateInputs && startable(p)
}

// startable says whether everything that is fixed at a container's creation is
// known of a pod without a claim. Devices are granted later, a deadline runs from
// the grant, and an image that is to be pulled each time is pulled then.
func startable(p *core.Pod) bool {
	if len(p.Spec.InitContainers) > 0 || len(p.Spec.Containers) != 1 || p.Spec.ActiveDeadlineSeconds != nil || !hasFinalizer(p) {
		return false
	}
	c := &p.Spec.Containers[0]
	return deviceCount(c) == 0 && c.ImagePullPolicy != string(runtime.PullAlways)
}

// warmUp has the container of a gated pod wait, or puts the pod in the line of
// those that would.
func (c *Controller) warmUp(ctx context.Context, rec *record) {
	if rec.run != nil || c.cfg.WarmPods <= 0 || c.isCold(rec.pod.UID) || stopAsked(rec.pod) != nil || !warmable(rec.pod) {
		return
	}
	if c.loop.warm >= c.cfg.WarmPods {
		c.loop.line[rec.pod.UID] = rec
		return
	}
	delete(c.loop.line, rec.pod.UID)
	c.loop.warm++
	rec.warm = true
	rec.run = c.newRun(rec.pod, rec.item)
	c.register(rec.run)
	c.spawn(func() { rec.run.live(ctx) })
}

func (c *Controller) isCold(uid string) bool {
	_, cold := c.loop.cold[uid]
	return cold
}

// cooled says that a pod is warm no more: it was admitted, or has ended. The
// next in the line takes its place.
func (c *Controller) cooled(ctx context.Context, rec *record) {
	if !rec.warm {
		return
	}
	rec.warm = false
	c.loop.warm--
	var next *record
	for _, other := range c.loop.line {
		if next == nil || older(other.pod, next.pod) {
			next = other
		}
	}
	if next != nil {
		c.warmUp(ctx, next)
	}
}

// older orders pods by their age.
func older(a, b *core.Pod) bool {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp), cmp.Compare(a.UID, b.UID)) < 0
}

// ungated queues a warm pod whose gate was lifted.
func (c *Controller) ungated(rec *record) {
	p := rec.pod
	if !rec.warm || rec.queued || gated(p) || stopAsked(p) != nil || p.Status.Phase.Terminal() {
		return
	}
	item, _, err := c.admissible(p)
	if err != nil {
		rec.run.interrupt(errCold) // it is refused as any other pod, without its container
		return
	}
	rec.item, rec.queued = item, true
	c.loop.sched.Submit(item)
	c.loop.stale = true
}

// asked says that the pod's turn has come: what goes wrong is then told, and is
// the pod's end.
func (r *run) asked() bool { return r.admitted || r.granted }

// warming says that the pod is not admitted yet.
func (r *run) warming() bool { return r.pod().Status.Claim == nil }

// interrupt breaks the work off, also where it has yet to begin.
func (r *run) interrupt(cause error) {
	r.mu.Lock()
	r.broken = cause
	cancel := r.cancel
	r.mu.Unlock()
	if cancel != nil {
		cancel(cause)
	}
}

// awaitAdmission waits until the pod may run: its gates are lifted and it has
// its claim. What guards the gate, the command, is read after that.
func (r *run) awaitAdmission(ctx context.Context, u *unit) error {
	for {
		p := r.pod()
		if !gated(p) && p.Status.Claim != nil {
			break
		}
		if r.ended(u) {
			return errCold
		}
		if err := r.wait(ctx, nil); err != nil {
			return err
		}
	}
	if r.admitted {
		return nil
	}
	r.admitted = true
	p := r.pod()
	for i := range p.Spec.Containers { // a warm pod has no others
		if p.Spec.Containers[i].Name == u.container.Name {
			u.container = &p.Spec.Containers[i]
		}
	}
	return nil
}

// brokeWhileWarm deals with work that ended in an error before the pod was
// admitted. It returns the ending where the pod has to end all the same, and
// false where it begins anew when its turn comes. Nothing of a pod is made twice
// under one name, so it begins anew only where no container was made.
func (r *run) brokeWhileWarm(ctx context.Context, why error) (*ending, bool) {
	if p := r.pod(); r.deleting() || stopAsked(p) != nil {
		return r.interrupted(why), true
	}
	if !r.halt(ctx) {
		return nil, false
	}
	r.mu.Lock()
	made := len(r.seen) > 0
	r.mu.Unlock()
	if made || !r.warming() {
		return &ending{reason: ReasonLost, infrastructure: true, message: "the container that waited for its command was lost: " + why.Error()}, true
	}
	r.chill(ctx, why)
	return nil, false
}

// chill has a pod of which no container waits begin anew when its turn comes.
func (r *run) chill(ctx context.Context, why error) {
	r.c.log.Debug("no container waits for a pod", "pod", title(r.pod()), "reason", why)
	r.c.post(ctx, func() {
		c := r.c
		c.unregister(r)
		rec := c.loop.pods[r.item.ID]
		if rec == nil || rec.run != r {
			return
		}
		c.cooled(ctx, rec)
		if !rec.admitting {
			c.loop.sched.Withdraw(r.item.ID)
		}
		delete(c.loop.pods, r.item.ID)
		c.loop.cold[r.item.ID] = struct{}{}
		c.look(ctx, r.pod())
	})
}
