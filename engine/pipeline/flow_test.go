package pipeline

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/skiff"
)

func TestChain(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("chain", with("text", "ahoy"))
	r.states(run, skiff.StateSucceeded, map[string]string{"a": "SUCCEEDED", "b": "SUCCEEDED", "c": "SUCCEEDED"})
	r.outputs(run, map[string]string{"out": `"ahoy!!!"`})
	if diff := cmp.Diff([]string{"a", "b", "c"}, r.world.order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	b := r.tasks(run.Name)["b"]
	if string(b.Status.Inputs["text"]) != `"ahoy!"` || b.Status.Attempts != 1 || b.Status.ExitCode == nil || *b.Status.ExitCode != 0 {
		t.Errorf("b: inputs %s, %d attempts, exit code %v", b.Status.Inputs, b.Status.Attempts, b.Status.ExitCode)
	}
	if b.Status.ImageDigest == "" || b.Status.StartedAt.IsZero() || b.Status.FinishedAt.Before(b.Status.StartedAt) {
		t.Errorf("b: image %q, from %s to %s", b.Status.ImageDigest, b.Status.StartedAt, b.Status.FinishedAt)
	}
}

// TestManifestShared: two runs of one pipeline keep one copy of it.
func TestManifestShared(t *testing.T) {
	r := newRig(t, nil)
	first, second := r.submit("chain", with("text", "x")), r.submit("chain", with("text", "y"))
	r.outputs(r.ended(first), map[string]string{"out": `"x!!!"`})
	r.outputs(r.ended(second), map[string]string{"out": `"y!!!"`})
	if a, b := r.run(first).Spec.Manifest, r.run(second).Spec.Manifest; a != b || a == "" {
		t.Errorf("manifests %q and %q", a, b)
	}
}

func TestDiamondWithFailure(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("diamond", nil)
	r.states(run, skiff.StateFailed, map[string]string{
		"start": "SUCCEEDED", "left": "FAILED", "left-on": "SKIPPED", "right": "SUCCEEDED", "right-on": "SUCCEEDED",
		"join": "SKIPPED", "alone": "SUCCEEDED",
	})
	tasks := r.tasks(run.Name)
	if code := tasks["left"].Status.ExitCode; code == nil || *code != 3 {
		t.Errorf("left's exit code is %v", code)
	}
	if tasks["join"].Status.Reason != reasonUpstream || run.Status.Reason != reasonTasksFailed || run.Status.Message == "" {
		t.Errorf("reasons: join %s, run %s (%s)", tasks["join"].Status.Reason, run.Status.Reason, run.Status.Message)
	}
	if n := r.world.began("left-on") + r.world.began("join"); n != 0 {
		t.Errorf("what depends on a failure was executed %d times", n)
	}
}

func TestConditionAndOneOf(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("condition", with("side", "one"))
	r.states(run, skiff.StateSucceeded, map[string]string{
		"choose": "SUCCEEDED", "choose/one": "SUCCEEDED", "choose/one/say": "SUCCEEDED",
		"choose/two": "SKIPPED", "choose/after-two": "SKIPPED", "after": "SUCCEEDED",
	})
	r.outputs(run, map[string]string{"chosen": `"one"`})
	if two := r.tasks(run.Name)["choose/two"]; two.Status.Reason != reasonCondition {
		t.Errorf("the branch not taken: %s", two.Status.Reason)
	}
	run = r.finish("condition", with("side", "two"))
	r.outputs(run, map[string]string{"chosen": `"two"`})
	// Neither: the sub-pipeline cannot give what it promises.
	run = r.finish("condition", with("side", "three"))
	r.states(run, skiff.StateFailed, map[string]string{
		"choose": "FAILED", "choose/one": "SKIPPED", "choose/two": "SKIPPED", "choose/after-two": "SKIPPED", "after": "SKIPPED",
	})
	if choose := r.tasks(run.Name)["choose"]; choose.Status.Reason != reasonOutputs {
		t.Errorf("no branch: %s %s", choose.Status.Reason, choose.Status.Message)
	}
}

func TestNestedLoops(t *testing.T) {
	r := newRig(t, nil)
	rows := [][]string{{"a", "b"}, {"c"}, {}, {"d", "e", "f"}}
	run := r.finish("loops", with("rows", rows))
	want := map[string]string{"outer": "SUCCEEDED"}
	for i, row := range rows {
		want[fmt.Sprintf("outer/%d", i)] = "SUCCEEDED"
		want[fmt.Sprintf("outer/%d/inner", i)] = "SUCCEEDED"
		for j := range row {
			want[fmt.Sprintf("outer/%d/inner/%d", i, j)] = "SUCCEEDED"
			want[fmt.Sprintf("outer/%d/inner/%d/cell", i, j)] = "SUCCEEDED"
		}
	}
	r.states(run, skiff.StateSucceeded, want)
	r.outputs(run, map[string]string{"table": `[["\u003ca\u003e","\u003cb\u003e"],["\u003cc\u003e"],[],["\u003cd\u003e","\u003ce\u003e","\u003cf\u003e"]]`})
	if peak := r.world.peakOf("cell"); peak > 2 {
		t.Errorf("%d cells ran at once; the limits are 2 rows of 1", peak)
	}
	if n := r.tasks(run.Name)["outer"].Status.Iterations; n != 4 {
		t.Errorf("the outer loop has %d iterations", n)
	}
}

// TestParallelism: never more than the limit at once, and not fewer either.
func TestParallelism(t *testing.T) {
	r := newRig(t, nil)
	items := make([]int, 7)
	name := r.submit("wide", func(sub *Submission) {
		with("items", items)(sub)
		with("do", "hold gate")(sub)
	})
	r.held(name, "each/0/pass")
	r.held(name, "each/1/pass")
	if _, begun := r.tasks(name)["each/2"]; begun {
		t.Error("a third pass began beside two")
	}
	r.world.open("gate")
	run := r.ended(name)
	if run.Status.State != skiff.StateSucceeded || r.world.peakOf("pass") != 2 || len(r.world.order) != 8 {
		t.Errorf("%s, %d at once, %d steps", run.Status.State, r.world.peakOf("pass"), len(r.world.order))
	}
}

func TestLoopOfNothing(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("empty", nil)
	r.states(run, skiff.StateSucceeded, map[string]string{"none": "SUCCEEDED", "after": "SUCCEEDED"})
	r.outputs(run, map[string]string{"outs": "[]"})
}

func TestLoopWithFailure(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("wide", func(sub *Submission) {
		with("items", []int{1, 2, 3})(sub)
		with("do", "exit 1")(sub)
	})
	want := map[string]string{"each": "FAILED", "after": "SKIPPED"}
	for i := range 3 { // the others go on
		want[fmt.Sprintf("each/%d", i)] = "FAILED"
		want[fmt.Sprintf("each/%d/pass", i)] = "FAILED"
	}
	r.states(run, skiff.StateFailed, want)
}

func TestIgnoreUpstreamFailure(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("ignore", nil)
	r.states(run, skiff.StateFailed, map[string]string{"bad": "FAILED", "anyway": "SUCCEEDED", "after": "SUCCEEDED"})
	if got := string(r.tasks(run.Name)["anyway"].Status.Outputs["out"]); got != `"fallback"` {
		t.Errorf("anyway has %s", got)
	}
}

func TestExitHandler(t *testing.T) {
	for _, tt := range []struct {
		name, do string
		state    skiff.State
		tasks    map[string]string
		status   string
	}{
		{"success", "", skiff.StateSucceeded, map[string]string{
			"group": "SUCCEEDED", "group/first": "SUCCEEDED", "group/second": "SUCCEEDED", "exit": "SUCCEEDED", "later": "SUCCEEDED",
		}, "COMPLETE"},
		{"failure", "exit 1", skiff.StateFailed, map[string]string{
			"group": "FAILED", "group/first": "FAILED", "group/second": "SKIPPED", "exit": "SUCCEEDED", "later": "SKIPPED",
		}, "FAILED"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.world.open("exit")
			run := r.finish("exit_handler", with("do", tt.do))
			r.states(run, tt.state, tt.tasks)
			checkStatus(t, r.tasks(run.Name)["exit"], tt.status)
		})
	}
}

