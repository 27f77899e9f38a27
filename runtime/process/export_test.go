package process

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

// LauncherPID asks which process a container's launcher is.
func LauncherPID(ctx context.Context, dir string) (int, error) {
	var s saved
	data, err := os.ReadFile(dir + specSuffix)
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return 0, err
	}
	h := host.New()
	defer func() { _ = h.Close() }() // it has told what it had to
	conn, err := h.Connect(ctx, launch.ControlDir(s.Spec.PodDir, s.Spec.Container))
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
