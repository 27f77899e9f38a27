package kfp

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/skiff-ml/skiff/api/problem"
)

// Checks are what Validate needs from outside.
type Checks struct {
	// Condition compiles a trigger policy's condition, which may read the named
	// input parameters. Nil leaves conditions unchecked.
	Condition func(condition string, inputs []string) error
	// Selector compiles a parameterExpressionSelector; nil leaves them unchecked.
	Selector func(selector string) error
	Limits   Limits
}

// Validate reports everything that is wrong with a package and that shows
// without running it: at most Limits.MaxProblems, in the order of the document's
// parts. A package without problems can be executed as far as its author's part
// goes.
func Validate(pkg *Package, checks Checks) problem.List {
	checks.Limits = checks.Limits.WithDefaults()
	v := &validator{pkg: pkg, spec: pkg.Spec, checks: checks, uses: map[string][]use{}, passes: map[*ComponentSpec]bool{}}
	v.pipeline()
	if v.full() {
		v.problems.Add("", "%w", errManyProblems)
	}
	for _, p := range v.problems {
		p.Object = pkg.file
	}
	return v.problems
}

// validator walks a package once.
type validator struct {
	pkg      *Package
	spec     *PipelineSpec
	checks   Checks
	problems problem.List
	// uses are the tasks of each component.
	uses map[string][]use
	// passes are the components that are in a loop, at whatever depth.
	passes map[*ComponentSpec]bool
}

// use is a task that is an instance of a component.
type use struct {
	task *PipelineTaskSpec
	at   *place
}

// add notes a problem and finds its line.
func (v *validator) add(at *place, format string, args ...any) *problem.Error {
	p := &problem.Error{Field: at.String(), Err: fmt.Errorf(format, args...)}
	if v.full() {
		return p
	}
	if node := v.locate(at); node != nil {
		p.Line, p.Column = node.Line, node.Column
	}
	v.problems = append(v.problems, p)
	return p
}

// full reports that there are more problems than anybody reads: the search ends.
func (v *validator) full() bool { return len(v.problems) >= v.checks.Limits.MaxProblems }

// locate finds the node of a place, or the nearest one above it.
func (v *validator) locate(at *place) *yaml.Node {
	var steps []*place
	for p := at; p != nil; p = p.parent {
		steps = append(steps, p)
	}
	slices.Reverse(steps)
	node := v.pkg.spec
	if len(steps) > 0 && steps[0].name == "platforms" {
		node, steps = v.pkg.platform, steps[min(2, len(steps)):] // platforms.kubernetes
	}
	if node == nil {
		return nil
	}
	best := node
	for _, step := range steps {
		if node.Kind == yaml.AliasNode {
			node = node.Alias
		}
		next, shown := below(node, step)
		if next == nil {
			return best
		}
		node, best = next, shown
	}
	return best
}

// below is the value under a step, and the node that a person looks for: the
// key of a mapping's entry, the element of a list.
func below(node *yaml.Node, step *place) (value, shown *yaml.Node) {
	if step.index >= 0 {
		if node.Kind != yaml.SequenceNode || step.index >= len(node.Content) {
			return nil, nil
		}
		return node.Content[step.index], node.Content[step.index]
	}
	if node.Kind != yaml.MappingNode {
		return nil, nil
	}
	other := snake(step.name)
	for i := 0; i+1 < len(node.Content); i += 2 {
		if key := node.Content[i].Value; key == step.name || key == other {
			return node.Content[i+1], node.Content[i]
		}
	}
	return nil, nil
}

// sorted is the keys of a map in order, so that reports are alike.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// maxName bounds a pipeline's name, as the SDK does.
const maxName = 128

var schemaVersions = regexp.MustCompile(`^2\.[01]\.\d+$`)

