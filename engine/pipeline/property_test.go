package pipeline

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/store"
)

// object is a JSON object of a drawn package.
type object = map[string]any

// drawing draws a pipeline: DAGs in DAGs and loops, conditions, steps that fail,
// that are lost, that are tried again.
type drawing struct {
	t          *rapid.T
	components object
}

func (d *drawing) chance(percent int, what string) bool {
	return rapid.IntRange(1, 100).Draw(d.t, what) <= percent
}

// pipeline draws a whole package.
func drawPipeline(t *rapid.T) []byte {
	d := &drawing{t: t, components: object{}}
	texts := func(names ...string) object {
		all := object{}
		for _, name := range names {
			all[name] = object{"parameterType": "STRING", "isOptional": true, "defaultValue": "-"}
		}
		return object{"parameters": all}
	}
	out := object{"out": object{"parameterType": "STRING"}}
	d.components["comp-step"] = object{"executorLabel": "exec-step", "inputDefinitions": texts("do", "text", "name", "flag"), "outputDefinitions": object{"parameters": out}}
	d.components["comp-make"] = object{
		"executorLabel": "exec-make", "inputDefinitions": texts("do", "text", "name", "flag"),
		"outputDefinitions": object{"parameters": out, "artifacts": object{"model": object{"artifactType": object{"schemaTitle": "system.Model"}}}},
	}
	const say = "{{$.inputs.parameters['do']}}; out out {{$.inputs.parameters['text']}}/{{$.inputs.parameters['name']}}"
	container := func(args string) object {
		return object{"container": object{"image": "step", "command": []string{"do"}, "args": []string{args}}}
	}
	root := d.dag(3, true)
	data, err := json.MarshalIndent(object{
		"pipelineInfo": object{"name": "drawn"}, "schemaVersion": "2.1.0", "sdkVersion": "drawn", "components": d.components,
		"deploymentSpec": object{"executors": object{
			"exec-step": container(say), "exec-make": container("write {{$.outputs.artifacts['model'].path}} weights; " + say),
		}},
		"root": root,
	}, "", " ")
	if err != nil {
		t.Fatalf("write the package: %v", err)
	}
	return data
}

// dag draws a component made of tasks; its output is that of its first one.
func (d *drawing) dag(depth int, root bool) object {
	tasks := object{}
	var names, speaking []string
	for i := range rapid.IntRange(1, 4).Draw(d.t, "tasks") {
		name := fmt.Sprintf("t%d", i)
		task, speaks := d.task(depth, name, names, speaking)
		tasks[name] = task
		names = append(names, name)
		if speaks {
			speaking = append(speaking, name)
		}
	}
	component := object{"dag": object{"tasks": tasks}}
	if !root {
		component["inputDefinitions"] = object{"parameters": object{
			"flag": object{"parameterType": "STRING", "isOptional": true}, "item": object{"parameterType": "STRING", "isOptional": true},
		}}
	}
	if len(speaking) > 0 {
		component["outputDefinitions"] = object{"parameters": object{"out": object{"parameterType": "STRING"}}}
		component["dag"].(object)["outputs"] = object{"parameters": object{"out": object{"valueFromParameter": object{"producerSubtask": speaking[0], "outputParameterKey": "out"}}}}
	}
	return component
}

