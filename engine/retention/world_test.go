package retention_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/engine/retention"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
	"github.com/skiff-ml/skiff/store/artifact/s3"
)

// TestMain: the test binary is also its own child, which purges until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(purgeChild); dir != "" {
		os.Exit(purgeForever(dir))
	}
	goleak.VerifyTestMain(m)
}

// space is the namespace of these tests.
const space = "default"

// tb is what a *testing.T and a *rapid.T have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

// world is a store and a repository with runs and what they made, in a folder.
type world struct {
	t          tb
	store      *store.Store
	repository *artifact.Repository
	mirror     *s3.Mirror
	lent       s3.Credentials // what "fromEnv: true" means
	clock      time.Time
	// broken makes the next removals of contents fail, or panics' stand-in: it is
	// asked before each.
	broken func(uri string) error
	using  map[string]bool
	asked  func(*skiff.Artifact) // whether an engine uses it
	texts  map[string]string     // what lies at a URI that a run wrote
	runs   int
}

func openWorld(t tb, dir string) *world {
	t.Helper()
	w := &world{t: t, clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), using: map[string]bool{}, texts: map[string]string{}}
	var err error
	w.store, err = store.Open(context.Background(), store.Config{
		Path: filepath.Join(dir, "skiff.db"), Kinds: append(pipeline.Kinds(), pod.Kinds()...), Now: func() time.Time { return w.clock },
	})
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	if w.repository, err = artifact.Open(filepath.Join(dir, "artifacts")); err != nil {
		t.Fatalf("open artifacts: %v", err)
	}
	if w.mirror, err = s3.NewMirror(s3.Config{Repository: w.repository, Store: w.store, Owner: w.store.ID(), Environment: &w.lent}); err != nil {
		t.Fatalf("open mirror: %v", err)
	}
	return w
}

func (w *world) close() {
	if err := errors.Join(w.mirror.Close(), w.repository.Close(), w.store.Close()); err != nil {
		w.t.Fatalf("close: %v", err)
	}
}

// Purge implements retention.Contents.
func (w *world) Purge(ctx context.Context, namespace, uri, endpoint string) error {
	if w.broken != nil {
		if err := w.broken(uri); err != nil {
			return err
		}
	}
	return w.mirror.Purge(ctx, namespace, uri, endpoint)
}

// controller is a fresh one, as after a restart.
func (w *world) controller() *retention.Controller {
	w.t.Helper()
	c, err := retention.New(retention.Config{
		Store: w.store, Contents: w, Using: w.isUsed, Now: func() time.Time { return w.clock },
	})
	if err != nil {
		w.t.Fatalf("new controller: %v", err)
	}
	return c
}

func (w *world) isUsed(a *skiff.Artifact) bool {
	if w.asked != nil {
		w.asked(a)
	}
	return w.using[a.Name]
}

func (w *world) commit(ops ...store.Op) {
	w.t.Helper()
	if _, err := w.store.Commit(context.Background(), ops...); err != nil {
		w.t.Fatalf("commit: %v", err)
	}
}

// run makes a run that has ended, or goes on; its artifacts are files of as many
// bytes, each under a name of its own.
func (w *world) run(state skiff.State, sizes ...int) (string, []string) {
	w.t.Helper()
	w.runs++
	name := fmt.Sprintf("run-%03d", w.runs)
	run := &skiff.Run{ObjectMeta: core.ObjectMeta{Name: name, Namespace: space}, Status: skiff.RunStatus{State: state}}
	w.commit(store.Op{Verb: store.Create, Kind: pipeline.Runs, Object: run})
	var made []string
	for i, size := range sizes {
		uri := fmt.Sprintf("minio://bucket/%s/step/%d/out", name, i)
		w.write(uri, strings.Repeat("x", size))
		made = append(made, w.artifact(name, fmt.Sprintf("%s-a%d", name, i), uri, int64(size), false))
	}
	w.task(name, "step", nil, made)
	return name, made
}

func (w *world) write(uri, text string) {
	w.t.Helper()
	at, err := w.repository.Locate(space, uri)
	if err != nil {
		w.t.Fatalf("locate: %v", err)
	}
	if err := os.MkdirAll(filepath.Dir(at.HostPath), 0o750); err != nil {
		w.t.Fatalf("write: %v", err)
	}
	if err := os.WriteFile(at.HostPath, []byte(text), 0o600); err != nil {
		w.t.Fatalf("write: %v", err)
	}
	w.texts[uri] = text
}

func (w *world) artifact(run, name, uri string, size int64, imported bool) string {
	w.t.Helper()
	a := &skiff.Artifact{
		ObjectMeta: core.ObjectMeta{Name: name, Namespace: space},
		Spec:       skiff.ArtifactSpec{DisplayName: "out", URI: uri, Run: run, Imported: imported},
		Status:     skiff.ArtifactStatus{Size: size, Files: 1},
	}
	if !imported {
		a.OwnerReferences = []core.OwnerReference{{Kind: skiff.RunKind, Name: run}}
		a.Finalizers = []string{skiff.FinalizerContents}
	}
	w.commit(store.Op{Verb: store.Create, Kind: pipeline.Artifacts, Object: a})
	return name
}

