package portable_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/bundle"
	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/portable"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

// TestRoundTrip takes a pipeline with its runs and artifacts to another state
// and looks at everything there.
func TestRoundTrip(t *testing.T) {
	from, to := newHome(t), newHome(t)
	p, v := from.keep(t, "train", trainYAML)
	run := from.ran(t, &skiff.PipelineVersionReference{PipelineID: p.UID, VersionID: v.UID})
	byHand := from.ran(t, nil) // of the same compiled form
	data := from.export(t, portable.ExportRequest{Pipeline: "train", Runs: true, Artifacts: true})
	from.clean(t)

	r, err := bundle.NewReader(bytes.NewReader(data), bundle.Limits{})
	must(t, err)
	m := r.Manifest()
	wantNeeds := []bundle.Need{
		{Kind: "ConfigMap", Name: "settings", Optional: true},
		{Kind: "PersistentVolumeClaim", Name: "data"},
		{Kind: "Secret", Name: "db", Keys: []string{"password"}},
	}
	if diff := cmp.Diff(wantNeeds, m.Needs); diff != "" {
		t.Errorf("needs (-want +got):\n%s", diff)
	}
	if len(m.Runs) != 2 || len(m.Pipelines) != 1 || len(m.Artifacts) != 4 || m.Images[0].Refs[0] != "python:3.11" {
		t.Errorf("manifest: %+v", m)
	}

	dry, err := to.take(t, portable.ImportRequest{DryRun: true}, data)
	must(t, err)
	if to.count(t, runs) != 0 || to.count(t, pipelines) != 0 {
		t.Error("a dry run made something")
	}
	report, err := to.take(t, portable.ImportRequest{}, data)
	must(t, err)
	if diff := cmp.Diff(dry, report); diff != "" {
		t.Errorf("the dry run said otherwise (-dry +real):\n%s", diff)
	}
	slices.Sort(report.Created)
	want := []string{"pipeline train", "pipeline version v1", "run " + byHand.Name, "run " + run.Name}
	slices.Sort(want)
	if diff := cmp.Diff(want, report.Created); diff != "" || report.Artifacts != 4 || len(report.Present) != 0 {
		t.Errorf("report: %+v\n%s", report, diff)
	}
	// The config map may be missing.
	if diff := cmp.Diff(wantNeeds[1:], report.Missing); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	to.clean(t)

	got := to.getRun(t, run.Name)
	if got.UID != run.UID || got.Status.State != skiff.StateSucceeded || got.Labels["team"] != "a" || got.Status.Imported == nil ||
		got.Status.Imported.Store != from.store.ID() || got.Status.Imported.At.IsZero() || got.Spec.PipelineVersion.PipelineID != p.UID {
		t.Errorf("the run became %+v", got)
	}
	obj, err := to.store.Get(t.Context(), store.Key{Kind: experiments, Namespace: space, Name: got.Spec.Experiment})
	must(t, err)
	if obj.(*skiff.Experiment).Spec.DisplayName != "ours" {
		t.Errorf("its experiment is %+v", obj)
	}
	task, err := store.GetAs[*skiff.Task](t.Context(), to.store, store.Key{Kind: tasks, Namespace: space, Name: run.Name + "-step-1"})
	must(t, err)
	if task.Status.Pod != "" || task.Status.CacheKey != "" || string(task.Status.Outputs["accuracy"]) != "0.9" {
		t.Errorf("the task became %+v", task.Status)
	}
	for _, output := range []string{"model", "report"} {
		a, err := store.GetAs[*skiff.Artifact](t.Context(), to.store, store.Key{Kind: artifacts, Namespace: space, Name: task.Name + "-" + output})
		must(t, err)
		digest, err := to.repository.Digest(t.Context(), space, a.Spec.URI)
		must(t, err)
		if digest.Digest != a.Status.Digest || a.OwnerReferences[0].UID != run.UID {
			t.Errorf("%s has the digest %s, its object %+v", output, digest.Digest, a)
		}
		at, err := to.repository.Locate(space, a.Spec.URI)
		must(t, err)
		if st, err := os.Stat(at.HostPath); err != nil || st.Mode().Perm()&0o222 != 0 {
			t.Errorf("%s can be written: %v, %v", output, st.Mode(), err)
		}
		if output == "model" {
			if st, err := os.Stat(at.HostPath + "/sub/run.sh"); err != nil || st.Mode().Perm() != 0o555 {
				t.Errorf("the program in it has mode %v, %v", st.Mode(), err)
			}
		}
	}

	// Again: it is all there, and nothing changes.
	revision := to.store.Revision()
	again, err := to.take(t, portable.ImportRequest{}, data)
	must(t, err)
	if len(again.Created) != 0 || len(again.Present) != 4 || again.Artifacts != 0 || to.store.Revision() != revision {
		t.Errorf("the second time: %+v, revision %d after %d", again, to.store.Revision(), revision)
	}
	// Where it came from, too.
	back, err := from.take(t, portable.ImportRequest{}, data)
	must(t, err)
	if len(back.Created) != 0 || from.getRun(t, run.Name).Status.Imported != nil {
		t.Errorf("at home: %+v", back)
	}
	// What came can go on, and says where it was first.
	third := newHome(t)
	_, err = third.take(t, portable.ImportRequest{}, to.export(t, portable.ExportRequest{Run: run.Name, Artifacts: true}))
	must(t, err)
	if imported := third.getRun(t, run.Name).Status.Imported; imported.Store != from.store.ID() {
		t.Errorf("at the third place it comes from %+v", imported)
	}
}

