package cli

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/view"
)

// sampleProgress is a run of four steps: done, cached, running and waiting for
// a device.
func sampleProgress(start time.Time) *progress {
	task := func(name string, state skiff.State, began, ended time.Duration) *skiff.Task {
		t := &skiff.Task{Spec: skiff.TaskSpec{Path: name, Type: skiff.TaskContainer}, Status: skiff.TaskStatus{State: state}}
		t.Name, t.CreationTimestamp = name, start
		if began > 0 {
			t.Status.StartedAt = start.Add(began)
		}
		if ended > 0 {
			t.Status.FinishedAt = start.Add(ended)
		}
		return t
	}
	prepare := task("prepare", skiff.StateSucceeded, time.Second, 3*time.Second)
	cached := task("fetch", skiff.StateSucceeded, 2*time.Second, 2*time.Second)
	cached.Status.Cached = true
	running := task("train-small", skiff.StateRunning, 4*time.Second, 0)
	waits := task("train-large", skiff.StatePending, 0, 0)
	waits.Status.Pod = "pod-large"
	loop := task("for-loop-1", skiff.StateRunning, time.Second, 0)
	loop.Spec.Type = skiff.TaskLoop
	p := &progress{tasks: map[string]*skiff.Task{}, pods: map[string]*core.Pod{
		"pod-large": {Status: core.PodStatus{Phase: core.PodPending, Message: "waits for 2 GPUs: 1 of 8 is free"}},
	}}
	p.run.Spec.PipelineName, p.run.Status.State = "train", skiff.StateRunning
	p.run.CreationTimestamp = start
	for _, t := range []*skiff.Task{prepare, cached, running, waits, loop} {
		p.tasks[t.Name] = t
	}
	return p
}

func TestLines(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := sampleProgress(start)
	var out bytes.Buffer
	l := &lines{out: &out, shown: map[string]string{}}
	l.update(p, start.Add(5*time.Second))
	l.update(p, start.Add(6*time.Second)) // nothing changed, nothing is said again
	p.tasks["train-small"].Status.State = skiff.StateFailed
	p.tasks["train-small"].Status.Message = "exit code 3\x1b[31m"
	p.tasks["train-small"].Status.FinishedAt = start.Add(7 * time.Second)
	l.update(p, start.Add(7*time.Second))
	want := []string{
		"5.0s prepare SUCCEEDED (2.0s)",
		"5.0s fetch SUCCEEDED cached (0ms)",
		"5.0s train-small RUNNING",
		"5.0s train-large PENDING waits for 2 GPUs: 1 of 8 is free",
		"7.0s train-small FAILED exit code 3?[31m (3.0s)",
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLivePicture(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := &live{}
	got := l.picture(sampleProgress(start), start.Add(5*time.Second), 80, 24)
	want := []string{
		"train  RUNNING  2 of 4 steps done  5.0s",
		"  ✓ prepare         2.0s",
		"  ✓ fetch            0ms  cached",
		"  ● train-small     1.0s",
		"  ○ train-large           waits for 2 GPUs: 1 of 8 is free",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestLiveFits: whatever the run and the terminal, no line is wider and the
// picture no higher, so that the way back up is known.
func TestLiveFits(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, size := range [][2]int{{80, 24}, {40, 10}, {20, 8}, {200, 50}} {
		p := sampleProgress(start)
		for i := range 100 {
			task := *p.tasks["prepare"]
			task.Spec.Path = fmt.Sprintf("for-loop-1/%d/%s", i, strings.Repeat("long-", i%20))
			if i%3 == 0 {
				task.Status.State, task.Status.Message = skiff.StatePending, strings.Repeat("why ", 40)
			}
			p.tasks[task.Spec.Path] = &task
		}
		l := &live{}
		lines := l.picture(p, start.Add(time.Minute), size[0], size[1])
		if len(lines) > size[1]-1 {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, line := range lines {
			if n := len([]rune(line)); n >= size[0] {
				t.Errorf("%v: a line of %d: %s", size, n, line)
			}
		}
	}
}

// TestLiveGoesBackUp: the second picture starts where the first one did.
func TestLiveGoesBackUp(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var out bytes.Buffer
	l := &live{out: &out, size: func() (int, int) { return 80, 24 }}
	p := sampleProgress(start)
	l.update(p, start.Add(5*time.Second))
	first := strings.Count(out.String(), "\n")
	out.Reset()
	l.update(p, start.Add(5*time.Second))
	if out.Len() != 0 {
		t.Errorf("the same picture was drawn again: %q", out.String())
	}
	l.update(p, start.Add(6*time.Second))
	if want := fmt.Sprintf("\x1b[%dA\r\x1b[J", first); !strings.HasPrefix(out.String(), want) {
		t.Errorf("got %q, want it to begin with %q", out.String(), want)
	}
}

func TestFindTask(t *testing.T) {
	run := &view.Run{RunID: "r", Tasks: []view.Task{
		{Name: "prepare", ID: "r-prepare-1", DisplayName: "Get the data"}, {Name: "for-loop-1/0/train", ID: "r-train-1"},
		{Name: "for-loop-1/1/train", ID: "r-train-2"}, {Name: "for-loop-1/1/score", ID: "r-score-1"},
	}}
	for name, want := range map[string]string{
		"prepare": "prepare", "r-train-2": "for-loop-1/1/train", "score": "for-loop-1/1/score",
		"for-loop-1/0/train": "for-loop-1/0/train", "Get the data": "prepare",
	} {
		got, err := findTask(run, name)
		if err != nil || got.Name != want {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	for name, want := range map[string]string{"train": "2 tasks called", "none": "has no task"} {
		if _, err := findTask(run, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPrefixWriter(t *testing.T) {
	var out bytes.Buffer
	var mu sync.Mutex
	a := &prefixWriter{mu: &mu, out: &out, prefix: "a | "}
	b := &prefixWriter{mu: &mu, out: &out, prefix: "b | "}
	for _, step := range []struct {
		w    *prefixWriter
		text string
	}{{a, "one\ntw"}, {b, "first\n"}, {a, "o\n\n"}, {b, "no end"}} {
		if n, err := step.w.Write([]byte(step.text)); err != nil || n != len(step.text) {
			t.Fatal(n, err)
		}
	}
	a.flush()
	b.flush()
	want := "a | one\nb | first\na | two\na | \nb | no end\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"plain": "plain", "a\nb\tc": "a b c", "\x1b[2Jgone": "?[2Jgone", "evil\u202etxt.exe": "evil?txt.exe", "ünï": "ünï",
	} {
		if got := printable(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for state, want := range map[skiff.State]int{
		skiff.StateSucceeded: 0, skiff.StateFailed: 1, skiff.StateCanceled: 130, skiff.StateRunning: 1,
	} {
		if got := exitCode(state); got != want {
			t.Errorf("%s: %d, want %d", state, got, want)
		}
	}
}
