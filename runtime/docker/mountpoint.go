package docker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/skiff-ml/skiff/runtime"
)

// makeMountPoints makes, in the host folders behind mounts, the places where
// deeper mounts go: the engine itself cannot make them where the outer mount is
// read-only, and would make them root's where it is not.
func makeMountPoints(mounts []runtime.Mount) error {
	for _, inner := range mounts {
		target := path.Clean(inner.Path)
		outer, rel, ok := outerMount(mounts, target)
		if !ok {
			continue
		}
		isFile := false
		if !inner.Memory {
			info, err := os.Stat(path.Join(inner.HostPath, inner.SubPath))
			isFile = err == nil && !info.IsDir()
		}
		if err := makeMountPoint(outer, rel, isFile); err != nil {
			return fmt.Errorf("make a place for the mount %s in %s: %w", target, outer.HostPath, err)
		}
	}
	return nil
}

// outerMount finds the innermost bind mount that a target lies in.
func outerMount(mounts []runtime.Mount, target string) (outer runtime.Mount, rel string, ok bool) {
	depth := 0
	for _, m := range mounts {
		at := path.Clean(m.Path)
		rest, inside := strings.CutPrefix(target, strings.TrimSuffix(at, "/")+"/")
		if inside && len(at) > depth {
			outer, rel, ok, depth = m, rest, true, len(at)
		}
	}
	return outer, rel, ok && !outer.Memory
}

// makeMountPoint makes one, beneath what is mounted and through no link that leads
// out.
func makeMountPoint(outer runtime.Mount, rel string, isFile bool) error {
	r, err := os.OpenRoot(outer.HostPath)
	if err != nil {
		return err
	}
	defer r.Close()
	if outer.SubPath != "" {
		sub, err := r.OpenRoot(filepath.FromSlash(outer.SubPath))
		if err != nil {
			return err
		}
		defer sub.Close()
		r = sub
	}
	if _, err := r.Stat(rel); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !isFile {
		return r.MkdirAll(rel, 0o755)
	}
	if err := r.MkdirAll(filepath.Dir(rel), 0o755); err != nil {
		return err
	}
	f, err := r.OpenFile(rel, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
