package artifact

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Delete removes what is at a URI, committed or not, with everything below it.
// Nothing there is no error. It removes names and never what links end at.
func (r *Repository) Delete(ctx context.Context, namespace, uri string) (err error) {
	at, err := r.Locate(namespace, uri)
	if err != nil {
		return err
	}
	dir, name, err := r.parent(at)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete artifact %s: %w", uri, err)
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	if err := removeTree(ctx, dir, name, 0); err != nil {
		return fmt.Errorf("delete artifact %s: %w", uri, err)
	}
	return nil
}

// ExecutorOutput is the name of the file in which a component reports outputs by
// itself. It lies beside the artifacts of its attempt and is none.
const ExecutorOutput = "output_metadata.json"

// Prune removes the folders above a URI that hold nothing any more, up to the
// bucket's own: those that PrepareOutput made. An ExecutorOutput counts as nothing
// and goes with its folder.
func (r *Repository) Prune(namespace, uri string) (err error) {
	at, err := r.Locate(namespace, uri)
	if err != nil {
		return err
	}
	r.folders.Lock()
	defer r.folders.Unlock()
	segments := at.segments()
	// Above are a namespace, a scheme and a bucket, which are everybody's.
	for segments = segments[:len(segments)-1]; len(segments) > 3; segments = segments[:len(segments)-1] {
		gone, err := r.prune(segments)
		if err != nil {
			return fmt.Errorf("remove empty folders above %s: %w", uri, err)
		}
		if !gone {
			break
		}
	}
	return nil
}

// prune removes a folder unless it holds something. One that is not there is gone.
func (r *Repository) prune(segments []string) (gone bool, err error) {
	name := segments[len(segments)-1]
	dir, err := descend(r.root, segments[:len(segments)-1])
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	folder, err := openAt(dir, name, openDir)
	if errors.Is(err, unix.ENOENT) {
		return true, nil
	}
	if err != nil {
		return false, pathError(err, segments)
	}
	list, err := names(folder)
	if err == nil && len(list) == 1 && list[0] == ExecutorOutput {
		err = retry(func() error { return unix.Unlinkat(int(folder), ExecutorOutput, 0) })
	} else if err == nil && len(list) > 0 {
		return false, folder.close()
	}
	if errors.Is(err, unix.EISDIR) {
		return false, folder.close() // a folder of that name is somebody's own
	}
	if err = errors.Join(err, folder.close()); err != nil {
		return false, pathError(err, segments)
	}
	err = retry(func() error { return unix.Unlinkat(int(dir), name, unix.AT_REMOVEDIR) })
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	return err == nil || errors.Is(err, unix.ENOENT), pathError(ignoring(err, unix.ENOENT), segments)
}

// ignoring is err unless it is the one that is no error here.
func ignoring(err, none error) error {
	if errors.Is(err, none) {
		return nil
	}
	return err
}

// DeleteNamespace removes all artifacts of a namespace.
func (r *Repository) DeleteNamespace(ctx context.Context, namespace string) error {
	if err := checkNamespace(namespace); err != nil {
		return err
	}
	if err := removeTree(ctx, r.root, namespace, 0); err != nil {
		return fmt.Errorf("delete the artifacts of namespace %s: %w", namespace, err)
	}
	return nil
}

// removeTree removes a name in dir and what is below it.
func removeTree(ctx context.Context, dir fd, name string, depth int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := retry(func() error { return unix.Unlinkat(int(dir), name, 0) })
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	st, serr := statAt(dir, name)
	if errors.Is(serr, unix.ENOENT) {
		return nil
	}
	if serr != nil || kindOf(st) != kindDir {
		return fmt.Errorf("%s: %w", name, errors.Join(err, serr))
	}
	if depth > unix.PathMax {
		return fmt.Errorf("%s: folders nest too deep: %w", name, ErrUnsafe)
	}
	if err := emptyDir(ctx, dir, name, depth); err != nil {
		return err
	}
	if err := retry(func() error { return unix.Unlinkat(int(dir), name, unix.AT_REMOVEDIR) }); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// emptyDir removes what a folder holds, one that Commit made read-only too.
func emptyDir(ctx context.Context, dir fd, name string, depth int) (err error) {
	found, err := openAt(dir, name, openName|unix.O_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	// Names can only be removed from a folder that is writable, and read from
	// one that is readable. A descriptor of openName takes no fchmod, its name
	// below /proc does.
	chmod := retry(func() error { return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", found), 0o700) })
	inner, _, err := reopen(found, []string{name})
	if err != nil {
		return errors.Join(err, chmod)
	}
	defer func() { err = errors.Join(err, inner.close()) }()
	list, err := names(inner)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, one := range list {
		if err := removeTree(ctx, inner, one, depth+1); err != nil {
			return fmt.Errorf("%s/%w", name, err)
		}
	}
	return nil
}
