package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
)

// maxRestarts bounds how often one attempt is begun again because of faults
// that are not the user's: a machine that loses every container is not mended
// by trying on.
const maxRestarts = 5

// podChanged follows a step's newest pod, up to its end, which is taken up once:
// a pod that has ended still changes, as when it is cleaned up, and the watch
// tells again what was read when the execution began.
func (x *execution) podChanged(ctx context.Context, n *node, pod *core.Pod) {
	n.pod = pod
	if status := containerStatus(pod); status != nil {
		n.task.Status.ImageDigest = status.ImageID
		if n.task.Status.StartedAt.IsZero() && !status.StartedAt.IsZero() {
			n.task.Status.StartedAt = status.StartedAt
		}
		if t := status.Terminated; t != nil {
			code := t.ExitCode
			n.task.Status.ExitCode = &code
		}
	}
	if pod.Status.Phase.Terminal() {
		delete(x.byPod, pod.Name)
	}
	switch pod.Status.Phase {
	case core.PodSucceeded:
		x.succeeded(ctx, n, pod)
	case core.PodFailed:
		x.podFailed(ctx, n, pod)
	default:
		x.podWaits(n, pod)
	}
}

// podWaits copies a pod's progress to its task, where it says something new.
func (x *execution) podWaits(n *node, pod *core.Pod) {
	state := skiff.StatePending
	if pod.Status.Phase == core.PodRunning {
		state = skiff.StateRunning
	}
	status, message := &n.task.Status, pod.Status.Message
	if pod.Status.Reason == core.ReasonPaused {
		ref := x.run.Name + "/" + n.path
		message += fmt.Sprintf("; skiff debug %s opens a shell in it, skiff release %s lets it end", ref, ref)
	}
	if status.State == state && status.Reason == pod.Status.Reason && status.Message == message {
		return
	}
	status.State, status.Reason, status.Message = state, pod.Status.Reason, message
	x.touch(n)
	if state == skiff.StateRunning {
		x.warmDependents(n)
	}
}

// podFailed decides what a failed attempt means: another one, or the end.
func (x *execution) podFailed(ctx context.Context, n *node, pod *core.Pod) {
	message := pod.Status.Message
	if message == "" {
		message = "the step failed"
	}
	switch policy := n.spec.RetryPolicy; {
	case x.cancelling() && !n.exempt:
		x.settle(n, skiff.StateCanceled, reasonCancelled, "the run was cancelled")
	case pod.Status.Skiff != nil && pod.Status.Skiff.Infrastructure:
		x.restart(ctx, n, message)
	case !n.lastAttempt():
		delay := retryDelay(policy, n.task.Status.Attempts-n.task.Status.Spent)
		n.task.Status.State = skiff.StatePending
		n.task.Status.Reason = "Retrying"
		n.task.Status.Message = fmt.Sprintf("attempt %d failed: %s", n.task.Status.Attempts, message)
		n.task.Status.RetryAt = x.c.now().Add(delay)
		x.touch(n)
		x.after(n, delay, func() { x.newAttempt(ctx, n) })
	default:
		x.settle(n, skiff.StateFailed, pod.Status.Reason, message)
	}
}

// podGone is for a pod that somebody deleted before it had ended: what it did is
// unknown, as with a lost container.
func (x *execution) podGone(ctx context.Context, n *node) {
	delete(x.byPod, n.task.Status.Pod)
	x.restart(ctx, n, "its pod "+n.task.Status.Pod+" was deleted")
}

// restart begins the present attempt again, at no cost to the user's retries.
func (x *execution) restart(ctx context.Context, n *node, message string) {
	if x.cancelling() && !n.exempt {
		x.settle(n, skiff.StateCanceled, reasonCancelled, "the run was cancelled")
		return
	}
	if n.restarts >= maxRestarts {
		x.settle(n, skiff.StateFailed, "InfrastructureFault", fmt.Sprintf("begun %d times, each lost to a fault of the machine; the last: %s", n.restarts+1, message))
		return
	}
	n.restarts++
	x.withInputs(ctx, n, func() {
		n.task.Status.Reason, n.task.Status.Message = "Restarting", message
		x.launch(n)
	})
}

func containerStatus(pod *core.Pod) *core.ContainerStatus {
	for i := range pod.Status.ContainerStatuses {
		if pod.Status.ContainerStatuses[i].Name == mainContainer {
			return &pod.Status.ContainerStatuses[i]
		}
	}
	return nil
}

// succeeded takes a finished step's outputs in. Freezing its artifacts reads
// the disk, so it is done outside; a step without any settles at once.
func (x *execution) succeeded(ctx context.Context, n *node, pod *core.Pod) {
	outputs, reported, err := n.readOutputs(pod)
	if err != nil {
		x.fail(n, reasonOutputs, err)
		return
	}
	n.outputs = outputs
	made, err := x.artifactsOf(n, reported)
	if err != nil {
		x.fail(n, reasonOutputs, err)
		return
	}
	if len(made) == 0 {
		n.results = artifactMap{}
		x.settle(n, skiff.StateSucceeded, "", "")
		return
	}
	namespace := x.run.Namespace
	x.outside(ctx, func(working context.Context) func() {
		err := x.c.freeze(working, namespace, made)
		return func() {
			if n.final() || err != nil {
				x.committed(n, made, err)
				return
			}
			x.deliver(ctx, n, made)
		}
	})
}

