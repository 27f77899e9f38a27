package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// resume goes on from a run and waits for the end.
func (r *rig) resume(from string, changes ...func(*Submission)) *skiff.Run {
	r.t.Helper()
	sub := Submission{Namespace: space, Resume: &skiff.Resume{Run: from}}
	for _, change := range changes {
		change(&sub)
	}
	run, err := r.c.Submit(context.Background(), sub)
	if err != nil {
		r.t.Fatalf("resume %s: %v", from, err)
	}
	return r.ended(run.Name)
}

// fromTask has tasks run again.
func fromTask(names ...string) func(*Submission) {
	return func(sub *Submission) { sub.Resume.From = names }
}

// edited gives a pipeline of testdata with changes in its text.
func edited(t tb, name string, changes ...string) func(*Submission) {
	return func(sub *Submission) {
		text := string(source(t, name))
		for i := 0; i < len(changes); i += 2 {
			if !strings.Contains(text, changes[i]) {
				t.Fatalf("%s has no %q", name, changes[i])
			}
			text = strings.Replace(text, changes[i], changes[i+1], 1)
		}
		sub.Filename, sub.Package = name+".yaml", []byte(text)
	}
}

// ran are the paths of the steps of a run that were executed.
func (r *rig) ran(run string) []string {
	r.t.Helper()
	var paths []string
	for path, task := range r.tasks(run) {
		if task.Status.Pod != "" {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// reasons are what a run notes of the reuse of its steps, by path.
func (r *rig) reasons(run string) map[string]string {
	r.t.Helper()
	all := map[string]string{}
	for path, task := range r.tasks(run) {
		if task.Status.Reuse != nil && task.Status.Reuse.Reason != "" {
			all[path] = task.Status.Reuse.Reason
		}
	}
	return all
}

// TestResume goes on from runs of one pipeline with one thing changed, and looks
// at what was executed. No task of it may be cached.
func TestResume(t *testing.T) {
	two := with("items", []string{"out out a", "out out b"})
	failed := with("nested", "exit 1")
	for _, test := range []struct {
		name string
		// first makes the run that is gone on from, change is made to the next.
		first  func(*Submission)
		change func(*Submission)
		ran    []string
		// why holds parts of reasons, by path.
		why map[string]string
	}{
		{name: "nothing", why: map[string]string{"after": "taken over from run RUN: unchanged", "import": "taken over from run RUN: unchanged"}},
		{name: "a parameter", change: with("chosen", "out out other"), ran: []string{"choose/two/say"},
			why: map[string]string{"choose/two/say": `run again: parameter do differs from run RUN's ("out out other", there "out out chosen")`}},
		{name: "an item in front", first: two, change: with("items", []string{"out out x", "out out a", "out out b"}),
			ran: []string{"after", "each/0/end", "each/0/say"},
			why: map[string]string{
				"each/1/say": "taken over from each/0/say of run RUN: the same step", "each/2/say": "taken over from each/1/say of run RUN",
				"each/1/end": "taken over", "after": "run again: it comes after each, which was run again",
			}},
		{name: "an item less", first: two, change: with("items", []string{"out out b"})},
		{name: "what an importer reads", change: with("address", "out out s3://bucket/other"), ran: []string{"address"},
			why: map[string]string{"import": "run again: what it imports differs from run RUN's", "known": "taken over"}},
		{name: "a value that comes out as it was", change: with("address", "out out s3://bucket/data; out more x"), ran: []string{"address"},
			why: map[string]string{"import": "taken over from run RUN: unchanged"}},
		{name: "a step of the file", change: edited(t, "again", `beside: {taskInfo: {name: beside}, componentRef: {name: comp-inner}, inputs: {parameters: {do: {runtimeValue: {constant: ""}}}}}`,
			`beside: {taskInfo: {name: beside}, componentRef: {name: comp-inner}, inputs: {parameters: {do: {runtimeValue: {constant: "exit 0"}}}}}`),
			ran: []string{"outer/beside/flaky", "outer/beside/on"},
			why: map[string]string{"outer/beside/on": "run again: it comes after outer/beside/flaky, which was run again"}},
		{name: "a new task of the file", change: edited(t, "again", "      known: {", `      new: {taskInfo: {name: new}, componentRef: {name: comp-do}, inputs: {parameters: {do: {runtimeValue: {constant: ""}}}}}
      known: {`), ran: []string{"new"}, why: map[string]string{"new": "run again: run RUN has no such task"}},
		{name: "the command of the file", change: edited(t, "again", `exec-do: {container: {image: step, command: [do]`, `exec-do: {container: {image: step, command: [does]`),
			ran: []string{"address", "after", "anyway", "choose/two/say", "each/0/end", "each/0/say", "outer/before", "outer/beside/flaky", "outer/beside/on", "outer/inner/flaky", "outer/inner/on"},
			why: map[string]string{"address": "run again: command differs from run RUN's", "import": "taken over"}},
		{name: "the image of the file", change: edited(t, "again", `exec-do: {container: {image: step`, `exec-do: {container: {image: pace`),
			ran: []string{"address", "after", "anyway", "choose/two/say", "each/0/end", "each/0/say", "outer/before", "outer/beside/flaky", "outer/beside/on", "outer/inner/flaky", "outer/inner/on"},
			why: map[string]string{"address": "run again: image differs from run RUN's (pace, there step)"}},
		{name: "more memory", change: edited(t, "again", `exec-do: {container: {image: step`, `exec-do: {container: {resources: {resourceMemoryLimit: 1Gi}, image: step`)},
		{name: "from a task", change: fromTask("outer/before"), ran: []string{"outer/before", "outer/inner/flaky", "outer/inner/on"},
			why: map[string]string{"outer/before": "run again: it was asked for", "outer/inner/on": "run again: it was asked for", "outer/beside/on": "taken over"}},
		{name: "from a key", change: fromTask("address"), ran: []string{"address"}, why: map[string]string{"import": "run again: it was asked for"}},
		{name: "from a DAG", change: fromTask("choose"), ran: []string{"choose/two/say"}},
		{name: "from a task in every pass", first: two, change: fromTask("each/say"), ran: []string{"after", "each/0/end", "each/0/say", "each/1/end", "each/1/say"}},
		{name: "from a task of one pass", first: two, change: fromTask("each/1/say"), ran: []string{"after", "each/1/end", "each/1/say"}},
		{name: "a run that failed", first: failed, change: with("nested", ""), ran: []string{"outer/inner/flaky", "outer/inner/on"},
			why: map[string]string{"outer/inner/flaky": "run again: in run RUN it is FAILED", "outer/inner/on": "run again: it comes after outer/inner/flaky"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			first := r.finish("again", test.first)
			var changes []func(*Submission)
			if test.change != nil {
				changes = append(changes, test.change)
			}
			second := r.resume(first.Name, changes...)
			if second.Status.State != skiff.StateSucceeded {
				t.Fatalf("the run is %s: %s", second.Status.State, second.Status.Message)
			}
			if second.Spec.ResumedFrom == nil || second.Spec.ResumedFrom.Run != first.Name {
				t.Errorf("resumed from %+v", second.Spec.ResumedFrom)
			}
			if diff := cmp.Diff(test.ran, r.ran(second.Name)); diff != "" {
				t.Errorf("executed (-want +got):\n%s", diff)
			}
			reasons := r.reasons(second.Name)
			for path, part := range test.why {
				if part = strings.ReplaceAll(part, "RUN", first.Name); !strings.Contains(reasons[path], part) {
					t.Errorf("%s: %q\nwant %q", path, reasons[path], part)
				}
			}
			before := r.tasks(first.Name)
			for path, task := range r.tasks(second.Name) {
				reuse := task.Status.Reuse
				if reuse == nil || reuse.From == "" || task.Spec.Type == skiff.TaskImporter {
					continue
				}
				if !slices.ContainsFunc(slices.Collect(maps.Values(before)), func(old *skiff.Task) bool { return old.Name == reuse.From }) || !task.Status.Cached || task.Status.CachedFrom != reuse.From {
					t.Errorf("%s: cached %v from %s, taken over from %q", path, task.Status.Cached, task.Status.CachedFrom, reuse.From)
				}
			}
		})
	}
}

// TestResumeInAnyState: it does not matter how the run ended, nor where it was
// put; nor that caching is off.
func TestResumeInAnyState(t *testing.T) {
	for _, state := range []string{"cancelled", "archived", "retried", "resumed", "without caching"} {
		t.Run(state, func(t *testing.T) {
			r := newRig(t, nil)
			var first string
			var want []string
			switch state {
			case "cancelled":
				first = r.submit("simple", with("do", "hold gate"))
				r.held(first, "step")
				r.cancel(first)
				r.ended(first)
				want = []string{"after", "step"}
			case "retried":
				first = r.finish("simple", with("do", "until 1")).Name
				r.retried(first)
			default:
				first = r.finish("simple", with("do", "")).Name
			}
			off := func(*Submission) {}
			switch state {
			case "archived":
				if _, err := store.ModifyAs(t.Context(), r.store, store.Key{Kind: Runs, Namespace: space, Name: first}, func(run *skiff.Run) error {
					run.Spec.Archived = true
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			case "resumed":
				first = r.resume(first, fromTask("after")).Name
			case "without caching":
				off = func(sub *Submission) { sub.DisableCache = true }
			}
			r.world.open("gate")
			run := r.resume(first, off)
			r.states(run, skiff.StateSucceeded, map[string]string{"step": "SUCCEEDED", "after": "SUCCEEDED"})
			if diff := cmp.Diff(want, r.ran(run.Name)); diff != "" {
				t.Errorf("executed (-want +got):\n%s", diff)
			}
			if state == "resumed" {
				// The lineage leads to who ran.
				if from := r.tasks(run.Name)["step"].Status.CachedFrom; from == r.tasks(first)["step"].Name || from == "" {
					t.Errorf("step is taken from %s", from)
				}
			}
		})
	}
}

// TestResumeAfterRounds: of a sub-pipeline that was begun again the last round is
// what counts.
func TestResumeAfterRounds(t *testing.T) {
	r := newRig(t, nil)
	first := r.finish("retry_dag", func(sub *Submission) {
		with("do", "exit 1")(sub)
		with("loop", "")(sub)
	})
	second := r.resume(first.Name, with("do", ""))
	if second.Status.State != skiff.StateSucceeded {
		t.Fatalf("the run is %s", second.Status.State)
	}
	if diff := cmp.Diff([]string{"part/flaky"}, r.ran(second.Name)); diff != "" {
		t.Errorf("executed (-want +got):\n%s", diff)
	}
	if from, want := r.tasks(second.Name)["part/before"].Status.Reuse.From, r.tasks(first.Name)["part~3/before"].Name; from != want {
		t.Errorf("part/before is from %s, want %s", from, want)
	}
}

// TestResumeWithArtifacts: contents decide, an artifact that is gone is made
// again, and what was asked for is not had from the cache.
func TestResumeWithArtifacts(t *testing.T) {
	r := newRig(t, nil)
	first := r.finish("cached", with("text", "weights"))
	all := r.resume(first.Name)
	r.outputs(all, map[string]string{"out": `"weights"`})
	if ran := r.ran(all.Name); len(ran) > 0 {
		t.Errorf("executed %v", ran)
	}
	if diff := cmp.Diff(first.Status.OutputArtifacts, all.Status.OutputArtifacts); diff != "" {
		t.Errorf("artifacts (-first +resumed):\n%s", diff)
	}
	same := r.resume(first.Name, edited(t, "cached", `"write {{$.outputs.artifacts['model'].path}} {{$.inputs.parameters['text']}}"`, `"write {{$.outputs.artifacts['model'].path}} weights"`))
	if diff := cmp.Diff([]string{"make"}, r.ran(same.Name)); diff != "" {
		t.Errorf("with a maker that comes to the same, executed (-want +got):\n%s", diff)
	}
	forced := r.resume(first.Name, fromTask("make"))
	if diff := cmp.Diff([]string{"make", "read"}, r.ran(forced.Name)); diff != "" {
		t.Errorf("from the maker on, executed (-want +got):\n%s", diff)
	}
	if reason := r.tasks(forced.Name)["read"].Status.CacheReason; !strings.Contains(reason, "asked to be run again") {
		t.Errorf("the cache says %q", reason)
	}
	model := r.artifactNamed(first.Status.OutputArtifacts["model"][0])
	at, err := r.repository.Locate(space, model.Spec.URI)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(at.HostPath); err != nil {
		t.Fatal(err)
	}
	gone := r.resume(first.Name, func(sub *Submission) { sub.DisableCache = true })
	if diff := cmp.Diff([]string{"make"}, r.ran(gone.Name)); diff != "" {
		t.Errorf("without the artifact, executed (-want +got):\n%s", diff)
	}
	if reason := r.reasons(gone.Name)["make"]; reason != "run again: artifact model is no longer at "+model.Spec.URI {
		t.Errorf("make: %s", reason)
	}
}

// TestResumeRunsExitTasks: an exit task runs again with what it waited for, and
// is taken over with it.
func TestResumeRunsExitTasks(t *testing.T) {
	r := newRig(t, nil)
	r.world.open("exit")
	cleanup := edited(t, "exit_handler", `inputs: {parameters: {status: {taskFinalStatus: {producerTask: group}}}}`, `inputs: {}`,
		"out status {{$.inputs.parameters['status']}}", "out status {}")
	first := r.finish("exit_handler", func(sub *Submission) { cleanup(sub); with("do", "exit 1")(sub) })
	second := r.resume(first.Name, with("do", ""))
	if diff := cmp.Diff([]string{"exit", "group/first", "group/second", "later"}, r.ran(second.Name)); diff != "" {
		t.Errorf("executed (-want +got):\n%s", diff)
	}
	if third := r.resume(second.Name); len(r.ran(third.Name)) != 0 {
		t.Errorf("with nothing changed, executed %v", r.ran(third.Name))
	}
}

// TestResumeRefused: what cannot be gone on from is said at the door.
func TestResumeRefused(t *testing.T) {
	r := newRig(t, nil)
	ended := r.finish("again", nil).Name
	running := r.submit("simple", with("do", "hold gate"))
	r.held(running, "step")
	stranger := r.finish("again", nil).Name
	_, err := store.ModifyAs(t.Context(), r.store, store.Key{Kind: Runs, Namespace: space, Name: stranger}, func(run *skiff.Run) error {
		run.Status.Imported = &skiff.RunImport{}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		sub  Submission
		want string
	}{
		{"no such run", Submission{Resume: &skiff.Resume{Run: "nope"}}, `resume: there is no run "nope" in namespace default (skiff get runs lists them)`},
		{"a run that runs", Submission{Resume: &skiff.Resume{Run: running}}, "resume: run " + running + " is still RUNNING (wait for its end, or cancel it first: skiff cancel " + running + ")"},
		{"an imported run", Submission{Resume: &skiff.Resume{Run: stranger}}, "resume: run " + stranger + " was imported; what came of its steps is not taken for results of steps here (skiff reproduce " + stranger + " runs all of it again)"},
		{"an unknown task", Submission{Resume: &skiff.Resume{Run: ended, From: []string{"adddress"}}}, `from: the pipeline has no task "adddress" (did you mean "address"?)`},
		{"an unknown path", Submission{Resume: &skiff.Resume{Run: ended, From: []string{"outer/befor"}}}, `from: the pipeline has no task "outer/befor" (did you mean "outer/before"?)`},
		{"a key of many", Submission{Resume: &skiff.Resume{Run: ended, From: []string{"flaky"}}}, `the pipeline has 2 tasks called "flaky" (say which: outer/beside/flaky, outer/inner/flaky)`},
		{"a parameter that is none", Submission{Resume: &skiff.Resume{Run: ended}, Arguments: map[string]string{"nest": "x"}}, `the pipeline has no such input (did you mean "nested"?)`},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.sub.Namespace = space
			_, err := r.c.Submit(t.Context(), test.sub)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v\nwant %s", err, test.want)
			}
		})
	}
	r.world.open("gate")
	r.ended(running)
}

// TestResumeKeepsSettings: what is left out is as it was.
func TestResumeKeepsSettings(t *testing.T) {
	r := newRig(t, nil)
	first := r.finish("again", func(sub *Submission) {
		with("items", []string{"out out a", "out out b"})(sub)
		with("chosen", "out out x")(sub)
		sub.PipelineRoot = "minio://mlpipeline/elsewhere"
	})
	second := r.resume(first.Name, with("chosen", "out out y"))
	r.outputs(second, map[string]string{"chosen": `"y"`, "all": `["a","b"]`})
	if second.Spec.PipelineRoot != first.Spec.PipelineRoot || second.Spec.Manifest != first.Spec.Manifest {
		t.Errorf("root %s, manifest %s", second.Spec.PipelineRoot, second.Spec.Manifest)
	}
	// An input that the file does not have any more is dropped.
	third := r.resume(second.Name, edited(t, "again", `      chosen: {parameterType: STRING, defaultValue: "out out chosen"}
`, "", "do: {componentInputParameter: chosen}", `do: {runtimeValue: {constant: "out out z"}}`))
	r.outputs(third, map[string]string{"chosen": `"z"`, "all": `["a","b"]`})
	if diff := cmp.Diff([]string{"choose/two/say"}, r.ran(third.Name)); diff != "" {
		t.Errorf("executed (-want +got):\n%s", diff)
	}
}

// TestResumedAnywhere resumes drawn pipelines with the daemon dying at any
// moment. It ends as the first run did; what the rule of a retry would keep is
// not executed, and what is asked for is.
func TestResumedAnywhere(t *testing.T) {
	drawn(t, 3*time.Second, func(r *rig, t *rapid.T, source []byte) {
		spec := r.loadDrawn(source)
		first := r.endDrawn(Submission{Package: source})
		resume := &skiff.Resume{Run: first.Name}
		if rapid.Bool().Draw(t, "from") {
			resume.From = []string{rapid.SampledFrom(places(spec)).Draw(t, "from task")}
		}
		run := r.submitDrawn(Submission{Resume: resume})
		r.suffer(run.Name, drawTroubles(t))
		r.world.open(run.Name + "/late")
		second := r.ended(run.Name)
		before, after := r.tasks(first.Name), r.tasks(second.Name)
		if diff := cmp.Diff(outcomes(first, before), outcomes(second, after)); diff != "" {
			t.Fatalf("first and resumed from %v (-, +):\n%s\n%s", resume.From, diff, source)
		}
		kept := toKeep(spec, before)
		for path, task := range after {
			if task.Spec.Type != skiff.TaskContainer {
				continue
			}
			ran := task.Status.Pod != ""
			reuse := task.Status.Reuse
			if len(resume.From) == 0 && ran && kept[path] {
				t.Fatalf("%s was executed: %+v\n%s", path, reuse, source)
			}
			if len(resume.From) == 1 && within(resume.From[0], path) && task.Status.State == skiff.StateSucceeded && !ran {
				t.Fatalf("%s was to be executed: %+v\n%s", path, reuse, source)
			}
			if reuse != nil && reuse.From != "" && ran {
				t.Fatalf("%s was executed and taken over: %+v", path, reuse)
			}
		}
	})
}

// TestResumedWithAnEdit changes what one drawn step says and goes on from a run of
// before: it comes out as a run of its own of the edited pipeline does.
func TestResumedWithAnEdit(t *testing.T) {
	drawn(t, 3*time.Second, func(r *rig, t *rapid.T, source []byte) {
		first := r.endDrawn(Submission{Package: source})
		edited := renamed(t, source)
		fresh := r.endDrawn(Submission{Package: edited})
		resumed := r.endDrawn(Submission{Package: edited, Resume: &skiff.Resume{Run: first.Name}})
		r.idle(resumed.Name)
		if diff := cmp.Diff(outcomes(fresh, r.tasks(fresh.Name)), outcomes(resumed, r.tasks(resumed.Name))); diff != "" {
			t.Fatalf("by itself and resumed (-, +):\n%s\n%s", diff, edited)
		}
	})
}

// renamed is a drawn package in which one step says something else.
func renamed(t *rapid.T, source []byte) []byte {
	var tree any
	if err := json.Unmarshal(source, &tree); err != nil {
		t.Fatalf("read the package: %v", err)
	}
	var names []object
	var walk func(any)
	walk = func(tree any) {
		switch tree := tree.(type) {
		case []any:
			for _, item := range tree {
				walk(item)
			}
		case object:
			if inputs, ok := tree["parameters"].(object); ok {
				if name, ok := inputs["name"].(object); ok && name["runtimeValue"] != nil {
					names = append(names, name["runtimeValue"].(object))
				}
			}
			for _, key := range sortedKeys(tree) {
				walk(tree[key])
			}
		}
	}
	walk(tree)
	if len(names) == 0 {
		return source
	}
	names[rapid.IntRange(0, len(names)-1).Draw(t, "edited step")]["constant"] = "edited"
	changed, err := json.Marshal(tree)
	if err != nil {
		t.Fatalf("write the package: %v", err)
	}
	return changed
}

// within says whether a task is the named one, or below it.
func within(name, path string) bool {
	place := indexless(path)
	return place == name || strings.HasPrefix(place, name+"/")
}

// outcomes are the states and outputs of a run's tasks in their last rounds.
func outcomes(run *skiff.Run, tasks map[string]*skiff.Task) map[string]string {
	all := map[string]string{"": fmt.Sprintf("%s %s", run.Status.State, run.Status.Outputs)}
	for path, task := range tasks {
		if !strings.Contains(path, "~") {
			all[path] = fmt.Sprintf("%s %s", task.Status.State, task.Status.Outputs)
		}
	}
	return all
}

// TestPaths: what people call a task, and what that means in a run.
func TestPaths(t *testing.T) {
	for _, test := range []struct {
		name, path string
		want       bool
	}{
		{"train", "train", true},
		{"each/train", "each/0/train", true},
		{"each/0/train", "each/0/train", true},
		{"each/1/train", "each/0/train", false},
		{"each/train", "each~2/10/train", true},
		{"each/10/train", "each~2/10/train", true},
		{"train", "each/0/train", false},
		{"each", "each/0", true},
		{"part/train", "part~3/train", true},
	} {
		if got := calls(test.name, test.path); got != test.want {
			t.Errorf("calls(%s, %s) = %v", test.name, test.path, got)
		}
	}
	if !laterRound("a~10/b", "a~9/b") || !laterRound("a~2/b", "a/b") || laterRound("a/b~3", "a~2/b") || laterRound("a", "a") {
		t.Error("rounds are in another order")
	}
}
