//go:build docker

package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
)

// importImage makes an image of one layer, named for the test's store.
func (r *rig) importImage(headers ...tar.Header) string {
	r.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		h.Size = int64(len(h.PAXRecords["contents"]))
		contents := h.PAXRecords["contents"]
		h.PAXRecords = nil
		if err := w.WriteHeader(&h); err != nil {
			r.Fatal(err)
		}
		if _, err := w.Write([]byte(contents)); err != nil {
			r.Fatal(err)
		}
	}
	ref := "skiffdev/" + r.cfg.StoreID + ":1"
	if err := errors.Join(w.Close(), r.api.ImageImport(r.Context(), &buf, ref)); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _, _ = r.docker(context.WithoutCancel(r.Context()), "image", "rm", ref) })
	return ref
}

const modelCar = "skiffdev/modelcar:1"

// TestImageVolume: many who ask at once get one folder; a container sees the
// image's files in it and can change nothing.
func TestImageVolume(t *testing.T) {
	r := newRig(t, "", nil)
	req := runtime.ImageRequest{Ref: modelCar, Policy: runtime.PullNever}
	dirs := make([]string, 8)
	var wg sync.WaitGroup
	for i := range dirs {
		wg.Go(func() {
			dir, err := r.b.ImageVolume(r.Context(), req, "/models")
			if err != nil {
				t.Error(err)
			}
			dirs[i] = dir
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, dir := range dirs {
		if dir != dirs[0] {
			t.Errorf("%s and %s for one content", dirs[0], dir)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(dirs[0])); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if left := r.imageContainers(); len(left) != 0 {
		t.Errorf("containers stay behind: %v", left)
	}
	spec := r.spec()
	spec.User = "1234"
	spec.Mounts = []runtime.Mount{{HostPath: dirs[0], Path: "/oci/x:1/models", ReadOnly: true}}
	out := r.run(spec, "cd /oci/x:1/models; ls | wc -l; cat config.json; wc -c < model.safetensors; touch new 2>&1 || true")
	for _, want := range []string{"12\n", `{"file": "config"}`, "10\n", "Read-only file system"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in %q", want, out)
		}
	}
	for name, m := range map[string]runtime.Mount{
		"for writing":    {HostPath: dirs[0], Path: "/x"},
		"beside, by dot": {HostPath: filepath.Join(dirs[0], "../.."), Path: "/x", ReadOnly: true},
	} {
		spec := r.spec()
		spec.Mounts = []runtime.Mount{m}
		if _, err := r.b.Create(r.Context(), spec); !errors.Is(err, runtime.ErrPolicy) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// imageContainers lists what image volumes are copied from.
func (r *rig) imageContainers() []dockerapi.Summary {
	r.Helper()
	list, err := r.api.ContainerList(r.Context(), docker.LabelImageVolume+"="+r.cfg.StoreID)
	if err != nil {
		r.Fatal(err)
	}
	return list
}

func TestImageVolumeThatCannotBe(t *testing.T) {
	r := newRig(t, "", nil)
	hostile := r.importImage(
		tar.Header{Name: "models/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "models/shadow", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"},
		tar.Header{Name: "file", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"contents": "x"}},
		tar.Header{Name: "way", Typeflag: tar.TypeSymlink, Linkname: "/../../nowhere"},
	)
	for _, tt := range []struct{ ref, path, want string }{
		{modelCar, "/nothing", "no folder /nothing"},
		{modelCar, "models", "not absolute"},
		{hostile, "/models", "leads out"},
		{hostile, "/file", "not a folder"},
		{hostile, "/way", "no folder /way"}, // the link's target is looked for in the image
		{"skiffdev/there-is-no-such-image:0", "/models", "not available"},
	} {
		dir, err := r.b.ImageVolume(t.Context(), runtime.ImageRequest{Ref: tt.ref, Policy: runtime.PullNever}, tt.path)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s of %s: got %q, %v; want an error with %q", tt.path, tt.ref, dir, err, tt.want)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(r.cfg.StateDir, "image-volumes")); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if left := r.imageContainers(); len(left) != 0 {
		t.Errorf("containers stay behind: %v", left)
	}
}

// TestImageVolumeLeftovers: what a daemon that was killed left is removed, and is
// no container of a pod.
func TestImageVolumeLeftovers(t *testing.T) {
	r := newRig(t, "", nil)
	label := docker.LabelImageVolume + "=" + r.cfg.StoreID
	if _, err := r.docker(t.Context(), "create", "--label", label, "--label", labelTest+"="+r.cfg.Labels[labelTest], modelCar, "/x"); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(r.cfg.StateDir, "image-volumes", ".unfinished-1")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	if list, err := r.b.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("listed as a pod's: %v, %v", list, err)
	}
	if _, err := r.b.ImageVolume(t.Context(), runtime.ImageRequest{Ref: modelCar, Policy: runtime.PullNever}, "/models"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a folder stays: %v", err)
	}
	if left := r.imageContainers(); len(left) != 0 {
		t.Errorf("containers stay behind: %v", left)
	}
}
