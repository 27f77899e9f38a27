package docker

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/skiff-ml/skiff/runtime"
)

// TestSubPathWithoutLinks: what pods may have put on the way is not followed, be it
// for the mount itself or for the places in it.
func TestSubPathWithoutLinks(t *testing.T) {
	volume, outside := t.TempDir(), t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(volume, "a/b"), 0o755), os.Symlink(outside, filepath.Join(volume, "link")),
		os.Symlink("a", filepath.Join(volume, "inner"))); err != nil {
		t.Fatal(err)
	}
	if got, err := withoutLinks(volume, "a/b"); err != nil || got != filepath.Join(volume, "a/b") {
		t.Errorf("a folder: %s, %v", got, err)
	}
	for _, sub := range []string{"link", "link/x", "inner/b", "../x", "a/../../x"} {
		if got, err := withoutLinks(volume, sub); err == nil {
			t.Errorf("%s is mounted as %s", sub, got)
		}
	}
	inner := runtime.Mount{Memory: true, Path: "/data/point"}
	if err := makeMountPoints([]runtime.Mount{{HostPath: volume, SubPath: "a/b", Path: "/data"}, inner}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(volume, "a/b/point")); err != nil {
		t.Error(err)
	}
	if err := makeMountPoints([]runtime.Mount{{HostPath: volume, SubPath: "link", Path: "/data"}, inner}); err == nil {
		t.Error("a place was made beyond a link")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside there is %v, %v", left, err)
	}
}
