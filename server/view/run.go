package view

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// Run is the one document about a run: what "skiff run -o json" and "skiff get
// runs ID -o json" print. Its field names are stable.
type Run struct {
	State        skiff.State                `json:"state"`
	RunID        string                     `json:"run_id"`
	Namespace    string                     `json:"namespace"`
	DisplayName  string                     `json:"display_name,omitempty"`
	Pipeline     string                     `json:"pipeline"`
	Reason       string                     `json:"reason,omitempty"`
	Message      string                     `json:"message,omitempty"`
	Created      time.Time                  `json:"created"`
	Started      *time.Time                 `json:"started"`
	Finished     *time.Time                 `json:"finished"`
	Parameters   map[string]json.RawMessage `json:"parameters"`
	Outputs      map[string]json.RawMessage `json:"outputs"`
	PipelineRoot string                     `json:"pipeline_root,omitempty"`
	// Experiment is the id of the experiment that the run belongs to.
	Experiment string `json:"experiment,omitempty"`
	Archived   bool   `json:"archived,omitempty"`
	// Retries counts how often the run was taken up again after it had ended.
	Retries int `json:"retries,omitempty"`
	// ResumedFrom is the id of the run whose unchanged results this one took
	// over, ResumedTasks the paths of the tasks that were to be run again.
	ResumedFrom  string   `json:"resumed_from,omitempty"`
	ResumedTasks []string `json:"resumed_tasks,omitempty"`
	// OutputArtifacts maps the pipeline's output artifacts to ids in Artifacts.
	OutputArtifacts map[string][]string `json:"output_artifacts,omitempty"`
	Tasks           []Task              `json:"tasks"`
	Metrics         []Metric            `json:"metrics"`
	Artifacts       []Artifact          `json:"artifacts"`
	// Fake is true where the run was scheduled on declared, not existing,
	// devices or capacity.
	Fake bool `json:"fake"`
	// Imported says where a run came from that ran elsewhere.
	Imported *skiff.RunImport `json:"imported,omitempty"`
	// Reproduces is the id of the run that this one was made to do again.
	Reproduces string `json:"reproduces,omitempty"`
}

// Task is one node of a run's graph.
type Task struct {
	// Name is the task's path in the run: its key, below sub-DAGs and loops
	// prefixed by theirs ("for-loop-1/0/train"). ID is the object's name.
	Name        string         `json:"name"`
	ID          string         `json:"id"`
	DisplayName string         `json:"display_name,omitempty"`
	Component   string         `json:"component"`
	Type        skiff.TaskType `json:"type"`
	Parent      string         `json:"parent,omitempty"`
	State       skiff.State    `json:"state"`
	Attempts    int            `json:"attempts"`
	Cached      bool           `json:"cached"`
	CacheReason string         `json:"cache_reason,omitempty"`
	// CachedFrom is the id of the task that really ran, in whatever run.
	CachedFrom string `json:"cached_from,omitempty"`
	// ReusedFrom is the id of the task of the run resumed from whose result was
	// taken over; ReuseReason says why it was, or why the task was run again.
	ReusedFrom  string     `json:"reused_from,omitempty"`
	ReuseReason string     `json:"reuse_reason,omitempty"`
	Started     *time.Time `json:"started"`
	Finished    *time.Time `json:"finished"`
	ExitCode    *int32     `json:"exit_code"`
	Reason      string     `json:"reason,omitempty"`
	Message     string     `json:"message"`
	Pod         string     `json:"pod,omitempty"`
	Image       string     `json:"image,omitempty"`
	ImageDigest string     `json:"image_digest,omitempty"`

	Inputs          map[string]json.RawMessage `json:"inputs,omitempty"`
	Outputs         map[string]json.RawMessage `json:"outputs,omitempty"`
	InputArtifacts  map[string][]string        `json:"input_artifacts,omitempty"`
	OutputArtifacts map[string][]string        `json:"output_artifacts,omitempty"`
	Iterations      int                        `json:"iterations,omitempty"`
}

// Metric is one number that a task reported.
type Metric = skiff.Metric

