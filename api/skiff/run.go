package skiff

import (
	"encoding/json"
	"time"

	"github.com/skiff-ml/skiff/api/core"
)

// APIVersion is the group and version of the kinds of this package.
const APIVersion = "skiff.dev/v1alpha1"

// Kind strings.
const (
	RunKind              = "Run"
	TaskKind             = "Task"
	ArtifactKind         = "Artifact"
	PipelineManifestKind = "PipelineManifest"
)

// State is where a run or a task stands. The words are KFP's (v2beta1
// RuntimeState); NOT_TRIGGERED tasks show as SKIPPED.
//
//	PENDING ──► RUNNING ──► SUCCEEDED
//	   │           ├──────► FAILED
//	   │           └──────► CANCELING ──► CANCELED
//	   ├─────────────────────────────────► SKIPPED (tasks only)
//	   └──────────► CANCELED
type State string

// The states.
const (
	StatePending   State = "PENDING"
	StateRunning   State = "RUNNING"
	StateSucceeded State = "SUCCEEDED"
	StateFailed    State = "FAILED"
	StateSkipped   State = "SKIPPED"
	StateCanceling State = "CANCELING"
	StateCanceled  State = "CANCELED"
)

// Terminal reports whether the state is final.
func (s State) Terminal() bool {
	return s == StateSucceeded || s == StateFailed || s == StateSkipped || s == StateCanceled
}

// PipelineManifest is a pipeline's compiled form, named by the SHA-256 of its
// canonical JSON, so that runs of one pipeline share one copy. It never changes.
type PipelineManifest struct {
	core.TypeMeta
	core.ObjectMeta `json:"metadata"`
	// PipelineSpec is the IR (ml_pipelines.PipelineSpec as camelCase JSON).
	PipelineSpec json.RawMessage `json:"pipelineSpec"`
	// PlatformSpec is the second document, absent where the package has none.
	PlatformSpec json.RawMessage `json:"platformSpec,omitempty"`
}

// Run is one execution of a pipeline.
type Run struct {
	core.TypeMeta
	core.ObjectMeta `json:"metadata"`
	Spec            RunSpec   `json:"spec"`
	Status          RunStatus `json:"status,omitzero"`
}

// RunSpec is what was asked for.
type RunSpec struct {
	DisplayName string `json:"displayName,omitempty"`
	// PipelineName is pipelineInfo.name of the manifest.
	PipelineName string `json:"pipelineName"`
	// Manifest names the PipelineManifest in the run's namespace.
	Manifest string `json:"manifest"`
	// Parameters are the values given for the pipeline's inputs.
	Parameters map[string]json.RawMessage `json:"parameters,omitempty"`
	// PipelineRoot overrides the manifest's default root.
	PipelineRoot string `json:"pipelineRoot,omitempty"`
	// DisableCache runs every task anew whatever its caching options say.
	DisableCache bool `json:"disableCache,omitempty"`
	// Verbatim runs component commands exactly as compiled.
	Verbatim bool `json:"verbatim,omitempty"`
	// Cancel asks the run to stop. It is never taken back.
	Cancel bool `json:"cancel,omitempty"`
	// Priority orders this run's pods before those of a lower one.
	Priority int32 `json:"priority,omitempty"`
}

// RunStatus is what was observed.
type RunStatus struct {
	State State `json:"state,omitempty"`
	// Reason and Message say why a run failed or waits, for machines and people.
	Reason     string    `json:"reason,omitempty"`
	Message    string    `json:"message,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	// Outputs are the root's output parameters; OutputArtifacts name Artifacts.
	Outputs         map[string]json.RawMessage `json:"outputs,omitempty"`
	OutputArtifacts map[string][]string        `json:"outputArtifacts,omitempty"`
	// TaskCounts counts tasks by state, so that a list needs no task objects.
	TaskCounts map[State]int `json:"taskCounts,omitempty"`
	// Fake says that the run was scheduled on declared, not existing, devices.
	Fake bool `json:"fake,omitempty"`
}
