package pipeline

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/scheduler"
	"github.com/skiff-ml/skiff/store"
)

func TestCancelWhileRunning(t *testing.T) {
	r := newRig(t, nil)
	name := r.submit("simple", with("do", "hold never"))
	r.held(name, "step")
	r.cancel(name)
	run := r.ended(name)
	r.states(run, skiff.StateCanceled, map[string]string{"step": "CANCELED", "after": "CANCELED"})
	if !r.world.wasStopped("step") || run.Status.Reason != reasonCancelled {
		t.Errorf("stopped: %v, reason %s", r.world.wasStopped("step"), run.Status.Reason)
	}
}

// TestCancelWhilePending: the node has no room, so the pod waits.
func TestCancelWhilePending(t *testing.T) {
	r := newRig(t, nil)
	r.down()
	r.podCfg.Node = scheduler.Node{CPUMilli: 100, MemoryBytes: 128 << 20} // for one pod that asks for nothing
	r.up()
	first := r.submit("simple", with("do", "hold gate"))
	r.held(first, "step")
	second := r.submit("simple", with("do", "hold gate"))
	r.await("a pod that waits", func() bool {
		pods := r.podsOf(second)
		return len(pods) == 1 && pods[0].Status.Phase == core.PodPending
	})
	r.cancel(second)
	r.states(r.ended(second), skiff.StateCanceled, map[string]string{"step": "CANCELED", "after": "CANCELED"})
	r.world.open("gate")
	r.states(r.ended(first), skiff.StateSucceeded, map[string]string{"step": "SUCCEEDED", "after": "SUCCEEDED"})
	if n := r.world.began("step"); n != 1 {
		t.Errorf("%d steps were executed", n)
	}
}

func TestCancelDuringBackOff(t *testing.T) {
	r := newRig(t, nil)
	name := r.submit("patient", with("do", "exit 1"))
	r.await("the back-off", func() bool {
		task := r.tasks(name)["flaky"]
		return task != nil && task.Status.Reason == "Retrying"
	})
	r.cancel(name)
	r.states(r.ended(name), skiff.StateCanceled, map[string]string{"flaky": "CANCELED"})
}

// TestCancelDuringBackOffWhileDown: the same, with nobody there when it is asked.
func TestCancelDuringBackOffWhileDown(t *testing.T) {
	r := newRig(t, nil)
	name := r.submit("patient", with("do", "exit 1"))
	r.await("the back-off", func() bool {
		task := r.tasks(name)["flaky"]
		return task != nil && task.Status.Reason == "Retrying"
	})
	r.down()
	r.cancel(name)
	r.up()
	r.states(r.ended(name), skiff.StateCanceled, map[string]string{"flaky": "CANCELED"})
}

func TestCancelInLoop(t *testing.T) {
	r := newRig(t, nil)
	name := r.submit("wide", func(sub *Submission) {
		with("items", make([]int, 200))(sub)
		with("do", "hold never")(sub)
	})
	r.held(name, "each/0/pass")
	r.held(name, "each/1/pass")
	r.cancel(name)
	r.states(r.ended(name), skiff.StateCanceled, map[string]string{
		"each": "CANCELED", "each/0": "CANCELED", "each/0/pass": "CANCELED", "each/1": "CANCELED", "each/1/pass": "CANCELED", "after": "CANCELED",
	})
	if len(r.world.order) != 2 {
		t.Errorf("%d passes were executed, want the 2 that ran already", len(r.world.order))
	}
}

func TestCancelWithExitHandler(t *testing.T) {
	r := newRig(t, nil)
	name := r.submit("exit_handler", with("do", "hold never"))
	r.held(name, "group/first")
	r.cancel(name)
	r.held(name, "exit") // it runs, although all else is stopped
	if state := r.run(name).Status.State; state != skiff.StateCanceling {
		t.Errorf("while its exit task runs, the run is %s", state)
	}
	r.world.open("exit")
	run := r.ended(name)
	r.states(run, skiff.StateCanceled, map[string]string{
		"group": "CANCELED", "group/first": "CANCELED", "group/second": "CANCELED", "exit": "SUCCEEDED", "later": "CANCELED",
	})
	checkStatus(t, r.tasks(name)["exit"], "CANCELED")
}

// TestCancelWithExitHandlerWhileDown: the daemon dies at each stage of a cancel.
func TestCancelWithExitHandlerWhileDown(t *testing.T) {
	for _, stage := range []string{"before it is asked", "after it is asked", "in the exit task"} {
		t.Run(stage, func(t *testing.T) {
			r := newRig(t, nil)
			name := r.submit("exit_handler", with("do", "hold never"))
			r.held(name, "group/first")
			switch stage {
			case "before it is asked":
				r.down()
				r.cancel(name)
				r.up()
			case "after it is asked":
				// Only the pipelines are down to see it through: the pod's
				// controller is asked to stop the pod and dies with them.
				r.cancel(name)
				r.await("the cancel", func() bool { return r.run(name).Status.State == skiff.StateCanceling })
				r.down()
				r.up()
			default:
				r.cancel(name)
				r.held(name, "exit")
				r.down()
				r.up()
			}
			r.held(name, "exit")
			r.world.open("exit")
			r.states(r.ended(name), skiff.StateCanceled, map[string]string{
				"group": "CANCELED", "group/first": "CANCELED", "group/second": "CANCELED", "exit": "SUCCEEDED", "later": "CANCELED",
			})
			if n := r.world.began("exit"); n != 1 {
				t.Errorf("the exit task was executed %d times", n)
			}
		})
	}
}