// task draws one task; it says whether the task gives a text.
func (d *drawing) task(depth int, name string, names, speaking []string) (object, bool) {
	constant := func(text string) object { return object{"runtimeValue": object{"constant": text}} }
	parameters := object{}
	task := object{"taskInfo": object{"name": name}, "inputs": object{"parameters": parameters}}
	if len(names) > 0 {
		task["dependentTasks"] = rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 2, rapid.ID).Draw(d.t, "upstream")
	}
	trigger := object{}
	if d.chance(20, "condition") {
		trigger["condition"] = "inputs.parameter_values['flag'] == 'yes'"
		parameters["flag"] = constant(rapid.SampledFrom([]string{"yes", "no"}).Draw(d.t, "flag"))
	}
	if d.chance(20, "whatever happened") {
		trigger["strategy"] = "ALL_UPSTREAM_TASKS_COMPLETED"
	}
	task["triggerPolicy"] = trigger
	if d.chance(20, "retry") {
		task["retryPolicy"] = object{"maxRetryCount": 1, "backoffDuration": "0.01s"}
	}
	kind := 0
	if depth > 1 {
		kind = rapid.IntRange(0, 5).Draw(d.t, "kind")
	}
	if kind < 4 {
		task["componentRef"] = object{"name": rapid.SampledFrom([]string{"comp-step", "comp-step", "comp-make"}).Draw(d.t, "component")}
		parameters["name"], parameters["do"] = constant(name), constant(d.script())
		if len(speaking) > 0 && d.chance(70, "reads") {
			producer := rapid.SampledFrom(speaking).Draw(d.t, "producer")
			parameters["text"] = object{"taskOutputParameter": object{"producerTask": producer, "outputParameterKey": "out"}}
		}
		return task, true
	}
	component := d.dag(depth-1, false)
	label := fmt.Sprintf("comp-dag-%d", len(d.components))
	d.components[label] = component
	task["componentRef"] = object{"name": label}
	if kind == 4 {
		return task, component["outputDefinitions"] != nil
	}
	items := rapid.SampledFrom([]string{`[]`, `["a"]`, `["a", "b", "c"]`}).Draw(d.t, "items")
	task["parameterIterator"] = object{"itemInput": "item", "items": object{"raw": items}}
	task["iteratorPolicy"] = object{"parallelismLimit": rapid.IntRange(0, 2).Draw(d.t, "limit")}
	return task, false
}

// script draws what a step does.
func (d *drawing) script() string {
	var parts []string
	if d.chance(10, "is lost") {
		parts = append(parts, fmt.Sprintf("lose %d", rapid.IntRange(1, 2).Draw(d.t, "losses")))
	}
	if d.chance(35, "takes its time") {
		parts = append(parts, "hold late")
	}
	switch n := rapid.IntRange(1, 100).Draw(d.t, "end"); {
	case n <= 15:
		parts = append(parts, "exit 1")
	case n <= 30:
		parts = append(parts, "until 1")
	}
	return strings.Join(parts, "; ")
}

// trouble is what happens to a run from outside, at moments counted in changes of
// the store.
type trouble struct {
	after int // changes
	kind  int // 0, 1: the daemon goes down and comes up; 2: a container is lost
	pick  int
}

func drawTroubles(t *rapid.T) []trouble {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) trouble {
		return trouble{rapid.IntRange(0, 12).Draw(t, "after"), rapid.IntRange(0, 2).Draw(t, "kind"), rapid.IntRange(0, 9).Draw(t, "pick")}
	}), 1, 5).Draw(t, "troubles")
}

// changes waits for a number of changes of the store, or until there are no more
// for a while: then everything waits for the test.
func (r *rig) changes(w store.Watcher, count int) {
	r.t.Helper()
	for count > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		events, err := w.Next(ctx)
		quiet := ctx.Err() != nil
		cancel()
		if err != nil && !quiet {
			r.t.Fatalf("watch: %v", err)
		}
		if quiet {
			return
		}
		count -= len(events)
	}
}

// suffer lets troubles come over a run. Of losses there are no more than one
// attempt's restarts can bear beside those of its own script.
func (r *rig) suffer(name string, troubles []trouble) {
	r.t.Helper()
	w, err := r.store.Watch(context.Background(), store.WatchOptions{})
	if err != nil {
		r.t.Fatalf("watch: %v", err)
	}
	defer w.Close()
	losses := 0
	for _, trouble := range troubles {
		r.changes(w, trouble.after)
		if trouble.kind < 2 {
			r.down()
			r.up()
			continue
		}
		var running []string
		for _, con := range r.world.containers() {
			if con.Labels[core.LabelRun] == name && con.State == runtime.StateRunning {
				running = append(running, con.ID)
			}
		}
		if len(running) > 0 && losses < maxRestarts-2 && r.world.machine.Kill(running[trouble.pick%len(running)]) {
			losses++
		}
	}
}

// verdict is what is left of a run once it has ended, apart from what is its own.
func (r *rig) verdict(run *skiff.Run) map[string]string {
	r.t.Helper()
	all := map[string]string{"": fmt.Sprintf("%s %s", run.Status.State, run.Status.Outputs)}
	for path, task := range r.tasks(run.Name) {
		made := 0
		for _, names := range task.Status.OutputArtifacts {
			for _, name := range names {
				if a := r.artifactNamed(name); !a.Status.Missing && r.repository.Exists(space, a.Spec.URI) {
					made++
				}
			}
		}
		all[path] = fmt.Sprintf("%s %s, %d attempts, outputs %s, %d artifacts", task.Status.State, task.Status.Reason, task.Status.Attempts, task.Status.Outputs, made)
	}
	return all
}

