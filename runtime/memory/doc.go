// Package memory is a runtime backend whose containers are functions: what a
// command does is decided by a Handler. It is for tests of engines, which need a
// backend that is quick, obeys the contract, and fails in the ways that real
// ones do (Faults).
//
// Containers live in a World, as Docker's live in its daemon: several Backends
// in turn may work on one World, as after a restart of skiff. Each container
// leaves the same files in its pod's folder as a launcher would.
//
// It imports no other backend.
package memory
