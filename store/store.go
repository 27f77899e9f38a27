package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sort"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
)

// Store is the one implementation of Interface. It is safe for concurrent use.
type Store struct {
	cfg   Config
	log   *slog.Logger
	db    *bolt.DB
	id    string
	kinds map[string]*kindInfo

	// durable is the newest revision that has reached the disk. Everything that
	// is reported waits for it.
	durable durable
	queue   queue
	hub     *hub
	recent  *recent // the committer's alone
	state   state   // the committer's alone, as of the last commit
	// freelistLimit is the constant, but for tests.
	freelistLimit int
	// freelistSkipped is whether commits ever went without the freelist.
	freelistSkipped bool

	health  health
	backups sync.Mutex // one backup at a time

	stop    context.CancelCauseFunc
	workers sync.WaitGroup
	closed  atomic.Bool
	closing sync.Once
}

var _ Interface = (*Store)(nil)

// kindInfo is a declared kind with what is computed from it once.
type kindInfo struct {
	Kind
	// indexes by name.
	indexes map[string]*Index
	// sealer is set where the kind is sealed, when the store is opened.
	sealer *sealer
	// apiVersion and kind are filled into objects that carry none.
	apiVersion, kind string
}

// Open opens the store at cfg.Path, creating it where there is none, checks and
// migrates it, and starts its committer and background workers, which end with
// Close. It fails with ErrLocked (another process has it; the message names the
// process), ErrCorrupt (the message names the newest backup) and ErrInvalid.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	kinds, err := declare(cfg.Kinds)
	if err != nil {
		return nil, err
	}
	if err := ensureFile(ctx, cfg); err != nil {
		return nil, err
	}
	db, err := openBolt(cfg.Path, cfg.LockTimeout, false)
	if err != nil {
		return nil, withBackupHint(err, cfg.BackupDir)
	}
	s := &Store{
		cfg: cfg, log: cfg.Logger, db: db, kinds: kinds,
		recent: newRecent(recentCapacity), freelistLimit: freelistLimit,
	}
	clean, err := s.load(ctx)
	if err != nil {
		return nil, errors.Join(withBackupHint(fmt.Errorf("open store %s: %w", cfg.Path, err), cfg.BackupDir), db.Close())
	}
	if err := writeOwner(cfg.Path); err != nil {
		s.log.Warn("cannot note who has the store open", "error", err)
	}
	s.start(clean)
	return s, nil
}

// load reads the meta rows, migrates, rebuilds indexes whose declaration
// changed, and marks the file as open. It reports whether the file was closed
// in order.
func (s *Store) load(ctx context.Context) (clean bool, err error) {
	if err := migrate(ctx, s.db, s.cfg); err != nil {
		return false, err
	}
	if err := s.openKey(); err != nil {
		return false, err
	}
	err = guard(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			b, err := bucketsOf(tx)
			if err != nil {
				return err
			}
			if s.state, err = parseState(b.meta.Get([]byte(metaState))); err != nil {
				return err
			}
			s.id = string(b.meta.Get([]byte(metaID)))
			if s.id == "" {
				return fmt.Errorf("the store has no id: %w", ErrCorrupt)
			}
			clean = string(b.meta.Get([]byte(metaClean))) == "1"
			return b.meta.Put([]byte(metaClean), []byte("0"))
		})
	})
	if err != nil {
		return false, err
	}
	if err := s.rebuildIndexes(ctx); err != nil {
		return false, err
	}
	return clean, nil
}

// start runs the goroutines that end with Close.
func (s *Store) start(clean bool) {
	s.durable.init(s.state.revision)
	s.hub = newHub(s)
	s.queue.init()
	s.recent.horizon = s.state.revision
	s.health.open(s, clean)
	// The workers' lifetime is the store's, not that of the call to Open.
	ctx, stop := context.WithCancelCause(context.Background())
	s.stop = stop
	s.workers.Go(s.commitLoop)
	if !clean {
		s.log.Warn("the store was not closed in order; checking it in the background", "path", s.cfg.Path)
		s.workers.Go(func() { s.backgroundCheck(ctx) })
	}
	if s.cfg.BackupDir != "" {
		s.workers.Go(func() { s.backupLoop(ctx) })
	}
}

