// Package e2e runs the built skiff the way a person does, from the command
// line, against real containers and processes: both pipeline corpora, and the
// daemon killed while it works.
package e2e
