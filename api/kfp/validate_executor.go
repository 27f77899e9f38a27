package kfp

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"

	"github.com/skiff-ml/skiff/api/core"
)

// executor checks what does not depend on the component that uses it.
func (v *validator) executor(at *place, label string) {
	e := v.spec.DeploymentSpec.Executors[label]
	count := 0
	for _, given := range []bool{e.Container != nil, e.Importer != nil, e.Resolver != nil, e.CustomJob != nil} {
		if given {
			count++
		}
	}
	switch {
	case count != 1:
		v.add(at, "%d kinds of executor are given, want one of container, importer", count)
	case e.Resolver != nil:
		v.add(at.key("resolver"), "resolvers are not supported").
			Hint = "use an importer with the artifact's address, or pass the address as a parameter"
	case e.CustomJob != nil:
		v.add(at.key("customJob"), "jobs of one cloud's own service are not supported").
			Hint = "use a container component with the same image and command"
	case e.Container != nil:
		v.container(at.key("container"), e.Container)
	case e.Importer != nil:
		v.importer(at.key("importer"), e.Importer)
	}
}

// container checks what is written plainly.
func (v *validator) container(at *place, c *ContainerSpec) {
	switch {
	case c.Image == "":
		v.add(at.key("image"), "required: the container has no image")
	case !strings.Contains(c.Image, "{{$"):
		if err := CheckImage(c.Image); err != nil {
			v.add(at.key("image"), "%w", err).Hint = "write it as [registry/]name[:tag], such as python:3.11"
		}
	}
	for i, variable := range c.Env {
		v.variable(at.key("env").at(i).key("name"), variable.Name)
	}
	v.resources(at.key("resources"), c.Resources)
}

// CheckImage says what is wrong with an image reference.
func CheckImage(image string) error {
	if _, err := reference.ParseNormalizedNamed(image); err != nil {
		var reason = err
		if inner := errors.Unwrap(err); inner != nil {
			reason = inner
		}
		return fmt.Errorf("%q is not an image reference: %w", clip(image, 80), reason)
	}
	return nil
}

var variableName = regexp.MustCompile(`^[-._a-zA-Z][-._a-zA-Z0-9]*$`)

func (v *validator) variable(at *place, name string) {
	switch {
	case name == "":
		v.add(at, "required: the variable has no name")
	case !variableName.MatchString(name):
		v.add(at, "%q cannot be the name of a variable", clip(name, 60)).Hint = "use letters, digits and _, and no digit first"
	}
}

// resources checks amounts that do not hang on inputs, each by its own.
func (v *validator) resources(at *place, r *ResourceSpec) {
	if r == nil {
		return
	}
	for _, entry := range []struct {
		field  string
		number float64
	}{{"cpuLimit", r.CPULimit}, {"memoryLimit", r.MemoryLimit}, {"cpuRequest", r.CPURequest}, {"memoryRequest", r.MemoryRequest}} {
		if entry.number < 0 {
			v.add(at.key(entry.field), "must not be negative, got %s", NumberText(entry.number))
		}
	}
	amounts := map[string]core.Quantity{}
	for _, entry := range []struct{ field, text string }{
		{"resourceCpuLimit", r.ResourceCPULimit}, {"resourceMemoryLimit", r.ResourceMemoryLimit},
		{"resourceCpuRequest", r.ResourceCPURequest}, {"resourceMemoryRequest", r.ResourceMemoryRequest},
	} {
		if entry.text == "" || strings.Contains(entry.text, "{{$") {
			continue
		}
		quantity, err := core.ParseQuantity(entry.text)
		if err != nil {
			v.add(at.key(entry.field), "%w", err)
			continue
		}
		amounts[entry.field] = quantity
	}
	v.limitsHold(at, "resourceCpuRequest", "resourceCpuLimit", amounts)
	v.limitsHold(at, "resourceMemoryRequest", "resourceMemoryLimit", amounts)
	v.accelerator(at.key("accelerator"), r.Accelerator)
}

// limitsHold checks that no more is requested than is allowed.
func (v *validator) limitsHold(at *place, request, limit string, amounts map[string]core.Quantity) {
	asked, hasRequest := amounts[request]
	allowed, hasLimit := amounts[limit]
	if hasRequest && hasLimit && asked.Milli() > allowed.Milli() {
		v.add(at.key(request), "%s is requested, but the limit is %s", asked, allowed).Hint = "raise the limit or lower the request"
	}
}

