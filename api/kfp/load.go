package kfp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/skiff-ml/skiff/api/problem"
)

// Package is a pipeline with its platform settings, as it was handed in.
type Package struct {
	Spec *PipelineSpec
	// Platform is nil where the package has no settings for Kubernetes.
	Platform *KubernetesPlatform
	// Parameters are values that the package itself brings (a PipelineJob's
	// runtimeConfig); what a run is given wins over them.
	Parameters map[string]json.RawMessage

	// file, spec and platform say where things stand, for the messages of
	// Validate; empty after Decode.
	file           string
	spec, platform *yaml.Node
}

// Load reads a package: YAML or JSON, or a zip or gzipped tar archive that holds
// one. The contents decide what it is; the file's name is for messages. The
// error is a problem.List with everything that is wrong with its form. Memory
// stays within a small multiple of limits.MaxBytes whatever the bytes are.
func Load(filename string, data []byte, limits Limits) (*Package, error) {
	limits = limits.WithDefaults()
	if int64(len(data)) > limits.MaxBytes {
		return nil, refusal(filename, "a split into smaller pipelines, or components read from a repository, would fit",
			"the file has %d bytes, at most %d are read", len(data), limits.MaxBytes)
	}
	name, text, err := unpack(filename, data, limits)
	if err != nil {
		return nil, err
	}
	documents, err := parseDocuments(name, text, limits)
	if err != nil {
		return nil, err
	}
	return assemble(name, documents, limits)
}

// errManyProblems ends a list that was cut short.
var errManyProblems = errors.New("the rest of the file was not looked at: there are many problems")

// refusal is a problem with a file as a whole.
func refusal(file, hint, format string, args ...any) problem.List {
	return problem.List{{Object: file, Err: fmt.Errorf(format, args...), Hint: hint}}
}

// job is the wrapper around a pipeline that older compilers and the API's
// bodies use: a PipelineJob, or a pipeline beside its platform settings.
type job struct {
	Name          string            `json:"name"`
	DisplayName   string            `json:"displayName"`
	PipelineSpec  *PipelineSpec     `json:"pipelineSpec"`
	PlatformSpec  *PlatformSpec     `json:"platformSpec"`
	Labels        map[string]string `json:"labels"`
	RuntimeConfig runtimeConfig     `json:"runtimeConfig"`
}

// runtimeConfig is what a PipelineJob says about its run.
type runtimeConfig struct {
	Parameters         map[string]*PrimitiveValue `json:"parameters"`
	GCSOutputDirectory string                     `json:"gcsOutputDirectory"`
	ParameterValues    map[string]any             `json:"parameterValues"`
}

// assemble makes a package of a file's documents.
func assemble(file string, documents []*yaml.Node, limits Limits) (*Package, error) {
	d := newDecoder(limits)
	pkg := &Package{file: file}
	for _, root := range documents {
		d.document(pkg, root)
	}
	if pkg.Spec == nil && len(d.problems) == 0 {
		d.problem(nil, nil, "holds no pipeline").Hint = "give the file that the KFP compiler wrote"
	}
	if len(d.problems) > 0 {
		if len(d.problems) >= limits.MaxProblems {
			d.problems.Add("", "%w", errManyProblems)
		}
		for _, p := range d.problems {
			p.Object = file
		}
		return nil, d.problems
	}
	normalise(pkg.Spec)
	return pkg, nil
}

// document decodes one document into its place in the package.
func (d *decoder) document(pkg *Package, root *yaml.Node) {
	if root.Kind != yaml.MappingNode {
		d.problem(nil, root, "want a pipeline, got %s", describe(root)).Hint = "give the file that the KFP compiler wrote"
		return
	}
	wrapped, platform := hasKey(root, "pipelineSpec", "pipeline_spec"), hasKey(root, "platforms") && !hasKey(root, "pipelineInfo", "pipeline_info")
	switch {
	case hasKey(root, "apiVersion") && hasKey(root, "kind"):
		d.manifest(pkg, root)
	case wrapped:
		d.wrapper(pkg, root)
	case platform:
		d.platform(pkg, root, nil)
	case pkg.Spec != nil:
		d.second(root)
	default:
		pkg.Spec, pkg.spec = &PipelineSpec{}, root
		d.decode(reflect.ValueOf(pkg.Spec).Elem(), root, nil, 1)
	}
}

func (d *decoder) second(root *yaml.Node) {
	d.problem(nil, root, "a second pipeline; a package holds one, and perhaps a document with platforms").Hint = "give them as two files"
}

// manifest is the form in which the compiler writes a pipeline as objects of
// the Kubernetes API (kubernetes_manifest_format): a Pipeline, which only names
// it, and a PipelineVersion, which holds it.
type manifest struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata"`
	Spec       manifestSpec   `json:"spec"`
	Status     map[string]any `json:"status"`
}

type manifestSpec struct {
	DisplayName   string            `json:"displayName"`
	Description   string            `json:"description"`
	PipelineName  string            `json:"pipelineName"`
	CodeSourceURL string            `json:"codeSourceURL"`
	Tags          map[string]string `json:"tags"`
	PipelineSpec  *PipelineSpec     `json:"pipelineSpec"`
	PlatformSpec  *PlatformSpec     `json:"platformSpec"`
}

