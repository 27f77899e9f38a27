// Package pipeline runs Kubeflow Pipelines: it takes a compiled package at the
// door (Submit), keeps a Run with a Task for every node of its DAG, and makes a
// Pod for each attempt of a step.
//
// # How a run advances
//
// Each active run is owned by one goroutine, an execution. Its graph mirrors
// the IR: a scope is one instance of a DAG (the root, a sub-DAG, a pass of a
// loop), a node is one task in a scope. What happens to a run (a pod changed, a
// back-off ended, somebody asked to cancel) reaches the execution as an event;
// it settles nodes, starts those that became ready, and writes everything that
// changed in one transaction. Nothing is reported that is not durable, and
// nothing acts but what the transaction asked for: pods are objects, made in
// the transaction that names them as the task's attempt.
//
// So a run can be picked up from the store at any point: the same graph is
// built from the manifest, each node's state is read from its Task, and the
// execution goes on.
//
// The package imports the store, the API types and its own expr; it knows
// nothing of HTTP, of how pods run, or of other engines.
package pipeline