func TestAs(t *testing.T) {
	from, to := newHome(t), newHome(t)
	p, v := from.keep(t, "train", trainYAML)
	from.ran(t, &skiff.PipelineVersionReference{PipelineID: p.UID, VersionID: v.UID})
	to.keep(t, "train", strings.ReplaceAll(trainYAML, "name: train", "name: other"))
	data := from.export(t, portable.ExportRequest{Pipeline: "train", Runs: true})
	if _, err := to.take(t, portable.ImportRequest{}, data); !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), "--as NAME") {
		t.Fatalf("two pipelines of a name: %v", err)
	}
	if to.count(t, runs) != 0 || to.count(t, versions) != 1 {
		t.Error("a refused bundle left something")
	}
	for i := range 2 {
		report, err := to.take(t, portable.ImportRequest{As: "Train it!"}, data)
		must(t, err)
		if (i == 0) != (len(report.Created) > 0) {
			t.Errorf("time %d: %+v", i+1, report)
		}
	}
	renamed, err := store.GetAs[*kfp.Pipeline](t.Context(), to.store, store.Key{Kind: pipelines, Namespace: space, Name: kfp.ObjectName("Train it!")})
	must(t, err)
	if kfp.NameOf(&renamed.ObjectMeta) != "Train it!" || renamed.UID == p.UID {
		t.Errorf("renamed: %+v", renamed)
	}
	page, err := to.store.List(t.Context(), store.ListOptions{Kind: runs})
	must(t, err)
	ref := page.Items[0].(*skiff.Run).Spec.PipelineVersion
	if ref.PipelineID != renamed.UID || ref.VersionID == v.UID || ref.VersionID == "" {
		t.Errorf("the run is of %+v", ref)
	}
	// Beside the first one, its id is another's.
	if _, err := from.take(t, portable.ImportRequest{Namespace: "other"}, from.export(t, portable.ExportRequest{Pipeline: "train"})); err == nil || !strings.Contains(err.Error(), "its id") {
		t.Errorf("into another namespace of the same state: %v", err)
	}
	_, err = from.take(t, portable.ImportRequest{As: "copy"}, from.export(t, portable.ExportRequest{Pipeline: "train"}))
	must(t, err)
	if _, err := to.take(t, portable.ImportRequest{As: "x"}, from.export(t, portable.ExportRequest{Run: page.Items[0].Metadata().Name})); err == nil || !strings.Contains(err.Error(), "0 pipelines") {
		t.Errorf("--as for a run: %v", err)
	}
}

func TestExportRefuses(t *testing.T) {
	h := newHome(t)
	run := h.ran(t, nil)
	h.keep(t, "train", trainYAML)
	running := *run
	running.ObjectMeta = core.ObjectMeta{Name: "00000000-0000-7000-8000-000000000000", Namespace: space}
	running.Status.State = skiff.StateRunning
	h.commit(t, runs, &running)
	for name, tc := range map[string]struct {
		req  portable.ExportRequest
		want string
	}{
		"nothing":            {portable.ExportRequest{}, "a pipeline or a run"},
		"no such run":        {portable.ExportRequest{Run: "none"}, "not found"},
		"no such pipeline":   {portable.ExportRequest{Pipeline: "none"}, "not found"},
		"a run that runs":    {portable.ExportRequest{Run: running.Name}, "only a run that has ended"},
		"artifacts of none":  {portable.ExportRequest{Pipeline: "train", Artifacts: true}, "its runs have"},
		"images without any": {portable.ExportRequest{Run: run.Name, Images: true}, "no container images"},
	} {
		req := tc.req
		req.Namespace = space
		if _, err := h.Export(t.Context(), req); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want %q", name, err, tc.want)
		}
	}
	h.clean(t)
	// A run that still goes on is left out of its pipeline's.
	e, err := h.Export(t.Context(), portable.ExportRequest{Namespace: space, Pipeline: "train", Runs: true})
	must(t, err)
	if n := len(e.Manifest().Runs); n != 1 {
		t.Errorf("%d runs are exported, want the one that has ended", n)
	}
	must(t, e.Close())
}

