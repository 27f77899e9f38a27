package expr

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/kfp"
)

// Context is what placeholders resolve against. It is read only.
type Context struct {
	// Input is the task's executor input.
	Input *kfp.ExecutorInput
	// Component declares the task's inputs, so that an optional one without a
	// value is told from a name that does not exist. Without it every input
	// that has no value counts as optional.
	Component *kfp.ComponentSpec

	// JobName is the run's display name, JobResourceName its name, JobUUID its id.
	JobName, JobResourceName, JobUUID string
	// TaskName is the task's key in its DAG, TaskUUID its id.
	TaskName, TaskUUID             string
	JobCreateTime, JobScheduleTime time.Time
	PipelineRoot, WorkspacePath    string
	// ContainerPath is where an artifact without a path of its own appears inside
	// the container.
	ContainerPath func(a kfp.RuntimeArtifact) (string, error)
	// Quote, where set, is applied to each part of a text: to what the pipeline's
	// author wrote (literal) and to what took a placeholder's place.
	Quote func(part string, literal bool) string
}

// Resolve replaces everything in a command line that is not literal: the
// placeholders in its elements, and the elements that are operators, which may
// become several elements or none.
func Resolve(command, args []string, ctx *Context) (resolvedCommand, resolvedArgs []string, err error) {
	if resolvedCommand, err = ctx.elements(command, "command"); err != nil {
		return nil, nil, err
	}
	if resolvedArgs, err = ctx.elements(args, "args"); err != nil {
		return nil, nil, err
	}
	return resolvedCommand, resolvedArgs, nil
}

func (c *Context) elements(list []string, name string) ([]string, error) {
	var out []string
	for i, text := range list {
		argument, err := kfp.ParseArgumentTemplate(text)
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", name, i, err)
		}
		resolved, err := c.argument(argument)
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", name, i, err)
		}
		out = append(out, resolved...)
	}
	return out, nil
}

// argument is what one element becomes.
func (c *Context) argument(a kfp.Argument) ([]string, error) {
	switch {
	case a.IfPresent != nil:
		branch := a.IfPresent.Else
		if c.present(a.IfPresent.Input) {
			branch = a.IfPresent.Then
		}
		var out []string
		for _, item := range branch {
			resolved, err := c.argument(item)
			if err != nil {
				return nil, err
			}
			out = append(out, resolved...)
		}
		return out, nil
	case a.Concat != nil:
		var joined strings.Builder
		for i, item := range a.Concat.Items {
			resolved, err := c.argument(item)
			if err != nil {
				return nil, err
			}
			if len(resolved) > 1 {
				return nil, fmt.Errorf("the operator Concat: item %d gives a list of %d, want a single text", i+1, len(resolved))
			}
			joined.WriteString(strings.Join(resolved, ""))
		}
		return []string{joined.String()}, nil
	}
	text, err := c.text(a.Text)
	return []string{text}, err
}

// present reports whether an input has a value, or an output is declared.
func (c *Context) present(name string) bool {
	if c.Input == nil {
		return false
	}
	if value, found := c.Input.Inputs.ParameterValues[name]; found {
		return value != nil
	}
	if _, found := c.Input.Inputs.Artifacts[name]; found {
		return true
	}
	if c.Component != nil && (c.Component.InputDefinitions.Parameters[name] != nil || c.Component.InputDefinitions.Artifacts[name] != nil) {
		return false
	}
	_, parameter := c.Input.Outputs.Parameters[name]
	_, artifact := c.Input.Outputs.Artifacts[name]
	return parameter || artifact
}

// ResolveString replaces the placeholders in a text outside of command lines:
// images, variables, resources, constants. Text that only resembles a
// placeholder is data there and stays.
func ResolveString(text string, ctx *Context) (string, error) {
	if !strings.Contains(text, "{{$") {
		return ctx.quote(text, true), nil
	}
	template := kfp.ParseTemplate(text)
	for i, segment := range template {
		if p := segment.Placeholder; p != nil && p.Kind == kfp.PlaceholderUnknown && p.Stranger {
			template[i] = kfp.Segment{Literal: p.Text}
		}
	}
	return ctx.text(template)
}

