package kfp

import (
	"fmt"
	"slices"
	"strings"
)

// PlaceholderKind says what a placeholder stands for.
type PlaceholderKind int

// The kinds of placeholders.
const (
	// PlaceholderUnknown cannot be resolved; Reason and Hint say why.
	PlaceholderUnknown PlaceholderKind = iota
	// PlaceholderExecutorInput is {{$}}, the executor input as JSON.
	PlaceholderExecutorInput
	// PlaceholderInputParameter is the value of an input parameter.
	PlaceholderInputParameter
	// PlaceholderInputArtifact and PlaceholderOutputArtifact are an artifact, or
	// a Field of it.
	PlaceholderInputArtifact
	PlaceholderOutputArtifact
	// PlaceholderOutputParameter is the file for an output parameter.
	PlaceholderOutputParameter
	// PlaceholderOutputFile is the file for the executor output.
	PlaceholderOutputFile
	// PlaceholderJob is a fact about the run or the task, called Name.
	PlaceholderJob
	// PlaceholderForeign belongs to another backend and stays as it is written,
	// as it does on the cluster.
	PlaceholderForeign
)

// Placeholder is one {{$…}} in a text.
type Placeholder struct {
	// Text is the placeholder as it is written.
	Text string
	Kind PlaceholderKind
	// Name is the parameter's, the artifact's or the job field's.
	Name string
	// Field of an artifact: uri, path, name or metadata; empty for all of it.
	Field string
	// Key of the metadata, where HasKey.
	Key    string
	HasKey bool
	// Reason and Hint say why the placeholder is unknown. Stranger tells that
	// nothing in it is like a placeholder of KFP, so that in data it is data.
	Reason, Hint string
	Stranger     bool
	// InProgram is set inside the source text of a component, which is left
	// alone where it only looks like a placeholder.
	InProgram bool
}

// Segment is a literal or a placeholder.
type Segment struct {
	Literal     string
	Placeholder *Placeholder
}

// Template is a text split at its placeholders.
type Template []Segment

// JobFields are the facts about run and task that {{$.NAME}} gives.
func JobFields() []string {
	return []string{
		"pipeline_job_name", "pipeline_job_resource_name", "pipeline_job_uuid", "pipeline_task_name", "pipeline_task_uuid",
		"pipeline_job_create_time_utc", "pipeline_job_schedule_time_utc", "pipeline_root", "workspace_path",
	}
}

// foreignFields are placeholders of another backend that components in wide use
// hold; the open backend passes them on as they are.
func foreignFields() []string {
	return []string{
		"pipeline_google_cloud_location", "pipeline_google_cloud_project_id", "pipeline_google_cloud_network",
		"pipeline_google_cloud_service_account", "pipeline_google_cloud_encryption_spec_kms_key_name",
		"pipeline_persistent_resource_id", "pipeline_service_account", "pipeline_network", "pipeline_encryption_spec_kms_key_name",
		"json_escape",
	}
}

// programMark stands in the source text of every lightweight component.
const programMark = "from kfp import dsl\n"

// ParseTemplate splits a text at its placeholders. It never fails: what cannot
// be resolved is a segment of kind PlaceholderUnknown, for the caller to judge.
// Text such as "{{ x }}" or "{{$x}}" is none of KFP's and stays literal.
func ParseTemplate(text string) Template {
	var out Template
	inProgram := strings.Contains(text, programMark)
	for {
		start := strings.Index(text, "{{$")
		if start < 0 {
			break
		}
		p, length := parsePlaceholder(text[start:])
		if p == nil {
			out = out.literal(text[:start+length])
		} else {
			p.InProgram = inProgram
			out = append(out.literal(text[:start]), Segment{Placeholder: p})
		}
		text = text[start+length:]
	}
	return out.literal(text)
}

func (t Template) literal(text string) Template {
	if text == "" {
		return t
	}
	if n := len(t); n > 0 && t[n-1].Placeholder == nil {
		t[n-1].Literal += text
		return t
	}
	return append(t, Segment{Literal: text})
}

// step is one part of a placeholder's way: .name or ['name'].
type step struct {
	name   string
	quoted bool
}

// parsePlaceholder reads the placeholder at the head of text, which begins with
// "{{$". A nil placeholder means that length bytes are literal.
func parsePlaceholder(text string) (p *Placeholder, length int) {
	rest := text[len("{{$"):]
	if strings.HasPrefix(rest, "}}") {
		return &Placeholder{Text: text[:len("{{$}}")], Kind: PlaceholderExecutorInput}, len("{{$}}")
	}
	if !strings.HasPrefix(rest, ".") {
		return nil, len("{{$")
	}
	steps, rest, complaint := parseSteps(rest)
	if complaint == "" {
		length = len(text) - len(rest)
		p = &Placeholder{Text: text[:length]}
	} else {
		// Not closed: for the message, up to where it might have been meant to end.
		shown := text
		if end := strings.Index(text, "}}"); end >= 0 {
			shown = text[:end+2]
		}
		length = len("{{$")
		p = &Placeholder{Text: clip(shown, 120), Reason: complaint}
	}
	p.interpret(steps, complaint != "")
	if p.Kind == PlaceholderUnknown && p.Stranger && complaint != "" {
		return nil, len("{{$") // "{{$." in some other language
	}
	return p, length
}

