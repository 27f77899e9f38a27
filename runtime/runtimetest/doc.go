// Package runtimetest is the conformance suite of runtime.Backend: every
// backend passes it, with what its Harness says it can do.
//
// It is for tests only, and imports no backend.
package runtimetest
