package recurring

import (
	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// KindName is the name under which the store keeps recurring runs.
const KindName = "recurringruns.skiff.dev"

// Indexes of the kind.
const (
	// IndexEnabled holds, under the one value "enabled", those that make runs.
	IndexEnabled = "enabled"
	// IndexExperiment lists by the name of the experiment, IndexID finds by name in
	// whatever namespace.
	IndexExperiment = "experiment"
	IndexID         = "id"
)

// enabled is the one value of IndexEnabled.
const enabled = "enabled"

// Kinds of others, with their indexes. Engines know each other through objects
// alone, so the names are written here and not imported.
const (
	runsKind      = "runs.skiff.dev"
	manifestsKind = "pipelinemanifests.skiff.dev"
	pipelinesKind = "pipelines.pipelines.kubeflow.org"
	versionsKind  = "pipelineversions.pipelines.kubeflow.org"

	indexActive   = "active"
	indexID       = "id"
	indexPipeline = "pipeline"
	separator     = "\x00"
)

// Kinds declares the engine's kinds to the store.
func Kinds() []store.Kind {
	return []store.Kind{{Name: KindName, New: func() core.Object { return new(skiff.RecurringRun) }, Indexes: []store.Index{
		{Name: IndexEnabled, Values: func(obj core.Object) []string {
			if obj.(*skiff.RecurringRun).Spec.Disabled {
				return nil
			}
			return []string{enabled}
		}},
		{Name: IndexExperiment, Values: func(obj core.Object) []string { return []string{obj.(*skiff.RecurringRun).Spec.Experiment} }},
		{Name: IndexID, Values: func(obj core.Object) []string { return []string{obj.Metadata().Name} }},
	}}}
}
