package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

// Reasons of a container that is lost.
const (
	reasonLost      = "ContainerLost"
	reasonOOM       = launch.ReasonOOMKilled
	reasonForgery   = "InvalidExitRecord"
	lastWordsLines  = 5
	maxLastWords    = 2000
	engineStartFail = 125 // exit codes from 125 on are the engine's for a start that failed
)

// facts are what the engine says of a container, from an inspect or a list.
type facts struct {
	meta
	status   string // the engine's word for its state
	exitCode int
	oom      bool
	err      string // of a start that failed
	finished time.Time
	ip       string
	full     bool // exitCode, oom, err and finished are known
}

// metaOf reads the labels of an inspected container.
func metaOf(c dockerapi.Inspect) meta {
	var labels map[string]string
	if c.Config != nil {
		labels = c.Config.Labels
	}
	return metaOfLabels(c.ID, strings.TrimPrefix(c.Name, "/"), labels)
}

func factsOf(c dockerapi.Inspect) facts {
	f := facts{meta: metaOf(c), status: c.State.Status, exitCode: c.State.ExitCode, oom: c.State.OOMKilled, err: c.State.Error, full: true}
	f.finished, _ = time.Parse(time.RFC3339Nano, c.State.FinishedAt) // Zero where it has not ended.
	if c.NetworkSettings != nil {
		for _, n := range c.NetworkSettings.Networks {
			f.ip = cmp.Or(f.ip, n.IPAddress)
		}
	}
	return f
}

func factsOfSummary(s dockerapi.Summary) facts {
	name := ""
	if len(s.Names) > 0 {
		name = strings.TrimPrefix(s.Names[0], "/")
	}
	f := facts{meta: metaOfLabels(s.ID, name, s.Labels), status: s.State}
	if s.NetworkSettings != nil {
		for _, n := range s.NetworkSettings.Networks {
			f.ip = cmp.Or(f.ip, n.IPAddress)
		}
	}
	return f
}

// container starts the report of a container.
func (f facts) container(s runtime.State) runtime.Container {
	return runtime.Container{ID: f.id, Name: f.name, Labels: f.labels, State: s, IP: f.ip}
}

// ended is whether the engine says that nothing runs any more.
func (f facts) ended() bool {
	return f.status == dockerapi.StateExited || f.status == dockerapi.StateDead || f.status == dockerapi.StateRemoving
}

// observe asks the engine and the disk where a container stands. One that is
// gone is Lost, unless it left a record.
func (b *Backend) observe(ctx context.Context, m meta) (runtime.Container, error) {
	c, err := b.api.ContainerInspect(ctx, m.id)
	if dockerapi.IsNotFound(err) {
		f := facts{meta: m, status: dockerapi.StateRemoving, full: true}
		return b.judge(ctx, f, "the container was removed by somebody else")
	}
	if err != nil {
		return runtime.Container{}, b.engineError("inspect container "+m.name, err)
	}
	return b.judge(ctx, factsOf(c), "")
}

// judge joins what the engine says with what the launcher left. The engine was
// asked first: a record that is not there once the engine says that the
// container has ended will not come.
func (b *Backend) judge(ctx context.Context, f facts, why string) (runtime.Container, error) {
	if f.control == "" {
		return f.container(runtime.StateLost), nil
	}
	status, begun, err := host.ReadStatus(f.control)
	if err != nil {
		return runtime.Container{}, fmt.Errorf("read state of container %s: %w", f.name, err)
	}
	switch {
	case begun && status.Exit != nil:
		return exited(f, status.Exit), nil
	case f.status == dockerapi.StateCreated:
		return b.judgeCreated(ctx, f)
	case f.ended():
		return b.judgeLost(ctx, f, status, why)
	case begun && status.Lost:
		// The engine has not noticed yet; its word of why is worth the wait, and
		// it is coming.
		return running(f, status), nil
	default:
		return running(f, status), nil
	}
}

func running(f facts, s host.Status) runtime.Container {
	c := f.container(runtime.StateWaiting)
	if s.Phase == launch.PhaseRunning || s.Lost {
		c.State = runtime.StateRunning
	}
	if s.Started != nil {
		c.StartedAt = s.Started.At
	}
	c.Held = s.Held
	return c
}

// exited reports a record. The engine's flag alone is no failure: it is also
// set where a child was killed and the command went on.
func exited(f facts, r *launch.ExitRecord) runtime.Container {
	c := f.container(runtime.StateExited)
	c.Exit, c.StartedAt = r, r.StartedAt
	c.OOMKilled = r.Reason == launch.ReasonOOMKilled ||
		f.oom && r.ExitCode != 0 && r.Reason != launch.ReasonStopped && r.Reason != launch.ReasonCannotRun
	switch {
	case c.OOMKilled:
		c.Reason, c.Message = reasonOOM, cmp.Or(r.Message, "the command needed more memory than its limit")
	case r.Reason == launch.ReasonShutdown:
		c.Reason, c.Message = r.Reason, "the container was ended from outside: the engine went down, or somebody stopped it"
	}
	return c
}

