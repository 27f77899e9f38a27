package pod

import (
	"bytes"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
)

// heldPod is a pod that is kept for a number of seconds when its script fails.
func heldPod(name, script string, seconds int64) *core.Pod {
	p := shellPod(name, script)
	p.Spec.Skiff = &core.PodExtension{HoldOnFailureSeconds: seconds}
	return p
}

// pausedPod waits until a pod is kept.
func (r *rig) pausedPod(name string) *core.Pod {
	r.t.Helper()
	r.eventually(name+" to be paused", func() bool {
		p := r.get(name)
		return p != nil && paused(p)
	})
	return r.get(name)
}

// release lets a kept pod end.
func (r *rig) release(name string) {
	r.t.Helper()
	r.change(name, func(p *core.Pod) { p.Spec.Skiff.Release = true })
}

// TestHold: a pod whose command has failed is kept as it is, with its claim, over
// the end of the controller, until it is released; then it has failed as it would.
func TestHold(t *testing.T) {
	r := newProcessRig(t)
	p := heldPod("a", `echo "ValueError: bad" >&2; echo left > "$0"; sleep 1000 & exit 3`, 3600)
	p.Spec.Containers[0].Args = []string{r.dir + "/left"}
	r.create(p)
	for _, when := range []string{"at first", "after a restart"} {
		got := r.pausedPod("a")
		if got.Status.Claim == nil || !strings.HasPrefix(got.Status.Message, "container main exited with code 3: ValueError: bad; it is kept until ") {
			t.Fatalf("%s: %+v", when, got.Status)
		}
		r.eventually("the container to be known", func() bool {
			_, err := r.c.Stats(t.Context(), "default", "a")
			return err == nil
		})
		var out, complaint bytes.Buffer
		code, err := r.c.Exec(t.Context(), "default", "a", "", runtime.ExecRequest{Argv: []string{"cat", r.dir + "/left"}, Stdout: &out, Stderr: &complaint})
		if err != nil || code != 0 || out.String() != "left\n" {
			t.Fatalf("%s: a command in it: %d, %v, %q %q", when, code, err, out.String(), complaint.String())
		}
		r.down()
		r.up()
	}
	if again, command, err := r.c.Debug(t.Context(), "default", "a", false); err != nil || again.Name != "a" || len(command) == 0 {
		t.Errorf("to debug it: %v, %v, %v", again, command, err)
	}
	r.release("a")
	got := r.ended("a")
	if got.Status.Reason != launch.ReasonError || got.Status.Message != "container main exited with code 3: ValueError: bad" || got.Status.Claim != nil {
		t.Errorf("released: %+v", got.Status)
	}
}

// TestHoldEnds: a hold ends with its time, with a stop, and with the pod; what
// succeeds has none.
func TestHoldEnds(t *testing.T) {
	r := newProcessRig(t)
	r.create(heldPod("time", "exit 3", 1))
	if got := r.ended("time"); got.Status.Phase != core.PodFailed || !strings.Contains(got.Status.Message, "code 3") {
		t.Errorf("after its time: %+v", got.Status)
	}
	r.create(heldPod("fine", "exit 0", 3600))
	if got := r.ended("fine"); got.Status.Phase != core.PodSucceeded {
		t.Errorf("without a failure: %+v", got.Status)
	}
	r.create(heldPod("stopped", "exit 3", 3600))
	r.pausedPod("stopped")
	r.change("stopped", func(p *core.Pod) { p.Spec.Skiff.Stop = true })
	if got := r.ended("stopped"); got.Status.Reason != ReasonCancelled || got.Status.Claim != nil {
		t.Errorf("stopped: %+v", got.Status)
	}
	limit := int64(1)
	late := heldPod("late", "exit 3", 3600)
	late.Spec.ActiveDeadlineSeconds = &limit
	r.create(late)
	if got := r.ended("late"); got.Status.Reason != ReasonDeadline {
		t.Errorf("at its deadline: %+v", got.Status)
	}
}

// TestHoldWhileDown: what is released while nobody is there ends with the next
// controller, and what fails meanwhile is kept.
func TestHoldWhileDown(t *testing.T) {
	r := newProcessRig(t)
	r.create(heldPod("a", "exit 3", 3600))
	r.create(heldPod("b", "sleep 0.5; exit 4", 3600))
	r.pausedPod("a")
	r.running("b")
	r.down()
	r.release("a")
	r.up()
	if got := r.ended("a"); !strings.Contains(got.Status.Message, "code 3") {
		t.Errorf("released while down: %+v", got.Status)
	}
	if got := r.pausedPod("b"); !strings.Contains(got.Status.Message, "code 4") {
		t.Errorf("failed while down: %+v", got.Status)
	}
	r.release("b")
	r.ended("b")
}

// TestDebugFresh: a fresh pod to look around in is none that is kept in turn.
func TestDebugFresh(t *testing.T) {
	r := newProcessRig(t)
	r.create(heldPod("a", "exit 3", 3600))
	r.pausedPod("a")
	made, _, err := r.c.Debug(t.Context(), "default", "a", true)
	if err != nil || made.Name == "a" || made.Spec.Skiff.HoldOnFailureSeconds != 0 || made.Spec.Skiff.Release {
		t.Fatalf("made %+v, %v", made, err)
	}
	for _, name := range []string{"a", made.Name} {
		r.change(name, func(p *core.Pod) { p.Spec.Skiff.Stop = true })
		r.ended(name)
	}
}
