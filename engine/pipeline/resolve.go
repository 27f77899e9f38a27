package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline/expr"
	"github.com/skiff-ml/skiff/store"
)

// rootInputs are the run's parameters with the pipeline's defaults applied.
// They were checked at the door; a manifest that no longer agrees is an error.
func (x *execution) rootInputs(ctx context.Context) (inputs, error) {
	resolved, problems := kfp.ResolveInputs(x.ir.Root.InputDefinitions, x.run.Spec.Parameters)
	if err := problems.OrNil(); err != nil {
		return inputs{}, err
	}
	in := inputs{params: resolved, artifacts: artifactMap{}}
	addresses := kfp.RootArtifacts(x.ir.Root.InputDefinitions, x.run.Spec.Parameters)
	for _, name := range sortedKeys(addresses) {
		def := x.ir.Root.InputDefinitions.Artifacts[name]
		if addresses[name] == "" && def.IsOptional {
			continue
		}
		a, err := x.rootArtifact(ctx, name, def, addresses[name])
		if err != nil {
			return inputs{}, fmt.Errorf("input artifact %q: %w", name, err)
		}
		in.artifacts[name] = artifactList{list: def.IsArtifactList, items: []*skiff.Artifact{a}}
	}
	return in, nil
}

// rootArtifact is an artifact that the pipeline itself takes as an input: what
// lies at the address that the run was given, or, without one, an empty file of
// the declared type. The latter lets a component compiled by itself run, as its
// author does to try it; no published API hands a run an artifact.
func (x *execution) rootArtifact(ctx context.Context, input string, def *kfp.InputArtifactDef, address string) (*skiff.Artifact, error) {
	name := x.run.Name + "-" + sanitized(input, 40) + "-" + shortHash(input)
	known, err := x.artifact(ctx, name)
	if err == nil && known.Gone() == "" || err != nil && !errors.Is(err, store.ErrNotFound) {
		return known, err
	}
	given := address != ""
	if !given {
		folder := strings.TrimRight(x.pipelineRoot(), "/") + "/" + path.Join(sanitized(x.ir.PipelineInfo.Name, 63), x.run.Name, "inputs")
		address = folder + "/" + input
		if err := x.emptyFile(folder, address); err != nil {
			return nil, err
		}
	}
	a := &skiff.Artifact{
		TypeMeta: core.TypeMeta{APIVersion: skiff.APIVersion, Kind: skiff.ArtifactKind},
		ObjectMeta: core.ObjectMeta{
			Name: name, Namespace: x.run.Namespace,
			Labels: map[string]string{core.LabelRun: x.run.Name}, OwnerReferences: []core.OwnerReference{x.ownedByRun()},
		},
		Spec: skiff.ArtifactSpec{
			DisplayName: input, SchemaTitle: def.ArtifactType.SchemaTitle, SchemaVersion: def.ArtifactType.SchemaVersion,
			InstanceSchema: def.ArtifactType.InstanceSchema, URI: address, Run: x.run.Name, Imported: given,
		},
	}
	if known != nil {
		return known, nil // its empty file is there again
	}
	x.newArtifacts = append(x.newArtifacts, a)
	x.take(a)
	return a, nil
}

