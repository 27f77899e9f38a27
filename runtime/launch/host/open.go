package host

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// openFolder opens a control folder. The pod's folder, its parent, is trusted
// up to its own name; the control folder's name in it is not.
func openFolder(dir string) (*os.File, error) {
	parent, err := os.OpenFile(filepath.Dir(dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	fd, err := openat(int(parent.Fd()), filepath.Base(dir), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, hostile(dir, err)
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// openat opens a path beneath a folder without following any link.
func openat(dirfd int, path string, flags int) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	how := unix.OpenHow{
		Flags:   uint64(flags),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(dirfd, path, &how)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			// EAGAIN: a rename went on in the tree, which the kernel cannot
			// rule out to be an escape.
			continue
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
			return walkat(dirfd, path, flags)
		}
		return fd, err
	}
}

// walkat is openat for kernels (and sandboxes) without openat2: one component
// at a time, none of them a link.
func walkat(dirfd int, path string, flags int) (int, error) {
	parts := strings.Split(path, "/")
	at := dirfd
	for i, part := range parts {
		if part == "" || part == "." || part == ".." {
			return -1, unix.EINVAL
		}
		f := flags
		if i < len(parts)-1 {
			f = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		}
		fd, err := unix.Openat(at, part, f, 0)
		if at != dirfd {
			_ = unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at = fd
	}
	return at, nil
}

// hostile turns what the kernel says about a link or a wrong type into ErrHostile.
func hostile(name string, err error) error {
	for _, e := range []error{unix.ELOOP, unix.ENOTDIR, unix.EXDEV, unix.ENXIO} {
		if errors.Is(err, e) {
			return fmt.Errorf("open %s: %w: %w", name, ErrHostile, err)
		}
	}
	return &os.PathError{Op: "open", Path: name, Err: err}
}

// openFile opens a regular file of one name in an open folder and waits for
// nothing. One that is not there is os.ErrNotExist.
func openFile(dir *os.File, name string) (*os.File, int64, error) {
	fd, err := openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, 0, hostile(filepath.Join(dir.Name(), name), err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = fmt.Errorf("%w: not a regular file", ErrHostile)
	}
	if err == nil && st.Nlink > 1 {
		err = fmt.Errorf("%w: it has %d names", ErrHostile, st.Nlink)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, 0, fmt.Errorf("open %s: %w", filepath.Join(dir.Name(), name), err)
	}
	return os.NewFile(uintptr(fd), name), st.Size, nil
}

// readFile reads a regular file of at most limit bytes.
func readFile(dir *os.File, name string, limit int64) ([]byte, error) {
	f, size, err := openFile(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tooLarge := fmt.Errorf("read %s: %w: more than %d bytes", filepath.Join(dir.Name(), name), ErrHostile, limit)
	if size > limit {
		return nil, tooLarge
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir.Name(), name), err)
	}
	if int64(len(data)) > limit {
		return nil, tooLarge
	}
	return data, nil
}

// Open opens a regular file beneath root for reading, following no link in any
// component of the slash-separated relative path. The file has one name and the
// call does not block on a FIFO. The caller closes it.
func Open(root, path string) (*os.File, error) {
	dir, err := os.OpenFile(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, _, err := openFile(dir, path)
	return f, err
}
