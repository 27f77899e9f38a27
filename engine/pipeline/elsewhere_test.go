package pipeline

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"github.com/skiff-ml/skiff/api/address"
	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
	"github.com/skiff-ml/skiff/store/artifact/s3"
	"github.com/skiff-ml/skiff/store/artifact/s3/miniotest"
)

// newStoreRig is a rig whose namespace keeps artifacts of s3:// at a host.
func newStoreRig(t *testing.T, host string, change func(*Config)) *rig {
	t.Helper()
	return newStoreRigFrom(t, host, address.Nowhere, change)
}

// newStoreRigFrom also fetches by address.
func newStoreRigFrom(t *testing.T, host string, reach address.Reach, change func(*Config)) *rig {
	t.Helper()
	r := newRig(t, func(cfg *Config) {
		mirror, err := s3.NewMirror(s3.Config{Repository: cfg.Artifacts.(*artifact.Repository), Store: cfg.Store, Reach: reach})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := mirror.Close(); err != nil {
				t.Error(err)
			}
		})
		cfg.Artifacts, cfg.Stores, cfg.StorePause = mirror, mirror, 20*time.Millisecond
		if change != nil {
			change(cfg)
		}
	})
	if host != "" {
		r.launcher(miniotest.Providers("s3", host, "keys") + "    maxRetries: 0\n")
		r.put(pod.Secrets, &core.Secret{ObjectMeta: core.ObjectMeta{Name: "keys", Namespace: space},
			Data: map[string][]byte{"accesskey": []byte(miniotest.AccessKey), "secretkey": []byte(miniotest.SecretKey)}})
	}
	return r
}

const bucketRoot = "s3://" + miniotest.Bucket + "/root"

func (r *rig) launcher(providers string) {
	r.t.Helper()
	r.put(pod.ConfigMaps, &core.ConfigMap{ObjectMeta: core.ObjectMeta{Name: s3.ConfigMapName, Namespace: space},
		Data: map[string]string{"defaultPipelineRoot": bucketRoot, "providers": providers}})
}

func (r *rig) put(kind string, obj core.Object) {
	r.t.Helper()
	if _, err := r.store.Commit(context.Background(), store.Op{Verb: store.Put, Kind: kind, Object: obj}); err != nil {
		r.t.Fatalf("put: %v", err)
	}
}

// waits waits until a task has a reason, and returns its message.
func (r *rig) waits(run, path, reason string) string {
	r.t.Helper()
	message := ""
	r.await(path+" to be "+reason, func() bool {
		task := r.tasks(run)[path]
		if task == nil || task.Status.Reason != reason {
			return false
		}
		message = task.Status.Message
		return true
	})
	return message
}

