package pipeline

import (
	"fmt"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
)

func TestRetry(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("retry", with("do", "until 2; env out "+retryIndex))
	r.states(run, skiff.StateSucceeded, map[string]string{"flaky": "SUCCEEDED x3"})
	r.outputs(run, map[string]string{"out": `"2"`})
	task := r.tasks(run.Name)["flaky"]
	if took := task.Status.FinishedAt.Sub(task.Status.StartedAt); took < 100*time.Millisecond {
		t.Errorf("two back-offs of 50 ms are over after %s", took)
	}
	if !task.Status.RetryAt.IsZero() {
		t.Errorf("a finished task is still to be tried again, at %s", task.Status.RetryAt)
	}
	if pods := r.podsOf(run.Name); len(pods) != 3 {
		t.Errorf("%d pods for 3 attempts", len(pods))
	}
}

func TestRetriesUsedUp(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("retry", with("do", "exit 7"))
	r.states(run, skiff.StateFailed, map[string]string{"flaky": "FAILED x3"})
	if n := r.world.began("flaky"); n != 3 {
		t.Errorf("executed %d times, want once and twice more", n)
	}
}

// TestRetryAcrossRestart: a back-off goes on where it was, and what is known of
// a failed pod is counted once however often it is told.
func TestRetryAcrossRestart(t *testing.T) {
	r := newRig(t, nil)
	name := r.submit("retry", with("do", "until 2; env out "+retryIndex))
	for range 3 {
		r.down()
		r.up()
	}
	run := r.ended(name)
	r.states(run, skiff.StateSucceeded, map[string]string{"flaky": "SUCCEEDED x3"})
	r.outputs(run, map[string]string{"out": `"2"`})
}

// TestFailureToldTwice: the events of a pod that has ended come again, from the
// watch after a start, from its own cleaning up, from someone who labels it.
func TestFailureToldTwice(t *testing.T) {
	r := newRig(t, nil)
	name := r.submit("patient", with("do", "exit 1"))
	r.await("the back-off", func() bool {
		task := r.tasks(name)["flaky"]
		return task != nil && task.Status.Reason == "Retrying"
	})
	first := r.tasks(name)["flaky"]
	x := r.c.execution(space, name)
	told := make(chan int, 1)
	for range 3 {
		x.events.post(event{pod: r.podsOf(name)[0]})
	}
	x.events.post(event{resync: true})
	// Events are taken in order, so this one sees what those did.
	x.events.post(event{then: func() {
		x.busy++ // it is not work that was counted
		told <- x.busy
	}})
	if busy := <-told; busy != 1 {
		t.Errorf("%d back-offs are under way, want 1", busy)
	}
	if again := r.tasks(name)["flaky"]; !again.Status.RetryAt.Equal(first.Status.RetryAt) {
		t.Errorf("the next attempt was moved from %s to %s", first.Status.RetryAt, again.Status.RetryAt)
	}
	r.cancel(name)
	r.states(r.ended(name), skiff.StateCanceled, map[string]string{"flaky": "CANCELED"})
}

// TestInfrastructureLoss: what the machine lost is begun again at no cost to the
// retries, under a pod and a folder of its own.
func TestInfrastructureLoss(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("retry", with("do", "lose 2; until 2; env out "+retryIndex))
	r.states(run, skiff.StateSucceeded, map[string]string{"flaky": "SUCCEEDED x3"})
	r.outputs(run, map[string]string{"out": `"2"`})
	if n := r.world.began("flaky"); n != 9 {
		t.Errorf("executed %d times, want 3 attempts that are lost twice each", n)
	}
	restarts := map[int]int{}
	for _, p := range r.podsOf(run.Name) {
		restarts[p.Spec.Skiff.InfrastructureRetries]++
	}
	if restarts[0] != 3 || restarts[1] != 3 || restarts[2] != 3 {
		t.Errorf("pods by restarts: %v", restarts)
	}
}

func TestInfrastructureLossBounded(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("retry", with("do", "lose 1000"))
	r.states(run, skiff.StateFailed, map[string]string{"flaky": "FAILED"})
	if n := r.world.began("flaky"); n != maxRestarts+1 {
		t.Errorf("executed %d times, want %d", n, maxRestarts+1)
	}
	if reason := r.tasks(run.Name)["flaky"].Status.Reason; reason != "InfrastructureFault" {
		t.Errorf("reason %s", reason)
	}
}

func TestRetryOfDAG(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("retry_dag", func(sub *Submission) {
		with("do", "exit 1")(sub)
		with("loop", "exit 1")(sub)
	})
	want := map[string]string{"part": "FAILED x3", "each": "FAILED x2"}
	for i := 1; i <= 3; i++ {
		round := ""
		if i > 1 {
			round = fmt.Sprintf("~%d", i)
		}
		want["part"+round+"/before"], want["part"+round+"/flaky"] = "SUCCEEDED", "FAILED"
		for j := range 2 {
			if i < 3 {
				want[fmt.Sprintf("each%s/%d", round, j)] = "FAILED"
				want[fmt.Sprintf("each%s/%d/pass", round, j)] = "FAILED"
			}
		}
	}
	r.states(run, skiff.StateFailed, want)
	for _, p := range r.podsOf(run.Name) {
		if p.Labels[core.LabelRun] != run.Name {
			t.Errorf("pod %s has labels %v", p.Name, p.Labels)
		}
	}
}

// TestBackOffOfDAG: the back-off of a sub-pipeline and that of a loop are kept,
// whatever ended how often in the same moment, and over a restart.
func TestBackOffOfDAG(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			r := newRig(t, nil)
			name := r.submit("patient_dag", nil)
			waiting := func() bool {
				tasks := r.tasks(name)
				return tasks["part"] != nil && !tasks["part"].Status.RetryAt.IsZero() && !tasks["each"].Status.RetryAt.IsZero()
			}
			r.await("the back-offs", waiting)
			if restart {
				r.down()
				r.up()
			}
			// A step beside them ends after whatever was begun in haste.
			r.held(name, "beside")
			r.world.open("gate")
			r.await("the step beside", func() bool { return r.tasks(name)["beside"].Status.State == skiff.StateSucceeded })
			if !waiting() {
				t.Error("the back-off is over")
			}
			r.cancel(name)
			r.states(r.ended(name), skiff.StateCanceled, map[string]string{
				"part": "CANCELED x2", "part/bad": "FAILED", "each": "CANCELED x2", "each/0": "FAILED", "each/1": "FAILED", "beside": "SUCCEEDED",
			})
		})
	}
}
