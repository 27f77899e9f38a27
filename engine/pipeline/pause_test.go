package pipeline

import (
	"context"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// pausing keeps failed steps.
func pausing(changes ...func(*Submission)) func(*Submission) {
	return func(sub *Submission) {
		sub.PauseOnFailureSeconds = 3600
		for _, change := range changes {
			change(sub)
		}
	}
}

// paused waits until a step of a run is.
func (r *rig) paused(run, path string) *skiff.Task {
	r.t.Helper()
	r.await(path+" to be paused", func() bool {
		task := r.tasks(run)[path]
		return task != nil && task.Status.Reason == core.ReasonPaused
	})
	return r.tasks(run)[path]
}

// release lets a paused step end.
func (r *rig) release(task *skiff.Task) {
	r.t.Helper()
	_, err := store.ModifyAs(context.Background(), r.store, store.Key{Kind: podsKind, Namespace: space, Name: task.Status.Pod}, func(pod *core.Pod) error {
		pod.Spec.Skiff.Release = true
		return nil
	})
	if err != nil {
		r.t.Fatalf("release: %v", err)
	}
}

// TestPause: a failed step stays, its task says how to go on, what waits for it
// waits, and the attempt has failed only when it is released; over a restart, too.
func TestPause(t *testing.T) {
	for _, restart := range []bool{false, true} {
		r := newRig(t, nil)
		name := r.submit("simple", pausing(with("do", "exit 3")))
		task := r.paused(name, "step")
		ref := name + "/step"
		if task.Status.State != skiff.StateRunning || !strings.HasPrefix(task.Status.Message, "container main exited with code 3; it is kept until ") ||
			!strings.HasSuffix(task.Status.Message, "; skiff debug "+ref+" opens a shell in it, skiff release "+ref+" lets it end") {
			t.Errorf("paused it is %s: %s", task.Status.State, task.Status.Message)
		}
		if after := r.tasks(name)["after"].Status.State; after != skiff.StatePending {
			t.Errorf("what waits for it is %s", after)
		}
		if restart {
			r.down()
			r.up()
			task = r.paused(name, "step")
		}
		r.release(task)
		run := r.ended(name)
		r.states(run, skiff.StateFailed, map[string]string{"step": "FAILED", "after": "SKIPPED"})
		if task := r.tasks(name)["step"]; task.Status.Reason != "Error" || task.Status.Message != "container main exited with code 3" || task.Status.ExitCode == nil || *task.Status.ExitCode != 3 {
			t.Errorf("released it is %+v", task.Status)
		}
		// Taken up again it pauses again, and one that succeeds goes on.
		r.retry(name)
		r.release(r.paused(name, "step"))
		r.states(r.ended(name), skiff.StateFailed, map[string]string{"step": "FAILED x2", "after": "SKIPPED"})
	}
}

// TestPauseAfterTheLastAttempt: while a step's policy has attempts left they are
// made, and nothing is kept in between.
func TestPauseAfterTheLastAttempt(t *testing.T) {
	r := newRig(t, nil)
	name := r.submit("retry", pausing(with("do", "exit 1")))
	task := r.paused(name, "flaky")
	if task.Status.Attempts != 3 {
		t.Errorf("paused after %d attempts", task.Status.Attempts)
	}
	for _, pod := range r.podsOf(name) {
		if pod.Name != task.Status.Pod && !pod.Status.Phase.Terminal() {
			t.Errorf("pod %s of an earlier attempt is %s", pod.Name, pod.Status.Phase)
		}
	}
	r.release(task)
	r.states(r.ended(name), skiff.StateFailed, map[string]string{"flaky": "FAILED x3"})
	if run := r.finish("retry", pausing(with("do", "until 2; env out "+retryIndex))); run.Status.State != skiff.StateSucceeded {
		t.Errorf("a run whose last attempt succeeds is %s", run.Status.State)
	}
}

// TestPauseCancelled: cancelling ends a pause, and so does what the run's exit
// tasks wait for.
func TestPauseCancelled(t *testing.T) {
	r := newRig(t, nil)
	r.world.open("exit")
	name := r.submit("exit_handler", pausing(with("do", "exit 1")))
	r.paused(name, "group/first")
	r.cancel(name)
	r.states(r.ended(name), skiff.StateCanceled, map[string]string{
		"group": "CANCELED", "group/first": "CANCELED", "group/second": "CANCELED", "exit": "SUCCEEDED", "later": "CANCELED",
	})
}

// TestPauseOfAWarmStep: a step whose container waited for its inputs is kept like
// any other.
func TestPauseOfAWarmStep(t *testing.T) {
	r := newRig(t, nil)
	name := r.submit("simple", func(sub *Submission) {
		edited(t, "simple", `dependentTasks: [step], inputs: {parameters: {do: {runtimeValue: {constant: ""}}}}`, `dependentTasks: [step], inputs: {parameters: {do: {runtimeValue: {constant: "exit 4"}}}}`)(sub)
		pausing(with("do", "hold gate"))(sub)
	})
	r.held(name, "step")
	r.await("the step after it to wait warm", func() bool { return len(r.podsOf(name)) == 2 })
	r.world.open("gate")
	task := r.paused(name, "after")
	if !strings.Contains(task.Status.Message, "code 4") || strings.HasSuffix(task.Status.Pod, coldSuffix) {
		t.Errorf("pod %s: %s", task.Status.Pod, task.Status.Message)
	}
	r.release(task)
	r.states(r.ended(name), skiff.StateFailed, map[string]string{"step": "SUCCEEDED", "after": "FAILED"})
}

// TestPauseRefused: nobody keeps the machine for ever.
func TestPauseRefused(t *testing.T) {
	r := newRig(t, nil)
	for _, seconds := range []int64{-1, maxPause + 1} {
		err := r.c.Check(t.Context(), Submission{Namespace: space, Filename: "empty.yaml", Package: source(t, "empty"), PauseOnFailureSeconds: seconds})
		if err == nil || !strings.Contains(err.Error(), "pauseOnFailureSeconds: want 0 to ") {
			t.Errorf("%d: %v", seconds, err)
		}
	}
}
