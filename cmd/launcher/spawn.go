package main

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"syscall"
)

// program is one execution, fully resolved.
type program struct {
	path  string
	argv  []string
	env   []string
	dir   string
	files []int
	who   *identity
	tty   bool
}

// spawner forks from one thread that lives as long as the launcher: what a
// child inherits from a thread (bounding set, no-new-privileges) is given up
// there, and the signal that tells a child of its parent's death is tied to it.
type spawner struct{ jobs chan func() }

// newSpawner starts the thread; restricted ones first give up what a command
// must not have.
func newSpawner(restricted bool) *spawner {
	s := &spawner{jobs: make(chan func())}
	go func() {
		runtime.LockOSThread()
		if restricted {
			restrict()
		}
		for job := range s.jobs {
			job()
		}
	}()
	return s
}

// oomRaise is how much sooner than the launcher the kernel ends the command.
const oomRaise = 500

const oomFile = "/proc/self/oom_score_adj"

// fork starts p. The launcher takes the child's OOM score for the instant of
// the fork, so that there is no moment in which the command has not got it.
func (s *spawner) fork(p program) (pid int, err error) {
	attr := &syscall.ProcAttr{Dir: p.dir, Env: p.env, Sys: &syscall.SysProcAttr{
		Setsid: true, Setctty: p.tty, Pdeathsig: syscall.SIGKILL,
	}}
	for _, fd := range p.files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	if p.who != nil {
		attr.Sys.Credential = &syscall.Credential{
			Uid: uint32(p.who.uid), Gid: uint32(p.who.gid), Groups: p.who.groups,
		}
	}
	done := make(chan struct{})
	s.jobs <- func() {
		defer close(done)
		own, readErr := os.ReadFile(oomFile)
		own = bytes.TrimSpace(own)
		if n, err := strconv.Atoi(string(own)); err == nil && readErr == nil {
			raised := strconv.Itoa(min(n+oomRaise, 1000))
			if os.WriteFile(oomFile, []byte(raised), 0) == nil {
				defer os.WriteFile(oomFile, own, 0) //nolint:errcheck // Then the launcher keeps the command's score.
			}
		}
		pid, err = syscall.ForkExec(p.path, p.argv, attr)
	}
	<-done
	return pid, err
}
