package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Source is where the contents of artifacts are read: a Repository, or what
// stands before one. Open answers ErrInvalid for a folder, List for a file.
type Source interface {
	Open(namespace, uri, subpath string) (*os.File, error)
	List(namespace, uri, subpath string) ([]Entry, error)
}

var _ Source = (*Repository)(nil)

// Target is where Copy puts an artifact: a place in a folder that others write
// to at the same time.
type Target struct {
	// Folder is on this machine. Its own path is trusted; nothing below it is.
	Folder string
	// Path is the place below Folder, slash-separated, two names at least.
	Path string
	// Temporary is what the copy is called until it is whole, in the first folder
	// of Path. What is there under that name is removed.
	Temporary string
	// Keep leaves what is at the place, where there is anything.
	Keep bool
}

// copyChunk is how much is copied between two looks at the context.
const copyChunk = 64 << 20

// Copy copies an artifact, so that it is whole at its place or not there at all,
// and durable when Copy returns. What is at the place already is replaced as one,
// and removed. Files and folders of the copy are anybody's to change, programs
// stay programs, and links, which must be relative, stay links. Nothing is
// followed below the folder on the way, nor anything outside it touched.
//
// Copy returns what it copied, nothing where it kept what there was.
func Copy(ctx context.Context, from Source, namespace, uri string, to Target) (info Info, err error) {
	segments, err := subSegments(to.Path)
	if err == nil && len(segments) < 2 {
		err = ErrInvalid
	}
	if err = errors.Join(err, checkSegment(to.Temporary)); err != nil {
		return Info{}, fmt.Errorf("copy artifact %s to %q: %w", uri, to.Path, err)
	}
	top, err := openAt(unix.AT_FDCWD, to.Folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return Info{}, fmt.Errorf("copy artifact %s: open %s: %w", uri, to.Folder, err)
	}
	defer func() { err = errors.Join(err, top.close()) }()
	base, err := openFolders(top, segments[:1])
	if err != nil {
		return Info{}, fmt.Errorf("copy artifact %s: %w", uri, err)
	}
	defer func() { err = errors.Join(err, base.close()) }()
	c := &copying{ctx: ctx, from: from, namespace: namespace, uri: uri, base: base, to: to}
	if err := c.copy(segments[1:]); err != nil {
		return Info{}, fmt.Errorf("copy to %s: %w", to.Path, err)
	}
	return c.info, nil
}

// copying is one Copy.
type copying struct {
	ctx            context.Context // lives as long as the call.
	from           Source
	namespace, uri string
	base           fd // the folder of the temporary name
	to             Target
	info           Info
}

func (c *copying) copy(place []string) (err error) {
	if c.to.Keep {
		if there, err := c.there(place); err != nil || there {
			return err
		}
	}
	if err := removeTree(c.ctx, c.base, c.to.Temporary, 0); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// Also when it is the context that ended: half a copy is of no use.
			err = errors.Join(err, removeTree(context.WithoutCancel(c.ctx), c.base, c.to.Temporary, 0))
		}
	}()
	if err := c.contents(); err != nil {
		return err
	}
	return c.put(place)
}

