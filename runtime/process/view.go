package process

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
)

// Shared memory: half the memory limit within these bounds, as for Docker.
const (
	minShm = 64 << 20
	maxShm = 8 << 30
)

// rootPlace is where a launcher assembles its root: a folder of the host that is
// there and never appears in a view.
const rootPlace = "/tmp"

// view is the world of a container, beside the common mounts, as its launcher is
// to build it.
func (c *container) view(iso isolation) (*launch.View, error) {
	v := &launch.View{Cgroups: c.cgroups()}
	img, err := c.b.loadImage(c.spec.Image.ID)
	if err != nil {
		return nil, err
	}
	if iso.level != LevelNamespaces {
		return v, c.plainMounts()
	}
	v.Hostname = c.spec.Hostname
	v.Loopback = c.spec.Network == "none"
	v.Root = rootPlace
	v.ShmBytes = shmBytes(c.spec.Resources)
	v.Masked = c.b.masked()
	for _, path := range img.Visible {
		v.Mounts = append(v.Mounts, launch.ViewMount{HostPath: resolved(path), Path: path, ReadOnly: true})
	}
	if img.Env != "" {
		// A command may install into its environment; the others do not see it.
		v.Mounts = append(v.Mounts, launch.ViewMount{
			HostPath: resolved(img.Env), Path: img.Env, Layer: filepath.Join(c.dir, layerFolder),
		})
	}
	mounts, err := c.podMounts()
	if err != nil {
		return nil, err
	}
	v.Mounts = append(v.Mounts, mounts...)
	if len(c.spec.GPUs) > 0 && !c.spec.FakeGPUs {
		v.Devices = gpuDevices(c.spec.GPUs)
	}
	return v, nil
}

// commonMounts are those of every container: its temporary files, and what of the
// host it has to see.
func (b *Backend) commonMounts(tmp string) []launch.ViewMount {
	tmp = resolved(tmp)
	mounts := []launch.ViewMount{{HostPath: tmp, Path: "/tmp", Scratch: true}, {HostPath: tmp, Path: "/var/tmp", Scratch: true}}
	for _, path := range b.visible() {
		mounts = append(mounts, launch.ViewMount{HostPath: path, Path: path, ReadOnly: true})
	}
	return mounts
}

// resolved is a path of the daemon's own without links, of which a launcher
// follows none; one that is not there stays as it is, for the launcher to say so.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// podMounts are the pod's own, outer folders before inner ones.
func (c *container) podMounts() ([]launch.ViewMount, error) {
	var out []launch.ViewMount
	for _, m := range c.spec.Mounts {
		vm := launch.ViewMount{
			HostPath: m.HostPath, Path: filepath.Clean(m.Path), ReadOnly: m.ReadOnly, Memory: m.Memory, Size: m.Size,
		}
		if err := checkTarget(vm.Path); err != nil {
			return nil, err
		}
		if !m.Memory {
			// A link in HostPath is the administrator's, one in SubPath anybody's: the
			// launcher follows none, so what is swapped after this cannot lead it away.
			root, err := filepath.EvalSymlinks(m.HostPath)
			if err == nil && !filepath.IsLocal(filepath.Join(".", m.SubPath)) {
				err = fmt.Errorf("%s leads out of it: %w", m.SubPath, runtime.ErrPolicy)
			}
			if err != nil {
				return nil, fmt.Errorf("mount %s: %w", m.Path, err)
			}
			vm.HostPath = filepath.Join(root, m.SubPath)
			info, err := os.Lstat(vm.HostPath)
			if err != nil {
				return nil, fmt.Errorf("mount %s: %w", m.Path, err)
			}
			if !info.IsDir() && !info.Mode().IsRegular() {
				return nil, fmt.Errorf("mount %s: %s is neither a folder nor a file: %w", m.Path, vm.HostPath, runtime.ErrPolicy)
			}
		}
		out = append(out, vm)
	}
	slices.SortStableFunc(out, func(a, b launch.ViewMount) int {
		return cmp.Compare(strings.Count(a.Path, "/"), strings.Count(b.Path, "/"))
	})
	return out, nil
}

// checkTarget refuses places that belong to the kernel or are the root itself.
func checkTarget(path string) error {
	if !filepath.IsAbs(path) || path == "/" || strings.ContainsRune(path, 0) {
		return fmt.Errorf("mount on %q: not a place below the root: %w", path, runtime.ErrPolicy)
	}
	for _, kernel := range []string{"/proc", "/sys", "/dev"} {
		if path != "/dev/shm" && (path == kernel || strings.HasPrefix(path, kernel+"/")) {
			return fmt.Errorf("mount on %s: %s is the kernel's: %w", path, kernel, runtime.ErrPolicy)
		}
	}
	return nil
}

// plainMounts checks that nothing is asked for that needs a mount: without
// namespaces a path inside is the path outside.
func (c *container) plainMounts() error {
	if c.spec.Network == "none" {
		return fmt.Errorf("run without a network: this machine gives no namespaces: %w", runtime.ErrNotSupported)
	}
	for _, m := range c.spec.Mounts {
		if m.Memory || filepath.Clean(m.Path) != filepath.Join(m.HostPath, m.SubPath) {
			return fmt.Errorf("mount %s: this machine gives no namespaces, so a path inside must be the path outside: %w",
				m.Path, runtime.ErrNotSupported)
		}
		if _, err := os.Stat(filepath.Join(m.HostPath, m.SubPath)); err != nil {
			return fmt.Errorf("mount %s: %w", m.Path, err)
		}
	}
	return nil
}

func shmBytes(r runtime.Resources) int64 {
	if r.ShmBytes > 0 {
		return r.ShmBytes
	}
	return min(max(r.MemoryBytes/2, minShm), maxShm)
}

// findMasked lists the host folders that no container sees: the daemon's state,
// and homes with their keys. An outer one comes before what lies in it.
func (b *Backend) findMasked() []string {
	dirs := append([]string{"/root", "/home", b.cfg.StateDir}, b.cfg.Masked...)
	if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) && home != "/" {
		dirs = append(dirs, home)
	}
	var out []string
	for _, dir := range dirs {
		if resolved, err := filepath.EvalSymlinks(dir); err == nil && resolved != "/" {
			out = append(out, resolved)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// visible are host files that must be seen though their folder may not be: what
// names are resolved with, where that lies in /run, and what was asked for.
func (b *Backend) visible() []string {
	var out []string
	for _, path := range append([]string{"/etc/resolv.conf"}, b.cfg.Visible...) {
		resolved, err := filepath.EvalSymlinks(path)
		if err == nil && b.hidden(resolved) {
			out = append(out, resolved)
		}
	}
	return out
}

// hidden says whether a host path does not appear in a view by itself.
func (b *Backend) hidden(path string) bool {
	for _, dir := range append(b.masked(), "/tmp", "/var/tmp", "/run") {
		if path == dir || strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}
