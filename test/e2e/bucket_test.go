package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"
	"sigs.k8s.io/yaml"

	"github.com/skiff-ml/skiff/store/artifact/s3/miniotest"
)

// apply creates the objects of a file as kubectl does, with its texts replaced.
func (d *daemon) apply(ctx context.Context, file string, texts ...string) {
	d.t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		d.t.Fatal(err)
	}
	for doc := range strings.SplitSeq(strings.NewReplacer(texts...).Replace(string(data)), "\n---\n") {
		var head struct {
			Kind     string
			Metadata struct{ Namespace string }
		}
		body, err := yaml.YAMLToJSON([]byte(doc))
		if err == nil {
			err = yaml.Unmarshal([]byte(doc), &head)
		}
		if err != nil {
			d.t.Fatal(err)
		}
		url := fmt.Sprintf("http://%s/api/v1/namespaces/%s/%ss", d.addr, head.Metadata.Namespace, strings.ToLower(head.Kind))
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			d.t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			d.t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			d.t.Fatalf("create %s: %s", head.Kind, resp.Status)
		}
	}
}

const (
	modelBytes = 40 << 20 // what testdata/bucket.yaml writes
	bucketOut  = "41943040 one two given by others"
)

// TestArtifactsInABucket runs a pipeline whose artifacts a real MinIO keeps, by
// the example's config map and secret, and kills the daemon while it uploads.
func TestArtifactsInABucket(t *testing.T) { artifactsInABucket(t, "--runtime", "process") }

func artifactsInABucket(t *testing.T, flags ...string) {
	server := miniotest.Start(t)
	proxy := miniotest.NewProxy(t, server.Host)
	d := newDaemon(t, flags...)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	d.apply(ctx, "../../examples/object-store/kfp-launcher.yaml", "ACCESS-KEY", miniotest.AccessKey, "SECRET-KEY", miniotest.SecretKey,
		"minio.example.com:9000", proxy.Host, "s3://mlpipeline/", "s3://"+miniotest.Bucket+"/")
	given := "given by others"
	if _, err := server.Admin.PutObject(ctx, miniotest.Bucket, "theirs/given", strings.NewReader(given), int64(len(given)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}

	// So slow that the daemon is killed between two parts.
	var slow atomic.Bool
	var sent atomic.Int64
	slow.Store(true)
	proxy.Tamper(func(direction miniotest.Direction, _ int64, p []byte) bool {
		if direction == miniotest.Up {
			sent.Add(int64(len(p)))
			if slow.Load() {
				time.Sleep(8 * time.Millisecond)
			}
		}
		return true
	})
	id := d.submit(ctx, "testdata/bucket.yaml", "-p", "given=s3://"+miniotest.Bucket+"/theirs/given")
	key := "artifacts/bucket/" + id + "/make/1/model"
	eventually(t, time.Minute, "a part is there", func() error {
		parts, err := server.Parts(key)
		if err == nil && parts == 0 {
			err = fmt.Errorf("no part of %s", key)
		}
		return err
	})
	d.kill()
	proxy.Cut() // what was sent and not passed on counts for nobody
	if parts, err := server.Parts(key); err != nil || parts == 0 || parts >= 3 {
		t.Fatalf("the daemon was killed when %d parts were there, %v: the test proves nothing", parts, err)
	}
	slow.Store(false)
	sent.Store(0)
	d.start()
	doc := d.finished(ctx, id)
	if doc.State != "SUCCEEDED" || doc.Outputs["out"] != bucketOut {
		t.Fatalf("run ended %s with %v; want %q\n%s", doc.State, doc.Outputs, bucketOut, tasksText(doc))
	}
	if n := sent.Load(); n > modelBytes-(7<<20) {
		t.Errorf("after the kill %d bytes were sent; a part was there", n)
	}
	for _, task := range doc.Tasks {
		if task.Name == "make" && task.Attempts != 1 {
			t.Errorf("the step was run %d times", task.Attempts)
		}
	}
	if keys := fmt.Sprint(doc.Outputs["keys"]); strings.TrimSpace(keys) != "0" {
		t.Errorf("a step found %s credentials", keys)
	}
	var got []string
	for _, key := range server.Keys("artifacts/") {
		got = append(got, strings.TrimPrefix(key, "artifacts/bucket/"+id+"/"))
	}
	if diff := cmp.Diff([]string{"make/1/model", "make/1/tree/a", "make/1/tree/deep/b"}, got); diff != "" {
		t.Errorf("the bucket has (-want +got):\n%s", diff)
	}
	d.withoutCredentials()

	// On another machine, which has the bucket and nothing else: what the first one
	// made is there, and something from an address.
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "by address") }))
	defer site.Close()
	other := newDaemon(t, append(flags, "--pipeline-urls", "any")...)
	other.apply(ctx, "../../examples/object-store/kfp-launcher.yaml", "ACCESS-KEY", miniotest.AccessKey, "SECRET-KEY", miniotest.SecretKey,
		"minio.example.com:9000", proxy.Host, "s3://mlpipeline/", "s3://"+miniotest.Bucket+"/")
	theirs := "s3://" + miniotest.Bucket + "/artifacts/bucket/" + id + "/make/1/tree/a"
	for given, want := range map[string]string{theirs: "one", site.URL + "/some/file.txt": "by address"} {
		doc := other.finished(ctx, other.submit(ctx, "testdata/bucket.yaml", "-p", "given="+given))
		if want := "41943040 one two " + want; doc.State != "SUCCEEDED" || doc.Outputs["out"] != want {
			t.Errorf("with %s the other machine's run ended %s with %v, want %q\n%s", given, doc.State, doc.Outputs, want, tasksText(doc))
		}
	}
}

// withoutCredentials looks for the secret key in what the daemon wrote.
func (d *daemon) withoutCredentials() {
	d.t.Helper()
	log, err := os.ReadFile(d.log)
	if err != nil {
		d.t.Fatal(err)
	}
	if bytes.Contains(log, []byte(miniotest.SecretKey)) {
		d.t.Error("the daemon's log holds the secret key")
	}
	err = filepath.WalkDir(d.state, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil //nolint:nilerr // Pods' folders come and go.
		}
		if info, err := entry.Info(); err != nil || info.Size() > 8<<20 {
			return nil //nolint:nilerr // Artifacts are large; the rest is not.
		}
		if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte(miniotest.SecretKey)) {
			d.t.Errorf("%s holds the secret key", path)
		}
		return nil
	})
	if err != nil {
		d.t.Error(err)
	}
}