// TestExportFindsChanges: contents that are no longer what was recorded are not
// exported as if they were.
func TestExportFindsChanges(t *testing.T) {
	for _, output := range []string{"model/weights.bin", "report"} {
		h := newHome(t)
		run := h.ran(t, nil)
		must(t, h.HashRun(t.Context(), run))
		at, err := h.repository.Locate(space, "minio://mlpipeline/v2/artifacts/train/"+run.Name+"/step/1/"+output)
		must(t, err)
		must(t, os.Chmod(at.HostPath, 0o600))
		must(t, os.WriteFile(at.HostPath, []byte("spoilt"), 0o600))
		e, err := h.Export(t.Context(), portable.ExportRequest{Namespace: space, Run: run.Name, Artifacts: true})
		if err == nil {
			err = errors.Join(e.Write(t.Context(), io.Discard), e.Close())
		}
		if !errors.Is(err, bundle.ErrChanged) {
			t.Errorf("%s: %v; want ErrChanged", output, err)
		}
	}
}

// repack changes a bundle's objects, digests and all, as somebody would who
// means harm.
func repack(t *testing.T, data []byte, m func(*bundle.Manifest), line func(entry string, object map[string]any) map[string]any) []byte {
	t.Helper()
	r, err := bundle.NewReader(bytes.NewReader(data), bundle.Limits{})
	must(t, err)
	manifest := *r.Manifest()
	manifest.Entries = slices.Clone(manifest.Entries)
	var contents [][]byte
	for i := 0; ; i++ {
		entry, in, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		text, err := io.ReadAll(in)
		must(t, err)
		if strings.HasPrefix(entry.Path, "objects/") && line != nil {
			var out bytes.Buffer
			for one := range bytes.Lines(text) {
				var object map[string]any
				must(t, json.Unmarshal(one, &object))
				if object = line(entry.Path, object); object != nil {
					must(t, json.NewEncoder(&out).Encode(object))
				}
			}
			text = out.Bytes()
		}
		manifest.Entries[i].Size, manifest.Entries[i].SHA256 = int64(len(text)), hashOf(text)
		contents = append(contents, text)
	}
	if m != nil {
		m(&manifest)
	}
	var out bytes.Buffer
	w, err := bundle.NewWriter(&out, &manifest, bundle.Stored)
	must(t, err)
	for _, text := range contents {
		must(t, w.Add(bytes.NewReader(text)))
	}
	must(t, w.Close())
	return out.Bytes()
}

// at finds the part of an object at a path of keys.
func at(object map[string]any, keys ...string) map[string]any {
	for _, key := range keys {
		next, _ := object[key].(map[string]any)
		if next == nil {
			next = map[string]any{}
			object[key] = next
		}
		object = next
	}
	return object
}