// committed settles a step whose artifacts are frozen, and where they belong.
func (x *execution) committed(n *node, made map[string][]*skiff.Artifact, err error) {
	if n.final() {
		return
	}
	if err != nil {
		x.fail(n, reasonOutputs, err)
		return
	}
	n.results = artifactMap{}
	for _, output := range sortedKeys(made) {
		n.results[output] = artifactList{list: n.isArtifactList(output), items: made[output]}
		for _, a := range made[output] {
			if !a.Spec.Imported && !a.Status.Missing {
				a.Finalizers = []string{skiff.FinalizerContents} // it has contents of its own
			}
			x.newArtifacts = append(x.newArtifacts, a)
			x.take(a)
		}
	}
	x.settle(n, skiff.StateSucceeded, "", "")
}

// readOutputs reads output parameters: what the component reported in its
// executor output wins, its output files fill in the rest.
func (n *node) readOutputs(pod *core.Pod) (values, *kfp.ExecutorOutput, error) {
	files := map[string][]byte{}
	if pod.Status.Skiff != nil {
		files = pod.Status.Skiff.Outputs
	}
	reported := &kfp.ExecutorOutput{}
	if data, found := files[executorOutput]; found && len(data) > 0 {
		var err error
		if reported, err = kfp.ParseExecutorOutput(data); err != nil {
			return nil, nil, fmt.Errorf("read the component's executor output: %w", err)
		}
	}
	out := values{}
	for _, name := range sortedKeys(n.component.OutputDefinitions.Parameters) {
		def := n.component.OutputDefinitions.Parameters[name]
		if value, found := reported.ParameterValues[name]; found {
			coerced, err := kfp.CoerceParameter(def.Type(), value)
			if err != nil {
				return nil, nil, fmt.Errorf("output parameter %q: %w", name, err)
			}
			out[name] = coerced
			continue
		}
		data, found := files[parameterOutput+name]
		if !found {
			return nil, nil, fmt.Errorf("output parameter %q: the component ended without writing it; it must write the file it is given for each declared output", name)
		}
		value, err := kfp.ParseOutputFile(def.Type(), data)
		if err != nil {
			return nil, nil, fmt.Errorf("output parameter %q: %w", name, err)
		}
		out[name] = value
	}
	return out, reported, nil
}

// artifactsOf makes the objects of a step's output artifacts: as provisioned,
// with what the component reported over it.
func (x *execution) artifactsOf(n *node, reported *kfp.ExecutorOutput) (map[string][]*skiff.Artifact, error) {
	made := map[string][]*skiff.Artifact{}
	root := x.taskRoot(n)
	for _, name := range sortedKeys(n.component.OutputDefinitions.Artifacts) {
		def := n.component.OutputDefinitions.Artifacts[name]
		list, given := reported.Artifacts[name]
		if !given || len(list.Artifacts) == 0 {
			if def.IsArtifactList {
				made[name] = nil
				continue
			}
			list = kfp.ArtifactList{Artifacts: []kfp.RuntimeArtifact{{}}}
		}
		for i, r := range list.Artifacts {
			made[name] = append(made[name], x.newArtifact(n, name, i, def, r, root+"/"+name))
		}
	}
	return made, nil
}

// newArtifact is the object of one artifact. Its name follows from the task's,
// the output's and the attempt's, so a repeat after a crash comes to the same.
func (x *execution) newArtifact(n *node, output string, index int, def *kfp.OutputArtifactSpec, r kfp.RuntimeArtifact, uri string) *skiff.Artifact {
	metadata := map[string]json.RawMessage{}
	maps.Copy(metadata, metadataOf(def.Metadata))
	maps.Copy(metadata, metadataOf(r.Metadata))
	delete(metadata, workspaceMark) // handed on with an input's; what a step makes is no import
	if r.URI != "" {
		uri = r.URI
	}
	display := output
	if r.Name != "" && !strings.Contains(r.Name, "/") {
		display = r.Name
	}
	name := fmt.Sprintf("%s-%s-%s", n.task.Name, sanitized(output, 40), shortHash(fmt.Sprint(output, index, n.task.Status.Attempts, n.restarts)))
	return &skiff.Artifact{
		TypeMeta: core.TypeMeta{APIVersion: skiff.APIVersion, Kind: skiff.ArtifactKind},
		ObjectMeta: core.ObjectMeta{
			Name: name, Namespace: x.run.Namespace,
			Labels:          map[string]string{core.LabelRun: x.run.Name, core.LabelTask: labelValue(n.path)},
			OwnerReferences: []core.OwnerReference{x.ownedByRun()},
		},
		Spec: skiff.ArtifactSpec{
			DisplayName: display, SchemaTitle: def.ArtifactType.SchemaTitle, SchemaVersion: def.ArtifactType.SchemaVersion,
			InstanceSchema: def.ArtifactType.InstanceSchema, URI: uri, CustomPath: r.CustomPath, Metadata: metadata,
			Run: x.run.Name, Task: n.task.Name, Output: output,
		},
	}
}
