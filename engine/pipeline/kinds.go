package pipeline

import (
	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

// Names under which the store keeps this engine's kinds.
const (
	Runs      = "runs.skiff.dev"
	Tasks     = "tasks.skiff.dev"
	Artifacts = "artifacts.skiff.dev"
	Manifests = "pipelinemanifests.skiff.dev"

	Experiments = "experiments.skiff.dev"
	// Pipelines and Versions are the published kinds of KFP.
	Pipelines = "pipelines.pipelines.kubeflow.org"
	Versions  = "pipelineversions.pipelines.kubeflow.org"

	// podsKind is where engine/pod keeps pods. Engines know each other through
	// objects alone, so the name is written here and not imported.
	podsKind = "pods"
)

// Indexes of this engine's kinds.
const (
	// IndexActive holds the runs that have not ended.
	IndexActive = "active"
	// IndexCreated lists runs newest first. Those that follow do so within the
	// runs of one storage state ("archived" or "available"), of an experiment and
	// storage state (or "all"), of a state, and of a recurring run; a value's parts stand
	// before a NUL each, the time last.
	IndexCreated    = "created"
	IndexStorage    = "storage"
	IndexExperiment = "experiment"
	IndexState      = "state"
	IndexRecurring  = "recurring"
	// IndexName lists by display name, IndexID finds an object by the id that
	// KFP's API gives it, in whatever namespace it is.
	IndexName = "name"
	IndexID   = "id"
	// IndexPipeline lists versions by the object name of their pipeline, newest
	// first.
	IndexPipeline = "pipeline"
	// IndexRun lists tasks and artifacts by the name of their run.
	IndexRun = "run"
	// IndexPinned holds, under the one value "pinned", the runs that somebody wants
	// kept.
	IndexPinned = "pinned"
	// IndexLiving lists the artifacts whose contents are kept here and were made
	// here, the one that was used the longest ago first.
	IndexLiving = "living"
	// IndexContents lists those that refer to contents kept here, whoever made
	// them, by their place (artifact.Key).
	IndexContents = "contents"
	// IndexPurging holds, under the one value "purging", the artifacts of whose
	// contents something may still be there and is to go.
	IndexPurging = "purging"
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
			{Name: IndexStorage, Values: runsByStorage},
			{Name: IndexExperiment, Values: runsByExperiment},
			{Name: IndexState, Values: runsByState},
			{Name: IndexRecurring, Values: runsByRecurringRun},
			{Name: IndexName, Values: func(obj core.Object) []string { return []string{nameValue(obj.(*skiff.Run).Spec.DisplayName)} }},
			{Name: IndexID, Values: byName},
			{Name: IndexPinned, Values: pinned},
		}},
		{Name: Experiments, New: func() core.Object { return new(skiff.Experiment) }, Indexes: []store.Index{
			{Name: IndexName, Values: func(obj core.Object) []string { return []string{nameValue(obj.(*skiff.Experiment).Spec.DisplayName)} }},
			{Name: IndexID, Values: byName},
		}},
		{Name: Pipelines, New: func() core.Object { return new(kfp.Pipeline) }, Indexes: []store.Index{
			{Name: IndexID, Values: byUID},
		}},
		{Name: Versions, New: func() core.Object { return new(kfp.PipelineVersion) }, Indexes: []store.Index{
			{Name: IndexPipeline, Values: versionsByPipeline},
			{Name: IndexID, Values: byUID},
		}},
		{Name: Tasks, New: func() core.Object { return new(skiff.Task) }, Indexes: []store.Index{
			{Name: IndexRun, Values: tasksByRun},
			{Name: indexCache, Values: tasksByCacheKey},
		}},
		{Name: Artifacts, New: func() core.Object { return new(skiff.Artifact) }, Indexes: []store.Index{
			{Name: IndexRun, Values: artifactsByRun},
			{Name: indexURI, Values: artifactsByURI},
			{Name: IndexLiving, Values: livingArtifacts},
			{Name: IndexContents, Values: artifactsByContents},
			{Name: IndexPurging, Values: purging},
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

// newestFirst is the end of an index value that lists the newest first.
func newestFirst(obj core.Object) string {
	return separator + store.TimeValue(obj.Metadata().CreationTimestamp, true)
}

// The parts of an index value by storage state, as server/kfp writes them too.
const (
	storageAvailable = "available"
	storageArchived  = "archived"
	storageAll       = "all"
)

func storageOf(run *skiff.Run) string {
	if run.Spec.Archived {
		return storageArchived
	}
	return storageAvailable
}

func runsByStorage(obj core.Object) []string {
	return []string{storageOf(obj.(*skiff.Run)) + newestFirst(obj)}
}

func runsByExperiment(obj core.Object) []string {
	run := obj.(*skiff.Run)
	experiment := skiff.ExperimentOf(run) + separator
	return []string{experiment + storageOf(run) + newestFirst(obj), experiment + storageAll + newestFirst(obj)}
}

func runsByState(obj core.Object) []string {
	return []string{string(obj.(*skiff.Run).Status.State) + newestFirst(obj)}
}

func runsByRecurringRun(obj core.Object) []string {
	if name := obj.(*skiff.Run).Spec.RecurringRun; name != "" {
		return []string{name + newestFirst(obj)}
	}
	return nil
}

func versionsByPipeline(obj core.Object) []string {
	return []string{obj.(*kfp.PipelineVersion).Spec.PipelineName + newestFirst(obj)}
}

func byName(obj core.Object) []string { return []string{obj.Metadata().Name} }
func byUID(obj core.Object) []string  { return []string{obj.Metadata().UID} }

// nameValue bounds a display name as an index value; the store refuses longer ones.
func nameValue(name string) string { return name[:min(len(name), maxNameValue)] }

// maxNameValue is more than any list shows of a name.
const maxNameValue = 256

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
	a := obj.(*skiff.Artifact)
	if !a.Spec.Imported {
		return nil
	}
	return []string{a.Spec.URI + separator + a.Spec.SchemaTitle}
}

func pinned(obj core.Object) []string {
	if skiff.Pinned(obj) {
		return []string{"pinned"}
	}
	return nil
}

// contentsOf is the place of what an artifact refers to; false where that is not
// kept here, or nothing is left of it.
func contentsOf(a *skiff.Artifact) (string, bool) {
	if a.Status.Missing || (a.Status.Purged != nil && !a.Status.Purged.RemovedAt.IsZero()) {
		return "", false
	}
	key, err := artifact.Key(a.Spec.URI)
	return key, err == nil
}

func livingArtifacts(obj core.Object) []string {
	a := obj.(*skiff.Artifact)
	if _, here := contentsOf(a); !here || a.Spec.Imported || a.Gone() != "" {
		return nil
	}
	return []string{store.TimeValue(a.LastUsed(), false)}
}

func artifactsByContents(obj core.Object) []string {
	if key, here := contentsOf(obj.(*skiff.Artifact)); here {
		return []string{key}
	}
	return nil
}

func purging(obj core.Object) []string {
	a := obj.(*skiff.Artifact)
	if (a.Status.Purged != nil && a.Status.Purged.RemovedAt.IsZero()) || a.DeletionTimestamp != nil {
		return []string{"purging"}
	}
	return nil
}
