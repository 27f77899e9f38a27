package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxDepth bounds how deep folders nest: each level holds a descriptor.
	maxDepth = 128
	// syncEach is up to how many files are synced one by one; beyond that one
	// sync of the whole file system is cheaper.
	syncEach = 64
	writable = 0o222
)

// Info is what Commit found.
type Info struct {
	// Exists is false where the producer declared but never wrote it.
	Exists bool
	// Dir is true for a directory.
	Dir bool
	// Size is the bytes of all regular files, Files their number.
	Size, Files int64
}

// Commit makes an artifact final once nothing runs any more that could write
// to it: takes the write bits off everything in it, makes it durable and
// measures it. It refuses (ErrUnsafe) what an artifact may not hold: links that
// end outside it or nowhere, FIFOs, sockets, devices, files of another owner
// with a second hard link. A file with a second hard link of its own owner is
// replaced by a copy, so that nobody can write to it under the other name.
//
// Nothing at the URI is no error: Info.Exists is false. Commit may be repeated.
func (r *Repository) Commit(ctx context.Context, namespace, uri string) (info Info, err error) {
	at, err := r.Locate(namespace, uri)
	if err != nil {
		return Info{}, err
	}
	dir, name, err := r.parent(at)
	if errors.Is(err, ErrNotFound) {
		return Info{}, nil
	}
	if err != nil {
		return Info{}, fmt.Errorf("commit artifact %s: %w", uri, err)
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	st, err := statAt(dir, name)
	if errors.Is(err, unix.ENOENT) {
		return Info{}, nil
	}
	if err != nil {
		return Info{}, fmt.Errorf("commit artifact %s: %w", uri, err)
	}
	c := &committing{ctx: ctx, owner: st.Uid, info: Info{Exists: true, Dir: kindOf(st) == kindDir}}
	if err := c.entry(dir, name, nil); err != nil {
		return Info{}, fmt.Errorf("commit artifact %s: %w", uri, err)
	}
	// The folder that holds its name, or all at once.
	sync := func() error { return unix.Fsync(int(dir)) }
	if c.info.Files > syncEach {
		sync = func() error { return unix.Syncfs(int(dir)) }
	}
	if err := retry(sync); err != nil {
		return Info{}, fmt.Errorf("commit artifact %s: make it durable: %w", uri, err)
	}
	return c.info, nil
}

// committing is one Commit's walk.
type committing struct {
	ctx   context.Context // lives as long as the call.
	owner uint32
	info  Info
	// unsynced leaves it to somebody else to make files durable.
	unsynced bool
	// top is the artifact's own folder, which links must not leave.
	top fd
}

// entry deals with one name; below is its path inside the artifact, empty for
// the artifact itself.
func (c *committing) entry(dir fd, name string, below []string) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	st, err := statAt(dir, name)
	if err != nil {
		return pathError(err, append(below, name))
	}
	switch {
	case isLink(st) && len(below) > 0:
		return c.link(below)
	case kindOf(st) == kindFile && st.Nlink > 1:
		if st.Uid != c.owner {
			return fmt.Errorf("%s is another user's file with a second hard link: %w", path.Join(below...), ErrUnsafe)
		}
		if err := c.unshare(dir, name); err != nil {
			return fmt.Errorf("%s has a second hard link; copy it: %w", path.Join(below...), err)
		}
	}
	found, err := openAt(dir, name, openName|unix.O_NOFOLLOW)
	if err != nil {
		return pathError(err, below)
	}
	f, st, err := reopen(found, below)
	if err != nil {
		return c.explain(err)
	}
	defer func() { _ = f.close() }()
	if kindOf(st) == kindDir {
		if err := c.dir(f, below); err != nil {
			return err
		}
	} else {
		c.info.Files++
		c.info.Size += st.Size
	}
	if st.Mode&writable != 0 {
		mode := st.Mode & 0o7777 &^ writable
		if err := retry(func() error { return unix.Fchmod(int(f), mode) }); err != nil {
			return c.explain(fmt.Errorf("%s cannot be made read-only: %w", path.Join(below...), err))
		}
	}
	if c.info.Files <= syncEach && !c.unsynced {
		return retry(func() error { return unix.Fsync(int(f)) })
	}
	return nil
}

// explain adds what to do where files belong to somebody else.
func (c *committing) explain(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w (it belongs to uid %d, this process is uid %d)", err, c.owner, os.Geteuid())
	}
	return err
}

func (c *committing) dir(f fd, below []string) error {
	if len(below) > maxDepth {
		return fmt.Errorf("folders nest deeper than %d: %w", maxDepth, ErrUnsafe)
	}
	if len(below) == 0 {
		c.top = f
	}
	list, err := names(f)
	if err != nil {
		return pathError(err, below)
	}
	for _, name := range list {
		if err := c.entry(f, name, append(slices.Clip(below), name)); err != nil {
			return err
		}
	}
	return nil
}

// link lets a link stay that ends at a file or folder inside the artifact.
func (c *committing) link(below []string) error {
	found, err := resolveBeneath(c.top, strings.Join(below, "/"), openName)
	if err != nil {
		return fmt.Errorf("the link %s ends outside the artifact or nowhere: %w", path.Join(below...), ErrUnsafe)
	}
	st, err := found.stat()
	if err = errors.Join(err, found.close()); err != nil {
		return err
	}
	if kindOf(st) == kindOther {
		return fmt.Errorf("the link %s ends at a special file: %w", path.Join(below...), ErrUnsafe)
	}
	return nil
}

// unshare replaces a file that has several names by a copy of its own.
func (c *committing) unshare(dir fd, name string) (err error) {
	in, err := openAt(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	source := in.file(name)
	defer func() { err = errors.Join(err, source.Close()) }()
	st, err := in.stat()
	if err != nil || kindOf(st) != kindFile {
		return errors.Join(err, ErrUnsafe)
	}
	temporary := fmt.Sprintf(".skiff-copy-%d", st.Ino)
	out, err := openAt2(dir, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, st.Mode&0o555|0o200)
	if err != nil {
		return err
	}
	target := out.file(temporary)
	_, err = io.Copy(contextWriter{c.ctx, target}, source)
	if err = errors.Join(err, target.Close()); err == nil {
		err = retry(func() error { return unix.Renameat(int(dir), temporary, int(dir), name) })
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(int(dir), temporary, 0))
	}
	return nil
}

// openAt2 is openAt for a file that is created.
func openAt2(dir fd, name string, flags int, mode uint32) (fd, error) {
	var out int
	err := retry(func() (err error) {
		out, err = unix.Openat(int(dir), name, flags, mode)
		return err
	})
	return fd(out), err
}

// contextWriter ends a long copy when its context does.
type contextWriter struct {
	ctx context.Context // a Writer has no other way to be told.
	w   io.Writer
}

func (c contextWriter) Write(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.w.Write(p)
}
