package pipeline

import (
	"cmp"
	"encoding/json"
	"strings"

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
	// before a NUL each, and behind the time lists find which runs they are of
	// (skiff.RunColumns).
	IndexCreated    = "created"
	IndexStorage    = "storage"
	IndexExperiment = "experiment"
	IndexState      = "state"
	IndexRecurring  = "recurring"
	// IndexFinished lists runs by their end, the last one first and those that go on
	// behind all others: the time before a NUL, then as above.
	IndexFinished = "finished"
	// IndexField lists runs by the value that they have of a metric or a parameter:
	// "metric:" or "param:" with its name, the value (skiff.OrderValue), then as
	// above.
	IndexField = "field"
	// IndexName lists by display name, runs of one name newest first and with
	// their columns; IndexID finds an object by the id that
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
			{Name: IndexCreated, Values: runsByCreation, Version: runColumnsVersion},
			{Name: IndexStorage, Values: runsByStorage, Version: runColumnsVersion},
			{Name: IndexExperiment, Values: runsByExperiment, Version: runColumnsVersion},
			{Name: IndexState, Values: runsByState, Version: runColumnsVersion},
			{Name: IndexRecurring, Values: runsByRecurringRun, Version: runColumnsVersion},
			{Name: IndexName, Values: runsByName, Version: runColumnsVersion},
			{Name: IndexFinished, Values: runsByEnd, Version: runColumnsVersion},
			{Name: IndexField, Values: runsByField, Version: fieldColumnsVersion},
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

// runColumnsVersion is that of the indexes whose values end with a run's columns.
const runColumnsVersion = 1

// fieldColumnsVersion is that of the index by field, whose values have fewer.
const fieldColumnsVersion = 2

func runsByCreation(obj core.Object) []string {
	return inColumns(obj, "")
}

// inColumns are index values that begin as given, go on with the newest first
// and end with the run's columns.
func inColumns(obj core.Object, beginnings ...string) []string {
	run := obj.(*skiff.Run)
	created := store.TimeValue(run.CreationTimestamp, true)
	columns := skiff.ColumnsOf(run)
	values := make([]string, 0, len(beginnings))
	for _, beginning := range beginnings {
		values = append(values, skiff.RunIndexValue(beginning, created, run.Name, columns))
	}
	return values
}

// newestFirst is the end of an index value that lists the newest first.
func newestFirst(obj core.Object) string {
	return separator + store.TimeValue(obj.Metadata().CreationTimestamp, true)
}

// The parts of an index value by storage state, as server/query writes them too.
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
	return inColumns(obj, storageOf(obj.(*skiff.Run))+separator)
}

func runsByExperiment(obj core.Object) []string {
	run := obj.(*skiff.Run)
	experiment := skiff.ExperimentOf(run) + separator
	return inColumns(obj, experiment+storageOf(run)+separator, experiment+storageAll+separator)
}

func runsByState(obj core.Object) []string {
	return inColumns(obj, string(cmp.Or(obj.(*skiff.Run).Status.State, skiff.StatePending))+separator)
}

func runsByRecurringRun(obj core.Object) []string {
	if name := obj.(*skiff.Run).Spec.RecurringRun; name != "" {
		return inColumns(obj, name+separator)
	}
	return nil
}

func runsByName(obj core.Object) []string {
	// A name that holds what ends it here would be taken for a shorter one.
	return inColumns(obj, strings.ReplaceAll(nameValue(obj.(*skiff.Run).Spec.DisplayName), separator, "\x01")+separator)
}

func runsByEnd(obj core.Object) []string {
	return inColumns(obj, store.TimeValue(obj.(*skiff.Run).Status.FinishedAt, true)+separator)
}

// runsByField has a row for each of a run's first parameters and metrics. Of the
// columns it has not the name, and parameters not the state: they are no reason to
// be written anew at each of a run's states. Metrics are known when it has ended.
func runsByField(obj core.Object) []string {
	run := obj.(*skiff.Run)
	var values []string
	created := store.TimeValue(run.CreationTimestamp, true)
	columns := skiff.ColumnsOf(run)
	columns.Name, columns.NameCut = nil, true
	state := columns.State
	add := func(source string, of map[string]json.RawMessage) {
		for i, name := range sortedKeys(of) {
			if i == maxFieldRows {
				return
			}
			key := skiff.OrderValue(of[name])
			if key == "" || len(name) > maxNameValue || strings.Contains(name, separator) {
				continue
			}
			values = append(values, skiff.RunIndexValue(source+name+separator+key+separator, created, run.Name, columns))
		}
	}
	columns.State = nil
	add("param:", run.Spec.Parameters)
	columns.State = state
	add("metric:", run.Status.Metrics)
	return values
}

// maxFieldRows is how many of a run's parameters, and of its metrics, are in the
// index by field.
const maxFieldRows = 64

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
