package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline/expr"
	"github.com/skiff-ml/skiff/store"
)

// A step whose upstream runs gets its pod before its inputs exist: the pod is
// gated, its container may be created and started (engine/pod decides that), and
// only the command, which depends on the inputs, comes later. So the time that a
// container takes to come up is not between two steps. Upstream that ends before
// it is ever seen running is too short for that: there a container that is made
// meanwhile takes from the machine what the running step needs.
//
// A gated pod is a promise of nothing: it holds no claim, and whatever makes it
// useless (a cache hit, an upstream that failed, inputs that need other mounts)
// deletes it, and the step goes on as if it had never been.

// coldSuffix ends the name of a first attempt's pod where the gated one could
// not be used.
const coldSuffix = "-c"

// waitingReason is the published reason of a pod that waits at a gate.
const waitingReason = "SchedulingGated"

// podsByRun is the index of pods by run, as engine/pod declares it.
const podsByRun = "run"

// warmDependents makes the gated pods of those who wait for n and for nothing
// that does not run yet.
func (x *execution) warmDependents(n *node) {
	if !x.c.warm || x.cancelling() {
		return
	}
	for _, next := range n.dependents {
		if next.warm == nil && x.warmable(next) {
			x.warmUp(next)
		}
	}
}

// warmable says whether all that is fixed when a container is created is known
// of a step that waits, and whether it will run as far as can be told.
func (x *execution) warmable(n *node) bool {
	trigger := n.spec.TriggerPolicy
	if n.kind != skiff.TaskContainer || n.loop != nil || n.final() || n.begun() || n.waiting == 0 ||
		trigger.Condition != "" || trigger.Strategy == kfp.AllUpstreamTasksCompleted {
		return false
	}
	for _, up := range n.upstream {
		if up.state() != skiff.StateSucceeded && (up.kind != skiff.TaskContainer || up.state() != skiff.StateRunning) {
			return false
		}
	}
	container := x.ir.DeploymentSpec.Executors[n.component.ExecutorLabel].Container
	if container == nil || strings.Contains(container.Image, "{{$") || x.plat.Executor(n.component.ExecutorLabel) != nil {
		return false
	}
	for _, def := range n.component.InputDefinitions.Parameters {
		if def.Type() == kfp.ParameterTaskConfig {
			return false
		}
	}
	return true
}

// warmUp makes the gated pod of a step. What is wrong with the step shows when
// its turn comes.
func (x *execution) warmUp(n *node) {
	n.task.Status.Attempts++ // names and folders are those of the first attempt
	pod, err := x.gatedPod(n)
	n.task.Status.Attempts--
	if err != nil {
		return
	}
	n.warm = pod
	x.newPods = append(x.newPods, pod)
}

// errLate: something that is fixed when the container is created depends on inputs.
var errLate = errors.New("depends on inputs")

func (x *execution) gatedPod(n *node) (*core.Pod, error) {
	s, err := x.newStep(n)
	if err != nil {
		return nil, err
	}
	main := core.Container{Name: mainContainer, Image: s.container.Image}
	main.Resources, err = s.container.Resources.Requirements(func(text string) (string, error) {
		if strings.Contains(text, "{{$") {
			return "", errLate
		}
		return expr.ResolveString(text, s.context)
	})
	if err != nil {
		return nil, err
	}
	for name := range main.Resources.Limits {
		if name != core.ResourceCPU && name != core.ResourceMemory {
			return nil, errLate // devices are known when they are granted
		}
	}
	ext := &core.PodExtension{}
	if !x.run.Spec.Verbatim {
		ext.Environment = recognisePrelude(s.container.Command, s.container.Command)
	}
	pod, err := x.assemble(s, main, ext)
	if err != nil {
		return nil, err
	}
	// From the beginning: a container may exist before anything else is written.
	pod.Finalizers = []string{core.PodFinalizer}
	pod.Spec.SchedulingGates = []core.SchedulingGate{{Name: core.GateInputs}}
	pod.Status = core.PodStatus{Phase: core.PodPending, Reason: waitingReason, Message: "waits for its inputs"}
	return pod, nil
}

// takeWarm makes a resolved pod the one that waits at its gate, and lifts that.
// False means that they do not match; the gated one is then dropped.
func (x *execution) takeWarm(n *node, pod *core.Pod) bool {
	warm := n.warm
	if !sameContainers(warm, pod) {
		x.dropWarm(n)
		pod.Name += coldSuffix
		return false
	}
	n.warm = nil
	if at := slices.Index(x.newPods, warm); at >= 0 {
		x.newPods[at] = pod // not written yet: it begins without a gate
		return true
	}
	pod.ObjectMeta = warm.ObjectMeta
	x.lifted = append(x.lifted, pod)
	return true
}

// dropWarm gives up the gated pod of a step.
func (x *execution) dropWarm(n *node) {
	warm := n.warm
	n.warm = nil
	if at := slices.Index(x.newPods, warm); at >= 0 {
		x.newPods = slices.Delete(x.newPods, at, at+1)
		return
	}
	x.dropped = append(x.dropped, warm.Name)
}

