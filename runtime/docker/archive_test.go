package docker

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/problem"
)

// packed is an archive of files, in order; a "->" in the contents makes a link.
func packed(t *testing.T, files ...string) *bytes.Reader {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Name: files[i], Typeflag: tar.TypeReg, Size: int64(len(files[i+1])), Mode: 0o644}
		target, link := strings.CutPrefix(files[i+1], "->")
		if link {
			h = &tar.Header{Name: files[i], Typeflag: tar.TypeSymlink, Linkname: target}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if !link {
			if _, err := w.Write([]byte(files[i+1])); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(out.Bytes())
}

// TestCheckArchive: what the engine would believe is looked at first.
func TestCheckArchive(t *testing.T) {
	const config = `{"rootfs":{}}`
	sum := sha256.Sum256([]byte(config))
	hash := hex.EncodeToString(sum[:])
	id := "sha256:" + hash
	saved := `[{"Config":"` + hash + `.json","RepoTags":null,"Layers":["1/layer.tar"]}]`
	layout := `{"manifests":[{"digest":"` + id + `"}]}`
	for _, tc := range []struct {
		name  string
		files []string
		want  string // "" where it is taken
	}{
		{name: "as docker save writes it", files: []string{"1/layer.tar", "layer", "2/layer.tar", "->../1/layer.tar", hash + ".json", config, "manifest.json", saved}},
		{name: "as the OCI has it", files: []string{"blobs/sha256/" + hash, config, "index.json", layout, "oci-layout", "{}"}},
		{name: "nothing", want: "does not hold one image"},
		{name: "a name", files: []string{hash + ".json", config, "manifest.json", strings.Replace(saved, "null", `["python:3.11"]`, 1)}, want: "gives names"},
		{name: "names in the old way", files: []string{hash + ".json", config, "manifest.json", saved, "repositories", `{"python":{}}`}, want: "gives names"},
		{name: "a name in the OCI's way", files: []string{"blobs/sha256/" + hash, config, "index.json",
			strings.Replace(layout, `"}`, `","annotations":{"io.containerd.image.name":"python:3.11"}}`, 1)}, want: "gives a name"},
		{name: "two images", files: []string{hash + ".json", config, "manifest.json", "[" + saved[1:len(saved)-1] + "," + saved[1:]}, want: "does not hold one image"},
		{name: "another configuration", files: []string{hash + ".json", config + " ", "manifest.json", saved}, want: "another image"},
		{name: "another manifest", files: []string{"blobs/sha256/" + hash, config + " ", "index.json", layout}, want: "another image"},
		{name: "two manifests", files: []string{hash + ".json", config, "manifest.json", saved, "./manifest.json", "[]"}, want: "comes twice"},
		{name: "a link out", files: []string{"x", "->../../etc/passwd", hash + ".json", config, "manifest.json", saved}, want: "not a file"},
		{name: "an absolute link", files: []string{"x", "->/etc/passwd", hash + ".json", config, "manifest.json", saved}, want: "not a file"},
		{name: "a manifest that is a link", files: []string{"manifest.json", "->x"}, want: "is no file"},
		{name: "a path out", files: []string{"../x", "y", hash + ".json", config, "manifest.json", saved}, want: "leads out"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := checkArchive(packed(t, tc.files...), id)
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || !errors.Is(err, problem.ErrInvalid)):
				t.Errorf("got %v; want a refusal with %q", err, tc.want)
			}
		})
	}
	if err := checkArchive(strings.NewReader(strings.Repeat("no archive", 100)), id); !errors.Is(err, problem.ErrInvalid) {
		t.Errorf("what is no archive: %v", err)
	}
}
