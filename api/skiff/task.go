package skiff

import (
	"encoding/json"
	"time"

	"github.com/skiff-ml/skiff/api/core"
)

// TaskType says what kind of node of the DAG a task is.
type TaskType string

// The task types.
const (
	TaskContainer TaskType = "Container"
	TaskImporter  TaskType = "Importer"
	TaskDAG       TaskType = "DAG"
	TaskLoop      TaskType = "Loop"
	// TaskIteration is one pass of a loop's body.
	TaskIteration TaskType = "Iteration"
)

// Task is one node of a run: a step, a sub-DAG, a loop or one of its passes.
// Attempts of a step are Pods, owned by the task and named after it and the
// attempt.
type Task struct {
	core.TypeMeta
	core.ObjectMeta `json:"metadata"`
	Spec            TaskSpec   `json:"spec"`
	Status          TaskStatus `json:"status,omitzero"`
}

// TaskSpec identifies the node.
type TaskSpec struct {
	// Run is the name of the run.
	Run string `json:"run"`
	// Path is the task's place: the task keys from the root down, joined by
	// '/', a loop's pass written as its index: "for-loop-1/0/train".
	Path string `json:"path"`
	// Parent is the name of the enclosing Task; empty directly below the root.
	Parent string `json:"parent,omitempty"`
	// Key is the task's key in its DAG; DisplayName its taskInfo.name.
	Key         string   `json:"key"`
	DisplayName string   `json:"displayName,omitempty"`
	Component   string   `json:"component"`
	Type        TaskType `json:"type"`
	// Iteration is the pass's index, for an Iteration.
	Iteration *int `json:"iteration,omitempty"`
}

// TaskStatus is what was observed.
type TaskStatus struct {
	State   State  `json:"state,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Attempts counts the pods that were made for this task by its retry
	// policy; infrastructure faults do not count.
	Attempts int `json:"attempts,omitempty"`
	// Retries is the run's count of retries (RunSpec.Retries) under which the
	// task was last begun, and Spent how many attempts it had made before that:
	// they do not count for its retry policy any more.
	Retries int `json:"retries,omitempty"`
	Spent   int `json:"spent,omitempty"`
	// Pod names the newest attempt's pod.
	Pod        string    `json:"pod,omitempty"`
	ExitCode   *int32    `json:"exitCode,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	// RetryAt is when the next attempt may start.
	RetryAt time.Time `json:"retryAt,omitzero"`

	// Inputs and outputs as resolved; artifacts are names of Artifact objects.
	Inputs          map[string]json.RawMessage `json:"inputs,omitempty"`
	InputArtifacts  map[string][]string        `json:"inputArtifacts,omitempty"`
	Outputs         map[string]json.RawMessage `json:"outputs,omitempty"`
	OutputArtifacts map[string][]string        `json:"outputArtifacts,omitempty"`
	// Iterations is how many passes a loop has.
	Iterations int `json:"iterations,omitempty"`

	// Cached is true where the outputs were taken from CachedFrom, a Task.
	Cached     bool   `json:"cached,omitempty"`
	CachedFrom string `json:"cachedFrom,omitempty"`
	// CacheKey is the fingerprint under which this task's result is found;
	// CacheReason says why there was a hit or a miss.
	CacheKey    string `json:"cacheKey,omitempty"`
	CacheReason string `json:"cacheReason,omitempty"`

	// Reuse says what became of the task in a run that goes on from another one
	// (RunSpec.ResumedFrom); nil in all others.
	Reuse *Reuse `json:"reuse,omitempty"`

	// Image and ImageDigest are what ran, for lineage.
	Image       string `json:"image,omitempty"`
	ImageDigest string `json:"imageDigest,omitempty"`
}

// Reuse is what a resumed run decided about a task.
type Reuse struct {
	// From is the Task of the earlier run whose result was taken over; empty
	// where the task was run. Its artifacts are this task's, too.
	From string `json:"from,omitempty"`
	// Reason says why, for people.
	Reason string `json:"reason,omitempty"`
	// Anew is true where something was run: the step itself, or a step below a
	// DAG or a loop. Forced is true where that was asked for (Resume.From).
	Anew   bool `json:"anew,omitempty"`
	Forced bool `json:"forced,omitempty"`
}

// Artifact is a committed output of a task, or an imported one. It is
// immutable, except that its content hash is filled in when known, and that its
// contents may be given up.
type Artifact struct {
	core.TypeMeta
	core.ObjectMeta `json:"metadata"`
	Spec            ArtifactSpec   `json:"spec"`
	Status          ArtifactStatus `json:"status,omitzero"`
}

// ArtifactSpec is what the producer said.
type ArtifactSpec struct {
	// DisplayName is the artifact's name as the component sees it.
	DisplayName string `json:"displayName,omitempty"`
	// SchemaTitle is the type ("system.Model"); SchemaVersion its version;
	// InstanceSchema the inline schema, where one was given.
	SchemaTitle    string `json:"schemaTitle,omitempty"`
	SchemaVersion  string `json:"schemaVersion,omitempty"`
	InstanceSchema string `json:"instanceSchema,omitempty"`
	URI            string `json:"uri"`
	// CustomPath is the path inside containers where it is not the one that
	// follows from the URI.
	CustomPath string                     `json:"customPath,omitempty"`
	Metadata   map[string]json.RawMessage `json:"metadata,omitempty"`
	// Run, Task (an object name) and Output identify the producer; for an
	// imported artifact Output is the importer's output name.
	Run    string `json:"run,omitempty"`
	Task   string `json:"task,omitempty"`
	Output string `json:"output,omitempty"`
	// Imported is true where skiff did not make the contents.
	Imported bool `json:"imported,omitempty"`
	// Workspace is true where each run that imports the artifact has a copy of it
	// in its workspace (KFP's downloadToWorkspace). Its steps read, and may
	// change, that copy; the contents at the URI stay as they are.
	Workspace bool `json:"workspace,omitempty"`
}

// ArtifactStatus is what was measured of the contents.
type ArtifactStatus struct {
	// Digest is "sha256:…" of the contents (for a directory, of its sorted
	// manifest); empty until computed.
	Digest string `json:"digest,omitempty"`
	// Size is in bytes; Files counts regular files.
	Size  int64 `json:"size,omitempty"`
	Files int64 `json:"files,omitempty"`
	// Missing is true where the producer declared but never wrote it.
	Missing bool `json:"missing,omitempty"`
	// UsedAt is when a later run last took the artifact for its own, from the
	// cache or by importing it again; zero where none did. It is kept to the hour.
	UsedAt time.Time `json:"usedAt,omitzero"`
	// Uploaded is set where skiff brought the contents to an object store.
	Uploaded *Upload `json:"uploaded,omitempty"`
	// Purged is set once the contents were given up; the artifact stays, with its
	// digest and size, for the sake of lineage.
	Purged *Purge `json:"purged,omitempty"`
}

// Upload is what skiff brought to an object store.
type Upload struct {
	// Endpoint is the store, HOST or HOST:PORT.
	Endpoint string `json:"endpoint"`
	// Version identifies the contents there: it changes when they do.
	Version string `json:"version"`
}
