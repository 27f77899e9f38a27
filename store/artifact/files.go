package artifact

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// Member is one regular file of an artifact.
type Member struct {
	// Path is below the artifact; empty for the artifact itself.
	Path string
	// Size is in bytes.
	Size int64
}

// Files lists a committed artifact's files in the order of their paths; dir is
// false where the artifact is one file. A link to a file inside counts as that
// file; one to a folder is ErrUnsafe, for it would be many.
func (r *Repository) Files(ctx context.Context, namespace, uri string) (files []Member, dir bool, err error) {
	at, err := r.Locate(namespace, uri)
	if err != nil {
		return nil, false, err
	}
	top, st, err := r.openArtifact(at)
	if err != nil {
		return nil, false, fmt.Errorf("list artifact %s: %w", uri, err)
	}
	defer func() { err = errors.Join(err, top.close()) }()
	if kindOf(st) == kindFile {
		return []Member{{Size: st.Size}}, false, nil
	}
	w := &walking{ctx: ctx, top: top}
	if err := w.dir(top, "", 0); err != nil {
		return nil, true, fmt.Errorf("list artifact %s: %w", uri, err)
	}
	return w.files, true, nil
}

type walking struct {
	ctx   context.Context // lives as long as the call.
	top   fd
	files []Member
}

func (w *walking) dir(f fd, prefix string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("folders nest deeper than %d: %w", maxDepth, ErrUnsafe)
	}
	list, err := names(f)
	if err != nil {
		return err
	}
	slices.Sort(list)
	for _, name := range list {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		if err := w.entry(f, name, path.Join(prefix, name), depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walking) entry(dir fd, name, where string, depth int) error {
	st, err := statAt(dir, name)
	if err != nil {
		return pathError(err, []string{where})
	}
	if isLink(st) {
		if st, err = w.target(where); err != nil {
			return err
		}
		if kindOf(st) != kindFile {
			return fmt.Errorf("%s is a link to a folder, which an object store cannot keep; copy what it links to: %w", where, ErrUnsafe)
		}
	}
	switch kindOf(st) {
	case kindFile:
		w.files = append(w.files, Member{Path: where, Size: st.Size})
		return nil
	case kindDir:
		inner, err := openAt(dir, name, openDir)
		if err != nil {
			return pathError(err, []string{where})
		}
		return errors.Join(w.dir(inner, where, depth+1), inner.close())
	default:
		return fmt.Errorf("%s is a special file: %w", where, ErrUnsafe)
	}
}

// target describes what a link inside the artifact ends at.
func (w *walking) target(where string) (unix.Stat_t, error) {
	found, err := resolveBeneath(w.top, where, openName)
	if err != nil {
		return unix.Stat_t{}, pathError(err, []string{where})
	}
	st, err := found.stat()
	return st, errors.Join(err, found.close())
}
