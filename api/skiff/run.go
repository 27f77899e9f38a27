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
	ExperimentKind       = "Experiment"
	RecurringRunKind     = "RecurringRun"
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
	Description string `json:"description,omitempty"`
	// Experiment names the Experiment that the run belongs to, in its namespace;
	// empty in runs of before there were any, which belong to the default one.
	Experiment string `json:"experiment,omitempty"`
	// Archived puts the run away: lists leave it out unless it is asked for.
	Archived bool `json:"archived,omitempty"`
	// PipelineVersion says what the run was made from, where that was an
	// uploaded pipeline and not a package of its own.
	PipelineVersion *PipelineVersionReference `json:"pipelineVersion,omitempty"`
	// RecurringRun names the RecurringRun that made the run; ScheduledAt is the
	// time that it was made for.
	RecurringRun string    `json:"recurringRun,omitempty"`
	ScheduledAt  time.Time `json:"scheduledAt,omitzero"`
	// ServiceAccount is kept for clients that give one; nothing here has any.
	ServiceAccount string `json:"serviceAccount,omitempty"`
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
	// CacheMaxAge is how old an earlier result may be to be taken ("720h", "30d",
	// "P30D"); empty leaves that to the tasks and the daemon.
	CacheMaxAge string `json:"cacheMaxAge,omitempty"`
	// CacheTasks says of single tasks, by path, "off", "on" or such an age. It
	// wins over CacheMaxAge, DisableCache and what the pipeline says of them.
	CacheTasks map[string]string `json:"cacheTasks,omitempty"`
	// Verbatim runs component commands exactly as compiled.
	Verbatim bool `json:"verbatim,omitempty"`
	// Cancel asks the run to stop. Only a retry takes it back.
	Cancel bool `json:"cancel,omitempty"`
	// Retries counts how often a run that had ended was asked to take up again
	// what did not succeed. A task that was settled under an earlier count is
	// looked at anew (TaskStatus.Retries).
	Retries int `json:"retries,omitempty"`
	// Priority orders this run's pods before those of a lower one.
	Priority int32 `json:"priority,omitempty"`
	// PauseOnFailureSeconds keeps the container of a step that has failed for good,
	// for so long or until it is released; 0 does not. See core.ReasonPaused.
	PauseOnFailureSeconds int64 `json:"pauseOnFailureSeconds,omitempty"`
	// ResumedFrom is the run whose results this one takes over where nothing
	// has changed; nil for a run of its own.
	ResumedFrom *Resume `json:"resumedFrom,omitempty"`
	// Reproduces names the run that this one was made to do again.
	Reproduces string `json:"reproduces,omitempty"`
	// Images pins images by reference to what they must be: each is a list of
	// digests and ids, of which the image that runs must have one.
	Images map[string][]string `json:"images,omitempty"`
}

// Resume names the run that another one goes on from.
type Resume struct {
	// Run is the name of a run that has ended, in the same namespace.
	Run string `json:"run"`
	// From are the paths of tasks that run again whatever they were before,
	// together with all that comes after them. A path without the indexes of
	// passes means every pass of the loops on its way.
	From []string `json:"from,omitempty"`
}

// RunStatus is what was observed.
type RunStatus struct {
	State State `json:"state,omitempty"`
	// Reason and Message say why a run failed or waits, for machines and people.
	Reason     string    `json:"reason,omitempty"`
	Message    string    `json:"message,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	// RetriedAt is when the run was last asked to be taken up again.
	RetriedAt time.Time `json:"retriedAt,omitzero"`
	// History is the states the run was in, oldest first; see Enter.
	History []StateChange `json:"history,omitempty"`
	// Outputs are the root's output parameters; OutputArtifacts name Artifacts.
	Outputs         map[string]json.RawMessage `json:"outputs,omitempty"`
	OutputArtifacts map[string][]string        `json:"outputArtifacts,omitempty"`
	// Metrics are the numbers that the run's tasks reported, by name, once it has
	// ended; see SummarizeMetrics.
	Metrics map[string]json.RawMessage `json:"metrics,omitempty"`
	// TaskCounts counts tasks by state, so that a list needs no task objects.
	TaskCounts map[State]int `json:"taskCounts,omitempty"`
	// Fake says that the run was scheduled on declared, not existing, devices.
	Fake bool `json:"fake,omitempty"`
	// Imported is set on runs that ran elsewhere.
	Imported *RunImport `json:"imported,omitempty"`
}

// RunImport says where a run came from that did not run here. Its pods and
// their logs are where it ran.
type RunImport struct {
	At time.Time `json:"at"`
	// Store is the id of the state that the run was exported from.
	Store string `json:"store,omitempty"`
	// Images maps the digests that its tasks recorded to the ids of the images
	// that came with it.
	Images map[string]string `json:"images,omitempty"`
}

// PipelineVersionReference names an uploaded pipeline's version by the ids of
// KFP's API, the uids of the Pipeline and the PipelineVersion.
type PipelineVersionReference struct {
	PipelineID string `json:"pipelineId"`
	// VersionID is empty in a RecurringRun that takes the newest version.
	VersionID string `json:"versionId,omitempty"`
}

// StateChange is a state and when it was entered.
type StateChange struct {
	State State     `json:"state"`
	At    time.Time `json:"at"`
	// Message says why, where there is something to say.
	Message string `json:"message,omitempty"`
}

// maxHistory bounds a run's history: some four states for each retry, and who
// retries a run thirty times wants the newest ones.
const maxHistory = 120

// Enter sets the state and writes it into the history, unless it is the state
// already.
func (s *RunStatus) Enter(state State, at time.Time, message string) {
	if s.State == state && len(s.History) > 0 {
		return
	}
	s.State = state
	s.History = append(s.History, StateChange{State: state, At: at, Message: message})
	if drop := len(s.History) - maxHistory; drop > 0 {
		s.History = append([]StateChange(nil), s.History[drop:]...)
	}
}