// judgeCreated tells a container that was never started from one that the
// engine could not start.
func (b *Backend) judgeCreated(ctx context.Context, f facts) (runtime.Container, error) {
	if !f.full {
		c, err := b.api.ContainerInspect(ctx, f.id)
		if dockerapi.IsNotFound(err) {
			return b.judgeLost(ctx, f, host.Status{}, "the container was removed by somebody else")
		}
		if err != nil {
			return runtime.Container{}, b.engineError("inspect container "+f.name, err)
		}
		f = factsOf(c)
	}
	if r := startFailure(f); r != nil {
		c := f.container(runtime.StateExited)
		c.Exit, c.Reason, c.Message = r, r.Reason, r.Message
		return c, nil
	}
	return f.container(runtime.StateCreated), nil
}

// startFailure makes a record of a start that the engine could not do: 126 and
// 127 for a first process that cannot be executed, 128 for a device or a mount.
func startFailure(f facts) *launch.ExitRecord {
	if f.status != dockerapi.StateCreated || f.err == "" || f.exitCode < engineStartFail {
		return nil
	}
	at := f.finished
	if at.IsZero() {
		at = time.Now().UTC()
	}
	return &launch.ExitRecord{
		Version: launch.Version, ExitCode: f.exitCode, Reason: launch.ReasonCannotRun,
		Message: "the engine could not start the container: " + f.err, FinishedAt: at,
	}
}

// cannotRun is startFailure of an inspected container.
func cannotRun(c dockerapi.Inspect) *launch.ExitRecord { return startFailure(factsOf(c)) }

// judgeLost says as much as can be known of a container without a record.
func (b *Backend) judgeLost(ctx context.Context, f facts, s host.Status, why string) (runtime.Container, error) {
	if !f.full && why == "" {
		c, err := b.api.ContainerInspect(ctx, f.id)
		switch {
		case err == nil:
			f = factsOf(c)
		case !dockerapi.IsNotFound(err):
			return runtime.Container{}, b.engineError("inspect container "+f.name, err)
		}
	}
	c := f.container(runtime.StateLost)
	if s.Started != nil {
		c.StartedAt = s.Started.At
	}
	c.Reason = reasonLost
	switch {
	case f.oom:
		c.OOMKilled, c.Reason = true, reasonOOM
		c.Message = "the container's first process was ended for memory; raise the memory limit"
	case why != "":
		c.Message = why
	case s.Lost && strings.Contains(s.Message, "record is not one"):
		c.Reason, c.Message = reasonForgery, s.Message
	default:
		c.Message = fmt.Sprintf("the container ended (the engine says with code %d) and left no exit record: it was killed, or the engine went down", f.exitCode)
		if words := b.lastWords(ctx, f.id); words != "" {
			c.Message += ": " + words
		}
	}
	return c, nil
}

// lastWords reads the launcher's complaints, which go to the engine's own log.
func (b *Backend) lastWords(ctx context.Context, id string) string {
	r, err := b.api.ContainerLogs(ctx, id, lastWordsLines)
	if err != nil {
		return "" // The message is as good as it gets without.
	}
	defer r.Close()
	var text strings.Builder
	_ = demux(io.LimitReader(r, 64<<10), &text, &text) // What was read until then is all there is.
	words := strings.TrimSpace(strings.ToValidUTF8(text.String(), "?"))
	if len(words) > maxLastWords {
		words = words[:maxLastWords]
	}
	return words
}

// List returns this store's containers in any state.
func (b *Backend) List(ctx context.Context) ([]runtime.Container, error) {
	summaries, err := b.api.ContainerList(ctx, core.LabelStore+"="+b.cfg.StoreID)
	if err != nil {
		return nil, b.engineError("list containers", err)
	}
	list := make([]runtime.Container, 0, len(summaries))
	for _, s := range summaries {
		if b.isGone(s.ID) {
			continue
		}
		f := factsOfSummary(s)
		b.remember(f.meta)
		c, err := b.judge(ctx, f, "")
		if errors.Is(err, runtime.ErrUnavailable) || ctx.Err() != nil {
			return nil, err
		}
		if err != nil {
			// One container's hostile folder must not hide the others.
			c = f.container(runtime.StateLost)
			c.Reason, c.Message = reasonForgery, err.Error()
		}
		list = append(list, c)
	}
	return list, nil
}

// isNetworkError tells the missing network from the missing container.
func isNetworkError(err error) bool {
	return strings.Contains(err.Error(), "network") && !strings.Contains(err.Error(), "No such container")
}

// removalUnderWay: another removal of the same container has not finished.
func removalUnderWay(err error) bool {
	return dockerapi.IsConflict(err) && strings.Contains(err.Error(), "already in progress")
}

func namespaceOf(network string) string { return strings.TrimPrefix(network, networkPrefix) }
