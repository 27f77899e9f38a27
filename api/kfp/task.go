package kfp

// PipelineTaskSpec is one task of a DAG.
type PipelineTaskSpec struct {
	TaskInfo       TaskInfo       `json:"taskInfo,omitzero"`
	Inputs         TaskInputsSpec `json:"inputs,omitzero"`
	DependentTasks []string       `json:"dependentTasks,omitempty"`
	CachingOptions CachingOptions `json:"cachingOptions,omitzero"`
	ComponentRef   ComponentRef   `json:"componentRef,omitzero"`
	TriggerPolicy  TriggerPolicy  `json:"triggerPolicy,omitzero"`
	// At most one of the iterators is set.
	ArtifactIterator  *ArtifactIteratorSpec  `json:"artifactIterator,omitempty"`
	ParameterIterator *ParameterIteratorSpec `json:"parameterIterator,omitempty"`
	RetryPolicy       *RetryPolicy           `json:"retryPolicy,omitempty"`
	IteratorPolicy    IteratorPolicy         `json:"iteratorPolicy,omitzero"`
}

// TaskInfo is a task's display name.
type TaskInfo struct {
	Name string `json:"name,omitempty"`
}

// ComponentRef names the component that a task is an instance of.
type ComponentRef struct {
	Name string `json:"name,omitempty"`
}

// CachingOptions say whether an earlier result may stand in for the task.
type CachingOptions struct {
	EnableCache bool `json:"enableCache,omitempty"`
	// CacheKey replaces the fingerprint where it is set.
	CacheKey string `json:"cacheKey,omitempty"`
}

// TriggerPolicy says when a task runs.
type TriggerPolicy struct {
	// Condition is a CEL expression; empty means true.
	Condition string          `json:"condition,omitempty"`
	Strategy  TriggerStrategy `json:"strategy,omitempty"`
}

// RetryPolicy says how often and when a failed task is tried again.
type RetryPolicy struct {
	MaxRetryCount      int      `json:"maxRetryCount,omitempty"`
	BackoffDuration    Duration `json:"backoffDuration,omitzero"`
	BackoffFactor      float64  `json:"backoffFactor,omitempty"`
	BackoffMaxDuration Duration `json:"backoffMaxDuration,omitzero"`
}

// IteratorPolicy bounds a loop.
type IteratorPolicy struct {
	// ParallelismLimit is how many passes run at once; 0 for no limit.
	ParallelismLimit int `json:"parallelismLimit,omitempty"`
}

// ParameterIteratorSpec runs the task once for each item of a list.
type ParameterIteratorSpec struct {
	Items ParameterItems `json:"items,omitzero"`
	// ItemInput names the input that is given the item.
	ItemInput string `json:"itemInput,omitempty"`
}

// ParameterItems is where the items come from; exactly one field is set.
type ParameterItems struct {
	// Raw is the JSON text of a list.
	Raw string `json:"raw,omitempty"`
	// InputParameter names an input of the task.
	InputParameter string `json:"inputParameter,omitempty"`
}

// ArtifactIteratorSpec runs the task once for each artifact of a list.
type ArtifactIteratorSpec struct {
	Items     ArtifactItems `json:"items,omitzero"`
	ItemInput string        `json:"itemInput,omitempty"`
}

// ArtifactItems names the input artifact list.
type ArtifactItems struct {
	InputArtifact string `json:"inputArtifact,omitempty"`
}

// TaskInputsSpec binds a task's inputs.
type TaskInputsSpec struct {
	Parameters map[string]*InputParameterSpec `json:"parameters,omitempty"`
	Artifacts  map[string]*InputArtifactSpec  `json:"artifacts,omitempty"`
}

// InputParameterSpec is where an input parameter's value comes from. Exactly
// one of the first four is set.
type InputParameterSpec struct {
	TaskOutputParameter     *TaskOutputParameterSpec `json:"taskOutputParameter,omitempty"`
	RuntimeValue            *ValueOrRuntimeParameter `json:"runtimeValue,omitempty"`
	ComponentInputParameter string                   `json:"componentInputParameter,omitempty"`
	TaskFinalStatus         *TaskFinalStatusSpec     `json:"taskFinalStatus,omitempty"`
	// ParameterExpressionSelector is a CEL expression that takes a part of the
	// value, which it finds as string_value (JSON text).
	ParameterExpressionSelector string `json:"parameterExpressionSelector,omitempty"`
}

// TaskOutputParameterSpec names an output parameter of another task.
type TaskOutputParameterSpec struct {
	ProducerTask       string `json:"producerTask,omitempty"`
	OutputParameterKey string `json:"outputParameterKey,omitempty"`
}

// TaskFinalStatusSpec asks for how another task ended.
type TaskFinalStatusSpec struct {
	ProducerTask string `json:"producerTask,omitempty"`
}

// InputArtifactSpec is where an input artifact comes from; exactly one is set.
type InputArtifactSpec struct {
	TaskOutputArtifact     *TaskOutputArtifactSpec `json:"taskOutputArtifact,omitempty"`
	ComponentInputArtifact string                  `json:"componentInputArtifact,omitempty"`
}

// TaskOutputArtifactSpec names an output artifact of another task.
type TaskOutputArtifactSpec struct {
	ProducerTask      string `json:"producerTask,omitempty"`
	OutputArtifactKey string `json:"outputArtifactKey,omitempty"`
}

// ValueOrRuntimeParameter is a constant or the name of an input parameter.
type ValueOrRuntimeParameter struct {
	// ConstantValue is the deprecated form of Constant; loading moves it there.
	ConstantValue *PrimitiveValue `json:"constantValue,omitempty"`
	// Constant may hold placeholders where it is text; nil stands for null.
	Constant         any    `json:"constant,omitempty"`
	RuntimeParameter string `json:"runtimeParameter,omitempty"`
}

// PrimitiveValue is the deprecated ml_pipelines.Value.
type PrimitiveValue struct {
	IntValue    *int64   `json:"intValue,omitempty"`
	DoubleValue *float64 `json:"doubleValue,omitempty"`
	StringValue *string  `json:"stringValue,omitempty"`
}

// Value is the value in the form that parameters have.
func (v *PrimitiveValue) Value() any {
	switch {
	case v == nil:
		return nil
	case v.IntValue != nil:
		return float64(*v.IntValue)
	case v.DoubleValue != nil:
		return *v.DoubleValue
	case v.StringValue != nil:
		return *v.StringValue
	}
	return nil
}