// TestHostile: what a bundle's objects may not say. Nothing is written.
func TestHostile(t *testing.T) {
	from := newHome(t)
	p, v := from.keep(t, "train", trainYAML)
	run := from.ran(t, &skiff.PipelineVersionReference{PipelineID: p.UID, VersionID: v.UID})
	data := from.export(t, portable.ExportRequest{Pipeline: "train", Runs: true, Artifacts: true})
	to := newHome(t)
	of := func(kind string, change func(map[string]any)) func(string, map[string]any) map[string]any {
		return func(_ string, object map[string]any) map[string]any {
			if object["kind"] == kind {
				change(object)
			}
			return object
		}
	}
	report := func(change func(map[string]any)) func(string, map[string]any) map[string]any {
		return func(_ string, object map[string]any) map[string]any {
			if object["kind"] == "Artifact" && at(object, "spec")["output"] == "report" {
				change(object)
			}
			return object
		}
	}
	for _, tc := range []struct {
		name     string
		manifest func(*bundle.Manifest)
		line     func(string, map[string]any) map[string]any
		want     string
	}{
		{name: "a run that would run", line: of("Run", func(o map[string]any) { at(o, "status")["state"] = "RUNNING" }), want: "nothing of an import is ever run"},
		{name: "a run without a state", line: of("Run", func(o map[string]any) { delete(at(o, "status"), "state") }), want: "nothing of an import is ever run"},
		{name: "a task that would run", line: of("Task", func(o map[string]any) { at(o, "status")["state"] = "PENDING" }), want: `its state is "PENDING"`},
		{name: "a task of another run", line: of("Task", func(o map[string]any) { at(o, "spec")["run"] = "other" }), want: "missing or another one"},
		{name: "a task named after another run", line: of("Task", func(o map[string]any) { at(o, "metadata")["name"] = "other-step" }), want: "missing or another one"},
		{name: "a secret", line: of("Task", func(o map[string]any) { o["kind"] = "Secret" }), want: `the kind "Secret" has no place`},
		{name: "a pod", line: of("Task", func(o map[string]any) { o["kind"] = "Pod" }), want: `the kind "Pod" has no place`},
		{name: "a recurring run", line: of("Task", func(o map[string]any) { o["kind"] = "RecurringRun" }), want: "has no place"},
		{name: "a run among pipelines", line: of("PipelineVersion", func(o map[string]any) { o["kind"] = "Run" }), want: "has no place"},
		{name: "an unknown field", line: of("Run", func(o map[string]any) { at(o, "spec")["command"] = "rm -rf /" }), want: "not what this skiff knows"},
		{name: "a name with a path", line: of("Task", func(o map[string]any) { at(o, "metadata")["name"] = "../../x" }), want: "its name is"},
		{name: "no uid", line: of("Run", func(o map[string]any) { at(o, "metadata")["uid"] = "x" }), want: "its uid is"},
		{name: "an entry of nothing", line: func(string, map[string]any) map[string]any { return nil }, want: "does not hold"},
		{name: "another pipeline under the hash", line: of("PipelineManifest", func(o map[string]any) { at(o, "pipelineSpec", "pipelineInfo")["name"] = "evil" }), want: "its contents have the hash"},
		{name: "a pipeline that is none", line: of("PipelineVersion", func(o map[string]any) { at(o, "spec")["pipelineSpec"] = map[string]any{} }), want: "version v1 of pipeline train"},
		{name: "a run without its pipeline", line: func(_ string, o map[string]any) map[string]any {
			if o["kind"] == "PipelineManifest" {
				return nil
			}
			return o
		}, want: "its pipeline, "},
		{name: "a version of another pipeline", line: of("PipelineVersion", func(o map[string]any) { at(o, "spec")["pipelineName"] = "other" }), want: "has no pipeline"},
		{name: "a version under another name", line: of("PipelineVersion", func(o map[string]any) { at(o, "metadata", "annotations")["skiff.dev/name"] = "v2" }), want: "not called what its object is"},
		{name: "tags too long", line: of("Pipeline", func(o map[string]any) { at(o, "spec", "tags")[strings.Repeat("x", 100)] = "y" }), want: "more than 63 characters"},
		{name: "a place that is none", line: report(func(o map[string]any) { at(o, "spec")["uri"] = "file:///etc/passwd" }), want: "scheme must be"},
		{name: "a place outside", line: report(func(o map[string]any) { at(o, "spec")["uri"] = "minio://a/../../../etc/x" }), want: "path segment"},
		{name: "a place in another's", line: report(func(o map[string]any) {
			uri := at(o, "spec")["uri"].(string)
			at(o, "spec")["uri"] = strings.Replace(uri, "/report", "/model/weights.bin", 1)
		}), want: "nothing is put into one"},
		{name: "two in one place", line: report(func(o map[string]any) {
			at(o, "spec")["uri"] = strings.Replace(at(o, "spec")["uri"].(string), "/report", "/model", 1)
		}), want: "another's too"},
		{name: "another digest", line: report(func(o map[string]any) { at(o, "status")["digest"] = "sha256:" + strings.Repeat("0", 64) }), want: "is said to have"},
		{name: "contents of nothing", line: func(_ string, o map[string]any) map[string]any {
			if o["kind"] == "Artifact" && at(o, "spec")["output"] == "report" {
				return nil
			}
			return o
		}, want: "its contents are there and it is not"},
		{name: "another tree", manifest: func(m *bundle.Manifest) {
			for i := range m.Artifacts {
				if m.Artifacts[i].Folder {
					m.Artifacts[i].Folders = append(m.Artifacts[i].Folders, "more")
				}
			}
		}, want: "is said to have"},
		{name: "a need of another kind", manifest: func(m *bundle.Manifest) { m.Needs[0].Kind = "Pod" }, want: "needs a"},
		{name: "JSON that is none", manifest: nil, line: nil, want: "is not JSON"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spoilt := repack(t, data, tc.manifest, tc.line)
			if tc.name == "JSON that is none" {
				spoilt = broken(t)
			}
			report, err := to.take(t, portable.ImportRequest{}, spoilt)
			if err == nil {
				t.Fatalf("it was taken: %+v", report)
			}
			if !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v; want a refusal with %q", err, tc.want)
			}
			for _, kind := range []string{runs, tasks, artifacts, pipelines, versions, experiments} {
				if n := to.count(t, kind); n != 0 {
					t.Errorf("%d %s were made", n, kind)
				}
			}
			if to.repository.Exists(space, "minio://mlpipeline/v2/artifacts/train/"+run.Name+"/step/1/model") {
				t.Error("contents were put in their place")
			}
			to.clean(t)
		})
	}
	// Unspoilt, it is taken.
	_, err := to.take(t, portable.ImportRequest{}, repack(t, data, nil, nil))
	must(t, err)
}

