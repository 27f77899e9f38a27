package retention_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/engine/retention"
	"github.com/skiff-ml/skiff/store"
)

// TestAgainstModel draws histories of runs that make, use, import and pin, of
// deletions, and of looks at drawn bounds, some of which a kill breaks off, and
// compares what is there with a plain model of what must be.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "retention")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		h := &history{t: t, world: openWorld(t, dir)}
		defer h.close()
		steps := map[string]func(){
			"run": h.drawRun, "end": h.end, "pin": h.pin, "delete": h.delete, "hold": h.hold, "wait": h.wait, "look": h.drawLook,
		}
		names := slices.Sorted(maps.Keys(steps))
		for range rapid.IntRange(3, 20).Draw(t, "steps") {
			steps[rapid.SampledFrom(names).Draw(t, "step")]()
			h.check()
		}
		h.using = map[string]bool{}
		h.settle()
		h.check()
	})
}

// history is what was drawn.
type history struct {
	t *rapid.T
	*world
}

var errKilled = errors.New("killed")

func (h *history) pick(list []string, what string) (string, bool) {
	if len(list) == 0 {
		return "", false
	}
	return rapid.SampledFrom(list).Draw(h.t, what), true
}

func (h *history) artifacts(fits func(*skiff.Artifact) bool) []string {
	var names []string
	for _, a := range h.all() {
		if fits(a) {
			names = append(names, a.Name)
		}
	}
	return names
}

func living(a *skiff.Artifact) bool { return a.Gone() == "" }

func (h *history) allRuns() []*skiff.Run {
	list, _, err := store.AllAs[*skiff.Run](context.Background(), h.store, store.ListOptions{Kind: pipeline.Runs, Namespace: space})
	if err != nil {
		h.t.Fatalf("list runs: %v", err)
	}
	return list
}

func (h *history) runNames(fits func(*skiff.Run) bool) []string {
	var names []string
	for _, r := range h.allRuns() {
		if fits(r) {
			names = append(names, r.Name)
		}
	}
	return names
}

func (h *history) drawRun() {
	state := rapid.SampledFrom([]skiff.State{skiff.StateSucceeded, skiff.StateSucceeded, skiff.StateRunning}).Draw(h.t, "state")
	run, _ := h.run(state, rapid.SliceOfN(rapid.IntRange(1, 50), 0, 3).Draw(h.t, "sizes")...)
	made := h.artifacts(func(a *skiff.Artifact) bool { return living(a) && !a.Spec.Imported })
	name, any := h.pick(made, "of")
	if !any {
		return
	}
	switch rapid.IntRange(0, 4).Draw(h.t, "does") {
	case 0:
		h.use(run, name)
	case 1:
		h.reimport(run, name, h.get(name).Spec.URI)
	case 2: // names the place of another for its own output, as a component may
		h.artifact(run, run+"-same", h.get(name).Spec.URI, h.get(name).Status.Size, false)
	case 3: // the folder around it
		if of := h.get(name); strings.HasSuffix(of.Spec.URI, "/out") {
			h.artifact(run, run+"-around", strings.TrimSuffix(of.Spec.URI, "/out"), of.Status.Size, false)
		}
	}
}

func (h *history) end() {
	if name, any := h.pick(h.runNames(func(r *skiff.Run) bool { return !r.Status.State.Terminal() }), "run"); any {
		h.amendRun(name, func(r *skiff.Run) { r.Status.State = skiff.StateSucceeded })
	}
}

func (h *history) pin() {
	flip := func(annotations map[string]string) map[string]string {
		if annotations[skiff.AnnotationPinned] == "true" {
			return nil
		}
		return map[string]string{skiff.AnnotationPinned: "true"}
	}
	if rapid.Bool().Draw(h.t, "a run") {
		if name, any := h.pick(h.runNames(func(*skiff.Run) bool { return true }), "run"); any {
			h.amendRun(name, func(r *skiff.Run) { r.Annotations = flip(r.Annotations) })
		}
		return
	}
	if name, any := h.pick(h.artifacts(living), "artifact"); any {
		h.amend(name, func(a *skiff.Artifact) { a.Annotations = flip(a.Annotations) })
	}
}

