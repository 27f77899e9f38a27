package kfp

import (
	"encoding/json"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/problem"
)

// ResourceAPIVersion is the published group and version of KFP's own Kubernetes
// kinds, Pipeline and PipelineVersion (pipelines.kubeflow.org, v2beta1).
const ResourceAPIVersion = "pipelines.kubeflow.org/v2beta1"

// Kind strings.
const (
	PipelineKind        = "Pipeline"
	PipelineVersionKind = "PipelineVersion"
)

// AnnotationName holds the name that KFP's API knows a Pipeline or a
// PipelineVersion by where that cannot be an object's name (or, for a version,
// is unique in its pipeline alone).
const AnnotationName = "skiff.dev/name"

// Pipeline is an uploaded pipeline. Its uid is KFP's pipeline_id.
type Pipeline struct {
	core.TypeMeta
	core.ObjectMeta `json:"metadata"`
	Spec            PipelineResourceSpec `json:"spec"`
}

// PipelineResourceSpec is a Pipeline's spec.
type PipelineResourceSpec struct {
	DisplayName string `json:"displayName,omitempty"`
	Description string `json:"description,omitempty"`
	// Tags are free pairs of words; see ValidateTags.
	Tags map[string]string `json:"tags,omitempty"`
}

// PipelineVersion is one compiled form of a pipeline; it never changes but for
// what people say of it. Its uid is KFP's pipeline_version_id.
type PipelineVersion struct {
	core.TypeMeta
	core.ObjectMeta `json:"metadata"`
	Spec            PipelineVersionSpec `json:"spec"`
}

// PipelineVersionSpec is a PipelineVersion's spec.
type PipelineVersionSpec struct {
	DisplayName string `json:"displayName,omitempty"`
	Description string `json:"description,omitempty"`
	// PipelineName is the Pipeline's object name in the namespace.
	PipelineName string `json:"pipelineName"`
	// PipelineSpec is the IR, PlatformSpec its second document where there is one.
	PipelineSpec json.RawMessage `json:"pipelineSpec"`
	PlatformSpec json.RawMessage `json:"platformSpec,omitempty"`
	// CodeSourceURL and PipelineSpecURI say where it came from.
	CodeSourceURL   string            `json:"codeSourceURL,omitempty"`
	PipelineSpecURI string            `json:"pipelineSpecURI,omitempty"`
	Tags            map[string]string `json:"tags,omitempty"`
}

// NameOf is the name that KFP's API gives to a Pipeline or PipelineVersion.
func NameOf(meta *core.ObjectMeta) string {
	if name := meta.Annotations[AnnotationName]; name != "" {
		return name
	}
	return meta.Name
}

// Bounds of tags and names, in characters, as KFP has them.
const (
	maxTag          = 63
	maxTags         = 64
	maxResourceName = 128
	maxText         = 65535
)

// ValidateTags says what is wrong with a resource's tags.
func ValidateTags(tags map[string]string) problem.List {
	var problems problem.List
	if len(tags) > maxTags {
		problems.Add("tags", "there are %d; want at most %d", len(tags), maxTags)
	}
	for key, value := range tags {
		switch {
		case key == "":
			problems.Add("tags", "a key is empty")
		case len([]rune(key)) > maxTag:
			problems.Add("tags", "the key %.20q… has more than %d characters", key, maxTag)
		case len([]rune(value)) > maxTag:
			problems.Add("tags."+key, "the value has more than %d characters", maxTag)
		}
	}
	return problems
}

// ValidateNames says what is wrong with what people call a resource.
func ValidateNames(name, displayName, description string) problem.List {
	var problems problem.List
	if name == "" {
		problems.Add("name", "is empty")
	}
	for field, text := range map[string]string{"name": name, "display_name": displayName} {
		if len([]rune(text)) > maxResourceName {
			problems.Add(field, "has more than %d characters", maxResourceName)
		}
	}
	if len(description) > maxText {
		problems.Add("description", "has more than %d bytes", maxText)
	}
	return problems
}
