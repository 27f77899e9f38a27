package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/embedded"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

const processAbout = "A chain of steps that run `/bin/true` on the process runtime, each waiting for the one before, handed to a daemon " +
	"over its socket and watched to its end: submission, scheduling, isolation, logs, exit records and every durable " +
	"state on the way are in the time, which is divided by the number of steps. The floors run the same program as " +
	"often, one after another: by fork and exec alone, and by fork and exec of skiff's launcher with a pod folder of its own."

// noop is the program that steps run: it does nothing, and every image has it.
const noop = "/bin/true"

// runProcess measures the chain beside both floors, in turns.
func runProcess(ctx context.Context, b *bench) error {
	steps := b.size(1000, 25)
	pipeline, err := chain(steps, "busybox", noop)
	if err != nil {
		return err
	}
	warm, err := chain(2, "busybox", noop)
	if err != nil {
		return err
	}
	floor, err := newLauncherFloor(b)
	if err != nil {
		return err
	}
	each := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) / float64(steps) }
	var ours, launched, bare []float64
	err = b.withDaemon(ctx, "chain", []string{"--runtime", "process"}, func(d *daemon) error {
		if err := b.describeRuntime(ctx, d); err != nil {
			return err
		}
		if _, err := d.run(ctx, warm); err != nil {
			return err
		}
		for i := range b.pairs() {
			took, err := d.run(ctx, pipeline)
			if err != nil {
				return err
			}
			withLauncher, err := repeat(ctx, steps, floor.run)
			if err != nil {
				return fmt.Errorf("the floor with a launcher: %w", err)
			}
			alone, err := repeat(ctx, steps, func(ctx context.Context) error { return exec.CommandContext(ctx, noop).Run() })
			if err != nil {
				return fmt.Errorf("the floor of fork and exec: %w", err)
			}
			ours, launched, bare = append(ours, each(took)), append(launched, each(withLauncher)), append(bare, each(alone))
			b.say("round %d: %.2f ms a step, launcher alone %.2f ms, fork and exec %.2f ms", i+1, ours[i], launched[i], bare[i])
		}
		return nil
	})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("a step of a chain of %s, durable", thousands(fmt.Sprint(steps)))
	b.figure(name, milliseconds(), atMost(5, milliseconds()), ours)
	b.pair(name, "fork and exec with the launcher", milliseconds(), noBar(), ours, launched)
	b.pair(name, "fork and exec", milliseconds(), noBar(), ours, bare)
	return nil
}

// describeRuntime notes what steps run in: the isolation costs some of the time.
func (b *bench) describeRuntime(ctx context.Context, d *daemon) error {
	node, err := d.node(ctx)
	if err != nil {
		return err
	}
	b.note("Runtime: %s, isolation: %s.", node.Runtime, node.Isolation)
	return nil
}

// repeat is the time of n calls, one after another.
func repeat(ctx context.Context, n int, fn func(context.Context) error) (time.Duration, error) {
	begin := time.Now()
	for range n {
		if err := fn(ctx); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}

// launcherFloor runs the launcher as nothing but a program.
type launcherFloor struct {
	launcher, dir string
	made          int
}

func newLauncherFloor(b *bench) (*launcherFloor, error) {
	path, err := embedded.Unpack(embedded.Config{Dir: filepath.Join(b.dir, "bin")})
	if err != nil {
		return nil, err
	}
	return &launcherFloor{launcher: path, dir: filepath.Join(b.dir, "pods")}, nil
}

func (f *launcherFloor) run(ctx context.Context) error {
	f.made++
	pod := filepath.Join(f.dir, fmt.Sprint(f.made))
	if err := host.Prepare(pod, "main", launch.Config{}); err != nil {
		return err
	}
	control := launch.ControlDir(pod, "main")
	if err := host.PlaceCommand(control, launch.Command{ID: "floor", Argv: []string{noop}}); err != nil {
		return err
	}
	if err := exec.CommandContext(ctx, f.launcher, control).Run(); err != nil {
		return fmt.Errorf("run the launcher: %w", err)
	}
	return nil
}
