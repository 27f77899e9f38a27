package pipeline

import (
	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// Names under which the store keeps this engine's kinds.
const (
	Runs      = "runs.skiff.dev"
	Tasks     = "tasks.skiff.dev"
	Artifacts = "artifacts.skiff.dev"
	Manifests = "pipelinemanifests.skiff.dev"

	// podsKind is where engine/pod keeps pods. Engines know each other through
	// objects alone, so the name is written here and not imported.
	podsKind = "pods"
)

// Indexes of this engine's kinds.
const (
	// IndexActive holds the runs that have not ended.
	IndexActive = "active"
	// IndexCreated lists runs newest first.
	IndexCreated = "created"
	// IndexRun lists tasks and artifacts by the name of their run.
	IndexRun = "run"
	// indexCache finds finished tasks by their cache key, newest first.
	indexCache = "cache"
	// indexURI finds artifacts by type and URI, for importers.
	indexURI = "uri"
)

// separator stands between the parts of an index value; it sorts before
// anything that a name may hold.
const separator = "\x00"

// Kinds declares the engine's kinds to the store.
func Kinds() []store.Kind {
	return []store.Kind{
		{Name: Manifests, New: func() core.Object { return new(skiff.PipelineManifest) }},
		{Name: Runs, New: func() core.Object { return new(skiff.Run) }, Indexes: []store.Index{
			{Name: IndexActive, Values: activeRuns},
			{Name: IndexCreated, Values: runsByCreation},
		}},
		{Name: Tasks, New: func() core.Object { return new(skiff.Task) }, Indexes: []store.Index{
			{Name: IndexRun, Values: tasksByRun},
			{Name: indexCache, Values: tasksByCacheKey},
		}},
		{Name: Artifacts, New: func() core.Object { return new(skiff.Artifact) }, Indexes: []store.Index{
			{Name: IndexRun, Values: artifactsByRun},
			{Name: indexURI, Values: artifactsByURI},
		}},
	}
}

func activeRuns(obj core.Object) []string {
	if run := obj.(*skiff.Run); !run.Status.State.Terminal() {
		return []string{"active"}
	}
	return nil
}

func runsByCreation(obj core.Object) []string {
	return []string{store.TimeValue(obj.Metadata().CreationTimestamp, true)}
}

func tasksByRun(obj core.Object) []string {
	return []string{obj.(*skiff.Task).Spec.Run}
}

// tasksByCacheKey holds only what really ran and succeeded: a cached task is
// not a source for another.
func tasksByCacheKey(obj core.Object) []string {
	task := obj.(*skiff.Task)
	if task.Status.CacheKey == "" || task.Status.Cached || task.Status.State != skiff.StateSucceeded {
		return nil
	}
	return []string{task.Status.CacheKey + separator + store.TimeValue(task.Status.FinishedAt, true)}
}

func artifactsByRun(obj core.Object) []string {
	if run := obj.(*skiff.Artifact).Spec.Run; run != "" {
		return []string{run}
	}
	return nil
}

func artifactsByURI(obj core.Object) []string {
	artifact := obj.(*skiff.Artifact)
	if !artifact.Spec.Imported {
		return nil
	}
	return []string{artifact.Spec.URI + separator + artifact.Spec.SchemaTitle}
}
