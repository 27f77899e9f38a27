package portable_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/engine/portable"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const space = "default"

// Kinds as the store knows them.
const (
	runs        = pipeline.Runs
	tasks       = pipeline.Tasks
	artifacts   = pipeline.Artifacts
	experiments = pipeline.Experiments
	pipelines   = pipeline.Pipelines
	versions    = pipeline.Versions
)

// home is a state: a store, a repository and a Porter over them.
type home struct {
	*portable.Porter
	dir        string
	store      *store.Store
	repository *artifact.Repository
	inspect    portable.Inspect
}

// noImages refuses every image and volume; nothing here runs.
type noImages struct{}

func (noImages) PrepareImage(context.Context, runtime.ImageRequest, func(runtime.ImageProgress)) (runtime.Image, error) {
	return runtime.Image{}, runtime.ErrImageUnavailable
}

func (noImages) EnsureVolume(context.Context, string, string) (string, error) {
	return "", runtime.ErrNotSupported
}

func newHome(t *testing.T) *home {
	t.Helper()
	return openHome(t, t.TempDir(), func(*portable.Config) {})
}

func openHome(t *testing.T, dir string, change func(*portable.Config)) *home {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "skiff.db"), Kinds: append(pipeline.Kinds(), pod.Kinds()...)})
	must(t, err)
	r, err := artifact.Open(filepath.Join(dir, "artifacts"))
	must(t, err)
	t.Cleanup(func() {
		// Read-only folders are in the way of the test's own clean-up.
		list, err := os.ReadDir(r.Path())
		must(t, err)
		for _, namespace := range list {
			if !strings.HasPrefix(namespace.Name(), ".") {
				must(t, r.DeleteNamespace(context.Background(), namespace.Name()))
			}
		}
		must(t, errors.Join(r.Close(), s.Close()))
	})
	engine, err := pipeline.New(pipeline.Config{Store: s, Artifacts: r, Images: noImages{}, Volumes: noImages{}, Fit: func(*core.Pod) error { return nil }})
	must(t, err)
	cfg := portable.Config{Store: s, Artifacts: r, Inspect: engine.Inspect, Dir: filepath.Join(dir, "spool"), Version: "test"}
	change(&cfg)
	p, err := portable.New(cfg)
	must(t, err)
	must(t, p.Recover(t.Context()))
	return &home{Porter: p, dir: dir, store: s, repository: r, inspect: engine.Inspect}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *home) commit(t *testing.T, kind string, objects ...core.Object) {
	t.Helper()
	for _, obj := range objects {
		*obj.Type() = typeOf(obj)
		_, err := h.store.Commit(t.Context(), store.Op{Verb: store.Put, Kind: kind, Object: obj})
		must(t, err)
	}
}

// typeOf is what engines write into their objects.
func typeOf(obj core.Object) core.TypeMeta {
	version, name := skiff.APIVersion, fmt.Sprintf("%T", obj)
	if strings.HasPrefix(name, "*kfp.") {
		version = kfp.ResourceAPIVersion
	}
	return core.TypeMeta{APIVersion: version, Kind: name[strings.LastIndexByte(name, '.')+1:]}
}

// count is how many objects of a kind there are.
func (h *home) count(t *testing.T, kind string) int {
	t.Helper()
	n, err := h.store.Count(t.Context(), store.ListOptions{Kind: kind}, 1000)
	must(t, err)
	return n
}

func (h *home) getRun(t *testing.T, name string) *skiff.Run {
	t.Helper()
	run, err := store.GetAs[*skiff.Run](t.Context(), h.store, store.Key{Kind: runs, Namespace: space, Name: name})
	must(t, err)
	return run
}

const trainYAML = `
pipelineInfo: {name: train}
schemaVersion: 2.1.0
sdkVersion: kfp-2.14.3
root:
  dag:
    tasks:
      step: {taskInfo: {name: step}, componentRef: {name: comp-step}}
components:
  comp-step:
    executorLabel: exec-step
    outputDefinitions:
      parameters: {accuracy: {parameterType: NUMBER_DOUBLE}}
      artifacts: {model: {artifactType: {schemaTitle: system.Model, schemaVersion: 0.0.1}}}
deploymentSpec:
  executors:
    exec-step: {container: {image: "python:3.11", command: ["true"]}}
---
platforms:
  kubernetes:
    deploymentSpec:
      executors:
        exec-step:
          secretAsEnv: [{secretName: db, keyToEnv: [{secretKey: password, envVar: PW}]}]
          configMapAsVolume: [{configMapName: settings, mountPath: /etc/settings, optional: true}]
          pvcMount: [{constant: data, mountPath: /data}]
`

// keep makes a pipeline with one version.
func (h *home) keep(t *testing.T, name, text string) (*kfp.Pipeline, *kfp.PipelineVersion) {
	t.Helper()
	manifest, err := h.inspect(t.Context(), space, "p.yaml", []byte(text))
	must(t, err)
	p := &kfp.Pipeline{ObjectMeta: core.ObjectMeta{Name: name, Namespace: space, UID: uuid.NewString()}, Spec: kfp.PipelineResourceSpec{Description: "to train"}}
	v := &kfp.PipelineVersion{
		ObjectMeta: core.ObjectMeta{Name: kfp.VersionObjectName(name, "v1"), Namespace: space, UID: uuid.NewString(),
			Annotations: map[string]string{kfp.AnnotationName: "v1"}},
		Spec: kfp.PipelineVersionSpec{PipelineName: name, PipelineSpec: manifest.PipelineSpec, PlatformSpec: manifest.PlatformSpec},
	}
	h.commit(t, pipelines, p)
	h.commit(t, versions, v)
	return p, v
}

