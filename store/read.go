package store

import (
	"context"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/skiff-ml/skiff/api/core"
)

// read runs fn in a read transaction. bbolt shows a commit's pages to readers a
// moment before its last sync, so what fn saw is reported only after
// durable.wait for the revision that fn is given.
func (s *Store) read(fn func(b buckets, revision uint64) error) error {
	if s.closed.Load() {
		return ErrClosed
	}
	err := guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			b, err := bucketsOf(tx)
			if err != nil {
				return err
			}
			st, err := parseState(b.meta.Get([]byte(metaState)))
			if err != nil {
				return err
			}
			return fn(b, st.revision)
		})
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, berrors.ErrDatabaseNotOpen):
		return ErrClosed
	case errors.Is(err, ErrCorrupt):
		s.health.damaged(err)
	}
	return err
}

// readDurable is read, returning once what fn saw is on disk.
func (s *Store) readDurable(ctx context.Context, fn func(b buckets, revision uint64) error) error {
	var seen uint64
	err := s.read(func(b buckets, revision uint64) error {
		seen = revision
		return fn(b, revision)
	})
	if seen > 0 {
		if werr := s.durable.wait(ctx, seen); werr != nil {
			return werr
		}
	}
	return err
}

// Get returns a copy that the caller owns; ErrNotFound where there is none.
func (s *Store) Get(ctx context.Context, key Key) (core.Object, error) {
	kind, err := s.kind(key.Kind)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if err := key.validate(); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	var obj core.Object
	err = s.readDurable(ctx, func(b buckets, _ uint64) error {
		rec, found, err := b.record(key.raw())
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("get %s: %w", key, ErrNotFound)
		}
		obj, err = kind.decode(key, rec.revision, rec.json)
		return err
	})
	if err != nil {
		return nil, err
	}
	return obj, nil
}
