// Package dockerbench measures what a step costs on Docker beside a bare
// container of the same options, in one process and in turns, so that a ratio
// can be told. It is for benchmarks and imports nothing above runtime/docker.
package dockerbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/launch"
)

// Options say what is measured. LauncherPath is required.
type Options struct {
	// Host is the engine's address; empty means docker.DefaultHost.
	Host string
	// Image is at hand and has /bin/true.
	Image string
	// LauncherPath is the launcher's program.
	LauncherPath string
	// Network is "" for the namespace's bridge, or "none".
	Network string
}

// Bench measures one kind of container. It is not safe for concurrent use.
type Bench struct {
	opts    Options
	backend *docker.Backend
	api     dockerapi.API
	state   string
	image   runtime.Image

	cancel context.CancelFunc
	watch  sync.WaitGroup
	mu     sync.Mutex
	ends   map[string]chan runtime.Container // by container name

	config *dockerapi.Config // of the bare container
	host   *dockerapi.HostConfig
	made   int
}

// New prepares a measurement. Close it afterwards.
func New(ctx context.Context, opts Options) (*Bench, error) {
	if opts.Host == "" {
		opts.Host = docker.DefaultHost
	}
	state, err := os.MkdirTemp("", "dockerbench-")
	if err != nil {
		return nil, err
	}
	b := &Bench{opts: opts, state: state, ends: map[string]chan runtime.Container{}}
	b.backend, err = docker.New(docker.Config{
		Host: opts.Host, StateDir: state, StoreID: "bench-" + uuid.NewString()[:13], LauncherPath: opts.LauncherPath,
	})
	if err == nil {
		b.api, err = dockerapi.New(opts.Host)
	}
	if err == nil {
		b.image, err = b.backend.PrepareImage(ctx, runtime.ImageRequest{Ref: opts.Image, Policy: runtime.PullIfNotPresent}, nil)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(state))
	}
	watch, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.cancel = cancel
	b.watch.Go(func() {
		_ = b.backend.Watch(watch, b.changed) // It ends with Close.
	})
	if err := b.prepareBare(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Close ends the watch and removes the state.
func (b *Bench) Close() error {
	b.cancel()
	b.watch.Wait()
	return errors.Join(b.backend.Close(), b.api.Close(), os.RemoveAll(b.state))
}

func (b *Bench) changed(c runtime.Container) {
	if c.State != runtime.StateExited && c.State != runtime.StateLost {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if end := b.ends[c.Name]; end != nil {
		end <- c
		delete(b.ends, c.Name)
	}
}

func (b *Bench) spec() (runtime.ContainerSpec, error) {
	b.made++
	name := fmt.Sprintf("skiff-bench-%s-%d", filepath.Base(b.state), b.made)
	pod := filepath.Join(b.state, "pods", name)
	if err := os.MkdirAll(pod, 0o711); err != nil {
		return runtime.ContainerSpec{}, err
	}
	return runtime.ContainerSpec{
		Name: name, Image: b.image, PodDir: pod, Container: "main", Network: b.opts.Network,
		Resources: runtime.Resources{CPUMilli: 1000, MemoryBytes: 256 << 20},
	}, nil
}

// Step is one step through the backend: create, start, launch, and the news of
// its exit record. What follows (the removal) is not measured.
func (b *Bench) Step(ctx context.Context) (time.Duration, error) {
	spec, err := b.spec()
	if err != nil {
		return 0, err
	}
	end := make(chan runtime.Container, 1)
	b.mu.Lock()
	b.ends[spec.Name] = end
	b.mu.Unlock()
	begin := time.Now()
	id, err := b.backend.Create(ctx, spec)
	if err == nil {
		err = b.backend.Start(ctx, id)
	}
	if err == nil {
		err = b.backend.Launch(ctx, id, launch.Command{ID: spec.Name, Argv: []string{"/bin/true"}})
	}
	if err != nil {
		return 0, err
	}
	select {
	case c := <-end:
		took := time.Since(begin)
		if c.Exit == nil || c.Exit.ExitCode != 0 {
			return 0, fmt.Errorf("step %s ended as %s: %s %s", spec.Name, c.State, c.Reason, c.Message)
		}
		return took, b.backend.Remove(ctx, id)
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// prepareBare takes a step's options, without what makes it a step.
func (b *Bench) prepareBare(ctx context.Context) error {
	spec, err := b.spec()
	if err != nil {
		return err
	}
	id, err := b.backend.Create(ctx, spec)
	if err != nil {
		return err
	}
	c, err := b.api.ContainerInspect(ctx, id)
	if err != nil {
		return err
	}
	b.config, b.host = c.Config, c.HostConfig
	b.config.Entrypoint, b.config.Cmd, b.config.Hostname = []string{"/bin/true"}, nil, ""
	b.config.Labels = nil
	b.host.Mounts = slices.DeleteFunc(b.host.Mounts, func(m dockerapi.Mount) bool { return strings.HasPrefix(m.Target, "/skiff/") })
	return b.backend.Remove(ctx, id)
}

// Bare is one container of the same options: create, start, wait. The removal
// is not measured here either.
func (b *Bench) Bare(ctx context.Context) (time.Duration, error) {
	b.made++
	begin := time.Now()
	id, err := b.api.ContainerCreate(ctx, fmt.Sprintf("skiff-bare-%s-%d", filepath.Base(b.state), b.made), b.config, b.host)
	if err == nil {
		err = b.api.ContainerStart(ctx, id)
	}
	if err == nil {
		err = b.api.ContainerWait(ctx, id)
	}
	took := time.Since(begin)
	if err != nil {
		return 0, err
	}
	c, err := b.api.ContainerInspect(ctx, id)
	if err == nil && c.State.ExitCode != 0 {
		err = fmt.Errorf("the bare container ended with %d", c.State.ExitCode)
	}
	return took, errors.Join(err, b.api.ContainerRemove(ctx, id, true))
}

// Pair is one measurement of both.
type Pair struct{ Bare, Step time.Duration }

// Ratio is the step's cost in bare containers.
func (p Pair) Ratio() float64 { return float64(p.Step) / float64(p.Bare) }

// Pairs measures both n times in turns; which goes first changes each time.
func (b *Bench) Pairs(ctx context.Context, n int) ([]Pair, error) {
	pairs := make([]Pair, n)
	for i := range pairs {
		var err error
		order := []func(){
			func() { pairs[i].Bare, err = b.Bare(ctx) },
			func() { pairs[i].Step, err = b.Step(ctx) },
		}
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, measure := range order {
			if measure(); err != nil {
				return nil, err
			}
		}
	}
	return pairs, nil
}
