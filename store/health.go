package store

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// Health is what is known of the store's file. All times are the configured clock's.
type Health struct {
	// Writable is false while commits fail; Problem says why and what to do.
	Writable bool
	Problem  string
	// ClosedInOrder is whether the last process to have the file open closed
	// it; where not, a full check runs in the background.
	ClosedInOrder bool
	// Check is the newest full check of this process's life.
	Check CheckResult
	// Backup is the newest backup attempt of this process's life.
	Backup BackupResult
	// Damage is the first damaged value met while reading; empty for none.
	Damage string
}

// CheckResult is the outcome of a full check.
type CheckResult struct {
	// Running is true while one is on its way.
	Running  bool
	Finished time.Time
	// Problem is empty where all was sound.
	Problem string
}

// BackupResult is the outcome of a backup.
type BackupResult struct {
	Finished time.Time
	// Path is the file; empty where the backup failed.
	Path     string
	Revision uint64
	Problem  string
}

// health collects Health. The write error that it holds decides whether the
// committer goes on: a full disk may have room again at the next commit, but
// after a failed sync nothing is known of what the disk holds.
type health struct {
	mu    sync.Mutex
	store *Store
	now   Health
	// fatal ends all writing until the store is opened anew.
	fatal error
	full  bool
}

func (h *health) open(s *Store, clean bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.store = s
	h.now = Health{Writable: true, ClosedInOrder: clean}
}

// Health returns a copy of what is known.
func (s *Store) Health() Health {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	return s.health.now
}

// writable is nil, or why nothing more will be written.
func (h *health) writable() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fatal
}

// writeFailed notes a failed commit. All but a full disk is fatal.
func (h *health) writeFailed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fatal != nil {
		return
	}
	h.now.Writable = false
	if isFull(err) {
		h.now.Problem = fmt.Sprintf("the disk is full (%v); make room, writing then goes on by itself", err)
		if !h.full {
			h.store.log.Error("the disk is full: nothing can be written, reading goes on", "error", err)
		}
		h.full = true
		return
	}
	h.fatal = fmt.Errorf("the store stopped writing after a failed write; restart skiff, which checks the file: %w", err)
	h.now.Problem = h.fatal.Error()
	h.store.log.Error("a write failed: nothing more is written until a restart", "error", err)
	h.store.durable.fail(h.fatal)
}

func (h *health) wrote() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.full {
		h.store.log.Info("the disk has room again")
	}
	h.full = false
	h.now.Writable, h.now.Problem = true, ""
}

// damaged notes the first damage that a reader met.
func (h *health) damaged(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now.Damage == "" && errors.Is(err, ErrCorrupt) && h.store != nil {
		h.now.Damage = err.Error()
		h.store.log.Error("damage found in the store", "error", err)
	}
}

func (h *health) checking() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now.Check.Running = true
}

func (h *health) checked(at time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now.Check = CheckResult{Finished: at}
	if err != nil {
		h.now.Check.Problem = err.Error()
	}
}

func (h *health) backedUp(r BackupResult) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now.Backup = r
}
