//go:build docker

package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
)

// smallImage makes a small image of its own under a name and returns its id. It
// is gone with the test.
func (r *rig) smallImage(t *testing.T, ref, text string) string {
	t.Helper()
	var root bytes.Buffer
	w := tar.NewWriter(&root)
	err := w.WriteHeader(&tar.Header{Name: "text", Typeflag: tar.TypeReg, Size: int64(len(text)), Mode: 0o644})
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err = errors.Join(err, w.Close()); err == nil {
		err = r.api.ImageImport(t.Context(), &root, ref)
	}
	if err != nil {
		t.Fatal(err)
	}
	img, err := r.api.ImageInspect(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range []string{ref, img.ID} {
			if err := r.api.ImageRemove(context.Background(), name); err != nil && !dockerapi.IsNotFound(err) {
				t.Errorf("remove %s: %v", name, err)
			}
		}
	})
	return img.ID
}

// TestImageTravels saves an image, removes it, and loads it again; then its name
// is another image's, and it is found by its id.
func TestImageTravels(t *testing.T) {
	r := newRig(t, "", nil)
	ref := "skiff-test/" + strings.TrimPrefix(r.cfg.StoreID, "test-") + ":1"
	id := r.smallImage(t, ref, "first "+ref)
	ctx := t.Context()
	if _, _, err := r.b.SaveImage(ctx, ref, []string{"sha256:" + strings.Repeat("0", 64)}); !errors.Is(err, runtime.ErrImageUnavailable) {
		t.Errorf("save of another image of that name: %v", err)
	}
	saved, archive, err := r.b.SaveImage(ctx, ref, []string{id})
	if err != nil || saved != id {
		t.Fatalf("saved %s, %v; want %s", saved, err, id)
	}
	data, err := io.ReadAll(archive)
	if err = errors.Join(err, archive.Close()); err != nil {
		t.Fatal(err)
	}
	load := func(data []byte) (bool, error) { return r.b.LoadImage(ctx, id, bytes.NewReader(data)) }
	if made, err := load(data); made || err != nil {
		t.Errorf("load of what is there: %v, %v", made, err)
	}
	if err := r.api.ImageRemove(ctx, ref); err != nil {
		t.Fatal(err)
	}
	if made, err := load(append([]byte("x"), data...)); !errors.Is(err, problem.ErrInvalid) {
		t.Errorf("load of no archive: %v, %v", made, err)
	}
	if made, err := load(data); !made || err != nil {
		t.Fatalf("load: %v, %v", made, err)
	}
	if _, err := r.api.ImageInspect(ctx, ref); !dockerapi.IsNotFound(err) {
		t.Errorf("the archive gave a name: %v", err)
	}
	if err := r.b.NameImage(ctx, id, ref); err != nil {
		t.Error(err)
	}
	if img, err := r.b.PrepareImage(ctx, runtime.ImageRequest{Ref: ref, Policy: runtime.PullNever}, nil); err != nil || img.ID != id {
		t.Errorf("by its name: %+v, %v", img, err)
	}

	other := r.smallImage(t, ref, "second "+ref) // takes the name
	if err := r.b.NameImage(ctx, id, ref); err == nil {
		t.Error("the name was taken from another image")
	}
	pinned := runtime.ImageRequest{Ref: ref, Policy: runtime.PullNever, Identities: []string{id}}
	if img, err := r.b.PrepareImage(ctx, pinned, nil); err != nil || img.ID != id {
		t.Errorf("by its id: %+v, %v; want %s", img, err, id)
	}
	if err := r.b.DropImage(ctx, id); err != nil {
		t.Error(err)
	}
	if _, err := r.b.PrepareImage(ctx, pinned, nil); !errors.Is(err, runtime.ErrImageChanged) || !strings.Contains(err.Error(), other) {
		t.Errorf("another image under the name: %v; want ErrImageChanged that names it", err)
	}
	if err := r.b.DropImage(ctx, id); err != nil {
		t.Errorf("a second removal: %v", err)
	}
}
