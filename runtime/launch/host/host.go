package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// Host follows launchers. One serves a whole daemon: it holds two inotify
// instances however many launchers there are. It is safe for concurrent use.
type Host struct {
	life, logs notifier
	closed     chan struct{}
	once       sync.Once
}

// New returns a Host. Close it to free what it holds.
func New() *Host {
	return &Host{life: notifier{mask: lifeEvents}, logs: notifier{mask: logEvents}, closed: make(chan struct{})}
}

// Close ends everything that still follows a launcher, with ErrClosed.
func (h *Host) Close() error {
	var err error
	h.once.Do(func() {
		close(h.closed)
		err = errors.Join(h.life.close(), h.logs.close())
	})
	return err
}

// recheck bounds how long a missed event can go unnoticed. Events are what
// drives everything here; this is the net under them.
const recheck = 30 * time.Second

// settle is how often a lock that is about to be released is asked again: its
// close is announced an instant before it is free.
var settle = []time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
}

// wait blocks until the folder may have changed.
func (h *Host) wait(ctx context.Context, changed <-chan struct{}, atMost time.Duration) error {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-h.closed:
		return ErrClosed
	case <-changed:
	case <-timer.C:
	}
	return nil
}

// Connect dials the launcher, and waits for one that has not come up yet until
// ctx ends. Where it has ended, the error wraps ErrNoLauncher.
func (h *Host) Connect(ctx context.Context, dir string) (*Conn, error) {
	c, err := Dial(ctx, dir)
	if !errors.Is(err, ErrNoLauncher) {
		return c, err
	}
	d, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	sub, err := h.life.subscribe(d)
	if err != nil {
		return nil, err
	}
	defer sub.cancel()
	for tries := 0; ; tries++ {
		c, err := Dial(ctx, dir)
		if !errors.Is(err, ErrNoLauncher) {
			return c, err
		}
		life, err2 := ReadLife(dir)
		if err2 != nil {
			return nil, err2
		}
		if life == Dead {
			return nil, err
		}
		pause := recheck
		if life == Alive && tries < len(settle) {
			pause = settle[tries]
		}
		if err := h.wait(ctx, sub.C, pause); err != nil {
			return nil, err
		}
	}
}

// Launch hands a launcher its command and returns when the command runs or has
// ended. It may be repeated: a launcher runs one command in its life. Errors
// wrap ErrOtherCommand, ErrNoLauncher (it ended without having got a command,
// or never came up), or ErrLost.
func (h *Host) Launch(ctx context.Context, dir string, cmd launch.Command) error {
	t, err := h.LaunchAndTalk(ctx, dir, cmd)
	t.Close()
	return err
}

// Talk is an open conversation with a launcher that runs a command.
type Talk struct {
	// Status is what is known so far.
	Status Status
	conn   *Conn
}

// Close ends the conversation; the zero Talk has none.
func (t Talk) Close() {
	if t.conn != nil {
		t.conn.Close()
	}
}

// LaunchAndTalk is Launch, and keeps the connection for FollowTalk where there
// still is one, whatever becomes of ctx. The caller closes the Talk, or hands it
// to FollowTalk.
func (h *Host) LaunchAndTalk(ctx context.Context, dir string, cmd launch.Command) (Talk, error) {
	c, err := h.Connect(ctx, dir)
	if errors.Is(err, ErrNoLauncher) {
		return Talk{}, Outcome(dir, cmd.ID)
	}
	if err != nil {
		return Talk{}, err
	}
	t := Talk{Status: Status{Phase: launch.PhaseRunning, PID: c.PID()}, conn: c}
	if err := t.launch(dir, cmd); err != nil || t.Status.Started == nil {
		c.Close()
		return Talk{}, gone(ctx, dir, cmd.ID, err)
	}
	if !c.free() {
		c.Close()
		return Talk{}, nil // it has been launched, and nobody listens on
	}
	return t, nil
}

