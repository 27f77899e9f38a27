package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

const (
	// workspacePath is where a run's workspace appears (KFP's published path).
	workspacePath = "/kfp-workspace"
	// workspaceArtifacts is the folder of the workspace that imported artifacts
	// are copied to, and workspaceMark the metadata by which an executor input
	// tells the SDK to look there: both as published. The mark is written into
	// executor inputs alone; what is stored says it in the artifact's own field.
	workspaceArtifacts = ".artifacts"
	workspaceMark      = "_kfp_workspace"
	// maxCopies is how many artifacts are copied into workspaces at once: a disk
	// gains nothing by more, and the steps read from it, too.
	maxCopies = 4
)

// workspaceClaim names the claim of a run's workspace.
func workspaceClaim(run string) string { return run + "-workspace" }

// workspaceVolume is a run's workspace as its pods mount it.
func workspaceVolume(run string) core.Volume {
	return core.Volume{Name: "kfp-workspace", PersistentVolumeClaim: &core.PersistentVolumeClaimVolume{ClaimName: workspaceClaim(run)}}
}

// ensureWorkspace sees to it that the run has the claim of its workspace, from
// the first transaction of its execution on. The claim belongs to the run: it is
// deleted with it, and nobody else may, and its finalizer keeps it until the
// folder behind it is gone, however often the daemon is killed in between.
func (x *execution) ensureWorkspace(ctx context.Context) error {
	config := x.plat.Workspace()
	if config == nil {
		return nil
	}
	name := workspaceClaim(x.run.Name)
	_, err := x.c.store.Get(ctx, store.Key{Kind: claimsKind, Namespace: x.run.Namespace, Name: name})
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	size, err := quantity(config.Size)
	if err != nil {
		return fmt.Errorf("the workspace's size: %w", err)
	}
	claim := &core.PersistentVolumeClaim{
		TypeMeta: core.TypeMeta{APIVersion: "v1", Kind: core.PersistentVolumeClaimKind},
		ObjectMeta: core.ObjectMeta{
			Name: name, Namespace: x.run.Namespace, Labels: map[string]string{core.LabelRun: x.run.Name},
			OwnerReferences: []core.OwnerReference{x.ownedByRun()},
		},
		Spec: core.PersistentVolumeClaimSpec{
			AccessModes: []string{"ReadWriteOnce"},
			Resources:   core.ResourceRequirements{Requests: map[string]core.Quantity{core.ResourceStorage: size}},
		},
	}
	claim.Default()
	x.newClaim = claim
	return nil
}

// workspaceKey is the place in a workspace of what is at a URI: where the SDK
// looks, which puts the path that a container would else see below .artifacts.
func workspaceKey(uri string) (string, error) {
	scheme, key, found := strings.Cut(uri, "://")
	switch {
	case found && scheme == "gs":
		uri = "gcs/" + key
	case found && (scheme == "minio" || scheme == "s3"):
		uri = scheme + "/" + key
	case strings.HasPrefix(uri, modelCarScheme):
		return "", fmt.Errorf("%s is an image, which is not downloaded to a workspace; leave downloadToWorkspace out", uri)
	}
	clean := path.Join(workspaceArtifacts, path.Clean("/"+uri))
	if clean == workspaceArtifacts {
		return "", fmt.Errorf("the URI %q names nothing", uri)
	}
	return clean, nil
}

// download copies an importer's artifact into the run's workspace and settles
// the importer. What has the same place there is copied once at a time, and
// again only where the importer is to import anew.
func (x *execution) download(ctx context.Context, n *node, a *skiff.Artifact, anew bool) {
	key, err := workspaceKey(a.Spec.URI)
	if err != nil {
		x.fail(n, reasonInputs, fmt.Errorf("importer: %w", err))
		return
	}
	if waiting, underWay := x.downloads[key]; underWay {
		x.downloads[key] = append(waiting, func() {
			if !n.final() {
				x.download(ctx, n, a, anew)
			}
		})
		return
	}
	x.downloads[key] = nil
	n.task.Status.Message = "copying " + a.Spec.URI + " into the run's workspace"
	x.touch(n)
	copying, cancel := context.WithCancel(ctx)
	n.abandon = cancel
	namespace, run, uri := x.run.Namespace, x.run.Name, a.Spec.URI
	to := artifact.Target{
		Path: key, Keep: !anew && x.downloaded[key],
		// One of a task's at a time: what a daemon that was killed had begun is
		// found under the name again, and removed.
		Temporary: ".skiff-" + n.task.Name,
	}
	x.outside(copying, func(ctx context.Context) func() {
		info, err := x.c.copyToWorkspace(ctx, namespace, run, uri, to)
		return func() {
			cancel()
			n.abandon = nil
			waiting := x.downloads[key]
			delete(x.downloads, key)
			x.downloaded[key] = x.downloaded[key] || err == nil
			x.downloadEnded(ctx, n, a, info, err)
			for _, next := range waiting {
				next()
			}
		}
	})
}

// copyToWorkspace waits for its turn and copies.
func (c *Controller) copyToWorkspace(ctx context.Context, namespace, run, uri string, to artifact.Target) (artifact.Info, error) {
	select {
	case c.copying <- struct{}{}:
		defer func() { <-c.copying }()
	case <-ctx.Done():
		return artifact.Info{}, context.Cause(ctx)
	}
	folder, err := c.volumes.EnsureVolume(ctx, namespace, workspaceClaim(run))
	if err != nil {
		return artifact.Info{}, fmt.Errorf("make the run's workspace: %w", err)
	}
	to.Folder = folder
	if err := c.artifacts.Fetch(ctx, namespace, uri); err != nil {
		return artifact.Info{}, err
	}
	return artifact.Copy(ctx, c.artifacts, namespace, uri, to)
}

// downloadEnded settles an importer whose artifact was copied, or could not be.
func (x *execution) downloadEnded(ctx context.Context, n *node, a *skiff.Artifact, info artifact.Info, err error) {
	switch {
	case n.final():
	case err != nil && x.cancelling() && !n.exempt:
		x.settle(n, skiff.StateCanceled, reasonCancelled, "the run was cancelled")
	case errors.Is(err, artifact.ErrNotFound), errors.Is(err, artifact.ErrInvalid):
		x.fail(n, reasonInputs, fmt.Errorf("importer: downloadToWorkspace: %w; what is not kept here can be imported without it", err))
	case err != nil:
		x.fail(n, reasonInputs, fmt.Errorf("importer: downloadToWorkspace: %w", err))
	default:
		if a.UID == "" {
			a.Status.Size, a.Status.Files = info.Size, info.Files
		}
		x.takeImport(ctx, n, a)
	}
}
