package portable

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// planned is one object of an import that is to be made.
type planned struct {
	kind string
	obj  core.Object
}

// plan is what an import would change.
type plan struct {
	create  []planned
	present []planned
	// restore are artifacts that are here as they are to be: the import brings
	// their contents back.
	restore []*skiff.Artifact
}

// planner compares a cargo with what is here.
type planner struct {
	p *Porter
	c *cargo
	plan
}

// plan says which objects are to be made. An object that is here with other
// contents is a refusal.
func (p *Porter) plan(ctx context.Context, c *cargo) (*plan, error) {
	pl := &planner{p: p, c: c}
	if err := pl.experiments(ctx); err != nil {
		return nil, err
	}
	for _, pipeline := range c.pipelines {
		if err := pl.identified(ctx, pipelinesKind, pipeline, "pipeline", "give it another with --as NAME, or delete the one that is here"); err != nil {
			return nil, err
		}
	}
	for _, v := range c.versions {
		if err := pl.identified(ctx, versionsKind, v, "pipeline version", "give the pipeline another name with --as NAME"); err != nil {
			return nil, err
		}
	}
	for _, name := range sortedKeys(c.manifests) {
		if err := pl.place(ctx, manifestsKind, c.manifests[name], "pipeline", damaged); err != nil {
			return nil, err
		}
	}
	const hint = "to have both, import it into a state of its own; else delete the one that is here first"
	for _, name := range sortedKeys(c.runs) {
		if err := pl.runElsewhere(ctx, c.runs[name]); err != nil {
			return nil, err
		}
		if err := pl.place(ctx, runsKind, c.runs[name], "run", hint); err != nil {
			return nil, err
		}
	}
	for _, name := range sortedKeys(c.tasks) {
		if err := pl.place(ctx, tasksKind, c.tasks[name], "task", hint); err != nil {
			return nil, err
		}
	}
	for _, name := range sortedKeys(c.artifacts) {
		if err := pl.place(ctx, artifactsKind, c.artifacts[name], "artifact", hint); err != nil {
			return nil, err
		}
	}
	return &pl.plan, nil
}

