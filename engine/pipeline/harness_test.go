package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/scheduler"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// space is the namespace of these tests.
const space = "default"

// tb is what a *testing.T and a *rapid.T have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// volumes finds artifact folders for the pod controller.
type volumes struct{ repository *artifact.Repository }

func (v volumes) HostPath(_ context.Context, namespace string, volume core.Volume) (string, bool, error) {
	if volume.Artifact == nil {
		return "", false, fmt.Errorf("volume %s is not known here", volume.Name)
	}
	path, writable, err := v.repository.HostPath(namespace, volume.Artifact.Key)
	return path, !writable, err
}

// rig is a store, a repository, a world, and the two controllers over them,
// which can be taken down and up again at any moment.
type rig struct {
	t          tb
	store      *store.Store
	repository *artifact.Repository
	world      *world
	cfg        Config
	podCfg     pod.Config

	c    *Controller
	pods *pod.Controller
	kill context.CancelFunc
	done chan struct{}
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := openRig(t, t.TempDir(), change)
	t.Cleanup(r.close)
	return r
}

func openRig(t tb, dir string, change func(*Config)) *rig {
	t.Helper()
	s, err := store.Open(context.Background(), store.Config{Path: filepath.Join(dir, "skiff.db"), Kinds: append(Kinds(), pod.Kinds()...)})
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	repository, err := artifact.Open(filepath.Join(dir, "artifacts"))
	if err != nil {
		t.Fatalf("open artifacts: %v", err)
	}
	r := &rig{t: t, store: s, repository: repository, world: newWorld(filepath.Join(dir, "world"))}
	r.podCfg = pod.Config{
		Store: s, Backend: r.world, StateDir: dir, Volumes: volumes{repository}, ImageBackoff: 10 * time.Millisecond,
		Node: scheduler.Node{CPUMilli: 1 << 20, MemoryBytes: 1 << 45}, WarmPods: 4,
	}
	r.cfg = Config{Store: s, Artifacts: repository, Images: r.world, Volumes: r.world, Fit: func(*core.Pod) error { return nil }, Warm: true}
	if os.Getenv("PIPELINE_TEST_LOG") != "" {
		r.cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
		r.podCfg.Logger = r.cfg.Logger
	}
	if change != nil {
		change(&r.cfg)
	}
	r.up()
	return r
}

// up starts both controllers over what there is.
func (r *rig) up() {
	r.t.Helper()
	var err error
	if r.c, err = New(r.cfg); err != nil {
		r.t.Fatalf("new controller: %v", err)
	}
	if r.pods, err = pod.New(r.podCfg); err != nil {
		r.t.Fatalf("new pod controller: %v", err)
	}
	ctx, kill := context.WithCancel(context.Background())
	c, pods, done := r.c, r.pods, make(chan struct{})
	r.kill, r.done = kill, done
	podsDone := make(chan struct{})
	go func() {
		defer close(podsDone)
		if err := pods.Run(ctx); err != nil && ctx.Err() == nil {
			r.t.Logf("pods: %v", err)
		}
	}()
	go func() {
		defer close(done)
		if err := c.Run(ctx); err != nil && ctx.Err() == nil {
			r.t.Logf("pipelines: %v", err)
		}
		<-podsDone
	}()
}

// down ends the controllers, wherever they stand.
func (r *rig) down() {
	r.kill()
	<-r.done
}

func (r *rig) close() {
	r.down()
	r.world.machine.Close()
	if err := errors.Join(r.repository.Close(), r.store.Close()); err != nil {
		r.t.Fatalf("close: %v", err)
	}
}

// source is a pipeline of testdata.
func source(t tb, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
	if err != nil {
		t.Fatalf("read pipeline: %v", err)
	}
	return data
}

// submit hands a pipeline of testdata in.
func (r *rig) submit(name string, change func(*Submission)) string {
	r.t.Helper()
	sub := Submission{Namespace: space, Filename: name + ".yaml", Package: source(r.t, name)}
	if change != nil {
		change(&sub)
	}
	run, err := r.c.Submit(context.Background(), sub)
	if err != nil {
		r.t.Fatalf("submit %s: %v", name, err)
	}
	return run.Name
}

// with gives a submission a parameter.
func with(name string, value any) func(*Submission) {
	return func(sub *Submission) {
		raw, err := json.Marshal(value)
		if err != nil {
			panic(err)
		}
		if sub.Parameters == nil {
			sub.Parameters = map[string]json.RawMessage{}
		}
		sub.Parameters[name] = raw
	}
}

func (r *rig) run(name string) *skiff.Run {
	r.t.Helper()
	run, err := store.GetAs[*skiff.Run](context.Background(), r.store, store.Key{Kind: Runs, Namespace: space, Name: name})
	if err != nil {
		r.t.Fatalf("get run: %v", err)
	}
	return run
}

// tasks are a run's, by path.
func (r *rig) tasks(run string) map[string]*skiff.Task {
	r.t.Helper()
	list, _, err := store.AllAs[*skiff.Task](context.Background(), r.store, store.ListOptions{Kind: Tasks, Namespace: space, Index: IndexRun, Prefix: run, Exact: true})
	if err != nil {
		r.t.Fatalf("list tasks: %v", err)
	}
	tasks := make(map[string]*skiff.Task, len(list))
	for _, task := range list {
		tasks[task.Spec.Path] = task
	}
	return tasks
}

