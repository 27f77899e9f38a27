// Package server is the daemon's HTTP side: every endpoint, mounted behind the
// same checks (host, identity, origin, content type, size, authorization), and
// the endpoints of skiff's own that are not plain resources: submitting a run,
// logs, the run document, the node.
//
// It declares as interfaces what it needs of the rooms below (Pipelines, Logs,
// NodeSource …); it must not import runtime or scheduler.
package server
