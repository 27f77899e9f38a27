package main

import (
	"bytes"
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

// oomRaise is how much sooner than the launcher the kernel ends the command.
const oomRaise = 500

const oomFile = "/proc/self/oom_score_adj"

// spawn starts p, without the privileges that a container would not have where
// restricted says so. What a child inherits from its thread is given up there;
// and the signal that tells a child of its parent's death means the thread's, so
// it must live as long: the runtime ends no thread but those that as() used.
func spawn(p program, restricted bool) (int, error) {
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
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if restricted {
		restrict()
	}
	// The launcher takes the child's score for the instant of the fork, so that
	// there is no moment in which the command has not got it.
	if own, err := readFile(oomFile); err == nil {
		own = bytes.TrimSpace(own)
		if n, err := strconv.Atoi(string(own)); err == nil {
			raised := strconv.Itoa(min(n+oomRaise, 1000))
			if writeFile(oomFile, []byte(raised)) == nil {
				defer writeFile(oomFile, own) //nolint:errcheck // Then the launcher keeps the command's score.
			}
		}
	}
	return syscall.ForkExec(p.path, p.argv, attr)
}
