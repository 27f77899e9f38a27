// Package skiff holds skiff's own kinds, group skiff.dev/v1alpha1, used only
// where no published kind fits: a pipeline Run, its Tasks, the Artifacts they
// make, the immutable PipelineManifest a run was made from, the Experiment that
// runs are put together in and the RecurringRun that makes them on a schedule.
//
// The package is types with their pure defaults and checks; behaviour lives in
// engine/pipeline.
package skiff