// Artifact is one committed output, or an imported one.
type Artifact struct {
	ID       string                     `json:"id"`
	Name     string                     `json:"name"`
	Type     string                     `json:"type"`
	Task     string                     `json:"task,omitempty"`
	Output   string                     `json:"output,omitempty"`
	URI      string                     `json:"uri"`
	Size     int64                      `json:"size"`
	Digest   string                     `json:"digest,omitempty"`
	Imported bool                       `json:"imported,omitempty"`
	Missing  bool                       `json:"missing,omitempty"`
	Metadata map[string]json.RawMessage `json:"metadata,omitempty"`
	// Gone says why its contents cannot be had any more; empty where they can.
	Gone string `json:"gone,omitempty"`
}

// Store kinds and the index by run that this package reads.
const (
	runsKind      = "runs.skiff.dev"
	tasksKind     = "tasks.skiff.dev"
	artifactsKind = "artifacts.skiff.dev"
	byRun         = "run"
)

// ReadRun builds the document of a run; store.ErrNotFound where there is none.
func ReadRun(ctx context.Context, s store.Interface, namespace, name string) (*Run, error) {
	obj, err := s.Get(ctx, store.Key{Kind: runsKind, Namespace: namespace, Name: name})
	if err != nil {
		return nil, fmt.Errorf("read run %s: %w", name, err)
	}
	return BuildRun(ctx, s, obj.(*skiff.Run))
}

