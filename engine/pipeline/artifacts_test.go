package pipeline

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
)

// cacheReasons are a run's, by task.
func (r *rig) cacheReasons(run *skiff.Run) map[string]string {
	reasons := map[string]string{}
	for path, task := range r.tasks(run.Name) {
		reasons[path] = task.Status.CacheReason
	}
	return reasons
}

func TestCacheHit(t *testing.T) {
	r := newRig(t, nil)
	first := r.finish("cached", with("text", "weights"))
	r.outputs(first, map[string]string{"out": `"weights"`})
	miss := "miss: no earlier result with these inputs, image and command"
	if diff := cmp.Diff(map[string]string{"make": miss, "read": miss}, r.cacheReasons(first)); diff != "" {
		t.Errorf("reasons of the first run (-want +got):\n%s", diff)
	}

	second := r.finish("cached", with("text", "weights"))
	r.states(second, skiff.StateSucceeded, map[string]string{"make": "SUCCEEDED", "read": "SUCCEEDED"})
	r.outputs(second, map[string]string{"out": `"weights"`})
	hit := "hit: the same step of run " + first.Name
	if diff := cmp.Diff(map[string]string{"make": hit, "read": hit}, r.cacheReasons(second)); diff != "" {
		t.Errorf("reasons of the second run (-want +got):\n%s", diff)
	}
	before, after := r.tasks(first.Name), r.tasks(second.Name)
	for path, task := range after {
		if !task.Status.Cached || task.Status.CachedFrom != before[path].Name || task.Status.Attempts != 0 || task.Status.Pod != "" {
			t.Errorf("%s: cached %v from %s, %d attempts, pod %s", path, task.Status.Cached, task.Status.CachedFrom, task.Status.Attempts, task.Status.Pod)
		}
	}
	if diff := cmp.Diff(first.Status.OutputArtifacts, second.Status.OutputArtifacts); diff != "" {
		t.Errorf("output artifacts (-first +second):\n%s", diff)
	}
	if len(r.podsOf(second.Name)) != 0 {
		t.Error("a cached run made pods")
	}

	// A third counts the first as its source too: a cached task is none.
	third := r.finish("cached", with("text", "weights"))
	if from := r.tasks(third.Name)["make"].Status.CachedFrom; from != before["make"].Name {
		t.Errorf("the third run's source is %s", from)
	}
	// The artifact that a cached step stands for is the same by its content.
	other := r.finish("cached", with("text", "others"))
	from := " differs from run " + third.Name + "'s"
	if diff := cmp.Diff(map[string]string{"make": "miss: parameter text" + from + ` ("others", there "weights")`, "read": "miss: input artifact model" + from}, r.cacheReasons(other)); diff != "" {
		t.Errorf("reasons with another input (-want +got):\n%s", diff)
	}
	off := r.finish("cached", func(sub *Submission) {
		with("text", "weights")(sub)
		sub.DisableCache = true
	})
	no := "caching is off for this run"
	if diff := cmp.Diff(map[string]string{"make": no, "read": no}, r.cacheReasons(off)); diff != "" {
		t.Errorf("reasons without caching (-want +got):\n%s", diff)
	}
}

