package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
)

const (
	// maxTerminal bounds a terminal's sides: programs allocate by them.
	maxTerminal = 1000
	// execSettle is how long the engine is asked for the exit code of a command
	// whose output has ended; it may notice an instant later.
	execSettle = 5 * time.Second
	// resizeRetry is the pause before the engine is asked again for what it only
	// does or knows once the command has quite started.
	resizeRetry = 10 * time.Millisecond
	// codeKilled is what an exec ended by SIGKILL reports.
	codeKilled = 137
)

// Exec runs a command beside the container's own and returns its exit code.
// When ctx ends, so does the command, as far as the daemon may end it.
func (b *Backend) Exec(ctx context.Context, id string, req runtime.ExecRequest) (int, error) {
	m, err := b.meta(ctx, id)
	if err != nil {
		return 0, err
	}
	doing := "exec in container " + m.name
	if len(req.Argv) == 0 {
		return 0, fmt.Errorf("%s: no command", doing)
	}
	if b.hasEnded(m) {
		return 0, fmt.Errorf("%s: %w", doing, runtime.ErrExited)
	}
	o := dockerapi.ExecOptions{
		Argv: req.Argv, Env: req.Env, Dir: req.Dir, User: m.user,
		Stdin: req.Stdin != nil, TTY: req.TTY,
	}
	execID, err := b.api.ExecCreate(ctx, id, o)
	if dockerapi.IsConflict(err) {
		return 0, fmt.Errorf("%s: it does not run: %w", doing, err)
	}
	if err != nil {
		return 0, b.engineError(doing, err)
	}
	stream, err := b.api.ExecStart(ctx, execID, o)
	if err != nil {
		return startedExec(doing, b.engineError(doing, err))
	}
	e := &execution{b: b, id: execID, req: req, stream: stream}
	err = e.converse(ctx)
	if ctx.Err() != nil {
		e.end()
		return codeKilled, context.Cause(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	return e.code(ctx, doing)
}

// startedExec reads the engine's refusal to run a command: an exit code to who
// typed it, not a fault of the engine.
func startedExec(doing string, err error) (int, error) {
	text := err.Error()
	switch {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file"):
		return 127, fmt.Errorf("%s: %w", doing, err)
	case strings.Contains(text, "permission denied"):
		return 126, fmt.Errorf("%s: %w", doing, err)
	}
	return 0, err
}

// execution is one exec under way.
type execution struct {
	b      *Backend
	id     string
	req    runtime.ExecRequest
	stream *dockerapi.ExecStream
}

// converse carries the streams until the output ends.
func (e *execution) converse(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = e.stream.Conn.Close() })
	defer stop()
	e.firstSize(ctx)
	var side sync.WaitGroup
	done := make(chan struct{})
	if e.req.Stdin != nil {
		// Not waited for: a reader that blocks for ever is the caller's, and its
		// next bytes fail on the closed connection.
		go func() {
			_, _ = io.Copy(e.stream.Conn, e.req.Stdin) // The command may end without reading all.
			_ = e.stream.CloseWrite()
		}()
	}
	if e.req.TTY && e.req.Resize != nil {
		side.Go(func() { e.resize(ctx, done) })
	}
	var err error
	if e.req.TTY {
		out := e.req.Stdout
		if out == nil {
			out = io.Discard
		}
		_, err = io.Copy(out, e.stream.Out)
	} else {
		err = demux(e.stream.Out, e.req.Stdout, e.req.Stderr)
	}
	close(done)
	side.Wait()
	_ = e.stream.Conn.Close()
	return err
}

// firstSize sets the terminal's size before anything is typed or shown, where
// the caller has said it already. The engine refuses a size as long as the
// command has not quite started, and tells of no moment from which it would not.
func (e *execution) firstSize(ctx context.Context) {
	if !e.req.TTY || e.req.Resize == nil {
		return
	}
	var size runtime.TerminalSize
	select {
	case size = <-e.req.Resize:
	default:
		return
	}
	deadline := time.Now().Add(execSettle)
	for e.setSize(ctx, size) != nil && time.Now().Before(deadline) {
		if s, err := e.b.api.ExecInspect(ctx, e.id); err != nil || !s.Running && s.PID != 0 {
			return // it has ended
		}
		timer := time.NewTimer(resizeRetry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// resize passes the terminal's later sizes on.
func (e *execution) resize(ctx context.Context, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case size, ok := <-e.req.Resize:
			if !ok {
				return
			}
			// A command that has just ended has no terminal any more.
			_ = e.setSize(ctx, size)
		}
	}
}

// setSize leaves out sizes that are none.
func (e *execution) setSize(ctx context.Context, size runtime.TerminalSize) error {
	if size.Width == 0 || size.Height == 0 {
		return nil
	}
	return e.b.api.ExecResize(ctx, e.id, min(uint(size.Width), maxTerminal), min(uint(size.Height), maxTerminal))
}

// code asks how the command ended. Its output may end an instant before it does.
func (e *execution) code(ctx context.Context, doing string) (int, error) {
	deadline := time.Now().Add(execSettle)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		s, err := e.b.api.ExecInspect(ctx, e.id)
		if ctx.Err() != nil {
			e.end()
			return codeKilled, context.Cause(ctx)
		}
		if err != nil {
			return 0, e.b.engineError(doing, err)
		}
		if !s.Running {
			return s.ExitCode, nil
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("%s: its output has ended but it still runs", doing)
		}
		timer := time.NewTimer(pause) // The engine has no event for the end of an exec that can be waited for.
		select {
		case <-ctx.Done():
			timer.Stop() // the next inspect says so
		case <-timer.C:
		}
	}
}

// end kills the command of an exec whose caller has gone: the engine has no call
// for that, so it takes root, and the process must be the one it says.
func (e *execution) end() {
	ctx, cancel := context.WithTimeout(context.Background(), execSettle)
	defer cancel()
	for {
		s, err := e.b.api.ExecInspect(ctx, e.id)
		if err != nil || !s.Running && s.PID != 0 {
			return // it has ended, or nobody can tell
		}
		if s.PID > 0 {
			e.kill(ctx, s.PID)
			return
		}
		// Its output may come before the engine has noted its process.
		timer := time.NewTimer(resizeRetry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// kill ends one process of this machine. Held by a descriptor, it is still the
// engine's exec if the engine says so then: its number cannot have been given
// to another one.
func (e *execution) kill(ctx context.Context, pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd) //nolint:errcheck // It was only a handle.
	if s, err := e.b.api.ExecInspect(ctx, e.id); err != nil || !s.Running || s.PID != pid {
		return
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		e.b.cfg.Logger.Warn("a command that nobody listens to any more runs on", "pid", pid, "error", err, "uid", os.Geteuid())
	}
}
