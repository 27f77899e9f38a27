package artifact

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Repository is an artifact repository in a folder of this machine. It is safe
// for concurrent use.
type Repository struct {
	path string
	root fd
	// folders is held for writing by who removes folders that hold nothing, and for
	// reading by who is about to put something into one.
	folders sync.RWMutex
}

// Open opens the repository at root and creates it, with mode 0700, where it is
// not there. Close lets go of it.
func Open(root string) (*Repository, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open artifact repository: %w", err)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("open artifact repository: %w", err)
	}
	// The root itself may be a link of the administrator's making.
	resolved, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, fmt.Errorf("open artifact repository: %w", err)
	}
	dir, err := openAt(unix.AT_FDCWD, resolved, openDir)
	if err != nil {
		return nil, fmt.Errorf("open artifact repository %s: %w", root, err)
	}
	r := &Repository{path: resolved, root: dir}
	if err := retry(func() error { return unix.Fchmod(int(dir), 0o700) }); err != nil {
		return nil, errors.Join(fmt.Errorf("close artifact repository %s to others: %w", root, err), r.Close())
	}
	return r, nil
}

// Close ends the use of the repository: no method may be called any more.
// Files that Open returned stay open.
func (r *Repository) Close() error { return r.root.close() }

// Path is the root folder.
func (r *Repository) Path() string { return r.path }

// MountRoot is a folder that containers of a namespace see.
type MountRoot struct{ Key, HostPath, ContainerPath string }

// MountRoots are what every container of a namespace mounts, read-only. The
// folders are created where they are not there.
func (r *Repository) MountRoots(namespace string) ([]MountRoot, error) {
	if err := checkNamespace(namespace); err != nil {
		return nil, err
	}
	var out []MountRoot
	for _, folder := range schemeFolders() {
		if err := makeFolders(r.root, []string{namespace, folder}, 0o755); err != nil {
			return nil, fmt.Errorf("create the artifact folders of %s: %w", namespace, err)
		}
		out = append(out, MountRoot{Key: folder, HostPath: filepath.Join(r.path, namespace, folder), ContainerPath: "/" + folder})
	}
	return out, nil
}

// HostPath is the folder on the host of a key that Locate or MountRoots gave;
// it exists when HostPath returns. writable says whether it may be mounted for
// writing: an attempt's own folder may, what several share may not.
func (r *Repository) HostPath(namespace, key string) (hostPath string, writable bool, err error) {
	if err := checkNamespace(namespace); err != nil {
		return "", false, err
	}
	segments := strings.Split(key, "/")
	for _, segment := range segments {
		if err := checkSegment(segment); err != nil {
			return "", false, fmt.Errorf("artifact folder %q: %w", key, err)
		}
	}
	dir, err := descend(r.root, append([]string{namespace}, segments...))
	if err != nil {
		return "", false, fmt.Errorf("artifact folder %q: %w", key, err)
	}
	// A scheme's folder and a bucket are everybody's.
	return filepath.Join(r.path, namespace, filepath.FromSlash(key)), len(segments) > 2, dir.close()
}

// PrepareOutput makes the folder that one attempt writes its outputs to, open
// to every uid that a container may have: the repository's root keeps everyone
// else out. A folder that is there stays, so a repeated start finds its own.
func (r *Repository) PrepareOutput(namespace, uri string) error {
	at, err := r.Locate(namespace, uri)
	if err != nil {
		return err
	}
	r.folders.RLock()
	defer r.folders.RUnlock()
	if err := makeFolders(r.root, at.segments(), 0o777); err != nil {
		return fmt.Errorf("create the output folder %s: %w", uri, err)
	}
	return nil
}

// parent opens the folder that an artifact's name is in.
func (r *Repository) parent(at Location) (fd, string, error) {
	segments := at.segments()
	dir, err := descend(r.root, segments[:len(segments)-1])
	return dir, segments[len(segments)-1], err
}

