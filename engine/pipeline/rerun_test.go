package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// retry asks for a run to be taken up again.
func (r *rig) retry(name string) {
	r.t.Helper()
	if err := r.c.Retry(context.Background(), space, name); err != nil {
		r.t.Fatalf("retry: %v", err)
	}
}

// retried asks for a run to be taken up again and waits for its end.
func (r *rig) retried(name string) *skiff.Run {
	r.t.Helper()
	r.retry(name)
	return r.ended(name)
}

// TestRetryOfARun: what failed is begun again, what never ran is run, and the
// request outlives a controller that dies right behind it.
func TestRetryOfARun(t *testing.T) {
	for _, when := range []string{"undisturbed", "killed at once", "killed while it runs"} {
		t.Run(when, func(t *testing.T) {
			r := newRig(t, nil)
			name := r.submit("simple", with("do", "until 1; hold gate"))
			r.states(r.ended(name), skiff.StateFailed, map[string]string{"step": "FAILED", "after": "SKIPPED"})
			r.retry(name)
			switch when {
			case "killed at once":
				r.down()
				r.up()
			case "killed while it runs":
				r.await("the second attempt", func() bool { return r.world.began("step") == 2 })
				r.down()
				r.up()
			}
			r.world.open("gate")
			run := r.ended(name)
			r.states(run, skiff.StateSucceeded, map[string]string{"step": "SUCCEEDED x2", "after": "SUCCEEDED"})
			if run.Spec.Retries != 1 {
				t.Errorf("the run counts %d retries", run.Spec.Retries)
			}
			if n := r.world.began("step"); n != 2 {
				t.Errorf("the step was executed %d times", n)
			}
			if n := r.world.began("after"); n != 1 {
				t.Errorf("the step after it was executed %d times", n)
			}
			if err := r.c.Retry(t.Context(), space, name); !errors.Is(err, store.ErrConflict) {
				t.Errorf("retry of a run that succeeded: %v", err)
			}
		})
	}
}

// againStates are the tasks of again.yaml where nothing fails, for one item.
func againStates() map[string]string {
	all := map[string]string{"never": "SKIPPED"}
	for _, path := range []string{
		"each", "each/0", "each/0/say", "each/0/end", "after", "outer", "outer/before", "outer/inner", "outer/inner/flaky", "outer/inner/on",
		"outer/beside", "outer/beside/flaky", "outer/beside/on", "choose", "choose/two", "choose/two/say", "anyway", "address", "import", "known",
	} {
		all[path] = "SUCCEEDED"
	}
	all["choose/one"] = "SKIPPED"
	return all
}

// but is a set of states with some changed.
func but(all map[string]string, changes ...string) map[string]string {
	changed := maps.Clone(all)
	for i := 0; i < len(changes); i += 2 {
		changed[changes[i]] = changes[i+1]
	}
	return changed
}

// TestRetryKeepsWhatSucceeded retries runs in which different things failed. In
// each, what is begun again is exactly what failed and what waited for it.
func TestRetryKeepsWhatSucceeded(t *testing.T) {
	loop := but(againStates(), "each/1", "SUCCEEDED", "each/1/say", "SUCCEEDED x2", "each/1/end", "SUCCEEDED", "each/2", "SUCCEEDED", "each/2/say", "SUCCEEDED", "each/2/end", "SUCCEEDED")
	for _, test := range []struct {
		name    string
		change  func(*Submission)
		first   map[string]string
		second  map[string]string
		outputs map[string]string
	}{
		{
			name: "passes of a loop", change: with("items", []string{"out out a", "until 1; out out b", "out out c"}),
			first:   but(loop, "each", "FAILED", "each/1", "FAILED", "each/1/say", "FAILED", "each/1/end", "SKIPPED", "after", "SKIPPED"),
			second:  loop,
			outputs: map[string]string{"chosen": `"chosen"`, "all": `["a","b","c"]`},
		},
		{
			name: "nested DAGs", change: with("nested", "until 1"),
			first:  but(againStates(), "outer", "FAILED", "outer/inner", "FAILED", "outer/inner/flaky", "FAILED", "outer/inner/on", "SKIPPED"),
			second: but(againStates(), "outer/inner/flaky", "SUCCEEDED x2"),
		},
		{
			name: "the branch that was taken", change: with("chosen", "until 1; out out late"),
			first:   but(againStates(), "choose", "FAILED", "choose/two", "FAILED", "choose/two/say", "FAILED"),
			second:  but(againStates(), "choose/two/say", "SUCCEEDED x2"),
			outputs: map[string]string{"chosen": `"late"`, "all": `["a"]`},
		},
		{
			name: "before an importer", change: with("address", "until 1; out out s3://bucket/data"),
			first:  but(againStates(), "address", "FAILED", "import", "SKIPPED"),
			second: but(againStates(), "address", "SUCCEEDED x2"),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, nil)
			run := r.finish("again", test.change)
			r.states(run, skiff.StateFailed, test.first)
			before, pods := r.tasks(run.Name), len(r.podsOf(run.Name))
			run = r.retried(run.Name)
			for path, task := range r.tasks(run.Name) {
				was := before[path]
				if was == nil || was.Status.State != skiff.StateSucceeded && was.Status.State != skiff.StateSkipped || test.first[path] != test.second[path] {
					continue
				}
				if diff := cmp.Diff(was.Status, task.Status); diff != "" {
					t.Errorf("%s was to be kept (-before +after):\n%s", path, diff)
				}
			}
			r.states(run, skiff.StateSucceeded, test.second)
			if test.outputs != nil {
				r.outputs(run, test.outputs)
			}
			further := 0
			for path, state := range test.second {
				if task := before[path]; (task == nil || task.Spec.Type == skiff.TaskContainer) && state != test.first[path] {
					further++
				}
			}
			if n := len(r.podsOf(run.Name)) - pods; n != further {
				t.Errorf("%d pods more, want %d", n, further)
			}
		})
	}
}

