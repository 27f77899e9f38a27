package process

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
)

// outputMargin is how long output is still read after an exec has ended: what
// it left in the background may hold the pipes for ever.
const outputMargin = time.Second

// Exec has the launcher start a command beside its own: it is then in the same
// namespaces, control groups and restrictions by birth.
func (b *Backend) Exec(ctx context.Context, id string, req runtime.ExecRequest) (int, error) {
	c, err := b.find(id)
	if err != nil {
		return 0, err
	}
	if s := c.now().State; s != runtime.StateRunning && s != runtime.StateWaiting {
		return 0, fmt.Errorf("exec in %s: it is %s", id, s)
	}
	conn, err := b.host.Connect(ctx, c.control)
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", id, err)
	}
	defer conn.Close()
	open := openPipes
	if req.TTY {
		open = openTerminal
	}
	s, err := open(req)
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", id, err)
	}
	defer s.close()
	err = conn.SendExec(launch.Exec{Argv: req.Argv, Env: slices.Concat(req.Env, c.deviceEnv()), Dir: req.Dir, TTY: req.TTY},
		s.theirs[0], s.theirs[1], s.theirs[2])
	s.handedOver()
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", id, err)
	}
	s.copy(req)
	for {
		f, err := conn.Next()
		switch {
		case ctx.Err() != nil:
			return 0, fmt.Errorf("exec in %s: %w", id, context.Cause(ctx))
		case err != nil:
			return 0, fmt.Errorf("exec in %s: it ended meanwhile: %w", id, err)
		case f.Error != "":
			return 0, fmt.Errorf("exec in %s: %s", id, f.Error)
		case f.Execed == nil:
			continue
		}
		s.drain()
		if f.Execed.Message != "" && req.Stderr != nil {
			_, _ = io.WriteString(req.Stderr, f.Execed.Message+"\n") // as an engine does
		}
		return f.Execed.ExitCode, nil
	}
}

// streams are the two sides of an exec's standard streams.
type streams struct {
	theirs  [3]*os.File
	in      *os.File // where what is typed goes; nil for none
	outs    []*os.File
	sinks   []io.Writer
	master  *os.File // of a terminal
	stop    chan struct{}
	readers sync.WaitGroup
}

func openPipes(req runtime.ExecRequest) (*streams, error) {
	s := &streams{stop: make(chan struct{})}
	var err error
	if req.Stdin == nil {
		s.theirs[0], err = os.Open(os.DevNull)
	} else {
		s.theirs[0], s.in, err = os.Pipe()
	}
	for i, sink := range []io.Writer{req.Stdout, req.Stderr} {
		if err != nil {
			break
		}
		if sink == nil {
			sink = io.Discard
		}
		var r *os.File
		r, s.theirs[i+1], err = os.Pipe()
		s.outs, s.sinks = append(s.outs, r), append(s.sinks, sink)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// openTerminal makes a pseudo-terminal: one end for the command's three
// streams, the other for us.
func openTerminal(req runtime.ExecRequest) (*streams, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	s := &streams{stop: make(chan struct{}), master: master, in: master, outs: []*os.File{master}}
	s.sinks = []io.Writer{req.Stdout}
	if req.Stdout == nil {
		s.sinks[0] = io.Discard
	}
	raw, err := master.SyscallConn()
	if err != nil {
		s.close()
		return nil, err
	}
	number := 0
	var ioctlErr error
	err = raw.Control(func(fd uintptr) {
		if ioctlErr = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); ioctlErr == nil {
			number, ioctlErr = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err == nil {
		err = ioctlErr
	}
	if err == nil {
		s.theirs[0], err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	s.theirs[1], s.theirs[2] = s.theirs[0], s.theirs[0]
	return s, nil
}

// handedOver closes our copies of what the launcher was given.
func (s *streams) handedOver() {
	for _, f := range s.theirs {
		if f != nil {
			_ = f.Close() // a terminal's is closed thrice, once with effect
		}
	}
}

// copy moves the streams until the command has ended.
func (s *streams) copy(req runtime.ExecRequest) {
	for i, r := range s.outs {
		s.readers.Go(func() { _, _ = io.Copy(s.sinks[i], r) }) // a terminal ends with an error
	}
	if s.in != nil && req.Stdin != nil {
		// Not waited for: only its owner can end a read from req.Stdin.
		go func() {
			_, _ = io.Copy(s.in, req.Stdin)
			if s.master == nil {
				_ = s.in.Close() // the command reads the end
			}
		}()
	}
	if s.master != nil && req.Resize != nil {
		s.readers.Go(func() { s.resize(req.Resize) })
	}
}

// resize carries the terminal's sizes.
func (s *streams) resize(sizes <-chan runtime.TerminalSize) {
	raw, err := s.master.SyscallConn()
	if err != nil {
		return
	}
	for {
		select {
		case <-s.stop:
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			_ = raw.Control(func(fd uintptr) {
				_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
			})
		}
	}
}

// drain reads what the command has written.
func (s *streams) drain() {
	close(s.stop)
	for _, r := range s.outs {
		_ = r.SetReadDeadline(time.Now().Add(outputMargin))
	}
	s.readers.Wait()
}

func (s *streams) close() {
	s.handedOver()
	for _, f := range s.outs {
		if f != nil {
			_ = f.Close()
		}
	}
	if s.in != nil && s.master == nil {
		_ = s.in.Close()
	}
}
