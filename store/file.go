package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// initialMmap is address space, not memory. bbolt must stop all readers to map
// a file that outgrew its mapping, so the mapping is made large at once.
const initialMmap = 4 << 30

// smallestFile is two metas, a freelist and a root, of the smallest pages.
const smallestFile = 4 * 4096

// growBy is how much the file grows at a time. Each growth costs a sync of its
// own; the space is not taken from the disk before it is used.
const growBy = 64 << 20

// openBolt opens the file. Of another process's hold on it the error tells the
// process. The file must exist: bbolt would take an empty one for a new one.
func openBolt(path string, timeout time.Duration, readOnly bool) (db *bolt.DB, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if info.Size() < smallestFile {
		return nil, fmt.Errorf("open store %s: the file has only %d bytes: %w", path, info.Size(), ErrCorrupt)
	}
	opts := &bolt.Options{
		Timeout: timeout, ReadOnly: readOnly,
		FreelistType: bolt.FreelistMapType,
	}
	if !readOnly && strconv.IntSize == 64 {
		opts.InitialMmapSize = initialMmap
	}
	err = guard(func() error {
		db, err = bolt.Open(path, 0o600, opts)
		return err
	})
	switch {
	case err == nil:
		db.AllocSize = growBy
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("open store %s: %s has it open: %w", path, owner(path), ErrLocked)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, fmt.Errorf("open store %s: %w: %w", path, ErrCorrupt, err)
	default:
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	if err := checkSize(db, info.Size()); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), db.Close())
	}
	return db, nil
}

// checkSize finds a truncated file before anything reads beyond its end.
func checkSize(db *bolt.DB, size int64) error {
	return guard(func() error {
		return db.View(func(tx *bolt.Tx) error {
			if tx.Size() > size {
				return fmt.Errorf("the file is cut off: %d of at least %d bytes are there: %w", size, tx.Size(), ErrCorrupt)
			}
			return nil
		})
	})
}

// owner describes the process that has the file open, as far as it noted itself.
func owner(path string) string {
	data, err := os.ReadFile(ownerFile(path))
	pid, perr := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || perr != nil {
		return "another process"
	}
	return fmt.Sprintf("process %d", pid)
}

// ensureFile creates the file where there is none, and otherwise has it checked
// by a process that may die of it.
func ensureFile(ctx context.Context, cfg Config) error {
	_, err := os.Stat(cfg.Path)
	if err == nil {
		return bootCheck(ctx, cfg)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open store: %w", err)
	}
	if newest := newestBackup(cfg.BackupDir); newest != "" {
		return fmt.Errorf("open store %s: the file is gone, but there is a backup, %s: restore it (skiff restore), or move the backups away to begin with an empty store: %w",
			cfg.Path, newest, ErrCorrupt)
	}
	return createFile(cfg.Path)
}

// createFile makes an empty store beside its place and moves it there in one
// step: a power cut in the middle leaves no file, not half of one.
func createFile(path string) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return fmt.Errorf("create store %s: %w", path, err)
	}
	temporary := fmt.Sprintf("%s.new-%s", path, id)
	defer func() { err = errors.Join(err, removeIfThere(temporary)) }()
	db, err := bolt.Open(temporary, 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType})
	if err != nil {
		return fmt.Errorf("create store %s: %w", path, err)
	}
	err = db.Update(func(tx *bolt.Tx) error { return initialize(tx, id.String()) })
	if err = errors.Join(err, db.Sync(), db.Close()); err != nil {
		return fmt.Errorf("create store %s: %w", path, err)
	}
	// A link, unlike a rename, never replaces what another process just made.
	if err := os.Link(temporary, path); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("create store: %w", err)
	}
	return syncDir(dir)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir makes a folder's entries durable.
func syncDir(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}
