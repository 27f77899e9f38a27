package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// oldRoot is where the host's root is while the new one is arranged; a keeper
// has it at keptRoot, where each container's shared memory then lies.
const (
	oldRoot  = "/.host"
	keptRoot = "/dev/shm"
)

// rootSize bounds what a command may write beside its mounts: it is memory.
const rootSize = "64m"

// ownTops are folders of the root that a view has of its own.
var ownTops = map[string]bool{"proc": true, "dev": true, "tmp": true, "run": true, "lost+found": true}

// buildView replaces the root by a new one in the launcher's mount namespace:
// the host's folders read-only, and beside them what View asks for.
func buildView(v launch.View) error {
	if v.Hostname != "" {
		if err := syscall.Sethostname([]byte(v.Hostname)); err != nil {
			return fmt.Errorf("set hostname: %w", err)
		}
	}
	if v.Loopback {
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("bring loopback up: %w", err)
		}
	}
	if v.Root == "" {
		return nil
	}
	// The control folder stays reachable through this descriptor alone.
	here, err := syscall.Open(".", syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open control folder: %w", err)
	}
	defer syscall.Close(here) //nolint:errcheck // It was only a handle.
	b := &builder{View: v, host: oldRoot}
	for _, step := range []func() error{
		b.hostTops, b.changeRoot, b.proc, b.dev, b.mask, b.shm, b.devices, b.sources, b.leaveHost, b.forgetHost, b.mounts,
	} {
		if err := step(); err != nil {
			return fmt.Errorf("build the view: %w", err)
		}
	}
	return syscall.Fchdir(here)
}

// builder carries a view through its steps.
type builder struct {
	launch.View
	host   string   // where the host's root is
	thawed []string // folders that are read-only in the end, and memory now
	held   []source // of each mount, from sources to mounts
	made   []string // mount points that were not there, parents first
}

// hostTops assembles the new root: the host's top folders, read-only with all
// that is mounted below them.
func (b *builder) hostTops() error {
	if err := mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", b.Root, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755,size="+rootSize); err != nil {
		return err
	}
	// Unbindable, or binding the folder it lies in would bind it into itself.
	if err := mount("", b.Root, "", syscall.MS_UNBINDABLE, ""); err != nil {
		return err
	}
	tops, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, top := range tops {
		from, to := "/"+top.Name(), filepath.Join(b.Root, top.Name())
		switch {
		case ownTops[top.Name()]:
		case top.IsDir():
			if err := os.Mkdir(to, 0o755); err != nil {
				return err
			}
			if err := mount(from, to, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
				return err
			}
		case top.Type() == fs.ModeSymlink:
			if err := copyLink(from, to); err != nil {
				return err
			}
		}
	}
	// All of it at once, and then the root itself open again.
	if err := setAttr(b.Root, attrReadOnly|attrNoSUID|attrNoDev, 0, true); err != nil {
		return err
	}
	return setAttr(b.Root, 0, attrReadOnly, false)
}

func copyLink(from, to string) error {
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	return os.Symlink(target, to)
}

// changeRoot makes the new root the root, with the host's at oldRoot.
func (b *builder) changeRoot() error {
	old := b.Root + oldRoot
	if err := os.Mkdir(old, 0o700); err != nil {
		return err
	}
	if err := syscall.PivotRoot(b.Root, old); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	for _, own := range []struct {
		dir  string
		mode os.FileMode
	}{{"/tmp", 0o1777}, {"/proc", 0o555}, {"/dev", 0o755}, {"/run", 0o755}} {
		if err := os.Mkdir(own.dir, own.mode.Perm()); err != nil {
			return err
		}
	}
	return os.Chmod("/tmp", 0o777|os.ModeSticky)
}

// leaveHost lets go of the host's root. What was bound from it stays.
func (b *builder) leaveHost() error {
	return os.NewSyscallError("umount", syscall.Unmount(b.host, syscall.MNT_DETACH))
}

// forgetHost removes the empty folder where the host's root was.
func (b *builder) forgetHost() error { return os.Remove(b.host) }

// moveHost puts the host's root to where a keeper has it.
func (b *builder) moveHost() error {
	if err := mount(b.host, keptRoot, "", syscall.MS_MOVE, ""); err != nil {
		return err
	}
	if err := b.forgetHost(); err != nil {
		return err
	}
	b.host = keptRoot
	return nil
}