// pipeline checks the package from the top.
func (v *validator) pipeline() {
	top := (*place)(nil)
	v.name(top.keys("pipelineInfo", "name"), v.spec.PipelineInfo.Name)
	switch version := v.spec.SchemaVersion; {
	case version == "":
		v.add(top.key("schemaVersion"), "required").Hint = "known are 2.0 and 2.1; compile the pipeline with a kfp SDK 2.x"
	case !schemaVersions.MatchString(version):
		v.add(top.key("schemaVersion"), "unknown version %q", clip(version, 40)).Hint = "known are 2.0 and 2.1; compile the pipeline with a kfp SDK 2.x"
	}
	v.collectUses()
	v.collectPasses()
	switch root := v.spec.Root; {
	case root == nil:
		v.add(top.key("root"), "required: the pipeline has no root").Hint = "give the file that the KFP compiler wrote"
	case root.Dag == nil && root.ExecutorLabel != "":
		v.add(top.keys("root", "executorLabel"), "the root must be a dag").Hint = "put the component into a pipeline of one task, as the KFP compiler does"
	default:
		v.component(top.key("root"), root)
	}
	for _, name := range sorted(v.spec.Components) {
		v.component(top.keys("components", name), v.spec.Components[name])
	}
	v.recursion()
	v.loops()
	for _, label := range sorted(v.spec.DeploymentSpec.Executors) {
		if v.full() {
			return
		}
		v.executor(top.keys("deploymentSpec", "executors", label), label)
	}
	v.kubernetes()
}

func (v *validator) name(at *place, name string) {
	switch {
	case name == "":
		v.add(at, "required: the pipeline has no name").Hint = "name it, in @dsl.pipeline(name=…)"
	case utf8.RuneCountInString(name) > maxName:
		v.add(at, "longer than %d characters", maxName)
	case strings.TrimSpace(name) != name:
		v.add(at, "%q begins or ends with a space", clip(name, 60))
	case strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r == '\\' || !unicode.IsPrint(r) }) || strings.Trim(name, ".") == "":
		v.add(at, "%q holds characters that a name cannot have", clip(name, 60)).Hint = "use letters, digits, spaces and dashes"
	}
}

// collectUses finds the tasks of each component.
func (v *validator) collectUses() {
	top := (*place)(nil)
	collect := func(at *place, c *ComponentSpec) {
		if c == nil || c.Dag == nil {
			return
		}
		for _, key := range sorted(c.Dag.Tasks) {
			task := c.Dag.Tasks[key]
			v.uses[task.ComponentRef.Name] = append(v.uses[task.ComponentRef.Name], use{task, at.keys("dag", "tasks", key)})
		}
	}
	collect(top.key("root"), v.spec.Root)
	for _, name := range sorted(v.spec.Components) {
		collect(top.keys("components", name), v.spec.Components[name])
	}
}

// component checks an interface and that there is one implementation.
func (v *validator) component(at *place, c *ComponentSpec) {
	if v.full() {
		return
	}
	v.definitions(at, c)
	switch {
	case c.Dag != nil && c.ExecutorLabel != "":
		v.add(at, "both dag and executorLabel are given, want one of them")
	case c.Dag != nil:
		v.dag(at, c)
	case c.ExecutorLabel == "":
		v.add(at, "neither dag nor executorLabel is given, want one of them")
	case v.spec.DeploymentSpec.Executors[c.ExecutorLabel] == nil:
		v.add(at.key("executorLabel"), "there is no executor %q", clip(c.ExecutorLabel, 60)).
			Hint = didYouMean(c.ExecutorLabel, sorted(v.spec.DeploymentSpec.Executors), "executors")
	default:
		v.implementation(at, c, v.spec.DeploymentSpec.Executors[c.ExecutorLabel])
	}
}

