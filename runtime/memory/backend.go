package memory

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

// Faults bends the calls of a Backend. The zero value bends nothing. Each hook
// is called with the name of the method ("Create") and the container's id or
// name, and must be safe for concurrent use.
type Faults struct {
	// Before is called first; an error is returned without anything done.
	Before func(ctx context.Context, method, id string) error
	// After is called when all is done; an error replaces the reply, as when
	// the answer of an engine is lost on its way.
	After func(ctx context.Context, method, id string) error
}

// Config is what a Backend is made from.
type Config struct {
	World  *World
	Faults Faults
	// Inventory is what the node has; zero means 8 CPUs and 32 GiB.
	Inventory runtime.Inventory
}

// Backend is a daemon's view of a World. The zero Faults make it perfect.
type Backend struct{ cfg Config }

var _ runtime.Backend = (*Backend)(nil)

// New returns a Backend on a world. It holds nothing of its own, so a daemon's
// death is simply its last use.
func New(cfg Config) *Backend {
	if cfg.Inventory == (runtime.Inventory{}) {
		cfg.Inventory = runtime.Inventory{CPUMilli: 8000, MemoryBytes: 32 << 30}
	}
	return &Backend{cfg: cfg}
}

// call wraps one method with its faults.
func (b *Backend) call(ctx context.Context, method, id string, do func() error) error {
	if f := b.cfg.Faults.Before; f != nil {
		if err := f(ctx, method, id); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if err := do(); err != nil {
		return err
	}
	if f := b.cfg.Faults.After; f != nil {
		return f(ctx, method, id)
	}
	return nil
}

// Name is "memory".
func (b *Backend) Name() string { return "memory" }

// Capabilities are those of functions.
func (b *Backend) Capabilities(context.Context) (runtime.Capabilities, error) {
	return runtime.Capabilities{Images: true, Isolation: "functions", Mounts: true, GPU: "env"}, nil
}

// Inventory is what Config says.
func (b *Backend) Inventory(context.Context) (runtime.Inventory, error) { return b.cfg.Inventory, nil }

// PrepareImage knows every image that the world does not refuse.
func (b *Backend) PrepareImage(ctx context.Context, req runtime.ImageRequest, progress func(runtime.ImageProgress)) (runtime.Image, error) {
	var img runtime.Image
	err := b.call(ctx, "PrepareImage", req.Ref, func() error {
		b.cfg.World.mu.Lock()
		reason := b.cfg.World.images[req.Ref]
		b.cfg.World.mu.Unlock()
		if reason != nil {
			return fmt.Errorf("image %s: %w: %w", req.Ref, reason, runtime.ErrImageUnavailable)
		}
		if progress != nil {
			progress(runtime.ImageProgress{Status: "ready"})
		}
		img = runtime.Image{ID: req.Ref, Digest: "memory:" + req.Ref, PipSatisfied: len(req.Pip) > 0}
		if err := req.Check(img); err != nil {
			return err
		}
		return nil
	})
	if err != nil {
		return runtime.Image{}, err
	}
	return img, nil
}

// Create makes a container.
func (b *Backend) Create(ctx context.Context, spec runtime.ContainerSpec) (string, error) {
	err := b.call(ctx, "Create", spec.Name, func() error { return b.cfg.World.create(spec) })
	if err != nil {
		return "", err
	}
	return spec.Name, nil
}

func (w *World) create(spec runtime.ContainerSpec) error {
	hash, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("create %s: %w", spec.Name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if c, ok := w.containers[spec.Name]; ok {
		if c.hash != string(hash) {
			return fmt.Errorf("create %s: %w", spec.Name, runtime.ErrConflict)
		}
		return nil
	}
	if err := host.Prepare(spec.PodDir, spec.Container, launch.Config{Container: spec.Name, Log: spec.Log}); err != nil {
		return fmt.Errorf("create %s: %w", spec.Name, err)
	}
	c := &container{w: w, spec: spec, hash: string(hash), ended: make(chan struct{})}
	c.state = runtime.Container{ID: spec.Name, Name: spec.Name, Labels: spec.Labels}
	w.containers[spec.Name] = c
	c.set(runtime.StateCreated)
	return nil
}

// find is the container of an id.
func (b *Backend) find(id string) (*container, error) {
	if c := b.cfg.World.find(id); c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
}

// with calls do with a container, and the faults around it.
func (b *Backend) with(ctx context.Context, method, id string, do func(*container) error) error {
	return b.call(ctx, method, id, func() error {
		c, err := b.find(id)
		if err != nil {
			return err
		}
		return do(c)
	})
}

// Start makes a container wait for its command.
func (b *Backend) Start(ctx context.Context, id string) error {
	return b.with(ctx, "Start", id, (*container).start)
}

// Launch runs the command.
func (b *Backend) Launch(ctx context.Context, id string, cmd launch.Command) error {
	return b.with(ctx, "Launch", id, func(c *container) error { return c.launch(cmd) })
}

// Stop ends the command.
func (b *Backend) Stop(ctx context.Context, id string, grace time.Duration) error {
	return b.with(ctx, "Stop", id, func(c *container) error {
		if !c.end(launch.ReasonStopped, grace) {
			return nil
		}
		select {
		case <-c.ended:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
}

// Remove forgets a container that does not run.
func (b *Backend) Remove(ctx context.Context, id string) error {
	return b.call(ctx, "Remove", id, func() error {
		c := b.cfg.World.find(id)
		if c == nil {
			return nil
		}
		if s := c.now().State; s == runtime.StateWaiting || s == runtime.StateRunning {
			return fmt.Errorf("remove %s: it is %s; stop it first", id, s)
		}
		w := b.cfg.World
		w.mu.Lock()
		delete(w.containers, id)
		w.mu.Unlock()
		w.feed.Forget(id)
		return nil
	})
}

// List is what the world holds.
func (b *Backend) List(ctx context.Context) ([]runtime.Container, error) {
	var all []runtime.Container
	err := b.call(ctx, "List", "", func() error {
		w := b.cfg.World
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range w.containers {
			all = append(all, c.now())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Watch reports every container and each change.
func (b *Backend) Watch(ctx context.Context, fn func(runtime.Container)) error {
	return b.cfg.World.feed.Watch(ctx, fn)
}

// Exec is not something that functions can do.
func (b *Backend) Exec(_ context.Context, id string, _ runtime.ExecRequest) (int, error) {
	return 0, fmt.Errorf("exec in %s: %w", id, runtime.ErrNotSupported)
}

// Dial connects to a port of this machine: a handler may listen.
func (b *Backend) Dial(ctx context.Context, id string, port int) (net.Conn, error) {
	var conn net.Conn
	err := b.with(ctx, "Dial", id, func(c *container) error {
		if s := c.now().State; s != runtime.StateRunning {
			return fmt.Errorf("dial %s: it is %s", id, s)
		}
		var dialer net.Dialer
		var err error
		conn, err = dialer.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		return err
	})
	return conn, err
}

// Stats are a running function's: it uses nothing that can be told apart.
func (b *Backend) Stats(ctx context.Context, id string) (runtime.Stats, error) {
	err := b.with(ctx, "Stats", id, func(c *container) error {
		if s := c.now().State; s != runtime.StateRunning && s != runtime.StateWaiting {
			return fmt.Errorf("stats of %s: it is %s", id, s)
		}
		return nil
	})
	if err != nil {
		return runtime.Stats{}, err
	}
	return runtime.Stats{At: time.Now(), Pids: 1}, nil
}

// EnsureVolume makes a folder in the world's.
func (b *Backend) EnsureVolume(ctx context.Context, namespace, name string) (string, error) {
	for _, part := range []string{namespace, name} {
		if part == "" || part[0] == '.' || strings.ContainsAny(part, "/\x00") {
			return "", fmt.Errorf("make volume %s/%s: %q is not a name", namespace, name, part)
		}
	}
	dir := filepath.Join(b.cfg.World.volumes, namespace, name)
	err := b.call(ctx, "EnsureVolume", name, func() error { return os.MkdirAll(dir, 0o750) })
	return dir, err
}

// RemoveVolume removes such a folder.
func (b *Backend) RemoveVolume(ctx context.Context, namespace, name string) error {
	for _, part := range []string{namespace, name} {
		if part == "" || part[0] == '.' || strings.ContainsAny(part, "/\x00") {
			return fmt.Errorf("remove volume %s/%s: %q is not a name", namespace, name, part)
		}
	}
	dir := filepath.Join(b.cfg.World.volumes, namespace, name)
	return b.call(ctx, "RemoveVolume", name, func() error { return os.RemoveAll(dir) })
}
