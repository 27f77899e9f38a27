package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPauseAndResume over processes, whose images are names for the shell.
func TestPauseAndResume(t *testing.T) {
	text, err := os.ReadFile("testdata/moody.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "moody.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), "skiffdev/busybox:1", "busybox")), 0o600); err != nil {
		t.Fatal(err)
	}
	pauseAndResume(t, newDaemon(t, "--runtime", "process"), file)
}

// pauseAndResume is what somebody does whose step fails: it is kept, over the
// death of the daemon, looked into and released; a new run then takes over what
// was done and runs the rest.
func pauseAndResume(t *testing.T, d *daemon, file string) {
	t.Helper()
	ctx := t.Context()
	id := d.submit(ctx, file, "--on-failure", "pause")
	paused := func() error {
		got := d.skiff(ctx, "get", "runs", id, "-o", "json")
		if !strings.Contains(got.stdout, `"reason": "PausedOnFailure"`) {
			return fmt.Errorf("exit %d: %.2000s %s", got.code, got.stdout, got.stderr)
		}
		return nil
	}
	look := func() error {
		got := d.skiff(ctx, "debug", id+"/train", "--", "cat", "/tmp/left")
		if got.code != 0 || got.stdout != "data\n" {
			return fmt.Errorf("%+v", got)
		}
		return nil
	}
	eventually(t, time.Minute, "the step is paused", paused)
	if err := look(); err != nil {
		t.Fatalf("look into it: %v", err)
	}
	d.kill()
	d.start()
	eventually(t, time.Minute, "the step is paused still", paused)
	eventually(t, time.Minute, "it can be looked into still", look)
	if got := d.skiff(ctx, "release", id+"/train"); got.code != 0 {
		t.Fatalf("release: %+v", got)
	}
	first := d.finished(ctx, id)
	if first.State != "FAILED" || first.Tasks[1].ExitCode == nil || *first.Tasks[1].ExitCode != 1 {
		t.Fatalf("released, the run is %s\n%s", first.State, tasksText(first))
	}
	d.nothingLeft(ctx)
	second := document(t, d.skiff(ctx, "run", "--resume", id, "-p", "mood=good", "-o", "json"))
	if second.State != "SUCCEEDED" || second.Outputs["out"] != "data\n" {
		t.Fatalf("resumed, it is %s with %v\n%s", second.State, second.Outputs, tasksText(second))
	}
	for _, task := range second.Tasks {
		if reused := task.ReusedFrom != ""; reused != (task.Name == "make") || reused == (task.Attempts > 0) {
			t.Errorf("%s: taken over from %q, %d attempts", task.Name, task.ReusedFrom, task.Attempts)
		}
	}
	if len(second.Artifacts) != 1 || second.Artifacts[0].ID != first.Artifacts[0].ID {
		t.Errorf("artifacts %v, first %v", second.Artifacts, first.Artifacts)
	}
}
