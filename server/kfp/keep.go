package kfp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/store"
)

// Kept is a pipeline that came as a package.
type Kept struct {
	// Pipeline and Version are the names that the API knows.
	Pipeline, Version string
	// Present is true where it was there, with these contents.
	Present bool
}

// Keep keeps a package as a pipeline of a name (the pipeline's own where it is
// empty) with its first version. One that is there with the same contents is
// left as it is; another of that name is a refusal (problem.ErrInvalid). With
// dryRun it is only checked.
func (a *API) Keep(ctx context.Context, namespace, name, filename string, data []byte, dryRun bool) (*Kept, error) {
	manifest, err := a.cfg.Engine.Inspect(ctx, namespace, filename, data)
	if err != nil {
		return nil, err
	}
	if name == "" {
		var spec struct {
			PipelineInfo kfp.PipelineInfo `json:"pipelineInfo"`
		}
		if err := json.Unmarshal(manifest.PipelineSpec, &spec); err != nil {
			return nil, fmt.Errorf("read the pipeline's name: %w", err)
		}
		name = spec.PipelineInfo.Name
	}
	name = strings.TrimSpace(name)
	p, err := store.GetAs[*kfp.Pipeline](ctx, a.cfg.Store, store.Key{Kind: pipelinesKind, Namespace: namespace, Name: kfp.ObjectName(name)})
	if err == nil {
		return a.present(ctx, p, manifest.PipelineSpec, manifest.PlatformSpec)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if p, err = pipelineOf(namespace, &pipeline{Name: name}); err != nil {
		return nil, err
	}
	v, err := a.newVersion(ctx, p, &pipelineVersion{Name: name}, &uploaded{name: filename, data: data})
	if err != nil {
		return nil, err
	}
	if !dryRun {
		err = a.keepPipeline(ctx, p, v)
	}
	return &Kept{Pipeline: name, Version: name}, err
}

// present finds the version of a pipeline that has these contents.
func (a *API) present(ctx context.Context, p *kfp.Pipeline, spec, platform json.RawMessage) (*Kept, error) {
	versions, _, err := store.AllAs[*kfp.PipelineVersion](ctx, a.cfg.Store, versionsOf(p))
	if err != nil {
		return nil, err
	}
	name := kfp.NameOf(&p.ObjectMeta)
	for _, v := range versions {
		if bytes.Equal(v.Spec.PipelineSpec, spec) && bytes.Equal(v.Spec.PlatformSpec, platform) {
			return &Kept{Pipeline: name, Version: kfp.NameOf(&v.ObjectMeta), Present: true}, nil
		}
	}
	return nil, problem.List{{Object: "pipeline " + name, Err: errors.New("there is another one of this name here, with other contents"),
		Hint: fmt.Sprintf("give it another with --as NAME, or make it a version: skiff pipeline upload --pipeline %s FILE", p.Name)}}
}