// BuildRun builds the document of a run object, reading its tasks and artifacts.
func BuildRun(ctx context.Context, s store.Interface, run *skiff.Run) (*Run, error) {
	doc := &Run{
		State: cmp.Or(run.Status.State, skiff.StatePending), RunID: run.Name, Namespace: run.Namespace,
		DisplayName: run.Spec.DisplayName, Pipeline: run.Spec.PipelineName,
		Reason: run.Status.Reason, Message: run.Status.Message,
		Created: run.CreationTimestamp, Started: timeOrNil(run.Status.StartedAt), Finished: timeOrNil(run.Status.FinishedAt),
		Parameters: orEmpty(run.Spec.Parameters), Outputs: orEmpty(run.Status.Outputs),
		OutputArtifacts: run.Status.OutputArtifacts, PipelineRoot: run.Spec.PipelineRoot, Fake: run.Status.Fake,
		Imported: run.Status.Imported, Reproduces: run.Spec.Reproduces,
		Experiment: skiff.ExperimentOf(run), Archived: run.Spec.Archived, Retries: run.Spec.Retries,
		Tasks: []Task{}, Metrics: []Metric{}, Artifacts: []Artifact{},
	}
	if from := run.Spec.ResumedFrom; from != nil {
		doc.ResumedFrom, doc.ResumedTasks = from.Run, from.From
	}
	paths := map[string]string{}
	taken := map[string]string{} // artifacts of other runs, and the paths of the tasks that stand for their makers
	err := each(ctx, s, tasksKind, run, func(t *skiff.Task) {
		paths[t.Name] = t.Spec.Path
		doc.Tasks = append(doc.Tasks, taskOf(t))
		if t.Status.Cached {
			for _, names := range t.Status.OutputArtifacts {
				for _, name := range names {
					taken[name] = t.Spec.Path
				}
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read tasks of run %s: %w", run.Name, err)
	}
	add := func(a *skiff.Artifact) {
		artifact := artifactOf(a, paths)
		if path := taken[a.Name]; path != "" {
			artifact.Task = path
			delete(taken, a.Name)
		}
		doc.Artifacts = append(doc.Artifacts, artifact)
		doc.Metrics = append(doc.Metrics, skiff.ScalarMetrics(artifact.Task, artifact.Name, &a.Spec)...)
	}
	if err := each(ctx, s, artifactsKind, run, add); err != nil {
		return nil, fmt.Errorf("read artifacts of run %s: %w", run.Name, err)
	}
	for _, name := range slices.Sorted(maps.Keys(taken)) {
		obj, err := s.Get(ctx, store.Key{Kind: artifactsKind, Namespace: run.Namespace, Name: name})
		switch {
		case errors.Is(err, store.ErrNotFound): // deleted with the run that made it
		case err != nil:
			return nil, fmt.Errorf("read artifacts of run %s: %w", run.Name, err)
		default:
			add(obj.(*skiff.Artifact))
		}
	}
	for i := range doc.Tasks {
		doc.Tasks[i].Parent = paths[doc.Tasks[i].Parent]
	}
	doc.sort()
	return doc, nil
}

// sort puts tasks in the order they began, those that have not after them, and
// the rest in the order of their tasks: a document reads as the run went.
func (r *Run) sort() {
	slices.SortStableFunc(r.Tasks, func(a, b Task) int {
		switch {
		case a.Started == nil && b.Started == nil:
			return strings.Compare(a.Name, b.Name)
		case a.Started == nil:
			return 1
		case b.Started == nil:
			return -1
		}
		return cmp.Or(a.Started.Compare(*b.Started), strings.Compare(a.Name, b.Name))
	})
	rank := make(map[string]int, len(r.Tasks))
	for i := range r.Tasks {
		rank[r.Tasks[i].Name] = i
	}
	slices.SortStableFunc(r.Artifacts, func(a, b Artifact) int {
		return cmp.Or(cmp.Compare(rank[a.Task], rank[b.Task]), strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	slices.SortStableFunc(r.Metrics, func(a, b Metric) int {
		return cmp.Or(cmp.Compare(rank[a.Task], rank[b.Task]), strings.Compare(a.Artifact, b.Artifact), strings.Compare(a.Name, b.Name))
	})
}

// each calls fn for every object of a kind that belongs to a run.
func each[T any](ctx context.Context, s store.Interface, kind string, run *skiff.Run, fn func(T)) error {
	opts := store.ListOptions{Kind: kind, Namespace: run.Namespace, Index: byRun, Prefix: run.Name, Exact: true}
	for {
		page, err := s.List(ctx, opts)
		if err != nil {
			return err
		}
		for _, obj := range page.Items {
			if typed, ok := obj.(T); ok {
				fn(typed)
			}
		}
		if page.Continue == "" {
			return nil
		}
		opts.Continue = page.Continue
	}
}

func taskOf(t *skiff.Task) Task {
	status := &t.Status
	reuse := status.Reuse
	if reuse == nil {
		reuse = &skiff.Reuse{}
	}
	return Task{
		Name: t.Spec.Path, ID: t.Name, DisplayName: t.Spec.DisplayName, Component: t.Spec.Component,
		Type: t.Spec.Type, Parent: t.Spec.Parent, State: cmp.Or(status.State, skiff.StatePending),
		Attempts: status.Attempts, Cached: status.Cached, CacheReason: status.CacheReason, CachedFrom: status.CachedFrom,
		ReusedFrom: reuse.From, ReuseReason: reuse.Reason,
		Started: timeOrNil(status.StartedAt), Finished: timeOrNil(status.FinishedAt),
		ExitCode: status.ExitCode, Reason: status.Reason, Message: status.Message, Pod: status.Pod,
		Image: status.Image, ImageDigest: status.ImageDigest,
		Inputs: status.Inputs, Outputs: status.Outputs,
		InputArtifacts: status.InputArtifacts, OutputArtifacts: status.OutputArtifacts, Iterations: status.Iterations,
	}
}

func artifactOf(a *skiff.Artifact, paths map[string]string) Artifact {
	return Artifact{
		ID: a.Name, Name: cmp.Or(a.Spec.DisplayName, a.Spec.Output), Type: a.Spec.SchemaTitle,
		Task: cmp.Or(paths[a.Spec.Task], a.Spec.Task), Output: a.Spec.Output, URI: a.Spec.URI,
		Size: a.Status.Size, Digest: a.Status.Digest, Imported: a.Spec.Imported, Missing: a.Status.Missing,
		Metadata: a.Spec.Metadata, Gone: a.Gone(),
	}
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func orEmpty(m map[string]json.RawMessage) map[string]json.RawMessage {
	if m == nil {
		return map[string]json.RawMessage{}
	}
	return m
}
