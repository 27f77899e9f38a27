package pipeline

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// reproduced makes a reproduction and waits for its end.
func (r *rig) reproduced(t *testing.T, name string, anyImage bool) *skiff.Run {
	t.Helper()
	run, err := r.c.Reproduce(t.Context(), space, name, anyImage)
	if err != nil {
		t.Fatal(err)
	}
	return r.ended(run.Name)
}

func TestReproduce(t *testing.T) {
	r := newRig(t, nil)
	name := r.submit("simple", with("do", ""))
	original := r.ended(name)
	r.states(original, skiff.StateSucceeded, map[string]string{"step": "SUCCEEDED", "after": "SUCCEEDED"})
	again := r.reproduced(t, name, false)
	r.states(again, skiff.StateSucceeded, map[string]string{"step": "SUCCEEDED", "after": "SUCCEEDED"})
	if n := r.world.began("step"); n != 2 {
		t.Errorf("the step was executed %d times, want once in each run", n)
	}
	if again.Spec.Reproduces != name || again.Spec.Manifest != original.Spec.Manifest || !again.Spec.DisableCache {
		t.Errorf("the reproduction is %+v", again.Spec)
	}
	if diff := cmp.Diff(original.Spec.Parameters, again.Spec.Parameters); diff != "" {
		t.Errorf("parameters (-original +again):\n%s", diff)
	}
	image := r.tasks(name)["step"].Status
	if diff := cmp.Diff([]string{image.ImageDigest}, again.Spec.Images[image.Image]); diff != "" || image.ImageDigest == "" {
		t.Errorf("%s is pinned (-want +got):\n%s", image.Image, diff)
	}
}

// TestReproduceHoldsImages: a step whose image is another by now does not run,
// unless that is wanted.
func TestReproduceHoldsImages(t *testing.T) {
	r := newRig(t, nil)
	name := r.submit("simple", with("do", ""))
	r.ended(name)
	const other = "sha256:of-another-machine"
	task := r.tasks(name)["step"]
	task.Status.ImageDigest = other
	if _, err := r.store.Commit(t.Context(), store.Op{Verb: store.Update, Kind: Tasks, Object: task}); err != nil {
		t.Fatal(err)
	}
	after := r.tasks(name)["after"]
	after.Status.ImageDigest = ""
	if _, err := r.store.Commit(t.Context(), store.Op{Verb: store.Update, Kind: Tasks, Object: after}); err != nil {
		t.Fatal(err)
	}
	began := r.world.began("step")
	again := r.reproduced(t, name, false)
	if again.Status.State != skiff.StateFailed || r.world.began("step") != began {
		t.Errorf("with another image it ended %s", again.Status.State)
	}
	if message := r.tasks(again.Name)["step"].Status.Message; !strings.Contains(message, other) {
		t.Errorf("the step says %q; want the digest that is wanted", message)
	}
	if again := r.reproduced(t, name, true); again.Status.State != skiff.StateSucceeded {
		t.Errorf("with any image it ended %s", again.Status.State)
	}
	// An image that came with the run is known by its id, too.
	if _, err := store.ModifyAs(t.Context(), r.store, store.Key{Kind: Runs, Namespace: space, Name: name}, func(run *skiff.Run) error {
		run.Status.Imported = &skiff.RunImport{Images: map[string]string{other: "memory:" + task.Status.Image}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if again := r.reproduced(t, name, false); again.Status.State != skiff.StateSucceeded {
		t.Errorf("with the image's id it ended %s: %s", again.Status.State, again.Status.Message)
	}
	if err := r.c.Retry(t.Context(), space, name); !errors.Is(err, store.ErrConflict) {
		t.Errorf("retry of an imported run: %v", err)
	}
}

func TestReproduceRefuses(t *testing.T) {
	r := newRig(t, nil)
	if _, err := r.c.Reproduce(t.Context(), space, "none", false); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no such run: %v", err)
	}
	name := r.submit("simple", with("do", "hold gate"))
	if _, err := r.c.Reproduce(t.Context(), space, name, false); !errors.Is(err, problem.ErrInvalid) {
		t.Errorf("a run that runs: %v", err)
	}
	r.world.open("gate")
	r.ended(name)
}
