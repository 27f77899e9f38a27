package pod

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/store"
)

// ending is how a pod ended, or why it cannot go on.
type ending struct {
	succeeded       bool
	reason, message string
	// infrastructure: not the user's doing.
	infrastructure bool
}

// Error makes an ending that breaks work off an error.
func (e *ending) Error() string { return e.reason + ": " + e.message }

// verdict judges a pod whose main containers have all ended.
func (r *run) verdict() *ending {
	for _, u := range r.main {
		if !r.succeeded(u) {
			return r.judge(u)
		}
	}
	end := &ending{succeeded: true, reason: launch.ReasonCompleted}
	for _, u := range r.main {
		con, _ := r.state(u)
		if lost := outputErrors(con.Exit); lost != "" {
			end.message = lost
		}
	}
	return end
}

func outputErrors(record *launch.ExitRecord) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(record.OutputErrors)) {
		parts = append(parts, fmt.Sprintf("output %q could not be read: %s", name, record.OutputErrors[name]))
	}
	return strings.Join(parts, "; ")
}

// judge says why a container's end means failure.
func (r *run) judge(u *unit) *ending {
	con, _ := r.state(u)
	name := "container " + u.container.Name
	if con.State != runtime.StateExited || con.Exit == nil {
		message := con.Message
		if message == "" {
			message = "it ended and left no record"
		}
		return &ending{reason: ReasonLost, infrastructure: true, message: name + " was lost: " + message}
	}
	record := con.Exit
	detail := ""
	if record.Message != "" {
		detail = ": " + record.Message
	}
	if lost := outputErrors(record); lost != "" {
		detail += "; " + lost
	}
	switch {
	case record.Reason == launch.ReasonOOMKilled || con.OOMKilled:
		limit := "the machine's memory"
		if q, limited := u.container.Resources.Limits[core.ResourceMemory]; limited {
			limit = "its memory limit of " + q.String()
		}
		return &ending{reason: launch.ReasonOOMKilled, message: fmt.Sprintf("%s was killed because it needed more than %s%s; raise the limit or use less", name, limit, detail)}
	case record.Reason == launch.ReasonCannotRun:
		return &ending{reason: record.Reason, message: fmt.Sprintf("%s could not run its command%s; check the command and the image %s", name, detail, u.container.Image)}
	case record.Reason == launch.ReasonShutdown, record.Reason == launch.ReasonStopped:
		// A stop that this run asked for never comes here.
		return &ending{reason: launch.ReasonShutdown, infrastructure: true, message: name + " was ended from outside" + detail}
	case record.Signal != 0:
		return &ending{reason: launch.ReasonError, message: fmt.Sprintf("%s was ended by signal %d%s", name, record.Signal, detail)}
	default:
		return &ending{reason: launch.ReasonError, message: fmt.Sprintf("%s exited with code %d%s", name, record.ExitCode, detail)}
	}
}

// explain adds the last line of a failed command's stderr to what is said.
func (r *run) explain(ctx context.Context, end *ending) {
	if end.reason != launch.ReasonError {
		return
	}
	for _, u := range r.units {
		con, _ := r.state(u)
		if con.Exit == nil || con.Exit.Reason != launch.ReasonError {
			continue
		}
		dir := launch.ControlDir(r.dir, controlName(u.container.Name, u.restart))
		if words := r.c.lastWords(ctx, dir); words != "" {
			end.message += ": " + words
		}
		return
	}
}

// interrupted is the ending for work that was broken off.
func (r *run) interrupted(cause error) *ending {
	// What had ended by itself before the interruption counts as that.
	if len(r.main) > 0 && !slices.ContainsFunc(r.main, func(u *unit) bool { return !r.ended(u) || r.stoppedByUs(u) }) {
		if end := r.verdict(); end.succeeded {
			return end
		}
	}
	switch {
	case errors.Is(cause, errDeadline):
		return &ending{reason: ReasonDeadline, message: fmt.Sprintf("ran longer than its limit of %s (activeDeadlineSeconds)",
			time.Duration(*r.pod().Spec.ActiveDeadlineSeconds)*time.Second)}
	case errors.Is(cause, errStopped), errors.Is(cause, errDeleted):
		return &ending{reason: ReasonCancelled, message: "was stopped on request"}
	default:
		return &ending{reason: ReasonConfig, message: cause.Error(), infrastructure: true}
	}
}

func (r *run) stoppedByUs(u *unit) bool {
	con, _ := r.state(u)
	return con.Exit != nil && con.Exit.Reason == launch.ReasonStopped
}

// halt stops whatever of the pod still runs: sidecars after a natural end,
// everything after an interruption. It returns false only where ctx ended.
func (r *run) halt(ctx context.Context) bool {
	for delay := 100 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		err := r.haltOnce(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		r.c.log.Warn("pod cannot be stopped yet, trying again", "pod", title(r.pod()), "error", err)
		if sleep(ctx, delay) != nil {
			return false
		}
	}
}

