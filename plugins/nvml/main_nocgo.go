//go:build !cgo

package main

import (
	"fmt"
	"os"
)

// main of a build without cgo has nothing to offer; it says so rather than
// pretend that there are no devices.
func main() {
	fmt.Fprintln(os.Stderr, "skiff-nvml: built without cgo, so it cannot load NVIDIA's library; build it with CGO_ENABLED=1 and a C compiler (make build)")
	os.Exit(2)
}