// broken is a bundle whose objects are no JSON.
func broken(t *testing.T) []byte {
	t.Helper()
	text := []byte(`{"kind":`)
	m := &bundle.Manifest{Format: bundle.Format, Version: bundle.Version, Namespace: space,
		Entries: []bundle.Entry{{Path: "objects/runs/x.jsonl", Size: int64(len(text)), SHA256: hashOf(text)}}}
	var out bytes.Buffer
	w, err := bundle.NewWriter(&out, m, bundle.Uncompressed)
	must(t, err)
	must(t, errors.Join(w.Add(bytes.NewReader(text)), w.Close()))
	return out.Bytes()
}

// TestHarmless: what is let through without its power.
func TestHarmless(t *testing.T) {
	from, to := newHome(t), newHome(t)
	run := from.ran(t, nil)
	data := repack(t, from.export(t, portable.ExportRequest{Run: run.Name}), nil, func(_ string, o map[string]any) map[string]any {
		meta := at(o, "metadata")
		meta["finalizers"] = []string{"never/leaves"}
		meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
		meta["namespace"] = "kube-system"
		if o["kind"] == "Task" || o["kind"] == "Run" {
			meta["ownerReferences"] = []map[string]any{{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "y"}}
		}
		return o
	})
	_, err := to.take(t, portable.ImportRequest{}, data)
	must(t, err)
	for _, kind := range []string{runs, tasks, artifacts, experiments} {
		page, err := to.store.List(t.Context(), store.ListOptions{Kind: kind})
		must(t, err)
		if len(page.Items) == 0 {
			t.Errorf("no %s came", kind)
		}
		for _, obj := range page.Items {
			meta := obj.Metadata()
			if len(meta.Finalizers) > 0 || meta.DeletionTimestamp != nil || meta.Namespace != space || (kind != artifacts && len(meta.OwnerReferences) > 0) {
				t.Errorf("%s came as %+v", kind, meta)
			}
		}
	}
}