func (r *run) haltOnce(ctx context.Context) error {
	if r.unsure {
		list, err := r.c.backend.List(ctx)
		if err != nil {
			return err
		}
		for _, con := range list {
			if con.Labels[core.LabelPodUID] == r.item.ID {
				r.observe(con)
			}
		}
		r.unsure = false
	}
	// Main containers first, then sidecars, the last started first.
	for _, sidecars := range []bool{false, true} {
		for _, u := range slices.Backward(r.units) {
			con, known := r.state(u)
			if u.sidecar != sidecars || !known || r.ended(u) {
				continue
			}
			if err := r.c.backend.Stop(ctx, con.ID, grace(r.pod())); err != nil && !errors.Is(err, runtime.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}

// finish is the last commit of a pod's life: the result and the release of the
// claim, at once.
func (r *run) finish(ctx context.Context, end *ending) error {
	r.settle(ctx)
	r.explain(ctx, end)
	now := r.c.now()
	write := func(end *ending, outputs bool) error {
		return r.amend(ctx, func(p *core.Pod) error {
			p.Status.Phase = core.PodFailed
			if end.succeeded {
				p.Status.Phase = core.PodSucceeded
			}
			p.Status.Reason, p.Status.Message = end.reason, end.message
			p.Status.Claim = nil
			for _, u := range r.units {
				if s := r.containerStatus(u); s.Started || s.Terminated != nil || s.RestartCount > 0 || !u.init {
					setContainerStatus(p, s)
				}
			}
			p.Status.Skiff = r.result(end, outputs)
			setCondition(p, "Ready", false, end.reason, "", now)
			return nil
		})
	}
	err := write(end, true)
	if errors.Is(err, store.ErrInvalid) {
		err = write(&ending{reason: "OutputsTooLarge", message: "the pod's outputs cannot be stored: " + err.Error() +
			"; pass large data on as an artifact, not as a parameter"}, false)
	}
	if err == nil {
		r.c.log.Debug("pod ended", "pod", title(r.pod()), "reason", end.reason, "message", end.message)
	}
	return err
}

// settlePatience is how long the records of containers that were stopped just
// now may take to arrive by themselves.
const settlePatience = 100 * time.Millisecond

// settle waits for the records of containers that were stopped, and asks for
// those that do not come: they are for people by then, not proof, so one that
// cannot be had does not hold up the end.
func (r *run) settle(ctx context.Context) {
	timer := time.NewTimer(settlePatience)
	defer timer.Stop()
	open := func(u *unit) bool {
		con, known := r.state(u)
		return known && stateRank(con.State) >= stateRank(runtime.StateWaiting) && !r.ended(u)
	}
	for slices.ContainsFunc(r.units, open) {
		select {
		case <-r.bell:
		case <-ctx.Done():
			return
		case <-timer.C:
			for _, u := range r.units {
				if !open(u) {
					continue
				}
				if err := r.confirm(ctx, u); err != nil {
					r.c.log.Debug("no record of a stopped container", "container", u.name, "error", err)
				}
			}
			return
		}
	}
}

// result collects what the pod's containers left.
func (r *run) result(end *ending, outputs bool) *core.PodResult {
	res := &core.PodResult{Infrastructure: end.infrastructure && !end.succeeded}
	for _, u := range r.main {
		con, _ := r.state(u)
		if con.Exit == nil {
			continue
		}
		res.LogBytes += con.Exit.LogBytes
		res.LogDropped += con.Exit.LogDropped
		if len(con.Exit.Outputs) > 0 && outputs {
			if res.Outputs == nil {
				res.Outputs = make(map[string][]byte, len(con.Exit.Outputs))
			}
			maps.Copy(res.Outputs, con.Exit.Outputs)
		}
	}
	return res
}

// containerStatus is what is known of a unit, in the published shape.
func (r *run) containerStatus(u *unit) core.ContainerStatus {
	s := core.ContainerStatus{Name: u.container.Name, Image: u.container.Image, ImageID: imageID(u.image), RestartCount: u.restart}
	if s.ImageID == "" {
		for _, old := range r.pod().Status.ContainerStatuses {
			if old.Name == s.Name {
				s.ImageID = old.ImageID
			}
		}
	}
	con, known := r.state(u)
	if !known {
		return s
	}
	s.ContainerID, s.StartedAt = con.ID, con.StartedAt.UTC()
	s.Started = con.State == runtime.StateRunning
	if con.StartedAt.IsZero() {
		s.StartedAt = time.Time{}
	}
	if !r.ended(u) {
		return s
	}
	t := &core.ContainerTerminated{ExitCode: 137, Reason: ReasonLost, Message: con.Message}
	if e := con.Exit; e != nil {
		t = &core.ContainerTerminated{
			ExitCode: int32(e.ExitCode), Signal: int32(e.Signal),
			Reason: e.Reason, Message: e.Message, StartedAt: e.StartedAt.UTC(), FinishedAt: e.FinishedAt.UTC(),
		}
		if e.StartedAt.IsZero() {
			t.StartedAt = time.Time{}
		} else {
			s.StartedAt = t.StartedAt
		}
	}
	s.Terminated = t
	return s
}