// TestCacheOfContent: equal contents of different makers count as equal inputs.
func TestCacheOfContent(t *testing.T) {
	r := newRig(t, nil)
	first := r.finish("cached", with("text", "weights"))
	again := r.finish("cached", func(sub *Submission) {
		with("text", "weights")(sub)
		sub.Package = []byte(strings.Replace(string(sub.Package), "make: {taskInfo: {name: make}, componentRef: {name: comp-make}, cachingOptions: {enableCache: true}",
			"make: {taskInfo: {name: make}, componentRef: {name: comp-make}", 1))
	})
	if diff := cmp.Diff(map[string]string{"make": "caching is off for this task", "read": "hit: the same step of run " + first.Name}, r.cacheReasons(again)); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

func TestCacheKeyOfTheUser(t *testing.T) {
	r := newRig(t, nil)
	keyed := func(text string) func(*Submission) {
		return func(sub *Submission) {
			with("text", text)(sub)
			sub.Package = []byte(strings.Replace(string(sub.Package), "cachingOptions: {enableCache: true}", "cachingOptions: {enableCache: true, cacheKey: mine}", 1))
		}
	}
	first := r.finish("cached", keyed("one"))
	second := r.finish("cached", keyed("two"))
	if got := r.tasks(second.Name)["make"].Status.CachedFrom; got != r.tasks(first.Name)["make"].Name {
		t.Errorf("under one key of the user's own, the second is taken from %q", got)
	}
	r.outputs(second, map[string]string{"out": `"one"`})
}

// TestCacheWithoutItsArtifact: a result whose artifact is gone is none.
func TestCacheWithoutItsArtifact(t *testing.T) {
	r := newRig(t, nil)
	first := r.finish("cached", with("text", "weights"))
	model := r.artifactNamed(first.Status.OutputArtifacts["model"][0])
	at, err := r.repository.Locate(space, model.Spec.URI)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(at.HostPath); err != nil {
		t.Fatal(err)
	}
	second := r.finish("cached", with("text", "weights"))
	r.outputs(second, map[string]string{"out": `"weights"`})
	reasons := r.cacheReasons(second)
	if want := "miss: the result of run " + first.Name + " cannot be used again: artifact model is no longer at " + model.Spec.URI; reasons["make"] != want {
		t.Errorf("make: %s\nwant  %s", reasons["make"], want)
	}
	// What was made anew has the same content, so its reader need not run.
	if !r.tasks(second.Name)["read"].Status.Cached {
		t.Errorf("read: %s", reasons["read"])
	}
}

// TestArtifact: what is kept of one, and that it can no longer be changed.
func TestArtifact(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("cached", with("text", "weights"))
	name := run.Status.OutputArtifacts["model"][0]
	r.await("the content hash", func() bool { return r.artifactNamed(name).Status.Digest != "" })
	a := r.artifactNamed(name)
	uri := DefaultPipelineRoot + "/cached/" + run.Name + "/make/1/model"
	if a.Spec.URI != uri || a.Spec.SchemaTitle != "system.Model" || a.Spec.DisplayName != "model" || string(a.Spec.Metadata["by"]) != `"hand"` {
		t.Errorf("artifact: %+v", a.Spec)
	}
	if a.Spec.Run != run.Name || a.Spec.Task != r.tasks(run.Name)["make"].Name || a.Spec.Output != "model" || a.Spec.Imported {
		t.Errorf("producer: %+v", a.Spec)
	}
	if a.Status.Size != int64(len("weights")) || a.Status.Files != 1 || a.Status.Missing || !strings.HasPrefix(a.Status.Digest, "sha256:") {
		t.Errorf("contents: %+v", a.Status)
	}
	at, err := r.repository.Locate(space, uri)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(at.HostPath)
	if err != nil || info.Mode().Perm()&0o222 != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got := r.tasks(run.Name)["read"].Status.InputArtifacts["model"]; !slices.Equal(got, []string{name}) {
		t.Errorf("its reader has %v", got)
	}
}

func TestPipelineRoot(t *testing.T) {
	r := newRig(t, nil)
	for _, tt := range []struct {
		name, inManifest, ofRun, want string
	}{
		{"default", "", "", DefaultPipelineRoot},
		{"of the manifest", "minio://bucket/a/", "", "minio://bucket/a"},
		{"of the run", "minio://bucket/a", "s3://other/b", "s3://other/b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run := r.finish("cached", func(sub *Submission) {
				with("text", "weights")(sub)
				sub.PipelineRoot, sub.DisableCache = tt.ofRun, true
				if tt.inManifest != "" {
					sub.Package = append([]byte("defaultPipelineRoot: "+tt.inManifest+"\n"), sub.Package...)
				}
			})
			r.outputs(run, map[string]string{"out": `"weights"`})
			a := r.artifactNamed(run.Status.OutputArtifacts["model"][0])
			if want := tt.want + "/cached/" + run.Name + "/make/1/model"; a.Spec.URI != want {
				t.Errorf("artifact at %s, want %s", a.Spec.URI, want)
			}
		})
	}
	err := r.c.Check(t.Context(), Submission{Namespace: space, Filename: "x.yaml", Package: source(t, "chain"), PipelineRoot: "ftp://nowhere"})
	if err == nil || !strings.Contains(err.Error(), "defaultPipelineRoot") {
		t.Errorf("a root that nothing can be kept at: %v", err)
	}
}

func TestImporter(t *testing.T) {
	r := newRig(t, nil)
	imported := func(run *skiff.Run, task string) string {
		t.Helper()
		names := r.tasks(run.Name)[task].Status.OutputArtifacts["artifact"]
		if len(names) != 1 {
			t.Fatalf("%s made %v", task, names)
		}
		return names[0]
	}
	uri := "gs://bucket/data.csv"
	first := r.finish("imports", with("uri", uri))
	r.states(first, skiff.StateSucceeded, map[string]string{"known": "SUCCEEDED", "anew": "SUCCEEDED"})
	a := r.artifactNamed(imported(first, "known"))
	if a.Spec.URI != uri || !a.Spec.Imported || a.Spec.SchemaTitle != "system.Dataset" || string(a.Spec.Metadata["note"]) != `""` {
		t.Errorf("imported: %+v", a.Spec)
	}
	second := r.finish("imports", with("uri", uri))
	if imported(second, "known") != a.Name {
		t.Error("the same import is another artifact")
	}
	if imported(second, "anew") == imported(first, "anew") {
		t.Error("a reimport is the same artifact")
	}
	noted := r.finish("imports", func(sub *Submission) {
		with("uri", uri)(sub)
		with("note", "<new>")(sub)
	})
	if imported(noted, "known") == a.Name {
		t.Error("an import with other metadata is the same artifact")
	}
	again := r.finish("imports", func(sub *Submission) {
		with("uri", uri)(sub)
		with("note", "<new>")(sub)
	})
	if imported(again, "known") != imported(noted, "known") {
		t.Error("metadata that was stored is not what it was")
	}
	if len(r.world.order) != 0 {
		t.Errorf("importers ran containers: %v", r.world.order)
	}
	bad := r.finish("imports", with("uri", ""))
	if task := r.tasks(bad.Name)["known"]; bad.Status.State != skiff.StateFailed || task.Status.Reason != reasonInputs || !strings.Contains(task.Status.Message, "want a URI") {
		t.Errorf("no URI: %s, %s %s", bad.Status.State, task.Status.Reason, task.Status.Message)
	}
}

