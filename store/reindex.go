package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	bolt "go.etcd.io/bbolt"
)

const (
	// reindexChunk is how many objects one transaction of a rebuild writes.
	reindexChunk = 5000
	// rowChunk is how many rows it writes or removes, which lie side by side.
	rowChunk = 100_000
)

// signature is what an index is built from.
func (i *Index) signature() string { return i.Name + "@" + strconv.Itoa(i.Version) }

// signature is what a kind's indexes are built from.
func (k *kindInfo) signature() string {
	parts := make([]string, 0, len(k.Indexes))
	for i := range k.Indexes {
		parts = append(parts, k.Indexes[i].signature())
	}
	sort.Strings(parts)
	return strings.Join(parts, ",")
}

// rebuildIndexes builds the indexes of every kind whose declaration is not the
// one that they were built from. A rebuild that was cut off begins anew at the
// next Open, since the declarations are noted last.
func (s *Store) rebuildIndexes(ctx context.Context) error {
	notes := make(map[string]string)
	for name, kind := range s.kinds {
		noted, first, err := s.indexesNoted(kind)
		if err != nil {
			return err
		}
		if !first && noted == kind.signature() {
			continue
		}
		notes[metaIndexes+name] = kind.signature()
		if first && !s.hasObjects(kind) {
			continue
		}
		if err := s.rebuildKind(ctx, kind, strings.Split(noted, ",")); err != nil {
			return fmt.Errorf("build the indexes of %s: %w", name, err)
		}
	}
	if len(notes) == 0 {
		return nil
	}
	return guard(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			for key, signature := range notes {
				if err := tx.Bucket(bucketMeta()).Put([]byte(key), []byte(signature)); err != nil {
					return fmt.Errorf("note the indexes: %w", err)
				}
			}
			return nil
		})
	})
}

// rebuildKind makes the indexes anew that are not among those noted, and drops the
// noted ones that are no longer declared.
func (s *Store) rebuildKind(ctx context.Context, kind *kindInfo, noted []string) error {
	fresh := map[string]bool{}
	for i := range kind.Indexes {
		index := &kind.Indexes[i]
		if !slices.Contains(noted, index.signature()) {
			fresh[index.Name] = true
		}
	}
	drop := maps.Clone(fresh)
	for _, signature := range noted {
		name, _, _ := strings.Cut(signature, "@")
		if name != "" && kind.indexes[name] == nil {
			drop[name] = true
		}
	}
	for name := range drop {
		if err := s.dropIndex(ctx, indexPrefix(kind.Name, name)); err != nil {
			return err
		}
	}
	count, err := s.fillIndexes(ctx, kind, fresh)
	if err != nil {
		return err
	}
	s.log.Info("built indexes", "kind", kind.Name, "indexes", slices.Sorted(maps.Keys(fresh)), "objects", count)
	return nil
}

// indexesNoted returns the declaration that the kind's indexes were built from;
// first is true where there is none.
func (s *Store) indexesNoted(kind *kindInfo) (noted string, first bool, err error) {
	err = guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			value := tx.Bucket(bucketMeta()).Get([]byte(metaIndexes + kind.Name))
			noted, first = string(value), value == nil
			return nil
		})
	})
	return noted, first, err
}

func (s *Store) hasObjects(kind *kindInfo) (found bool) {
	prefix := append([]byte(kind.Name), 0)
	err := guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			row, _ := tx.Bucket(bucketObjects()).Cursor().Seek(prefix)
			found = bytes.HasPrefix(row, prefix)
			return nil
		})
	})
	return found || err != nil
}

// dropIndex removes an index's rows, chunk by chunk.
func (s *Store) dropIndex(ctx context.Context, prefix []byte) error {
	for {
		var rows [][]byte
		err := guard(func() error {
			return s.db.Update(func(tx *bolt.Tx) error {
				bucket := tx.Bucket(bucketIndexes())
				cursor := bucket.Cursor()
				for row, _ := cursor.Seek(prefix); bytes.HasPrefix(row, prefix) && len(rows) < rowChunk; row, _ = cursor.Next() {
					rows = append(rows, bytes.Clone(row))
				}
				for _, row := range rows {
					if err := bucket.Delete(row); err != nil {
						return err
					}
				}
				return nil
			})
		})
		if err = errors.Join(err, context.Cause(ctx)); err != nil || len(rows) < rowChunk {
			return err
		}
	}
}

