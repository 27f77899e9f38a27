// Package scheduler decides which pod gets which units of the node, and when.
//
// It is pure: no I/O, no clock of its own, no goroutines. The same sequence of
// calls gives the same decisions, so the daemon, the property tests and the
// simulator run the same code. engine/pod feeds it and makes its grants durable.
package scheduler