func (h *history) delete() {
	if name, any := h.pick(h.runNames(func(r *skiff.Run) bool { return r.Status.State.Terminal() && !skiff.Pinned(r) }), "run"); any {
		h.remove(name)
	}
}

// hold has an engine refer to an artifact, or to none.
func (h *history) hold() {
	h.using = map[string]bool{}
	if name, any := h.pick(h.artifacts(living), "artifact"); any && rapid.Bool().Draw(h.t, "one") {
		h.using[name] = true
	}
}

func (h *history) wait() {
	h.clock = h.clock.Add(time.Duration(rapid.IntRange(1, 100).Draw(h.t, "hours")) * time.Hour)
}

// kept are the names of what may not go: by pins, by runs, by engines.
func (h *history) kept() map[string]bool {
	kept := maps.Clone(h.using)
	runs := map[string]bool{}
	for _, name := range h.runNames(func(r *skiff.Run) bool { return !r.Status.State.Terminal() || skiff.Pinned(r) }) {
		runs[name] = true
	}
	tasks, _, err := store.AllAs[*skiff.Task](context.Background(), h.store, store.ListOptions{Kind: pipeline.Tasks, Namespace: space})
	if err != nil {
		h.t.Fatalf("list tasks: %v", err)
	}
	for _, task := range tasks {
		if !runs[task.Spec.Run] {
			continue
		}
		for _, by := range []map[string][]string{task.Status.InputArtifacts, task.Status.OutputArtifacts} {
			for _, names := range by {
				for _, name := range names {
					kept[name] = true
				}
			}
		}
	}
	for _, a := range h.all() {
		if skiff.Pinned(a) || runs[a.Spec.Run] {
			kept[a.Name] = true
		}
	}
	return kept
}

// expected is what must go by bounds, worked out in the plainest way.
func (h *history) expected(bounds skiff.Retention) map[string]string {
	var list []*skiff.Artifact
	total := int64(0)
	for _, a := range h.all() {
		if living(a) && !a.Spec.Imported {
			list = append(list, a)
			total += a.Status.Size
		}
	}
	slices.SortStableFunc(list, func(a, b *skiff.Artifact) int { return a.LastUsed().Compare(b.LastUsed()) })
	var began []time.Time
	for _, r := range h.allRuns() {
		began = append(began, r.CreationTimestamp)
	}
	slices.SortFunc(began, func(a, b time.Time) int { return b.Compare(a) })
	kept, want := h.kept(), map[string]string{}
	for _, a := range list {
		reason := ""
		switch {
		case bounds.MaxAge > 0 && a.LastUsed().Before(h.clock.Add(-bounds.MaxAge)):
			reason = skiff.RetainMaxAge
		case bounds.MaxRuns > 0 && len(began) > bounds.MaxRuns && a.LastUsed().Before(began[bounds.MaxRuns-1]):
			reason = skiff.RetainMaxRuns
		case bounds.MaxBytes > 0 && total > bounds.MaxBytes:
			reason = skiff.RetainMaxBytes
		}
		if reason == "" || kept[a.Name] {
			continue
		}
		want[a.Name] = reason
		total -= a.Status.Size
	}
	return want
}