func (v *validator) accelerator(at *place, a *AcceleratorConfig) {
	if a == nil {
		return
	}
	if a.Count < 0 {
		v.add(at.key("count"), "must not be negative, got %d", a.Count)
	}
	if text := a.ResourceCount; text != "" && !strings.Contains(text, "{{$") {
		if n, err := ParseArgument(ParameterInteger, text); err != nil || n.(float64) < 0 {
			v.add(at.key("resourceCount"), "want a whole number, not negative, got %q", clip(text, 40))
		}
	}
}

func (v *validator) importer(at *place, i *ImporterSpec) {
	uri := i.ArtifactURI
	text, isText := uri.Constant.(string)
	switch {
	case uri.RuntimeParameter != "" && uri.Constant != nil:
		v.add(at.key("artifactUri"), "both constant and runtimeParameter are given, want one of them")
	case uri.RuntimeParameter == "" && (!isText || text == ""):
		v.add(at.key("artifactUri"), "required: the importer has no address").Hint = "want a constant such as s3://bucket/data, or a runtimeParameter"
	}
	v.artifactType(at.key("typeSchema"), i.TypeSchema)
	switch {
	case !i.DownloadToWorkspace:
	case v.pkg.Platform.Workspace() == nil:
		v.noWorkspace(at.key("downloadToWorkspace"), "the importer downloads to a workspace")
	case strings.HasPrefix(text, "oci://"):
		v.add(at.key("downloadToWorkspace"), "an image, %s, is not downloaded to a workspace", clip(text, 80)).
			Hint = "leave it out: the image's models are mounted where tasks look for them"
	}
}

func (v *validator) noWorkspace(at *place, what string) {
	v.add(at, "%s, and the pipeline has none", what).
		Hint = "give it one: @dsl.pipeline(pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size=…)))"
}

// implementation checks an executor as a component uses it: what its
// placeholders name must be there.
func (v *validator) implementation(at *place, c *ComponentSpec, e *ExecutorSpec) {
	label := c.ExecutorLabel
	spot := (*place)(nil).keys("deploymentSpec", "executors", label)
	if e.Importer != nil {
		v.importerUse(at, spot.key("importer"), c, e.Importer)
		return
	}
	if e.Container == nil {
		return
	}
	names := v.names(at.name, c)
	here := spot.key("container")
	for i, text := range e.Container.Command {
		v.element(here.key("command").at(i), names, text)
	}
	for i, text := range e.Container.Args {
		v.element(here.key("args").at(i), names, text)
	}
	v.template(here.key("image"), names, e.Container.Image)
	for i, variable := range e.Container.Env {
		v.template(here.key("env").at(i).key("value"), names, variable.Value)
	}
	if r := e.Container.Resources; r != nil {
		for _, entry := range []struct{ field, text string }{
			{"resourceCpuLimit", r.ResourceCPULimit}, {"resourceMemoryLimit", r.ResourceMemoryLimit},
			{"resourceCpuRequest", r.ResourceCPURequest}, {"resourceMemoryRequest", r.ResourceMemoryRequest},
		} {
			v.template(here.keys("resources", entry.field), names, entry.text)
		}
		if a := r.Accelerator; a != nil {
			v.template(here.keys("resources", "accelerator", "resourceType"), names, a.ResourceType)
			v.template(here.keys("resources", "accelerator", "resourceCount"), names, a.ResourceCount)
		}
	}
}

// importerUse checks what an importer needs of its component.
func (v *validator) importerUse(at, spot *place, c *ComponentSpec, i *ImporterSpec) {
	if len(c.OutputDefinitions.Artifacts) != 1 {
		v.add(at.keys("outputDefinitions", "artifacts"), "an importer has exactly one output artifact, got %d", len(c.OutputDefinitions.Artifacts))
	}
	names := v.names(at.name, c)
	if name := i.ArtifactURI.RuntimeParameter; name != "" && !names.parameter(name) {
		v.add(spot.keys("artifactUri", "runtimeParameter"), "the component has no input %q", clip(name, 60)).
			Hint = didYouMean(name, sorted(c.InputDefinitions.Parameters), "inputs")
	}
	if text, isText := i.ArtifactURI.Constant.(string); isText {
		v.template(spot.keys("artifactUri", "constant"), names, text)
	}
	for _, key := range sorted(i.Metadata) {
		v.valueTemplates(spot.keys("metadata", key), names, i.Metadata[key])
	}
}

