// Package author turns a Python file that defines pipelines with the kfp SDK
// into a compiled package, in a process of the user's own interpreter, where the
// SDK and whatever else the file imports are installed.
//
// It runs the user's program as the user; it must not be used by the daemon.
package author
