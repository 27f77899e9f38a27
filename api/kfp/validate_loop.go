package kfp

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// iterator checks a loop.
func (v *validator) iterator(at *place, task *PipelineTaskSpec, component *ComponentSpec) {
	switch {
	case task.ParameterIterator != nil && task.ArtifactIterator != nil:
		v.add(at, "both parameterIterator and artifactIterator are given, want one of them")
	case task.ParameterIterator != nil:
		v.parameterIterator(at.key("parameterIterator"), task, component)
	case task.ArtifactIterator != nil:
		v.artifactIterator(at.key("artifactIterator"), task, component)
	}
}

func (v *validator) parameterIterator(at *place, task *PipelineTaskSpec, component *ComponentSpec) {
	it := task.ParameterIterator
	def := component.InputDefinitions.Parameters[it.ItemInput]
	if def == nil {
		v.add(at.key("itemInput"), "component %s has no input %q to take the item", task.ComponentRef.Name, clip(it.ItemInput, 60)).
			Hint = didYouMean(it.ItemInput, sorted(component.InputDefinitions.Parameters), "inputs")
	}
	items := at.key("items")
	switch {
	case it.Items.Raw != "" && it.Items.InputParameter != "":
		v.add(items, "both raw and inputParameter are given, want one of them")
	case it.Items.Raw != "":
		v.rawItems(items.key("raw"), it.Items.Raw, def)
	case it.Items.InputParameter == "":
		v.add(items, "the loop has no items").Hint = "want raw, the JSON text of a list, or inputParameter"
	default:
		name := it.Items.InputParameter
		if task.Inputs.Parameters[name] == nil {
			v.add(items.key("inputParameter"), "the task has no input %q", clip(name, 60)).
				Hint = didYouMean(name, sorted(task.Inputs.Parameters), "inputs of the task")
			return
		}
		if source := component.InputDefinitions.Parameters[name]; source != nil && source.Type() != ParameterList && source.Type() != ParameterString && source.Type() != ParameterUnspecified {
			v.add(items.key("inputParameter"), "a loop goes over a list, and %q is of type %s", clip(name, 60), source.Type())
		}
	}
}

// rawItems checks items that are written in the pipeline.
func (v *validator) rawItems(at *place, raw string, def *InputParameterDef) {
	list, err := loopItems(raw)
	if err != nil {
		v.add(at, "%w", err)
		return
	}
	if len(list) > v.checks.Limits.MaxIterations {
		v.add(at, "the loop has %d items, at most %d are allowed", len(list), v.checks.Limits.MaxIterations).
			Hint = "split it into nested loops, or give each pass more to do"
		return
	}
	if def == nil {
		return
	}
	for i, item := range list {
		if _, err := def.Coerce(item); err != nil {
			v.add(at, "item %d: %w", i+1, err)
			return
		}
	}
}

// loopItems reads the JSON text of a list.
func loopItems(raw string) ([]any, error) {
	if err := checkDepth([]byte(raw)); err != nil {
		return nil, err
	}
	var list []any
	if err := json.Unmarshal([]byte(raw), &list); err != nil {
		return nil, fmt.Errorf("want the JSON text of a list, got %q", clip(raw, 60))
	}
	return list, nil
}

func (v *validator) artifactIterator(at *place, task *PipelineTaskSpec, component *ComponentSpec) {
	it := task.ArtifactIterator
	if component.InputDefinitions.Artifacts[it.ItemInput] == nil {
		v.add(at.key("itemInput"), "component %s has no input artifact %q to take the item", task.ComponentRef.Name, clip(it.ItemInput, 60)).
			Hint = didYouMean(it.ItemInput, sorted(component.InputDefinitions.Artifacts), "input artifacts")
	}
	if name := it.Items.InputArtifact; task.Inputs.Artifacts[name] == nil {
		v.add(at.keys("items", "inputArtifact"), "the task has no input artifact %q", clip(name, 60)).
			Hint = didYouMean(name, sorted(task.Inputs.Artifacts), "input artifacts of the task")
	}
}

// loops counts the tasks that a run will have at least, and refuses pipelines
// that multiply beyond any machine: loops in loops, components in components.
func (v *validator) loops() {
	if v.spec.Root == nil {
		return
	}
	c := counter{v: v, known: map[*ComponentSpec]int64{}}
	c.count((*place)(nil).key("root"), v.spec.Root)
}

// counter counts the tasks in components; each is visited once.
type counter struct {
	v     *validator
	known map[*ComponentSpec]int64
	told  bool
}

func (c *counter) count(at *place, component *ComponentSpec) int64 {
	if component.Dag == nil {
		return 0
	}
	if total, known := c.known[component]; known {
		return total
	}
	c.known[component] = 0 // a component that contains itself is another check's problem
	var total int64
	for _, key := range sorted(component.Dag.Tasks) {
		task := component.Dag.Tasks[key]
		inner := c.v.spec.Components[task.ComponentRef.Name]
		if inner == nil {
			continue
		}
		each := 1 + c.count((*place)(nil).keys("components", task.ComponentRef.Name), inner)
		total = saturated(total, 1, saturated(0, passes(task), each))
		if total > c.v.checks.Limits.MaxTasks && !c.told {
			c.told = true
			c.v.add(at.keys("dag", "tasks", key), "the pipeline would have at least %d tasks, at most %d are allowed", total, c.v.checks.Limits.MaxTasks).
				Hint = "its loops or components multiply; give each pass more to do"
		}
	}
	c.known[component] = total
	return total
}

// passes is how often a task is known to run: the items of its loop where they
// are written out, 1 otherwise.
func passes(task *PipelineTaskSpec) int64 {
	if task.ParameterIterator == nil || task.ParameterIterator.Items.Raw == "" {
		return 1
	}
	list, err := loopItems(task.ParameterIterator.Items.Raw)
	if err != nil {
		return 1
	}
	return int64(len(list))
}

// saturated is base + a*b, at most half of what an int64 holds.
func saturated(base, a, b int64) int64 {
	const limit = math.MaxInt64 / 4
	if a != 0 && b > limit/a {
		return limit
	}
	return min(base+a*b, limit)
}

// collectPasses finds the components that loops are made of.
func (v *validator) collectPasses() {
	var visit func(name string)
	visit = func(name string) {
		component := v.spec.Components[name]
		if component == nil || v.passes[component] {
			return
		}
		v.passes[component] = true
		if component.Dag == nil {
			return
		}
		for _, task := range component.Dag.Tasks {
			if task != nil {
				visit(task.ComponentRef.Name)
			}
		}
	}
	for name, uses := range v.uses {
		if slices.ContainsFunc(uses, func(u use) bool { return u.task.ParameterIterator != nil || u.task.ArtifactIterator != nil }) {
			visit(name)
		}
	}
}
