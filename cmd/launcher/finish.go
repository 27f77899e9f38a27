package main

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// finish reads what the command left, writes the record, and tells everybody.
func (l *launcher) finish() (code int, recorded bool) {
	for c := range l.conns {
		if c.exec != 0 {
			c.exec = 0
			c.send(launch.Frame{Execed: &launch.Execed{ExitCode: 128 + int(syscall.SIGKILL)}})
		}
	}
	r := &l.record
	r.Version = launch.Version
	if r.FinishedAt.IsZero() {
		r.FinishedAt = time.Now().UTC()
	}
	for _, p := range l.pumps {
		p.drain()
	}
	if l.logs != nil {
		written, dropped, err := l.logs.Totals()
		if err2 := l.logs.Close(); err == nil {
			err = err2
		}
		r.LogBytes, r.LogDropped = written, dropped
		if err != nil && r.Message == "" {
			r.Message = fmt.Sprintf("part of the log is lost: %v", err)
		}
	}
	if l.cmd != nil {
		r.CommandID = l.cmd.ID
		l.as(func() {
			r.Outputs, r.OutputErrors = readOutputs(l.cmd.Outputs)
			if r.ExitCode == 0 && l.cmd.Collect != nil {
				r.OutputErrors = collect(*l.cmd.Collect, r.OutputErrors)
			}
		})
	}
	data, err := json.Marshal(r)
	if err == nil {
		err = l.close(data)
	}
	if err != nil {
		// The daemon will see a launcher that died without a record.
		return refuse(err), false
	}
	l.phase = launch.PhaseExited
	var all sync.WaitGroup
	var heard atomic.Bool
	for c := range l.conns {
		all.Go(func() {
			if c.send(launch.Frame{Exited: r}) {
				heard.Store(true)
			}
		})
	}
	all.Wait()
	if !heard.Load() {
		// Whoever hears of the end makes it durable where it counts. Where nobody
		// does, the file has to outlive a power loss; until then the lock is held, so
		// nobody takes the record for one.
		if err := l.folder.sync(launch.ExitFile); err != nil {
			return refuse(err), false
		}
	}
	return r.ExitCode, true
}

// close writes the exit record behind what the lock says of the start, and makes
// the lock the record. A lock that the command has taken away gets a new file: of
// the two, the launcher has the last word.
func (l *launcher) close(record []byte) error {
	if !l.lockIsOurs() {
		return l.folder.replace(launch.ExitFile, record)
	}
	// Nothing else runs any more, so what a command wrote here goes, and stays away.
	// At every moment the file says at least what it said before.
	_, err := syscall.Pwrite(int(l.lock), l.told, 0)
	if err == nil {
		err = syscall.Ftruncate(int(l.lock), int64(len(l.told)))
	}
	if err == nil {
		_, err = syscall.Pwrite(int(l.lock), append(record, '\n'), int64(len(l.told)))
	}
	if err == nil && l.folder.mayGive() {
		_ = syscall.Fchown(int(l.lock), l.folder.uid, l.folder.gid) // as in newFile
	}
	if err == nil {
		err = syscall.Renameat(l.folder.fd, launch.LockFile, l.folder.fd, launch.ExitFile)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", launch.ExitFile, err)
	}
	return nil
}

// lockIsOurs says whether the lock's name, and only that, leads to the file that
// this launcher holds.
func (l *launcher) lockIsOurs() bool {
	var named, held syscall.Stat_t
	return syscall.Lstat(launch.LockFile, &named) == nil && syscall.Fstat(int(l.lock), &held) == nil &&
		named.Dev == held.Dev && named.Ino == held.Ino && held.Nlink == 1
}

// cannotRun makes the record of a command that was never executed.
func (l *launcher) cannotRun(code int, message string) {
	l.record.ExitCode = code
	l.record.Reason = launch.ReasonCannotRun
	l.record.Message = message
	l.record.FinishedAt = time.Now().UTC()
}
