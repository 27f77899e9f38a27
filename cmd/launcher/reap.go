package main

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

// death is a child that has ended, or, with pid 0, that there are none left.
type death struct {
	pid    int
	status syscall.WaitStatus
	used   syscall.Rusage // with what its own children used that it waited for
}

// await has every child waited for. Orphans become children of the launcher, so
// this reaps zombies too.
func (b *base) await() {
	if b.awaiting {
		return
	}
	b.awaiting = true
	go func() {
		for {
			var d death
			pid, err := syscall.Wait4(-1, &d.status, 0, &d.used)
			if err == syscall.EINTR {
				continue
			}
			if err == nil {
				d.pid = pid
			}
			b.deaths <- d
			if err != nil {
				return
			}
		}
	}()
}

// died takes note of a death.
func (l *launcher) died(d death) {
	if d.pid != 0 {
		l.reaped(d.pid, d.status, d.used)
		return
	}
	l.awaiting = false
	if l.pid != 0 || len(l.execs) > 0 {
		l.await() // one was started just after there had been none
	}
}

// sweep ends everything that is left, and says whether nothing is: only then may
// the record say so. It takes as long as the kernel does: a process that cannot
// die keeps the record back.
func (l *launcher) sweep() bool {
	if !hasChildren() && (os.Getpid() != 1 || alone()) {
		return true
	}
	l.sweeping = true
	l.await()
	if l.sweeper == nil {
		killAll()
		// Again after a while: some may have been born during the killing, and
		// what entered from outside is reaped by a parent of its own.
		l.pause = min(max(2*l.pause, time.Millisecond), 50*time.Millisecond)
		l.sweeper = time.After(l.pause)
	}
	return false
}

// hasChildren asks without reaping any.
func hasChildren() bool {
	var info [128]byte // siginfo_t
	_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, 0 /* P_ALL */, 0, uintptr(unsafe.Pointer(&info)),
		syscall.WEXITED|syscall.WNOHANG|syscall.WNOWAIT, 0, 0)
	return errno != syscall.ECHILD
}
