package process

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

// LauncherPID asks which process a container's launcher is.
func LauncherPID(ctx context.Context, dir string) (int, error) {
	data, err := os.ReadFile(filepath.Join(filepath.Dir(dir), ledgerFile))
	if err != nil {
		return 0, err
	}
	var spec runtime.ContainerSpec
	for raw := range bytes.Lines(data) {
		var in line
		var s runtime.ContainerSpec
		if json.Unmarshal(raw, &in) == nil && json.Unmarshal(in.Spec, &s) == nil && s.Name == filepath.Base(dir) {
			spec = s
		}
	}
	h := host.New()
	defer func() { _ = h.Close() }() // it has told what it had to
	conn, err := h.Connect(ctx, launch.ControlDir(spec.PodDir, spec.Container))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return conn.PID(), nil
}

// AwaitIdle waits until no keeper serves or cleans up.
func AwaitIdle(t *testing.T, b *Backend) {
	t.Helper()
	for range 1000 {
		b.keepers.mu.Lock()
		busy := len(b.keepers.all) - len(b.keepers.idle)
		b.keepers.mu.Unlock()
		if busy == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("a keeper stays busy")
}
