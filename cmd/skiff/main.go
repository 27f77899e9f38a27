// Command skiff is the one binary a user has: the daemon and the command line.
// Everything is wired in internal/cli; this file only knows the process.
package main

import (
	"os"

	"github.com/skiff-ml/skiff/cmd/skiff/internal/cli"
)

// version is set by the linker.
var version = "dev"

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, version))
}
