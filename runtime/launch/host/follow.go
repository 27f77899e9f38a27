package host

import (
	"context"
	"errors"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// Status is where one launcher stands.
type Status struct {
	Phase launch.Phase
	// Lost: it ended and left no record; Phase is PhaseExited then.
	Lost bool
	// Message says why, for Lost.
	Message string
	Started *launch.Started
	// Held: the command has failed and its container is kept; Phase is
	// PhaseRunning then.
	Held *launch.Held
	Exit *launch.ExitRecord
	// PID is the launcher's process as this machine counts, 0 where unknown.
	PID int
}

// Final says that nothing will follow.
func (s Status) Final() bool { return s.Phase == launch.PhaseExited }

// ReadStatus reads from disk where a launcher stands; false means that none has
// begun. It never blocks on the launcher.
func ReadStatus(dir string) (Status, bool, error) {
	life, err := ReadLife(dir)
	if err != nil {
		return Status{}, false, err
	}
	// The record is written while the lock is held, so it is read after.
	r, ok, err := ReadExit(dir)
	if errors.Is(err, ErrHostile) || errors.Is(err, ErrRecord) {
		if life == Dead {
			return lost("the exit record is not one: " + err.Error()), true, nil
		}
		err = nil
	}
	if err != nil {
		return Status{}, false, err
	}
	if ok && life != Alive {
		return Status{Phase: launch.PhaseExited, Exit: r}, true, nil
	}
	switch life {
	case Unborn:
		return Status{}, false, nil
	case Dead:
		return lost("the launcher ended without an exit record (it was killed, or the machine went down)"), true, nil
	}
	s, err := ReadStarted(dir)
	if err != nil && !errors.Is(err, ErrHostile) {
		return Status{}, false, err
	}
	if s != nil && s.CommandID != "" {
		return Status{Phase: launch.PhaseRunning, Started: s, Held: ReadHeld(dir)}, true, nil
	}
	return Status{Phase: launch.PhaseWaiting}, true, nil
}

func lost(message string) Status {
	return Status{Phase: launch.PhaseExited, Lost: true, Message: message}
}

// Follow reports a launcher's phases to fn until it has ended, and then returns
// nil. It waits for a launcher that has not begun yet. It reconnects by itself;
// it returns early only with ctx's cause, ErrClosed, or where the folder cannot
// be read. fn is called from this goroutine.
func (h *Host) Follow(ctx context.Context, dir string, fn func(Status)) error {
	return h.FollowTalk(ctx, dir, Talk{}, fn)
}

// FollowTalk is Follow that goes on with a conversation, and closes it.
func (h *Host) FollowTalk(ctx context.Context, dir string, t Talk, fn func(Status)) error {
	ctx, cancel := h.untilClosed(ctx)
	defer cancel()
	if t.conn != nil {
		t.conn.bind(ctx)
		if listen(t.conn, t.Status, fn) {
			return nil
		}
	}
	d, err := openFolder(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	sub, err := h.life.subscribe(d)
	if err != nil {
		return err
	}
	defer sub.cancel()
	var last launch.Phase
	held := false
	report := func(s Status) {
		if s.Phase != last || s.Final() || (s.Held != nil && !held) {
			last, held = s.Phase, s.Held != nil
			fn(s)
		}
	}
	for tries := 0; ; {
		s, begun, err := ReadStatus(dir)
		if err != nil {
			return err
		}
		if begun && s.Final() {
			report(s)
			return nil
		}
		pause := recheck
		if begun {
			talked, final := converse(ctx, dir, report)
			if final {
				return nil
			}
			if talked {
				tries = 0
			}
			if tries < len(settle) {
				pause = settle[tries]
				tries++
			}
		}
		if err := h.wait(ctx, sub.C, pause); err != nil {
			return err
		}
	}
}

// untilClosed ends a context together with the Host.
func (h *Host) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-h.closed:
			cancel(ErrClosed)
		case <-done:
		}
	}()
	return ctx, func() { cancel(context.Canceled); close(done) }
}

// converse listens to a launcher until it ends or hangs up.
func converse(ctx context.Context, dir string, report func(Status)) (talked, final bool) {
	c, err := Dial(ctx, dir)
	if err != nil {
		return false, false
	}
	s := Status{Phase: c.Hello.Phase, PID: c.PID()}
	if s.Phase == launch.PhaseWaiting {
		report(s)
	}
	return true, listen(c, s, report)
}

// listen reports what a launcher says until it ends (true) or hangs up, and
// closes the connection.
func listen(c *Conn, s Status, report func(Status)) (final bool) {
	defer c.Close()
	for {
		f, err := c.Next()
		if err != nil {
			return false
		}
		switch {
		case f.Started != nil:
			s.Phase, s.Started = launch.PhaseRunning, f.Started
			report(s)
		case f.Held != nil:
			s.Held = f.Held
			report(s)
		case f.Exited != nil:
			s.Phase, s.Exit = launch.PhaseExited, f.Exited
			report(s)
			return true
		}
	}
}
