package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

// Start starts a created container.
func (b *Backend) Start(ctx context.Context, id string) error {
	select {
	case b.starts <- struct{}{}:
		defer func() { <-b.starts }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c, err := b.api.ContainerInspect(ctx, id)
	if err != nil {
		return b.engineError("start container "+short(id), err)
	}
	m := metaOf(c)
	b.remember(m)
	doing := "start container " + m.name
	switch {
	case c.State.Running && b.hasEnded(m):
		return fmt.Errorf("%s: %w", doing, runtime.ErrExited)
	case c.State.Running:
		return b.verifyMounts(ctx, c) // the daemon may have died right after the start
	case c.State.Status != dockerapi.StateCreated || cannotRun(c) != nil:
		return fmt.Errorf("%s: %w", doing, runtime.ErrExited)
	}
	err = b.api.ContainerStart(ctx, id)
	if dockerapi.IsNotFound(err) && isNetworkError(err) {
		// Somebody removed the network since the container was created.
		b.nets.forget()
		if _, err2 := b.nets.ensure(ctx, namespaceOf(string(c.HostConfig.NetworkMode))); err2 != nil {
			return b.engineError(doing, err2)
		}
		err = b.api.ContainerStart(ctx, id)
	}
	if err != nil && !dockerapi.IsNotModified(err) {
		b.poke(id)
		return b.engineError(doing, err)
	}
	return b.verifyMounts(ctx, c)
}

// Launch hands the launcher its command.
func (b *Backend) Launch(ctx context.Context, id string, cmd launch.Command) error {
	m, err := b.meta(ctx, id)
	if err != nil {
		return err
	}
	doing := fmt.Sprintf("launch in container %s", m.name)
	if cmd.User == "" {
		cmd.User = m.user
	}
	cmd.Env = onlyGranted(cmd.Env, m.devices)
	wait, cancel := context.WithTimeoutCause(ctx, launcherPatience, errLauncherSilent)
	defer cancel()
	err = b.host.Launch(wait, m.control, cmd)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, host.ErrOtherCommand):
		return fmt.Errorf("%s: %w: %w", doing, runtime.ErrConflict, err)
	case errors.Is(err, host.ErrNoLauncher), errors.Is(err, host.ErrLost):
		return fmt.Errorf("%s: %w: %w", doing, runtime.ErrExited, err)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: %w: %w", doing, runtime.ErrNotFound, err)
	case errors.Is(err, errLauncherSilent):
		return b.silent(ctx, m, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

var errLauncherSilent = errors.New("its launcher did not come up")

// silent says why a launcher did not answer.
func (b *Backend) silent(ctx context.Context, m meta, err error) error {
	c, err2 := b.api.ContainerInspect(ctx, m.id)
	switch {
	case err2 != nil:
		return b.engineError("launch in container "+m.name, err2)
	case c.State.Status == dockerapi.StateCreated:
		return fmt.Errorf("launch in container %s: it has not been started: %w", m.name, err)
	case !c.State.Running:
		return fmt.Errorf("launch in container %s: %w: %w", m.name, runtime.ErrExited, err)
	}
	return fmt.Errorf("launch in container %s: %w", m.name, err)
}

// Stop asks the command to end, then ends everything, and returns when nothing
// of the container runs any more.
func (b *Backend) Stop(ctx context.Context, id string, grace time.Duration) error {
	m, err := b.meta(ctx, id)
	if errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	life, err := host.ReadLife(m.control)
	switch {
	case err != nil:
		return fmt.Errorf("stop container %s: %w", m.name, err)
	case life == host.Dead:
		return nil
	case life == host.Unborn:
		// Never started, or just coming up.
		if up, err := b.isUp(ctx, m); err != nil || !up {
			return err
		}
	}
	// The launcher does it, whether the engine answers or not.
	polite, cancel := context.WithTimeout(ctx, grace+stopMargin)
	defer cancel()
	err = b.host.Stop(polite, m.control, grace)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if life, err2 := host.ReadLife(m.control); err == nil && err2 == nil && life == host.Dead {
		return nil
	}
	return b.kill(ctx, m)
}

// isUp asks the engine whether a container runs.
func (b *Backend) isUp(ctx context.Context, m meta) (bool, error) {
	c, err := b.api.ContainerInspect(ctx, m.id)
	if dockerapi.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, b.engineError("stop container "+m.name, err)
	}
	return c.State.Running, nil
}

// kill ends a container whose launcher does not end by itself.
func (b *Backend) kill(ctx context.Context, m meta) error {
	doing := "stop container " + m.name
	if up, err := b.isUp(ctx, m); err != nil || !up {
		return err
	}
	b.cfg.Logger.Warn("container did not end by itself, killing it", "container", m.name)
	if err := b.api.ContainerKill(ctx, m.id, "SIGKILL"); err != nil && !dockerapi.IsNotFound(err) && !dockerapi.IsConflict(err) {
		return b.engineError(doing, err)
	}
	if err := b.api.ContainerWait(ctx, m.id); err != nil && !dockerapi.IsNotFound(err) {
		return b.engineError(doing, err)
	}
	return nil
}

// Remove forgets a container that does not run.
func (b *Backend) Remove(ctx context.Context, id string) error {
	doing := "remove container " + short(id)
	c, err := b.api.ContainerInspect(ctx, id)
	if dockerapi.IsNotFound(err) {
		b.forget(id)
		return nil
	}
	if err != nil {
		return b.engineError(doing, err)
	}
	m := metaOf(c)
	if c.State.Running {
		if err := b.awaitEnd(ctx, m); err != nil {
			return err
		}
	}
	b.setGone(c.ID, true)
	err = b.api.ContainerRemove(ctx, id, true)
	if err != nil && !dockerapi.IsNotFound(err) && !removalUnderWay(err) {
		b.setGone(c.ID, false)
		return b.engineError(doing, err)
	}
	b.forget(c.ID)
	return nil
}

// hasEnded says that the launcher has ended, or is about to: its record is
// there. The engine notices later.
func (b *Backend) hasEnded(m meta) bool {
	if _, recorded, err := host.ReadExit(m.control); err == nil && recorded {
		return true
	}
	life, err := host.ReadLife(m.control)
	return err == nil && life == host.Dead
}

// awaitEnd waits for an engine that is only late.
func (b *Backend) awaitEnd(ctx context.Context, m meta) error {
	if !b.hasEnded(m) {
		return fmt.Errorf("remove container %s: it still runs; stop it first", m.name)
	}
	wait, cancel := context.WithTimeout(ctx, teardown)
	defer cancel()
	if err := b.api.ContainerWait(wait, m.id); err != nil && !dockerapi.IsNotFound(err) {
		return b.engineError("remove container "+m.name, err)
	}
	return nil
}

// keepGone is how long a removed container is remembered as such: an answer of
// the engine from before its removal may still be under way.
const keepGone = 5 * time.Minute

// setGone notes that a container's end is this daemon's doing.
func (b *Backend) setGone(id string, removed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !removed {
		delete(b.gone, id)
		return
	}
	b.gone[id] = time.Now()
	for w := range b.watchers {
		w.drop(id)
	}
	if len(b.gone) > 1000 {
		for old, at := range b.gone {
			if time.Since(at) > keepGone {
				delete(b.gone, old)
			}
		}
	}
}

func (b *Backend) isGone(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, gone := b.gone[id]
	return gone
}

// poke makes every watcher look at a container again.
func (b *Backend) poke(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := range b.watchers {
		w.poke(id)
	}
}
