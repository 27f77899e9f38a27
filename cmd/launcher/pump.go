package main

import (
	"errors"
	"os"
	"sync"
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
	raw  syscall.RawConn // r's
	done chan struct{}

	mu  sync.Mutex // held from a read to the end of the write of what was read
	out *logfile.Stream
	buf []byte
}

// newPump returns a running pump and the descriptor to give to the command.
func newPump(out *logfile.Stream) (*pump, int, error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return nil, 0, os.NewSyscallError("pipe", err)
	}
	// Only our end does not block.
	err := syscall.SetNonblock(fds[0], true)
	p := &pump{r: os.NewFile(uintptr(fds[0]), "output"), out: out, done: make(chan struct{}), buf: make([]byte, pumpBuffer)}
	if err == nil {
		p.raw, err = p.r.SyscallConn()
	}
	if err != nil {
		_ = p.r.Close()
		_ = syscall.Close(fds[1])
		return nil, 0, os.NewSyscallError("pipe", err)
	}
	go p.run()
	return p, fds[1], nil
}

func (p *pump) run() {
	defer close(p.done)
	defer p.r.Close()
	timed := false
	for {
		ended := false
		err := p.raw.Read(func(fd uintptr) bool {
			n, err := p.move(int(fd))
			ended = n == 0 && err == nil || err != nil && !errors.Is(err, syscall.EAGAIN)
			return !errors.Is(err, syscall.EAGAIN)
		})
		now := time.Now()
		if ended || err != nil {
			p.flush(now)
			if ended || !errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
		}
		if p.pending() {
			timed = p.r.SetReadDeadline(now.Add(flushAfter)) == nil
		} else if timed {
			timed = p.r.SetReadDeadline(time.Time{}) != nil
		}
	}
}

// move takes what is in the pipe, at most a buffer of it, to the log.
func (p *pump) move(fd int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		n, err := syscall.Read(fd, p.buf)
		if err == syscall.EINTR {
			continue
		}
		if n > 0 {
			p.out.Write(time.Now(), p.buf[:n])
		}
		return n, err
	}
}

func (p *pump) flush(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.Flush(now)
}

func (p *pump) pending() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Pending()
}

// catchUp returns when what was in the pipe is in the log.
func (p *pump) catchUp() {
	_ = p.raw.Control(func(fd uintptr) { // an error is a pump that has ended
		for range 16 { // whoever writes on and on is not waited for
			if n, err := p.move(int(fd)); n <= 0 || err != nil {
				break
			}
		}
	})
	p.flush(time.Now())
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