func (w *world) task(run, key string, inputs, outputs []string) {
	w.t.Helper()
	task := &skiff.Task{
		ObjectMeta: core.ObjectMeta{Name: fmt.Sprintf("%s-%s", run, key), Namespace: space}, Spec: skiff.TaskSpec{Run: run, Path: key},
		Status: skiff.TaskStatus{InputArtifacts: map[string][]string{"in": inputs}, OutputArtifacts: map[string][]string{"out": outputs}},
	}
	w.commit(store.Op{Verb: store.Put, Kind: pipeline.Tasks, Object: task})
}

// use has a run take an artifact from the cache.
func (w *world) use(run, name string) {
	w.t.Helper()
	w.task(run, fmt.Sprintf("use-%s", name), nil, []string{name})
	w.amend(name, func(a *skiff.Artifact) { a.Status.UsedAt = w.clock })
}

// reimport has a run import what is at another artifact's URI.
func (w *world) reimport(run, of, uri string) string {
	w.t.Helper()
	name := w.artifact(run, run+"-import-"+of, uri, 0, true)
	w.task(run, "import-"+of, nil, []string{name})
	w.amend(of, func(a *skiff.Artifact) { a.Status.UsedAt = w.clock })
	return name
}

func (w *world) amend(name string, change func(*skiff.Artifact)) {
	w.t.Helper()
	_, err := store.ModifyAs(context.Background(), w.store, artifactKey(name), func(a *skiff.Artifact) error {
		change(a)
		return nil
	})
	if err != nil {
		w.t.Fatalf("amend artifact: %v", err)
	}
}

func (w *world) amendRun(name string, change func(*skiff.Run)) {
	w.t.Helper()
	_, err := store.ModifyAs(context.Background(), w.store, store.Key{Kind: pipeline.Runs, Namespace: space, Name: name}, func(r *skiff.Run) error {
		change(r)
		return nil
	})
	if err != nil {
		w.t.Fatalf("amend run: %v", err)
	}
}

// remove deletes a run as the server does.
func (w *world) remove(run string) {
	w.t.Helper()
	ops := []store.Op{}
	for _, kind := range []string{pipeline.Tasks, pipeline.Artifacts} {
		page, err := w.store.List(context.Background(), store.ListOptions{Kind: kind, Namespace: space, Index: "run", Prefix: run, Exact: true})
		if err != nil {
			w.t.Fatalf("list: %v", err)
		}
		for _, obj := range page.Items {
			if a, is := obj.(*skiff.Artifact); is && a.OutlivesRun() {
				continue
			}
			ops = append(ops, store.Op{Verb: store.Delete, Kind: kind, Key: store.Key{Kind: kind, Namespace: space, Name: obj.Metadata().Name}})
		}
	}
	w.commit(append(ops, store.Op{Verb: store.Delete, Kind: pipeline.Runs, Key: store.Key{Kind: pipeline.Runs, Namespace: space, Name: run}})...)
}

func artifactKey(name string) store.Key {
	return store.Key{Kind: pipeline.Artifacts, Namespace: space, Name: name}
}

// get reads an artifact; nil where there is none.
func (w *world) get(name string) *skiff.Artifact {
	w.t.Helper()
	a, err := store.GetAs[*skiff.Artifact](context.Background(), w.store, artifactKey(name))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		w.t.Fatalf("get artifact: %v", err)
	}
	return a
}

func (w *world) all() []*skiff.Artifact {
	w.t.Helper()
	list, _, err := store.AllAs[*skiff.Artifact](context.Background(), w.store, store.ListOptions{Kind: pipeline.Artifacts, Namespace: space})
	if err != nil {
		w.t.Fatalf("list artifacts: %v", err)
	}
	return list
}

// there reports whether contents are at a URI, and fails where they are not whole.
func (w *world) there(uri string) bool {
	w.t.Helper()
	at, err := w.repository.Locate(space, uri)
	if err != nil {
		w.t.Fatalf("locate: %v", err)
	}
	if info, err := os.Stat(at.HostPath); err == nil && info.IsDir() {
		return true
	}
	data, err := os.ReadFile(at.HostPath)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	if err != nil {
		w.t.Fatalf("read: %v", err)
	}
	if want, known := w.texts[uri]; known && string(data) != want {
		w.t.Fatalf("%s holds %d bytes, want %d", uri, len(data), len(want))
	}
	return true
}

// purge keeps to a retention and says which artifacts went.
func (w *world) purge(text string) map[string]string {
	w.t.Helper()
	return w.look(text, false)
}

func (w *world) look(text string, dryRun bool) map[string]string {
	w.t.Helper()
	bounds, err := skiff.ParseRetention(text)
	if err != nil {
		w.t.Fatalf("retention: %v", err)
	}
	report, err := w.controller().Purge(context.Background(), space, bounds, dryRun)
	if err != nil {
		w.t.Fatalf("purge: %v", err)
	}
	went := map[string]string{}
	for _, item := range report.Items {
		went[item.Name] = item.Reason
	}
	return went
}
