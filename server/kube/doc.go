// Package kube serves objects of the store in the manner of the Kubernetes API:
// resource paths, lists with pages and selectors, watches as lines of JSON,
// merge patches, Table answers and Status errors.
//
// What it serves is one table, Resources; a kind is added there and nowhere
// else. Handlers are generic over that table. The package reads and writes the
// store alone and must not import engines or runtimes.
package kube
