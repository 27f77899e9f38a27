// Package skiff holds skiff's own kinds, group skiff.dev/v1alpha1, used only
// where no published kind fits: a pipeline Run, its Tasks, the Artifacts they
// make and the immutable PipelineManifest a run was made from.
//
// The package is types with their pure defaults and checks; behaviour lives in
// engine/pipeline.
package skiff
