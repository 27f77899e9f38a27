package pod

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
)

// A pod whose command has failed may be kept: its launcher holds the container as
// the command left it (runtime/launch), the claim stays, and people look around.
// The launcher alone decides that and knows the deadline, so it outlives a daemon;
// what is done here is to say so, and to hand the release on.

// releaseRetry is how long after a release that did not get through the next one
// is tried.
const releaseRetry = time.Second

// hold says of a kept container that it is, and releases it where that was asked
// for. It returns when to look again, zero for when something changes.
func (r *run) hold(ctx context.Context, u *unit) (time.Time, error) {
	con, _ := r.state(u)
	if con.Held == nil {
		return time.Time{}, nil
	}
	p := r.pod()
	if p.Spec.Skiff != nil && p.Spec.Skiff.Release {
		err := r.c.backend.Stop(ctx, con.ID, grace(p))
		switch {
		case ctx.Err() != nil:
			return time.Time{}, context.Cause(ctx)
		case err != nil && !errors.Is(err, runtime.ErrNotFound):
			r.c.log.Warn("kept container is not released yet, trying again", "pod", title(p), "error", err)
			return r.c.now().Add(releaseRetry), nil
		}
		// Its record is on its way, by the watch.
		return time.Time{}, nil
	}
	if p.Status.Phase == core.PodRunning && p.Status.Reason == core.ReasonPaused {
		return time.Time{}, nil
	}
	if !r.recorded {
		if err := r.recordRunning(ctx); err != nil {
			return time.Time{}, err
		}
	}
	r.c.log.Info("failed pod is kept", "pod", title(p), "until", con.Held.Until)
	return time.Time{}, r.say(ctx, core.ReasonPaused, r.heldMessage(ctx, u, con.Held))
}

// heldMessage says how the command failed and until when it is kept.
func (r *run) heldMessage(ctx context.Context, u *unit, held *launch.Held) string {
	message := fmt.Sprintf("container %s exited with code %d", u.container.Name, held.ExitCode)
	if held.Message != "" {
		message += ": " + held.Message
	}
	if held.Reason == launch.ReasonError {
		dir := launch.ControlDir(r.dir, controlName(u.container.Name, u.restart))
		if words := r.c.lastWords(ctx, dir); words != "" {
			message += ": " + words
		}
	}
	return message + "; it is kept until " + held.Until.Local().Format("2006-01-02 15:04:05")
}

// paused reports whether a pod's failed container is kept.
func paused(p *core.Pod) bool {
	return p.Status.Phase == core.PodRunning && p.Status.Reason == core.ReasonPaused && p.DeletionTimestamp == nil
}