// consistent checks what holds of every run that has ended.
func (r *rig) consistent(run *skiff.Run) {
	r.t.Helper()
	r.idle(run.Name)
	counts := map[skiff.State]int{}
	succeeded := map[string]int{} // pods by task
	for _, p := range r.podsOf(run.Name) {
		if p.Status.Phase == core.PodSucceeded {
			succeeded[p.OwnerReferences[0].Name]++
		}
		r.world.mu.Lock()
		done := r.world.done[p.Name]
		r.world.mu.Unlock()
		if done > 1 {
			r.t.Fatalf("pod %s ran to its end %d times", p.Name, done)
		}
	}
	for path, task := range r.tasks(run.Name) {
		counts[task.Status.State]++
		if !task.Status.State.Terminal() {
			r.t.Fatalf("the run has ended as %s, and its task %s is %s", run.Status.State, path, task.Status.State)
		}
		if task.Status.FinishedAt.IsZero() {
			r.t.Fatalf("%s has ended as %s at no time", path, task.Status.State)
		}
		if n := succeeded[task.Name]; n > 1+run.Spec.Retries || (task.Spec.Type == skiff.TaskContainer && task.Status.State == skiff.StateSucceeded && (n == 0 || n > 1 && run.Spec.Retries == 0)) {
			r.t.Fatalf("%s is %s, and %d of its pods succeeded", path, task.Status.State, n)
		}
	}
	if diff := cmp.Diff(counts, run.Status.TaskCounts); diff != "" {
		r.t.Fatalf("the run's counts of its tasks (-tasks +counts):\n%s", diff)
	}
}

// enough bounds a property's share of the default run by time, since each round
// waits for a disk. Asked for by number (-rapid.checks), all rounds are made.
func enough(share time.Duration) func() bool {
	checks := flag.Lookup("rapid.checks")
	if checks != nil && checks.Value.String() != checks.DefValue {
		return func() bool { return false }
	}
	end := time.Now().Add(share)
	return func() bool { return time.Now().After(end) }
}

// drawn holds drawn pipelines to a property, for its share of the default run.
func drawn(t *testing.T, share time.Duration, property func(r *rig, t *rapid.T, source []byte)) {
	r := newRig(t, nil)
	defer func() { r.t = t }()
	over := enough(share)
	rapid.Check(t, func(t *rapid.T) {
		if over() {
			return
		}
		r.t = t
		property(r, t, drawPipeline(t))
	})
}

// submitDrawn submits a drawn pipeline, or goes on from a run of one.
func (r *rig) submitDrawn(sub Submission) *skiff.Run {
	r.t.Helper()
	sub.Namespace, sub.Filename = space, "drawn.json"
	run, err := r.c.Submit(context.Background(), sub)
	if err != nil {
		r.t.Fatalf("submit: %v\n%s", err, sub.Package)
	}
	return run
}

// endDrawn submits one and lets it run to its end.
func (r *rig) endDrawn(sub Submission) *skiff.Run {
	r.t.Helper()
	name := r.submitDrawn(sub).Name
	r.world.open(name + "/late")
	return r.ended(name)
}

// loadDrawn is a drawn pipeline as the door reads it.
func (r *rig) loadDrawn(source []byte) *kfp.PipelineSpec {
	r.t.Helper()
	pkg, err := kfp.Load("drawn.json", source, r.c.limits)
	if err != nil {
		r.t.Fatalf("load: %v", err)
	}
	return pkg.Spec
}

// TestInterrupted runs pipelines twice: once undisturbed, and once with the
// daemon dying and containers getting lost at any moment. Both end the same.
func TestInterrupted(t *testing.T) {
	drawn(t, 7*time.Second, func(r *rig, t *rapid.T, source []byte) {
		first := r.endDrawn(Submission{Package: source})
		r.consistent(first)

		troubled := r.submitDrawn(Submission{Package: source}).Name
		r.suffer(troubled, drawTroubles(t))
		r.world.open(troubled + "/late")
		second := r.ended(troubled)
		r.consistent(second)
		if diff := cmp.Diff(r.verdict(first), r.verdict(second)); diff != "" {
			t.Fatalf("undisturbed and disturbed (-, +):\n%s\n%s", diff, source)
		}
	})
}

