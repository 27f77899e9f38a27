package artifact

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// stagesDir holds artifacts that are put together before anybody may see them.
// No namespace can have its name, and no container mounts it.
const stagesDir = ".stages"

// Stage is a folder in the repository's file system in which artifacts are put
// together; Publish gives each its place by one rename. What a process that died
// has left is found by Stages.
type Stage struct {
	repository *Repository
	id         string
	dir        fd
}

// NewStage makes a stage of a name of its own.
func (r *Repository) NewStage(id string) (*Stage, error) {
	if err := checkSegment(id); err != nil {
		return nil, fmt.Errorf("make stage %q: %w", id, err)
	}
	if err := makeFolders(r.root, []string{stagesDir, id}, 0o700); err != nil {
		return nil, fmt.Errorf("make stage %s: %w", id, err)
	}
	return r.OpenStage(id)
}

// OpenStage opens a stage that is there; ErrNotFound where it is not.
func (r *Repository) OpenStage(id string) (*Stage, error) {
	if err := checkSegment(id); err != nil {
		return nil, fmt.Errorf("open stage %q: %w", id, err)
	}
	dir, err := descend(r.root, []string{stagesDir, id})
	if err != nil {
		return nil, fmt.Errorf("open stage %s: %w", id, err)
	}
	return &Stage{repository: r, id: id, dir: dir}, nil
}

// Stages are the names of all stages.
func (r *Repository) Stages() ([]string, error) {
	dir, err := descend(r.root, []string{stagesDir})
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list stages: %w", err)
	}
	list, err := names(dir)
	return list, errors.Join(err, dir.close())
}

// Close ends the use of the stage, which stays.
func (s *Stage) Close() error { return s.dir.close() }

// Remove removes the stage with all that is in it, and ends its use.
func (s *Stage) Remove(ctx context.Context) error {
	if err := s.Close(); err != nil {
		return err
	}
	dir, err := descend(s.repository.root, []string{stagesDir})
	if err != nil {
		return fmt.Errorf("remove stage %s: %w", s.id, err)
	}
	if err = errors.Join(removeTree(ctx, dir, s.id, 0), dir.close()); err != nil {
		return fmt.Errorf("remove stage %s: %w", s.id, err)
	}
	return nil
}

