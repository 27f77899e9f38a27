package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// resumable is the run that another one shall go on from. What keeps it from
// that is a problem.List.
func (c *Controller) resumable(ctx context.Context, namespace, name string) (*skiff.Run, error) {
	run, err := store.GetAs[*skiff.Run](ctx, c.store, store.Key{Kind: Runs, Namespace: namespace, Name: name})
	var problems problem.List
	switch {
	case errors.Is(err, store.ErrNotFound):
		problems.Add("resume", "there is no run %q in namespace %s", name, namespace).Hint = "skiff get runs lists them"
	case err != nil:
		return nil, fmt.Errorf("read run %s, to go on from: %w", name, err)
	case run.Status.Imported != nil:
		problems.Add("resume", "run %s was imported; what came of its steps is not taken for results of steps here", name).Hint = "skiff reproduce " + name + " runs all of it again"
	case !run.Status.State.Terminal():
		problems.Add("resume", "run %s is still %s", name, run.Status.State).Hint = "wait for its end, or cancel it first: skiff cancel " + name
	}
	return run, problems.OrNil()
}

// packageOf is the package of a submission: its own, or that of the run it goes
// on from.
func (c *Controller) packageOf(ctx context.Context, sub *Submission, original *skiff.Run) (*kfp.Package, error) {
	if original == nil || len(sub.Package) > 0 {
		return kfp.Load(sub.Filename, sub.Package, c.limits)
	}
	sub.Filename = "the pipeline of run " + original.Name
	if sub.PipelineVersion == nil {
		sub.PipelineVersion = original.Spec.PipelineVersion
	}
	return c.manifest(ctx, original.Namespace, original.Spec.Manifest)
}

// inherit fills what a submission leaves out from the run that it goes on from,
// and resolves the tasks that it names.
func (c *Controller) inherit(ctx context.Context, sub *Submission, pkg *kfp.Package, original *skiff.Run) (problem.List, error) {
	var problems problem.List
	resume := &skiff.Resume{Run: original.Name}
	all := places(pkg.Spec)
	for _, name := range sub.Resume.From {
		place, wrong := findTask(all, "from", name)
		if wrong != nil {
			problems = append(problems, wrong)
			continue
		}
		resume.From = append(resume.From, place)
	}
	sub.Resume = resume
	// An input that the pipeline does not have any more needs no value.
	parameters := make(map[string]json.RawMessage, len(original.Spec.Parameters))
	for name, value := range original.Spec.Parameters {
		if inputs := pkg.Spec.Root.InputDefinitions; inputs.Parameters[name] != nil || inputs.Artifacts[name] != nil {
			parameters[name] = value
		}
	}
	maps.Copy(parameters, sub.Parameters)
	sub.Parameters = parameters
	if sub.PipelineRoot == "" {
		sub.PipelineRoot = original.Spec.PipelineRoot
	}
	sub.Verbatim = sub.Verbatim || original.Spec.Verbatim
	if sub.Experiment == "" {
		kept, err := store.GetAs[*skiff.Experiment](ctx, c.store, store.Key{Kind: Experiments, Namespace: sub.Namespace, Name: skiff.ExperimentOf(original)})
		switch {
		case err == nil && !kept.Spec.Archived:
			sub.Experiment = kept.Name
		case err != nil && !errors.Is(err, store.ErrNotFound):
			return nil, fmt.Errorf("look for the experiment of run %s: %w", original.Name, err)
		}
	}
	return problems, nil
}
