package pipeline

import (
	"context"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// purge gives an artifact's contents up, as engine/retention does.
func (r *rig) purge(name string) {
	r.t.Helper()
	key := store.Key{Kind: Artifacts, Namespace: space, Name: name}
	a, err := store.ModifyAs(context.Background(), r.store, key, func(a *skiff.Artifact) error {
		a.Status.Purged = &skiff.Purge{At: r.c.now(), RemovedAt: r.c.now(), Reason: skiff.RetainMaxAge, Message: "it is old"}
		return nil
	})
	if err == nil {
		err = r.repository.Delete(context.Background(), space, a.Spec.URI)
	}
	if err != nil {
		r.t.Fatalf("purge: %v", err)
	}
}

// TestPurgedIsNoHit: what is gone is no result, even where something lies at its
// place, and the reason says why.
func TestPurgedIsNoHit(t *testing.T) {
	r := newRig(t, nil)
	first := r.finish("cached", with("text", "weights"))
	name := first.Status.OutputArtifacts["model"][0]
	hit := r.finish("cached", with("text", "weights"))
	if hit.Status.OutputArtifacts["model"][0] != name {
		t.Fatal("the second run is no hit")
	}
	r.await("the use to be noted", func() bool { return !r.artifactNamed(name).Status.UsedAt.IsZero() })
	if a := r.artifactNamed(name); a.LastUsed() != a.Status.UsedAt || !a.OutlivesRun() {
		t.Errorf("used: %+v", a.Status)
	}
	r.purge(name)
	third := r.finish("cached", with("text", "weights"))
	r.outputs(third, map[string]string{"out": `"weights"`})
	if third.Status.OutputArtifacts["model"][0] == name {
		t.Error("a run was given what is gone")
	}
	reason := r.cacheReasons(third)["make"]
	if !strings.HasPrefix(reason, "miss: ") || !strings.Contains(reason, "its contents were removed") || !strings.Contains(reason, "it is old") {
		t.Errorf("reason: %s", reason)
	}
}

// TestRetryAfterPurge: a step whose results are gone is begun again, and so is
// what waited for it.
func TestRetryAfterPurge(t *testing.T) {
	for _, what := range []string{"purged", "deleted"} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, nil)
			name := r.submit("cached", func(sub *Submission) {
				with("text", "weights")(sub)
				sub.DisableCache = true
				sub.Package = []byte(strings.Replace(string(sub.Package), `["cat out {{$.inputs.artifacts['model'].path}}"]`,
					`["until 1; cat out {{$.inputs.artifacts['model'].path}}"]`, 1))
				sub.Package = []byte(strings.Replace(string(sub.Package), "dependentTasks: [make], ", "dependentTasks: [make], retryPolicy: {maxRetryCount: 0}, ", 1))
			})
			r.states(r.ended(name), skiff.StateFailed, map[string]string{"make": "SUCCEEDED", "read": "FAILED"})
			model := r.tasks(name)["make"].Status.OutputArtifacts["model"][0]
			r.purge(model)
			if what == "deleted" {
				_, err := store.ModifyAs(t.Context(), r.store, store.Key{Kind: Artifacts, Namespace: space, Name: model}, func(a *skiff.Artifact) error {
					a.Finalizers = nil
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				r.remove(Artifacts, model)
			}
			r.retry(name)
			run := r.ended(name)
			r.states(run, skiff.StateSucceeded, map[string]string{"make": "SUCCEEDED x2", "read": "SUCCEEDED x2"})
			r.outputs(run, map[string]string{"out": `"weights"`})
		})
	}
}

// TestUsing: an artifact is in use for as long as a run refers to it, by whatever
// name, and no longer.
func TestUsing(t *testing.T) {
	r := newRig(t, nil)
	made := r.finish("cached", with("text", "weights"))
	model := r.artifactNamed(made.Status.OutputArtifacts["model"][0])
	r.await("the run to be let go", func() bool { return r.c.execution(space, made.Name) == nil && !r.c.Using(model) })
	name := r.submit("root_artifact", func(sub *Submission) {
		with("model", model.Spec.URI)(sub)
		sub.Package = []byte(strings.Replace(string(sub.Package), `["cat out`, `["hold gate; cat out`, 1))
	})
	r.held(name, "read")
	around := &skiff.Artifact{Spec: skiff.ArtifactSpec{URI: model.Spec.URI[:strings.LastIndexByte(model.Spec.URI, '/')]}}
	around.Namespace = space
	elsewhere := &skiff.Artifact{Spec: skiff.ArtifactSpec{URI: model.Spec.URI + "-other"}}
	elsewhere.Namespace = space
	if !r.c.Using(model) || !r.c.Using(around) || r.c.Using(elsewhere) {
		t.Errorf("in use: %t; around it: %t; beside it: %t", r.c.Using(model), r.c.Using(around), r.c.Using(elsewhere))
	}
	r.world.open("gate")
	r.ended(name)
	r.down()
	if r.c.Using(model) {
		t.Error("in use after the end")
	}
	r.up()
}

// TestPurgedImport: an import whose contents were given up is no earlier import.
func TestPurgedImport(t *testing.T) {
	r := newRig(t, nil)
	imported := func() string {
		return r.tasks(r.finish("imports", with("uri", "minio://data/x")).Name)["known"].Status.OutputArtifacts["artifact"][0]
	}
	first := imported()
	if imported() != first {
		t.Fatal("the same import is another artifact")
	}
	r.purge(first)
	if imported() == first {
		t.Error("an import was given what is gone")
	}
}
