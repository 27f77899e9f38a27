package pipeline

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
)

// definition is everything of a step that its result follows from, so that two
// steps of different runs, or of different versions of a pipeline, can be held
// against each other. Commands and images stand unresolved, since resolved ones
// hold the run's own paths; what they resolve to follows from the inputs.
// Resources are left out: more memory makes no other result.
type definition struct {
	Image string `json:"image"`
	// Digest is the image's, empty where nobody knows: then it is no difference.
	Digest          string                     `json:"-"`
	Command         []string                   `json:"command"`
	Args            []string                   `json:"args"`
	Env             []kfp.EnvVar               `json:"env"`
	Parameters      map[string]json.RawMessage `json:"parameters"`
	Artifacts       map[string][]string        `json:"artifacts"` // by contentOf
	OutputParams    map[string]string          `json:"outputParameters"`
	OutputArtifacts map[string]string          `json:"outputArtifacts"`
	// Platform is the executor's platform settings as written, Named what their
	// references to inputs and to other tasks came to.
	Platform json.RawMessage            `json:"platform"`
	Named    map[string]json.RawMessage `json:"named"`
}

// definitionOf is the part of a definition that a pipeline says. value finds
// what a platform setting refers to.
func definitionOf(ir *kfp.PipelineSpec, plat *kfp.KubernetesPlatform, component *kfp.ComponentSpec, value func(*kfp.InputParameterSpec) any) (*definition, error) {
	executor := ir.DeploymentSpec.Executors[component.ExecutorLabel]
	if executor == nil || executor.Container == nil {
		return nil, fmt.Errorf("executor %q is not a container", component.ExecutorLabel)
	}
	container := executor.Container
	d := &definition{
		Image: container.Image, Command: container.Command, Args: container.Args, Env: container.Env,
		OutputParams: map[string]string{}, OutputArtifacts: map[string]string{}, Named: map[string]json.RawMessage{},
	}
	for name, def := range component.OutputDefinitions.Parameters {
		d.OutputParams[name] = string(def.Type())
	}
	for name, def := range component.OutputDefinitions.Artifacts {
		metadata, err := json.Marshal(def.Metadata)
		if err != nil {
			return nil, fmt.Errorf("output artifact %q: %w", name, err)
		}
		d.OutputArtifacts[name] = def.ArtifactType.SchemaTitle + separator + string(metadata)
	}
	settings := plat.Executor(component.ExecutorLabel)
	if settings == nil {
		return d, nil
	}
	var err error
	if d.Platform, err = json.Marshal(settings); err != nil {
		return nil, fmt.Errorf("platform settings: %w", err)
	}
	var tree any
	if err := json.Unmarshal(d.Platform, &tree); err != nil {
		return nil, fmt.Errorf("platform settings: %w", err)
	}
	return d, d.nameAll(tree, "", value)
}

// nameAll resolves every reference in platform settings. Each message that holds
// one is an input's (ml_pipelines.InputParameterSpec) or has its fields.
func (d *definition) nameAll(tree any, at string, value func(*kfp.InputParameterSpec) any) error {
	switch tree := tree.(type) {
	case []any:
		for i, item := range tree {
			if err := d.nameAll(item, fmt.Sprintf("%s[%d]", at, i), value); err != nil {
				return err
			}
		}
	case map[string]any:
		if tree["taskOutputParameter"] != nil || tree["componentInputParameter"] != nil {
			var reference struct {
				TaskOutputParameter     *kfp.TaskOutputParameterSpec `json:"taskOutputParameter"`
				ComponentInputParameter string                       `json:"componentInputParameter"`
			}
			data, err := json.Marshal(tree)
			if err == nil {
				err = json.Unmarshal(data, &reference)
			}
			if err == nil {
				spec := &kfp.InputParameterSpec{TaskOutputParameter: reference.TaskOutputParameter, ComponentInputParameter: reference.ComponentInputParameter}
				d.Named[at], err = json.Marshal(value(spec))
			}
			if err != nil {
				return fmt.Errorf("platform settings: %s: %w", at, err)
			}
		}
		for _, key := range sortedKeys(tree) {
			if err := d.nameAll(tree[key], at+"."+key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// contents are artifacts as a definition knows them.
func contents(artifacts map[string][]*skiff.Artifact, digests map[string]string) map[string][]string {
	all := make(map[string][]string, len(artifacts))
	for name, list := range artifacts {
		ids := make([]string, len(list))
		for i, a := range list {
			ids[i] = contentOf(a, digests)
		}
		all[name] = ids
	}
	return all
}

// key is equal for equal definitions, whatever the digests of their images are.
func (d *definition) key() string {
	data, err := json.Marshal(d)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return string(sum[:])
}

// differs says in what a definition differs first from that of a step in
// another run; empty where nothing does.
func (d *definition) differs(was *definition, run string) string {
	from := " differs from run " + run + "'s"
	switch {
	case d.Image != was.Image:
		return fmt.Sprintf("image%s (%s, there %s)", from, d.Image, was.Image)
	case d.Digest != was.Digest && d.Digest != "" && was.Digest != "":
		return "image digest" + from
	case !slices.Equal(d.Command, was.Command) || !slices.Equal(d.Args, was.Args):
		return "command" + from
	case !slices.Equal(d.Env, was.Env):
		return "environment" + from
	}
	for _, name := range bothKeys(d.Parameters, was.Parameters) {
		now, before := d.Parameters[name], was.Parameters[name]
		if !sameJSON(now, before) {
			return fmt.Sprintf("parameter %s%s (%s, there %s)", name, from, brief(now), brief(before))
		}
	}
	for _, name := range bothKeys(d.Artifacts, was.Artifacts) {
		if !slices.Equal(d.Artifacts[name], was.Artifacts[name]) {
			return "input artifact " + name + from
		}
	}
	switch {
	case !maps.Equal(d.OutputParams, was.OutputParams) || !maps.Equal(d.OutputArtifacts, was.OutputArtifacts):
		return "declaration of its outputs" + from
	case !bytes.Equal(d.Platform, was.Platform):
		return "set of Kubernetes settings" + from
	}
	for _, at := range bothKeys(d.Named, was.Named) {
		if now, before := d.Named[at], was.Named[at]; !sameJSON(now, before) {
			return fmt.Sprintf("Kubernetes setting %s%s (%s, there %s)", at[1:], from, brief(now), brief(before))
		}
	}
	return ""
}

// bothKeys are the keys of two maps, sorted.
func bothKeys[V any](a, b map[string]V) []string {
	all := maps.Clone(a)
	if all == nil {
		all = make(map[string]V, len(b))
	}
	maps.Copy(all, b)
	return sortedKeys(all)
}

// sameJSON compares values, not their spelling; nothing is not null.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	return len(a) > 0 && len(b) > 0 && reflect.DeepEqual(decoded(a), decoded(b))
}

// brief is a value in a sentence.
func brief(raw json.RawMessage) string {
	const most = 40
	switch text := []rune(string(raw)); {
	case len(text) == 0:
		return "none"
	case len(text) > most:
		return string(text[:most-1]) + "…"
	default:
		return string(text)
	}
}