// launch hands over the command. Without an error and without Started in the
// status, the command has already ended.
func (t *Talk) launch(dir string, cmd launch.Command) error {
	if err := t.conn.Send(launch.Frame{Launch: &cmd}); err != nil {
		return err
	}
	for {
		f, err := t.conn.Next()
		if err != nil {
			return err
		}
		switch {
		case f.Started != nil && f.Started.CommandID != cmd.ID:
			return fmt.Errorf("launch %s: %w (%s)", cmd.ID, ErrOtherCommand, f.Started.CommandID)
		case f.Started != nil:
			t.Status.Started = f.Started
			return nil
		case f.Exited != nil:
			return sameCommand(f.Exited, cmd.ID)
		case f.Error != "":
			// The launcher's own words; which case it was is on disk.
			if err := Outcome(dir, cmd.ID); !errors.Is(err, ErrNoLauncher) {
				return err
			}
			return fmt.Errorf("launch %s: %w: %s", cmd.ID, errRefused, f.Error)
		}
	}
}

// errRefused: the launcher did not take a message.
var errRefused = errors.New("the launcher refused")

// gone says what became of a launch whose conversation ended with err.
func gone(ctx context.Context, dir, id string, err error) error {
	switch {
	case err == nil, errors.Is(err, ErrOtherCommand), errors.Is(err, ErrNoLauncher), errors.Is(err, errRefused):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, launch.ErrFrame) {
		// A write to a launcher that has just ended.
		if life, _ := ReadLife(dir); life == Alive {
			return err
		}
	}
	return Outcome(dir, id)
}

// Outcome reads from disk what became of a command that a launcher may have
// been given: nil where it runs or has run. It waits for nothing; the errors are
// those of Launch.
func Outcome(dir, id string) error {
	if r, ok, err := ReadExit(dir); err != nil {
		return err
	} else if ok {
		return sameCommand(r, id)
	}
	s, err := ReadStarted(dir)
	switch {
	case err != nil:
		return err
	case s == nil:
		return fmt.Errorf("launch %s: %w", id, ErrNoLauncher)
	case s.CommandID != id:
		return fmt.Errorf("launch %s: %w (%s)", id, ErrOtherCommand, s.CommandID)
	}
	if life, err := ReadLife(dir); err != nil || life == Alive {
		return err
	}
	return fmt.Errorf("launch %s: %w", id, ErrLost)
}

func sameCommand(r *launch.ExitRecord, id string) error {
	switch r.CommandID {
	case id:
		return nil
	case "":
		return fmt.Errorf("launch %s: it ended before (%s): %w", id, r.Reason, ErrNoLauncher)
	}
	return fmt.Errorf("launch %s: %w (%s)", id, ErrOtherCommand, r.CommandID)
}

// Stop asks a launcher to end its command and returns when it has. One that has
// ended is no error; one that has not begun is waited for, so this is for
// containers that were started. One that does not end in time is ctx's cause.
func (h *Host) Stop(ctx context.Context, dir string, grace time.Duration) error {
	c, err := h.Connect(ctx, dir)
	if errors.Is(err, ErrNoLauncher) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Send(launch.Frame{Stop: &launch.Stop{Grace: grace}}); err != nil && ctx.Err() == nil {
		return h.Gone(ctx, dir)
	}
	for {
		f, err := c.Next()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || f.Exited != nil {
			return h.Gone(ctx, dir)
		}
	}
}

// Gone returns when the launcher does not live any more.
func (h *Host) Gone(ctx context.Context, dir string) error {
	d, err := openFolder(dir)
	if err != nil {
		return ignoreMissing(err)
	}
	defer d.Close()
	sub, err := h.life.subscribe(d)
	if err != nil {
		return err
	}
	defer sub.cancel()
	for tries := 0; ; tries++ {
		if life, err := ReadLife(dir); err != nil || life != Alive {
			return err
		}
		pause := recheck
		if tries < len(settle) {
			pause = settle[tries]
		}
		if err := h.wait(ctx, sub.C, pause); err != nil {
			return err
		}
	}
}

// Signal sends one signal to the command's process group.
func Signal(ctx context.Context, dir string, number int) error {
	c, err := Dial(ctx, dir)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Send(launch.Frame{Signal: &launch.Signal{Number: number}})
}
