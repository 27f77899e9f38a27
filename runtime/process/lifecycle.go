package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

// stopMargin is how long a launcher may take beyond the grace, to reap and to
// write its record, before it is ended itself.
const stopMargin = 10 * time.Second

// Create makes the container's folders. Nothing runs yet.
func (b *Backend) Create(_ context.Context, spec runtime.ContainerSpec) (string, error) {
	if !plainName(spec.Name) {
		return "", fmt.Errorf("create container: %q is not a name", spec.Name)
	}
	written, err := json.Marshal(spec)
	if err != nil {
		return "", fmt.Errorf("create %s: %w", spec.Name, err)
	}
	hash := hashOf(written)
	iso := b.probe() // the first call runs something
	b.mu.Lock()
	defer b.mu.Unlock()
	if c, ok := b.containers[spec.Name]; ok {
		if c.hash != hash {
			return "", fmt.Errorf("create %s: %w", spec.Name, runtime.ErrConflict)
		}
		return spec.Name, nil
	}
	c := b.newContainer(saved{spec: spec, hash: hash})
	if err := c.make(iso, written); err != nil {
		return "", fmt.Errorf("create %s: %w", spec.Name, err)
	}
	b.containers[spec.Name] = c
	b.feed.Publish(spec.Name, c.now())
	// A pod's folder may know a run of this container that was removed since.
	if status, begun, err := host.ReadStatus(c.control); err == nil && begun && status.Final() {
		c.observe(status)
	}
	return spec.Name, nil
}

// make writes the container to disk. It is one when the ledger has it.
func (c *container) make(iso isolation, spec []byte) error {
	if iso.groups != nil && !c.keepable(iso) {
		c.groups = iso.groups.folders(c.spec.Name, c.spec.Resources.CPUMilli > 0)
	}
	view, err := c.view(iso)
	if err != nil {
		return err
	}
	c.shape = view
	if err := host.MakeFolder(c.spec.PodDir, c.spec.Container); err != nil {
		return err
	}
	for _, m := range view.Mounts {
		if m.Layer != "" {
			if err := os.MkdirAll(m.Layer, 0o711); err != nil { // In a closed parent.
				return err
			}
		}
	}
	return c.b.ledger.add(c.spec.Name, spec, c.groups)
}

// makeTemp makes the folder for temporary files of a container with a launcher
// of its own.
func (c *container) makeTemp() error {
	dir := filepath.Join(c.dir, tmpFolder)
	if err := os.MkdirAll(dir, 0o711); err != nil { // In a closed parent; the command may be any user.
		return err
	}
	return os.Chmod(dir, 0o777|os.ModeSticky)
}

// Start starts the launcher.
func (b *Backend) Start(_ context.Context, id string) error {
	c, err := b.find(id)
	if err != nil {
		return err
	}
	c.life.Lock()
	defer c.life.Unlock()
	switch state := c.now().State; {
	case final(state):
		return fmt.Errorf("start %s: %w", id, runtime.ErrExited)
	case state != runtime.StateCreated:
		return nil
	}
	iso := b.probe()
	if c.keepable(iso) {
		kept, err := c.startKept(iso)
		if err != nil {
			return fmt.Errorf("start %s: %w", id, err)
		}
		if kept {
			c.observe(host.Status{Phase: launch.PhaseWaiting})
			return nil
		}
	}
	gone, err := c.spawn(iso)
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	c.observe(host.Status{Phase: launch.PhaseWaiting})
	c.attend(gone)
	return nil
}

// Launch hands the launcher its command.
func (b *Backend) Launch(ctx context.Context, id string, cmd launch.Command) error {
	c, err := b.find(id)
	if err != nil {
		return err
	}
	if c.now().State == runtime.StateCreated {
		return fmt.Errorf("launch in %s: it has not been started", id)
	}
	return c.launched(c.launch(ctx, cmd))
}

// launch hands over the command, unless the launcher has ended.
func (c *container) launch(ctx context.Context, cmd launch.Command) error {
	if final(c.now().State) {
		return host.Outcome(c.control, cmd.ID)
	}
	cmd.Env = append(append([]string{}, cmd.Env...), c.deviceEnv()...)
	if cmd.User == "" {
		cmd.User = c.spec.User
	}
	if cmd.Grace == 0 {
		cmd.Grace = c.spec.StopGrace
	}
	c.mu.Lock()
	k := c.keeper
	c.mu.Unlock()
	if k != nil {
		return c.launchKept(ctx, k, cmd)
	}
	// A launcher that dies before it listens ends the wait.
	wait, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-c.ended:
			cancel(host.ErrNoLauncher)
		case <-done:
		}
	}()
	t, err := c.b.host.LaunchAndTalk(wait, c.control, cmd)
	if err == nil && t.Status.Started != nil {
		c.observe(t.Status)
		c.handOver(t)
		return nil
	}
	if err != nil && ctx.Err() == nil && wait.Err() != nil {
		// It ended meanwhile; the folder knows whether it ran this command.
		return host.Outcome(c.control, cmd.ID)
	}
	return err
}

