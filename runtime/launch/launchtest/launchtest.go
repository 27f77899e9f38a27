// Package launchtest builds the launcher for tests.
package launchtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/skiff-ml/skiff/runtime/launch/embedded"
)

// build compiles once in a test process.
var build = sync.OnceValues(func() (string, error) {
	tmp, err := os.MkdirTemp("", "launcher-build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // A stray folder in the system's own place for such.
	out := filepath.Join(tmp, "launcher")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "github.com/skiff-ml/skiff/cmd/launcher")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, msg)
	}
	// Named by contents in a folder that stays: as many as there are versions,
	// not one for each test process.
	keep := filepath.Join(os.TempDir(), "skiff-launchers-"+strconv.Itoa(os.Geteuid()))
	return embedded.Unpack(embedded.Config{Dir: keep, Path: out})
})

// Build returns the path of a launcher made from this source tree, as small as
// the one that is shipped.
func Build(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatalf("build the launcher: %v", err)
	}
	return path
}