// there reports whether anything is at the place.
func (c *copying) there(place []string) (bool, error) {
	dir, err := descend(c.base, place[:len(place)-1])
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = statAt(dir, place[len(place)-1])
	err = errors.Join(err, dir.close())
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// contents copies the artifact to the temporary name.
func (c *copying) contents() error {
	c.info.Exists = true
	file, err := c.from.Open(c.namespace, c.uri, "")
	if err == nil {
		return c.file(file, c.base, c.to.Temporary)
	}
	if !errors.Is(err, ErrInvalid) {
		return err
	}
	// Whether it is a folder shows in whether it can be listed.
	entries, listErr := c.from.List(c.namespace, c.uri, "")
	if listErr != nil {
		return listErr
	}
	c.info.Dir = true
	return c.dir(entries, c.base, c.to.Temporary, "", 0)
}

// dir makes a folder and copies entries into it; below is its path inside the
// artifact.
func (c *copying) dir(entries []Entry, parent fd, name, below string, depth int) (err error) {
	if depth > maxDepth {
		return fmt.Errorf("folders nest deeper than %d: %w", maxDepth, ErrUnsafe)
	}
	if err := retry(func() error { return unix.Mkdirat(int(parent), name, 0o777) }); err != nil {
		return pathError(err, []string{below})
	}
	dir, err := openAt(parent, name, openDir)
	if err != nil {
		return pathError(err, []string{below})
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	if err := retry(func() error { return unix.Fchmod(int(dir), 0o777) }); err != nil {
		return pathError(err, []string{below})
	}
	for _, e := range entries {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		if err := c.entry(e, dir, path.Join(below, e.Name), depth); err != nil {
			return err
		}
	}
	return c.sync(dir)
}

func (c *copying) entry(e Entry, dir fd, below string, depth int) error {
	switch {
	case e.Link:
		if strings.HasPrefix(e.Target, "/") {
			return fmt.Errorf("the link %s ends outside the artifact: %w", below, ErrUnsafe)
		}
		return pathError(retry(func() error { return unix.Symlinkat(e.Target, int(dir), e.Name) }), []string{below})
	case e.Dir:
		entries, err := c.from.List(c.namespace, c.uri, below)
		if err != nil {
			return err
		}
		return c.dir(entries, dir, e.Name, below, depth+1)
	default:
		file, err := c.from.Open(c.namespace, c.uri, below)
		if err != nil {
			return err
		}
		return c.file(file, dir, e.Name)
	}
}

// file copies an open file and closes it.
func (c *copying) file(source *os.File, dir fd, name string) (err error) {
	defer func() { err = errors.Join(err, source.Close()) }()
	st, err := source.Stat()
	if err != nil {
		return err
	}
	mode := uint32(st.Mode().Perm()) | 0o666
	out, err := openAt2(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return pathError(err, []string{name})
	}
	target := out.file(name)
	defer func() { err = errors.Join(err, target.Close()) }()
	if err := retry(func() error { return unix.Fchmod(int(out), mode) }); err != nil { // whatever the umask
		return err
	}
	for {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		// Between two plain files the kernel copies, or shares, the blocks.
		n, err := io.CopyN(target, source, copyChunk)
		c.info.Size += n
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	c.info.Files++
	return c.sync(out)
}

// sync makes one file or folder durable; see syncEach.
func (c *copying) sync(f fd) error {
	if c.info.Files > syncEach {
		return nil
	}
	return retry(func() error { return unix.Fsync(int(f)) })
}

// put gives the whole copy its place.
func (c *copying) put(place []string) (err error) {
	if c.info.Files > syncEach {
		if err := retry(func() error { return unix.Syncfs(int(c.base)) }); err != nil {
			return fmt.Errorf("make it durable: %w", err)
		}
	}
	dir, err := openFolders(c.base, place[:len(place)-1])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	name := place[len(place)-1]
	move := func(flags uint) error {
		return retry(func() error { return unix.Renameat2(int(c.base), c.to.Temporary, int(dir), name, flags) })
	}
	err = move(unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		err = move(unix.RENAME_EXCHANGE)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// The file system cannot exchange: for a moment there is nothing.
		if err = removeTree(c.ctx, dir, name, 0); err == nil {
			err = move(0)
		}
	}
	if err == nil {
		err = retry(func() error { return unix.Fsync(int(dir)) })
	}
	if err != nil {
		return pathError(err, place)
	}
	return removeTree(c.ctx, c.base, c.to.Temporary, 0) // what was there before
}

// openFolders opens the folder at segments below dir and makes, open to anybody,
// what is not there.
func openFolders(dir fd, segments []string) (fd, error) {
	current, err := openAt(dir, ".", openDir)
	if err != nil {
		return -1, err
	}
	for i, name := range segments {
		made := retry(func() error { return unix.Mkdirat(int(current), name, 0o777) })
		if made != nil && !errors.Is(made, unix.EEXIST) {
			return -1, errors.Join(pathError(made, segments[:i+1]), current.close())
		}
		next, err := openAt(current, name, openDir)
		if err = errors.Join(pathError(err, segments[:i+1]), current.close()); err != nil {
			return -1, err
		}
		current = next
		if made == nil {
			if err := retry(func() error { return unix.Fchmod(int(current), 0o777) }); err != nil {
				return -1, errors.Join(pathError(err, segments[:i+1]), current.close())
			}
		}
	}
	return current, nil
}
