package retention_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/store"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := openWorld(t, t.TempDir())
	t.Cleanup(w.close)
	return w
}

const day = 24 * time.Hour

func TestBounds(t *testing.T) {
	for _, tt := range []struct {
		retain string
		want   map[string]string
	}{
		{"", map[string]string{}},
		{"max-age=60h", map[string]string{"run-001-a0": "max-age", "run-001-a1": "max-age"}},
		{"max-age=10d", map[string]string{}},
		{"max-runs=2", map[string]string{"run-001-a0": "max-runs", "run-001-a1": "max-runs"}},
		{"max-runs=3", map[string]string{}},
		{"max-bytes=60", map[string]string{}},
		{"max-bytes=55", map[string]string{"run-001-a0": "max-bytes"}},
		{"max-bytes=1", map[string]string{"run-001-a0": "max-bytes", "run-001-a1": "max-bytes", "run-002-a0": "max-bytes", "run-003-a0": "max-bytes"}},
		{"max-age=60h,max-bytes=15", map[string]string{"run-001-a0": "max-age", "run-001-a1": "max-age", "run-002-a0": "max-bytes"}},
	} {
		t.Run(tt.retain, func(t *testing.T) {
			w := newWorld(t)
			for _, sizes := range [][]int{{10, 20}, {15}, {15}} {
				w.run(skiff.StateSucceeded, sizes...)
				w.clock = w.clock.Add(day)
			}
			would := w.look(tt.retain, true)
			for _, a := range w.all() {
				if a.Status.Purged != nil || !w.there(a.Spec.URI) {
					t.Errorf("a dry run took %s", a.Name)
				}
			}
			if diff := cmp.Diff(tt.want, would); diff != "" {
				t.Errorf("what would go (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.want, w.purge(tt.retain)); diff != "" {
				t.Errorf("what went (-want +got):\n%s", diff)
			}
			for _, a := range w.all() {
				reason, goes := tt.want[a.Name]
				if goes == w.there(a.Spec.URI) || goes != (a.Gone() != "") {
					t.Errorf("%s: there %t, %q", a.Name, w.there(a.Spec.URI), a.Gone())
				}
				if goes && (a.Status.Purged.Reason != reason || a.Status.Purged.RemovedAt.IsZero() || a.Status.Size == 0 || !strings.Contains(a.Gone(), reason)) {
					t.Errorf("what is left of %s: %+v", a.Name, a.Status)
				}
			}
			if again := w.purge(tt.retain); len(again) > 0 {
				t.Errorf("the next look took %v", again)
			}
		})
	}
}

// TestKept: what is pinned, active, held or used lately stays.
func TestKept(t *testing.T) {
	w := newWorld(t)
	_, pinned := w.run(skiff.StateSucceeded, 1)
	ofPinnedRun, made := w.run(skiff.StateSucceeded, 1)
	_, cached := w.run(skiff.StateSucceeded, 1) // the pinned run took it from the cache
	_, input := w.run(skiff.StateSucceeded, 1)  // an active run reads it
	active, own := w.run(skiff.StateRunning, 1)
	_, held := w.run(skiff.StateSucceeded, 1)
	_, used := w.run(skiff.StateSucceeded, 1)
	_, gone := w.run(skiff.StateSucceeded, 1)
	w.amend(pinned[0], func(a *skiff.Artifact) { a.Annotations = map[string]string{skiff.AnnotationPinned: "true"} })
	w.amendRun(ofPinnedRun, func(r *skiff.Run) { r.Annotations = map[string]string{skiff.AnnotationPinned: "true"} })
	w.task(ofPinnedRun, "cached", nil, cached)
	w.task(active, "reads", input, nil)
	w.using[held[0]] = true
	w.clock = w.clock.Add(30 * day)
	user, _ := w.run(skiff.StateSucceeded)
	w.use(user, used[0])
	if diff := cmp.Diff(map[string]string{gone[0]: "max-age"}, w.purge("max-age=1d")); diff != "" {
		t.Errorf("what went (-want +got):\n%s", diff)
	}
	for _, name := range []string{pinned[0], made[0], cached[0], input[0], own[0], held[0], used[0]} {
		if a := w.get(name); a.Gone() != "" || !w.there(a.Spec.URI) {
			t.Errorf("%s: %q", name, a.Gone())
		}
	}
	w.amendRun(active, func(r *skiff.Run) { r.Status.State = skiff.StateSucceeded })
	w.using = map[string]bool{}
	w.amend(pinned[0], func(a *skiff.Artifact) { a.Annotations = nil })
	want := map[string]string{pinned[0]: "max-age", input[0]: "max-age", own[0]: "max-age", held[0]: "max-age"}
	if diff := cmp.Diff(want, w.purge("max-age=1d")); diff != "" {
		t.Errorf("what went then (-want +got):\n%s", diff)
	}
}

// TestTakenBack: what comes to be used between the mark and the look stays.
func TestTakenBack(t *testing.T) {
	w := newWorld(t)
	run, made := w.run(skiff.StateFailed, 1, 1)
	w.clock = w.clock.Add(30 * day)
	w.asked = func(a *skiff.Artifact) {
		if a.Status.Purged != nil {
			w.amendRun(run, func(r *skiff.Run) { r.Status.State = skiff.StatePending }) // it is retried
		}
	}
	if got := w.purge("max-age=1d"); len(got) > 0 {
		t.Errorf("went: %v", got)
	}
	for _, name := range made {
		if a := w.get(name); !w.there(a.Spec.URI) || a.Status.Purged != nil {
			t.Errorf("%s: %+v", name, a.Status.Purged)
		}
	}
}

// TestStubbornContents: what cannot be removed now is removed later.
func TestStubbornContents(t *testing.T) {
	w := newWorld(t)
	_, made := w.run(skiff.StateFailed, 1, 1)
	w.clock = w.clock.Add(30 * day)
	w.broken = func(uri string) error {
		if uri == w.get(made[0]).Spec.URI {
			return errors.New("the disk has a moment")
		}
		return nil
	}
	if got := w.purge("max-age=1d"); len(got) != 2 {
		t.Errorf("went: %v", got)
	}
	if a := w.get(made[0]); !w.there(a.Spec.URI) || !a.Status.Purged.Removing {
		t.Errorf("the stubborn one: %+v", a.Status.Purged)
	}
	w.broken = nil
	w.finish(t)
	if a := w.get(made[0]); w.there(a.Spec.URI) || a.Status.Purged.RemovedAt.IsZero() {
		t.Errorf("the stubborn one, later: %+v", a.Status.Purged)
	}
}

// TestShared: contents go with the last artifact that refers to them.
func TestShared(t *testing.T) {
	w := newWorld(t)
	first, made := w.run(skiff.StateSucceeded, 5)
	uri := w.get(made[0]).Spec.URI
	w.clock = w.clock.Add(day)
	second, _ := w.run(skiff.StateSucceeded)
	same := w.artifact(second, second+"-same", uri, 5, false)                        // its component named the other's place
	below := w.artifact(second, second+"-around", "minio://bucket/"+first, 5, false) // and the folder around it
	w.clock = w.clock.Add(day)
	if got := w.purge("max-age=36h"); len(got) != 1 || !w.there(uri) {
		t.Fatalf("went: %v; there: %t", got, w.there(uri))
	}
	if a := w.get(made[0]); a.Gone() == "" || !a.Status.Purged.RemovedAt.IsZero() {
		t.Errorf("the first: %+v", a.Status.Purged)
	}
	w.amend(below, func(a *skiff.Artifact) { a.Annotations = map[string]string{skiff.AnnotationPinned: "true"} })
	w.clock = w.clock.Add(day)
	if got := w.purge("max-age=36h"); len(got) != 1 || !w.there(uri) {
		t.Fatalf("went: %v; there: %t", got, w.there(uri))
	}
	w.amend(below, func(a *skiff.Artifact) { a.Annotations = nil })
	w.purge("max-age=36h")
	w.finish(t)
	if w.there(uri) {
		t.Error("nobody refers to the contents and they are there")
	}
	for _, name := range []string{made[0], same, below} {
		if a := w.get(name); a.Status.Purged == nil || a.Status.Purged.RemovedAt.IsZero() {
			t.Errorf("%s: %+v", name, a.Status.Purged)
		}
	}
}

// TestSharedAndWanted: a mark that waits for another artifact is taken back where
// the artifact is wanted by then, and keeps the contents when the other goes.
func TestSharedAndWanted(t *testing.T) {
	w := newWorld(t)
	first, made := w.run(skiff.StateSucceeded, 5)
	uri := w.get(made[0]).Spec.URI
	w.clock = w.clock.Add(day)
	second, _ := w.run(skiff.StateSucceeded)
	same := w.artifact(second, second+"-same", uri, 5, false)
	w.clock = w.clock.Add(day)
	w.purge("max-age=36h")
	if w.get(made[0]).Gone() == "" {
		t.Fatal("the first is not marked")
	}
	w.amendRun(first, func(r *skiff.Run) { r.Status.State = skiff.StatePending }) // it is retried
	w.clock = w.clock.Add(day)
	if got := w.purge("max-age=36h"); len(got) != 1 || w.get(same).Gone() == "" {
		t.Errorf("went: %v", got)
	}
	if !w.there(uri) || w.get(made[0]).Gone() != "" {
		t.Errorf("there: %t, the first: %q", w.there(uri), w.get(made[0]).Gone())
	}
}

// finish has a controller take up what was begun, as a daemon does at its start.
func (w *world) finish(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	watcher, err := w.store.Watch(ctx, store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	c := w.controller()
	go func() { done <- c.Run(running) }()
	defer func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the controller ended with %v", err)
		}
	}()
	for w.pending() > 0 {
		if _, err := watcher.Next(ctx); err != nil {
			t.Fatalf("%d artifacts are still to be settled", w.pending())
		}
	}
}

