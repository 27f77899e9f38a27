package pod

import (
	"context"
	"time"

	"github.com/skiff-ml/skiff/api/core"
)

// restartable applies the pod's restart policy to a container that ended.
func (r *run) restartable(u *unit) bool {
	switch {
	case u.sidecar:
		return true
	case r.pod().Spec.RestartPolicy == "Always":
		return !u.init || !r.succeeded(u)
	case r.pod().Spec.RestartPolicy == "OnFailure":
		return !r.succeeded(u)
	default:
		return false
	}
}

// backoff is core/v1's for a container that keeps ending: 10 s, doubled each
// time up to five minutes, forgotten after ten minutes of running.
func (r *run) backoff(u *unit) time.Duration {
	con, _ := r.state(u)
	if con.Exit != nil && con.Exit.FinishedAt.Sub(con.Exit.StartedAt) >= 10*time.Minute {
		u.failures = 0
	}
	u.failures++
	if u.failures == 1 {
		return 0
	}
	return min(10*time.Second<<min(u.failures-2, 5), 5*time.Minute)
}

// restart moves a unit on to its next container, durably, and removes the last.
func (r *run) restart(ctx context.Context, u *unit) error {
	last, _ := r.state(u)
	status := r.containerStatus(u)
	next := u.restart + 1
	err := r.amend(ctx, func(p *core.Pod) error {
		status.RestartCount, status.Started = next, false
		setContainerStatus(p, status)
		return nil
	})
	if err != nil {
		return err
	}
	u.restart, u.restartAt = next, time.Time{}
	u.name = containerName(r.pod().UID, u.container.Name, next)
	if last.ID != "" {
		if err := r.c.backend.Remove(ctx, last.ID); err != nil {
			r.c.log.Warn("ended container is not removed yet", "container", last.Name, "error", err)
		}
	}
	return nil
}
