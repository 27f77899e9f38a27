package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/skiff-ml/skiff/api/core"
)

// GetAs is Get with the type that the kind's New makes; ErrInvalid where T is
// another.
func GetAs[T core.Object](ctx context.Context, s Interface, key Key) (T, error) {
	obj, err := s.Get(ctx, key)
	if err != nil {
		var none T
		return none, err
	}
	return as[T](obj, key.Kind)
}

// ListAs is one page of List with typed items. Revision and Continue are the
// page's.
func ListAs[T core.Object](ctx context.Context, s Interface, opts ListOptions) ([]T, Page, error) {
	page, err := s.List(ctx, opts)
	if err != nil {
		return nil, Page{}, err
	}
	items := make([]T, len(page.Items))
	for i, obj := range page.Items {
		if items[i], err = as[T](obj, opts.Kind); err != nil {
			return nil, Page{}, err
		}
	}
	return items, page, nil
}

// AllAs lists every page and returns the revision to watch from: the first
// page's, so that nothing that changes meanwhile is missed. It holds all
// objects at once: only for sets that are bounded by what is active.
func AllAs[T core.Object](ctx context.Context, s Interface, opts ListOptions) ([]T, uint64, error) {
	var all []T
	var revision uint64
	for {
		items, page, err := ListAs[T](ctx, s, opts)
		if err != nil {
			return nil, 0, err
		}
		if revision == 0 {
			revision = page.Revision
		}
		all = append(all, items...)
		if page.Continue == "" {
			return all, revision, nil
		}
		opts.Continue = page.Continue
	}
}

func as[T core.Object](obj core.Object, kind string) (T, error) {
	typed, ok := obj.(T)
	if !ok {
		return typed, fmt.Errorf("%s is %T, not %T: %w", kind, obj, typed, ErrInvalid)
	}
	return typed, nil
}

// ErrUnchanged is returned by a Modify function that found nothing to do.
var ErrUnchanged = errors.New("unchanged")

// Modify reads an object, lets change alter it and commits it, again from the
// start where another writer came in between. change may run several times; an
// error from it ends Modify, and ErrUnchanged makes it succeed without a write.
// It returns the object as committed.
func Modify(ctx context.Context, s Interface, key Key, change func(obj core.Object) error) (core.Object, error) {
	for {
		obj, err := s.Get(ctx, key)
		if err != nil {
			return nil, err
		}
		if err := change(obj); err != nil {
			if errors.Is(err, ErrUnchanged) {
				return obj, nil
			}
			return nil, err
		}
		_, err = s.Commit(ctx, Op{Verb: Update, Kind: key.Kind, Object: obj})
		if err == nil {
			return obj, nil
		}
		// Someone's write came first, so the set of writers gets on.
		if !errors.Is(err, ErrConflict) {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// ModifyAs is Modify with the kind's type.
func ModifyAs[T core.Object](ctx context.Context, s Interface, key Key, change func(obj T) error) (T, error) {
	obj, err := Modify(ctx, s, key, func(obj core.Object) error {
		typed, err := as[T](obj, key.Kind)
		if err != nil {
			return err
		}
		return change(typed)
	})
	if err != nil {
		var none T
		return none, err
	}
	return as[T](obj, key.Kind)
}
