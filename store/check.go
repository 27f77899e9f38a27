package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// checkLockTimeout is short: the daemon runs the check before it opens the
	// file itself, so a lock is another daemon's.
	checkLockTimeout = 500 * time.Millisecond
	// maxProblems is how many problems of one kind a check tells of.
	maxProblems = 10
	// checkChunk is how many rows one read transaction of a check of a live
	// store visits.
	checkChunk = 2000
)

// Check verifies the store file at path, which no process may have open for
// writing: the metas, the file's length, the schema and the buckets' roots; with
// full also every page, every value's checksum, that indexes and objects agree,
// and the change log. Damage is ErrCorrupt.
//
// A damaged file can end the process that maps it, so call it in a process that
// may die: see CheckMain.
func Check(ctx context.Context, path string, full bool) (err error) {
	db, err := openBolt(path, checkLockTimeout, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = guard(func() error {
		return db.View(func(tx *bolt.Tx) error {
			version, err := checkRoots(tx)
			if err != nil || !full {
				return err
			}
			if err := checkPages(ctx, tx); err != nil {
				return err
			}
			if version < SchemaVersion {
				return nil // its rows are those of an older layout
			}
			b, err := bucketsOf(tx)
			if err != nil {
				return err
			}
			for _, walk := range walks() {
				if _, err := walk(ctx, b, nil, -1); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("check store %s: %w", path, err)
	}
	return nil
}

// checkRoots reads what every start of the store reads.
func checkRoots(tx *bolt.Tx) (version int, err error) {
	if version, err = readSchema(tx); err != nil || version < SchemaVersion {
		return version, err
	}
	if version > SchemaVersion {
		return version, fmt.Errorf("schema version %d, this skiff knows up to %d: %w", version, SchemaVersion, ErrNewer)
	}
	b, err := bucketsOf(tx)
	if err != nil {
		return version, err
	}
	if _, err := parseState(b.meta.Get([]byte(metaState))); err != nil {
		return version, err
	}
	for _, bucket := range []*bolt.Bucket{b.meta, b.objects, b.indexes, b.log} {
		cursor := bucket.Cursor()
		cursor.First()
		cursor.Last()
	}
	for _, ends := range []func() ([]byte, []byte){b.objects.Cursor().First, b.objects.Cursor().Last} {
		if key, value := ends(); key != nil {
			if _, err := parseRecord(string(key), value); err != nil {
				return version, err
			}
		}
	}
	return version, nil
}

// checkPages is bbolt's own check of the file's structure.
func checkPages(ctx context.Context, tx *bolt.Tx) error {
	var problems []error
	for err := range tx.Check() {
		if len(problems) < maxProblems {
			problems = append(problems, fmt.Errorf("%w: %w", ErrCorrupt, err))
		}
	}
	return errors.Join(append(problems, context.Cause(ctx))...)
}

// walk checks up to limit rows (all where negative) from a key on and returns
// the key to go on from, nil at the end.
type walk func(ctx context.Context, b buckets, from []byte, limit int) (next []byte, err error)

func walks() []walk { return []walk{walkObjects, walkIndexes, walkLog} }

// walkRows is the frame of a walk.
func walkRows(ctx context.Context, bucket *bolt.Bucket, from []byte, limit int, visit func(key, value []byte) error) ([]byte, error) {
	cursor := bucket.Cursor()
	key, value := cursor.Seek(from)
	for n := 0; key != nil; n++ {
		if limit >= 0 && n >= limit {
			return append([]byte(nil), key...), nil
		}
		if n%checkChunk == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := visit(key, value); err != nil {
			return nil, err
		}
		key, value = cursor.Next()
	}
	return nil, nil
}

// walkObjects: every record is whole, is JSON, and is in the indexes it says.
func walkObjects(ctx context.Context, b buckets, from []byte, limit int) ([]byte, error) {
	st, err := parseState(b.meta.Get([]byte(metaState)))
	if err != nil {
		return nil, err
	}
	return walkRows(ctx, b.objects, from, limit, func(raw, value []byte) error {
		key, err := parseRawKey(raw)
		if err != nil {
			return err
		}
		rec, err := parseRecord(string(raw), value)
		if err != nil {
			return err
		}
		if rec.revision > st.revision {
			return corrupt(string(raw), "its revision %d is after the store's, %d", rec.revision, st.revision)
		}
		if !json.Valid(rec.json) {
			return corrupt(string(raw), "the value is not JSON")
		}
		entries, err := rec.entries(string(raw))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if found, _ := b.indexes.Cursor().Seek(indexRow(key, e.name, e.value)); string(found) != string(indexRow(key, e.name, e.value)) {
				return corrupt(string(raw), "it is missing from index %s", e.name)
			}
		}
		return nil
	})
}

// walkIndexes: every row stands for an entry that its object has.
func walkIndexes(ctx context.Context, b buckets, from []byte, limit int) ([]byte, error) {
	return walkRows(ctx, b.indexes, from, limit, func(row, _ []byte) error {
		key, index, escaped, err := parseIndexRow(row)
		if err != nil {
			return err
		}
		rec, found, err := b.record(key.raw())
		if err != nil {
			return err
		}
		if !found {
			return corrupt(key.raw(), "index %s names it but it is not there", index)
		}
		entries, err := rec.entries(key.raw())
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.name == index && string(appendEscaped(nil, e.value)) == escaped {
				return nil
			}
		}
		return corrupt(key.raw(), "index %s holds an entry that it does not have", index)
	})
}

// walkLog: every change is whole and within the revisions that the log claims.
func walkLog(ctx context.Context, b buckets, from []byte, limit int) ([]byte, error) {
	st, err := parseState(b.meta.Get([]byte(metaState)))
	if err != nil {
		return nil, err
	}
	return walkRows(ctx, b.log, from, limit, func(row, value []byte) error {
		if _, err := parseChange(row, value); err != nil {
			return err
		}
		if revision := binary.BigEndian.Uint64(row); revision <= st.compacted || revision > st.revision {
			return corrupt(fmt.Sprintf("change %x", row), "it is outside the log's revisions %d to %d", st.compacted+1, st.revision)
		}
		return nil
	})
}

// CheckNow runs the full check of the live store and notes its outcome in
// Health: in a child process on a copy where a check command is configured and
// there is room for a copy, and otherwise on the live file, value by value.
func (s *Store) CheckNow(ctx context.Context) error {
	s.health.checking()
	err := s.checkLive(ctx)
	s.health.checked(s.cfg.Now(), err)
	return err
}

func (s *Store) checkLive(ctx context.Context) error {
	if len(s.cfg.CheckCommand) > 0 && s.roomFor(s.checkDir()) == nil {
		if s.cfg.BackupDir != "" {
			_, err := s.BackupTo(ctx, s.cfg.BackupDir)
			return err
		}
		copied := s.cfg.Path + ".check"
		err := writeFileDurably(copied, func(f *os.File) error { return s.Backup(ctx, f) })
		if err == nil {
			err = runCheck(ctx, s.cfg.CheckCommand, copied, true)
		}
		return errors.Join(err, removeIfThere(copied))
	}
	for _, step := range walks() {
		var from []byte
		for {
			err := s.read(func(b buckets, _ uint64) (err error) {
				from, err = step(ctx, b, from, checkChunk)
				return err
			})
			if err != nil {
				return err
			}
			if from == nil {
				break
			}
		}
	}
	return nil
}

// backgroundCheck is what follows a start after an unclean stop.
func (s *Store) backgroundCheck(ctx context.Context) {
	if err := s.CheckNow(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("the check after an unclean stop found a problem", "error", err)
	}
}

// checkDir is where a copy for a check would lie.
func (s *Store) checkDir() string {
	if s.cfg.BackupDir != "" {
		return s.cfg.BackupDir
	}
	return filepath.Dir(s.cfg.Path)
}