// Exists reports whether a file or directory is at the URI; a link or special
// file is none.
func (r *Repository) Exists(namespace, uri string) bool {
	at, err := r.Locate(namespace, uri)
	if err != nil {
		return false
	}
	dir, name, err := r.parent(at)
	if err != nil {
		return false
	}
	st, err := statAt(dir, name)
	return errors.Join(err, dir.close()) == nil && kindOf(st) != kindOther
}

// openArtifact opens the artifact itself, a regular file or a directory.
func (r *Repository) openArtifact(at Location) (f fd, st unix.Stat_t, err error) {
	dir, name, err := r.parent(at)
	if err != nil {
		return -1, st, err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	found, err := openAt(dir, name, openName|unix.O_NOFOLLOW)
	if err != nil {
		return -1, st, pathError(err, at.segments())
	}
	return reopen(found, at.segments())
}

// Open opens a file for reading: the artifact itself where subpath is empty, or
// one inside it. Links inside the artifact are followed where they end inside.
// The caller closes it. Directories are ErrInvalid; see List.
func (r *Repository) Open(namespace, uri, subpath string) (*os.File, error) {
	f, st, err := r.openInside(namespace, uri, subpath)
	if err != nil {
		return nil, err
	}
	if kindOf(st) == kindDir {
		return nil, errors.Join(fmt.Errorf("artifact %s %s is a directory: %w", uri, subpath, ErrInvalid), f.close())
	}
	return f.file(path.Base(path.Join(uri, subpath))), nil
}

// openInside opens an artifact or a path inside it.
func (r *Repository) openInside(namespace, uri, subpath string) (fd, unix.Stat_t, error) {
	var none unix.Stat_t
	at, err := r.Locate(namespace, uri)
	if err != nil {
		return -1, none, err
	}
	segments, err := subSegments(subpath)
	if err != nil {
		return -1, none, fmt.Errorf("artifact %s: %w", uri, err)
	}
	top, st, err := r.openArtifact(at)
	if err != nil {
		return -1, none, fmt.Errorf("open artifact %s: %w", uri, err)
	}
	if len(segments) == 0 {
		return top, st, nil
	}
	found, err := resolveBeneath(top, path.Join(segments...), openName)
	if err = errors.Join(pathError(err, segments), top.close()); err != nil {
		return -1, none, fmt.Errorf("open artifact %s: %w", uri, err)
	}
	inner, st, err := reopen(found, segments)
	if err != nil {
		return -1, none, fmt.Errorf("open artifact %s: %w", uri, err)
	}
	return inner, st, nil
}

// Entry is one name in a listing.
type Entry struct {
	Name string
	Dir  bool
	// Link is true for a symbolic link; Target is its text, Size the length of that.
	Link   bool
	Target string
	// Size is in bytes; 0 for a directory.
	Size     int64
	Modified time.Time
}

// List returns the entries of an artifact that is a directory, or of a
// directory inside it, by name.
func (r *Repository) List(namespace, uri, subpath string) (entries []Entry, err error) {
	dir, st, err := r.openInside(namespace, uri, subpath)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	if kindOf(st) != kindDir {
		return nil, fmt.Errorf("artifact %s %s is no directory: %w", uri, subpath, ErrInvalid)
	}
	list, err := names(dir)
	if err != nil {
		return nil, fmt.Errorf("list artifact %s: %w", uri, err)
	}
	sort.Strings(list)
	for _, name := range list {
		st, err := statAt(dir, name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list artifact %s: %w", uri, err)
		}
		e := Entry{Name: name, Dir: kindOf(st) == kindDir, Link: isLink(st), Modified: time.Unix(st.Mtim.Unix())}
		if !e.Dir {
			e.Size = st.Size
		}
		if e.Link {
			if e.Target, err = readLink(dir, name); err != nil {
				return nil, fmt.Errorf("list artifact %s: %w", uri, pathError(err, []string{name}))
			}
		}
		entries = append(entries, e)
	}
	return entries, nil
}
