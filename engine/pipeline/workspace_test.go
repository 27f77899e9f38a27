package pipeline

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

func TestWorkspaceKey(t *testing.T) {
	// The places are those that the SDK computes for a path.
	for uri, want := range map[string]string{
		"minio://bucket/a/b":   ".artifacts/minio/bucket/a/b",
		"s3://bucket/dir/":     ".artifacts/s3/bucket/dir",
		"gs://bucket/x":        ".artifacts/gcs/bucket/x",
		"https://host/x.csv":   ".artifacts/https:/host/x.csv",
		"/data/x":              ".artifacts/data/x",
		"minio://b/../../../x": ".artifacts/x", // nothing leads out, and no repository has it
		"oci://host/model:1":   "",
		"":                     "",
	} {
		got, err := workspaceKey(uri)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("workspaceKey(%q) = %q, %v; want %q", uri, got, err, want)
		}
	}
}

// gatedSource lets the test hold back those who read contents.
type gatedSource struct {
	ArtifactRepository
	mu    sync.Mutex
	opens int
	gate  chan struct{} // each Open waits for it where there is one
	began chan struct{} // gets a value for each Open that waits
}

func (g *gatedSource) Open(namespace, uri, subpath string) (*os.File, error) {
	g.mu.Lock()
	gate := g.gate
	if subpath == "" {
		g.opens++
	}
	g.mu.Unlock()
	if gate != nil && subpath != "" {
		g.began <- struct{}{}
		<-gate
	}
	return g.ArtifactRepository.Open(namespace, uri, subpath)
}

func (g *gatedSource) copies() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opens
}

func (g *gatedSource) hold(gate chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gate = gate
}

const dataset = "minio://data/set"

// datasets is a rig with a folder to import.
func datasets(t *testing.T) (*rig, *gatedSource) {
	t.Helper()
	source := &gatedSource{began: make(chan struct{}, 16)}
	r := newRig(t, func(cfg *Config) {
		source.ArtifactRepository = cfg.Artifacts
		cfg.Artifacts = source
	})
	r.place("deep/file", "original")
	return r, source
}

