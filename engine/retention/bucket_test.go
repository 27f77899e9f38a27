package retention_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact/s3"
	"github.com/skiff-ml/skiff/store/artifact/s3/miniotest"
)

// keepAt has the namespace keep s3:// at a server.
func (w *world) keepAt(server *miniotest.Server) {
	w.t.Helper()
	w.commit(store.Op{Verb: store.Put, Kind: pod.Secrets, Object: &core.Secret{ObjectMeta: core.ObjectMeta{Name: "keys", Namespace: space},
		Data: map[string][]byte{"accesskey": []byte(miniotest.AccessKey), "secretkey": []byte(miniotest.SecretKey)}}})
	w.keepAs(miniotest.Providers("s3", server.Host, "keys") + "    maxRetries: 0\n")
}

func (w *world) keepAs(providers string) {
	w.t.Helper()
	w.commit(store.Op{Verb: store.Put, Kind: pod.ConfigMaps, Object: &core.ConfigMap{
		ObjectMeta: core.ObjectMeta{Name: s3.ConfigMapName, Namespace: space}, Data: map[string]string{"providers": providers}}})
}

// bucketRun makes a run that has ended and whose one artifact, a file or a folder,
// skiff brought to the bucket.
func (w *world) bucketRun(files map[string]string) (run, name, uri string) {
	w.t.Helper()
	run, _ = w.run(skiff.StateSucceeded)
	uri = fmt.Sprintf("s3://%s/root/p/%s/step/1/out", miniotest.Bucket, run)
	size := int64(0)
	for path, text := range files {
		at := uri
		if path != "" {
			at += "/" + path
		}
		w.write(at, text)
		size += int64(len(text))
	}
	name = w.artifact(run, run+"-out", uri, size, false)
	w.task(run, "step", nil, []string{name})
	w.deliver(name)
	return run, name, uri
}

func (w *world) deliver(name string) {
	w.t.Helper()
	uploaded, err := w.mirror.Deliver(context.Background(), space, w.get(name).Spec.URI, nil)
	if err != nil {
		w.t.Fatalf("deliver: %v", err)
	}
	w.amend(name, func(a *skiff.Artifact) { a.Status.Uploaded = uploaded })
}

func sumOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func put(t *testing.T, server *miniotest.Server, key, text string) {
	t.Helper()
	if _, err := server.Admin.PutObject(t.Context(), miniotest.Bucket, key, strings.NewReader(text), int64(len(text)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestBucket: what skiff uploaded goes from the bucket with what is here, and
// nothing else does.
func TestBucket(t *testing.T) {
	server := miniotest.Start(t)
	w := newWorld(t)
	w.keepAt(server)
	_, file, fileURI := w.bucketRun(map[string]string{"": "weights"})
	many := map[string]string{}
	for i := range 11 {
		many[fmt.Sprintf("part-%02d", i)] = "0123456789"
	}
	folderRun, folder, folderURI := w.bucketRun(many)
	_, evicted, _ := w.bucketRun(map[string]string{"": "not here any more"})
	_, overwritten, overwrittenURI := w.bucketRun(map[string]string{"": "theirs later"})
	_, pinned, pinnedURI := w.bucketRun(map[string]string{"": "kept"})
	w.amend(pinned, func(a *skiff.Artifact) { a.Annotations = map[string]string{skiff.AnnotationPinned: "true"} })
	// What others have there: an import's, one in the folder, one over ours, a copy
	// of ours, and one with the contents of ours that was there first.
	put(t, server, "data/set", "theirs")
	importing, _ := w.run(skiff.StateSucceeded)
	w.artifact(importing, "import", "s3://"+miniotest.Bucket+"/data/set", 6, true)
	inFolder := strings.TrimPrefix(folderURI, "s3://"+miniotest.Bucket+"/") + "/note"
	put(t, server, inFolder, "theirs")
	over := strings.TrimPrefix(overwrittenURI, "s3://"+miniotest.Bucket+"/")
	put(t, server, over, "theirs")
	copied := "root/p/" + folderRun + "/copy"
	_, err := server.Admin.CopyObject(t.Context(), minio.CopyDestOptions{Bucket: miniotest.Bucket, Object: copied},
		minio.CopySrcOptions{Bucket: miniotest.Bucket, Object: strings.TrimPrefix(fileURI, "s3://"+miniotest.Bucket+"/")})
	if err != nil {
		t.Fatal(err)
	}
	w.artifact(folderRun, "copy", "s3://"+miniotest.Bucket+"/"+copied, 7, false)
	w.amend("copy", func(a *skiff.Artifact) { a.Status.Uploaded = w.get(file).Status.Uploaded })
	equal := "root/p/" + folderRun + "/equal"
	if _, err := server.Admin.PutObject(t.Context(), miniotest.Bucket, equal, strings.NewReader("equal"), 5, minio.PutObjectOptions{
		UserMetadata: map[string]string{"Skiff-Sha256": sumOf("equal")}}); err != nil {
		t.Fatal(err)
	}
	w.write("s3://"+miniotest.Bucket+"/"+equal, "equal")
	w.artifact(folderRun, "equal", "s3://"+miniotest.Bucket+"/"+equal, 5, false)
	w.deliver("equal")
	if err := w.repository.Delete(t.Context(), space, w.get(evicted).Spec.URI); err != nil {
		t.Fatal(err)
	}

	w.clock = w.clock.Add(30 * day)
	before := server.Keys("")
	bounds := skiff.Retention{MaxAge: day}
	report, err := w.controller().Purge(t.Context(), space, bounds, true)
	if err != nil || report.Artifacts != 6 || report.BucketBytes != report.Bytes || report.Bytes < 110 {
		t.Errorf("a dry run: %+v, %v", report, err)
	}
	if diff := cmp.Diff(before, server.Keys("")); diff != "" {
		t.Errorf("a dry run took from the bucket:\n%s", diff)
	}
	if report, err = w.controller().Purge(t.Context(), space, bounds, false); err != nil || report.Artifacts != 6 || report.Stuck != 0 {
		t.Errorf("the purge: %+v, %v", report, err)
	}
	want := []string{"data/set", copied, equal, inFolder, over, strings.TrimPrefix(pinnedURI, "s3://"+miniotest.Bucket+"/")}
	slices.Sort(want)
	if diff := cmp.Diff(want, server.Keys("")); diff != "" {
		t.Errorf("the bucket has (-want +got):\n%s", diff)
	}
	for _, name := range []string{file, folder, evicted, overwritten} {
		a := w.get(name)
		if a.Gone() == "" || a.Status.Purged.RemovedAt.IsZero() || a.Status.Size == 0 || w.there(a.Spec.URI) {
			t.Errorf("%s: %+v, here: %t", name, a.Status.Purged, w.there(a.Spec.URI))
		}
	}
	at, err := w.repository.Locate(space, pinnedURI)
	if err != nil {
		t.Fatal(err)
	}
	runs, err := os.ReadDir(filepath.Join(at.HostPath, "../../../.."))
	if err != nil || len(runs) != 1 || w.get(pinned).Gone() != "" || !w.there(pinnedURI) {
		t.Errorf("of %d runs there are folders left, %v; the pinned one: %q", len(runs), err, w.get(pinned).Gone())
	}
}

// TestBucketAway: a bucket that is away, or refuses, holds up nothing else, says
// so, and loses what it was to lose when it is back.
func TestBucketAway(t *testing.T) {
	server := miniotest.Start(t)
	w := newWorld(t)
	w.keepAt(server)
	_, far, farURI := w.bucketRun(map[string]string{"": "far"})
	_, twin, _ := w.bucketRun(map[string]string{"a": "far", "b": "far"})
	_, near := w.run(skiff.StateSucceeded, 3)
	w.clock = w.clock.Add(30 * day)
	server.Kill()
	report, err := w.controller().Purge(t.Context(), space, skiff.Retention{MaxAge: day}, false)
	if err != nil || report.Artifacts != 3 || report.Stuck != 2 || !strings.Contains(report.StuckMessage, server.Host) {
		t.Errorf("while the bucket is away: %+v, %v", report, err)
	}
	if a := w.get(near[0]); w.there(a.Spec.URI) || a.Status.Purged.RemovedAt.IsZero() {
		t.Errorf("what no bucket has: %+v", a.Status.Purged)
	}
	stuckAs := func(reason string) {
		t.Helper()
		for _, name := range []string{far, twin} {
			p := w.get(name).Status.Purged
			if p == nil || !p.Removing || !p.RemovedAt.IsZero() || p.Stuck == nil || p.Stuck.Reason != reason || !strings.Contains(w.get(name).Gone(), reason) {
				t.Errorf("%s: %+v, want %s", name, p, reason)
			}
		}
	}
	stuckAs(skiff.StuckStoreAway)
	if w.there(farURI) {
		t.Error("what is here of it did not go")
	}
	version := w.get(far).ResourceVersion
	if err := w.controller().Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.get(far).ResourceVersion != version {
		t.Error("the same reason is written again each time")
	}
	server.Run()
	w.lent.AccessKey, w.lent.SecretKey, w.lent.SessionToken = server.Session("s3:GetObject", "s3:PutObject", "s3:ListBucket")
	w.keepAs(fmt.Sprintf("s3: {default: {endpoint: %q, credentials: {fromEnv: true}}}", "http://"+server.Host))
	if err := w.controller().Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	stuckAs(skiff.StuckStoreDenied)
	if n := len(server.Keys("root")); n != 3 {
		t.Errorf("the bucket has %d objects", n)
	}
	w.commit(store.Op{Verb: store.Delete, Kind: pod.ConfigMaps, Key: store.Key{Kind: pod.ConfigMaps, Namespace: space, Name: s3.ConfigMapName}})
	if err := w.controller().Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	stuckAs(skiff.StuckStoreSettings)
	w.keepAt(server)
	w.finish(t)
	for _, name := range []string{far, twin} {
		if p := w.get(name).Status.Purged; p.RemovedAt.IsZero() || p.Stuck != nil {
			t.Errorf("%s in the end: %+v", name, p)
		}
	}
	if left := server.Keys("root"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestBucketDeletedRun: the artifacts of a deleted run go when their bucket is back,
// and so does the folder that its steps wrote to.
func TestBucketDeletedRun(t *testing.T) {
	server := miniotest.Start(t)
	w := newWorld(t)
	w.keepAt(server)
	run, name, uri := w.bucketRun(map[string]string{"": "x"})
	_, kept, keptURI := w.bucketRun(map[string]string{"": "x"})
	beside := strings.Replace(uri, "/step/1/out", "/failed/1/half", 1)
	w.write(beside, "half of it")
	server.Kill()
	w.remove(run)
	if err := w.controller().Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := w.get(name); a == nil || a.Status.Purged == nil || a.Status.Purged.Stuck == nil || a.Status.Purged.Stuck.Reason != skiff.StuckStoreAway {
		t.Errorf("while the bucket is away: %+v", a)
	}
	server.Run()
	if err := w.controller().Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.get(name) != nil || w.there(uri) || w.there(beside) {
		t.Errorf("artifact %v, contents %t, what a failed step wrote %t", w.get(name), w.there(uri), w.there(beside))
	}
	if w.get(kept).Gone() != "" || !w.there(keptURI) || len(server.Keys("root")) != 1 {
		t.Errorf("another run's: %q, the bucket has %v", w.get(kept).Gone(), server.Keys("root"))
	}
}

// holdDelete has the proxy stop at the request that deletes a few artifacts later,
// before it has come to the store or, every other round, before the answer has come
// back. held is closed then; let has everything pass again.
func holdDelete(proxy *miniotest.Proxy, round int) (held chan struct{}, let func()) {
	held = make(chan struct{})
	release := make(chan struct{})
	var mu sync.Mutex
	seen, holding := 0, false
	proxy.Tamper(func(d miniotest.Direction, _ int64, piece []byte) bool {
		mu.Lock()
		asks := d == miniotest.Up && bytes.HasPrefix(piece, []byte("POST ")) && bytes.Contains(piece, []byte("?delete"))
		if asks {
			seen++
		}
		stops := !holding && seen > round+1 && (asks || round%2 == 1 && d == miniotest.Down)
		if stops && asks && round%2 == 1 {
			stops = false // at its answer
		}
		holding = holding || stops
		mu.Unlock()
		if stops {
			close(held)
			<-release
		}
		return !stops
	})
	return held, func() {
		proxy.Tamper(nil)
		close(release)
	}
}

// TestBucketKilled kills a purging process in the middle: the next one leaves
// nothing in the bucket but what is kept.
func TestBucketKilled(t *testing.T) {
	server := miniotest.Start(t)
	dir := t.TempDir()
	w := openWorld(t, dir)
	proxy := miniotest.NewProxy(t, server.Host)
	w.keepAt(server)
	w.keepAs(miniotest.Providers("s3", proxy.Host, "keys") + "    maxRetries: 0\n")
	for range 40 {
		w.bucketRun(map[string]string{"a": "0123456789", "b": "x", "c/d": "y"})
		w.clock = w.clock.Add(time.Hour)
	}
	texts := w.texts
	halves := 0
	for round := range 6 {
		w.close()
		held, let := holdDelete(proxy, round)
		killPurging(t, dir, round, func() { <-held })
		let()
		w = openWorld(t, dir)
		w.texts = texts
		keys := server.Keys("root")
		for _, a := range w.all() {
			prefix := strings.TrimPrefix(a.Spec.URI, "s3://"+miniotest.Bucket+"/") + "/"
			n := 0
			for _, key := range keys {
				if strings.HasPrefix(key, prefix) {
					n++
				}
			}
			settled := a.Status.Purged != nil && !a.Status.Purged.RemovedAt.IsZero()
			if (a.Gone() == "" && n != 3) || (settled && n != 0) {
				t.Fatalf("round %d: of %s the bucket has %d objects: %+v", round, a.Name, n, a.Status.Purged)
			}
			if a.Gone() != "" && !settled {
				halves++
			}
		}
	}
	if halves == 0 {
		t.Error("no process was killed between a mark and its end; it proves nothing")
	}
	if err := w.controller().Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept := 0
	for _, a := range w.all() {
		if a.Gone() == "" {
			kept++
		}
	}
	if n := w.pending(); n > 0 || len(server.Keys("root")) != 3*kept || kept == 0 {
		t.Errorf("%d artifacts are to be settled, %d are kept, the bucket has %d objects", n, kept, len(server.Keys("root")))
	}
	w.close()
}
