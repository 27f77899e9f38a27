package store

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

const (
	// trimSpare lets a commit remove a little more than it adds, so that a log
	// whose bound was lowered shrinks over time and no commit pays for it.
	trimSpare = 64
	// logChunk is how many rows one read transaction of the change log visits.
	logChunk = 2000
)

// trimLog removes the oldest revisions beyond the configured bounds, at most a
// little more than were added.
func trimLog(log *bolt.Bucket, next *state, cfg Config, added int) error {
	cursor := log.Cursor()
	var rows [][]byte
	row, value := cursor.First()
	for row != nil && len(rows) < 2*added+trimSpare {
		revision := binary.BigEndian.Uint64(row)
		over := next.revision-next.compacted > uint64(cfg.LogRevisions) || next.logBytes > cfg.LogBytes
		if !over || revision >= next.revision {
			break
		}
		// A revision goes as a whole.
		for row != nil && binary.BigEndian.Uint64(row) == revision {
			next.logBytes -= int64(len(row) + len(value))
			rows = append(rows, append([]byte(nil), row...))
			row, value = cursor.Next()
		}
		next.compacted = revision
	}
	// Deleting while the cursor moves would make it skip rows.
	for _, row := range rows {
		if err := log.Delete(row); err != nil {
			return fmt.Errorf("trim the change log: %w", err)
		}
	}
	return nil
}

// readLog returns the wanted changes after from and up to to, until there are
// enough, and the newest revision that it has dealt with. ErrGone where the log
// has been trimmed past from meanwhile.
func (s *Store) readLog(from, to uint64, wants func(Key) bool) (entries []*entry, after uint64, err error) {
	after = from
	err = s.read(func(b buckets, _ uint64) error {
		st, err := parseState(b.meta.Get([]byte(metaState)))
		if err != nil {
			return err
		}
		if from < st.compacted {
			return fmt.Errorf("watch from revision %d: the change log begins after %d: %w", from, st.compacted, ErrGone)
		}
		cursor := b.log.Cursor()
		visited := 0
		for row, value := cursor.Seek(logKey(from+1, 0)); row != nil; row, value = cursor.Next() {
			revision := binary.BigEndian.Uint64(row)
			if revision > to {
				break
			}
			if revision != after && (visited >= logChunk || len(entries) >= nextEvents) {
				return nil
			}
			visited++
			e, err := s.logged(row, value)
			if err != nil {
				return err
			}
			if e.kind != nil && wants(e.key) {
				e.revision = revision
				entries = append(entries, e)
			}
			after = revision
		}
		after = to
		return nil
	})
	return entries, after, err
}

// logged decodes a row of the change log; its kind is nil where that is no
// longer declared.
func (s *Store) logged(row, value []byte) (*entry, error) {
	c, err := parseChange(row, value)
	if err != nil {
		return nil, err
	}
	key, err := parseRawKey([]byte(c.rawKey))
	if err != nil {
		return nil, err
	}
	return &entry{
		event: c.event, key: key, rawKey: c.rawKey, kind: s.kinds[key.Kind],
		json: append([]byte(nil), c.json...),
	}, nil
}
