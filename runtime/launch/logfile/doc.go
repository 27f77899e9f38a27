// Package logfile writes and parses a container's log files: lines in the
// Container Runtime Interface's format, the head and the tail kept under a cap,
// what lies between dropped and counted.
//
// The launcher links this package, so it imports the standard library and the
// contract (runtime/launch) only. Reading a folder of log files safely is the
// daemon's business: runtime/launch/host.
package logfile
