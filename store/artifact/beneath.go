package artifact

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// The functions of this file open one name at a time, relative to a descriptor
// and without following links. Whatever is swapped meanwhile, they stay beneath
// the descriptor they began at.

const (
	openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	// openName opens a name without touching what it names: no FIFO waits, no
	// device wakes up.
	openName = unix.O_PATH | unix.O_CLOEXEC
)

// fd is an open descriptor with its name for messages. *os.File would do but
// for its finalizer and its poller.
type fd int

func (f fd) close() error { return unix.Close(int(f)) }

// stat describes what is open.
func (f fd) stat() (unix.Stat_t, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstat(int(f), &st) })
	return st, err
}

// file hands the descriptor over to an *os.File, which closes it.
func (f fd) file(name string) *os.File {
	return os.NewFile(uintptr(f), name)
}

type fileKind int

const (
	kindOther fileKind = iota
	kindFile
	kindDir
)

func kindOf(st unix.Stat_t) fileKind {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return kindFile
	case unix.S_IFDIR:
		return kindDir
	default:
		return kindOther
	}
}

func isLink(st unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFLNK }

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func openAt(dir fd, name string, flags int) (fd, error) {
	var out int
	err := retry(func() (err error) {
		out, err = unix.Openat(int(dir), name, flags, 0)
		return err
	})
	return fd(out), err
}

func statAt(dir fd, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(int(dir), name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

// reopen turns a descriptor of openName into one for reading, of the very same
// file. It refuses all but regular files and directories, and files that have
// another name somewhere, and closes the one it was given.
func reopen(f fd, segments []string) (out fd, st unix.Stat_t, err error) {
	defer func() { err = errors.Join(err, f.close()) }()
	where := strings.Join(segments, "/")
	st, err = f.stat()
	switch {
	case err != nil:
		return -1, st, pathError(err, segments)
	case kindOf(st) == kindOther:
		return -1, st, fmt.Errorf("%s is a link or a special file: %w", where, ErrUnsafe)
	case kindOf(st) == kindFile && st.Nlink > 1:
		return -1, st, fmt.Errorf("%s has a second hard link: %w", where, ErrUnsafe)
	}
	err = retry(func() error {
		opened, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		out = fd(opened)
		return err
	})
	if err != nil {
		return -1, st, pathError(err, segments)
	}
	return out, st, nil
}

// descend opens the folder at segments below dir.
func descend(dir fd, segments []string) (fd, error) {
	current, err := openAt(dir, ".", openDir)
	for i, name := range segments {
		if err != nil {
			break
		}
		var next fd
		next, err = openAt(current, name, openDir)
		err = errors.Join(pathError(err, segments[:i+1]), current.close())
		current = next
	}
	if err != nil {
		return -1, err
	}
	return current, nil
}

// pathError gives an error its class and its path below the root.
func pathError(err error, segments []string) error {
	where := strings.Join(segments, "/")
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%s: %w", where, ErrNotFound)
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENXIO):
		// O_NOFOLLOW answers ELOOP for a link, with O_DIRECTORY ENOTDIR.
		return fmt.Errorf("%s is a link or no directory: %w", where, ErrUnsafe)
	default:
		return fmt.Errorf("%s: %w", where, err)
	}
}

// makeFolders creates the folder at segments below dir, parents with mode 0755,
// the last with the given one, whatever the umask. Folders that are there are
// left as they are, but for the last's mode.
func makeFolders(dir fd, segments []string, last uint32) (err error) {
	current, err := openAt(dir, ".", openDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, current.close()) }()
	for i, name := range segments {
		mode := uint32(0o755)
		if i == len(segments)-1 {
			mode = last
		}
		made := retry(func() error { return unix.Mkdirat(int(current), name, mode) })
		if made != nil && !errors.Is(made, unix.EEXIST) {
			return pathError(made, segments[:i+1])
		}
		next, err := openAt(current, name, openDir)
		if err != nil {
			return pathError(err, segments[:i+1])
		}
		err = current.close()
		current = next
		if err != nil {
			return err
		}
		if made == nil || i == len(segments)-1 {
			if err := retry(func() error { return unix.Fchmod(int(current), mode) }); err != nil {
				return pathError(err, segments[:i+1])
			}
		}
	}
	return nil
}

// makeParents creates the folders at segments below dir, with mode 0755, and
// leaves those that are there as they are.
func makeParents(dir fd, segments []string) error {
	for i := range segments {
		found, err := descend(dir, segments[:i+1])
		if errors.Is(err, ErrNotFound) {
			err = makeFolders(dir, segments[:i+1], 0o755)
			found = -1
		}
		if found >= 0 {
			err = errors.Join(err, found.close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// names are a folder's entries, sorted by the file system's whim.
func names(dir fd) ([]string, error) {
	// A new description, so that reading it moves no one else's place.
	own, err := openAt(dir, ".", openDir)
	if err != nil {
		return nil, err
	}
	f := own.file("")
	list, err := f.Readdirnames(-1)
	return list, errors.Join(err, f.Close())
}

// resolveBeneath opens a path inside an artifact following only links that end
// inside it. Kernels without openat2 (before 5.6) follow none.
func resolveBeneath(dir fd, subpath string, flags int) (fd, error) {
	var out int
	// EAGAIN says that something, anywhere on the machine, was renamed while the
	// kernel went up a path, and that it cannot tell whether that matters.
	again := func(call func() error) error {
		for {
			if err := retry(call); !errors.Is(err, unix.EAGAIN) {
				return err
			}
		}
	}
	err := again(func() (err error) {
		out, err = unix.Openat2(int(dir), subpath, &unix.OpenHow{
			Flags:   uint64(flags),
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
		})
		return err
	})
	if err == nil || !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return fd(out), err
	}
	segments := strings.Split(subpath, "/")
	parent, err := descend(dir, segments[:len(segments)-1])
	if err != nil {
		return -1, err
	}
	found, err := openAt(parent, segments[len(segments)-1], flags|unix.O_NOFOLLOW)
	return found, errors.Join(err, parent.close())
}
