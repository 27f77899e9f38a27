package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

// migration lifts a file from one schema version to the next, within one
// transaction: a process killed in it leaves the old layout whole.
type migration struct {
	from int
	run  func(tx *bolt.Tx) error
}

// migrations are all steps, oldest first. A step is never changed once it has
// been released: the next layout adds one.
func migrations() []migration {
	return []migration{
		{from: 0, run: migrateChecksums},
	}
}

// migrate brings the file to SchemaVersion, after a copy of it as it was. A
// file of a newer version is ErrNewer.
func migrate(ctx context.Context, db *bolt.DB, cfg Config) error {
	var version int
	err := guard(func() error {
		return db.View(func(tx *bolt.Tx) (err error) {
			version, err = readSchema(tx)
			return err
		})
	})
	switch {
	case err != nil:
		return err
	case version > SchemaVersion:
		return fmt.Errorf("its schema has version %d, this skiff knows versions up to %d: run the newer skiff, or restore the copy that it made before it changed the file (%s.schema-%d.*): %w",
			version, SchemaVersion, cfg.Path, SchemaVersion, ErrNewer)
	case version == SchemaVersion:
		return nil
	}
	saved, err := saveBefore(ctx, db, cfg, version)
	if err != nil {
		return fmt.Errorf("copy the store before migrating it: %w", err)
	}
	for _, m := range migrations() {
		if m.from < version {
			continue
		}
		err := guard(func() error {
			return db.Update(func(tx *bolt.Tx) error {
				if err := m.run(tx); err != nil {
					return err
				}
				return tx.Bucket(bucketMeta()).Put([]byte(metaSchema), []byte(strconv.Itoa(m.from+1)))
			})
		})
		if err != nil {
			return fmt.Errorf("migrate from schema version %d (the file as it was is in %s): %w", m.from, saved, err)
		}
		cfg.Logger.Info("migrated the store", "from", m.from, "to", m.from+1, "copy", saved)
	}
	return nil
}

// saveBefore copies the file to where an older skiff can be pointed at.
func saveBefore(ctx context.Context, db *bolt.DB, cfg Config, version int) (string, error) {
	path := fmt.Sprintf("%s.schema-%d.%s", cfg.Path, version, cfg.Now().UTC().Format(backupTime))
	err := writeFileDurably(path, func(f *os.File) error {
		return db.View(func(tx *bolt.Tx) error {
			_, err := tx.WriteTo(contextWriter{ctx: ctx, w: f})
			return err
		})
	})
	return path, err
}

// writeFileDurably makes a file appear at path whole and synced, or not at all.
func writeFileDurably(path string, fill func(f *os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, removeIfThere(f.Name())) }()
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// migrateChecksums lifts version 0: values were bare JSON with the
// resourceVersion in it, there were no indexes and no change log, and the
// revision was eight bytes of its own.
func migrateChecksums(tx *bolt.Tx) error {
	meta, objects := tx.Bucket(bucketMeta()), tx.Bucket(bucketObjects())
	if meta == nil || objects == nil {
		return fmt.Errorf("a bucket is missing: %w", ErrCorrupt)
	}
	for _, name := range [][]byte{bucketIndexes(), bucketLog()} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	revision, err := strconv.ParseUint(string(meta.Get([]byte("revision"))), 10, 64)
	if err != nil {
		return fmt.Errorf("the revision %q is not a number: %w", meta.Get([]byte("revision")), ErrCorrupt)
	}
	var keys [][]byte
	if err := objects.ForEach(func(k, _ []byte) error {
		keys = append(keys, bytes.Clone(k))
		return nil
	}); err != nil {
		return fmt.Errorf("read the objects: %w", err)
	}
	for _, key := range keys {
		data, version, err := cutResourceVersion(objects.Get(key))
		if err != nil {
			return corrupt(string(key), "%v", err)
		}
		value := newRecord(nil, data)
		sealRecord(value, string(key), version)
		if err := objects.Put(key, value); err != nil {
			return fmt.Errorf("write %q: %w", key, err)
		}
		revision = max(revision, version)
	}
	if err := meta.Delete([]byte("revision")); err != nil {
		return fmt.Errorf("write meta: %w", err)
	}
	// The log is empty, so every watch begins with a list.
	revision++
	if err := meta.Put([]byte(metaState), state{revision: revision, compacted: revision}.encode()); err != nil {
		return fmt.Errorf("write meta: %w", err)
	}
	return nil
}

// cutResourceVersion takes metadata.resourceVersion out of an object's JSON.
func cutResourceVersion(data []byte) (rest []byte, version uint64, err error) {
	metadata, ok := topLevel(data)
	if metadata == nil || !ok {
		return nil, 0, errors.New("the value is not an object with metadata")
	}
	out := []byte{'{'}
	at, found := 0, false
	for {
		name, value, next, more := nextField(metadata, at)
		if !more {
			break
		}
		at = next
		if string(name) == "resourceVersion" {
			if version, err = strconv.ParseUint(string(bytes.Trim(value, `"`)), 10, 64); err != nil {
				return nil, 0, fmt.Errorf("its resourceVersion: %w", err)
			}
			found = true
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, '"'), name...), '"', ':')
		out = append(out, value...)
	}
	if !found {
		return nil, 0, errors.New("it has no resourceVersion")
	}
	start := bytes.Index(data, metadata)
	rest = append(bytes.Clone(data[:start]), append(out, '}')...)
	return append(rest, data[start+len(metadata):]...), version, nil
}
