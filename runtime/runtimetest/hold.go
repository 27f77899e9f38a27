package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
)

// held waits until a container is kept after its command has failed: the watch
// says so, and then the list does.
func (f *fixture) held(id string) runtime.Container {
	f.Helper()
	ctx, cancel := context.WithCancelCause(f.ctx())
	defer cancel(nil)
	err := f.b.Watch(ctx, func(c runtime.Container) {
		if c.ID == id && c.Held != nil {
			cancel(errSeen)
		}
	})
	c, _ := f.find(id)
	if !errors.Is(err, errSeen) || c.Held == nil {
		f.Fatalf("container %s is not kept (%v): %+v", id, err, c)
	}
	return c
}

// testHold: the container of a command that failed is kept, over a restart of the
// daemon, and ends with the command's own record when it is released.
func testHold(f *fixture) {
	s := f.spec()
	cmd := action("a", "exit", "3")
	cmd.Hold = time.Hour
	id := f.launch(s, cmd)
	for _, when := range []string{"at first", "after a restart"} {
		c := f.held(id)
		if c.State != runtime.StateRunning || c.Exit != nil || c.Held.ExitCode != 3 || c.Held.CommandID != "a" || time.Until(c.Held.Until) < 50*time.Minute {
			f.Fatalf("%s it is %+v, held %+v", when, c, c.Held)
		}
		f.restart()
	}
	f.held(id)
	f.check("launch of the same command", f.b.Launch(f.ctx(), id, cmd))
	if f.b.Name() != "memory" {
		var out, complaint bytes.Buffer
		code, err := f.b.Exec(f.ctx(), id, runtime.ExecRequest{Argv: []string{"sh", "-c", "echo looked"}, Stdout: &out, Stderr: &complaint})
		if err != nil || code != 0 || out.String() != "looked\n" {
			f.Errorf("exec in it: %d, %v, %q", code, err, out.String())
		}
	}
	f.check("release", f.b.Stop(f.ctx(), id, time.Second))
	if c := f.end(id); c.Exit == nil || c.Exit.ExitCode != 3 || c.Exit.Reason != launch.ReasonError || c.Held != nil {
		f.Errorf("released it is %+v, record %+v", c, c.Exit)
	}
}

// testHoldEnds: it is kept for its time only, and what did not fail is not kept.
func testHoldEnds(f *fixture) {
	s := f.spec()
	cmd := action("a", "exit", "3")
	cmd.Hold = 300 * time.Millisecond
	if c := f.end(f.launch(s, cmd)); c.Exit == nil || c.Exit.ExitCode != 3 || c.Exit.Reason != launch.ReasonError {
		f.Errorf("after its time it is %+v", c)
	}
	fine := action("b", "exit", "0")
	fine.Hold = time.Hour
	if c := f.end(f.launch(f.spec(), fine)); c.Exit == nil || c.Exit.ExitCode != 0 {
		f.Errorf("one that succeeded is %+v", c)
	}
	stopped := action("c", "sleep", "600")
	stopped.Hold = time.Hour
	id := f.launch(f.spec(), stopped)
	f.check("stop", f.b.Stop(f.ctx(), id, 0))
	if c := f.end(id); c.Exit == nil || c.Exit.Reason != launch.ReasonStopped {
		f.Errorf("one that was stopped is %+v", c)
	}
}

// testHoldCannotRun: so is that of a command which is not there.
func testHoldCannotRun(f *fixture) {
	s := f.spec()
	id := f.launch(s, launch.Command{ID: "a", Argv: []string{"/no/such/program"}, Hold: time.Hour})
	if c := f.held(id); c.Held.ExitCode != 127 || c.Held.Reason != launch.ReasonCannotRun || c.Held.Message == "" {
		f.Errorf("held as %+v", c.Held)
	}
	f.check("release", f.b.Stop(f.ctx(), id, 0))
	if c := f.end(id); c.Exit == nil || c.Exit.ExitCode != 127 || c.Exit.Reason != launch.ReasonCannotRun {
		f.Errorf("released it is %+v", c)
	}
}