// TestConflicts: what is here stays as it is.
func TestConflicts(t *testing.T) {
	from := newHome(t)
	run := from.ran(t, nil)
	data := from.export(t, portable.ExportRequest{Run: run.Name, Artifacts: true})
	uri := "minio://mlpipeline/v2/artifacts/train/" + run.Name + "/step/1/report"

	t.Run("another run", func(t *testing.T) {
		to := newHome(t)
		mine := *run
		mine.ResourceVersion, mine.Spec.Parameters = "", nil
		to.commit(t, runs, &mine)
		if _, err := to.take(t, portable.ImportRequest{}, data); !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), "with other contents") {
			t.Errorf("got %v", err)
		}
		to.clean(t)
	})
	t.Run("what people changed", func(t *testing.T) {
		to := newHome(t)
		_, err := to.take(t, portable.ImportRequest{}, data)
		must(t, err)
		mine := to.getRun(t, run.Name)
		mine.Spec.DisplayName, mine.Spec.Archived, mine.Labels = "better", true, nil
		to.commit(t, runs, mine)
		_, err = to.take(t, portable.ImportRequest{}, data)
		must(t, err)
		if got := to.getRun(t, run.Name); got.Spec.DisplayName != "better" {
			t.Errorf("it was changed back: %+v", got.Spec)
		}
	})
	t.Run("other contents", func(t *testing.T) {
		to := newHome(t)
		place, err := to.repository.Locate(space, uri)
		must(t, err)
		write(t, place.HostPath, "mine")
		if _, err := to.take(t, portable.ImportRequest{}, data); !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), "something else") {
			t.Errorf("got %v", err)
		}
		if text, err := os.ReadFile(place.HostPath); err != nil || string(text) != "mine" {
			t.Errorf("what was there is %q, %v", text, err)
		}
		to.clean(t)
	})
	t.Run("a place that fills up meanwhile", func(t *testing.T) {
		to := newHome(t)
		place, err := to.repository.Locate(space, uri)
		must(t, err)
		to.Between(func(step string) error {
			if step == "noted" {
				write(t, place.HostPath, "mine")
			}
			return nil
		})
		if _, err := to.take(t, portable.ImportRequest{}, data); err == nil {
			t.Error("it was taken")
		}
		if text, err := os.ReadFile(place.HostPath); err != nil || string(text) != "mine" {
			t.Errorf("what was there is %q, %v", text, err)
		}
		if to.count(t, runs) != 0 || to.repository.Exists(space, strings.Replace(uri, "report", "model", 1)) {
			t.Error("half of it is there")
		}
		to.clean(t)
	})
	t.Run("no room", func(t *testing.T) {
		to := openHome(t, t.TempDir(), func(c *portable.Config) { c.Limits.Bytes = 100 })
		if _, err := to.take(t, portable.ImportRequest{}, data); !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), "room") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a namespace that is none", func(t *testing.T) {
		if _, err := newHome(t).take(t, portable.ImportRequest{Namespace: "../x"}, data); !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a client that leaves", func(t *testing.T) {
		to := newHome(t)
		ctx, cancel := context.WithCancel(t.Context())
		to.Between(func(step string) error {
			if step == "read" {
				cancel()
			}
			return nil
		})
		if _, err := to.Import(ctx, portable.ImportRequest{Namespace: space}, bytes.NewReader(data)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if to.count(t, runs) != 0 {
			t.Error("a run was made")
		}
		to.clean(t)
	})
}

// TestSteps ends an import at each of its steps, once by an error and once as if
// the process had died: its state is then copied as it lies and opened anew.
func TestSteps(t *testing.T) {
	from := newHome(t)
	run := from.ran(t, nil)
	data := from.export(t, portable.ExportRequest{Run: run.Name, Artifacts: true})
	broken := errors.New("broken")
	for _, step := range []string{"read", "sealed", "noted", "first published", "published", "committed"} {
		t.Run(step, func(t *testing.T) {
			to := newHome(t)
			copied := filepath.Join(t.TempDir(), "state")
			reached := false
			to.Between(func(at string) error {
				if at != step {
					return nil
				}
				reached = true
				if out, err := exec.CommandContext(t.Context(), "cp", "-a", to.dir, copied).CombinedOutput(); err != nil {
					t.Errorf("cp: %v %s", err, out)
				}
				return broken
			})
			_, err := to.take(t, portable.ImportRequest{}, data)
			if !errors.Is(err, broken) || !reached {
				t.Fatalf("got %v", err)
			}
			for name, h := range map[string]*home{"error": to, "death": openHome(t, copied, func(*portable.Config) {})} {
				whole := step == "committed"
				if got := h.count(t, runs) == 1 && h.count(t, tasks) == 1 && h.count(t, artifacts) == 3; got != whole {
					t.Errorf("%s: the objects are there: %v, want %v", name, got, whole)
				}
				for _, output := range []string{"model", "report"} {
					uri := fmt.Sprintf("minio://mlpipeline/v2/artifacts/train/%s/step/1/%s", run.Name, output)
					if got := h.repository.Exists(space, uri); got != whole {
						t.Errorf("%s: %s is there: %v, want %v", name, output, got, whole)
					}
				}
				h.clean(t)
				// The same bundle is taken afterwards.
				h.Between(func(string) error { return nil })
				_, err := h.take(t, portable.ImportRequest{}, data)
				must(t, err)
				if digest, err := h.repository.Digest(t.Context(), space, "minio://mlpipeline/v2/artifacts/train/"+run.Name+"/step/1/model"); err != nil || !strings.HasPrefix(digest.Digest, artifact.DigestPrefix) {
					t.Errorf("%s: afterwards: %v", name, err)
				}
			}
		})
	}
}
