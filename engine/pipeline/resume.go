package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// A resumed run is a new run that takes over results of an earlier one, its
// origin. It goes the way of every run, DAG by DAG, with its own conditions and
// loops; only where a step would be executed is it held against the same step of
// the origin, and settled with that one's result if
//
//   - that one succeeded, and its artifacts are still there;
//   - both have the same definition: image, command, inputs (artifacts by their
//     contents), Kubernetes settings;
//   - nobody asked for the step, or for one before it, to be run again; and
//   - what it only comes after (a dependency that hands it nothing, or any for
//     which it runs whatever became of it) was not run again: such a step may
//     have done something that no input tells of.
//
// A step whose input comes out as it was, although its producer was run again,
// is therefore taken over. A pass of a loop is the same as any pass of the origin
// with its definition, so that items can be put in front.
//
// The origin has ended and never changes, so this can be decided again after a
// restart. What was run again is kept with the tasks (skiff.Reuse), for those
// that come after.

// origin is the run that an execution goes on from.
type origin struct {
	name string
	// gone says why nothing of it can be taken over, where that is so.
	gone   string
	ir     *kfp.PipelineSpec
	plat   *kfp.KubernetesPlatform
	inputs map[string]any
	// tasks are the run's by their paths, newest by those without rounds, where
	// the last round counts.
	tasks, newest map[string]*skiff.Task
	// passes are the steps below loops that succeeded, by their places in the
	// pipeline; defined are those of a place by their definitions' keys.
	passes  map[string][]*skiff.Task
	defined map[string]map[string]*skiff.Task
}

// origin reads the run that another one goes on from, nil where there is none.
func (c *Controller) origin(ctx context.Context, run *skiff.Run) (*origin, error) {
	if run.Spec.ResumedFrom == nil {
		return nil, nil
	}
	o := &origin{
		name: run.Spec.ResumedFrom.Run, tasks: map[string]*skiff.Task{}, newest: map[string]*skiff.Task{},
		passes: map[string][]*skiff.Task{}, defined: map[string]map[string]*skiff.Task{},
	}
	old, err := store.GetAs[*skiff.Run](ctx, c.store, store.Key{Kind: Runs, Namespace: run.Namespace, Name: o.name})
	if errors.Is(err, store.ErrNotFound) {
		o.gone = "run " + o.name + " was deleted"
		return o, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read run %s, to go on from: %w", o.name, err)
	}
	if old.Status.Imported != nil {
		// The one that was meant was deleted, and another came under its id.
		o.gone = "run " + o.name + " was imported since"
		return o, nil
	}
	pkg, err := c.manifest(ctx, old.Namespace, old.Spec.Manifest)
	if err != nil {
		return nil, err
	}
	o.ir, o.plat = pkg.Spec, pkg.Platform
	o.inputs, _ = kfp.ResolveInputs(o.ir.Root.InputDefinitions, old.Spec.Parameters)
	err = c.each(ctx, store.ListOptions{Kind: Tasks, Namespace: old.Namespace, Index: IndexRun, Prefix: old.Name, Exact: true}, o.add)
	if err != nil {
		return nil, fmt.Errorf("read the tasks of run %s, to go on from: %w", o.name, err)
	}
	for _, path := range sortedKeys(o.newest) {
		task := o.newest[path]
		if place := indexless(path); place != path && task.Status.State == skiff.StateSucceeded {
			o.passes[place] = append(o.passes[place], task)
		}
	}
	return o, nil
}

func (o *origin) add(task *skiff.Task) {
	o.tasks[task.Spec.Path] = task
	path := roundless(task.Spec.Path)
	if known := o.newest[path]; known == nil || laterRound(task.Spec.Path, known.Spec.Path) {
		o.newest[path] = task
	}
}

// laterRound compares two paths of one task in different rounds of what is
// around it. The outermost difference counts; ~10 comes after ~9.
func laterRound(a, b string) bool {
	first, second := strings.Split(a, "/"), strings.Split(b, "/")
	for i := range first {
		if first[i] != second[i] {
			return len(first[i]) > len(second[i]) || (len(first[i]) == len(second[i]) && first[i] > second[i])
		}
	}
	return false
}

