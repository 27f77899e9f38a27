package store

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"time"
)

// Defaults of Config.
const (
	// DefaultLogRevisions is hours of a busy engine, or a day of a quiet one:
	// a client that comes back later lists again, which costs it one page a
	// thousand objects.
	DefaultLogRevisions = 100_000
	// DefaultLogBytes bounds the change log where objects are large.
	DefaultLogBytes = 64 << 20
	// DefaultLockTimeout leaves a daemon that is just ending the time to let go.
	DefaultLockTimeout = time.Second
	// DefaultBackupInterval loses at most an hour to a broken disk.
	DefaultBackupInterval = time.Hour
	// DefaultBackupKeep goes back three intervals, since damage may be noticed late.
	DefaultBackupKeep = 3
	// MaxObjectBytes is the most one object may take as JSON. A compiled
	// pipeline of thousands of tasks takes about 2 MiB.
	MaxObjectBytes = 8 << 20
)

// Config says where a store is and what it holds. Path and Kinds are required;
// the zero value of the rest is the default.
type Config struct {
	// Path is the file. It is created where it does not exist, with its folder
	// (mode 0700).
	Path string
	// Kinds are all kinds of object that the store will be asked for.
	Kinds []Kind
	// KeyPath is the key file of sealed kinds, made (mode 0600) where there is
	// none and nothing was sealed yet; empty means KeyFile beside Path. Backups
	// hold sealed objects, and never the key: without it they do not open.
	KeyPath string
	// Logger receives what an administrator should see; nil discards.
	Logger *slog.Logger

	// LogRevisions and LogBytes bound the change log, whichever is reached first.
	LogRevisions int
	LogBytes     int64
	// LockTimeout is how long Open waits for another process to let go of the file.
	LockTimeout time.Duration

	// CheckCommand is the argv prefix of a program that calls CheckMain with
	// what follows. Open runs it before it touches the file, since a damaged
	// file can end the process that maps it. Empty skips that check.
	CheckCommand []string

	// BackupDir, where set, receives a hot backup each BackupInterval in which
	// something changed; the newest BackupKeep are kept.
	BackupDir      string
	BackupInterval time.Duration
	BackupKeep     int

	// BeforeSync, where set, is called by the committer before each durable
	// write: benchmarks inject a slow disk there, tests a crash.
	BeforeSync func()
	// Now is the clock for timestamps; nil is time.Now.
	Now func() time.Time
}

// withDefaults fills the zero values in and refuses what cannot work.
func (c Config) withDefaults() (Config, error) {
	if c.Path == "" {
		return c, fmt.Errorf("open store: no path given: %w", ErrInvalid)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.KeyPath == "" {
		c.KeyPath = filepath.Join(filepath.Dir(c.Path), KeyFile)
	}
	setDefault(&c.LogRevisions, DefaultLogRevisions)
	setDefault(&c.LogBytes, DefaultLogBytes)
	setDefault(&c.LockTimeout, DefaultLockTimeout)
	setDefault(&c.BackupInterval, DefaultBackupInterval)
	setDefault(&c.BackupKeep, DefaultBackupKeep)
	return c, nil
}

func setDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}
