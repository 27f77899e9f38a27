package policy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"syscall"

	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
)

// Reasons of a refused host path, for machines.
var (
	// ErrHostPath: no allowed folder holds the path.
	ErrHostPath = errors.New("HostPathNotAllowed")
	// ErrEscapes: the path as written lies in an allowed folder, a link in it leads out.
	ErrEscapes = errors.New("PathEscapes")
)

const hintHostPath = "mount a volume or an artifact, or have the administrator add the folder to the daemon's allowed host paths"

func checkMounts(k *checker, v reflect.Value) error {
	seen := map[string]bool{}
	for i, m := range v.Interface().([]dockerapi.Mount) {
		field := fmt.Sprintf("HostConfig.Mounts[%d]", i)
		if err := k.closed(field, reflect.ValueOf(m), mountFields); err != nil {
			return err
		}
		if err := k.target(m.Target, seen); err != nil {
			return refuse(field+".Target", err, "")
		}
		switch m.Type {
		case dockerapi.MountTmpfs:
			if m.Source != "" || m.TmpfsOptions == nil || m.TmpfsOptions.SizeBytes <= 0 {
				return refuse(field, errors.New("a memory-backed folder needs a size and no source"), "")
			}
		case dockerapi.MountBind:
			if m.BindOptions == nil || m.TmpfsOptions != nil {
				return refuse(field+".BindOptions", errors.New("the propagation must be set"), "")
			}
			if err := k.source(m.Source, m.ReadOnly); err != nil {
				return refuse(field+".Source", err, hintHostPath)
			}
		default:
			return refuse(field+".Type", fmt.Errorf("%q is not allowed", m.Type), "")
		}
	}
	return nil
}

// target: a mount may not hide what isolates the container, nor another mount.
func (k *checker) target(path string, seen map[string]bool) error {
	switch {
	case !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/":
		return fmt.Errorf("%q is not a clean absolute path", path)
	case seen[path]:
		return fmt.Errorf("%s is mounted twice", path)
	}
	for _, kernel := range []string{"/proc", "/sys", "/dev"} {
		if inside(kernel, path) {
			return fmt.Errorf("%s lies in the kernel's %s", path, kernel)
		}
	}
	seen[path] = true
	return nil
}

// source decides over one host path, which must be resolved already: what is
// checked is then what the engine opens.
func (k *checker) source(path string, readOnly bool) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHostPath, err)
	}
	if real != path {
		return fmt.Errorf("%w: %s leads to %s", ErrEscapes, path, real)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHostPath, err)
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is neither a folder nor a regular file", ErrHostPath, path)
	}
	for _, s := range k.rules.Sockets {
		if other, err := os.Stat(s); err == nil && sameFile(info, other) {
			return fmt.Errorf("%w: %s is the engine's socket", ErrHostPath, path)
		}
	}
	for _, f := range k.rules.Files {
		if resolve(f) == path {
			if !readOnly {
				return fmt.Errorf("%w: %s can be mounted read-only alone", ErrHostPath, path)
			}
			return nil
		}
	}
	root, err := k.root(path)
	if err != nil {
		return err
	}
	if root.ReadOnly && !readOnly {
		return fmt.Errorf("%w: %s is allowed read-only", ErrHostPath, root.Path)
	}
	return nil
}

// root finds the innermost root that holds the path, and makes sure that nothing
// forbidden lies above, below or at it.
func (k *checker) root(path string) (Root, error) {
	var best Root
	depth := -1
	for _, list := range [][]Root{k.rules.Roots, k.grant.Roots} {
		for _, r := range list {
			if dir := resolve(r.Path); inside(dir, path) && len(dir) > depth {
				best, depth = r, len(dir)
			}
		}
	}
	for _, f := range append([]string{"/proc", "/sys", "/dev"}, k.rules.Forbidden...) {
		dir := resolve(f)
		if inside(path, dir) {
			return best, fmt.Errorf("%w: %s would show %s", ErrHostPath, path, f)
		}
		// Below a forbidden folder only what skiff itself put there is shown.
		if inside(dir, path) && (depth < 0 || !best.Own || len(dir) > depth) {
			return best, fmt.Errorf("%w: %s lies in %s", ErrHostPath, path, f)
		}
	}
	for _, s := range k.rules.Sockets {
		if inside(path, resolve(s)) {
			return best, fmt.Errorf("%w: %s would show the engine's socket", ErrHostPath, path)
		}
	}
	if depth < 0 {
		return best, fmt.Errorf("%w: %s", ErrHostPath, path)
	}
	return best, nil
}

// Resolve follows every link of a host path that a container is to see. Where a
// path that lies in a root as written leads out of all of them, the error says so.
func (r Rules) Resolve(path string, g Grant) (string, error) {
	if !filepath.IsAbs(path) {
		return "", refuse("HostConfig.Mounts", fmt.Errorf("%w: %q is not absolute", ErrHostPath, path), hintHostPath)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", refuse("HostConfig.Mounts", fmt.Errorf("%w: %w", ErrHostPath, err), "make the folder first")
	}
	clean := filepath.Clean(path)
	for _, list := range [][]Root{r.Roots, g.Roots} {
		for _, root := range list {
			if inside(filepath.Clean(root.Path), clean) && !inside(resolve(root.Path), real) {
				return "", refuse("HostConfig.Mounts", fmt.Errorf("%w: %s leads to %s", ErrEscapes, path, real), hintHostPath)
			}
		}
	}
	return real, nil
}

// resolve follows links as far as the path exists; what does not exist hides
// nothing and matches as it is written.
func resolve(path string) string {
	clean := filepath.Clean(path)
	if real, err := filepath.EvalSymlinks(clean); err == nil {
		return real
	}
	parent := filepath.Dir(clean)
	if parent == clean {
		return clean
	}
	return filepath.Join(resolve(parent), filepath.Base(clean))
}

func sameFile(a, b os.FileInfo) bool {
	x, ok := a.Sys().(*syscall.Stat_t)
	y, ok2 := b.Sys().(*syscall.Stat_t)
	return ok && ok2 && x.Dev == y.Dev && x.Ino == y.Ino
}