// value finds what a platform setting of an earlier task referred to.
func (o *origin) value(task *skiff.Task) func(*kfp.InputParameterSpec) any {
	around := task.Spec.Path[:max(strings.LastIndexByte(task.Spec.Path, '/'), 0)]
	return func(spec *kfp.InputParameterSpec) any {
		if from := spec.TaskOutputParameter; from != nil {
			if producer := o.tasks[strings.TrimPrefix(around+"/"+from.ProducerTask, "/")]; producer != nil {
				return decoded(producer.Status.Outputs[from.OutputParameterKey])
			}
			return nil
		}
		var value any
		if around == "" {
			value = o.inputs[spec.ComponentInputParameter]
		} else if owner := o.tasks[around]; owner != nil {
			value = decoded(owner.Status.Inputs[spec.ComponentInputParameter])
		}
		if value == nil {
			value = decoded(task.Status.Inputs[spec.ComponentInputParameter])
		}
		return value
	}
}

// weigh finds, before a node begins, whether it is to be run again for the sake
// of what is around it and before it.
func (x *execution) weigh(n *node) {
	if x.origin == nil {
		return
	}
	if owner := n.owner(); owner != nil {
		n.forced, n.stale = owner.forced, owner.stale
	}
	for _, name := range x.run.Spec.ResumedFrom.From {
		n.forced = n.forced || calls(name, n.path)
	}
	if n.loop != nil {
		return // what the loop waits for was weighed with it
	}
	for _, up := range n.upstream {
		reuse := up.task.Status.Reuse
		if reuse == nil {
			continue
		}
		n.forced = n.forced || reuse.Forced
		if reuse.Anew && (n.spec.TriggerPolicy.Strategy == kfp.AllUpstreamTasksCompleted || !readsFrom(n.spec, up.key)) {
			n.stale = up.path
		}
	}
}

// owner is the node around another: its loop, or the DAG whose scope it is in.
func (n *node) owner() *node {
	if n.loop != nil {
		return n.loop
	}
	return n.scope.owner
}

// readsFrom says whether a task takes an input from another.
func readsFrom(spec *kfp.PipelineTaskSpec, producer string) bool {
	for _, p := range spec.Inputs.Parameters {
		if p.TaskOutputParameter != nil && p.TaskOutputParameter.ProducerTask == producer {
			return true
		}
	}
	for _, a := range spec.Inputs.Artifacts {
		if a.TaskOutputArtifact != nil && a.TaskOutputArtifact.ProducerTask == producer {
			return true
		}
	}
	return false
}

// reuse is what is noted of a node in a resumed run.
func (n *node) reuse() *skiff.Reuse {
	if n.task.Status.Reuse == nil {
		n.task.Status.Reuse = &skiff.Reuse{}
	}
	return n.task.Status.Reuse
}

// noteReuse notes with a node that ends, and with all around it, whether
// something was run again.
func (x *execution) noteReuse(n *node) {
	if x.origin == nil || n.state() == skiff.StateSkipped {
		return
	}
	reuse := n.reuse()
	step := n.kind == skiff.TaskContainer || n.kind == skiff.TaskImporter
	reuse.Anew = reuse.Anew || (step && reuse.From == "" && !n.task.Status.Cached)
	reuse.Forced = reuse.Forced || n.forced
	for owner := n.owner(); owner != nil; owner = owner.owner() {
		above := owner.reuse()
		if (reuse.Anew && !above.Anew) || (reuse.Forced && !above.Forced) {
			above.Anew, above.Forced = above.Anew || reuse.Anew, above.Forced || reuse.Forced
			x.touch(owner)
		}
	}
}

// mustRun says why nothing can stand in for a node, "" where something may.
func (x *execution) mustRun(n *node) string {
	switch {
	case n.forced:
		return "it was asked for"
	case n.stale != "":
		return "it comes after " + n.stale + ", which was run again"
	case x.plat.Workspace() != nil && n.kind == skiff.TaskContainer:
		return "the run has a workspace, which a step that is taken over would not have written to"
	default:
		return x.origin.gone
	}
}

// ended is the task of the origin in place of a node, if it succeeded; else why
// there is none.
func (o *origin) ended(n *node) (*skiff.Task, string) {
	task := o.newest[roundless(n.path)]
	switch {
	case task == nil:
		return nil, "run " + o.name + " has no such task"
	case task.Status.State != skiff.StateSucceeded:
		return nil, fmt.Sprintf("in run %s it is %s", o.name, task.Status.State)
	}
	return task, ""
}