// parseSteps reads ".a['b'].c}}".
func parseSteps(text string) (steps []step, rest, complaint string) {
	for {
		switch {
		case strings.HasPrefix(text, "}}"):
			return steps, text[2:], ""
		case strings.HasPrefix(text, "."):
			end := 1
			for end < len(text) && isWordByte(text[end]) {
				end++
			}
			if end == 1 {
				return steps, text, "a name must follow the dot"
			}
			steps, text = append(steps, step{name: text[1:end]}), text[end:]
		case strings.HasPrefix(text, "['"), strings.HasPrefix(text, `["`):
			closing := text[1:2] + "]"
			end := strings.Index(text[2:], closing)
			if end < 0 {
				return steps, text, "a quote or bracket is not closed"
			}
			steps, text = append(steps, step{name: text[2 : 2+end], quoted: true}), text[2+end+2:]
		case strings.HasPrefix(text, "["):
			end := 1
			for end < len(text) && text[end] >= '0' && text[end] <= '9' {
				end++
			}
			if end == 1 || !strings.HasPrefix(text[end:], "]") {
				return steps, text, "a name in brackets must be in quotes"
			}
			steps, text = append(steps, step{name: text[1:end], quoted: true}), text[end+1:]
		default:
			return steps, text, "it is not closed by }}"
		}
	}
}

func isWordByte(c byte) bool {
	return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
}

// interpret says what the steps mean. A placeholder that is broken stays
// unknown, but is a stranger only by its first name.
func (p *Placeholder) interpret(steps []step, broken bool) {
	if len(steps) == 0 {
		p.Stranger = true
		return
	}
	head := steps[0].name
	switch {
	case broken && (head == "inputs" || head == "outputs" || slices.Contains(JobFields(), head)):
	case head == "inputs" && len(steps) > 1:
		p.input(steps[1:])
	case head == "outputs" && len(steps) > 1:
		p.output(steps[1:])
	case head == "outputMetadataUri" && len(steps) == 1:
		p.Kind = PlaceholderOutputFile
	case slices.Contains(JobFields(), head) && len(steps) == 1:
		p.Kind, p.Name = PlaceholderJob, head
	case slices.Contains(foreignFields(), head):
		p.Kind = PlaceholderForeign
	default:
		p.unknownHead(head)
	}
}

func (p *Placeholder) unknownHead(head string) {
	known := append([]string{"inputs", "outputs"}, JobFields()...)
	if p.Reason == "" {
		p.Reason = "there is no such placeholder"
	}
	near := nearest(head, known)
	switch {
	case head == "inputs" || head == "outputs":
		p.Reason, p.Hint = "it ends too early", fmt.Sprintf("write {{$.%s.parameters['NAME']…}} or {{$.%s.artifacts['NAME']…}}", head, head)
	case near != "":
		p.Hint = fmt.Sprintf("did you mean %q?", near)
	case strings.HasPrefix(head, "pipeline_"):
		p.Hint = "fields here: " + strings.Join(JobFields(), ", ")
	default:
		p.Stranger = true
		p.Hint = "where the text is meant as it stands, put a space after {{"
	}
}

func (p *Placeholder) input(steps []step) {
	switch {
	case steps[0].name == "parameters" && len(steps) == 2 && steps[1].quoted:
		p.Kind, p.Name = PlaceholderInputParameter, steps[1].name
	case steps[0].name == "artifacts":
		p.artifact(PlaceholderInputArtifact, steps[1:])
	default:
		p.Reason, p.Hint = "it is not a way to an input", "write {{$.inputs.parameters['NAME']}} or {{$.inputs.artifacts['NAME'].uri}}"
	}
}

func (p *Placeholder) output(steps []step) {
	switch {
	case steps[0].name == "output_file" && len(steps) == 1:
		p.Kind = PlaceholderOutputFile
	case steps[0].name == "parameters" && len(steps) == 3 && steps[1].quoted && steps[2].name == "output_file" && !steps[2].quoted:
		p.Kind, p.Name = PlaceholderOutputParameter, steps[1].name
	case steps[0].name == "artifacts":
		p.artifact(PlaceholderOutputArtifact, steps[1:])
	default:
		p.Reason, p.Hint = "it is not a way to an output", "write {{$.outputs.parameters['NAME'].output_file}} or {{$.outputs.artifacts['NAME'].path}}"
	}
}

// artifact reads ['x'], ['x'].uri, ['x'].metadata and ['x'].metadata['k'].
func (p *Placeholder) artifact(kind PlaceholderKind, steps []step) {
	fields := []string{"uri", "path", "name", "metadata", "properties", "custom_properties"}
	switch {
	case len(steps) == 0 || !steps[0].quoted:
		p.Reason, p.Hint = "the artifact is not named", "write artifacts['NAME']"
		return
	case len(steps) > 1 && (steps[1].quoted || !slices.Contains(fields, steps[1].name)):
		p.Reason, p.Hint = fmt.Sprintf("an artifact has no field %q", clip(steps[1].name, 40)), "fields here: "+strings.Join(fields[:4], ", ")
		return
	case len(steps) > 3, len(steps) == 3 && (!steps[2].quoted || slices.Contains(fields[:3], steps[1].name)):
		p.Reason, p.Hint = "it goes on behind the field", "only metadata['KEY'] goes further"
		return
	}
	p.Kind, p.Name = kind, steps[0].name
	if len(steps) > 1 {
		p.Field = steps[1].name
		if slices.Contains(fields[4:], p.Field) {
			p.Field = "metadata" // its older names
		}
	}
	if len(steps) == 3 {
		p.Key, p.HasKey = steps[2].name, true
	}
}
