// Package expr evaluates the small languages inside of a pipeline: conditions
// and selectors, which are CEL, and the {{$…}} placeholders with the operators
// Concat and IfPresent.
//
// The grammar of placeholders is api/kfp's, which also checks it statically;
// here they get their values. Evaluation is pure: no I/O, bounded in time and
// memory, and safe for concurrent use.
//
// The package must not import the engine around it, nor anything but api/kfp.
package expr