// podsOf are a run's pods.
func (r *rig) podsOf(run string) []*core.Pod {
	r.t.Helper()
	list, _, err := store.AllAs[*core.Pod](context.Background(), r.store, store.ListOptions{Kind: podsKind, Namespace: space, Filter: func(obj core.Object) bool {
		return obj.Metadata().Labels[core.LabelRun] == run
	}})
	if err != nil {
		r.t.Fatalf("list pods: %v", err)
	}
	return list
}

// artifactNamed reads an artifact object.
func (r *rig) artifactNamed(name string) *skiff.Artifact {
	r.t.Helper()
	a, err := store.GetAs[*skiff.Artifact](context.Background(), r.store, store.Key{Kind: Artifacts, Namespace: space, Name: name})
	if err != nil {
		r.t.Fatalf("get artifact: %v", err)
	}
	return a
}

// await looks at a condition after every change of the store until it holds.
func (r *rig) await(what string, ok func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w, err := r.store.Watch(ctx, store.WatchOptions{})
	if err != nil {
		r.t.Fatalf("watch: %v", err)
	}
	defer w.Close()
	for !ok() {
		if _, err := w.Next(ctx); err != nil {
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// ended waits for a run's end.
func (r *rig) ended(name string) *skiff.Run {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w, err := r.store.Watch(ctx, store.WatchOptions{Kinds: []string{Runs}})
	if err != nil {
		r.t.Fatalf("watch: %v", err)
	}
	defer w.Close()
	for {
		run := r.run(name)
		if run.Status.State.Terminal() {
			return run
		}
		if _, err := w.Next(ctx); err != nil {
			var tasks strings.Builder
			for path, task := range r.tasks(name) {
				fmt.Fprintf(&tasks, "\n  %s: %s %s %s, pod %s", path, task.Status.State, task.Status.Reason, task.Status.Message, task.Status.Pod)
			}
			r.t.Fatalf("run %s has not ended: %s %s%s", name, run.Status.State, run.Status.Message, tasks.String())
		}
	}
}

// finish submits a pipeline of testdata and waits for its end.
func (r *rig) finish(name string, change func(*Submission)) *skiff.Run {
	r.t.Helper()
	return r.ended(r.submit(name, change))
}

// held waits until a step of the task waits at its gate.
func (r *rig) held(run, path string) {
	r.t.Helper()
	r.await(path+" to run", func() bool {
		task := r.tasks(run)[path]
		return task != nil && task.Status.State == skiff.StateRunning && r.world.began(labelValue(path)) > 0
	})
}

// cancel asks a run to stop, as its owner would.
func (r *rig) cancel(name string) {
	r.t.Helper()
	_, err := store.ModifyAs(context.Background(), r.store, store.Key{Kind: Runs, Namespace: space, Name: name}, func(run *skiff.Run) error {
		run.Spec.Cancel = true
		return nil
	})
	if err != nil {
		r.t.Fatalf("cancel: %v", err)
	}
}

// states checks what became of a run and of every one of its tasks, and that
// nothing of it is left active.
func (r *rig) states(run *skiff.Run, want skiff.State, tasks map[string]string) {
	r.t.Helper()
	if run.Status.State != want {
		r.t.Fatalf("run ended as %s (%s: %s), want %s", run.Status.State, run.Status.Reason, run.Status.Message, want)
	}
	got := map[string]string{}
	counts := map[skiff.State]int{}
	for path, task := range r.tasks(run.Name) {
		got[path] = string(task.Status.State)
		if task.Status.Attempts > 1 {
			got[path] += fmt.Sprintf(" x%d", task.Status.Attempts)
		}
		counts[task.Status.State]++
	}
	if diff := cmp.Diff(tasks, got); diff != "" {
		r.t.Fatalf("tasks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(counts, run.Status.TaskCounts); diff != "" {
		r.t.Fatalf("the run's counts of its tasks (-tasks +counts):\n%s", diff)
	}
	r.idle(run.Name)
}

// idle checks that every pod of a run has ended, or is on its way out of the
// store because its step never came to need it.
func (r *rig) idle(run string) {
	r.t.Helper()
	for _, p := range r.podsOf(run) {
		if !p.Status.Phase.Terminal() && p.DeletionTimestamp == nil {
			r.t.Fatalf("run %s has ended and its pod %s is %s", run, p.Name, p.Status.Phase)
		}
	}
}

// outputs checks a run's output parameters.
func (r *rig) outputs(run *skiff.Run, want map[string]string) {
	r.t.Helper()
	got := map[string]string{}
	for name, raw := range run.Status.Outputs {
		got[name] = string(raw)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Fatalf("outputs (-want +got):\n%s", diff)
	}
}

// dispatchAgain tells the controller of a run as the watch would, and waits
// until that has had its effects.
func (r *rig) dispatchAgain(run *skiff.Run) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	err := r.c.dispatch(ctx, group, store.Event{Type: store.Modified, Key: store.Key{Kind: Runs, Namespace: space, Name: run.Name}, Object: run})
	if err := errors.Join(err, group.Wait()); err != nil {
		r.t.Fatalf("dispatch: %v", err)
	}
}
