package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime/docker"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/docker/dockerbench"
	"github.com/skiff-ml/skiff/runtime/launch/embedded"
)

const dockerAbout = "A chain of steps that run `/bin/true` in a container each, each waiting for the one before, handed to a daemon over " +
	"its socket and watched to its end; the time is divided by the number of steps. Beside it, in turns, as many bare " +
	"containers with the options of such a step (limits, capabilities, network and mounts, less the launcher's own two), " +
	"one after another: created, started and waited for. \"Removed too\" counts each bare container's removal, which skiff " +
	"does behind the next step's back. A ratio below 1 is possible: a step has ended with its launcher's exit record, while " +
	"the engine answers a wait only after it has taken the container down (about 0.1 s later where this was looked at). \"Through the runtime alone\" leaves the daemon out: the backend's calls and the " +
	"news of the exit record."

const (
	// shellImage and pythonImage are what `make images` makes.
	shellImage  = "skiffdev/busybox:1"
	pythonImage = "skiffdev/python:3.11"
	// enginePatience is how long an engine may take to answer at all.
	enginePatience = 5 * time.Second
)

// dockerHost is the engine that the daemon uses too.
func dockerHost() string { return cmp.Or(os.Getenv("DOCKER_HOST"), docker.DefaultHost) }

// engine connects to Docker; the error says why an area that needs it is left out.
func engine(ctx context.Context, image string) (*dockerapi.Client, error) {
	api, err := dockerapi.New(dockerHost())
	if err != nil {
		return nil, err
	}
	probe, cancel := context.WithTimeout(ctx, enginePatience)
	defer cancel()
	if _, err := api.Connect(probe); err != nil {
		return nil, errors.Join(fmt.Errorf("no Docker engine answers at %s; run make engine: %w", dockerHost(), err), api.Close())
	}
	if _, err := api.ImageInspect(probe, image); err != nil {
		return nil, errors.Join(fmt.Errorf("the engine lacks the image %s; run make images: %w", image, err), api.Close())
	}
	return api, nil
}

// runDocker measures the chain beside bare containers, and the backend alone.
func runDocker(ctx context.Context, b *bench) (err error) {
	api, err := engine(ctx, shellImage)
	if err != nil {
		b.note("Left out: %v.", err)
		return ctx.Err()
	}
	defer func() { err = errors.Join(err, api.Close()) }()
	if err := b.dockerChain(ctx, api); err != nil {
		return err
	}
	return b.dockerBackend(ctx)
}

// dockerChain compares the chain with bare containers.
func (b *bench) dockerChain(ctx context.Context, api dockerapi.API) error {
	steps := b.size(10, 2)
	pipeline, err := chain(steps, shellImage, noop)
	if err != nil {
		return err
	}
	var ours, waited, removed []float64
	err = b.withDockerDaemon(ctx, api, "chain", func(d *daemon) error {
		if err := b.describeRuntime(ctx, d); err != nil {
			return err
		}
		bare, err := likeAStep(ctx, api, d, filepath.Join(b.dir, "mounts"))
		if err != nil {
			return err
		}
		measureOurs := func() error {
			took, err := d.run(ctx, pipeline)
			ours = append(ours, milli(took)/float64(steps))
			return err
		}
		measureBare := func() error {
			w, r, err := bare.times(ctx, steps)
			waited, removed = append(waited, milli(w)/float64(steps)), append(removed, milli(r)/float64(steps))
			return err
		}
		for i := range b.pairs() {
			first, second := measureOurs, measureBare
			if i%2 == 1 {
				first, second = second, first
			}
			if err := first(); err != nil {
				return err
			}
			if err := second(); err != nil {
				return err
			}
			b.say("pair %d: %.0f ms a step, bare %.0f ms, with removal %.0f ms", i+1, ours[i], waited[i], removed[i])
		}
		return nil
	})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("a step of a chain of %d", steps)
	b.pair(name, "bare create, start, wait", milliseconds(), ratioAtMost(1.15), ours, waited)
	b.pair(name+", removed too", "bare create, start, wait, remove", milliseconds(), noBar(), ours, removed)
	return nil
}

// withDockerDaemon is withDaemon that leaves no container behind: the daemon
// removes them some time after their steps, and a daemon that is stopped leaves
// the rest to the next one on its state, which here there is none.
func (b *bench) withDockerDaemon(ctx context.Context, api dockerapi.API, name string, fn func(d *daemon) error) error {
	return b.withDaemon(ctx, name, []string{"--runtime", "docker"}, func(d *daemon) error {
		node, err := d.node(ctx)
		if err != nil {
			return err
		}
		err = fn(d)
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyPatience)
		defer cancel()
		return errors.Join(err, awaitNoContainers(clean, api, node.StoreID))
	})
}

