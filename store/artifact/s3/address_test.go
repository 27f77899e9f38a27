package s3

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"github.com/skiff-ml/skiff/api/address"
	"github.com/skiff-ml/skiff/store/artifact"
	"github.com/skiff-ml/skiff/store/artifact/s3/miniotest"
)

func TestFetchAnAddress(t *testing.T) {
	text := "published"
	var bodies, short atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/none":
			http.NotFound(w, r)
			return
		case "/secret":
			w.WriteHeader(http.StatusForbidden)
			return
		case "/short": // ends early, once
			if short.Add(1) == 1 {
				w.Header().Set("Content-Length", "100")
				fmt.Fprint(w, "ten bytes.")
				return
			}
		case "/untagged":
			bodies.Add(1)
			fmt.Fprint(w, text)
			return
		}
		tag := fmt.Sprintf("%q", text)
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		bodies.Add(1)
		fmt.Fprint(w, text)
	}))
	defer server.Close()
	b := newBench(t, func(cfg *Config) { cfg.Reach = address.Anywhere })
	uri := server.URL + "/data/table.csv?version=1"
	b.fetch(uri)
	if diff := cmp.Diff(map[string]string{"": "published"}, b.contents(uri)); diff != "" {
		t.Errorf("fetched (-want +got):\n%s", diff)
	}
	at, err := b.Locate(space, uri)
	if err != nil || !strings.HasPrefix(at.ContainerPath, "/https/") || !strings.HasSuffix(at.ContainerPath, "/table.csv") {
		t.Errorf("containers see it at %s, %v", at.ContainerPath, err)
	}
	version, err := b.Version(t.Context(), space, uri)
	if err != nil || version == "" {
		t.Errorf("version %q, %v", version, err)
	}
	bodies.Store(0)
	b.fetch(uri)
	if n := bodies.Load(); n != 0 {
		t.Errorf("what did not change was downloaded %d times", n)
	}
	text = "published anew"
	b.fetch(uri)
	if diff := cmp.Diff(map[string]string{"": text}, b.contents(uri)); diff != "" {
		t.Errorf("after a change (-want +got):\n%s", diff)
	}
	if now, err := b.Version(t.Context(), space, uri); err != nil || now == version {
		t.Errorf("after a change the version is %q, %v", now, err)
	}
	b.fetch(server.URL + "/short")
	if diff := cmp.Diff(map[string]string{"": text}, b.contents(server.URL+"/short")); diff != "" {
		t.Errorf("after a short body (-want +got):\n%s", diff)
	}
	if _, err := b.Version(t.Context(), space, server.URL+"/untagged"); !errors.Is(err, ErrSettings) {
		t.Errorf("a version of nothing: %v", err)
	}
	for path, want := range map[string]error{"/none": artifact.ErrNotFound, "/secret": ErrDenied} {
		if err := b.Fetch(t.Context(), space, server.URL+path); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	if err := b.trim(t.Context(), 0); err != nil || b.Exists(space, uri) {
		t.Errorf("a copy of what is published stays: %v", err)
	}
}

func TestAddressesRefused(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	defer server.Close()
	for name, reach := range map[string]address.Reach{"off": address.Nowhere, "public": address.Internet} {
		b := newBench(t, func(cfg *Config) { cfg.Reach = reach })
		err := b.Fetch(t.Context(), space, server.URL+"/x")
		if !errors.Is(err, ErrSettings) || !strings.Contains(err.Error(), "--pipeline-urls") {
			t.Errorf("%s: %v", name, err)
		}
		if _, asked, err := b.Endpoint(t.Context(), space, server.URL+"/x"); asked != (reach == address.Internet) || err != nil {
			t.Errorf("%s: may be asked: %v, %v", name, asked, err)
		}
	}
}

// TestPublicBucket reads gs:// of which the namespace says nothing, as anybody
// may, from a bucket that a real server has open to all.
func TestPublicBucket(t *testing.T) {
	server := miniotest.Start(t)
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:GetObject","s3:ListBucket"],
		"Resource":["arn:aws:s3:::skiff","arn:aws:s3:::skiff/*"]}]}`
	if err := server.Admin.SetBucketPolicy(t.Context(), miniotest.Bucket, policy); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Admin.PutObject(t.Context(), miniotest.Bucket, "d/x", strings.NewReader("open"), 4, minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := server.Admin.MakeBucket(t.Context(), "closed", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(cfg *Config) { cfg.Reach = address.Internet })
	b.google = Place{Scheme: "gs", Endpoint: server.Host, PathStyle: true, Anonymous: true}
	b.fetch("gs://skiff/d/")
	if diff := cmp.Diff(map[string]string{"x": "open"}, b.contents("gs://skiff/d/")); diff != "" {
		t.Errorf("fetched (-want +got):\n%s", diff)
	}
	if err := b.Fetch(t.Context(), space, "gs://closed/x"); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), `"closed" is not open`) {
		t.Errorf("a bucket that is not: %v", err)
	}
	// Nothing is written there: outputs of gs:// stay here.
	b.make("gs://skiff/out", map[string]string{"": "mine"})
	b.deliver("gs://skiff/out")
	if keys := server.Keys("out"); len(keys) != 0 {
		t.Errorf("the bucket has %v", keys)
	}
	off := newBench(t, nil)
	off.google = b.google
	if err := off.Fetch(t.Context(), space, "gs://skiff/d"); !errors.Is(err, ErrSettings) {
		t.Errorf("where nothing may be fetched: %v", err)
	}
}
