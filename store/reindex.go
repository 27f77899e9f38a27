package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// reindexChunk is how many rows one transaction of a rebuild touches.
const reindexChunk = 5000

// signature is what a kind's indexes are built from.
func (k *kindInfo) signature() string {
	parts := make([]string, 0, len(k.Indexes))
	for _, index := range k.Indexes {
		parts = append(parts, index.Name+"@"+strconv.Itoa(index.Version))
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
		if err := s.rebuildKind(ctx, kind); err != nil {
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

func (s *Store) rebuildKind(ctx context.Context, kind *kindInfo) error {
	if err := s.dropIndexes(ctx, kind); err != nil {
		return err
	}
	count, err := s.fillIndexes(ctx, kind)
	if err != nil {
		return err
	}
	s.log.Info("built indexes", "kind", kind.Name, "objects", count)
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

// dropIndexes removes all of a kind's rows, chunk by chunk.
func (s *Store) dropIndexes(ctx context.Context, kind *kindInfo) error {
	prefix := append([]byte(kind.Name), 0)
	for {
		var rows [][]byte
		err := guard(func() error {
			return s.db.Update(func(tx *bolt.Tx) error {
				bucket := tx.Bucket(bucketIndexes())
				cursor := bucket.Cursor()
				for row, _ := cursor.Seek(prefix); bytes.HasPrefix(row, prefix) && len(rows) < reindexChunk; row, _ = cursor.Next() {
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
		if err = errors.Join(err, context.Cause(ctx)); err != nil || len(rows) < reindexChunk {
			return err
		}
	}
}

// fillIndexes writes the rows of all of a kind's objects and the entries into
// their records, chunk by chunk.
func (s *Store) fillIndexes(ctx context.Context, kind *kindInfo) (count int, err error) {
	prefix := append([]byte(kind.Name), 0)
	from := prefix
	for {
		var last []byte
		n := 0
		err := guard(func() error {
			return s.db.Update(func(tx *bolt.Tx) error {
				b, err := bucketsOf(tx)
				if err != nil {
					return err
				}
				var raws []string
				cursor := b.objects.Cursor()
				for row, _ := cursor.Seek(from); bytes.HasPrefix(row, prefix) && len(raws) < reindexChunk; row, _ = cursor.Next() {
					raws = append(raws, string(row))
				}
				for _, raw := range raws {
					if err := b.reindex(kind, raw); err != nil {
						return err
					}
					last = []byte(raw)
				}
				n = len(raws)
				return nil
			})
		})
		if err = errors.Join(err, context.Cause(ctx)); err != nil {
			return count, err
		}
		count += n
		if n < reindexChunk {
			return count, nil
		}
		from = append(last, 0)
	}
}

// reindex writes one object's index rows and the entries in its record.
func (b buckets) reindex(kind *kindInfo, raw string) error {
	rec, _, err := b.record(raw)
	if err != nil {
		return err
	}
	key, err := parseRawKey([]byte(raw))
	if err != nil {
		return err
	}
	obj, err := kind.decode(key, rec.revision, rec.json)
	if err != nil {
		return err
	}
	entries, err := kind.entries(key, obj)
	if err != nil {
		return err
	}
	value := newRecord(entries, rec.json)
	sealRecord(value, raw, rec.revision)
	if err := b.objects.Put([]byte(raw), value); err != nil {
		return err
	}
	for _, row := range rowsWithout(key, entries, nil) {
		if err := b.indexes.Put(row, nil); err != nil {
			return err
		}
	}
	return nil
}
