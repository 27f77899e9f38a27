package process_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
	"github.com/skiff-ml/skiff/runtime/launch/launchtest"
	"github.com/skiff-ml/skiff/runtime/process"
)

// BenchmarkStep is one container's whole life around a command that does
// nothing, at each level, beside a bare process and a bare launcher.
func BenchmarkStep(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("launcher", func(b *testing.B) {
		path, dir := launchtest.Build(b), b.TempDir()
		for i := 0; b.Loop(); i++ {
			pod := filepath.Join(dir, fmt.Sprint(i))
			if err := host.Prepare(pod, "main", launch.Config{}); err != nil {
				b.Fatal(err)
			}
			control := launch.ControlDir(pod, "main")
			if err := host.PlaceCommand(control, launch.Command{ID: "a", Argv: []string{"/bin/true"}}); err != nil {
				b.Fatal(err)
			}
			if err := exec.Command(path, control).Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, tt := range []struct {
		name string
		cfg  process.Config
	}{
		{"process", process.Config{Level: process.LevelProcess, NoCgroups: true}},
		{"cgroups", process.Config{Level: process.LevelProcess}},
		{"namespaces", process.Config{NoCgroups: true}},
		{"strongest", process.Config{}},
	} {
		b.Run(tt.name, func(b *testing.B) { benchmarkStep(b, tt.cfg) })
	}
}

func benchmarkStep(b *testing.B, cfg process.Config) {
	cfg.StateDir, cfg.LauncherPath = b.TempDir(), launchtest.Build(b)
	backend, err := process.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close() //nolint:errcheck // A benchmark's own.
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	exits := make(chan runtime.Container, 16)
	go func() {
		_ = backend.Watch(ctx, func(c runtime.Container) {
			if c.State == runtime.StateExited || c.State == runtime.StateLost {
				exits <- c
			}
		})
	}()
	img, err := backend.PrepareImage(ctx, runtime.ImageRequest{Ref: "alpine"}, nil)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(cfg.StateDir, "pods"), 0o700); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		begin := time.Now()
		name := fmt.Sprintf("step-%d", i)
		spec := runtime.ContainerSpec{Name: name, Image: img, PodDir: filepath.Join(cfg.StateDir, "pods", name), Container: "main"}
		id, err := backend.Create(ctx, spec)
		if err == nil {
			err = backend.Start(ctx, id)
		}
		if err == nil {
			err = backend.Launch(ctx, id, launch.Command{ID: "a", Argv: []string{"/bin/true"}})
		}
		if err != nil {
			b.Fatal(err)
		}
		if c := <-exits; c.Exit == nil || c.Exit.ExitCode != 0 {
			b.Fatalf("%+v", c)
		}
		if err := backend.Remove(ctx, id); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin))
	}
	// Beside the mean, which other work on the machine moves.
	slices.Sort(took)
	b.ReportMetric(float64(took[0].Microseconds())/1000, "ms/min")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/median")
}