func (v *validator) valueTemplates(at *place, names names, value any) {
	switch value := value.(type) {
	case string:
		v.template(at, names, value)
	case []any:
		for i, item := range value {
			v.valueTemplates(at.at(i), names, item)
		}
	case map[string]any:
		for _, key := range sorted(value) {
			v.valueTemplates(at.key(key), names, value[key])
		}
	}
}

// names is what the placeholders of a component may refer to.
type names struct {
	component *ComponentSpec
	// bound are the inputs that every task of the component binds besides.
	bound map[string]bool
}

func (n names) parameter(name string) bool {
	return n.component.InputDefinitions.Parameters[name] != nil || n.bound[name]
}

// names finds what every use of the component so called binds beyond what it
// declares.
func (v *validator) names(name string, c *ComponentSpec) names {
	n := names{component: c, bound: map[string]bool{}}
	uses := v.uses[name]
	counts := map[string]int{}
	for _, use := range uses {
		for input := range use.task.Inputs.Parameters {
			counts[input]++
		}
	}
	for input, count := range counts {
		n.bound[input] = count == len(uses)
	}
	return n
}

// element checks one element of a command line.
func (v *validator) element(at *place, n names, text string) {
	if !strings.Contains(text, "{{$") && !operatorHead.MatchString(text) {
		return
	}
	argument, err := ParseArgumentTemplate(text)
	if err != nil {
		v.add(at, "%w", err).Hint = `an operator is {"Concat": [...]} or {"IfPresent": {"InputName": …, "Then": …}}`
		return
	}
	told := map[string]bool{}
	argument.Walk(func(p *Placeholder) {
		if !told[p.Text] {
			told[p.Text] = true
			v.placeholder(at, n, p, true)
		}
	}, func(name string) {
		c := n.component
		if !n.parameter(name) && c.InputDefinitions.Artifacts[name] == nil && c.OutputDefinitions.Parameters[name] == nil && c.OutputDefinitions.Artifacts[name] == nil {
			v.add(at, "IfPresent asks for %q, which the component does not have", clip(name, 60)).
				Hint = didYouMean(name, append(sorted(c.InputDefinitions.Parameters), sorted(c.InputDefinitions.Artifacts)...), "inputs")
		}
	})
}

// template checks a text outside of a command line.
func (v *validator) template(at *place, n names, text string) {
	if !strings.Contains(text, "{{$") {
		return
	}
	for _, segment := range ParseTemplate(text) {
		if segment.Placeholder != nil {
			v.placeholder(at, n, segment.Placeholder, false)
		}
	}
}

// placeholder checks that what a placeholder names is there.
func (v *validator) placeholder(at *place, n names, p *Placeholder, strict bool) {
	if v.full() || p.InProgram || (p.Stranger && !strict) {
		return
	}
	c := n.component
	refuse := func(what string, known []string, plural string) {
		v.add(at, "placeholder %s: the component has no %s %q", clip(p.Text, 120), what, clip(p.Name, 60)).Hint = didYouMean(p.Name, known, plural)
	}
	switch p.Kind {
	case PlaceholderUnknown:
		v.add(at, "placeholder %s: %s", clip(p.Text, 120), p.Reason).Hint = p.Hint
	case PlaceholderInputParameter:
		if n.parameter(p.Name) {
			return
		}
		if c.InputDefinitions.Artifacts[p.Name] != nil {
			v.add(at, "placeholder %s: %q is an artifact", clip(p.Text, 120), p.Name).Hint = fmt.Sprintf("write {{$.inputs.artifacts['%s'].uri}} or .path", p.Name)
			return
		}
		refuse("input parameter", sorted(c.InputDefinitions.Parameters), "input parameters")
	case PlaceholderInputArtifact:
		if c.InputDefinitions.Artifacts[p.Name] == nil {
			refuse("input artifact", sorted(c.InputDefinitions.Artifacts), "input artifacts")
		}
	case PlaceholderOutputArtifact:
		if c.OutputDefinitions.Artifacts[p.Name] == nil {
			refuse("output artifact", sorted(c.OutputDefinitions.Artifacts), "output artifacts")
		}
	case PlaceholderOutputParameter:
		if c.OutputDefinitions.Parameters[p.Name] == nil {
			refuse("output parameter", sorted(c.OutputDefinitions.Parameters), "output parameters")
		}
	case PlaceholderJob:
		if p.Name == "workspace_path" && v.pkg.Platform.Workspace() == nil {
			v.noWorkspace(at, "the component reads the workspace's path")
		}
	}
}
