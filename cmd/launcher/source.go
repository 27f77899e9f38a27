package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// source is what a mount will show: a copy of the mount, in no place yet, held by
// its descriptor. Whatever is renamed or linked from here on, this is what is shown.
type source struct {
	tree int
	dir  bool
}

// sources takes hold of everything that is mounted from the host, while its root is
// in the view. What other pods write to lies on the way to some of it: no link is
// followed, since whoever named the path has resolved those that may be there.
func (b *builder) sources() (err error) {
	root, err := openAs(atCWD, b.host, pathOnly|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(root) //nolint:errcheck // It was only a handle.
	defer func() {
		if err != nil {
			b.dropSources()
		}
	}()
	for _, m := range b.Mounts {
		s := source{tree: -1, dir: true}
		if !m.Memory {
			if s, err = b.source(root, m); err != nil {
				return fmt.Errorf("mount %s: %w", m.Path, err)
			}
		}
		b.held = append(b.held, s)
	}
	return nil
}

func (b *builder) source(root int, m launch.ViewMount) (source, error) {
	at, err := openAs(root, strings.TrimPrefix(m.HostPath, "/"), pathOnly, resolveBeneath|resolveNoLinks)
	switch {
	case errors.Is(err, syscall.ELOOP):
		return source{}, fmt.Errorf("%s: a link lies on the way, where there was none: %w", m.HostPath, syscall.ELOOP)
	case err != nil:
		return source{}, fmt.Errorf("%s is not on this machine: %w", m.HostPath, errors.Unwrap(err))
	}
	defer syscall.Close(at) //nolint:errcheck // It was only a handle.
	var st syscall.Stat_t
	if err := syscall.Fstat(at, &st); err != nil {
		return source{}, os.NewSyscallError("fstat", err)
	}
	s := source{dir: st.Mode&syscall.S_IFMT == syscall.S_IFDIR}
	if m.Layer != "" {
		if s.tree, err = b.layer(m); err == nil {
			return s, nil
		}
	}
	if s.tree, err = cloneTree(at, "", atEmptyPath|atRecursive); err != nil {
		return source{}, err
	}
	attrs := uint64(attrNoSUID | attrNoDev)
	if m.ReadOnly || m.Layer != "" {
		attrs |= attrReadOnly
	}
	if err := setAttrAt(s.tree, "", attrs, 0, atEmptyPath|atRecursive); err != nil {
		_ = syscall.Close(s.tree)
		return source{}, err
	}
	return s, nil
}

// layer makes a copy-on-write view of a folder that nobody else writes to. Not
// every file system can.
func (b *builder) layer(m launch.ViewMount) (tree int, err error) {
	const aside = "/.layer"
	lower, upper, work := b.host+m.HostPath, b.host+m.Layer+"/upper", b.host+m.Layer+"/work"
	if strings.ContainsAny(lower+upper, ",:\\") {
		return -1, syscall.EINVAL
	}
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return -1, err
		}
	}
	if err := os.Mkdir(aside, 0o700); err != nil {
		return -1, err
	}
	defer os.Remove(aside) //nolint:errcheck // An empty folder is all that could be left.
	err = mount("overlay", aside, "overlay", syscall.MS_NOSUID|syscall.MS_NODEV, "lowerdir="+lower+",upperdir="+upper+",workdir="+work)
	if err != nil {
		return -1, err
	}
	defer syscall.Unmount(aside, syscall.MNT_DETACH) //nolint:errcheck // As above.
	return cloneTree(atCWD, aside, 0)
}

// dropSources lets go of what was not given a place.
func (b *builder) dropSources() {
	for _, s := range b.held {
		if s.tree >= 0 {
			_ = syscall.Close(s.tree)
		}
	}
	b.held = nil
}

// place gives a source its place in the view. Links on the way are followed, as far
// as they go within the view: the host's root is not in it any more.
func (s source) place(path string) error {
	at, err := openAs(atCWD, path, pathOnly, resolveNoMagic)
	if err != nil {
		return err
	}
	defer syscall.Close(at) //nolint:errcheck // It was only a handle.
	var st syscall.Stat_t
	if err := syscall.Fstat(at, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if s.dir != (st.Mode&syscall.S_IFMT == syscall.S_IFDIR) {
		return errKind
	}
	return moveTree(s.tree, at)
}

var errKind = fmt.Errorf("a folder can only be mounted on a folder, and a file on a file: %w", syscall.ENOTDIR)

// Of openat2 (Linux 5.6), open_tree and move_mount (5.2); the numbers are the
// kernel's, the same on every architecture that Go and skiff run on.
const (
	sysOpenTree  = 428
	sysMoveMount = 429
	sysOpenat2   = 437

	atCWD       = -100
	atEmptyPath = 0x1000
	pathOnly    = 0x200000 | syscall.O_CLOEXEC // O_PATH

	resolveNoMagic = 0x02
	resolveNoLinks = 0x04
	resolveBeneath = 0x08
)

// openAs opens a path, resolved as it is told.
func openAs(dir int, path string, flags, resolve uint64) (int, error) {
	p, err := syscall.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	how := struct{ flags, mode, resolve uint64 }{flags, 0, resolve}
	for {
		fd, _, errno := syscall.Syscall6(sysOpenat2, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
		if errno == 0 {
			return int(fd), nil
		}
		if errno != syscall.EINTR {
			return -1, &os.PathError{Op: "open", Path: path, Err: errno}
		}
	}
}

// cloneTree copies a mount without giving it a place.
func cloneTree(dir int, path string, flags uintptr) (int, error) {
	const clone = 1
	p, err := syscall.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	fd, _, errno := syscall.Syscall(sysOpenTree, uintptr(dir), uintptr(unsafe.Pointer(p)), flags|clone|syscall.O_CLOEXEC)
	if errno != 0 {
		return -1, os.NewSyscallError("open_tree", errno)
	}
	return int(fd), nil
}

// moveTree gives a mount that has no place the place of a descriptor.
func moveTree(tree, at int) error {
	const fromEmpty, toEmpty = 0x04, 0x40
	none, _ := syscall.BytePtrFromString("") // it holds no NUL
	_, _, errno := syscall.Syscall6(sysMoveMount, uintptr(tree), uintptr(unsafe.Pointer(none)), uintptr(at), uintptr(unsafe.Pointer(none)), fromEmpty|toEmpty, 0)
	return os.NewSyscallError("move_mount", errnoOrNil(errno))
}

func errnoOrNil(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
