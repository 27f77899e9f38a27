package kfp

// PipelineSpec is a compiled pipeline (ml_pipelines.PipelineSpec).
type PipelineSpec struct {
	PipelineInfo        PipelineInfo              `json:"pipelineInfo"`
	DeploymentSpec      DeploymentSpec            `json:"deploymentSpec,omitzero"`
	SDKVersion          string                    `json:"sdkVersion,omitempty"`
	SchemaVersion       string                    `json:"schemaVersion,omitempty"`
	Components          map[string]*ComponentSpec `json:"components,omitempty"`
	Root                *ComponentSpec            `json:"root,omitempty"`
	DefaultPipelineRoot string                    `json:"defaultPipelineRoot,omitempty"`
}

// PipelineInfo names a pipeline.
type PipelineInfo struct {
	Name        string `json:"name"`
	DisplayName string `json:"displayName,omitempty"`
	Description string `json:"description,omitempty"`
}

// ComponentSpec is an interface and one implementation: a DAG, or an executor
// named by its label.
type ComponentSpec struct {
	InputDefinitions       ComponentInputsSpec     `json:"inputDefinitions,omitzero"`
	OutputDefinitions      ComponentOutputsSpec    `json:"outputDefinitions,omitzero"`
	Dag                    *DagSpec                `json:"dag,omitempty"`
	ExecutorLabel          string                  `json:"executorLabel,omitempty"`
	SinglePlatformSpecs    []SinglePlatformSpec    `json:"singlePlatformSpecs,omitempty"`
	TaskConfigPassthroughs []TaskConfigPassthrough `json:"taskConfigPassthroughs,omitempty"`
}

// ComponentInputsSpec declares a component's inputs.
type ComponentInputsSpec struct {
	Parameters map[string]*InputParameterDef `json:"parameters,omitempty"`
	Artifacts  map[string]*InputArtifactDef  `json:"artifacts,omitempty"`
}

// InputParameterDef declares an input parameter.
type InputParameterDef struct {
	// PrimitiveType is the deprecated form of ParameterType; loading moves it there.
	PrimitiveType PrimitiveType `json:"type,omitempty"`
	ParameterType ParameterType `json:"parameterType,omitempty"`
	// DefaultValue is nil where there is none.
	DefaultValue any    `json:"defaultValue,omitempty"`
	IsOptional   bool   `json:"isOptional,omitempty"`
	Description  string `json:"description,omitempty"`
	// Literals are the only values allowed, where there are any.
	Literals []any `json:"literals,omitempty"`
}

// Type is the declared type.
func (d *InputParameterDef) Type() ParameterType { return declared(d.ParameterType, d.PrimitiveType) }

// InputArtifactDef declares an input artifact.
type InputArtifactDef struct {
	ArtifactType   ArtifactTypeSchema `json:"artifactType,omitzero"`
	IsArtifactList bool               `json:"isArtifactList,omitempty"`
	IsOptional     bool               `json:"isOptional,omitempty"`
	Description    string             `json:"description,omitempty"`
}

// ComponentOutputsSpec declares a component's outputs.
type ComponentOutputsSpec struct {
	Parameters map[string]*OutputParameterDef `json:"parameters,omitempty"`
	Artifacts  map[string]*OutputArtifactSpec `json:"artifacts,omitempty"`
}

// OutputParameterDef declares an output parameter.
type OutputParameterDef struct {
	// PrimitiveType is the deprecated form of ParameterType; loading moves it there.
	PrimitiveType PrimitiveType `json:"type,omitempty"`
	ParameterType ParameterType `json:"parameterType,omitempty"`
	Description   string        `json:"description,omitempty"`
}

// Type is the declared type.
func (d *OutputParameterDef) Type() ParameterType { return declared(d.ParameterType, d.PrimitiveType) }

// OutputArtifactSpec declares an output artifact.
type OutputArtifactSpec struct {
	ArtifactType ArtifactTypeSchema `json:"artifactType,omitzero"`
	// Properties and CustomProperties are the deprecated form of Metadata.
	Properties       map[string]*ValueOrRuntimeParameter `json:"properties,omitempty"`
	CustomProperties map[string]*ValueOrRuntimeParameter `json:"customProperties,omitempty"`
	Metadata         map[string]any                      `json:"metadata,omitempty"`
	IsArtifactList   bool                                `json:"isArtifactList,omitempty"`
	Description      string                              `json:"description,omitempty"`
}

// ArtifactTypeSchema is the type of an artifact; one of the first three is set.
type ArtifactTypeSchema struct {
	SchemaTitle    string `json:"schemaTitle,omitempty"`
	SchemaURI      string `json:"schemaUri,omitempty"`
	InstanceSchema string `json:"instanceSchema,omitempty"`
	SchemaVersion  string `json:"schemaVersion,omitempty"`
}

// TaskConfigPassthrough asks for a part of the task's own pod settings.
type TaskConfigPassthrough struct {
	Field       TaskConfigField `json:"field,omitempty"`
	ApplyToTask bool            `json:"applyToTask,omitempty"`
}

// DagSpec is a component made of tasks.
type DagSpec struct {
	Tasks   map[string]*PipelineTaskSpec `json:"tasks,omitempty"`
	Outputs DagOutputsSpec               `json:"outputs,omitzero"`
}

// DagOutputsSpec says where a DAG's outputs come from.
type DagOutputsSpec struct {
	Parameters map[string]*DagOutputParameterSpec `json:"parameters,omitempty"`
	Artifacts  map[string]*DagOutputArtifactSpec  `json:"artifacts,omitempty"`
}

// DagOutputParameterSpec is one producer, or several of which the first that
// ran counts. Exactly one field is set.
type DagOutputParameterSpec struct {
	ValueFromParameter *ParameterSelectorSpec  `json:"valueFromParameter,omitempty"`
	ValueFromOneof     *ParameterSelectorsSpec `json:"valueFromOneof,omitempty"`
}

// ParameterSelectorsSpec lists branches.
type ParameterSelectorsSpec struct {
	ParameterSelectors []ParameterSelectorSpec `json:"parameterSelectors,omitempty"`
}

// ParameterSelectorSpec names an output parameter of a task of the DAG.
type ParameterSelectorSpec struct {
	ProducerSubtask    string `json:"producerSubtask,omitempty"`
	OutputParameterKey string `json:"outputParameterKey,omitempty"`
}

// DagOutputArtifactSpec lists the producers of an output artifact; with more
// than one, the first that ran counts.
type DagOutputArtifactSpec struct {
	ArtifactSelectors []ArtifactSelectorSpec `json:"artifactSelectors,omitempty"`
}

// ArtifactSelectorSpec names an output artifact of a task of the DAG.
type ArtifactSelectorSpec struct {
	ProducerSubtask   string `json:"producerSubtask,omitempty"`
	OutputArtifactKey string `json:"outputArtifactKey,omitempty"`
}
