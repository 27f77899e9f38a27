// Command launcher is the first process of every container that skiff starts.
//
//	launcher <control folder>
//
// It waits for its command (from command.json or over its socket), runs it
// once, keeps its output in log files, ends and reaps everything it left, and
// writes one exit record; see runtime/launch for the contract. The daemon may
// be away all the while.
//
// It links the standard library and runtime/launch only, and neither net nor
// os/exec: its start is on the path of every step (a test holds the list and
// the size).
package main