// ResolveValue replaces the placeholders in all text of a value, keys included.
// A text that is nothing but the placeholder of a parameter becomes the
// parameter's value, whatever its type.
func ResolveValue(value any, ctx *Context) (any, error) {
	switch v := value.(type) {
	case string:
		if template := kfp.ParseTemplate(v); len(template) == 1 && template[0].Placeholder != nil && template[0].Placeholder.Kind == kfp.PlaceholderInputParameter {
			if found, ok := ctx.parameter(template[0].Placeholder.Name); ok {
				return found, nil
			}
		}
		return ResolveString(v, ctx)
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			resolved, err := ResolveValue(item, ctx)
			if err != nil {
				return nil, err
			}
			out[i] = resolved
		}
		return out, nil
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, item := range v {
			name, err := ResolveString(key, ctx)
			if err != nil {
				return nil, err
			}
			if out[name], err = ResolveValue(item, ctx); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return value, nil
}

// text joins a template's segments. What a placeholder became is not looked at
// again: a value may hold anything.
func (c *Context) text(template kfp.Template) (string, error) {
	var b strings.Builder
	for _, segment := range template {
		if segment.Placeholder == nil {
			b.WriteString(c.quote(segment.Literal, true))
			continue
		}
		value, err := c.placeholder(segment.Placeholder)
		switch {
		case err == nil:
			b.WriteString(c.quote(value, false))
		case segment.Placeholder.InProgram:
			b.WriteString(c.quote(segment.Placeholder.Text, true))
		default:
			return "", fmt.Errorf("placeholder %s: %w", segment.Placeholder.Text, err)
		}
	}
	return b.String(), nil
}

func (c *Context) quote(part string, literal bool) string {
	if c.Quote == nil {
		return part
	}
	return c.Quote(part, literal)
}

// null is what stands for an optional input without a value, as the SDK's own
// runner has it.
const null = "null"

func (c *Context) placeholder(p *kfp.Placeholder) (string, error) {
	switch p.Kind {
	case kfp.PlaceholderForeign:
		return p.Text, nil
	case kfp.PlaceholderJob:
		return c.job(p.Name)
	case kfp.PlaceholderUnknown:
		if p.Hint != "" {
			return "", fmt.Errorf("%s (%s)", p.Reason, p.Hint)
		}
		return "", errors.New(p.Reason)
	}
	if c.Input == nil {
		return "", errors.New("there are no inputs here")
	}
	switch p.Kind {
	case kfp.PlaceholderExecutorInput:
		return kfp.JSONText(c.Input)
	case kfp.PlaceholderInputParameter:
		return c.inputParameter(p.Name)
	case kfp.PlaceholderInputArtifact:
		list, found := c.Input.Inputs.Artifacts[p.Name]
		if !found {
			if c.Component == nil || c.Component.InputDefinitions.Artifacts[p.Name] != nil {
				return null, nil
			}
			return "", missing("input artifact", p.Name, c.Component.InputDefinitions.Artifacts)
		}
		return c.artifact(p, list)
	case kfp.PlaceholderOutputArtifact:
		list, found := c.Input.Outputs.Artifacts[p.Name]
		if !found {
			return "", missing("output artifact", p.Name, c.Input.Outputs.Artifacts)
		}
		return c.artifact(p, list)
	case kfp.PlaceholderOutputParameter:
		output, found := c.Input.Outputs.Parameters[p.Name]
		if !found {
			return "", missing("output parameter", p.Name, c.Input.Outputs.Parameters)
		}
		return output.OutputFile, nil
	default: // PlaceholderOutputFile, the last kind
		return c.Input.Outputs.OutputFile, nil
	}
}

// channelPrefix begins the inputs that the compiler binds to a task for the
// sake of placeholders alone: the component does not declare them.
const channelPrefix = "pipelinechannel--"

// parameter is an input's value; ok is false where the name does not exist.
func (c *Context) parameter(name string) (value any, ok bool) {
	if c.Input != nil {
		if value, found := c.Input.Inputs.ParameterValues[name]; found {
			return value, true
		}
	}
	return nil, c.Component == nil || c.Component.InputDefinitions.Parameters[name] != nil || strings.HasPrefix(name, channelPrefix)
}

func (c *Context) inputParameter(name string) (string, error) {
	value, ok := c.parameter(name)
	if !ok {
		return "", missing("input parameter", name, c.Component.InputDefinitions.Parameters)
	}
	return kfp.ValueText(value)
}

func missing[V any](what, name string, declared map[string]V) error {
	if len(declared) == 0 {
		return fmt.Errorf("there is no %s %q, nor any other", what, name)
	}
	return fmt.Errorf("there is no %s %q; there are %s", what, name, strings.Join(slices.Sorted(maps.Keys(declared)), ", "))
}

// artifact is a field of a list's first artifact, or the whole list as JSON.
func (c *Context) artifact(p *kfp.Placeholder, list kfp.ArtifactList) (string, error) {
	if p.Field == "" && len(list.Artifacts) == 0 {
		return "[]", nil
	}
	if p.Field == "" {
		return kfp.JSONText(list.Artifacts)
	}
	if len(list.Artifacts) == 0 {
		return "", errors.New("the list of artifacts is empty")
	}
	a := list.Artifacts[0]
	switch p.Field {
	case "uri":
		return a.URI, nil
	case "name":
		return a.Name, nil
	case "path":
		return c.path(a)
	}
	if !p.HasKey {
		if a.Metadata == nil {
			return "{}", nil
		}
		return kfp.JSONText(a.Metadata)
	}
	value, found := a.Metadata[p.Key]
	if !found {
		return "", missing("metadata key", p.Key, a.Metadata)
	}
	return kfp.ValueText(value)
}

// path is where an artifact lies inside the container.
func (c *Context) path(a kfp.RuntimeArtifact) (string, error) {
	if a.CustomPath != "" {
		return a.CustomPath, nil
	}
	if c.ContainerPath == nil {
		return a.URI, nil
	}
	path, err := c.ContainerPath(a)
	if err != nil {
		return "", fmt.Errorf("the place of %s in the container: %w", a.URI, err)
	}
	return path, nil
}

// job is a fact about the run or the task.
func (c *Context) job(name string) (string, error) {
	switch name {
	case "pipeline_job_name":
		return c.JobName, nil
	case "pipeline_job_resource_name":
		return c.JobResourceName, nil
	case "pipeline_job_uuid":
		return c.JobUUID, nil
	case "pipeline_task_name":
		return c.TaskName, nil
	case "pipeline_task_uuid":
		return c.TaskUUID, nil
	case "pipeline_job_create_time_utc":
		return c.JobCreateTime.UTC().Format(time.RFC3339), nil
	case "pipeline_job_schedule_time_utc":
		return c.JobScheduleTime.UTC().Format(time.RFC3339), nil
	case "pipeline_root":
		return c.PipelineRoot, nil
	case "workspace_path":
		return c.WorkspacePath, nil
	}
	return "", errors.New("there is no such fact about a run")
}