func TestCustomPath(t *testing.T) {
	r := newRig(t, nil)
	run := r.finish("custom_path", nil)
	r.outputs(run, map[string]string{"out": `"weights"`})
	name := r.tasks(run.Name)["make"].Status.OutputArtifacts["model"][0]
	a := r.artifactNamed(name)
	if a.Spec.CustomPath != "/opt/model" || a.Spec.DisplayName != "best" || string(a.Spec.Metadata["loss"]) != "0.5" {
		t.Errorf("artifact: %+v", a.Spec)
	}
	for _, p := range r.podsOf(run.Name) {
		ext := p.Spec.Skiff
		at, err := r.repository.Locate(space, a.Spec.URI)
		if err != nil {
			t.Fatal(err)
		}
		switch p.Labels[core.LabelTask] {
		case "make":
			want := &core.Collect{Manifest: filepath.Dir(at.ContainerPath) + "/" + executorOutput, Paths: map[string]string{"model": at.ContainerPath}}
			if diff := cmp.Diff(want, ext.Collect); diff != "" {
				t.Errorf("what is collected (-want +got):\n%s", diff)
			}
		case "read":
			if !slices.Contains(ext.Links, core.Link{Path: "/opt/model", Target: at.ContainerPath}) {
				t.Errorf("the reader's links: %v", ext.Links)
			}
		}
	}
}

func TestWorkspace(t *testing.T) {
	r := newRig(t, nil)
	for range 2 {
		run := r.finish("workspace", nil)
		r.outputs(run, map[string]string{"text": `"hello"`})
		if reason := r.tasks(run.Name)["write"].Status.CacheReason; !strings.Contains(reason, "workspace") {
			t.Errorf("a step that writes to a workspace: %s", reason)
		}
		for _, p := range r.podsOf(run.Name) {
			claim := ""
			for _, v := range p.Spec.Volumes {
				if v.PersistentVolumeClaim != nil {
					claim = v.PersistentVolumeClaim.ClaimName
				}
			}
			if claim != run.Name+"-workspace" {
				t.Errorf("pod %s has the claim %q", p.Name, claim)
			}
			if !slices.ContainsFunc(p.Spec.Containers[0].VolumeMounts, func(m core.VolumeMount) bool { return m.MountPath == workspacePath && !m.ReadOnly }) {
				t.Errorf("pod %s has mounts %v", p.Name, p.Spec.Containers[0].VolumeMounts)
			}
		}
	}
}

func TestRootArtifact(t *testing.T) {
	r := newRig(t, nil)
	// Without an address an empty file of the declared type stands in.
	run := r.finish("root_artifact", nil)
	r.outputs(run, map[string]string{"out": `""`})
	// With one, it is what lies there.
	made := r.finish("cached", with("text", "weights"))
	uri := r.artifactNamed(made.Status.OutputArtifacts["model"][0]).Spec.URI
	run = r.finish("root_artifact", with("model", uri))
	r.outputs(run, map[string]string{"out": `"weights"`})
	a := r.artifactNamed(r.tasks(run.Name)["read"].Status.InputArtifacts["model"][0])
	if a.Spec.URI != uri || !a.Spec.Imported || a.Spec.SchemaTitle != "system.Model" || a.Spec.Run != run.Name {
		t.Errorf("artifact: %+v", a.Spec)
	}
}

// TestDoor: what is refused is refused as a whole, by names.
func TestDoor(t *testing.T) {
	r := newRig(t, nil)
	for _, tt := range []struct {
		name string
		sub  Submission
		want []string
	}{
		{"no package", Submission{Package: []byte("hello")}, []string{"x.yaml"}},
		{"wrong parameters", Submission{Package: source(t, "chain"), Parameters: map[string]json.RawMessage{"text": json.RawMessage("1"), "txt": json.RawMessage("2")}}, []string{"text", "txt"}},
		{"wrong arguments", Submission{Package: source(t, "loops"), Arguments: map[string]string{"rows": "nonsense", "raws": "[]"}}, []string{"rows", "raws"}},
		{"missing", Submission{Package: source(t, "loops")}, []string{"rows"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.sub.Namespace, tt.sub.Filename = space, "x.yaml"
			before := r.store.Revision()
			_, err := r.c.Submit(t.Context(), tt.sub)
			if err == nil {
				t.Fatal("it was let in")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not named in: %v", want, err)
				}
			}
			if r.store.Revision() != before {
				t.Error("something was written")
			}
		})
	}
	run := r.finish("loops", func(sub *Submission) { sub.Arguments = map[string]string{"rows": `[["x"]]`} })
	r.outputs(run, map[string]string{"table": `[["\u003cx\u003e"]]`})
}
