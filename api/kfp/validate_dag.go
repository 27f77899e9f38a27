package kfp

import (
	"errors"
	"slices"
	"strings"
)

// scope is a DAG under examination: the component around it, and where it is.
type scope struct {
	component *ComponentSpec
	at        *place // of the component
}

func (s scope) tasks() map[string]*PipelineTaskSpec { return s.component.Dag.Tasks }
func (s scope) taskAt(key string) *place            { return s.at.keys("dag", "tasks", key) }

// dag checks a component's tasks and outputs.
func (v *validator) dag(at *place, c *ComponentSpec) {
	s := scope{c, at}
	if len(c.Dag.Tasks) == 0 {
		v.add(at.keys("dag", "tasks"), "a dag must have a task")
	}
	graph := map[string][]string{}
	for _, key := range sorted(c.Dag.Tasks) {
		task := c.Dag.Tasks[key]
		if v.full() {
			return
		}
		v.task(s, key, task)
		graph[key] = upstream(task)
	}
	if cycle := findCycle(graph); cycle != nil {
		v.add(s.taskAt(cycle[0]), "the tasks wait for each other: %s", chain(cycle)).
			Hint = "remove one of the dependencies"
	}
	v.dagOutputs(s)
}

// upstream names the tasks that a task waits for.
func upstream(task *PipelineTaskSpec) []string {
	names := slices.Clone(task.DependentTasks)
	for _, input := range task.Inputs.Parameters {
		switch {
		case input.TaskOutputParameter != nil:
			names = append(names, input.TaskOutputParameter.ProducerTask)
		case input.TaskFinalStatus != nil:
			names = append(names, input.TaskFinalStatus.ProducerTask)
		}
	}
	for _, input := range task.Inputs.Artifacts {
		if input.TaskOutputArtifact != nil {
			names = append(names, input.TaskOutputArtifact.ProducerTask)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// maxTaskKey bounds a task's key: it is part of labels and folder names.
const maxTaskKey = 200

// task checks one task.
func (v *validator) task(s scope, key string, task *PipelineTaskSpec) {
	at := s.taskAt(key)
	if key == "" || len(key) > maxTaskKey || strings.ContainsAny(key, "/\\\x00") || key == "." || key == ".." {
		v.add(at, "a task cannot be called %q", clip(key, 60)).Hint = "use letters, digits, dashes and underscores"
	}
	for i, name := range task.DependentTasks {
		if v.full() {
			return
		}
		v.sibling(s, at.key("dependentTasks").at(i), name)
	}
	if task.ComponentRef.Name == "" {
		v.add(at.keys("componentRef", "name"), "required: the task names no component")
		return
	}
	component := v.spec.Components[task.ComponentRef.Name]
	if component == nil {
		v.add(at.keys("componentRef", "name"), "there is no component %q", clip(task.ComponentRef.Name, 60)).
			Hint = didYouMean(task.ComponentRef.Name, sorted(v.spec.Components), "components")
		return
	}
	for _, name := range sorted(task.Inputs.Parameters) {
		if v.full() {
			return
		}
		v.parameterInput(s, at, task, component, name)
	}
	for _, name := range sorted(task.Inputs.Artifacts) {
		if v.full() {
			return
		}
		v.artifactInput(s, at, component, name)
	}
	v.unbound(at, task, component)
	v.iterator(at, task, component)
	v.policies(at, task, component)
}

// sibling checks that a task of the same dag is named.
func (v *validator) sibling(s scope, at *place, name string) *PipelineTaskSpec {
	task := s.tasks()[name]
	switch {
	case name == "":
		v.add(at, "required: no task is named")
	case task == nil:
		v.add(at, "there is no task %q in this dag", clip(name, 60)).Hint = didYouMean(name, sorted(s.tasks()), "tasks")
	}
	return task
}

// parameterInput checks where one input parameter comes from.
func (v *validator) parameterInput(s scope, taskAt *place, task *PipelineTaskSpec, component *ComponentSpec, name string) {
	input, at := task.Inputs.Parameters[name], taskAt.keys("inputs", "parameters", name)
	def := component.InputDefinitions.Parameters[name]
	if def == nil && !undeclaredAllowed(name, input) {
		if component.InputDefinitions.Artifacts[name] != nil {
			v.add(at, "component %s takes %q as an artifact", task.ComponentRef.Name, name).Hint = "bind it under inputs.artifacts"
		} else {
			v.add(at, "component %s has no input %q", task.ComponentRef.Name, clip(name, 60)).
				Hint = didYouMean(name, sorted(component.InputDefinitions.Parameters), "inputs")
		}
	}
	if !v.oneSource(at, input) {
		return
	}
	if selector := input.ParameterExpressionSelector; selector != "" && v.checks.Selector != nil {
		if err := v.checks.Selector(selector); err != nil {
			v.add(at.key("parameterExpressionSelector"), "%w", err)
		}
	}
	from := v.sourceType(s, at, task, def, input)
	if input.ParameterExpressionSelector != "" || def == nil {
		return
	}
	if want := def.Type(); !feeds(from, want) {
		v.add(at, "a value of type %s cannot feed an input of type %s", from, want).Hint = "change one of the types, or put a component in between that converts"
	}
}

// undeclaredAllowed reports whether the compiler may have bound an input that
// its component does not declare: channels for placeholders and conditions, and
// what it notes beside resources that depend on inputs.
func undeclaredAllowed(name string, input *InputParameterSpec) bool {
	if strings.HasPrefix(name, "pipelinechannel--") {
		return true
	}
	if input.RuntimeValue == nil {
		return false
	}
	text, isText := input.RuntimeValue.Constant.(string)
	return isText && strings.Contains(text, "{{$")
}

// oneSource checks that exactly one source is given.
func (v *validator) oneSource(at *place, input *InputParameterSpec) bool {
	count := 0
	for _, given := range []bool{input.TaskOutputParameter != nil, input.RuntimeValue != nil, input.ComponentInputParameter != "", input.TaskFinalStatus != nil} {
		if given {
			count++
		}
	}
	switch count {
	case 0:
		v.add(at, "no source is given").Hint = "want one of taskOutputParameter, runtimeValue, componentInputParameter, taskFinalStatus"
	case 1:
		return true
	default:
		v.add(at, "%d sources are given, want one of them", count)
	}
	return false
}

// sourceType checks a parameter's source and says what type it gives; the
// unspecified type where it cannot be told.
func (v *validator) sourceType(s scope, at *place, task *PipelineTaskSpec, def *InputParameterDef, input *InputParameterSpec) ParameterType {
	switch {
	case input.TaskOutputParameter != nil:
		from, here := input.TaskOutputParameter, at.key("taskOutputParameter")
		return v.producedType(s, here.key("producerTask"), from.ProducerTask, here.key("outputParameterKey"), from.OutputParameterKey)
	case input.TaskFinalStatus != nil:
		v.sibling(s, at.keys("taskFinalStatus", "producerTask"), input.TaskFinalStatus.ProducerTask)
		return ParameterTaskFinalStatus
	case input.ComponentInputParameter != "":
		return v.enclosingType(s, at.key("componentInputParameter"), input.ComponentInputParameter)
	case input.RuntimeValue.RuntimeParameter != "":
		return v.enclosingType(s, at.keys("runtimeValue", "runtimeParameter"), input.RuntimeValue.RuntimeParameter)
	}
	v.constant(at.keys("runtimeValue", "constant"), task, def, input.RuntimeValue.Constant)
	return ParameterUnspecified
}

func (v *validator) enclosingType(s scope, at *place, name string) ParameterType {
	def := s.component.InputDefinitions.Parameters[name]
	if def == nil {
		v.add(at, "the pipeline around this task has no input %q", clip(name, 60)).
			Hint = didYouMean(name, sorted(s.component.InputDefinitions.Parameters), "inputs of "+s.at.String())
		return ParameterUnspecified
	}
	return def.Type()
}

// producedType checks a producer. Outside of a loop its outputs are lists.
func (v *validator) producedType(s scope, taskAt *place, task string, outputAt *place, output string) ParameterType {
	producer := v.sibling(s, taskAt, task)
	if producer == nil {
		return ParameterUnspecified
	}
	def := v.outputParameter(outputAt, task, producer, output)
	switch {
	case def == nil:
		return ParameterUnspecified
	case producer.ParameterIterator != nil || producer.ArtifactIterator != nil:
		return ParameterList
	}
	return def.Type()
}

// outputParameter finds a declared output of a task.
func (v *validator) outputParameter(at *place, key string, task *PipelineTaskSpec, output string) *OutputParameterDef {
	component := v.spec.Components[task.ComponentRef.Name]
	if component == nil {
		return nil // reported where the task stands
	}
	def := component.OutputDefinitions.Parameters[output]
	if def == nil {
		p := v.add(at, "task %s has no output parameter %q", key, clip(output, 60))
		p.Hint = didYouMean(output, sorted(component.OutputDefinitions.Parameters), "output parameters")
		if component.OutputDefinitions.Artifacts[output] != nil {
			p.Hint = "it is an artifact: use taskOutputArtifact"
		}
	}
	return def
}

// constant checks a value written in the pipeline.
func (v *validator) constant(at *place, task *PipelineTaskSpec, def *InputParameterDef, value any) {
	if text, isText := value.(string); isText && strings.Contains(text, "{{$") {
		for _, segment := range ParseTemplate(text) {
			v.constantPlaceholder(at, task, segment.Placeholder)
		}
		return
	}
	if def == nil || value == nil {
		return
	}
	if _, err := def.Coerce(value); err != nil {
		v.add(at, "%w", err)
	}
}

// constantPlaceholder checks a placeholder in a constant: it may name what is
// bound to the same task.
func (v *validator) constantPlaceholder(at *place, task *PipelineTaskSpec, p *Placeholder) {
	switch {
	case p == nil, p.Kind == PlaceholderJob, p.Kind == PlaceholderForeign, p.Kind == PlaceholderUnknown && p.Stranger:
	case p.Kind == PlaceholderUnknown:
		v.add(at, "placeholder %s: %s", p.Text, p.Reason).Hint = p.Hint
	case p.Kind == PlaceholderInputParameter:
		if task.Inputs.Parameters[p.Name] == nil {
			v.add(at, "placeholder %s: the task has no input %q", p.Text, clip(p.Name, 60)).
				Hint = didYouMean(p.Name, sorted(task.Inputs.Parameters), "inputs of the task")
		}
	}
	// Other kinds resolve when the task's own inputs and outputs do.
}

// artifactInput checks where one input artifact comes from.
func (v *validator) artifactInput(s scope, taskAt *place, component *ComponentSpec, name string) {
	task := s.tasks()[taskAt.name]
	input, at := task.Inputs.Artifacts[name], taskAt.keys("inputs", "artifacts", name)
	def := component.InputDefinitions.Artifacts[name]
	if def == nil && !strings.HasPrefix(name, "pipelinechannel--") {
		v.add(at, "component %s has no input artifact %q", task.ComponentRef.Name, clip(name, 60)).
			Hint = didYouMean(name, sorted(component.InputDefinitions.Artifacts), "input artifacts")
	}
	var list bool
	switch {
	case input.TaskOutputArtifact != nil && input.ComponentInputArtifact != "":
		v.add(at, "2 sources are given, want one of them")
		return
	case input.TaskOutputArtifact != nil:
		from := input.TaskOutputArtifact
		producer := v.sibling(s, at.keys("taskOutputArtifact", "producerTask"), from.ProducerTask)
		if producer == nil {
			return
		}
		output := v.outputArtifact(at.keys("taskOutputArtifact", "outputArtifactKey"), from.ProducerTask, producer, from.OutputArtifactKey)
		if output == nil {
			return
		}
		list = output.IsArtifactList || producer.ParameterIterator != nil || producer.ArtifactIterator != nil
	case input.ComponentInputArtifact != "":
		outer := s.component.InputDefinitions.Artifacts[input.ComponentInputArtifact]
		if outer == nil {
			v.add(at.key("componentInputArtifact"), "the pipeline around this task has no input artifact %q", clip(input.ComponentInputArtifact, 60)).
				Hint = didYouMean(input.ComponentInputArtifact, sorted(s.component.InputDefinitions.Artifacts), "input artifacts")
			return
		}
		list = outer.IsArtifactList
	default:
		v.add(at, "no source is given").Hint = "want one of taskOutputArtifact, componentInputArtifact"
		return
	}
	if def != nil && list && !def.IsArtifactList {
		v.add(at, "a list of artifacts cannot feed an input that takes one").Hint = "loop over the list, or take it as List[…]"
	}
}

func (v *validator) outputArtifact(at *place, key string, task *PipelineTaskSpec, output string) *OutputArtifactSpec {
	component := v.spec.Components[task.ComponentRef.Name]
	if component == nil {
		return nil
	}
	def := component.OutputDefinitions.Artifacts[output]
	if def == nil {
		p := v.add(at, "task %s has no output artifact %q", key, clip(output, 60))
		p.Hint = didYouMean(output, sorted(component.OutputDefinitions.Artifacts), "output artifacts")
		if component.OutputDefinitions.Parameters[output] != nil {
			p.Hint = "it is a parameter: use taskOutputParameter"
		}
	}
	return def
}

// unbound finds required inputs that nothing is bound to.
func (v *validator) unbound(at *place, task *PipelineTaskSpec, component *ComponentSpec) {
	item := ""
	switch {
	case task.ParameterIterator != nil:
		item = task.ParameterIterator.ItemInput
	case task.ArtifactIterator != nil:
		item = task.ArtifactIterator.ItemInput
	}
	for _, name := range sorted(component.InputDefinitions.Parameters) {
		def := component.InputDefinitions.Parameters[name]
		if task.Inputs.Parameters[name] == nil && name != item && !def.IsOptional && def.DefaultValue == nil && def.Type() != ParameterTaskConfig {
			v.add(at.keys("inputs", "parameters", name), "component %s requires the input %q, and nothing is bound to it", task.ComponentRef.Name, name).
				Hint = "bind it, or give the input a default"
		}
	}
	for _, name := range sorted(component.InputDefinitions.Artifacts) {
		if task.Inputs.Artifacts[name] == nil && name != item && !component.InputDefinitions.Artifacts[name].IsOptional {
			v.add(at.keys("inputs", "artifacts", name), "component %s requires the artifact %q, and nothing is bound to it", task.ComponentRef.Name, name).
				Hint = "bind it, or make the input optional"
		}
	}
}

// policies checks when a task runs and how often.
func (v *validator) policies(at *place, task *PipelineTaskSpec, component *ComponentSpec) {
	if condition := task.TriggerPolicy.Condition; condition != "" && v.checks.Condition != nil {
		names := append(sorted(task.Inputs.Parameters), sorted(component.InputDefinitions.Parameters)...)
		if err := v.checks.Condition(condition, names); err != nil {
			v.add(at.keys("triggerPolicy", "condition"), "%w", err)
		}
	}
	if limit := task.IteratorPolicy.ParallelismLimit; limit < 0 {
		v.add(at.keys("iteratorPolicy", "parallelismLimit"), "must not be negative, got %d", limit).Hint = "0 means no limit"
	}
	policy := task.RetryPolicy
	if policy == nil {
		return
	}
	retry := at.key("retryPolicy")
	if policy.MaxRetryCount < 0 || policy.MaxRetryCount > maxRetries {
		v.add(retry.key("maxRetryCount"), "want 0 to %d, got %d", maxRetries, policy.MaxRetryCount)
	}
	if policy.BackoffFactor < 0 {
		v.add(retry.key("backoffFactor"), "must not be negative, got %s", NumberText(policy.BackoffFactor))
	}
	if policy.BackoffDuration < 0 {
		v.add(retry.key("backoffDuration"), "must not be negative, got %s", policy.BackoffDuration)
	}
	if policy.BackoffMaxDuration < 0 {
		v.add(retry.key("backoffMaxDuration"), "must not be negative, got %s", policy.BackoffMaxDuration)
	}
}

// maxRetries bounds how often a task is tried again: each attempt is an object
// and a folder.
const maxRetries = 1000

// dagOutputs checks what a dag gives outside.
func (v *validator) dagOutputs(s scope) {
	defs, outputs, at := s.component.OutputDefinitions, s.component.Dag.Outputs, s.at.keys("dag", "outputs")
	for _, name := range sorted(outputs.Parameters) {
		if v.full() {
			return
		}
		v.dagParameter(s, at.keys("parameters", name), outputs.Parameters[name], defs.Parameters[name])
	}
	for _, name := range sorted(outputs.Artifacts) {
		if v.full() {
			return
		}
		here := at.keys("artifacts", name)
		if defs.Artifacts[name] == nil {
			v.add(here, "not declared in outputDefinitions.artifacts")
		}
		selectors := outputs.Artifacts[name].ArtifactSelectors
		if len(selectors) == 0 {
			v.add(here.key("artifactSelectors"), "want at least one producer")
		}
		for i, from := range selectors {
			spot := here.key("artifactSelectors").at(i)
			if producer := v.sibling(s, spot.key("producerSubtask"), from.ProducerSubtask); producer != nil {
				v.outputArtifact(spot.key("outputArtifactKey"), from.ProducerSubtask, producer, from.OutputArtifactKey)
			}
		}
	}
	for _, name := range sorted(defs.Parameters) {
		if outputs.Parameters[name] == nil {
			v.add(s.at.keys("outputDefinitions", "parameters", name), "declared, but dag.outputs gives it no source")
		}
	}
	for _, name := range sorted(defs.Artifacts) {
		if outputs.Artifacts[name] == nil {
			v.add(s.at.keys("outputDefinitions", "artifacts", name), "declared, but dag.outputs gives it no source")
		}
	}
}

// errNoSelector is what is wrong with an output that has no source.
var errNoSelector = errors.New("no source is given: want valueFromParameter or valueFromOneof")

func (v *validator) dagParameter(s scope, at *place, output *DagOutputParameterSpec, def *OutputParameterDef) {
	if def == nil {
		v.add(at, "not declared in outputDefinitions.parameters")
	}
	var selectors []ParameterSelectorSpec
	spots := []*place{}
	switch {
	case output.ValueFromParameter != nil && output.ValueFromOneof != nil:
		v.add(at, "2 sources are given, want one of them")
		return
	case output.ValueFromParameter != nil:
		selectors, spots = append(selectors, *output.ValueFromParameter), append(spots, at.key("valueFromParameter"))
	case output.ValueFromOneof != nil:
		list := at.keys("valueFromOneof", "parameterSelectors")
		if selectors = output.ValueFromOneof.ParameterSelectors; len(selectors) == 0 {
			v.add(list, "want at least one branch")
		}
		for i := range selectors {
			spots = append(spots, list.at(i))
		}
	default:
		v.add(at, "%w", errNoSelector)
	}
	for i, from := range selectors {
		given := v.producedType(s, spots[i].key("producerSubtask"), from.ProducerSubtask, spots[i].key("outputParameterKey"), from.OutputParameterKey)
		// Inside of a loop compilers declare the list that is collected, and those of the SDK's first versions
		// the type of whatever they saw last.
		if def != nil && def.Type() != ParameterList && !v.passes[s.component] && !feeds(given, def.Type()) {
			v.add(spots[i], "a value of type %s cannot be an output of type %s", given, def.Type())
		}
	}
}

// feeds reports whether a value of one type may feed an input of another.
func feeds(from, to ParameterType) bool {
	number := func(t ParameterType) bool { return t == ParameterInteger || t == ParameterDouble }
	mapping := func(t ParameterType) bool {
		return t == ParameterStruct || t == ParameterTaskFinalStatus || t == ParameterTaskConfig
	}
	switch {
	case from == to, from == ParameterUnspecified, to == ParameterUnspecified, to == ParameterString:
		return true
	case number(from) && number(to), mapping(from) && mapping(to):
		return true
	}
	return false
}
