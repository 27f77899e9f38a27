package retention

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

// purge marks artifacts, which carry their marks already, and settles them. It
// returns those that it gave up.
func (p *pass) purge(ctx context.Context, list []*skiff.Artifact) ([]*skiff.Artifact, error) {
	marked := list
	err := p.write(ctx, list)
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
		// Somebody changed one, as by pinning it: that one stays until the next look.
		marked = nil
		for _, a := range list {
			err = p.write(ctx, []*skiff.Artifact{a})
			switch {
			case err == nil:
				marked = append(marked, a)
			case !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound):
				return nil, err
			}
		}
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return p.settle(ctx, marked)
}

func (p *pass) write(ctx context.Context, list []*skiff.Artifact) error {
	ops := make([]store.Op, len(list))
	for i, a := range list {
		ops[i] = store.Op{Verb: store.Update, Kind: artifactsKind, Object: a}
	}
	_, err := p.c.store.Commit(ctx, ops...)
	return err
}

// settle does what marks say, or takes them back, and returns the artifacts that
// were given up. The same settles artifacts that are being deleted.
func (p *pass) settle(ctx context.Context, list []*skiff.Artifact) ([]*skiff.Artifact, error) {
	var gone, removing []*skiff.Artifact
	var begun []string
	for _, a := range list {
		inUse, err := p.inUse(ctx, a)
		switch {
		case err != nil:
			return gone, err
		case inUse && a.DeletionTimestamp != nil:
			continue // it goes when that has ended
		case inUse:
			if err := p.takeBack(ctx, a); err != nil {
				return gone, err
			}
			continue
		}
		gone = append(gone, a)
		shared, others, err := p.shared(ctx, a)
		if err != nil {
			return gone, err
		}
		if !shared {
			removing = append(removing, a)
			begun = append(append(begun, a.Name), others...)
		}
	}
	// From here on nothing of these is taken back: what has begun to be removed
	// may be there by half.
	slices.Sort(begun)
	err := p.amend(ctx, slices.Compact(begun), func(a *skiff.Artifact) error {
		if a.Status.Purged == nil || a.Status.Purged.Removing || !a.Status.Purged.RemovedAt.IsZero() {
			return store.ErrUnchanged
		}
		a.Status.Purged.Removing = true
		return nil
	})
	if err != nil {
		return gone, err
	}
	return gone, p.remove(ctx, removing)
}

// remove removes contents and notes it.
func (p *pass) remove(ctx context.Context, list []*skiff.Artifact) error {
	var removed []string
	for _, a := range list {
		if !a.Spec.Imported && !a.Status.Missing {
			if err := p.removeContents(ctx, a); err != nil && !errors.Is(err, artifact.ErrInvalid) {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				// The mark stays, and with it the intent.
				if err := p.stuck(ctx, a, err); err != nil {
					return err
				}
				continue
			}
		}
		removed = append(removed, a.Name)
	}
	if err := p.removeFolders(ctx, list); err != nil {
		return err
	}
	return p.amend(ctx, removed, func(a *skiff.Artifact) error {
		if a.Status.Purged != nil {
			a.Status.Purged.Removing, a.Status.Purged.RemovedAt, a.Status.Purged.Stuck = false, p.c.now(), nil
		}
		if a.DeletionTimestamp != nil {
			a.Finalizers = slices.DeleteFunc(a.Finalizers, func(f string) bool { return f == skiff.FinalizerContents })
		}
		return nil
	})
}

// takeBack takes the mark of an artifact back that is used all the same.
func (p *pass) takeBack(ctx context.Context, a *skiff.Artifact) error {
	return p.amend(ctx, []string{a.Name}, func(a *skiff.Artifact) error {
		a.Status.Purged = nil
		return nil
	})
}

// inUse looks after the mark: what an engine took before it is seen here, and
// what it takes later has seen the mark.
func (p *pass) inUse(ctx context.Context, a *skiff.Artifact) (bool, error) {
	if a.Status.Purged != nil && a.Status.Purged.Removing {
		return false, nil // there is no way back
	}
	if p.needed[a.Name] || p.c.cfg.Using(a) {
		return true, nil
	}
	if a.Spec.Run == "" {
		return false, nil
	}
	run, err := store.GetAs[*skiff.Run](ctx, p.c.store, store.Key{Kind: runsKind, Namespace: a.Namespace, Name: a.Spec.Run})
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	// It may have been retried, or pinned, since what is needed was collected.
	return err == nil && (!run.Status.State.Terminal() || skiff.Pinned(run)), err
}