// launchKept hands the command to the container's keeper, unless it has one.
func (c *container) launchKept(ctx context.Context, k *keeper, cmd launch.Command) error {
	select {
	case <-c.begun:
	default:
		if err := k.conn.Send(launch.Frame{Launch: &cmd}); err != nil && ctx.Err() == nil {
			select { // it hung up: listen finds out what became of the container
			case <-c.ended:
			case <-ctx.Done():
			}
		}
	}
	select {
	case <-c.begun:
	case <-c.ended:
		return host.Outcome(c.control, cmd.ID)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c.mu.Lock()
	has := c.begins.CommandID
	c.mu.Unlock()
	if has != cmd.ID {
		return fmt.Errorf("launch %s: %w (%s)", cmd.ID, host.ErrOtherCommand, has)
	}
	return nil
}

// launched turns what came of a launch into the runtime's errors.
func (c *container) launched(err error) error {
	switch {
	case errors.Is(err, host.ErrOtherCommand):
		return fmt.Errorf("launch in %s: %w: %w", c.spec.Name, runtime.ErrConflict, err)
	case errors.Is(err, host.ErrNoLauncher), errors.Is(err, host.ErrLost):
		return fmt.Errorf("launch in %s: %w: %w", c.spec.Name, runtime.ErrExited, err)
	case err != nil:
		return fmt.Errorf("launch in %s: %w", c.spec.Name, err)
	}
	if c.now().State != runtime.StateWaiting {
		return nil
	}
	// The follower says so too, in a moment.
	if started, err := host.ReadStarted(c.control); err == nil && started != nil {
		c.observe(host.Status{Phase: launch.PhaseRunning, Started: started})
	}
	return nil
}

// Stop ends the command, and what does not end, by force.
func (b *Backend) Stop(ctx context.Context, id string, grace time.Duration) error {
	c, err := b.find(id)
	if err != nil {
		return err
	}
	c.life.Lock()
	state := c.now().State
	c.life.Unlock()
	if final(state) || state == runtime.StateCreated {
		return nil
	}
	patience, cancel := context.WithTimeout(ctx, grace+stopMargin)
	defer cancel()
	err = b.host.Stop(patience, c.control, grace)
	if err == nil {
		select {
		case <-c.ended:
			return nil
		case <-patience.Done():
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("stop %s: %w", id, context.Cause(ctx))
	}
	b.cfg.Logger.Warn("a launcher does not end its command; it is killed", "container", id, "error", err)
	if err := c.kill(); err != nil {
		return fmt.Errorf("stop %s: %w", id, err)
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: it was killed and still does not end: %w", id, context.Cause(ctx))
	}
}

// Remove forgets the container and what it wrote outside its pod's folder.
func (b *Backend) Remove(_ context.Context, id string) error {
	c, err := b.find(id)
	if err != nil {
		return nil //nolint:nilerr // Gone is what was asked for.
	}
	c.life.Lock()
	defer c.life.Unlock()
	state := c.now().State
	if !final(state) && state != runtime.StateCreated {
		return fmt.Errorf("remove %s: it is %s; stop it first", id, state)
	}
	trash := filepath.Join(filepath.Dir(c.dir), "."+c.spec.Name+"."+strconv.FormatInt(time.Now().UnixNano(), 36))
	err = os.Rename(c.dir, trash)
	if errors.Is(err, os.ErrNotExist) {
		err, trash = nil, "" // it never had a folder
	}
	if err == nil {
		err = c.b.ledger.remove(c.spec.Name)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	b.mu.Lock()
	delete(b.containers, id)
	b.mu.Unlock()
	b.feed.Forget(id)
	switch {
	case c.keeper == nil:
		b.discard(trash, c.cgroups()...)
	case trash != "":
		b.discard(trash)
	}
	return nil
}

// discard deletes a folder and control groups in the background.
func (b *Backend) discard(dir string, groups ...string) {
	b.followers.Go(func() {
		removeGroups(groups)
		if dir == "" {
			return
		}
		if err := removeAll(dir); err != nil {
			b.cfg.Logger.Warn("a container's folder cannot be removed", "folder", dir, "error", err)
		}
	})
}

// List returns what is on disk; this Backend is its only writer.
func (b *Backend) List(context.Context) ([]runtime.Container, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]runtime.Container, 0, len(b.containers))
	for _, c := range b.containers {
		all = append(all, c.now())
	}
	return all, nil
}

// Watch reports every container and each change.
func (b *Backend) Watch(ctx context.Context, fn func(runtime.Container)) error {
	return b.feed.Watch(ctx, fn)
}

// removeAll deletes a folder, also one whose owner closed parts of it.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, os.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) // So that it can be emptied.
		}
		return nil
	})
	return os.RemoveAll(dir)
}