// awaitNoContainers waits for the daemon's own clean-up, and at the end of its
// patience removes by force what is left of this store.
func awaitNoContainers(ctx context.Context, api dockerapi.API, storeID string) error {
	patience := time.After(2 * enginePatience)
	for {
		left, err := api.ContainerList(ctx, core.LabelStore+"="+storeID)
		if err != nil {
			return fmt.Errorf("look for containers left behind: %w", err)
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
			continue
		case <-patience:
		}
		err = fmt.Errorf("the daemon left %d containers of finished steps for %s", len(left), 2*enginePatience)
		for _, c := range left {
			err = errors.Join(err, api.ContainerRemove(ctx, c.ID, true))
		}
		return err
	}
}

func milli(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// dockerBackend compares the backend's calls with a bare container.
func (b *bench) dockerBackend(ctx context.Context) (err error) {
	launcher, err := embedded.Unpack(embedded.Config{Dir: filepath.Join(b.dir, "bin")})
	if err != nil {
		return err
	}
	measured, err := dockerbench.New(ctx, dockerbench.Options{Host: dockerHost(), Image: shellImage, LauncherPath: launcher})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, measured.Close()) }()
	pairs, err := measured.Pairs(ctx, b.pairs())
	if err != nil {
		return err
	}
	var ours, bare []float64
	for _, p := range pairs {
		ours, bare = append(ours, milli(p.Step)), append(bare, milli(p.Bare))
	}
	b.pair("a step through the runtime alone", "bare create, start, wait", milliseconds(), noBar(), ours, bare)
	return nil
}

// bareContainer is a step's container without what makes it a step.
type bareContainer struct {
	api    dockerapi.API
	config *dockerapi.Config
	host   *dockerapi.HostConfig
	prefix string
	made   int
}

// likeAStep runs a step that lasts long enough to be looked at and takes its
// container's options.
func likeAStep(ctx context.Context, api dockerapi.API, d *daemon, mounts string) (*bareContainer, error) {
	pipeline, err := chain(1, shellImage, "/bin/sleep", "1")
	if err != nil {
		return nil, err
	}
	run, err := d.submit(ctx, pipeline)
	if err != nil {
		return nil, err
	}
	step, err := findContainer(ctx, api, run)
	if err != nil {
		return nil, errors.Join(err, d.await(ctx, run))
	}
	c := &bareContainer{api: api, config: step.Config, host: step.HostConfig, prefix: "skiff-bare-" + run}
	c.config.Entrypoint, c.config.Cmd, c.config.Hostname, c.config.Labels = []string{noop}, nil, "", nil
	// The pod's folders go with the pod: a tree of the same shape stands in for
	// the state folder, since some are mounted into others.
	var kept []dockerapi.Mount
	for _, m := range c.host.Mounts {
		if strings.HasPrefix(m.Target, "/skiff/") {
			continue
		}
		if below, ok := strings.CutPrefix(m.Source, d.state+string(filepath.Separator)); ok {
			if m.Source, err = standIn(m.Source, filepath.Join(mounts, below)); err != nil {
				return nil, err
			}
		}
		kept = append(kept, m)
	}
	c.host.Mounts = kept
	return c, d.await(ctx, run)
}

// standIn makes an empty file or folder, whichever source is.
func standIn(source, path string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("make a folder to mount: %w", err)
	}
	info, err := os.Stat(source)
	if err == nil && info.Mode().IsRegular() {
		err = os.WriteFile(path, nil, 0o644)
	} else {
		err = os.MkdirAll(path, 0o755)
	}
	if err != nil {
		return "", fmt.Errorf("make something to mount: %w", err)
	}
	return path, nil
}

// findContainer waits for a run's container.
func findContainer(ctx context.Context, api dockerapi.API, run string) (dockerapi.Inspect, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readyPatience, fmt.Errorf("run %s had no container within %s", run, readyPatience))
	defer cancel()
	for {
		found, err := api.ContainerList(ctx, core.LabelRun+"="+run)
		if err != nil {
			return dockerapi.Inspect{}, fmt.Errorf("look for a step's container: %w", errors.Join(err, context.Cause(ctx)))
		}
		if len(found) > 0 {
			c, err := api.ContainerInspect(ctx, found[0].ID)
			if err != nil {
				return c, fmt.Errorf("look at a step's container: %w", err)
			}
			return c, nil
		}
		select {
		case <-ctx.Done():
			return dockerapi.Inspect{}, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// times runs n containers one after another and says how long they took with
// and without their removal.
func (c *bareContainer) times(ctx context.Context, n int) (waited, removed time.Duration, err error) {
	for range n {
		c.made++
		begin := time.Now()
		id, err := c.api.ContainerCreate(ctx, fmt.Sprintf("%s-%d", c.prefix, c.made), c.config, c.host)
		if err != nil {
			return 0, 0, fmt.Errorf("create a bare container: %w", err)
		}
		if err = c.api.ContainerStart(ctx, id); err == nil {
			err = c.api.ContainerWait(ctx, id)
		}
		ended := time.Since(begin)
		// It is removed whatever became of it, on a context of its own.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), enginePatience)
		err = errors.Join(err, c.api.ContainerRemove(clean, id, true))
		cancel()
		if err != nil {
			return 0, 0, fmt.Errorf("run a bare container: %w", err)
		}
		waited, removed = waited+ended, removed+time.Since(begin)
	}
	return waited, removed, nil
}