// fillIndexes writes the entries of all of a kind's objects into their records,
// chunk by chunk, and then the rows of the indexes that are fresh, in their order:
// so each page of an index is written once, whatever the objects' values are.
func (s *Store) fillIndexes(ctx context.Context, kind *kindInfo, fresh map[string]bool) (count int, err error) {
	sorter := &rowSorter{folder: filepath.Dir(s.cfg.Path), limit: sortBytes}
	defer func() { err = errors.Join(err, sorter.close()) }()
	prefix := append([]byte(kind.Name), 0)
	for from, more := prefix, true; more; {
		err := guard(func() error {
			return s.db.Update(func(tx *bolt.Tx) error {
				b, err := bucketsOf(tx)
				if err != nil {
					return err
				}
				b.objects.FillPercent = objectFill
				chunk := make([]reindexed, 0, reindexChunk)
				cursor := b.objects.Cursor()
				for row, value := cursor.Seek(from); bytes.HasPrefix(row, prefix) && len(chunk) < reindexChunk; row, value = cursor.Next() {
					chunk = append(chunk, reindexed{raw: string(row), value: value})
				}
				if more = len(chunk) == reindexChunk; len(chunk) > 0 {
					from = append([]byte(chunk[len(chunk)-1].raw), 0)
				}
				count += len(chunk)
				return b.reindex(kind, fresh, chunk, sorter)
			})
		})
		if err = errors.Join(err, context.Cause(ctx)); err != nil {
			return count, err
		}
	}
	next, err := sorter.merge()
	if err != nil {
		return count, err
	}
	for more := true; more; {
		err := guard(func() error {
			return s.db.Update(func(tx *bolt.Tx) error {
				bucket := tx.Bucket(bucketIndexes())
				bucket.FillPercent = objectFill
				for range rowChunk {
					row, err := next()
					if more = row != nil; err != nil || !more {
						return err
					}
					if err := bucket.Put(row, nil); err != nil {
						return fmt.Errorf("write an index row: %w", err)
					}
				}
				return nil
			})
		})
		if err = errors.Join(err, context.Cause(ctx)); err != nil {
			return count, err
		}
	}
	return count, nil
}

// reindexed is an object whose index entries are made anew.
type reindexed struct {
	raw   string
	value []byte // its record, then the new one
	rows  [][]byte
	err   error
}

// reindex writes the entries of a chunk of objects into their records and adds
// their rows.
func (b buckets) reindex(kind *kindInfo, fresh map[string]bool, chunk []reindexed, sorter *rowSorter) error {
	var group sync.WaitGroup
	share := max(1, (len(chunk)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	for part := range slices.Chunk(chunk, share) {
		group.Go(func() {
			for i := range part {
				part[i].make(kind, fresh)
			}
		})
	}
	group.Wait()
	for i := range chunk {
		one := &chunk[i]
		if one.err != nil {
			return one.err
		}
		if err := b.objects.Put([]byte(one.raw), one.value); err != nil {
			return fmt.Errorf("write a record: %w", err)
		}
		for _, row := range one.rows {
			if err := sorter.add(row); err != nil {
				return err
			}
		}
	}
	return nil
}

// make fills in the new record and the rows of the indexes that are fresh.
func (r *reindexed) make(kind *kindInfo, fresh map[string]bool) {
	rec, err := parseRecord(r.raw, r.value)
	if err != nil {
		r.err = err
		return
	}
	key, err := parseRawKey([]byte(r.raw))
	if err != nil {
		r.err = err
		return
	}
	obj, err := kind.decode(key, rec.revision, rec.json)
	if err != nil {
		r.err = err
		return
	}
	entries, err := kind.entries(key, obj)
	if err != nil {
		r.err = err
		return
	}
	r.value = newRecord(entries, rec.json)
	sealRecord(r.value, r.raw, rec.revision)
	for _, e := range entries {
		if fresh[e.name] {
			r.rows = append(r.rows, indexRow(key, e.name, e.value))
		}
	}
}
