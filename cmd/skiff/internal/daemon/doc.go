// Package daemon puts skiff together: the store, the runtimes, the scheduler and
// the controllers, the server. It is the one place that knows all of them, and
// holds wiring only.
package daemon
