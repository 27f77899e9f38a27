// Package core holds the types that every room of skiff shares: object metadata
// and the Pod, the one unit that runs.
//
// The JSON shapes are those of the Kubernetes API (core/v1, meta/v1) as
// documented by that project, written out here as our own Go types: the daemon
// imports no k8s.io package. Fields that skiff adds stand together under a
// single "skiff" key, so a published manifest never collides with them.
//
// core is a leaf: it imports the standard library and api/problem only, and
// holds no behaviour beyond defaults, validation and parsing of its own fields.
package core
