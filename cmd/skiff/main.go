// Command skiff is the one binary a user has: the daemon and the command line.
// Everything is wired in internal/cli; this file only knows the process.
package main

import (
	"os"
	"runtime/debug"

	"github.com/skiff-ml/skiff/cmd/skiff/internal/cli"
)

// version is set by the linker.
var version = "dev"

// gcPercent lets the heap grow to three times what lives in it. That is little, a
// few megabytes, as memory follows what is active; collecting it twice a second
// under load is felt in each small step.
const gcPercent = 200

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(cli.Main(os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, version))
}