// emptyFile makes an empty file in a folder of the daemon's own, which no
// container has for writing.
func (x *execution) emptyFile(folder, uri string) error {
	if err := x.c.artifacts.PrepareOutput(x.run.Namespace, folder); err != nil {
		return err
	}
	location, err := x.c.artifacts.Locate(x.run.Namespace, uri)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(location.HostPath, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	return file.Close()
}

// resolve finds a task's inputs in its scope: what its producers made, what its
// component was given, constants. An input that holds nothing (null, or an
// optional one whose source has none) is absent, and the component's default
// takes its place.
func (x *execution) resolve(n *node) (inputs, error) {
	in := inputs{params: values{}, artifacts: artifactMap{}}
	for _, name := range sortedKeys(n.spec.Inputs.Parameters) {
		value, err := x.resolveParameter(n, n.spec.Inputs.Parameters[name])
		if err != nil {
			return in, fmt.Errorf("input parameter %q: %w", name, err)
		}
		if value != nil {
			in.params[name] = value
		}
	}
	for _, name := range sortedKeys(n.spec.Inputs.Artifacts) {
		if list, found := n.resolveArtifact(n.spec.Inputs.Artifacts[name]); found {
			in.artifacts[name] = list
		}
	}
	if err := x.resolveConstants(n, in); err != nil {
		return in, err
	}
	return in, n.checkInputs(in)
}

// resolveParameter is the value of one input parameter; nil where there is none.
func (x *execution) resolveParameter(n *node, spec *kfp.InputParameterSpec) (any, error) {
	var value any
	switch {
	case spec.TaskOutputParameter != nil:
		value = n.scope.nodes[spec.TaskOutputParameter.ProducerTask].outputs[spec.TaskOutputParameter.OutputParameterKey]
	case spec.TaskFinalStatus != nil:
		return x.finalStatus(n.scope.nodes[spec.TaskFinalStatus.ProducerTask]), nil
	case spec.ComponentInputParameter != "":
		value = n.scope.inputs.params[spec.ComponentInputParameter]
	case spec.RuntimeValue != nil && spec.RuntimeValue.RuntimeParameter != "":
		value = n.scope.inputs.params[spec.RuntimeValue.RuntimeParameter]
	case spec.RuntimeValue != nil:
		return spec.RuntimeValue.Constant, nil
	}
	if spec.ParameterExpressionSelector != "" && value != nil {
		return expr.Select(spec.ParameterExpressionSelector, value)
	}
	return value, nil
}

// resolveArtifact is what one artifact input holds.
func (n *node) resolveArtifact(spec *kfp.InputArtifactSpec) (artifactList, bool) {
	if spec.TaskOutputArtifact != nil {
		list, found := n.scope.nodes[spec.TaskOutputArtifact.ProducerTask].results[spec.TaskOutputArtifact.OutputArtifactKey]
		return list, found
	}
	list, found := n.scope.inputs.artifacts[spec.ComponentInputArtifact]
	return list, found
}

// resolveConstants replaces the placeholders that constants may hold; they may
// name any other input of the same task.
func (x *execution) resolveConstants(n *node, in inputs) error {
	var context *expr.Context
	for _, name := range sortedKeys(n.spec.Inputs.Parameters) {
		spec := n.spec.Inputs.Parameters[name]
		text, isText := in.params[name].(string)
		if !isText || spec.RuntimeValue == nil || !strings.Contains(text, "{{$") {
			continue
		}
		if context == nil {
			context = x.exprContext(n, &kfp.ExecutorInput{Inputs: kfp.ExecutorInputs{ParameterValues: in.params}})
		}
		resolved, err := expr.ResolveString(text, context)
		if err != nil {
			return fmt.Errorf("input parameter %q: %w", name, err)
		}
		in.params[name] = resolved
		if def := n.component.InputDefinitions.Parameters[name]; def != nil && def.Type() != kfp.ParameterString {
			var value any
			if json.Unmarshal([]byte(resolved), &value) == nil {
				in.params[name] = value
			}
		}
	}
	return nil
}

// checkInputs holds the resolved inputs against what the component declares:
// types, literals, defaults for what is absent, and that nothing required is.
// The item of a loop is not among them yet.
func (n *node) checkInputs(in inputs) error {
	for _, name := range sortedKeys(n.component.InputDefinitions.Parameters) {
		def := n.component.InputDefinitions.Parameters[name]
		value, given := in.params[name]
		switch {
		case given:
			checked, err := def.Coerce(value)
			if err != nil {
				return fmt.Errorf("input parameter %q: %w", name, err)
			}
			in.params[name] = checked
		case def.DefaultValue != nil:
			in.params[name] = def.DefaultValue
		case !def.IsOptional && !n.isItem(name) && def.Type() != kfp.ParameterTaskConfig:
			return fmt.Errorf("input parameter %q: no value was given and there is no default", name)
		}
	}
	for _, name := range sortedKeys(n.component.InputDefinitions.Artifacts) {
		def := n.component.InputDefinitions.Artifacts[name]
		if list, given := in.artifacts[name]; given {
			list.list = list.list || def.IsArtifactList
			in.artifacts[name] = list
		} else if !def.IsOptional && !n.isItem(name) {
			return fmt.Errorf("input artifact %q: its producer made none", name)
		}
	}
	return nil
}

// isItem reports whether an input is filled by the loop with each pass's item.
func (n *node) isItem(name string) bool {
	switch {
	case n.spec.ParameterIterator != nil:
		return n.spec.ParameterIterator.ItemInput == name
	case n.spec.ArtifactIterator != nil:
		return n.spec.ArtifactIterator.ItemInput == name
	}
	return false
}

// loopItems are what a loop passes over.
func (x *execution) loopItems(n *node) ([]item, error) {
	if n.spec.ArtifactIterator != nil {
		list := n.inputs.artifacts[n.spec.ArtifactIterator.Items.InputArtifact]
		items := make([]item, len(list.items))
		for i, a := range list.items {
			items[i] = item{artifact: a}
		}
		return items, x.limitItems(len(items))
	}
	var source any = n.spec.ParameterIterator.Items.Raw
	if name := n.spec.ParameterIterator.Items.InputParameter; name != "" {
		source = n.inputs.params[name]
	}
	// A list may come as its JSON text.
	if text, isText := source.(string); isText {
		var parsed any
		if err := json.Unmarshal([]byte(text), &parsed); err != nil {
			return nil, fmt.Errorf("loop items: %w; want a JSON list, got %.80q", err, text)
		}
		source = parsed
	}
	if source == nil {
		source = []any{}
	}
	list, isList := source.([]any)
	if !isList {
		return nil, fmt.Errorf("loop items: want a list, got %.80v", source)
	}
	items := make([]item, len(list))
	for i, value := range list {
		items[i] = item{param: value}
	}
	return items, x.limitItems(len(items))
}

func (x *execution) limitItems(count int) error {
	if limit := x.c.limits.MaxIterations; count > limit {
		return fmt.Errorf("the loop has %d items, at most %d are allowed; split it into nested loops or raise the limit", count, limit)
	}
	return nil
}

// outputs computes what a scope's component gives outside.
func (s *scope) outputs() (values, artifactMap, error) {
	out, results := values{}, artifactMap{}
	dag := s.component.Dag
	for _, name := range sortedKeys(dag.Outputs.Parameters) {
		spec := dag.Outputs.Parameters[name]
		if spec.ValueFromOneof != nil {
			value, err := s.oneOfParameter(spec.ValueFromOneof.ParameterSelectors)
			if err != nil {
				return nil, nil, fmt.Errorf("output parameter %q: %w", name, err)
			}
			out[name] = value
			continue
		}
		if from := spec.ValueFromParameter; from != nil {
			if value, made := s.nodes[from.ProducerSubtask].outputs[from.OutputParameterKey]; made {
				out[name] = value
			}
		}
	}
	for _, name := range sortedKeys(dag.Outputs.Artifacts) {
		list, made, err := s.selectArtifact(dag.Outputs.Artifacts[name].ArtifactSelectors)
		if err != nil {
			return nil, nil, fmt.Errorf("output artifact %q: %w", name, err)
		}
		if def := s.component.OutputDefinitions.Artifacts[name]; def != nil && def.IsArtifactList {
			list.list = true
		}
		if made {
			results[name] = list
		}
	}
	return out, results, nil
}

// oneOfParameter is the output of the first producer that succeeded.
func (s *scope) oneOfParameter(selectors []kfp.ParameterSelectorSpec) (any, error) {
	for _, from := range selectors {
		if n := s.nodes[from.ProducerSubtask]; n.state() == skiff.StateSucceeded {
			return n.outputs[from.OutputParameterKey], nil
		}
	}
	return nil, fmt.Errorf("none of the branches %s ran", branches(selectors))
}

func branches(selectors []kfp.ParameterSelectorSpec) string {
	names := make([]string, len(selectors))
	for i, from := range selectors {
		names[i] = from.ProducerSubtask
	}
	return strings.Join(names, ", ")
}

// selectArtifact follows an output's selectors: one is the producer itself,
// several are branches of which the first that succeeded counts.
func (s *scope) selectArtifact(selectors []kfp.ArtifactSelectorSpec) (artifactList, bool, error) {
	for _, from := range selectors {
		n := s.nodes[from.ProducerSubtask]
		if len(selectors) > 1 && n.state() != skiff.StateSucceeded {
			continue
		}
		list, made := n.results[from.OutputArtifactKey]
		return list, made, nil
	}
	if len(selectors) > 1 {
		return artifactList{}, false, fmt.Errorf("none of its %d branches ran", len(selectors))
	}
	return artifactList{}, false, nil
}

// collect gathers the outputs of a loop's passes, in their order. A parameter
// of a nested loop is a list in each pass, so that it comes out as a list of
// lists; artifacts make one flat list, whatever the nesting, since a list of
// artifacts cannot hold another.
func collect(loop *node) (values, artifactMap) {
	out, results := values{}, artifactMap{}
	for name := range loop.component.OutputDefinitions.Parameters {
		gathered := []any{}
		for _, pass := range loop.passes {
			if value, made := pass.outputs[name]; made {
				gathered = append(gathered, value)
			}
		}
		out[name] = gathered
	}
	for name := range loop.component.OutputDefinitions.Artifacts {
		gathered := artifactList{list: true}
		for _, pass := range loop.passes {
			gathered.items = append(gathered.items, pass.results[name].items...)
		}
		results[name] = gathered
	}
	return out, results
}
