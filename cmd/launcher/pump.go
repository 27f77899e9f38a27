package main

import (
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch/logfile"
)

// flushAfter is how long an unfinished line is held back: a prompt or a
// progress bar shows at once, and lines written in pieces stay whole.
const flushAfter = 250 * time.Millisecond

// drainFor is how long the pipes are read after everything was reaped. Only a
// process outside the container that was handed a pipe can make it last so long.
const drainFor = 5 * time.Second

// pumpBuffer is a pipe's default capacity.
const pumpBuffer = 64 << 10

// pump moves one of the command's outputs into the log.
type pump struct {
	r    *os.File
	out  *logfile.Stream
	done chan struct{}
}

// newPump returns a running pump and the descriptor to give to the command.
func newPump(out *logfile.Stream) (*pump, int, error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return nil, 0, os.NewSyscallError("pipe", err)
	}
	// Only our end does not block.
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		return nil, 0, os.NewSyscallError("pipe", err)
	}
	p := &pump{r: os.NewFile(uintptr(fds[0]), "output"), out: out, done: make(chan struct{})}
	go p.run()
	return p, fds[1], nil
}

func (p *pump) run() {
	defer close(p.done)
	defer p.r.Close()
	buf := make([]byte, pumpBuffer)
	timed := false
	for {
		n, err := p.r.Read(buf)
		now := time.Now()
		if n > 0 {
			p.out.Write(now, buf[:n])
		}
		if err != nil {
			p.out.Flush(now)
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
		}
		if p.out.Pending() {
			timed = p.r.SetReadDeadline(now.Add(flushAfter)) == nil
		} else if timed {
			timed = p.r.SetReadDeadline(time.Time{}) != nil
		}
	}
}

// drain waits until all that was written is in the log.
func (p *pump) drain() {
	select {
	case <-p.done:
	case <-time.After(drainFor):
		_ = p.r.Close() // run then returns
		<-p.done
	}
}