// TestCancelledAnywhere cancels pipelines at any moment, with the daemon up or
// down, and with troubles before and after. All of it ends.
func TestCancelledAnywhere(t *testing.T) {
	drawn(t, 7*time.Second, func(r *rig, t *rapid.T, source []byte) {
		name := r.submitDrawn(Submission{Package: source}).Name
		r.suffer(name, drawTroubles(t))
		if rapid.Bool().Draw(t, "while down") {
			r.down()
			r.cancel(name)
			r.up()
		} else {
			r.cancel(name)
		}
		r.suffer(name, drawTroubles(t))
		r.world.open(name + "/late") // an exit task may wait for it
		ended := r.ended(name)
		r.consistent(ended)
		if state := ended.Status.State; state == skiff.StateCanceled && ended.Status.Reason != reasonCancelled {
			t.Fatalf("%s because %s", state, ended.Status.Reason)
		}
	})
}

// toKeep are the paths of tasks that a retry must leave alone: the rule of
// rerun.go, told by the pipeline and what became of it alone.
func toKeep(spec *kfp.PipelineSpec, tasks map[string]*skiff.Task) map[string]bool {
	kept := map[string]bool{}
	below := func(path string) {
		for other := range tasks {
			if other == path || strings.HasPrefix(other, path+"/") || strings.HasPrefix(other, path+"~") {
				kept[other] = true
			}
		}
	}
	stands := func(task *skiff.Task) bool {
		return task.Status.State == skiff.StateSucceeded || task.Status.State == skiff.StateSkipped
	}
	var walk func(component *kfp.ComponentSpec, prefix string)
	walk = func(component *kfp.ComponentSpec, prefix string) {
		keep := map[string]bool{}
		var decide func(key string) bool
		decide = func(key string) bool {
			if known, decided := keep[key]; decided {
				return known
			}
			all := true
			for _, up := range dependencies(component.Dag.Tasks[key]) {
				all = decide(up) && all
			}
			task := tasks[prefix+key]
			if task == nil {
				return false // its scope was never entered
			}
			keep[key] = all && stands(task)
			body := spec.Components[component.Dag.Tasks[key].ComponentRef.Name]
			switch {
			case keep[key]:
				below(prefix + key)
			case all && body.Dag != nil: // it goes on
				inner := prefix + key
				if task.Status.Attempts > 1 {
					inner += fmt.Sprintf("~%d", task.Status.Attempts)
				}
				if task.Spec.Type != skiff.TaskLoop {
					walk(body, inner+"/")
					break
				}
				for i := range task.Status.Iterations {
					pass := fmt.Sprintf("%s/%d", inner, i)
					switch {
					case tasks[pass] == nil:
					case stands(tasks[pass]):
						below(pass)
					default:
						walk(body, pass+"/")
					}
				}
			}
			return keep[key]
		}
		for _, key := range sortedKeys(component.Dag.Tasks) {
			decide(key)
		}
	}
	walk(spec.Root, "")
	return kept
}

// TestRetriedAnywhere retries pipelines that failed, or that were cancelled at
// any moment, with troubles meanwhile: what is to be kept is not touched, and all
// of it ends.
func TestRetriedAnywhere(t *testing.T) {
	drawn(t, 3*time.Second, func(r *rig, t *rapid.T, source []byte) {
		spec := r.loadDrawn(source)
		name := r.submitDrawn(Submission{Package: source}).Name
		if rapid.Bool().Draw(t, "cancelled") {
			r.suffer(name, drawTroubles(t))
			r.cancel(name)
		}
		r.world.open(name + "/late")
		run := r.ended(name)
		for run.Spec.Retries < 2 && run.Status.State != skiff.StateSucceeded {
			before := r.tasks(name)
			r.retry(name)
			r.suffer(name, drawTroubles(t))
			run = r.ended(name)
			r.consistent(run)
			after := r.tasks(name)
			for path := range toKeep(spec, before) {
				if diff := cmp.Diff(before[path].Status, after[path].Status); diff != "" {
					t.Fatalf("%s was to be kept (-before +after):\n%s\n%s", path, diff, source)
				}
			}
		}
	})
}