func TestOutputsInABucket(t *testing.T) {
	server := miniotest.Start(t)
	r := newStoreRig(t, server.Host, nil)
	first := r.finish("cached", with("text", "weights"))
	r.outputs(first, map[string]string{"out": `"weights"`})
	a := r.artifactNamed(first.Status.OutputArtifacts["model"][0])
	key := "root/cached/" + first.Name + "/make/1/model"
	if want := "s3://" + miniotest.Bucket + "/" + key; a.Spec.URI != want {
		t.Errorf("the artifact is at %s, want %s", a.Spec.URI, want)
	}
	if diff := cmp.Diff([]string{key}, server.Keys("root")); diff != "" {
		t.Errorf("the bucket has (-want +got):\n%s", diff)
	}
	at, err := r.repository.Digest(t.Context(), space, a.Spec.URI)
	if err != nil || a.Status.Digest != at.Digest || a.Status.Size != int64(len("weights")) {
		t.Errorf("artifact %+v, its digest %s, %v", a.Status, at.Digest, err)
	}
	// A result counts while its bucket has it, whatever this machine has.
	if err := r.repository.Delete(t.Context(), space, a.Spec.URI); err != nil {
		t.Fatal(err)
	}
	second := r.finish("cached", with("text", "weights"))
	hit := "hit: the same step of run " + first.Name
	if diff := cmp.Diff(map[string]string{"make": hit, "read": hit}, r.cacheReasons(second)); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
	// Without the cache the reader has its input brought.
	third := r.finish("cached", func(sub *Submission) {
		with("text", "weights")(sub)
		sub.Package = bytes.Replace(sub.Package, []byte("dependentTasks: [make], cachingOptions: {enableCache: true}"), []byte("dependentTasks: [make]"), 1)
	})
	r.outputs(third, map[string]string{"out": `"weights"`})
	if err := server.Admin.RemoveObject(t.Context(), miniotest.Bucket, key, minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	fourth := r.finish("cached", with("text", "weights"))
	if want := "miss: the result of run " + first.Name + " cannot be used again: artifact model is no longer at " + a.Spec.URI; r.cacheReasons(fourth)["make"] != want {
		t.Errorf("make: %s\nwant  %s", r.cacheReasons(fourth)["make"], want)
	}
	r.outputs(fourth, map[string]string{"out": `"weights"`})
}

// TestResumeFromABucket: a result whose artifacts only a bucket has is taken over
// if the bucket has them as they were made, and else made again, with the reason.
func TestResumeFromABucket(t *testing.T) {
	server := miniotest.Start(t)
	r := newStoreRig(t, server.Host, nil)
	first := r.finish("cached", with("text", "weights"))
	a := r.artifactNamed(first.Status.OutputArtifacts["model"][0])
	key := strings.TrimPrefix(a.Spec.URI, "s3://"+miniotest.Bucket+"/")
	if a.Status.Uploaded == nil || a.Status.Uploaded.Endpoint != server.Host || a.Status.Uploaded.Version != a.Status.Digest {
		t.Errorf("the artifact's upload: %+v", a.Status.Uploaded)
	}
	evict := func() {
		t.Helper()
		if err := r.repository.Delete(t.Context(), space, a.Spec.URI); err != nil {
			t.Fatal(err)
		}
	}
	again := func(ran []string, reason string) {
		t.Helper()
		evict()
		run := r.resume(first.Name, func(sub *Submission) { sub.DisableCache = true })
		if diff := cmp.Diff(ran, r.ran(run.Name)); diff != "" || !strings.HasPrefix(r.reasons(run.Name)["make"], reason) {
			t.Errorf("executed (-want +got):\n%s\nmake: %s, want %s", diff, r.reasons(run.Name)["make"], reason)
		}
		r.outputs(run, map[string]string{"out": `"weights"`})
	}
	again(nil, "taken over")
	if _, err := server.Admin.PutObject(t.Context(), miniotest.Bucket, key, strings.NewReader("others"), 6, minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	again([]string{"make"}, "run again: artifact model at "+a.Spec.URI+" has other contents now")
	if err := server.Admin.RemoveObject(t.Context(), miniotest.Bucket, key, minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	again([]string{"make"}, "run again: artifact model is no longer at "+a.Spec.URI)
}

// TestInputsFromABucket: what others put there is read as it is now.
func TestInputsFromABucket(t *testing.T) {
	server := miniotest.Start(t)
	r := newStoreRig(t, server.Host, nil)
	for _, text := range []string{"theirs", "changed by them"} {
		if _, err := server.Admin.PutObject(t.Context(), miniotest.Bucket, "data", strings.NewReader(text), int64(len(text)), minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
		run := r.finish("root_artifact", with("model", "s3://"+miniotest.Bucket+"/data"))
		r.outputs(run, map[string]string{"out": `"` + text + `"`})
	}
	for uri, wants := range map[string][]string{
		"s3://" + miniotest.Bucket + "/none": {"none", "not found", server.Host},
		"s3://other-bucket/data":             {"no such bucket", "other-bucket"},
		"gs://elsewhere/data":                {`"elsewhere"`, "kfp-launcher", "providers.gs"},
	} {
		run := r.finish("root_artifact", with("model", uri))
		task := r.tasks(run.Name)["read"]
		if run.Status.State != skiff.StateFailed || task.Status.Reason != reasonStore || task.Status.Attempts != 0 {
			t.Errorf("%s: %s, %s, %d attempts", uri, run.Status.State, task.Status.Reason, task.Status.Attempts)
		}
		for _, want := range wants {
			if !strings.Contains(task.Status.Message, want) {
				t.Errorf("%s: %q is not in: %s", uri, want, task.Status.Message)
			}
		}
	}
}

// TestOutputsWait: a store that is away costs a finished step nothing, over a
// restart either, and says which store it is.
func TestOutputsWait(t *testing.T) {
	server := miniotest.Start(t)
	r := newStoreRig(t, server.Host, nil)
	name := r.submit("cached", with("text", "weights; hold made"))
	r.held(name, "make")
	server.Kill()
	r.world.open("made")
	message := r.waits(name, "make", reasonOutputsWait)
	for _, want := range []string{server.Host, "away", "tried", "until"} {
		if !strings.Contains(message, want) {
			t.Errorf("%q is not in: %s", want, message)
		}
	}
	if task := r.tasks(name)["make"]; task.Status.State != skiff.StateRunning {
		t.Errorf("it waits as %s", task.Status.State)
	}
	for range 10 { // wherever a try stands, a restart is no failure
		r.down()
		r.up()
		r.waits(name, "make", reasonOutputsWait)
	}
	server.Run()
	run := r.ended(name)
	r.states(run, skiff.StateSucceeded, map[string]string{"make": "SUCCEEDED", "read": "SUCCEEDED"})
	r.outputs(run, map[string]string{"out": `"weights"`})
	if n := r.world.began("make"); n != 1 {
		t.Errorf("the step ran %d times", n)
	}
	if n := len(server.Keys("root")); n != 1 {
		t.Errorf("the bucket has %d objects", n)
	}
}

// TestOutputsWaitForCredentials: wrong keys are mended while the outputs wait.
func TestOutputsWaitForCredentials(t *testing.T) {
	server := miniotest.Start(t)
	r := newStoreRig(t, server.Host, nil)
	keys := func(secretKey string) {
		r.put(pod.Secrets, &core.Secret{ObjectMeta: core.ObjectMeta{Name: "keys", Namespace: space},
			Data: map[string][]byte{"accesskey": []byte(miniotest.AccessKey), "secretkey": []byte(secretKey)}})
	}
	keys("not-the-key-at-all")
	name := r.submit("cached", with("text", "weights"))
	if message := r.waits(name, "make", reasonOutputsWait); !strings.Contains(message, "secret keys") || strings.Contains(message, "not-the-key") {
		t.Errorf("it waits for: %s", message)
	}
	keys(miniotest.SecretKey)
	r.outputs(r.ended(name), map[string]string{"out": `"weights"`})
}

func TestOutputsWaitInVain(t *testing.T) {
	server := miniotest.Start(t)
	server.Kill()
	r := newStoreRig(t, server.Host, func(cfg *Config) { cfg.StorePatience = 100 * time.Millisecond })
	run := r.finish("cached", with("text", "weights"))
	task := r.tasks(run.Name)["make"]
	if run.Status.State != skiff.StateFailed || task.Status.Reason != reasonStore || !strings.Contains(task.Status.Message, "waited for its outputs") || !strings.Contains(task.Status.Message, server.Host) {
		t.Errorf("run %s, task %s: %s", run.Status.State, task.Status.Reason, task.Status.Message)
	}
}

func TestCancelWhileWaiting(t *testing.T) {
	server := miniotest.Start(t)
	server.Kill()
	r := newStoreRig(t, server.Host, nil)
	outputs := r.submit("cached", with("text", "weights"))
	r.waits(outputs, "make", reasonOutputsWait)
	inputs := r.submit("root_artifact", with("model", "s3://"+miniotest.Bucket+"/x"))
	if message := r.waits(inputs, "read", reasonInputsWait); !strings.Contains(message, server.Host) {
		t.Errorf("it waits for: %s", message)
	}
	for name, states := range map[string]map[string]string{
		outputs: {"make": "CANCELED", "read": "CANCELED"}, inputs: {"read": "CANCELED"},
	} {
		r.cancel(name)
		r.states(r.ended(name), skiff.StateCanceled, states)
	}
}

// TestInputsByAddress: what was imported from an http address is read as it is
// now, at a path of its own, and is an address alone where nothing is fetched.
func TestInputsByAddress(t *testing.T) {
	text := "published"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Unix(int64(len(text)), 0), strings.NewReader(text))
	}))
	defer server.Close()
	r := newStoreRigFrom(t, "", address.Anywhere, nil)
	uri := server.URL + "/data.csv"
	for _, text = range []string{"published", "published anew"} {
		run := r.finish("root_artifact", with("model", uri))
		r.outputs(run, map[string]string{"out": `"` + text + `"`})
		for _, p := range r.podsOf(run.Name) {
			last := p.Spec.Containers[0].VolumeMounts[len(p.Spec.Containers[0].VolumeMounts)-1]
			if !strings.HasPrefix(last.MountPath, "/https/") || !last.ReadOnly {
				t.Errorf("it is mounted as %+v", last)
			}
		}
	}
	// Caching goes by what is there now.
	cached := func(sub *Submission) {
		with("model", uri)(sub)
		sub.Package = bytes.Replace(sub.Package, []byte("componentRef: {name: comp-read}"), []byte("componentRef: {name: comp-read}, cachingOptions: {enableCache: true}"), 1)
	}
	first := r.finish("root_artifact", cached)
	if second := r.finish("root_artifact", cached); r.cacheReasons(second)["read"] != "hit: the same step of run "+first.Name {
		t.Errorf("read: %s", r.cacheReasons(second)["read"])
	}
	text = "quite something else"
	r.outputs(r.finish("root_artifact", cached), map[string]string{"out": `"quite something else"`})

	off := newRig(t, nil)
	run := off.finish("root_artifact", with("model", uri))
	if task := off.tasks(run.Name)["read"]; run.Status.State != skiff.StateFailed || !strings.Contains(task.Status.Message, "address alone") {
		t.Errorf("where nothing is fetched: %s, %s", run.Status.State, task.Status.Message)
	}
}