// sameContainers says whether two pods of a step differ only in what reaches a
// container that waits: its command with all that belongs to it.
func sameContainers(a, b *core.Pod) bool {
	first, err := json.Marshal(fixed(a))
	if err != nil {
		return false
	}
	second, err := json.Marshal(fixed(b))
	return err == nil && bytes.Equal(first, second)
}

// fixed is what of a pod a container's creation depends on.
func fixed(pod *core.Pod) core.PodSpec {
	spec := pod.Spec
	spec.SchedulingGates = nil
	spec.Containers = slices.Clone(spec.Containers)
	for i := range spec.Containers {
		c := &spec.Containers[i]
		c.Command, c.Args, c.Env = nil, nil, nil
	}
	ext := *spec.Skiff
	ext.Directories, ext.Outputs, ext.Links, ext.Collect = nil, nil, nil, nil
	ext.HoldOnFailureSeconds = 0
	if ext.Environment != nil {
		ext.Environment = &core.Environment{Calls: ext.Environment.Calls}
	}
	spec.Skiff = &ext
	return spec
}

// liftOps are the changes that lift gates. A pod that somebody stopped or
// deleted meanwhile is replaced by a new one.
func (x *execution) liftOps(ctx context.Context) ([]store.Op, error) {
	var ops []store.Op
	lifted := x.lifted[:0:0]
	for _, pod := range x.lifted {
		now, err := x.podNow(ctx, pod.Name)
		if err != nil {
			return nil, err
		}
		if now != nil && gatedStill(now) {
			pod.ObjectMeta = now.ObjectMeta
			if slices.Contains(x.stopPods, pod.Name) {
				pod.Spec.Skiff.Stop = true
			}
			ops = append(ops, store.Op{Verb: store.Update, Kind: podsKind, Object: pod})
			lifted = append(lifted, pod)
			continue
		}
		x.rename(pod)
	}
	x.lifted = lifted
	return ops, nil
}

// rename makes a pod that was to be lifted a new one.
func (x *execution) rename(pod *core.Pod) {
	old := pod.Name
	pod.ObjectMeta = core.ObjectMeta{
		Name: old + coldSuffix, Namespace: pod.Namespace, Labels: pod.Labels, OwnerReferences: pod.OwnerReferences,
	}
	if n := x.byPod[old]; n != nil {
		delete(x.byPod, old)
		x.byPod[pod.Name] = n
		n.task.Status.Pod = pod.Name
		x.touch(n)
	}
	for i, name := range x.stopPods {
		if name == old {
			x.stopPods[i] = pod.Name
		}
	}
	x.newPods = append(x.newPods, pod)
}

func gatedStill(pod *core.Pod) bool {
	stopped := pod.Spec.Skiff != nil && pod.Spec.Skiff.Stop
	return pod.DeletionTimestamp == nil && !pod.Status.Phase.Terminal() && !stopped && len(pod.Spec.SchedulingGates) > 0
}

// podNow reads a pod of the run; nil where there is none.
func (x *execution) podNow(ctx context.Context, name string) (*core.Pod, error) {
	obj, err := x.c.store.Get(ctx, store.Key{Kind: podsKind, Namespace: x.run.Namespace, Name: name})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return obj.(*core.Pod), nil
}

// dropOps delete gated pods that are of no use.
func (x *execution) dropOps(ctx context.Context) ([]store.Op, error) {
	var ops []store.Op
	for _, name := range x.dropped {
		now, err := x.podNow(ctx, name)
		if err != nil {
			return nil, err
		}
		if now != nil && now.DeletionTimestamp == nil {
			ops = append(ops, store.Op{Verb: store.Delete, Key: store.Key{Kind: podsKind, Namespace: x.run.Namespace, Name: name}})
		}
	}
	return ops, nil
}

// loadGated finds the gated pods that an execution before this one made.
func (x *execution) loadGated(ctx context.Context) error {
	x.gated = map[string]*core.Pod{}
	pods, _, err := store.AllAs[*core.Pod](ctx, x.c.store, store.ListOptions{
		Kind: podsKind, Namespace: x.run.Namespace, Index: podsByRun, Prefix: x.run.Namespace + "/" + x.run.Name, Exact: true,
		Filter: func(obj core.Object) bool { return gatedStill(obj.(*core.Pod)) },
	})
	if err != nil {
		return fmt.Errorf("read the gated pods of run %s: %w", x.run.Name, err)
	}
	for _, pod := range pods {
		x.gated[pod.Name] = pod
	}
	return nil
}

// recallGated gives a node its gated pod, where there is one of it.
func (x *execution) recallGated(n *node) {
	if len(x.gated) == 0 || n.kind != skiff.TaskContainer {
		return
	}
	name := podName(x.run.Name, n.path, 1, 0)
	if pod := x.gated[name]; pod != nil {
		n.warm = pod
		delete(x.gated, name)
	}
}

// dropGated gives up those that no node took.
func (x *execution) dropGated() {
	x.dropped = append(x.dropped, sortedKeys(x.gated)...)
	x.gated = nil
}