// Free is how many bytes the repository's file system has room for.
func (r *Repository) Free() (int64, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(int(r.root), &st) }); err != nil {
		return 0, fmt.Errorf("ask for the room on the disk of %s: %w", r.path, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// inside splits a path in a stage and opens the folder that it is in.
func (s *Stage) inside(name string) (dir fd, last string, err error) {
	segments, err := subSegments(name)
	if err != nil || len(segments) == 0 {
		return -1, "", fmt.Errorf("stage %s: %q: %w", s.id, name, ErrInvalid)
	}
	dir, err = descend(s.dir, segments[:len(segments)-1])
	return dir, segments[len(segments)-1], err
}

// Create makes a file at a path in the stage whose folder is there. The caller
// writes and closes it.
func (s *Stage) Create(name string, executable bool) (*os.File, error) {
	dir, last, err := s.inside(name)
	if err != nil {
		return nil, err
	}
	mode := uint32(0o644)
	if executable {
		mode = 0o755
	}
	out, err := openAt2(dir, last, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err = errors.Join(err, dir.close()); err != nil {
		return nil, fmt.Errorf("stage %s: make %s: %w", s.id, name, err)
	}
	return out.file(path.Base(name)), nil
}

// Open opens a file of the stage for reading.
func (s *Stage) Open(name string) (*os.File, error) {
	dir, last, err := s.inside(name)
	if err != nil {
		return nil, err
	}
	found, err := openAt(dir, last, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err = errors.Join(pathError(err, []string{name}), dir.close()); err != nil {
		return nil, fmt.Errorf("stage %s: %w", s.id, err)
	}
	return found.file(path.Base(name)), nil
}

// Exists reports whether there is something of a name in the stage itself.
func (s *Stage) Exists(name string) (bool, error) {
	if err := checkSegment(name); err != nil {
		return false, fmt.Errorf("stage %s: %w", s.id, err)
	}
	_, err := statAt(s.dir, name)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("stage %s: %w", s.id, pathError(err, []string{name}))
	}
	return true, nil
}

// Mkdir makes a folder at a path in the stage.
func (s *Stage) Mkdir(name string) error {
	return s.make(name, func(dir fd, last string) error { return unix.Mkdirat(int(dir), last, 0o755) })
}

// Symlink makes a link at a path in the stage. Where it ends is looked at by Seal.
func (s *Stage) Symlink(name, target string) error {
	return s.make(name, func(dir fd, last string) error { return unix.Symlinkat(target, int(dir), last) })
}

func (s *Stage) make(name string, call func(dir fd, last string) error) error {
	dir, last, err := s.inside(name)
	if err != nil {
		return err
	}
	err = retry(func() error { return call(dir, last) })
	if err = errors.Join(err, dir.close()); err != nil {
		return fmt.Errorf("stage %s: make %s: %w", s.id, name, err)
	}
	return nil
}

// Seal does to an artifact that lies in the stage what Commit does to one in
// its place: it refuses what an artifact may not hold and takes the write bits
// off. Sync makes it durable.
func (s *Stage) Seal(ctx context.Context, name string) (Info, error) {
	if err := checkSegment(name); err != nil {
		return Info{}, fmt.Errorf("stage %s: %w", s.id, err)
	}
	st, err := statAt(s.dir, name)
	if err != nil {
		return Info{}, fmt.Errorf("stage %s: %w", s.id, pathError(err, []string{name}))
	}
	c := &committing{ctx: ctx, owner: st.Uid, info: Info{Exists: true, Dir: kindOf(st) == kindDir}, unsynced: true}
	if err := c.entry(s.dir, name, nil); err != nil {
		return Info{}, fmt.Errorf("stage %s: %w", s.id, err)
	}
	return c.info, nil
}

// Sync makes all that the stage holds durable.
func (s *Stage) Sync() error {
	left := syncEach
	err := syncTree(s.dir, &left)
	if errors.Is(err, errMany) {
		err = retry(func() error { return unix.Syncfs(int(s.dir)) })
	}
	if err != nil {
		return fmt.Errorf("stage %s: make it durable: %w", s.id, err)
	}
	return nil
}

// errMany: one sync of the whole file system is cheaper than that of each file.
var errMany = errors.New("there are many files")

// syncTree syncs what a folder holds, and the folder, while any of left is left.
func syncTree(dir fd, left *int) error {
	list, err := names(dir)
	if err != nil {
		return err
	}
	for _, name := range list {
		if *left--; *left < 0 {
			return errMany
		}
		st, err := statAt(dir, name)
		if err != nil {
			return err
		}
		if isLink(st) {
			continue // it is in its folder
		}
		found, err := openAt(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC)
		if err != nil {
			return err
		}
		if kindOf(st) == kindDir {
			err = syncTree(found, left)
		} else {
			err = retry(func() error { return unix.Fsync(int(found)) })
		}
		if err = errors.Join(err, found.close()); err != nil {
			return err
		}
	}
	return retry(func() error { return unix.Fsync(int(dir)) })
}

// Publish gives an artifact of the stage its place, if there is nothing. It
// refuses (ErrUnsafe) a place in another artifact, and, unless mayShare says
// that none of its own runs any more, in a folder that a step may be writing to.
func (s *Stage) Publish(namespace, uri, name string, mayShare bool) (err error) {
	at, err := s.repository.Locate(namespace, uri)
	if err != nil {
		return err
	}
	s.repository.folders.RLock()
	defer s.repository.folders.RUnlock()
	segments := at.segments()
	if err := s.repository.checkParents(segments[:len(segments)-1], mayShare); err != nil {
		return fmt.Errorf("publish artifact %s: %w", uri, err)
	}
	if err := makeParents(s.repository.root, segments[:len(segments)-1]); err != nil {
		return fmt.Errorf("publish artifact %s: %w", uri, err)
	}
	dir, last, err := s.repository.parent(at)
	if err != nil {
		return fmt.Errorf("publish artifact %s: %w", uri, err)
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	st, err := statAt(s.dir, name)
	if err != nil {
		return fmt.Errorf("publish artifact %s: %w", uri, pathError(err, []string{name}))
	}
	// A folder without write bits cannot be moved by its owner.
	mode := st.Mode & 0o7777
	folder := kindOf(st) == kindDir
	if folder {
		err = retry(func() error { return unix.Fchmodat(int(s.dir), name, mode|0o200, 0) })
	}
	if err == nil {
		err = retry(func() error { return unix.Renameat2(int(s.dir), name, int(dir), last, unix.RENAME_NOREPLACE) })
	}
	if err == nil && folder {
		err = retry(func() error { return unix.Fchmodat(int(dir), last, mode, 0) })
	}
	if err == nil {
		err = retry(func() error { return unix.Fsync(int(dir)) })
	}
	if err != nil {
		return fmt.Errorf("publish artifact %s: %w", uri, err)
	}
	return nil
}

// checkParents looks at the folders above a place, as far as they are there.
func (r *Repository) checkParents(segments []string, mayShare bool) (err error) {
	const bucket = 3 // NAMESPACE/SCHEME/BUCKET: everybody's
	current, err := openAt(r.root, ".", openDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, current.close()) }()
	for i, name := range segments {
		next, err := openAt(current, name, openDir)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return pathError(err, segments[:i+1])
		}
		if err := current.close(); err != nil {
			return errors.Join(err, next.close())
		}
		current = next
		st, err := current.stat()
		if err != nil {
			return err
		}
		where := strings.Join(segments[:i+1], "/")
		switch {
		case i < bucket:
		case st.Mode&writable == 0:
			return fmt.Errorf("%s is an artifact, and nothing is put into one: %w", where, ErrUnsafe)
		case st.Mode&0o002 != 0 && !mayShare:
			return fmt.Errorf("%s is the folder of another step: %w", where, ErrUnsafe)
		}
	}
	return nil
}