// unhashedPast are the artifacts whose content hashes a comparison with the
// origin waits for, beside the node's own.
func (x *execution) unhashedPast(ctx context.Context, n *node) []*skiff.Artifact {
	if x.origin == nil || x.mustRun(n) != "" {
		return nil
	}
	task, _ := x.origin.ended(n)
	if task == nil {
		return nil
	}
	inputs, err := x.artifactsNamed(ctx, task.Status.InputArtifacts)
	if err != nil {
		return nil // told of where they are compared
	}
	return unhashed(inputs)
}

// artifactsNamed reads artifact objects by their names.
func (x *execution) artifactsNamed(ctx context.Context, names map[string][]string) (map[string][]*skiff.Artifact, error) {
	all := make(map[string][]*skiff.Artifact, len(names))
	for _, input := range sortedKeys(names) {
		all[input] = []*skiff.Artifact{}
		for _, name := range names[input] {
			a, err := x.artifact(ctx, name)
			if err != nil {
				return nil, err
			}
			all[input] = append(all[input], a)
		}
	}
	return all, nil
}

// takeOver settles a step with the result of the origin where that may stand in
// for it; else it notes why not and calls otherwise.
func (x *execution) takeOver(ctx context.Context, n *node, digests map[string]string, otherwise func()) {
	if x.origin == nil {
		otherwise()
		return
	}
	again := func(reason string) {
		n.reuse().Reason = "run again: " + reason
		otherwise()
	}
	reason := x.mustRun(n)
	if reason == "" {
		var past *skiff.Task
		if past, reason = x.unchanged(ctx, n, digests); past != nil {
			results, err := x.cachedArtifacts(ctx, past)
			if err == nil {
				x.ifKept(ctx, n, results, func() { x.standIn(n, past, results) }, func(err error) { again(err.Error()) })
				return
			}
			reason = err.Error()
		}
	}
	again(reason)
}

// standIn settles a step with the result of an earlier one.
func (x *execution) standIn(n *node, past *skiff.Task, results artifactMap) {
	reuse := n.reuse()
	reuse.From, reuse.Reason = past.Name, "taken over from run "+x.origin.name+": unchanged"
	if roundless(past.Spec.Path) != roundless(n.path) {
		reuse.Reason = fmt.Sprintf("taken over from %s of run %s: the same step", past.Spec.Path, x.origin.name)
	}
	x.settleAs(n, past, results)
	if past.Status.Cached {
		n.task.Status.CachedFrom = past.Status.CachedFrom
	}
}

// unchanged is the task of the origin whose result may stand in for a step; nil,
// and why, where there is none.
func (x *execution) unchanged(ctx context.Context, n *node, digests map[string]string) (*skiff.Task, string) {
	now, err := x.definition(ctx, n, digests)
	if err != nil {
		return nil, err.Error()
	}
	past, reason := x.origin.ended(n)
	if past != nil {
		was, err := x.defined(ctx, x.origin, past, digests)
		if err != nil {
			reason = err.Error()
		} else if reason = now.differs(was, x.origin.name); reason == "" {
			return past, ""
		}
	}
	if pass := x.otherPass(ctx, n, now, digests); pass != nil {
		return pass, ""
	}
	return nil, reason
}

// definition is that of a step whose inputs are known.
func (x *execution) definition(ctx context.Context, n *node, digests map[string]string) (*definition, error) {
	d, err := definitionOf(x.ir, x.plat, n.component, func(spec *kfp.InputParameterSpec) any {
		value, err := x.platformValue(n, spec)
		if err != nil {
			return nil // what is wrong with it is told of where the pod is made
		}
		return value
	})
	if err != nil {
		return nil, err
	}
	if !strings.Contains(d.Image, "{{$") {
		if d.Digest, err = x.c.imageIdentity(ctx, d.Image); err != nil {
			d.Digest = "" // it is not here, so it is what it was as far as anybody knows
		}
	}
	artifacts := make(map[string][]*skiff.Artifact, len(n.inputs.artifacts))
	for name, list := range n.inputs.artifacts {
		artifacts[name] = list.items
	}
	d.Parameters, d.Artifacts = n.inputs.params.encoded(), contents(artifacts, digests)
	return d, nil
}

