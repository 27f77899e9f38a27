package artifact

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// incomingFolder holds contents on their way in, one folder for each. Its name
// can be no namespace's.
const incomingFolder = ".incoming"

// Incoming is an artifact that is brought from elsewhere. It becomes visible as
// a whole, by Commit, or never.
type Incoming struct {
	r   *Repository
	at  Location
	tmp string
	// dir is the folder that contents are made in; nobody else knows it.
	dir *os.Root
	// mu guards the making of folders.
	mu    sync.Mutex
	ended bool
}

// contents is the artifact's own name in its folder.
const contents = "contents"

// Receive begins an artifact that will be at a URI. Abort or Commit ends it.
func (r *Repository) Receive(namespace, uri string) (*Incoming, error) {
	at, err := r.Locate(namespace, uri)
	if err != nil {
		return nil, err
	}
	return r.receive(at)
}

func (r *Repository) receive(at Location) (*Incoming, error) {
	if err := makeFolders(r.root, []string{incomingFolder}, 0o700); err != nil {
		return nil, fmt.Errorf("receive artifact %s: %w", at.Key, err)
	}
	tmp, err := os.MkdirTemp(path.Join(r.path, incomingFolder), "")
	if err != nil {
		return nil, fmt.Errorf("receive artifact %s: %w", at.Key, err)
	}
	dir, err := os.OpenRoot(tmp)
	if err != nil {
		return nil, errors.Join(err, os.Remove(tmp))
	}
	return &Incoming{r: r, at: at, tmp: path.Base(tmp), dir: dir}, nil
}

// Create makes a file: the artifact itself where subpath is empty, or one inside
// it with the folders on the way. The caller closes it. A name that no file can
// have, or that is there already, is ErrInvalid.
func (in *Incoming) Create(subpath string) (*os.File, error) {
	segments, err := subSegments(subpath)
	if err != nil {
		return nil, err
	}
	if subpath != strings.Join(segments, "/") {
		return nil, fmt.Errorf("path %q: %w", subpath, ErrInvalid) // what was trimmed would be another's name
	}
	if len(segments) > maxDepth {
		return nil, fmt.Errorf("folders nest deeper than %d: %w", maxDepth, ErrInvalid)
	}
	name := path.Join(append([]string{contents}, segments...)...)
	if len(segments) > 0 {
		in.mu.Lock()
		err = in.dir.MkdirAll(path.Dir(name), 0o755)
		in.mu.Unlock()
	}
	var f *os.File
	if err == nil {
		f, err = in.dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	}
	switch {
	case errors.Is(err, os.ErrExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR):
		return nil, fmt.Errorf("path %q cannot be made beside the others: %w: %w", subpath, ErrInvalid, err)
	case err != nil:
		return nil, fmt.Errorf("path %q: %w", subpath, err)
	}
	return f, nil
}

// Drop takes back what was made so far; other contents may follow.
func (in *Incoming) Drop() error {
	if err := in.dir.RemoveAll(contents); err != nil {
		return fmt.Errorf("receive artifact %s: %w", in.at.Key, err)
	}
	return nil
}

// Room is how many bytes the repository's file system has left for this process.
func (r *Repository) Room() (int64, error) {
	free, _, err := r.Disk()
	return free, err
}

// Disk is Room, and how large the file system is, both in bytes.
func (r *Repository) Disk() (free, total int64, err error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(int(r.root), &st) }); err != nil {
		return 0, 0, fmt.Errorf("free room of %s: %w", r.path, err)
	}
	blocks := st.Bavail
	if os.Geteuid() == 0 {
		blocks = st.Bfree
	}
	return int64(blocks) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// Commit makes the artifact durable and read-only and puts it in its place, in
// one step, over what was there. Whoever has that open goes on reading it.
func (in *Incoming) Commit(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, in.Abort()) }()
	fail := func(err error) error { return fmt.Errorf("receive artifact %s: %w", in.at.Key, err) }
	dir, err := descend(in.r.root, []string{incomingFolder, in.tmp})
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	st, err := statAt(dir, contents)
	if err != nil {
		return fail(err)
	}
	c := &committing{ctx: ctx, owner: st.Uid}
	if err := c.entry(dir, contents, nil); err != nil {
		return fail(err)
	}
	if c.info.Files > syncEach {
		if err := retry(func() error { return unix.Syncfs(int(dir)) }); err != nil {
			return fail(err)
		}
	}
	in.r.folders.RLock()
	defer in.r.folders.RUnlock()
	segments := in.at.segments()
	if err := makeParents(in.r.root, segments[:len(segments)-1]); err != nil {
		return fail(err)
	}
	to, name, err := in.r.parent(in.at)
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, to.close()) }()
	if err := replace(ctx, dir, to, name); err != nil {
		return fail(err)
	}
	return retry(func() error { return unix.Fsync(int(to)) })
}

// replace moves the contents to a name. What was there goes the other way and
// is removed with the rest. A folder without write bits cannot be moved to
// another parent but by root, so the top has them for a moment.
func replace(ctx context.Context, dir, to fd, name string) error {
	restore, err := writableFor(dir, contents)
	if err != nil {
		return err
	}
	if _, err := writableFor(to, name); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	move := func(flags uint) error {
		return retry(func() error { return unix.Renameat2(int(dir), contents, int(to), name, flags) })
	}
	switch err = move(unix.RENAME_EXCHANGE); {
	case errors.Is(err, unix.ENOENT):
		err = move(unix.RENAME_NOREPLACE)
	case err == nil:
		err = removeTree(ctx, dir, contents, 0)
	}
	if err != nil {
		return err
	}
	return restore(to, name)
}

// writableFor gives a folder its owner's write bit; the function that it returns
// takes it away again, wherever the folder is by then. Files need nothing.
func writableFor(dir fd, name string) (restore func(dir fd, name string) error, err error) {
	st, err := statAt(dir, name)
	if err != nil {
		return nil, err
	}
	nothing := func(fd, string) error { return nil }
	if kindOf(st) != kindDir || st.Mode&0o200 != 0 {
		return nothing, nil
	}
	chmod := func(dir fd, name string, mode uint32) error {
		f, err := openAt(dir, name, openDir)
		if err != nil {
			return err
		}
		return errors.Join(retry(func() error { return unix.Fchmod(int(f), mode) }), f.close())
	}
	mode := st.Mode & 0o7777
	return func(dir fd, name string) error { return chmod(dir, name, mode) }, chmod(dir, name, mode|0o200)
}

// Abort gives up what was not committed; after Commit it does nothing.
func (in *Incoming) Abort() error {
	if in.ended {
		return nil
	}
	in.ended = true
	dir, err := descend(in.r.root, []string{incomingFolder})
	if err != nil {
		return errors.Join(fmt.Errorf("remove what was not received: %w", err), in.dir.Close())
	}
	return errors.Join(in.dir.Close(), removeTree(context.Background(), dir, in.tmp, 0), dir.close())
}

// DropIncoming removes what a process before this one was receiving. Only the
// one process that writes to the repository may call it, before it receives.
func (r *Repository) DropIncoming(ctx context.Context) error {
	if err := removeTree(ctx, r.root, incomingFolder, 0); err != nil {
		return fmt.Errorf("remove what was not received: %w", err)
	}
	return nil
}