// TestRetryOfALoopTwice: each retry goes on where the one before it stopped.
func TestRetryOfALoopTwice(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("again", with("items", []string{"until 2; out out a", "until 1; out out b"}))
	run = r.retried(run.Name)
	want := but(againStates(), "each", "FAILED", "after", "SKIPPED",
		"each/0", "FAILED", "each/0/say", "FAILED x2", "each/0/end", "SKIPPED", "each/1", "SUCCEEDED", "each/1/say", "SUCCEEDED x2", "each/1/end", "SUCCEEDED")
	r.states(run, skiff.StateFailed, want)
	run = r.retried(run.Name)
	r.states(run, skiff.StateSucceeded, but(want, "each", "SUCCEEDED", "after", "SUCCEEDED", "each/0", "SUCCEEDED", "each/0/say", "SUCCEEDED x3", "each/0/end", "SUCCEEDED"))
	r.outputs(run, map[string]string{"chosen": `"chosen"`, "all": `["a","b"]`})
	if n := r.world.began("each.1.say"); n != 2 {
		t.Errorf("the pass that succeeded at the first retry was executed %d times", n)
	}
}

// TestRetryWithExitHandler: the exit task runs again whenever what it waited for
// does, and only then; told is what it was told the last time.
func TestRetryWithExitHandler(t *testing.T) {
	for _, test := range []struct{ name, do, exit, told string }{
		{"its group failed", "until 1", "SUCCEEDED x2", "COMPLETE"},
		{"its group fails again", "until 2", "SUCCEEDED x2", "FAILED"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.world.open("exit")
			run := r.finish("exit_handler", with("do", test.do))
			r.states(run, skiff.StateFailed, map[string]string{
				"group": "FAILED", "group/first": "FAILED", "group/second": "SKIPPED", "exit": "SUCCEEDED", "later": "SKIPPED",
			})
			run = r.retried(run.Name)
			want, state := map[string]string{
				"group": "SUCCEEDED", "group/first": "SUCCEEDED x2", "group/second": "SUCCEEDED", "exit": test.exit, "later": "SUCCEEDED",
			}, skiff.StateSucceeded
			if test.told == "FAILED" {
				want, state = but(want, "group", "FAILED", "group/first", "FAILED x2", "group/second", "SKIPPED", "later", "SKIPPED"), skiff.StateFailed
			}
			r.states(run, state, want)
			checkStatus(t, r.tasks(run.Name)["exit"], test.told)
		})
	}
	t.Run("it alone failed", func(t *testing.T) {
		r := newRig(t, nil)
		r.world.open("exit")
		run := r.finish("exit_handler", func(sub *Submission) {
			with("do", "")(sub)
			sub.Package = []byte(strings.Replace(string(sub.Package), "hold exit", "until 1", 1))
		})
		kept := map[string]string{"group": "SUCCEEDED", "group/first": "SUCCEEDED", "group/second": "SUCCEEDED", "exit": "FAILED", "later": "SUCCEEDED"}
		r.states(run, skiff.StateFailed, kept)
		r.states(r.retried(run.Name), skiff.StateSucceeded, but(kept, "exit", "SUCCEEDED x2"))
	})
	t.Run("the run was cancelled", func(t *testing.T) {
		r := newRig(t, nil)
		r.world.open("exit")
		name := r.submit("exit_handler", with("do", "hold gate"))
		r.held(name, "group/first")
		r.cancel(name)
		r.ended(name)
		r.world.open("gate")
		run := r.retried(name)
		r.states(run, skiff.StateSucceeded, map[string]string{
			"group": "SUCCEEDED", "group/first": "SUCCEEDED x2", "group/second": "SUCCEEDED", "exit": "SUCCEEDED x2", "later": "SUCCEEDED",
		})
		checkStatus(t, r.tasks(name)["exit"], "COMPLETE")
	})
}