// pending is how many artifacts are marked, or deleted, and not settled.
func (w *world) pending() int {
	w.t.Helper()
	n := 0
	for _, a := range w.all() {
		if a.DeletionTimestamp != nil || (a.Status.Purged != nil && a.Status.Purged.RemovedAt.IsZero()) {
			n++
		}
	}
	return n
}

// TestImports: an import keeps what it refers to for as long as it is used, and no
// longer; what nobody here made is nobody's to remove.
func TestImports(t *testing.T) {
	w := newWorld(t)
	_, made := w.run(skiff.StateSucceeded, 5)
	uri := w.get(made[0]).Spec.URI
	w.write("minio://theirs/data", "kept")
	w.clock = w.clock.Add(10 * day)
	run, _ := w.run(skiff.StateSucceeded)
	ours := w.reimport(run, made[0], uri)
	theirs := w.artifact(run, "theirs", "minio://theirs/data", 4, true)
	w.clock = w.clock.Add(5 * day)
	if got := w.purge("max-age=10d"); len(got) > 0 || !w.there(uri) {
		t.Errorf("went although it was imported 5 days ago: %v", got)
	}
	w.clock = w.clock.Add(10 * day)
	if diff := cmp.Diff(map[string]string{made[0]: "max-age"}, w.purge("max-age=10d")); diff != "" {
		t.Errorf("what went (-want +got):\n%s", diff)
	}
	if w.there(uri) || w.get(ours).Gone() == "" {
		t.Errorf("the contents are there: %t, the import of them: %q", w.there(uri), w.get(ours).Gone())
	}
	if !w.there("minio://theirs/data") || w.get(theirs).Gone() != "" {
		t.Error("what was imported from elsewhere is gone")
	}
}

