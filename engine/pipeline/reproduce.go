package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// Reproduce makes a run that does an ended one again: the same compiled form
// and parameters, nothing taken from earlier results, and unless anyImage is
// set, each image held to the digest that was recorded. It goes through the
// door's checks as a submission does; a refusal is of class problem.ErrInvalid.
func (c *Controller) Reproduce(ctx context.Context, namespace, name string, anyImage bool) (*skiff.Run, error) {
	original, err := store.GetAs[*skiff.Run](ctx, c.store, store.Key{Kind: Runs, Namespace: namespace, Name: name})
	if err != nil {
		return nil, fmt.Errorf("reproduce run %s: %w", name, err)
	}
	if !original.Status.State.Terminal() {
		var problems problem.List
		problems.Add("", "run %s is %s; only a run that has ended can be reproduced", name, original.Status.State).Hint = "wait for its end"
		return nil, problems
	}
	manifest, err := store.GetAs[*skiff.PipelineManifest](ctx, c.store, store.Key{Kind: Manifests, Namespace: namespace, Name: original.Spec.Manifest})
	if err != nil {
		return nil, fmt.Errorf("reproduce run %s: its pipeline: %w", name, err)
	}
	parts := map[string]json.RawMessage{"pipelineSpec": manifest.PipelineSpec}
	if len(manifest.PlatformSpec) > 0 {
		parts["platformSpec"] = manifest.PlatformSpec
	}
	data, err := json.Marshal(parts)
	if err != nil {
		return nil, fmt.Errorf("reproduce run %s: %w", name, err)
	}
	run, again, err := c.admit(ctx, Submission{
		Namespace: namespace, DisplayName: "reproduction of " + original.Spec.DisplayName, Filename: "the pipeline of run " + name, Package: data,
		Parameters: original.Spec.Parameters, PipelineRoot: original.Spec.PipelineRoot, DisableCache: true, Verbatim: original.Spec.Verbatim,
		Priority: original.Spec.Priority, Experiment: original.Spec.Experiment, PipelineVersion: original.Spec.PipelineVersion,
		ServiceAccount: original.Spec.ServiceAccount,
	})
	if err != nil {
		return nil, fmt.Errorf("reproduce run %s: %w", name, err)
	}
	if again.Name != manifest.Name {
		return nil, fmt.Errorf("reproduce run %s: its pipeline is read as another one (%s, was %s); this skiff reads pipelines otherwise than the one that ran it",
			name, again.Name, manifest.Name)
	}
	run.Spec.Reproduces = name
	if !anyImage {
		if run.Spec.Images, err = c.imagesOf(ctx, original); err != nil {
			return nil, fmt.Errorf("reproduce run %s: %w", name, err)
		}
	}
	ops, err := c.opsOf(ctx, run, again)
	if err != nil {
		return nil, fmt.Errorf("reproduce run %s: %w", name, err)
	}
	return run, c.keep(ctx, run, ops)
}

// imagesOf are the images that a run's steps ran, by reference: the recorded
// digests and, of images that came with an import, their ids.
func (c *Controller) imagesOf(ctx context.Context, run *skiff.Run) (map[string][]string, error) {
	images := map[string][]string{}
	opts := store.ListOptions{Kind: Tasks, Namespace: run.Namespace, Index: IndexRun, Prefix: run.Name, Exact: true}
	for {
		tasks, page, err := store.ListAs[*skiff.Task](ctx, c.store, opts)
		if err != nil {
			return nil, fmt.Errorf("list its tasks: %w", err)
		}
		for _, t := range tasks {
			digest := t.Status.ImageDigest
			if digest == "" || slices.Contains(images[t.Status.Image], digest) {
				continue
			}
			images[t.Status.Image] = append(images[t.Status.Image], digest)
			if run.Status.Imported != nil && run.Status.Imported.Images[digest] != "" {
				images[t.Status.Image] = append(images[t.Status.Image], run.Status.Imported.Images[digest])
			}
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return images, nil
		}
	}
}