// TestRootAtTheDoor: settings that cannot work are refused before anything runs.
func TestRootAtTheDoor(t *testing.T) {
	r := newStoreRig(t, "", nil)
	run := r.finish("cached", with("text", "weights"))
	if root := run.Spec.PipelineRoot; root != "" {
		t.Errorf("a namespace that says nothing has the root %s", root)
	}
	r.launcher("s3: {default: {endpoint: nowhere}}")
	sub := Submission{Namespace: space, Filename: "x.yaml", Package: source(t, "cached")}
	with("text", "x")(&sub)
	if err := r.c.Check(t.Context(), sub); err == nil || !strings.Contains(err.Error(), "default.credentials") {
		t.Errorf("settings without credentials: %v", err)
	}
	sub.PipelineRoot = "https://example.com/x"
	if err := r.c.Check(t.Context(), sub); err == nil || !strings.Contains(err.Error(), "nothing can be written") {
		t.Errorf("a root that is an address: %v", err)
	}
	sub.PipelineRoot = "minio://mlpipeline/x"
	if err := r.c.Check(t.Context(), sub); err != nil {
		t.Errorf("a root of its own, elsewhere: %v", err)
	}
}

func TestInUse(t *testing.T) {
	server := miniotest.Start(t)
	r := newStoreRig(t, server.Host, nil)
	name := r.submit("cached", func(sub *Submission) {
		with("text", "weights")(sub)
		sub.Package = bytes.Replace(sub.Package, []byte("cat out"), []byte("hold read; cat out"), 1)
	})
	r.held(name, "read")
	a := r.artifactNamed(r.tasks(name)["read"].Status.InputArtifacts["model"][0])
	inUse, err := r.c.InUse(t.Context())
	if diff := cmp.Diff(map[s3.Key]bool{{Namespace: space, URI: a.Spec.URI}: true}, inUse); diff != "" || err != nil {
		t.Errorf("in use (-want +got), %v:\n%s", err, diff)
	}
	r.world.open("read")
	r.ended(name)
	if inUse, err := r.c.InUse(t.Context()); err != nil || len(inUse) != 0 {
		t.Errorf("after the end %v is in use, %v", inUse, err)
	}
}
