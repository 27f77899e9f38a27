package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// restoreLeap is added to the revision of a restored store: revisions that were
// given out after the backup was made must not come again with other contents.
const restoreLeap = 1 << 32

// RestoreConfig says what to put where.
type RestoreConfig struct {
	// Backup is a file that Backup wrote. It is only read.
	Backup string
	// Path is where the store shall be.
	Path string
	// Replace allows a store to be at Path; it is moved aside, not deleted.
	Replace bool
	// Kinds and KeyPath are as in Config. Where the backup holds objects of
	// sealed kinds, the key they were sealed with must be there: ErrKey otherwise.
	Kinds   []Kind
	KeyPath string
	// WithoutSealed leaves the objects of sealed kinds out: the way on where
	// their key is lost.
	WithoutSealed bool
	// CheckCommand is as in Config; empty runs the check in this process.
	CheckCommand []string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Restore verifies a backup in full and puts it in place. A store that is there
// already is ErrExists, or is moved aside with Replace: kept is its new path.
// ErrLocked where a process has it open. Watchers that come back get ErrGone,
// since the change log begins anew.
func Restore(ctx context.Context, cfg RestoreConfig) (kept string, err error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.KeyPath == "" {
		cfg.KeyPath = filepath.Join(filepath.Dir(cfg.Path), KeyFile)
	}
	if err := verify(ctx, cfg); err != nil {
		return "", fmt.Errorf("restore: the backup cannot be used: %w", err)
	}
	if _, err := os.Lstat(cfg.Path); err == nil && !cfg.Replace {
		return "", fmt.Errorf("restore: there is a store at %s: %w", cfg.Path, ErrExists)
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	staged := fmt.Sprintf("%s.restore-%d", cfg.Path, os.Getpid())
	defer func() { err = errors.Join(err, removeIfThere(staged)) }()
	if err := copyFile(ctx, cfg.Backup, staged); err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	if err := leap(ctx, staged, cfg); err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	unlock, err := lockExisting(cfg.Path)
	if err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if cfg.Replace {
		aside := fmt.Sprintf("%s.before-restore-%s", cfg.Path, cfg.Now().UTC().Format(backupTime))
		switch err := os.Rename(cfg.Path, aside); {
		case err == nil:
			kept = aside
		case !errors.Is(err, os.ErrNotExist):
			return "", fmt.Errorf("restore: %w", err)
		}
	}
	// A link never replaces what another process put there meanwhile.
	if err := os.Link(staged, cfg.Path); err != nil {
		return kept, fmt.Errorf("restore: %w", err)
	}
	return kept, syncDir(filepath.Dir(cfg.Path))
}

func verify(ctx context.Context, cfg RestoreConfig) error {
	if len(cfg.CheckCommand) > 0 {
		return runCheck(ctx, cfg.CheckCommand, cfg.Backup, true)
	}
	return Check(ctx, cfg.Backup, true)
}

func copyFile(ctx context.Context, from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return writeFileDurably(to, func(f *os.File) error {
		_, err := io.Copy(contextWriter{ctx: ctx, w: f}, in)
		return err
	})
}

// leap lifts the staged file to this schema, moves its revision on and empties
// its change log.
func leap(ctx context.Context, path string, cfg RestoreConfig) error {
	db, err := openBolt(path, DefaultLockTimeout, false)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	err = migrate(ctx, db, Config{Path: path, Now: cfg.Now, Logger: log})
	if err == nil {
		err = guard(func() error { return db.Update(func(tx *bolt.Tx) error { return leapTx(tx, cfg) }) })
	}
	return errors.Join(err, db.Sync(), db.Close())
}

func leapTx(tx *bolt.Tx, cfg RestoreConfig) error {
	b, err := bucketsOf(tx)
	if err != nil {
		return err
	}
	st, err := parseState(b.meta.Get([]byte(metaState)))
	if err != nil {
		return err
	}
	if err := tx.DeleteBucket(bucketLog()); err != nil {
		return err
	}
	if _, err := tx.CreateBucket(bucketLog()); err != nil {
		return err
	}
	if err := settleSealed(b, cfg); err != nil {
		return err
	}
	note := fmt.Sprintf("restored %s from %s at revision %d", cfg.Now().UTC().Format(time.RFC3339), filepath.Base(cfg.Backup), st.revision)
	st.revision += restoreLeap
	st.compacted, st.logBytes = st.revision, 0
	for key, value := range map[string][]byte{metaState: st.encode(), metaClean: []byte("1"), metaChanged: []byte(note)} {
		if err := b.meta.Put([]byte(key), value); err != nil {
			return err
		}
	}
	return nil
}

// lockExisting takes the lock that an open store holds on its file. No file is
// no lock.
func lockExisting(path string) (unlock func() error, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %s has it open; stop it first: %w", path, owner(path), ErrLocked), f.Close())
	}
	return f.Close, nil
}

// freeBytes is what an ordinary user can still write to the file system of dir.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("look for room in %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}