// definitions checks declared inputs and outputs.
func (v *validator) definitions(at *place, c *ComponentSpec) {
	inputs, outputs := at.key("inputDefinitions"), at.key("outputDefinitions")
	for _, name := range sorted(c.InputDefinitions.Parameters) {
		if v.full() {
			return
		}
		def, here := c.InputDefinitions.Parameters[name], inputs.keys("parameters", name)
		v.declaredType(here, def.Type())
		if c.InputDefinitions.Artifacts[name] != nil {
			v.add(here, "declared as a parameter and as an artifact")
		}
		plain := &InputParameterDef{ParameterType: def.Type()}
		for i, literal := range def.Literals {
			if _, err := plain.Coerce(literal); err != nil {
				v.add(here.key("literals").at(i), "%w", err)
			}
		}
		if def.DefaultValue != nil {
			if _, err := def.Coerce(def.DefaultValue); err != nil {
				v.add(here.key("defaultValue"), "%w", err)
			}
		}
	}
	for _, name := range sorted(c.InputDefinitions.Artifacts) {
		v.artifactType(inputs.keys("artifacts", name, "artifactType"), c.InputDefinitions.Artifacts[name].ArtifactType)
	}
	for _, name := range sorted(c.OutputDefinitions.Parameters) {
		v.declaredType(outputs.keys("parameters", name), c.OutputDefinitions.Parameters[name].Type())
		if c.OutputDefinitions.Artifacts[name] != nil {
			v.add(outputs.keys("parameters", name), "declared as a parameter and as an artifact")
		}
		v.outputName(outputs.keys("parameters", name), name)
	}
	for _, name := range sorted(c.OutputDefinitions.Artifacts) {
		v.artifactType(outputs.keys("artifacts", name, "artifactType"), c.OutputDefinitions.Artifacts[name].ArtifactType)
		v.outputName(outputs.keys("artifacts", name), name)
	}
}

// outputName refuses names that could not be the last part of a path: outputs
// are files and folders called after them.
func (v *validator) outputName(at *place, name string) {
	if name == "" || name == "." || name == ".." || len(name) > 200 || strings.ContainsAny(name, "/\\\x00") {
		v.add(at, "an output cannot be called %q", clip(name, 60)).Hint = "use letters, digits, dashes and underscores"
	}
}

func (v *validator) declaredType(at *place, declared ParameterType) {
	if declared == ParameterUnspecified {
		v.add(at.key("parameterType"), "required: the parameter has no type").Hint = "types: " + strings.Join(ParameterType("").enumNames()[1:], ", ")
	}
}

func (v *validator) artifactType(at *place, schema ArtifactTypeSchema) {
	if schema.SchemaURI != "" {
		v.add(at.key("schemaUri"), "not supported").Hint = "use schemaTitle, such as system.Dataset, or instanceSchema"
	}
}

// recursion refuses components that contain themselves.
func (v *validator) recursion() {
	graph := map[string][]string{}
	for _, name := range sorted(v.spec.Components) {
		if dag := v.spec.Components[name].Dag; dag != nil {
			for _, key := range sorted(dag.Tasks) {
				graph[name] = append(graph[name], dag.Tasks[key].ComponentRef.Name)
			}
		}
	}
	if cycle := findCycle(graph); cycle != nil {
		v.add((*place)(nil).keys("components", cycle[0]), "the component contains itself: %s", chain(cycle)).
			Hint = "a pipeline cannot call itself; use a loop"
	}
}

// chain writes a cycle as a → b → a.
func chain(cycle []string) string {
	shown := cycle
	if len(shown) > 12 {
		shown = append(append([]string{}, shown[:10]...), "…", shown[len(shown)-1])
	}
	return strings.Join(shown, " → ")
}

// findCycle returns the nodes of one cycle, the first again at the end, or nil.
// It is a depth-first search that keeps its own stack: graphs may be deep.
func findCycle(graph map[string][]string) []string {
	const open, done = 1, 2
	state := map[string]int{}
	type frame struct {
		name string
		next int
	}
	for _, start := range sorted(graph) {
		if state[start] != 0 {
			continue
		}
		stack := []frame{{name: start}}
		state[start] = open
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if top.next == len(graph[top.name]) {
				state[top.name] = done
				stack = stack[:len(stack)-1]
				continue
			}
			next := graph[top.name][top.next]
			top.next++
			switch state[next] {
			case 0:
				state[next] = open
				stack = append(stack, frame{name: next})
			case open:
				var cycle []string
				for i := range stack {
					if len(cycle) > 0 || stack[i].name == next {
						cycle = append(cycle, stack[i].name)
					}
				}
				return append(cycle, next)
			}
		}
	}
	return nil
}