// defined is the definition of a task of another run.
func (x *execution) defined(ctx context.Context, o *origin, task *skiff.Task, digests map[string]string) (*definition, error) {
	component := o.ir.Components[task.Spec.Component]
	if component == nil {
		return nil, fmt.Errorf("the pipeline of run %s has no component %s", o.name, task.Spec.Component)
	}
	d, err := definitionOf(o.ir, o.plat, component, o.value(task))
	if err != nil {
		return nil, err
	}
	artifacts, err := x.artifactsNamed(ctx, task.Status.InputArtifacts)
	if err != nil {
		return nil, err
	}
	d.Digest = task.Status.ImageDigest
	d.Parameters, d.Artifacts = task.Status.Inputs, contents(artifacts, digests)
	return d, nil
}

// otherPass finds a step of another pass of the origin with the same definition.
func (x *execution) otherPass(ctx context.Context, n *node, now *definition, digests map[string]string) *skiff.Task {
	o, place := x.origin, indexless(n.path)
	passes := o.passes[place]
	if len(passes) == 0 {
		return nil
	}
	known := o.defined[place]
	if known == nil {
		known = make(map[string]*skiff.Task, len(passes))
		for _, task := range slices.Backward(passes) { // of equal ones the first
			if was, err := x.defined(ctx, o, task, digests); err == nil {
				known[was.key()] = task
			}
		}
		o.defined[place] = known
	}
	task := known[now.key()]
	if task == nil || (now.Digest != "" && task.Status.ImageDigest != "" && now.Digest != task.Status.ImageDigest) {
		return nil
	}
	return task
}

// importedBefore is the artifact that the origin's importer made of the same
// thing; nil where the importer has to make its own.
func (x *execution) importedBefore(ctx context.Context, n *node, a *skiff.Artifact) (*skiff.Artifact, error) {
	if x.origin == nil {
		return nil, nil
	}
	reason := x.mustRun(n)
	var past *skiff.Task
	if reason == "" {
		past, reason = x.origin.ended(n)
	}
	if past != nil {
		for _, names := range past.Status.OutputArtifacts {
			known, err := x.artifactsNamed(ctx, map[string][]string{"": names})
			if errors.Is(err, store.ErrNotFound) {
				break
			}
			if err != nil {
				return nil, err
			}
			for _, old := range known[""] {
				if old.Gone() == "" && old.Spec.URI == a.Spec.URI && old.Spec.Workspace == a.Spec.Workspace && contentOf(old, nil) == contentOf(a, nil) {
					n.reuse().From, n.reuse().Reason = past.Name, "taken over from run "+x.origin.name+": unchanged"
					return old, nil
				}
			}
		}
		reason = "what it imports differs from run " + x.origin.name + "'s"
	}
	n.reuse().Reason = "run again: " + reason
	return nil, nil
}

// claimBefore is the claim that the origin's task made, where it is still there:
// whoever mounts it finds what was written to it. A claim is deleted anew.
func (x *execution) claimBefore(ctx context.Context, n *node, image string) string {
	if x.origin == nil || image != createClaimImage {
		return ""
	}
	reason := x.mustRun(n)
	var past *skiff.Task
	if reason == "" {
		past, reason = x.origin.ended(n)
	}
	if past != nil {
		name, _ := decoded(past.Status.Outputs["name"]).(string)
		claim, err := store.GetAs[*core.PersistentVolumeClaim](ctx, x.c.store, store.Key{Kind: claimsKind, Namespace: x.run.Namespace, Name: name})
		now, was := n.inputs.params.encoded(), past.Status.Inputs
		differs := func(input string) bool {
			return !bytes.Equal(now[input], was[input]) && !sameJSON(now[input], was[input])
		}
		switch {
		case slices.ContainsFunc(bothKeys(now, was), differs):
			reason = "its inputs differ from run " + x.origin.name + "'s"
		case err != nil || claim.DeletionTimestamp != nil:
			reason = fmt.Sprintf("claim %q of run %s is there no longer", name, x.origin.name)
		default:
			n.reuse().From, n.reuse().Reason = past.Name, "taken over from run "+x.origin.name+": claim "+name+" is still there"
			return name
		}
	}
	n.reuse().Reason = "run again: " + reason
	return ""
}
