package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/docker/policy"
)

const (
	// emptyImage is an image of nothing, for containers that are never started.
	emptyImage = "skiff/empty:1"
	// reclaimRounds bounds how deep a tree of foreign folders may be: each round
	// opens at least one level.
	reclaimRounds = 128
	// reclaimInside is where the folder is mounted; its parent is where the
	// owners are unpacked.
	reclaimInside, reclaimName = insideDir + "/reclaim", "folder"
)

// Reclaim gives every folder at and below dir, which must lie in the state
// folder, to uid and gid, so that a daemon that is not root can remove what
// containers left. Files keep their owners: who owns the folder may remove them.
//
// No program is run for it. The engine unpacks an archive into a container that
// is never started, and an archive carries owners; so nothing a pod wrote has a
// say in it.
func (b *Backend) Reclaim(ctx context.Context, dir string, uid, gid int) error {
	doing := "reclaim " + dir
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	foreign, err := foreignFolders(dir, uid)
	if err != nil || len(foreign) == 0 {
		return err
	}
	id, err := b.reclaimContainer(ctx, dir)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), teardown)
		defer cancel()
		if err := b.api.ContainerRemove(clean, id, true); err != nil {
			b.cfg.Logger.Warn("a clean-up container stays behind", "container", short(id), "error", err)
		}
	}()
	for range reclaimRounds {
		archive, err := ownerArchive(dir, foreign, uid, gid)
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		if err := b.api.CopyTo(ctx, id, reclaimInside, archive); err != nil {
			return b.engineError(doing, err)
		}
		if foreign, err = foreignFolders(dir, uid); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		if len(foreign) == 0 {
			return nil
		}
	}
	return fmt.Errorf("%s: %d folders still belong to others", doing, len(foreign))
}

// foreignFolders lists folders of other owners, as deep as this process can see.
func foreignFolders(dir string, uid int) ([]string, error) {
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
				return nil // it is on the list, and is looked into in the next round
			}
			return err
		}
		if !d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // It has gone.
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != uid {
			list = append(list, path)
		}
		return nil
	})
	return list, err
}

// ownerArchive names each folder with its new owner.
func ownerArchive(root string, folders []string, uid, gid int) (*bytes.Buffer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range folders {
		rel, err := filepath.Rel(root, f)
		if err != nil {
			return nil, err
		}
		err = w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeDir, Name: filepath.Join(reclaimName, rel) + "/", Mode: 0o755,
			Uid: uid, Gid: gid, ModTime: time.Now(), Format: tar.FormatPAX,
		})
		if err != nil {
			return nil, err
		}
	}
	return &buf, w.Close()
}

// reclaimContainer makes a container that shows the folder and never runs. It
// passes the same policy as all.
func (b *Backend) reclaimContainer(ctx context.Context, dir string) (string, error) {
	e, err := b.reach(ctx)
	if err != nil {
		return "", err
	}
	if _, err := b.api.ImageInspect(ctx, emptyImage); dockerapi.IsNotFound(err) {
		// Two blocks of zeros are an archive of nothing.
		err = b.api.ImageImport(ctx, bytes.NewReader(make([]byte, 1024)), emptyImage)
		if err != nil {
			return "", b.engineError("make image "+emptyImage, err)
		}
	}
	state, err := filepath.EvalSymlinks(b.cfg.StateDir)
	if err != nil {
		return "", err
	}
	if rel, err := filepath.Rel(state, dir); err != nil || rel == "." || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%w: it does not lie in the state folder", runtime.ErrPolicy)
	}
	h := baseHost(networkNone, DefaultPids)
	h.Mounts = []dockerapi.Mount{bind(dir, reclaimInside+"/"+reclaimName, false)}
	c := &dockerapi.Config{
		Entrypoint: []string{launcherInside}, Image: emptyImage, Env: []string{"NVIDIA_VISIBLE_DEVICES=void"},
		Healthcheck: noHealthcheck(), Labels: b.cfg.Labels,
	}
	if err := e.rules.Check(h, c, policy.Grant{Network: networkNone, Roots: []policy.Root{{Path: dir, Own: true}}}); err != nil {
		return "", err
	}
	// Not this store's label: it is no container of a pod.
	name := "skiff-reclaim-" + b.cfg.StoreID + "-" + uuid.NewString()[:8]
	id, err := b.api.ContainerCreate(ctx, name, c, h)
	return id, b.engineError("make container "+name, err)
}