// ran makes a run that has ended, with one task and three artifacts: a folder,
// a file, and one that was never written.
func (h *home) ran(t *testing.T, from *skiff.PipelineVersionReference) *skiff.Run {
	t.Helper()
	manifest, err := h.inspect(t.Context(), space, "p.yaml", []byte(trainYAML))
	must(t, err)
	h.commit(t, pipeline.Manifests, manifest)
	id, err := uuid.NewV7()
	must(t, err)
	at := time.Now().UTC()
	e := &skiff.Experiment{ObjectMeta: core.ObjectMeta{Name: uuid.NewSHA1(uuid.Nil, []byte("ours")).String(), Namespace: space}, Spec: skiff.ExperimentSpec{DisplayName: "ours"}}
	h.commit(t, experiments, e)
	run := &skiff.Run{
		ObjectMeta: core.ObjectMeta{Name: id.String(), Namespace: space, Labels: map[string]string{"team": "a"}},
		Spec: skiff.RunSpec{DisplayName: "nightly", PipelineName: "train", Manifest: manifest.Name, Experiment: e.Name, PipelineVersion: from,
			Parameters: map[string]json.RawMessage{"epochs": json.RawMessage(`3`)}},
		Status: skiff.RunStatus{StartedAt: at, FinishedAt: at.Add(time.Second), TaskCounts: map[skiff.State]int{skiff.StateSucceeded: 1}},
	}
	run.Status.Enter(skiff.StateSucceeded, at, "")
	h.commit(t, runs, run)
	task := run.Name + "-step-1"
	root := "minio://mlpipeline/v2/artifacts/train/" + run.Name + "/step/1"
	must(t, h.repository.PrepareOutput(space, root))
	place, err := h.repository.Locate(space, root)
	must(t, err)
	write(t, place.HostPath+"/model/weights.bin", strings.Repeat("weights", 1000))
	write(t, place.HostPath+"/model/sub/run.sh", "#!/bin/sh\n")
	must(t, os.Chmod(place.HostPath+"/model/sub/run.sh", 0o755))
	must(t, os.Symlink("../weights.bin", place.HostPath+"/model/sub/latest"))
	must(t, os.Mkdir(place.HostPath+"/model/empty", 0o755))
	write(t, place.HostPath+"/report", "all is well\n")
	var names []string
	for _, output := range []string{"model", "report", "never"} {
		info, err := h.repository.Commit(t.Context(), space, root+"/"+output)
		must(t, err)
		a := &skiff.Artifact{
			ObjectMeta: core.ObjectMeta{Name: task + "-" + output, Namespace: space, Labels: map[string]string{core.LabelRun: run.Name},
				OwnerReferences: []core.OwnerReference{{APIVersion: skiff.APIVersion, Kind: skiff.RunKind, Name: run.Name, UID: run.UID}}},
			Spec: skiff.ArtifactSpec{DisplayName: output, SchemaTitle: "system.Model", URI: root + "/" + output, Run: run.Name, Task: task, Output: output,
				Metadata: map[string]json.RawMessage{"size": json.RawMessage(`7`)}},
			Status: skiff.ArtifactStatus{Size: info.Size, Files: info.Files, Missing: !info.Exists},
		}
		h.commit(t, artifacts, a)
		names = append(names, a.Name)
	}
	h.commit(t, tasks, &skiff.Task{
		ObjectMeta: core.ObjectMeta{Name: task, Namespace: space, Labels: map[string]string{core.LabelRun: run.Name}},
		Spec:       skiff.TaskSpec{Run: run.Name, Path: "step", Key: "step", Component: "comp-step", Type: skiff.TaskContainer},
		Status: skiff.TaskStatus{State: skiff.StateSucceeded, Attempts: 1, Pod: "step-pod", CacheKey: "key", Image: "python:3.11", ImageDigest: "sha256:" + strings.Repeat("ab", 32),
			StartedAt: at, FinishedAt: at.Add(time.Second), Outputs: map[string]json.RawMessage{"accuracy": json.RawMessage(`0.9`)},
			OutputArtifacts: map[string][]string{"model": names[:1], "report": names[1:2], "never": names[2:]}},
	})
	return run
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

// export is a bundle's bytes.
func (h *home) export(t *testing.T, req portable.ExportRequest) []byte {
	t.Helper()
	req.Namespace = space
	e, err := h.Export(t.Context(), req)
	must(t, err)
	var out bytes.Buffer
	must(t, errors.Join(e.Write(t.Context(), &out), e.Close()))
	return out.Bytes()
}

func (h *home) take(t *testing.T, req portable.ImportRequest, data []byte) (*portable.Report, error) {
	t.Helper()
	if req.Namespace == "" {
		req.Namespace = space
	}
	return h.Import(t.Context(), req, bytes.NewReader(data))
}

// clean checks that nothing of an import is left half done.
func (h *home) clean(t *testing.T) {
	t.Helper()
	list, err := h.repository.Stages()
	if err != nil || len(list) != 0 {
		t.Errorf("stages are left: %v, %v", list, err)
	}
	if spools, err := os.ReadDir(filepath.Join(h.dir, "spool")); err == nil && len(spools) != 0 {
		t.Errorf("spools are left: %v", spools)
	}
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