// manifest decodes one such object.
func (d *decoder) manifest(pkg *Package, root *yaml.Node) {
	kind, version := child(root, "kind"), child(root, "apiVersion")
	if (kind.Value != "Pipeline" && kind.Value != "PipelineVersion") || !strings.HasPrefix(version.Value, "pipelines.kubeflow.org/") {
		d.problem((*place)(nil).key("kind"), kind, "want a pipeline, got %s %s", clip(version.Value, 60), clip(kind.Value, 60)).
			Hint = "give the file that the KFP compiler wrote"
		return
	}
	var m manifest
	d.decode(reflect.ValueOf(&m).Elem(), root, nil, 1)
	if m.Spec.PipelineSpec == nil {
		return // a Pipeline; without a PipelineVersion the package is empty
	}
	if pkg.Spec != nil {
		d.second(root)
		return
	}
	spec := child(root, "spec")
	pkg.Spec, pkg.spec = m.Spec.PipelineSpec, child(spec, "pipelineSpec")
	if m.Spec.PlatformSpec != nil {
		d.keepPlatform(pkg, m.Spec.PlatformSpec, child(spec, "platformSpec"), (*place)(nil).keys("spec", "platformSpec"))
	}
}

// wrapper decodes a PipelineJob.
func (d *decoder) wrapper(pkg *Package, root *yaml.Node) {
	if pkg.Spec != nil {
		d.second(root)
		return
	}
	var j job
	d.decode(reflect.ValueOf(&j).Elem(), root, nil, 1)
	if j.PipelineSpec == nil {
		d.problem((*place)(nil).key("pipelineSpec"), root, "want a mapping, got nothing")
		return
	}
	pkg.Spec, pkg.spec = j.PipelineSpec, child(root, "pipelineSpec")
	if j.PlatformSpec != nil {
		d.keepPlatform(pkg, j.PlatformSpec, child(root, "platformSpec"), (*place)(nil).key("platformSpec"))
	}
	pkg.Parameters = map[string]json.RawMessage{}
	for name, value := range j.RuntimeConfig.Parameters {
		d.keepParameter(pkg, name, value.Value())
	}
	for name, value := range j.RuntimeConfig.ParameterValues {
		d.keepParameter(pkg, name, value)
	}
	if pkg.Spec.DefaultPipelineRoot == "" {
		pkg.Spec.DefaultPipelineRoot = j.RuntimeConfig.GCSOutputDirectory
	}
}

func (d *decoder) keepParameter(pkg *Package, name string, value any) {
	raw, err := json.Marshal(value)
	if err != nil {
		d.problem((*place)(nil).keys("runtimeConfig", "parameterValues", name), nil, "%w", err)
		return
	}
	pkg.Parameters[name] = raw
}

// platform decodes a PlatformSpec.
func (d *decoder) platform(pkg *Package, root *yaml.Node, at *place) {
	var spec PlatformSpec
	d.decode(reflect.ValueOf(&spec).Elem(), root, at, 1)
	d.keepPlatform(pkg, &spec, root, at)
}

// keepPlatform takes the one platform that is known out of a PlatformSpec.
func (d *decoder) keepPlatform(pkg *Package, spec *PlatformSpec, root *yaml.Node, at *place) {
	if pkg.Platform != nil {
		d.problem(at.key("platforms"), root, "platform settings are given twice")
		return
	}
	pkg.Platform, pkg.platform = spec.Platforms.Kubernetes, child(child(root, "platforms"), "kubernetes")
}

// hasKey reports whether a mapping has one of the keys.
func hasKey(node *yaml.Node, names ...string) bool {
	for _, name := range names {
		if child(node, name) != nil {
			return true
		}
	}
	return false
}

// child is the value under a field's name, in either spelling, or nil.
func child(node *yaml.Node, name string) *yaml.Node {
	if node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	other := snake(name)
	for i := 0; i+1 < len(node.Content); i += 2 {
		if key := node.Content[i].Value; key == name || key == other {
			return node.Content[i+1]
		}
	}
	return nil
}

// Canonical is the package's specification and platform settings as JSON with
// camelCase names, deprecated forms replaced by those that took their place and
// map keys sorted: equal packages give equal bytes. platform is empty where
// there are no platform settings.
func (p *Package) Canonical() (spec, platform json.RawMessage, err error) {
	if spec, err = json.Marshal(p.Spec); err != nil {
		return nil, nil, fmt.Errorf("write pipeline %s: %w", p.Spec.PipelineInfo.Name, err)
	}
	if p.Platform != nil {
		wrapped := PlatformSpec{Platforms: Platforms{Kubernetes: p.Platform}}
		if platform, err = json.Marshal(wrapped); err != nil {
			return nil, nil, fmt.Errorf("write the platform settings of pipeline %s: %w", p.Spec.PipelineInfo.Name, err)
		}
	}
	return spec, platform, nil
}

// Decode reads back what Canonical wrote. It is not for what users hand in:
// that goes through Load.
func Decode(spec, platform json.RawMessage) (*Package, error) {
	pkg := &Package{Spec: &PipelineSpec{}}
	if err := json.Unmarshal(spec, pkg.Spec); err != nil {
		return nil, fmt.Errorf("read pipeline: %w", err)
	}
	if pkg.Spec.Root == nil {
		return nil, errors.New("read pipeline: it has no root")
	}
	if len(bytes.TrimSpace(platform)) > 0 {
		var wrapped PlatformSpec
		if err := json.Unmarshal(platform, &wrapped); err != nil {
			return nil, fmt.Errorf("read platform settings: %w", err)
		}
		pkg.Platform = wrapped.Platforms.Kubernetes
	}
	return pkg, nil
}

// checkText refuses what is not UTF-8, and takes a byte order mark off.
func checkText(file string, data []byte) ([]byte, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if utf8.Valid(data) {
		return data, nil
	}
	line, rest := 1, data
	for len(rest) > 0 {
		r, size := utf8.DecodeRune(rest)
		if r == utf8.RuneError && size <= 1 {
			break
		}
		if r == '\n' {
			line++
		}
		rest = rest[size:]
	}
	list := refusal(file, "save the file as UTF-8", "the text is not UTF-8 (byte 0x%02x)", rest[0])
	list[0].Line = line
	return nil, list
}