// TestCancelLoopWhileDown: passes that ran when the daemon died are stopped by
// the next, and no further one begins.
func TestCancelLoopWhileDown(t *testing.T) {
	r := newRig(t, nil)
	name := r.submit("wide", func(sub *Submission) {
		with("items", make([]int, 50))(sub)
		with("do", "hold never")(sub)
	})
	r.held(name, "each/0/pass")
	r.held(name, "each/1/pass")
	r.down()
	r.cancel(name)
	r.up()
	r.states(r.ended(name), skiff.StateCanceled, map[string]string{
		"each": "CANCELED", "each/0": "CANCELED", "each/0/pass": "CANCELED", "each/1": "CANCELED", "each/1/pass": "CANCELED", "after": "CANCELED",
	})
	if !r.world.wasStopped("each.0.pass") || !r.world.wasStopped("each.1.pass") {
		t.Error("the passes were not stopped")
	}
}

func TestDeadline(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("deadline", nil)
	r.states(run, skiff.StateFailed, map[string]string{"slow": "CANCELED", "after": "CANCELED"})
	if run.Status.Reason != reasonDeadline || !r.world.wasStopped("slow") {
		t.Errorf("reason %s, stopped: %v", run.Status.Reason, r.world.wasStopped("slow"))
	}
}

// TestCancelTogetherWithLaunch: a cancel that comes in the same breath as the
// event that makes a step's next pod stops that pod too.
func TestCancelTogetherWithLaunch(t *testing.T) {
	r := newRig(t, nil)
	name := r.submit("patient", with("do", "hold never"))
	r.held(name, "flaky")
	x := r.c.execution(space, name)
	x.events.mu.Lock()
	first := r.podsOf(name)[0]
	failed := *first
	failed.Status.Phase = core.PodFailed
	failed.Status.Skiff = &core.PodResult{Infrastructure: true}
	x.events.queue = append(x.events.queue, event{pod: &failed}, event{cancel: true})
	x.events.mu.Unlock()
	r.cancel(name)
	run := r.ended(name)
	if run.Status.State != skiff.StateCanceled || r.tasks(name)["flaky"].Status.State != skiff.StateCanceled {
		t.Errorf("run %s, task %s", run.Status.State, r.tasks(name)["flaky"].Status.State)
	}
	for _, p := range r.podsOf(name) {
		if p.Name != first.Name && !p.Status.Phase.Terminal() {
			t.Errorf("pod %s goes on", p.Name)
		}
	}
}

// TestPodDeleted: a step whose pod somebody deletes is begun again, at no cost to
// its retries.
func TestPodDeleted(t *testing.T) {
	for _, when := range []string{"while up", "while down", "while the events are lost"} {
		t.Run(when, func(t *testing.T) {
			r := newRig(t, nil)
			r.down()
			r.podCfg.Node = scheduler.Node{CPUMilli: 100, MemoryBytes: 128 << 20} // for one pod
			r.up()
			blocker := r.submit("simple", with("do", "hold gate"))
			r.held(blocker, "step")
			name := r.submit("simple", with("do", ""))
			r.await("a pod that waits", func() bool { return len(r.podsOf(name)) == 1 })
			gone := r.podsOf(name)[0]
			remove := store.Op{Verb: store.Delete, Key: store.Key{Kind: podsKind, Namespace: space, Name: gone.Name}}
			if when == "while down" {
				r.down()
			}
			x := r.c.execution(space, name)
			if when == "while the events are lost" {
				// As after the watch fell behind: only a look at the store tells. What
				// comes meanwhile goes to a mailbox that nobody opens; were there none,
				// an event of the run itself would begin a second execution.
				r.c.mu.Lock()
				r.c.active[space+"/"+name] = &execution{events: newMailbox(), retries: x.retries}
				r.c.mu.Unlock()
			}
			if _, err := r.store.Commit(context.Background(), remove); err != nil {
				t.Fatal(err)
			}
			switch when {
			case "while down":
				r.up()
			case "while the events are lost":
				r.c.mu.Lock()
				r.c.active[space+"/"+name] = x
				r.c.mu.Unlock()
				x.events.post(event{resync: true})
			}
			r.await("another pod", func() bool { return len(r.podsOf(name)) == 1 })
			r.world.open("gate")
			r.states(r.ended(name), skiff.StateSucceeded, map[string]string{"step": "SUCCEEDED", "after": "SUCCEEDED"})
			if pod := r.tasks(name)["step"].Status.Pod; pod == gone.Name {
				t.Errorf("the step's pod is still %s", pod)
			}
			r.ended(blocker)
		})
	}
}

// TestStaleEvents: a run that has ended is left alone, whatever the watch still
// says of its past.
func TestStaleEvents(t *testing.T) {
	r := newRig(t, nil)
	name := r.submit("simple", with("do", ""))
	past := r.run(name)
	ended := r.ended(name)
	if x := r.c.execution(space, name); x != nil { // it lets go after its last commit, which no event tells of
		select {
		case <-x.done:
		case <-time.After(patience):
			t.Fatal("the execution does not end with its run")
		}
	}
	r.dispatchAgain(past)
	other := r.finish("simple", with("do", "")) // comes after
	if other.Status.State != skiff.StateSucceeded {
		t.Errorf("another run: %s", other.Status.State)
	}
	if diff := cmp.Diff(ended, r.run(name)); diff != "" {
		t.Errorf("the ended run was written again:\n%s", diff)
	}
}