// drawLook looks at drawn bounds, dry and in earnest, and may be killed at any
// removal.
func (h *history) drawLook() {
	var bounds skiff.Retention
	switch rapid.IntRange(0, 3).Draw(h.t, "bounds") {
	case 0:
		bounds.MaxAge = time.Duration(rapid.IntRange(1, 100).Draw(h.t, "hours")) * time.Hour
	case 1:
		bounds.MaxRuns = rapid.IntRange(1, 5).Draw(h.t, "runs")
	case 2:
		bounds.MaxBytes = int64(rapid.IntRange(1, 200).Draw(h.t, "bytes"))
	default:
		bounds = skiff.Retention{MaxAge: 50 * time.Hour, MaxRuns: 3, MaxBytes: 80}
	}
	want := h.expected(bounds)
	// Where two were used at one moment, either may go first for the bytes.
	exact := bounds.MaxBytes == 0
	if dry := h.look(bounds.String(), true); exact && !cmp.Equal(want, dry) {
		h.t.Fatalf("%s: would go (-want +got):\n%s", bounds, cmp.Diff(want, dry))
	}
	kill := rapid.IntRange(-1, 3).Draw(h.t, "killed at removal")
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	h.broken = func(string) error {
		if kill--; kill == 0 {
			cancel(errKilled)
			return errKilled
		}
		return nil
	}
	report, err := h.controller().Purge(ctx, space, bounds, false)
	h.broken = nil
	if errors.Is(err, errKilled) {
		return // check and settle see what that left
	}
	if err != nil {
		h.t.Fatalf("%s: %v", bounds, err)
	}
	went := map[string]string{}
	for _, item := range report.Items {
		went[item.Name] = item.Reason
	}
	if exact && !cmp.Equal(want, went) {
		h.t.Fatalf("%s: went (-want +got):\n%s", bounds, cmp.Diff(want, went))
	}
	if left := h.expected(bounds); len(left) > 0 {
		h.t.Fatalf("%s: %v should have gone, too", bounds, left)
	}
}

// settle finishes everything, as the next daemon does.
func (h *history) settle() {
	c, err := retention.New(retention.Config{Store: h.store, Contents: h.world, Using: func(*skiff.Artifact) bool { return false }, Now: func() time.Time { return h.clock }})
	if err != nil {
		h.t.Fatalf("new controller: %v", err)
	}
	if err := c.Finish(context.Background()); err != nil {
		h.t.Fatalf("finish: %v", err)
	}
	kept := h.kept()
	for _, a := range h.all() {
		marked := a.Status.Purged != nil && a.Status.Purged.RemovedAt.IsZero()
		switch {
		case marked && kept[a.Name]:
			h.t.Fatalf("%s is needed and its mark stays", a.Name)
		case (marked || a.DeletionTimestamp != nil) && !kept[a.Name] && !h.sharedByLiving(a):
			h.t.Fatalf("%s is not settled: %+v", a.Name, a.Status.Purged)
		}
	}
}

// overlap reports whether one of two URIs lies in the other.
func overlap(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/")
}

func (h *history) sharedByLiving(a *skiff.Artifact) bool {
	return slices.ContainsFunc(h.all(), func(other *skiff.Artifact) bool {
		return living(other) && other.Name != a.Name && overlap(other.Spec.URI, a.Spec.URI)
	})
}

// check holds at every moment, killed or not.
func (h *history) check() {
	for _, a := range h.all() {
		switch {
		case living(a) && !h.there(a.Spec.URI):
			h.t.Fatalf("%s is kept and its contents are gone", a.Name)
		case skiff.Pinned(a) && a.Gone() != "": // only what can be had is pinned
			h.t.Fatalf("%s was to stay and is gone: %s", a.Name, a.Gone())
		case a.Status.Purged != nil && !a.Status.Purged.RemovedAt.IsZero() && !a.Spec.Imported && h.there(a.Spec.URI) && !h.sharedByLiving(a) && !h.sharedByPending(a):
			h.t.Fatalf("%s is settled and its contents are there", a.Name)
		}
	}
}

func (h *history) sharedByPending(a *skiff.Artifact) bool {
	return slices.ContainsFunc(h.all(), func(other *skiff.Artifact) bool {
		return other.Name != a.Name && overlap(other.Spec.URI, a.Spec.URI) &&
			(other.DeletionTimestamp != nil || (other.Status.Purged != nil && other.Status.Purged.RemovedAt.IsZero()))
	})
}
