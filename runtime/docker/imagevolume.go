package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/docker/policy"
)

var _ runtime.ImageVolumes = (*Backend)(nil)

const (
	// labelImageVolume marks the containers that image volumes are copied from.
	// They carry no core.LabelStore: they are no containers of a pod.
	labelImageVolume = "skiff.dev/image-volume"
	// unfinished begins the names of folders that are being filled.
	unfinished = ".unfinished-"
)

// ImageVolume copies the folder at path out of an image, once for each image
// and path. The engine packs it from a container that is never started, so
// nothing of the image runs.
//
// What is there stays for as long as the state folder does: a folder may be
// mounted by a container that this daemon has not heard of yet.
func (b *Backend) ImageVolume(ctx context.Context, req runtime.ImageRequest, inside string) (string, error) {
	if !path.IsAbs(inside) {
		return "", fmt.Errorf("mount image %s: path %q is not absolute", req.Ref, inside)
	}
	inside = path.Clean(inside)
	image, err := b.PrepareImage(ctx, req, nil)
	if err != nil {
		return "", err
	}
	doing := fmt.Sprintf("mount %s of image %s", inside, req.Ref)
	// The image's own id names its contents; a registry's digest may name an
	// index of several.
	sum := sha256.Sum256([]byte(image.ID + "\x00" + inside))
	name := hex.EncodeToString(sum[:])
	unlock, err := b.lockName(ctx, unfinished+name)
	if err != nil {
		return "", err
	}
	defer unlock()
	dir := filepath.Join(b.cfg.imageVolumeDir(), name)
	if info, err := os.Lstat(dir); err == nil && info.IsDir() {
		return dir, nil
	}
	if err := b.sweepImageVolumes(ctx); err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	if err := b.fillImageVolume(ctx, image.ID, inside, dir); err != nil {
		return "", b.engineError(doing, err)
	}
	return dir, nil
}

// fillImageVolume makes dir, whole or not at all, even where the machine loses
// its power: what is there is never looked at again.
func (b *Backend) fillImageVolume(ctx context.Context, imageID, inside, dir string) (err error) {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), unfinished)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := b.copyFromImage(ctx, imageID, inside, tmp); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil { // any user inside; the folder above keeps others out
		return err
	}
	if err := syncFileSystem(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// copyFromImage unpacks a folder of an image into dir.
func (b *Backend) copyFromImage(ctx context.Context, imageID, inside, dir string) error {
	id, err := b.imageContainer(ctx, imageID)
	if err != nil {
		return err
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), teardown)
		defer cancel()
		if err := b.api.ContainerRemove(clean, id, true); err != nil {
			b.cfg.Logger.Warn("the container of an image volume stays behind", "container", short(id), "error", err)
		}
	}()
	archive, err := b.api.CopyFrom(ctx, id, strings.TrimSuffix(inside, "/")+"/.")
	switch {
	case dockerapi.IsNotFound(err):
		return &problem.Error{Err: fmt.Errorf("the image has no folder %s", inside), Hint: "see what the image holds, or choose another folder"}
	case err != nil && strings.Contains(err.Error(), "not a directory"):
		return fmt.Errorf("%s is not a folder in the image", inside)
	case err != nil:
		return err
	}
	defer archive.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := unpack(root, archive, unpackLimits{entries: maxVolumeEntries, bytes: maxVolumeBytes}); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return nil
}

// imageContainer makes a container that never runs. It passes the same policy as all.
func (b *Backend) imageContainer(ctx context.Context, imageID string) (string, error) {
	e, err := b.reach(ctx)
	if err != nil {
		return "", err
	}
	h := baseHost(networkNone, DefaultPids)
	c := &dockerapi.Config{
		Entrypoint: []string{launcherInside}, Image: imageID, Env: []string{"NVIDIA_VISIBLE_DEVICES=void"},
		Healthcheck: noHealthcheck(), Labels: map[string]string{},
	}
	maps.Copy(c.Labels, b.cfg.Labels)
	c.Labels[labelImageVolume] = b.cfg.StoreID
	if err := e.rules.Check(h, c, policy.Grant{Network: networkNone}); err != nil {
		return "", err
	}
	return b.api.ContainerCreate(ctx, "skiff-image-"+b.cfg.StoreID+"-"+uuid.NewString()[:8], c, h)
}

// sweepImageVolumes removes, once, what a daemon that was killed left half done.
func (b *Backend) sweepImageVolumes(ctx context.Context) error {
	b.sweep.Lock()
	defer b.sweep.Unlock()
	if b.swept {
		return nil
	}
	parent := b.cfg.imageVolumeDir()
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), unfinished) {
			if err := os.RemoveAll(filepath.Join(parent, entry.Name())); err != nil {
				return err
			}
		}
	}
	left, err := b.api.ContainerList(ctx, labelImageVolume+"="+b.cfg.StoreID)
	if err != nil {
		return b.engineError("list the containers of image volumes", err)
	}
	for _, c := range left {
		if err := b.api.ContainerRemove(ctx, c.ID, true); err != nil && !dockerapi.IsNotFound(err) && !removalUnderWay(err) {
			return b.engineError("remove container "+short(c.ID), err)
		}
	}
	b.swept = true
	return nil
}

// syncFileSystem writes out what the folder's file system holds back: one call,
// however many files were written.
func syncFileSystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("write out %s: %w", dir, err)
	}
	return nil
}
