package daemon

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
	"github.com/skiff-ml/skiff/store/artifact/s3"
)

var (
	_ pipeline.ArtifactRepository = (*s3.Mirror)(nil)
	_ pipeline.ObjectStores       = (*s3.Mirror)(nil)
)

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
	return openArtifact(ctx, e.artifacts, a)
}

// openArtifacts opens the artifacts' folder, and what object stores keep of it.
func (d *daemon) openArtifacts(e *engines) (err error) {
	if e.repository, err = artifact.Open(filepath.Join(d.cfg.StateDir, "artifacts")); err != nil {
		return err
	}
	if !d.cfg.Reading {
		// There is one daemon of a folder, and it has not begun to receive.
		if err := e.repository.DropIncoming(context.Background()); err != nil {
			return err
		}
	}
	cfg := s3.Config{
		Repository: e.repository, Store: d.store, Owner: d.store.ID(), CacheBytes: d.cfg.ArtifactCache, Reserve: d.cfg.DiskReserve, Reach: d.cfg.pipelineReach(), Logger: d.log,
		InUse: func(ctx context.Context) (map[s3.Key]bool, error) { return e.pipelines.InUse(ctx) },
	}
	if d.cfg.S3FromEnv {
		cfg.Environment = &s3.Credentials{
			AccessKey: os.Getenv("AWS_ACCESS_KEY_ID"), SecretKey: os.Getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: os.Getenv("AWS_SESSION_TOKEN"),
		}
	}
	e.artifacts, err = s3.NewMirror(cfg)
	return err
}

// openArtifact opens an artifact's file, or a tar stream of its folder. What is
// not here is brought from where it is kept.
func openArtifact(ctx context.Context, r *s3.Mirror, a *skiff.Artifact) (*server.Content, error) {
	if a.Status.Missing {
		return nil, fmt.Errorf("artifact %s was declared by its task but never written: %w", a.Name, store.ErrNotFound)
	}
	if why := a.Gone(); why != "" {
		return nil, fmt.Errorf("artifact %s: %s: %w", a.Name, why, store.ErrNotFound)
	}
	file, err := r.Open(a.Namespace, a.Spec.URI, "")
	if errors.Is(err, artifact.ErrNotFound) {
		if err = r.Fetch(ctx, a.Namespace, a.Spec.URI); err == nil {
			file, err = r.Open(a.Namespace, a.Spec.URI, "")
		} else if s3.Lasting(err) {
			return nil, fmt.Errorf("artifact %s is not to be had: %w: %w", a.Name, err, store.ErrNotFound)
		}
	}
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
func addFolder(ctx context.Context, archive *tar.Writer, r *s3.Mirror, a *skiff.Artifact, sub string) error {
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

func addFile(archive *tar.Writer, r *s3.Mirror, a *skiff.Artifact, name string, entry artifact.Entry) (err error) {
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