// TestDeletedRun: its artifacts go with it, object and contents, but those that
// others use, and those that are pinned.
func TestDeletedRun(t *testing.T) {
	w := newWorld(t)
	run, made := w.run(skiff.StateSucceeded, 5, 6, 7)
	other, _ := w.run(skiff.StateSucceeded)
	w.use(other, made[1])
	w.amend(made[2], func(a *skiff.Artifact) { a.Annotations = map[string]string{skiff.AnnotationPinned: "true"} })
	uris := []string{w.get(made[0]).Spec.URI, w.get(made[1]).Spec.URI, w.get(made[2]).Spec.URI}
	w.remove(run)
	w.finish(t)
	for i, gone := range []bool{true, false, false} {
		if (w.get(made[i]) == nil) != gone || w.there(uris[i]) == gone {
			t.Errorf("%s: object %v, contents there %t", made[i], w.get(made[i]), w.there(uris[i]))
		}
	}
}

func TestRetentionOfANamespace(t *testing.T) {
	w := newWorld(t)
	set := func(data map[string]string) {
		settings := &core.ConfigMap{ObjectMeta: core.ObjectMeta{Name: skiff.RetentionConfigMap, Namespace: space}, Data: data}
		w.commit(store.Op{Verb: store.Put, Kind: pod.ConfigMaps, Object: settings})
	}
	look := func() string {
		r, err := w.controller().Retention(t.Context(), space)
		if err != nil {
			return err.Error()
		}
		return r.String()
	}
	if got := look(); got != "" {
		t.Errorf("without any: %q", got)
	}
	set(map[string]string{"max-age": "2w", "max-bytes": "1GiB"})
	if got := look(); got != "max-age=14d,max-bytes=1GiB" {
		t.Errorf("got %q", got)
	}
	set(map[string]string{"max-age": "soon"})
	if got := look(); !strings.Contains(got, skiff.RetentionConfigMap) || !strings.Contains(got, "max-age") {
		t.Errorf("a value that is none: %q", got)
	}
}