// TestRetryRenewsPolicy: what the attempts before a retry used up of a policy
// does not count any more.
func TestRetryRenewsPolicy(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("retry", with("do", "until 4; env out "+retryIndex))
	r.states(run, skiff.StateFailed, map[string]string{"flaky": "FAILED x3"})
	run = r.retried(run.Name)
	r.states(run, skiff.StateSucceeded, map[string]string{"flaky": "SUCCEEDED x5"})
	r.outputs(run, map[string]string{"out": `"4"`})
}

// TestRetryOfDAGWithPolicy: a sub-pipeline and a loop with policies go on with
// their last round, and have all of their further rounds again.
func TestRetryOfDAGWithPolicy(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("retry_dag", func(sub *Submission) {
		with("do", "until 1")(sub)
		with("loop", "exit 1")(sub)
	})
	want := map[string]string{"part": "FAILED x3", "each": "FAILED x2"}
	for i := 1; i <= 4; i++ {
		round := ""
		if i > 1 {
			round = fmt.Sprintf("~%d", i)
		}
		if i < 4 {
			want["part"+round+"/before"], want["part"+round+"/flaky"] = "SUCCEEDED", "FAILED"
		}
		for j := range 2 {
			if i < 3 {
				want[fmt.Sprintf("each%s/%d", round, j)], want[fmt.Sprintf("each%s/%d/pass", round, j)] = "FAILED", "FAILED"
			}
		}
	}
	r.states(run, skiff.StateFailed, want)
	run = r.retried(run.Name)
	// The loop: its second round goes on, then there is one round more.
	want = but(want, "part", "SUCCEEDED x3", "part~3/flaky", "SUCCEEDED x2", "each", "FAILED x3")
	for j := range 2 {
		want[fmt.Sprintf("each~2/%d/pass", j)] = "FAILED x2"
		want[fmt.Sprintf("each~3/%d", j)], want[fmt.Sprintf("each~3/%d/pass", j)] = "FAILED", "FAILED"
	}
	r.states(run, skiff.StateFailed, want)
	if n := r.world.began(labelValue("part~3/before")); n != 1 {
		t.Errorf("what had succeeded in the last round was executed %d times", n)
	}
}

// TestRetryKeepsImports: an import that is kept keeps its artifact, one that is
// made again makes another.
func TestRetryKeepsImports(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("again", with("address", "until 1; out out s3://bucket/data"))
	known := r.tasks(run.Name)["known"].Status.OutputArtifacts
	run = r.retried(run.Name)
	tasks := r.tasks(run.Name)
	if diff := cmp.Diff(known, tasks["known"].Status.OutputArtifacts); diff != "" {
		t.Errorf("what was imported before (-before +after):\n%s", diff)
	}
	names := tasks["import"].Status.OutputArtifacts["artifact"]
	if len(names) != 1 || r.artifactNamed(names[0]).Spec.URI != "s3://bucket/data" {
		t.Errorf("what was imported after the retry: %v", names)
	}
}

// followed says whether the controller will begin another execution after x.
func (r *rig) followed(x *execution) bool {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	return x.followed
}

// TestRetryWhileTheOldLingers: an execution that still has work outside when its
// run is retried writes nothing of it, and the next begins when it has gone.
func TestRetryWhileTheOldLingers(t *testing.T) {
	for _, late := range []string{"says nothing more", "has something to write"} {
		t.Run("the old one "+late, func(t *testing.T) {
			r := newRig(t, nil)
			name := r.submit("simple", with("do", "hold gate; until 1"))
			r.held(name, "step")
			x := r.c.execution(space, name)
			x.events.post(event{then: func() { x.busy += 2 }}) // one of them for this event itself
			r.world.open("gate")
			r.ended(name)
			r.retry(name)
			select {
			case <-x.done:
				t.Fatal("it does not linger")
			default:
			}
			// The store has nothing to tell of that moment, so it is asked for.
			for begin := time.Now(); !r.followed(x); time.Sleep(time.Millisecond) {
				if time.Since(begin) > patience {
					t.Fatal("the controller does not hear of the retry")
				}
			}
			x.events.post(event{then: func() {
				x.runDirty = late != "says nothing more"
				x.run.Status.Message = "from before the retry"
			}})
			select {
			case <-x.done:
			case <-time.After(patience):
				t.Fatal("the old execution does not end")
			}
			run := r.ended(name)
			r.states(run, skiff.StateSucceeded, map[string]string{"step": "SUCCEEDED x2", "after": "SUCCEEDED"})
			if run.Status.Message != "" {
				t.Errorf("the old execution wrote %q", run.Status.Message)
			}
		})
	}
}
