package docker

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/distribution/reference"

	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
)

var _ runtime.ImageArchives = (*Backend)(nil)

// SaveImage implements runtime.ImageArchives.
func (b *Backend) SaveImage(ctx context.Context, ref string, identities []string) (string, io.ReadCloser, error) {
	img, err := b.PrepareImage(ctx, runtime.ImageRequest{Ref: ref, Policy: runtime.PullNever, Identities: identities}, nil)
	if errors.Is(err, runtime.ErrImageChanged) {
		err = fmt.Errorf("%w: %w", err, runtime.ErrImageUnavailable)
	}
	if err != nil {
		return "", nil, err
	}
	archive, err := b.api.ImageSave(ctx, img.ID)
	if err != nil {
		return "", nil, b.engineError("save image "+ref, err)
	}
	return img.ID, archive, nil
}

// LoadImage implements runtime.ImageArchives.
func (b *Backend) LoadImage(ctx context.Context, id string, archive io.ReadSeeker) (made bool, err error) {
	if !identity.MatchString(id) {
		return false, refuseArchive(id, "that is no image's id")
	}
	if err := checkArchive(archive, id); err != nil {
		return false, err
	}
	if _, err := b.api.ImageInspect(ctx, id); !dockerapi.IsNotFound(err) {
		if err != nil {
			err = b.engineError("load image "+id, err)
		}
		return false, err
	}
	if _, err := archive.Seek(0, io.SeekStart); err != nil {
		return false, fmt.Errorf("load image %s: %w", id, err)
	}
	if err := b.api.ImageLoad(ctx, struct{ io.Reader }{archive}); err != nil {
		return false, b.engineError("load image "+id, err)
	}
	if _, err := b.api.ImageInspect(ctx, id); err != nil {
		return false, b.engineError("load image "+id+": the engine made another one of it", err)
	}
	return true, nil
}

// NameImage implements runtime.ImageArchives.
func (b *Backend) NameImage(ctx context.Context, id, ref string) error {
	named, err := parseRef(ref)
	if err != nil {
		return err
	}
	if _, pinned := named.(reference.Digested); pinned {
		return nil // a digest is no name that can be given
	}
	have, err := b.api.ImageInspect(ctx, named.String())
	switch {
	case err == nil && have.ID == id:
		return nil
	case err == nil:
		return fmt.Errorf("name image %s: another image has the name %s; it stays, and runs that were imported find theirs by its id", id, ref)
	case !dockerapi.IsNotFound(err):
		return b.engineError("name image "+id, err)
	}
	if err := b.api.ImageTag(ctx, id, named.String()); err != nil {
		return b.engineError("name image "+id+" "+ref, err)
	}
	return nil
}

// DropImage implements runtime.ImageArchives.
func (b *Backend) DropImage(ctx context.Context, id string) error {
	err := b.api.ImageRemove(ctx, id)
	if err == nil || dockerapi.IsNotFound(err) {
		return nil
	}
	return b.engineError("remove image "+id, err)
}

// refuseArchive is what is wrong with an archive, which the engine did not see.
func refuseArchive(id, format string, args ...any) error {
	return problem.List{{Object: "image " + id, Err: fmt.Errorf(format, args...), Hint: "export it anew"}}
}

const (
	// maxIndex bounds the parts of an archive that say what is in it.
	maxIndex = 8 << 20
	// maxArchiveEntries is far more than the layers of any image.
	maxArchiveEntries = 10_000
)

// archiveIndex is what an archive says of itself, in either of its two forms:
// that of "docker save", and the OCI's layout beside it.
type archiveIndex struct {
	manifest []struct {
		Config   string
		RepoTags []string
	}
	layout struct {
		Manifests []struct {
			Digest      string            `json:"digest"`
			Annotations map[string]string `json:"annotations"`
		} `json:"manifests"`
	}
	// sums are the hashes of the files that may be the image's configuration or
	// manifest.
	sums map[string]string
}

// checkArchive makes sure that an archive of a stranger's holds the image of the
// id and nothing else, and gives it no name: the engine would take a name from
// the image that has it. That layers are what the configuration says, the engine
// checks.
func checkArchive(archive io.Reader, id string) error {
	index := archiveIndex{sums: map[string]string{}}
	seen := map[string]bool{}
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return index.check(id)
		}
		if err != nil {
			return refuseArchive(id, "it is no archive of an image: %w", err)
		}
		name := path.Clean(h.Name)
		switch {
		case h.Typeflag == tar.TypeDir:
			continue
		case len(seen) > maxArchiveEntries:
			return refuseArchive(id, "it has more than %d entries", maxArchiveEntries)
		case seen[name], strings.HasPrefix(name, ".."), path.IsAbs(name):
			return refuseArchive(id, "the entry %.100q comes twice, or leads out", h.Name)
		case h.Typeflag == tar.TypeSymlink && local(path.Join(path.Dir(name), h.Linkname)) && !path.IsAbs(h.Linkname): //nolint:gosec // Nothing is extracted.
			// Layers that are the same are written as links.
		case h.Typeflag != tar.TypeReg:
			return refuseArchive(id, "the entry %.100q is not a file", h.Name)
		}
		seen[name] = true
		if err := index.read(name, h, r); err != nil {
			return refuseArchive(id, "its entry %.100q: %w", h.Name, err)
		}
	}
}

func local(name string) bool { return name != ".." && !strings.HasPrefix(name, "../") }

// read takes in what an entry says of the archive.
func (x *archiveIndex) read(name string, h *tar.Header, contents io.Reader) error {
	switch {
	case name == "repositories":
		return errors.New("it gives names")
	case name == "manifest.json":
		return decodeIndex(h, contents, &x.manifest)
	case name == "index.json":
		return decodeIndex(h, contents, &x.layout)
	case h.Typeflag == tar.TypeReg && h.Size <= maxIndex && (strings.HasPrefix(name, "blobs/") || strings.HasSuffix(name, ".json")):
		sum := sha256.New()
		if _, err := io.Copy(sum, contents); err != nil {
			return err
		}
		x.sums[name] = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	}
	return nil
}

func decodeIndex(h *tar.Header, contents io.Reader, into any) error {
	if h.Typeflag != tar.TypeReg || h.Size > maxIndex {
		return fmt.Errorf("it has %d bytes, or is no file", h.Size)
	}
	return json.NewDecoder(contents).Decode(into)
}

// check holds what was found against the id: the hash of the image's
// configuration or, with newer engines, of its manifest.
func (x *archiveIndex) check(id string) error {
	if len(x.manifest) > 1 || len(x.layout.Manifests) > 1 || len(x.manifest)+len(x.layout.Manifests) == 0 {
		return refuseArchive(id, "it does not hold one image")
	}
	is := false
	for _, m := range x.manifest {
		if len(m.RepoTags) > 0 {
			return refuseArchive(id, "it gives names: %.200q", m.RepoTags)
		}
		is = is || x.sums[path.Clean(m.Config)] == id
	}
	for _, m := range x.layout.Manifests {
		for key := range m.Annotations {
			if strings.HasSuffix(key, "image.name") || strings.HasSuffix(key, "ref.name") {
				return refuseArchive(id, "it gives a name")
			}
		}
		is = is || (m.Digest == id && x.sums["blobs/sha256/"+strings.TrimPrefix(id, "sha256:")] == id)
	}
	if !is {
		return refuseArchive(id, "it holds another image")
	}
	return nil
}
