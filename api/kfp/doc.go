// Package kfp holds the published form of a Kubeflow Pipelines v2 package: the
// pipeline specification (ml_pipelines.PipelineSpec), its Kubernetes platform
// specification (kfp_kubernetes), and what a component is handed and hands back
// (ExecutorInput, ExecutorOutput), written out as our own Go types.
//
// It owns everything about a package that can be decided without a machine:
//
//	Load           bytes of a YAML, JSON, zip or tar.gz file → Package, strictly
//	Validate       everything wrong with a Package, with field, line and remedy
//	ResolveInputs  a run's parameters against the pipeline's inputs
//	Coerce, Parse… conversions between parameter types
//	ParseTemplate  the grammar of the {{$…}} placeholders
//	Canonical      the form that is stored and hashed; Decode reads it back
//
// Whatever a user can get wrong is reported as a problem.List that names field,
// line, what was expected and what to do; all problems of a document at once.
//
// The package evaluates nothing: conditions and placeholders are evaluated by
// engine/pipeline/expr, which imports this package. It must not import any room
// above api.
package kfp