// place writes a file of the dataset.
func (r *rig) place(name, text string) {
	r.t.Helper()
	if err := r.repository.PrepareOutput(space, dataset); err != nil {
		r.t.Fatalf("prepare: %v", err)
	}
	at, err := r.repository.Locate(space, dataset)
	if err != nil {
		r.t.Fatalf("locate: %v", err)
	}
	path := filepath.Join(at.HostPath, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		r.t.Fatalf("place: %v", err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatalf("place: %v", err)
	}
}

// workspace is a run's on this machine.
func (r *rig) workspace(run string) string {
	r.t.Helper()
	folder, err := r.world.EnsureVolume(r.t.(*testing.T).Context(), space, workspaceClaim(run))
	if err != nil {
		r.t.Fatalf("workspace: %v", err)
	}
	return folder
}

// whole checks that what lies in a run's workspace below .artifacts is these.
func (r *rig) whole(run string, want ...string) {
	r.t.Helper()
	entries, err := os.ReadDir(filepath.Join(r.workspace(run), workspaceArtifacts))
	if err != nil {
		r.t.Fatalf("read workspace: %v", err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Fatalf("imports in the workspace (-want +got):\n%s", diff)
	}
}

// TestDownload: readers find the copy, share it, and may change it; what was
// imported stays as it is, and is what the plain importer's readers find.
func TestDownload(t *testing.T) {
	r, source := datasets(t)
	run := r.finish("downloads", with("uri", dataset))
	r.outputs(run, map[string]string{"first": `"original"`, "second": `"changed"`, "original": `"original"`})
	r.whole(run.Name, "minio")
	tasks := r.tasks(run.Name)
	first := r.artifactNamed(tasks["first"].Status.OutputArtifacts["artifact"][0])
	if !first.Spec.Workspace || first.Spec.URI != dataset || first.Status.Files != 1 || first.Status.Size != int64(len("original")) {
		t.Errorf("artifact: %+v %+v", first.Spec, first.Status)
	}
	if _, marked := first.Spec.Metadata[workspaceMark]; marked || len(first.Spec.Metadata) != 1 {
		t.Errorf("stored metadata: %s", asJSON(t, first.Spec.Metadata))
	}
	if got := runtimeArtifact(first).Metadata; got[workspaceMark] != true || got["note"] != "kept" {
		t.Errorf("metadata that components see: %v", got)
	}
	plain := r.artifactNamed(tasks["plain"].Status.OutputArtifacts["artifact"][0])
	if plain.Name == first.Name || plain.Spec.Workspace || runtimeArtifact(plain).Metadata[workspaceMark] != nil {
		t.Errorf("the plain import: %+v", plain.Spec)
	}
	if tasks["second"].Status.OutputArtifacts["artifact"][0] != first.Name {
		t.Error("the same import in one run is another artifact")
	}
	if n := source.copies(); n != 1 {
		t.Errorf("copied %d times, want once", n)
	}
	// Another run has the artifact, and a copy of its own.
	again := r.finish("downloads", with("uri", dataset))
	r.outputs(again, map[string]string{"first": `"original"`, "second": `"changed"`, "original": `"original"`})
	if r.tasks(again.Name)["first"].Status.OutputArtifacts["artifact"][0] != first.Name {
		t.Error("the same import in the next run is another artifact")
	}
	// Who imports anew has the contents anew.
	anew := r.finish("downloads", func(sub *Submission) {
		with("uri", dataset)(sub)
		sub.Package = []byte(strings.Replace(string(sub.Package), "downloadToWorkspace: true", "downloadToWorkspace: true, reimport: true", 1))
	})
	r.outputs(anew, map[string]string{"first": `"original"`, "second": `"original"`, "original": `"original"`})
	r.whole(anew.Name, "minio")
}

// TestDownloadRefused: what cannot be copied fails the importer, by name, and
// whatever a step has made of its workspace, nothing outside is written.
func TestDownloadRefused(t *testing.T) {
	r, _ := datasets(t)
	for uri, want := range map[string]string{
		"minio://data/none":    "artifact not found",
		"ftp://host/x":         "the scheme must be",
		"https://host/x":       "artifact not found",
		"minio://data/../../x": "the path segment",
		"oci://host/model":     "is an image",
	} {
		run := r.finish("downloads", with("uri", uri))
		task := r.tasks(run.Name)["first"]
		if run.Status.State != skiff.StateFailed || task.Status.Reason != reasonInputs || !strings.Contains(task.Status.Message, want) {
			t.Errorf("%s: %s, %s: %s", uri, run.Status.State, task.Status.Reason, task.Status.Message)
		}
		if entries, err := os.ReadDir(filepath.Join(r.workspace(run.Name), workspaceArtifacts)); err == nil && len(entries) > 0 {
			t.Errorf("%s: left %v", uri, entries)
		}
	}
	outside := t.TempDir()
	name := r.submit("downloads", func(sub *Submission) {
		with("uri", dataset)(sub)
		with("before", "hold gate")(sub)
	})
	r.held(name, "before")
	if err := os.Symlink(outside, filepath.Join(r.workspace(name), workspaceArtifacts)); err != nil {
		t.Fatal(err)
	}
	r.world.open("gate")
	run := r.ended(name)
	if task := r.tasks(name)["first"]; run.Status.State != skiff.StateFailed || !strings.Contains(task.Status.Message, artifact.ErrUnsafe.Error()) {
		t.Errorf("a link for a folder: %s, %s", run.Status.State, task.Status.Message)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("written outside: %v, %v", entries, err)
	}
}

// TestDownloadInterrupted: a daemon that ends in the middle, or a cancel, leaves
// nothing half.
func TestDownloadInterrupted(t *testing.T) {
	t.Run("killed", func(t *testing.T) {
		r, source := datasets(t)
		gate := make(chan struct{})
		source.hold(gate)
		name := r.submit("downloads", with("uri", dataset))
		<-source.began
		r.await("the task to say what it does", func() bool {
			status := r.tasks(name)["first"].Status
			return status.State == skiff.StateRunning && strings.Contains(status.Message, dataset)
		})
		// What a kill leaves: half a copy under the temporary name.
		half := filepath.Join(r.workspace(name), workspaceArtifacts, ".skiff-"+r.tasks(name)["first"].Name, "deep")
		if _, err := os.Stat(half); err != nil {
			t.Errorf("nothing was begun: %v", err)
		}
		r.kill()
		source.hold(nil)
		close(gate)
		r.down()
		r.whole(name) // who is told to end cleans up, who is killed does not
		if err := os.MkdirAll(half, 0o750); err != nil {
			t.Fatal(err)
		}
		r.up()
		run := r.ended(name)
		r.outputs(run, map[string]string{"first": `"original"`, "second": `"changed"`, "original": `"original"`})
		r.whole(name, "minio")
	})
	t.Run("cancelled", func(t *testing.T) {
		r, source := datasets(t)
		gate := make(chan struct{})
		source.hold(gate)
		name := r.submit("downloads", with("uri", dataset))
		<-source.began
		r.cancel(name)
		r.await("the cancel", func() bool { return r.run(name).Status.State == skiff.StateCanceling })
		close(gate)
		if run := r.ended(name); run.Status.State != skiff.StateCanceled || r.tasks(name)["first"].Status.State != skiff.StateCanceled {
			t.Errorf("run ended as %s", run.Status.State)
		}
		r.whole(name) // and nothing is under way any more
	})
}

// TestDownloadRetried: a retried run keeps its workspace, and what is in it.
func TestDownloadRetried(t *testing.T) {
	r, source := datasets(t)
	name := r.submit("downloads", func(sub *Submission) {
		with("uri", dataset)(sub)
		sub.Package = []byte(strings.Replace(string(sub.Package), `/deep/file changed"]`, `/deep/file changed; until 1"]`, 1))
	})
	r.states(r.ended(name), skiff.StateFailed, map[string]string{
		"before": "SUCCEEDED", "first": "SUCCEEDED", "plain": "SUCCEEDED", "read-first": "SUCCEEDED",
		"change": "FAILED", "second": "SKIPPED", "read-second": "SKIPPED", "read-plain": "SKIPPED",
	})
	before := source.copies()
	r.down()
	r.up()
	r.retry(name)
	r.outputs(r.ended(name), map[string]string{"first": `"original"`, "second": `"changed"`, "original": `"original"`})
	if n := source.copies() - before; n != 0 {
		t.Errorf("copied %d times more", n)
	}
}

// TestDownloadTogether: importers of one place that are ready at once copy one
// after another.
func TestDownloadTogether(t *testing.T) {
	r, source := datasets(t)
	gate := make(chan struct{})
	source.hold(gate)
	name := r.submit("downloads", func(sub *Submission) {
		with("uri", dataset)(sub)
		sub.Package = []byte(strings.Replace(string(sub.Package), "dependentTasks: [change], inputs: {parameters: {uri", "dependentTasks: [before], inputs: {parameters: {uri", 1))
	})
	<-source.began
	r.await("both to be ready", func() bool {
		task := r.tasks(name)["second"]
		return task != nil && task.Status.State == skiff.StateRunning
	})
	select {
	case <-source.began:
		t.Error("both copy at once")
	default:
	}
	source.hold(nil)
	close(gate)
	if run := r.ended(name); run.Status.State != skiff.StateSucceeded {
		t.Errorf("run ended as %s: %s", run.Status.State, run.Status.Message)
	}
	if n := source.copies(); n != 1 {
		t.Errorf("copied %d times, want once", n)
	}
	r.whole(name, "minio")
}

// TestMarkIsNotHandedOn: a component that hands an import's metadata on makes no
// import.
func TestMarkIsNotHandedOn(t *testing.T) {
	x := &execution{c: &Controller{}, run: &skiff.Run{}}
	n := &node{task: &skiff.Task{}, path: "a"}
	a := x.newArtifact(n, "out", 0, &kfp.OutputArtifactSpec{}, kfp.RuntimeArtifact{Metadata: map[string]any{workspaceMark: true, "b": 1.0}}, "minio://b/c")
	if got := asJSON(t, a.Spec.Metadata); strings.Contains(got, workspaceMark) || !strings.Contains(got, `"b"`) {
		t.Errorf("metadata: %s", got)
	}
}

// claimOf reads the claim of a run's workspace; nil where there is none.
func (r *rig) claimOf(run string) *core.PersistentVolumeClaim {
	r.t.Helper()
	claim, err := store.GetAs[*core.PersistentVolumeClaim](context.Background(), r.store, store.Key{Kind: claimsKind, Namespace: space, Name: workspaceClaim(run)})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		r.t.Fatalf("get claim: %v", err)
	}
	return claim
}

// TestWorkspaceGoesWithItsRun: the claim belongs to the run, and once it is to go
// the folder goes, whenever the daemon is killed.
func TestWorkspaceGoesWithItsRun(t *testing.T) {
	for _, when := range []string{"undisturbed", "killed at once"} {
		t.Run(when, func(t *testing.T) {
			r := newRig(t, nil)
			kept, run := r.finish("workspace", nil), r.finish("workspace", nil)
			claim := r.claimOf(run.Name)
			if claim == nil || len(claim.OwnerReferences) != 1 || claim.OwnerReferences[0].UID != run.UID || claim.VolumeID() != workspaceClaim(run.Name) {
				t.Fatalf("claim: %+v", claim)
			}
			if size := claim.Spec.Resources.Requests[core.ResourceStorage]; size.String() != "1Gi" {
				t.Errorf("size %s", size.String())
			}
			folder := filepath.Join(filepath.Dir(r.workspace(kept.Name)), workspaceClaim(run.Name))
			if _, err := os.Stat(filepath.Join(folder, "note")); err != nil {
				t.Fatal(err)
			}
			if when == "killed at once" {
				r.down()
			}
			// As the server does it: what depends on the run first.
			for _, p := range r.podsOf(run.Name) {
				r.remove(podsKind, p.Name)
			}
			r.remove(claimsKind, claim.Name)
			r.remove(Runs, run.Name)
			if when == "killed at once" {
				r.up()
			}
			r.await("the claim to go", func() bool { return r.claimOf(run.Name) == nil })
			if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the folder is left: %v", err)
			}
			if _, err := os.Stat(filepath.Join(r.workspace(kept.Name), "note")); err != nil || r.claimOf(kept.Name) == nil {
				t.Errorf("another run's workspace: %v", err)
			}
		})
	}
}

// remove deletes an object.
func (r *rig) remove(kind, name string) {
	r.t.Helper()
	_, err := r.store.Commit(context.Background(), store.Op{Verb: store.Delete, Kind: kind, Key: store.Key{Kind: kind, Namespace: space, Name: name}})
	if err != nil {
		r.t.Fatalf("delete %s %s: %v", kind, name, err)
	}
}
