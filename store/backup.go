package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// backupTime sorts as time does.
	backupTime   = "20060102T150405Z"
	backupPrefix = "skiff-"
	backupSuffix = ".db"
)

// contextWriter ends a long copy when its context does.
type contextWriter struct {
	ctx context.Context // a Writer has no other way to be told.
	w   io.Writer
}

func (c contextWriter) Write(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.w.Write(p)
}

// Backup writes a consistent copy of the store to w while it goes on working.
// The copy is a store file of its own. Space freed while it runs is not used
// again until it ends.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	_, err := s.backup(ctx, w)
	return err
}

func (s *Store) backup(ctx context.Context, w io.Writer) (revision uint64, err error) {
	if s.closed.Load() {
		return 0, ErrClosed
	}
	err = guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			b, err := bucketsOf(tx)
			if err != nil {
				return err
			}
			st, err := parseState(b.meta.Get([]byte(metaState)))
			if err != nil {
				return err
			}
			revision = st.revision
			if err := s.durable.wait(ctx, revision); err != nil {
				return err
			}
			_, err = tx.WriteTo(contextWriter{ctx: ctx, w: w})
			return err
		})
	})
	if err != nil {
		return 0, fmt.Errorf("back up store: %w", err)
	}
	return revision, nil
}

// BackupTo writes a backup file into dir, has it checked where a check command
// is configured, and removes the oldest beyond cfg.BackupKeep. It returns the
// file.
func (s *Store) BackupTo(ctx context.Context, dir string) (path string, err error) {
	s.backups.Lock()
	defer s.backups.Unlock()
	result := BackupResult{}
	defer func() {
		result.Finished = s.cfg.Now()
		if err != nil {
			result.Path, result.Problem = "", err.Error()
		}
		s.health.backedUp(result)
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("back up store: %w", err)
	}
	if err := s.roomFor(dir); err != nil {
		return "", err
	}
	copied := filepath.Join(dir, fmt.Sprintf(".copy-%d", os.Getpid()))
	defer func() { err = errors.Join(err, removeIfThere(copied)) }()
	err = writeFileDurably(copied, func(f *os.File) (err error) {
		result.Revision, err = s.backup(ctx, f)
		return err
	})
	if err != nil {
		return "", err
	}
	if err := runCheck(ctx, s.cfg.CheckCommand, copied, true); err != nil {
		return "", fmt.Errorf("the copy of the store is not sound, so the store may not be: %w", err)
	}
	path = filepath.Join(dir, fmt.Sprintf("%s%s-r%020d%s", backupPrefix, s.cfg.Now().UTC().Format(backupTime), result.Revision, backupSuffix))
	if err := os.Rename(copied, path); err != nil {
		return "", fmt.Errorf("back up store: %w", err)
	}
	result.Path = path
	return path, errors.Join(syncDir(dir), pruneBackups(dir, s.cfg.BackupKeep))
}

// roomFor refuses a copy that would leave the disk nearly full: the store
// itself needs room to go on.
func (s *Store) roomFor(dir string) error {
	info, err := os.Stat(s.cfg.Path)
	if err != nil {
		return fmt.Errorf("back up store: %w", err)
	}
	free, err := freeBytes(dir)
	if err != nil {
		return fmt.Errorf("back up store: %w", err)
	}
	if need := info.Size() + info.Size()/4; free < need {
		return fmt.Errorf("back up store: %s has %d MiB free, a copy needs %d: %w", dir, free>>20, need>>20, ErrFull)
	}
	return nil
}

// backupLoop makes a backup each interval in which something changed.
func (s *Store) backupLoop(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.BackupInterval)
	defer ticker.Stop()
	var last uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		revision := s.Revision()
		if revision == last {
			continue
		}
		path, err := s.BackupTo(ctx, s.cfg.BackupDir)
		if err != nil {
			if ctx.Err() == nil {
				s.log.Error("backup failed", "error", err)
			}
			continue
		}
		last = revision
		s.log.Debug("backed up the store", "path", path, "revision", revision)
	}
}

// backupFiles are a folder's backups, oldest first.
func backupFiles(dir string) []string {
	if dir == "" {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(dir, backupPrefix+"*"+backupSuffix))
	if err != nil {
		return nil
	}
	sort.Strings(files)
	return files
}

// newestBackup is empty where there is none.
func newestBackup(dir string) string {
	files := backupFiles(dir)
	if len(files) == 0 {
		return ""
	}
	return files[len(files)-1]
}

func pruneBackups(dir string, keep int) error {
	files := backupFiles(dir)
	for len(files) > keep {
		if err := removeIfThere(files[0]); err != nil {
			return fmt.Errorf("remove an old backup: %w", err)
		}
		files = files[1:]
	}
	return nil
}
