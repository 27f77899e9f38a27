package daemon

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

var _ pipeline.ArtifactRepository = (*artifact.Repository)(nil)

// volumes finds the host folders behind artifact volumes.
type volumes struct{ repository *artifact.Repository }

var _ pod.Volumes = volumes{}

// HostPath implements pod.Volumes.
func (v volumes) HostPath(_ context.Context, namespace string, volume core.Volume) (hostPath string, readOnlyOnly bool, err error) {
	switch {
	case volume.Artifact != nil:
		path, writable, err := v.repository.HostPath(namespace, volume.Artifact.Key)
		return path, !writable, err
	case volume.HostPath != nil:
		return "", false, fmt.Errorf("host path %s: no folder of this machine is allowed", volume.HostPath.Path)
	default:
		return "", false, fmt.Errorf("volume %s has no source that is known here", volume.Name)
	}
}

// OpenArtifact implements server.Artifacts.
func (d *daemon) OpenArtifact(ctx context.Context, a *skiff.Artifact) (*server.Content, error) {
	e, err := d.await(ctx)
	if err != nil {
		return nil, err
	}
	return openArtifact(ctx, e.repository, a)
}

// openArtifact opens an artifact's file, or a tar stream of its folder.
func openArtifact(ctx context.Context, r *artifact.Repository, a *skiff.Artifact) (*server.Content, error) {
	if a.Status.Missing {
		return nil, fmt.Errorf("artifact %s was declared by its task but never written: %w", a.Name, store.ErrNotFound)
	}
	if why := a.Gone(); why != "" {
		return nil, fmt.Errorf("artifact %s: %s: %w", a.Name, why, store.ErrNotFound)
	}
	file, err := r.Open(a.Namespace, a.Spec.URI, "")
	switch {
	case err == nil:
		info, err := file.Stat()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open artifact %s: %w", a.Name, err), file.Close())
		}
		return &server.Content{ReadCloser: file, Size: info.Size()}, nil
	case errors.Is(err, artifact.ErrNotFound):
		return nil, fmt.Errorf("artifact %s is not kept here (%s): %w", a.Name, a.Spec.URI, store.ErrNotFound)
	}
	// Whether it is a folder shows in whether it can be listed.
	if _, listErr := r.List(a.Namespace, a.Spec.URI, ""); listErr != nil {
		return nil, fmt.Errorf("open artifact %s: %w", a.Name, err)
	}
	reader, writer := io.Pipe()
	go func() {
		archive := tar.NewWriter(writer)
		err := addFolder(ctx, archive, r, a, "")
		if err == nil {
			err = archive.Close()
		}
		// The reader sees the error in place of the archive's end; once the
		// reader is closed, each write fails and the goroutine ends.
		_ = writer.CloseWithError(err)
	}()
	return &server.Content{ReadCloser: reader, Size: -1, Folder: true}, nil
}

// addFolder writes what is in a folder of an artifact, files and folders only.
func addFolder(ctx context.Context, archive *tar.Writer, r *artifact.Repository, a *skiff.Artifact, sub string) error {
	entries, err := r.List(a.Namespace, a.Spec.URI, sub)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		name := path.Join(sub, entry.Name)
		switch {
		case entry.Link:
		case entry.Dir:
			header := &tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: entry.Modified}
			if err := archive.WriteHeader(header); err != nil {
				return err
			}
			if err := addFolder(ctx, archive, r, a, name); err != nil {
				return err
			}
		default:
			if err := addFile(archive, r, a, name, entry); err != nil {
				return err
			}
		}
	}
	return nil
}

func addFile(archive *tar.Writer, r *artifact.Repository, a *skiff.Artifact, name string, entry artifact.Entry) (err error) {
	file, err := r.Open(a.Namespace, a.Spec.URI, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: entry.Size, ModTime: entry.Modified}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(archive, file)
	return err
}
