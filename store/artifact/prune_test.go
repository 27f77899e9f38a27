package artifact

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestPrune: folders go that hold nothing, or what a component reported alone, up
// to the bucket's; one with anything else stays, and so does what a link ends at.
func TestPrune(t *testing.T) {
	r, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	at := func(key string) string { return filepath.Join(r.Path(), "ns", "minio", "bucket", key) }
	for _, attempt := range []string{"p/one/step/1", "p/two/step/1", "p/two/step/2"} {
		if err := r.PrepareOutput("ns", "minio://bucket/"+attempt); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at(attempt), ExecutorOutput), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	outside := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(at("p/two/step/2"), "own"), nil, 0o600), os.Symlink(outside, at("p/link"))); err != nil {
		t.Fatal(err)
	}
	there := func(key string) bool {
		_, err := os.Lstat(at(key))
		return err == nil
	}
	for range 2 {
		for _, uri := range []string{"p/one/step/1/out", "p/two/step/1/out", "p/two/step/2/out"} {
			if err := r.Prune("ns", "minio://bucket/"+uri); err != nil {
				t.Error(err)
			}
		}
	}
	if there("p/one") || there("p/two/step/1") || !there("p/two/step/2/own") || !there("p/two/step/2/"+ExecutorOutput) {
		t.Errorf("left: one %t, two/1 %t, two/2 %t", there("p/one"), there("p/two/step/1"), there("p/two/step/2/own"))
	}
	if err := r.Prune("ns", "minio://bucket/p/link/out"); !errors.Is(err, ErrUnsafe) || !there("p/link") {
		t.Errorf("a link: %v", err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
	if err := errors.Join(os.Remove(at("p/link")), os.Remove(filepath.Join(at("p/two/step/2"), "own")), r.Prune("ns", "minio://bucket/p/two/step/2/out")); err != nil {
		t.Fatal(err)
	}
	if there("p") || !there("") {
		t.Errorf("in the end: p %t, the bucket's folder %t", there("p"), there(""))
	}
}
