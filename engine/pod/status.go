package pod

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// Reasons in a pod's status, beside those of exit records (runtime/launch).
const (
	ReasonInvalid          = "InvalidPod"
	ReasonUnschedulable    = "Unschedulable"
	ReasonCancelled        = "Cancelled"
	ReasonDeadline         = "DeadlineExceeded"
	ReasonErrImagePull     = "ErrImagePull"
	ReasonImageBackOff     = "ImagePullBackOff"
	ReasonPulling          = "PullingImage"
	ReasonErrNeverPull     = "ErrImageNeverPull"
	ReasonImageUnavailable = "ErrImageUnavailable"
	ReasonConfig           = "CreateContainerConfigError"
	ReasonCreate           = "CreateContainerError"
	ReasonStart            = "StartError"
	ReasonPolicy           = "PolicyViolation"
	ReasonRuntime          = "RuntimeUnavailable"
	ReasonLost             = "ContainerLost"
)

// errMoot ends an amendment of a pod that is gone, or no longer what it was
// thought to be.
var errMoot = errors.New("the pod has gone on without this")

// clone copies what this package changes of a pod; the rest is shared, since
// nobody may modify an object that came from the store.
func clone(p *core.Pod) *core.Pod {
	next := *p
	next.Finalizers = slices.Clone(p.Finalizers)
	next.Status.Conditions = slices.Clone(p.Status.Conditions)
	next.Status.ContainerStatuses = slices.Clone(p.Status.ContainerStatuses)
	if p.Status.Skiff != nil {
		result := *p.Status.Skiff
		result.Outputs = maps.Clone(result.Outputs)
		next.Status.Skiff = &result
	}
	return &next
}

// amendment changes one pod; change returns errMoot to leave it alone.
type amendment struct {
	pod    *core.Pod
	change func(*core.Pod) error
}

// amend commits all amendments in one transaction, each on the newest version
// of its pod, and returns the new versions. It goes on until it is durable: a
// store that cannot write now (a full disk) is tried again. Its errors are
// errMoot, ctx's cause, and ErrInvalid for an object that cannot be stored.
func (c *Controller) amend(ctx context.Context, list ...amendment) ([]*core.Pod, error) {
	pods := make([]*core.Pod, len(list))
	for i := range list {
		pods[i] = list[i].pod
	}
	for delay := 50 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		ops := make([]store.Op, len(list))
		next := make([]*core.Pod, len(list))
		for i := range list {
			next[i] = clone(pods[i])
			if err := list[i].change(next[i]); err != nil {
				return nil, err
			}
			ops[i] = store.Op{Verb: store.Update, Kind: KindName, Object: next[i]}
		}
		_, err := c.store.Commit(ctx, ops...)
		switch {
		case err == nil:
			return next, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, store.ErrInvalid):
			return nil, err
		case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotFound):
			if err := c.refresh(ctx, pods); err != nil {
				return nil, err
			}
			continue
		case errors.Is(err, store.ErrClosed):
			return nil, fmt.Errorf("update pod %s: %w", title(pods[0]), err)
		}
		c.log.Error("pod status cannot be stored, trying again", "pod", title(pods[0]), "error", err)
		if err := sleep(ctx, delay); err != nil {
			return nil, err
		}
	}
}

// refresh reads the newest versions; errMoot where one is gone.
func (c *Controller) refresh(ctx context.Context, pods []*core.Pod) error {
	for i, p := range pods {
		obj, err := c.store.Get(ctx, keyOf(p))
		if errors.Is(err, store.ErrNotFound) {
			return errMoot
		}
		if err != nil {
			return fmt.Errorf("read pod %s: %w", title(p), err)
		}
		if obj.Metadata().UID != p.UID {
			return errMoot
		}
		pods[i] = obj.(*core.Pod)
	}
	return nil
}

// sleep waits, or returns ctx's cause.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// revisionOf is the store's revision of an object.
func revisionOf(p *core.Pod) uint64 {
	n, err := strconv.ParseUint(p.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// failNow makes a pod that never ran fail.
func failNow(p *core.Pod, reason, message string, now time.Time) error {
	if p.Status.Phase.Terminal() || p.Status.Claim != nil {
		return errMoot
	}
	p.Status.Phase = core.PodFailed
	p.Status.Reason, p.Status.Message = reason, message
	setCondition(p, "PodScheduled", false, reason, message, now)
	return nil
}

func setCondition(p *core.Pod, kind string, on bool, reason, message string, now time.Time) {
	status := "False"
	if on {
		status = "True"
	}
	p.Status.Conditions = core.SetCondition(p.Status.Conditions, core.Condition{
		Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: now.UTC(),
	})
}

// stopAsked reports whether the pod is to end, and why.
func stopAsked(p *core.Pod) error {
	switch {
	case p.DeletionTimestamp != nil:
		return errDeleted
	case p.Spec.Skiff != nil && p.Spec.Skiff.Stop:
		return errStopped
	default:
		return nil
	}
}

func gated(p *core.Pod) bool { return len(p.Spec.SchedulingGates) > 0 }

func hasFinalizer(p *core.Pod) bool { return slices.Contains(p.Finalizers, Finalizer) }

// grace is how long the pod's commands have to end.
func grace(p *core.Pod) time.Duration {
	if s := p.Spec.TerminationGracePeriodSeconds; s != nil && *s >= 0 {
		return time.Duration(min(*s, 24*3600)) * time.Second
	}
	return DefaultGrace
}