// amend changes artifacts, in one transaction where nobody else changes one. Those
// that are gone, or for which change says store.ErrUnchanged, are left out.
func (p *pass) amend(ctx context.Context, names []string, change func(*skiff.Artifact) error) error {
	var list []*skiff.Artifact
	for _, name := range names {
		a, err := store.GetAs[*skiff.Artifact](ctx, p.c.store, p.key(name))
		if err == nil {
			err = change(a)
		}
		switch {
		case err == nil:
			list = append(list, a)
		case !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrUnchanged):
			return err
		}
	}
	if len(list) == 0 {
		return nil
	}
	err := p.write(ctx, list)
	if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	for _, a := range list {
		_, err := store.ModifyAs(ctx, p.c.store, p.key(a.Name), change)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

func (p *pass) key(name string) store.Key {
	return store.Key{Kind: artifactsKind, Namespace: p.namespace, Name: name}
}

// shared reports whether an artifact that is kept refers to the contents, to a
// part of them, or to what they are a part of; if not, others are those that did
// and are marked, too. An import that was not used any later than the contents
// were does not keep them: it goes with them.
func (p *pass) shared(ctx context.Context, a *skiff.Artifact) (shared bool, others []string, err error) {
	key, err := artifact.Key(a.Spec.URI)
	if err != nil {
		return false, nil, nil //nolint:nilerr // Nothing is kept at such a URI.
	}
	look := []store.ListOptions{{Prefix: key + "/"}}
	for parts := strings.Split(key, "/"); len(parts) > 1; parts = parts[:len(parts)-1] {
		look = append(look, store.ListOptions{Prefix: strings.Join(parts, "/"), Exact: true})
	}
	for _, opts := range look {
		opts.Kind, opts.Namespace, opts.Index = artifactsKind, a.Namespace, byContents
		err := each(ctx, p.c.store, opts, func(other *skiff.Artifact) (bool, error) {
			if other.Name == a.Name {
				return true, nil
			}
			keeps, err := p.keeps(ctx, a, other)
			shared = keeps
			others = append(others, other.Name)
			return !keeps, err
		})
		if err != nil || shared {
			return shared, nil, err
		}
	}
	return false, others, nil
}

// keeps reports whether another artifact keeps the contents of a. A mark of the
// other's that is of no avail is taken back here, an import that is expendable
// marked.
func (p *pass) keeps(ctx context.Context, a, other *skiff.Artifact) (bool, error) {
	if other.Gone() != "" {
		inUse, err := p.inUse(ctx, other)
		if inUse && other.DeletionTimestamp == nil {
			err = p.takeBack(ctx, other)
		}
		return inUse, err
	}
	if !p.expendable(a, other) {
		return true, nil
	}
	other.Status.Purged = &skiff.Purge{At: p.c.now(), RemovedAt: p.c.now(), Reason: reasonOf(a), Message: "it referred to what artifact " + a.Name + " held"}
	err := p.write(ctx, []*skiff.Artifact{other})
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
		return true, nil // somebody changed it: the next look sees how
	}
	return err != nil, err
}

func reasonOf(a *skiff.Artifact) string {
	if a.Status.Purged != nil {
		return a.Status.Purged.Reason
	}
	return "run-deleted"
}

// importGrace is by how much an import may have been used later than what it
// refers to says of itself: uses are noted to the hour.
const importGrace = time.Hour

// expendable reports whether an import need not keep what it refers to.
func (p *pass) expendable(a, other *skiff.Artifact) bool {
	if !other.Spec.Imported || skiff.Pinned(other) || p.needed[other.Name] || p.c.cfg.Using(other) {
		return false
	}
	used := other.LastUsed()
	return used.Before(p.tooOld) || used.Before(p.beyondRuns) || !used.After(a.LastUsed().Add(importGrace))
}

// Finish goes on with what was marked, or deleted, and not settled: by a daemon
// that was killed, or because something was in the way.
func (c *Controller) Finish(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	namespaces, err := c.store.Namespaces(ctx, artifactsKind)
	for _, namespace := range namespaces {
		if err = c.finish(ctx, namespace); err != nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("finish what was purged: %w", err)
	}
	return nil
}

func (c *Controller) finish(ctx context.Context, namespace string) error {
	var p *pass
	var list []*skiff.Artifact
	flush := func() error {
		if p == nil {
			p = &pass{c: c, namespace: namespace}
			retention, err := c.Retention(ctx, namespace)
			if err == nil && retention.MaxAge > 0 {
				p.tooOld = c.now().Add(-retention.MaxAge)
			}
			if p.needed, err = c.needed(ctx, namespace); err != nil {
				return err
			}
		}
		_, err := p.settle(ctx, list)
		list = nil
		return err
	}
	err := each(ctx, c.store, store.ListOptions{Kind: artifactsKind, Namespace: namespace, Index: byPurging}, func(a *skiff.Artifact) (bool, error) {
		if list = append(list, a); len(list) < batch {
			return true, nil
		}
		return true, flush()
	})
	if err == nil && len(list) > 0 {
		err = flush()
	}
	return err
}

// each calls fn for the objects of a list, page by page, until it returns false.
func each[T core.Object](ctx context.Context, s store.Interface, opts store.ListOptions, fn func(T) (bool, error)) error {
	for {
		items, page, err := store.ListAs[T](ctx, s, opts)
		if err != nil {
			return err
		}
		for _, item := range items {
			more, err := fn(item)
			if err != nil || !more {
				return err
			}
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return nil
		}
	}
}