// mask lays an empty folder over each host folder that must not be seen.
func (b *builder) mask() error {
	for _, dir := range b.Masked {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			continue // it is not in the view at all
		}
		if err := mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755,size=1m"); err != nil {
			return err
		}
	}
	return nil
}

// mounts gives what the pod asks for, and sources took hold of, its places, in
// order. Where a command has written to any of it the host's root must be out of
// the view: a link could lead a place there.
func (b *builder) mounts() error {
	defer b.dropSources()
	for i, m := range b.Mounts {
		if err := b.mountOne(m, b.held[i]); err != nil {
			return fmt.Errorf("mount %s: %w", m.Path, err)
		}
	}
	for _, dir := range b.thawed {
		if err := setAttr(dir, attrReadOnly, 0, false); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) mountOne(m launch.ViewMount, s source) error {
	if err := b.makeTarget(m.Path, s.dir); err != nil {
		return err
	}
	if !m.Memory {
		return s.place(m.Path)
	}
	options := "mode=1777"
	if m.Size > 0 {
		options += ",size=" + strconv.FormatInt(m.Size, 10)
	}
	return mount("tmpfs", m.Path, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, options)
}

// makeTarget makes the folder or the empty file that a mount will cover.
func (b *builder) makeTarget(path string, dir bool) error {
	info, err := os.Stat(path)
	if err == nil {
		if info.IsDir() != dir {
			return errKind
		}
		return nil
	}
	if dir {
		err = b.makeFolders(path)
	} else if err = b.makeFolders(filepath.Dir(path)); err == nil {
		b.made = append(b.made, path)
		err = os.WriteFile(path, nil, 0o644)
	}
	if !errors.Is(err, syscall.EROFS) {
		return err
	}
	// Its parent is one of the host's folders.
	parent := filepath.Dir(path)
	for {
		if _, err := os.Stat(parent); err == nil {
			break
		}
		parent = filepath.Dir(parent)
	}
	if err := b.thaw(parent); err != nil {
		return err
	}
	return b.makeTarget(path, dir)
}

// makeFolders is os.MkdirAll that remembers what it made.
func (b *builder) makeFolders(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if err := b.makeFolders(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	b.made = append(b.made, path)
	return nil
}

// thaw replaces a read-only folder by one in memory with the same entries, so
// that a mount point can be made in it and the host's stays as it is.
func (b *builder) thaw(dir string) error {
	const aside = "/.thaw"
	if err := os.Mkdir(aside, 0o700); err != nil {
		return err
	}
	defer os.Remove(aside) //nolint:errcheck // An empty folder is all that could be left.
	if err := mount(dir, aside, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return err
	}
	defer syscall.Unmount(aside, syscall.MNT_DETACH) //nolint:errcheck // As above.
	b.thawed = append(b.thawed, dir)
	entries, err := os.ReadDir(aside)
	if err != nil {
		return err
	}
	if err := mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755,size=1m"); err != nil {
		return err
	}
	for _, e := range entries {
		from, to := aside+"/"+e.Name(), filepath.Join(dir, e.Name())
		if e.Type() == fs.ModeSymlink {
			err = copyLink(from, to)
		} else if err = b.makeTarget(to, e.IsDir()); err == nil {
			err = mount(from, to, "", syscall.MS_BIND|syscall.MS_REC, "")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func mount(from, to, kind string, flags uintptr, options string) error {
	if err := syscall.Mount(from, to, kind, flags, options); err != nil {
		return &os.PathError{Op: "mount", Path: to, Err: err}
	}
	return nil
}

// Attributes of mount_setattr.
const (
	attrReadOnly = 1
	attrNoSUID   = 2
	attrNoDev    = 4
	atRecursive  = 0x8000
)

// setAttr changes a mount's attributes (Linux 5.12), with those below it.
func setAttr(path string, set, clr uint64, recursive bool) error {
	flags := uintptr(0)
	if recursive {
		flags = atRecursive
	}
	return setAttrAt(atCWD, path, set, clr, flags)
}

func setAttrAt(dir int, path string, set, clr uint64, flags uintptr) error {
	p, err := syscall.BytePtrFromString(path)
	if err != nil {
		return err
	}
	attr := [4]uint64{set, clr}
	_, _, errno := syscall.Syscall6(sysMountSetattr, uintptr(dir), uintptr(unsafe.Pointer(p)), flags,
		uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return &os.PathError{Op: "mount_setattr", Path: path, Err: errno}
	}
	return nil
}