// Close waits for what was committed, marks the file as closed in order and
// lets go of it. Watchers and later calls get ErrClosed. Calls after the first
// do nothing.
func (s *Store) Close() (err error) {
	s.closing.Do(func() {
		s.closed.Store(true)
		s.stop(ErrClosed)
		s.queue.close()
		s.workers.Wait()
		s.hub.close()
		s.durable.fail(ErrClosed)
		if s.health.writable() == nil {
			s.db.NoFreelistSync = false
			err = guard(func() error {
				return s.db.Update(func(tx *bolt.Tx) error {
					return tx.Bucket(bucketMeta()).Put([]byte(metaClean), []byte("1"))
				})
			})
		}
		err = errors.Join(err, s.db.Close(), removeOwner(s.cfg.Path))
		if err != nil {
			err = fmt.Errorf("close store %s: %w", s.cfg.Path, err)
		}
	})
	return err
}

// ID is the store's own, made when it was created.
func (s *Store) ID() string { return s.id }

// Revision is the newest durable revision.
func (s *Store) Revision() uint64 { return s.durable.load() }

// Path is the file.
func (s *Store) Path() string { return s.cfg.Path }

// declare checks the kinds.
func declare(kinds []Kind) (map[string]*kindInfo, error) {
	out := make(map[string]*kindInfo, len(kinds))
	for _, k := range kinds {
		key := Key{Kind: k.Name, Name: "x"}
		if err := key.validate(); err != nil || k.Name == "" || k.New == nil {
			return nil, fmt.Errorf("declare kind %q: it needs a name and New: %w", k.Name, ErrInvalid)
		}
		if out[k.Name] != nil {
			return nil, fmt.Errorf("declare kind %q: it is declared twice: %w", k.Name, ErrInvalid)
		}
		if k.Sealed && len(k.Indexes) > 0 {
			return nil, fmt.Errorf("declare kind %q: a sealed kind has no indexes, since their entries lie open: %w", k.Name, ErrInvalid)
		}
		info := &kindInfo{Kind: k, indexes: make(map[string]*Index, len(k.Indexes))}
		for i, index := range k.Indexes {
			key.Name = index.Name
			if err := key.validate(); err != nil || index.Values == nil || info.indexes[index.Name] != nil {
				return nil, fmt.Errorf("declare kind %q: index %q needs a name of its own and Values: %w", k.Name, index.Name, ErrInvalid)
			}
			info.indexes[index.Name] = &k.Indexes[i]
		}
		sample := k.New()
		info.apiVersion, info.kind = sample.Type().APIVersion, sample.Type().Kind
		sample.Metadata().Name = "x"
		data, err := json.Marshal(sample)
		if err != nil {
			return nil, fmt.Errorf("declare kind %q: %w: %w", k.Name, ErrInvalid, err)
		}
		if metadata, _ := topLevel(data); metadata == nil {
			return nil, fmt.Errorf("declare kind %q: its JSON has no metadata (embed core.ObjectMeta with the tag json:\"metadata\"): %w", k.Name, ErrInvalid)
		}
		out[k.Name] = info
	}
	return out, nil
}

func (s *Store) kind(name string) (*kindInfo, error) {
	if k := s.kinds[name]; k != nil {
		return k, nil
	}
	names := make([]string, 0, len(s.kinds))
	for n := range s.kinds {
		names = append(names, n)
	}
	sort.Strings(names)
	return nil, fmt.Errorf("kind %q is not declared (there are %q): %w", name, names, ErrInvalid)
}

// guard runs fn and turns the panics and faults that damaged pages cause into
// ErrCorrupt.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, r)
		}
	}()
	return fn()
}

// withBackupHint names the newest backup in an error about damage.
func withBackupHint(err error, backupDir string) error {
	if !errors.Is(err, ErrCorrupt) {
		return err
	}
	if newest := newestBackup(backupDir); newest != "" {
		return fmt.Errorf("%w; nothing was changed; the newest backup is %s (skiff restore puts it in place)", err, newest)
	}
	return fmt.Errorf("%w; nothing was changed, and no backup was found", err)
}

// ownerFile notes the process that has the store open.
func ownerFile(path string) string { return path + ".owner" }

func writeOwner(path string) error {
	return os.WriteFile(ownerFile(path), fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600)
}

func removeOwner(path string) error {
	if err := os.Remove(ownerFile(path)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