// checkStatus looks at the state that an exit task was told.
func checkStatus(t *testing.T, task *skiff.Task, want string) {
	t.Helper()
	status, _ := decoded(task.Status.Outputs["status"]).(map[string]any)
	failure, there := status["error"].(map[string]any)
	if status["state"] != want || status["pipelineTaskName"] != "group" || !there || (len(failure) > 0) != (want == "FAILED") {
		t.Errorf("the exit task was told %v, want %s", status, want)
	}
}

// TestRecall: what ended before the daemon died is given to what comes after it,
// the passes of a loop that is half done among them.
func TestRecall(t *testing.T) {
	r := newRig(t, nil)
	r.world.open("free")
	name := r.submit("recall", nil)
	r.held(name, "each/1/say")
	r.await("all that can end", func() bool {
		tasks := r.tasks(name)
		return tasks["say"].Status.State.Terminal() && tasks["make"].Status.State.Terminal() && tasks["each/0"].Status.State.Terminal()
	})
	r.down()
	r.up()
	r.world.open("held")
	run := r.ended(name)
	r.outputs(run, map[string]string{"early": `"hello"`, "late": `"hello [\"free\",\"held\"]"`, "read": `"weights"`})
	if model := run.Status.OutputArtifacts["model"]; len(model) != 1 || r.artifactNamed(model[0]).Spec.Output != "model" {
		t.Errorf("artifacts: %v", run.Status.OutputArtifacts)
	}
	for path, n := range map[string]int{"say": 1, "make": 1, "each.0.say": 1, "each.1.say": 1, "echo": 1} {
		if got := r.world.began(path); got != n {
			t.Errorf("%s was executed %d times", path, got)
		}
	}
}
