package pod

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

const (
	// createTries is how often a container is created or started anew after an
	// error of the engine that says nothing about whether it will pass.
	createTries = 3
	// launchPatience is how long a started container's launcher may be silent.
	launchPatience = time.Minute
)

// bringUp takes a unit's container from wherever it stands to a command that
// runs, or has run. The error is an *ending or ctx's cause.
func (r *run) bringUp(ctx context.Context, u *unit) error {
	if err := r.ensureStarted(ctx, u); err != nil {
		return err
	}
	con, known := r.state(u)
	if known && stateRank(con.State) >= stateRank(runtime.StateRunning) {
		return nil
	}
	if err := r.awaitAdmission(ctx, u); err != nil {
		return err
	}
	return r.launch(ctx, u)
}

// ensureStarted creates and starts the unit's container, or finds it.
func (r *run) ensureStarted(ctx context.Context, u *unit) error {
	if con, known := r.state(u); known && con.State != runtime.StateCreated {
		return nil
	} else if !known && r.marked(u) {
		r.observe(runtime.Container{Name: u.name, State: runtime.StateLost})
		return nil
	}
	item := r.item
	if !r.asked() {
		item.Priority = math.MinInt32 // those that may run are started first
	}
	if err := r.c.start.enter(ctx, item); err != nil {
		return err
	}
	defer r.c.start.leave()
	reason := ReasonCreate
	return r.persist(ctx, func(try int) error {
		reason = ReasonCreate
		if con, known := r.state(u); known && con.State != runtime.StateCreated {
			return nil
		}
		id, err := r.create(ctx, u)
		if err != nil {
			return err
		}
		reason = ReasonStart
		err = r.c.backend.Start(ctx, id)
		switch {
		case errors.Is(err, runtime.ErrExited):
			return r.confirm(ctx, u)
		case errors.Is(err, runtime.ErrNotFound):
			r.forget(u)
		}
		return err
	}, func(err error) *ending {
		return &ending{reason: reason, message: fmt.Sprintf("container %s: %v", u.container.Name, err)}
	})
}

// traces says what became of a container that is gone and may have had its
// command: the exit record on disk, if there is one, is the truth.
func (r *run) traces(con runtime.Container) runtime.Container {
	con.State = runtime.StateLost
	if con.Reason == "" {
		con.Reason, con.Message = ReasonLost, "its container is gone"
	}
	control, ours := controlOf(r.item.ID, con.Name)
	if !ours {
		return con
	}
	record, found, err := host.ReadExit(launch.ControlDir(r.dir, control))
	if found && err == nil && (record.CommandID == con.Name || record.CommandID == "") {
		con.State, con.Exit, con.StartedAt = runtime.StateExited, record, record.StartedAt
	}
	return con
}

// persist repeats act while the backend is away, and a few times after errors
// that may pass. give says what it means that it did not.
func (r *run) persist(ctx context.Context, act func(try int) error, give func(error) *ending) error {
	told := false
	delay := 100 * time.Millisecond
	for try := 1; ; {
		err := act(try)
		var end *ending
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &end):
			return end
		case errors.Is(err, runtime.ErrPolicy):
			return &ending{reason: ReasonPolicy, message: err.Error()}
		case errors.Is(err, runtime.ErrNotSupported):
			return &ending{reason: ReasonConfig, message: err.Error()}
		case errors.Is(err, runtime.ErrUnavailable):
			if !told {
				told = true
				if err := r.say(ctx, ReasonRuntime, "waits for the container engine: "+err.Error()); err != nil {
					return err
				}
			}
		case try >= createTries:
			return give(err)
		default:
			try++
		}
		if err := sleep(ctx, delay); err != nil {
			return err
		}
		delay = min(2*delay, 5*time.Second)
	}
}

// create makes the container and returns its id.
func (r *run) create(ctx context.Context, u *unit) (string, error) {
	if con, known := r.state(u); known {
		return con.ID, nil
	}
	spec, err := r.containerSpec(ctx, u)
	if err != nil {
		if errors.Is(err, runtime.ErrUnavailable) || ctx.Err() != nil {
			return "", err
		}
		return "", &ending{reason: ReasonConfig, message: err.Error()}
	}
	id, err := r.c.backend.Create(ctx, spec)
	switch {
	case err == nil:
		r.observe(runtime.Container{ID: id, Name: u.name, Labels: spec.Labels, State: runtime.StateCreated})
		return id, nil
	case errors.Is(err, runtime.ErrConflict):
		return r.takeOver(ctx, u, err)
	default:
		// The reply may have been lost: what was made must be found again.
		r.unsure = true
		return "", err
	}
}

// takeOver deals with a container of this pod that was made from another
// specification, as by an older release: one that never had its command is made
// anew, any other is adopted.
func (r *run) takeOver(ctx context.Context, u *unit, conflict error) (string, error) {
	con, found, err := r.find(ctx, u)
	if err != nil {
		return "", err
	}
	if !found {
		return "", conflict
	}
	if r.marked(u) || stateRank(con.State) >= stateRank(runtime.StateRunning) {
		r.observe(con)
		return con.ID, nil
	}
	if err := r.c.backend.Stop(ctx, con.ID, 0); err != nil {
		return "", err
	}
	if err := r.c.backend.Remove(ctx, con.ID); err != nil {
		return "", err
	}
	return "", conflict
}

// find asks the backend for the unit's container.
func (r *run) find(ctx context.Context, u *unit) (runtime.Container, bool, error) {
	list, err := r.c.backend.List(ctx)
	if err != nil {
		return runtime.Container{}, false, err
	}
	for _, con := range list {
		if con.Name == u.name {
			return con, true, nil
		}
	}
	return runtime.Container{}, false, nil
}

// confirm brings what is known of a container up to date after a reply that
// contradicts it; one that is gone is lost.
func (r *run) confirm(ctx context.Context, u *unit) error {
	con, found, err := r.find(ctx, u)
	if err != nil {
		return err
	}
	if !found {
		con = runtime.Container{Name: u.name, State: runtime.StateLost}
	}
	r.observe(con)
	return nil
}

// forget drops a container that vanished before it had a command.
func (r *run) forget(u *unit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.seen, u.name)
}

// launch hands the command over, after recording that it is about to.
func (r *run) launch(ctx context.Context, u *unit) error {
	cmd, err := r.command(ctx, u)
	if err != nil {
		return &ending{reason: ReasonConfig, message: err.Error()}
	}
	if err := r.mark(u); err != nil {
		return &ending{reason: ReasonConfig, message: err.Error(), infrastructure: true}
	}
	deadline := r.c.now().Add(launchPatience)
	for delay := 20 * time.Millisecond; ; delay = min(2*delay, 2*time.Second) {
		con, _ := r.state(u)
		if stateRank(con.State) >= stateRank(runtime.StateRunning) {
			return nil
		}
		err := r.c.backend.Launch(ctx, con.ID, cmd)
		switch {
		case err == nil:
			r.observe(runtime.Container{ID: con.ID, Name: u.name, Labels: con.Labels, State: runtime.StateRunning, StartedAt: r.c.now()})
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, runtime.ErrExited), errors.Is(err, runtime.ErrNotFound):
			err = r.confirm(ctx, u)
		}
		if r.c.now().After(deadline) && err != nil && !errors.Is(err, runtime.ErrUnavailable) {
			return &ending{
				reason: ReasonStart, infrastructure: true,
				message: fmt.Sprintf("container %s: its launcher takes no command: %v", u.container.Name, err),
			}
		}
		if err := sleep(ctx, delay); err != nil {
			return err
		}
	}
}