// experiments maps the runs' experiments to those that are here: by id, by name,
// and the default one, which is made where it is not there yet.
func (pl *planner) experiments(ctx context.Context) error {
	s, c := pl.p.cfg.Store, pl.c
	for _, name := range sortedKeys(c.experiments) {
		e := c.experiments[name]
		_, err := s.Get(ctx, store.Key{Kind: experimentsKind, Namespace: c.namespace, Name: name})
		if err == nil {
			pl.present = append(pl.present, planned{experimentsKind, e})
			continue
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		page, err := s.List(ctx, store.ListOptions{Kind: experimentsKind, Namespace: c.namespace, Index: byName, Prefix: e.Spec.DisplayName, Exact: true, Limit: 1})
		if err != nil {
			return fmt.Errorf("look for experiment %s: %w", e.Spec.DisplayName, err)
		}
		if len(page.Items) == 0 {
			pl.create = append(pl.create, planned{experimentsKind, e})
			continue
		}
		for _, run := range c.runs {
			if run.Spec.Experiment == name {
				run.Spec.Experiment = page.Items[0].Metadata().Name
			}
		}
	}
	for _, run := range c.runs {
		if run.Spec.Experiment != skiff.DefaultExperiment(c.namespace) {
			continue
		}
		e := skiff.NewDefaultExperiment(c.namespace)
		_, err := s.Get(ctx, store.Key{Kind: experimentsKind, Namespace: c.namespace, Name: e.Name})
		if errors.Is(err, store.ErrNotFound) {
			pl.create = append(pl.create, planned{experimentsKind, e})
			err = nil
		}
		return err
	}
	return nil
}

// identified places an object whose uid is an id that clients use: another
// object may not have it, in whatever namespace.
func (pl *planner) identified(ctx context.Context, kind string, obj core.Object, what, hint string) error {
	meta := obj.Metadata()
	page, err := pl.p.cfg.Store.List(ctx, store.ListOptions{Kind: kind, Index: byID, Prefix: meta.UID, Exact: true, Limit: 2})
	if err != nil {
		return fmt.Errorf("look for %s %s: %w", what, meta.UID, err)
	}
	for _, other := range page.Items {
		if o := other.Metadata(); o.Namespace != meta.Namespace || o.Name != meta.Name {
			return refuse(what+" "+kfp.NameOf(meta), "give it another name with --as NAME, which gives it another id too",
				"its id, %s, is here already, in namespace %s as %s", meta.UID, o.Namespace, kfp.NameOf(o))
		}
	}
	return pl.place(ctx, kind, obj, what, hint)
}

// runElsewhere refuses a run that is in another namespace here: clients find it
// by its id alone.
func (pl *planner) runElsewhere(ctx context.Context, run *skiff.Run) error {
	page, err := pl.p.cfg.Store.List(ctx, store.ListOptions{Kind: runsKind, Index: byID, Prefix: run.Name, Exact: true, Limit: 2})
	if err != nil {
		return fmt.Errorf("look for run %s: %w", run.Name, err)
	}
	for _, other := range page.Items {
		if other.Metadata().Namespace != run.Namespace {
			return refuse("run "+run.Name, "there is no need to import it here", "it is here already, in namespace %s", other.Metadata().Namespace)
		}
	}
	return nil
}

// place decides about one object: it is made, or is here as it should be.
func (pl *planner) place(ctx context.Context, kind string, obj core.Object, what, hint string) error {
	meta := obj.Metadata()
	there, err := pl.p.cfg.Store.Get(ctx, store.Key{Kind: kind, Namespace: meta.Namespace, Name: meta.Name})
	if errors.Is(err, store.ErrNotFound) {
		pl.create = append(pl.create, planned{kind, obj})
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for %s %s: %w", what, meta.Name, err)
	}
	same, err := equal(there, obj)
	if err != nil {
		return err
	}
	if !same {
		return refuse(what+" "+kfp.NameOf(meta), hint, "there is another one of this name here, with other contents")
	}
	pl.present = append(pl.present, planned{kind, obj})
	return nil
}

// equal compares what two objects are, leaving aside what people may change,
// what an import changes, and what is found out later.
func equal(a, b core.Object) (bool, error) {
	first, err := essence(a)
	if err != nil {
		return false, err
	}
	second, err := essence(b)
	return bytes.Equal(first, second), err
}

func essence(obj core.Object) ([]byte, error) {
	meta := obj.Metadata()
	kept := core.ObjectMeta{Name: meta.Name, Namespace: meta.Namespace, UID: meta.UID}
	var rest any
	switch o := obj.(type) {
	case *kfp.Pipeline:
		rest = nil // all else is what people say of it
	case *kfp.PipelineVersion:
		rest = []any{o.Spec.PipelineName, o.Spec.PipelineSpec, o.Spec.PlatformSpec}
	case *skiff.PipelineManifest:
		kept.UID = "" // its name is its hash
		rest = nil
	case *skiff.Run:
		spec, status := o.Spec, o.Status
		spec.DisplayName, spec.Description, spec.Archived, spec.Experiment = "", "", false, ""
		status.Imported = nil
		rest = []any{spec, status}
	case *skiff.Task:
		status := o.Status
		status.Pod, status.CacheKey = "", ""
		rest = []any{o.Spec, status}
	case *skiff.Artifact:
		rest = []any{o.Spec, o.Status.Missing, o.Status.Size}
	default:
		return nil, fmt.Errorf("compare %s: objects of type %T do not travel", meta.Name, obj)
	}
	return json.Marshal([]any{kept, rest})
}

// ops are the plan as one transaction, marked as the import's.
func (pl *plan) ops(id string, now time.Time) []store.Op {
	ops := make([]store.Op, 0, len(pl.create)+len(pl.restore))
	for _, one := range pl.create {
		annotate(one.obj.Metadata(), core.AnnotationImport, id)
		if run, isRun := one.obj.(*skiff.Run); isRun {
			run.Status.Imported.At = now
		}
		ops = append(ops, store.Op{Verb: store.Create, Kind: one.kind, Object: one.obj})
	}
	for _, a := range pl.restore {
		// Marked as well: the first of all may be what tells that it was done.
		annotate(&a.ObjectMeta, core.AnnotationImport, id)
		ops = append(ops, store.Op{Verb: store.Update, Kind: artifactsKind, Object: a})
	}
	return ops
}
