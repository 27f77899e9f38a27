package memory_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/memory"
	"github.com/skiff-ml/skiff/runtime/runtimetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// act does what the conformance suite's simple commands do.
func act(ctx context.Context, run memory.Run) memory.Result {
	verb, args, ok := runtimetest.Action(run.Command)
	if !ok {
		return memory.Result{ExitCode: 127}
	}
	fail := func(err error) memory.Result {
		if err != nil {
			return memory.Result{ExitCode: 1, Message: err.Error()}
		}
		return memory.Result{}
	}
	switch verb {
	case "exit":
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return fail(err)
		}
		return memory.Result{ExitCode: code}
	case "sleep":
		seconds, err := strconv.Atoi(args[0])
		if err != nil {
			return fail(err)
		}
		select {
		case <-time.After(time.Duration(seconds) * time.Second):
		case <-memory.Stopping(ctx):
			return memory.Result{ExitCode: 143}
		case <-ctx.Done():
		}
		return memory.Result{}
	case "write":
		return fail(os.WriteFile(memory.HostPath(run.Spec, args[0]), []byte(args[1]), 0o600))
	case "append":
		f, err := os.OpenFile(memory.HostPath(run.Spec, args[0]), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return fail(err)
		}
		_, err = fmt.Fprintln(f, args[1])
		return fail(errors.Join(err, f.Close()))
	case "say":
		_, err := fmt.Fprintln(run.Stdout, args[0])
		return fail(err)
	}
	return memory.Result{ExitCode: 127}
}

func TestConformance(t *testing.T) {
	runtimetest.Run(t, func(t *testing.T) *runtimetest.Harness {
		w := memory.NewWorld(t.TempDir(), act)
		t.Cleanup(w.Close)
		w.RefuseImage("example.com/team/trainer:7", errors.New("no such image"))
		return &runtimetest.Harness{
			Backend:   memory.New(memory.Config{World: w}),
			NewPodDir: func(t *testing.T) string { return t.TempDir() },
			Restart:   func(*testing.T) runtime.Backend { return memory.New(memory.Config{World: w}) },
			Image:     "alpine", UnknownImage: "example.com/team/trainer:7",
			SignalLauncher: func(t *testing.T, id string, sig syscall.Signal) {
				if sig != syscall.SIGKILL || !w.Kill(id) {
					t.Errorf("signal %v to %s", sig, id)
				}
			},
		}
	})
}

// errLost stands for an answer that did not arrive.
var errLost = errors.New("connection reset")

func TestLostReplyIsAdoptedByARepeat(t *testing.T) {
	w := memory.NewWorld(t.TempDir(), act)
	t.Cleanup(w.Close)
	lost := map[string]bool{}
	b := memory.New(memory.Config{World: w, Faults: memory.Faults{
		After: func(_ context.Context, method, _ string) error {
			if !lost[method] && (method == "Create" || method == "Start" || method == "Launch") {
				lost[method] = true
				return errLost
			}
			return nil
		},
	}})
	spec := runtime.ContainerSpec{Name: "a", PodDir: t.TempDir(), Container: "main"}
	cmd := launch.Command{ID: "1", Argv: []string{"/bin/sh", "-c", "", "exit", "0"}}
	steps := []func() error{
		func() error { _, err := b.Create(t.Context(), spec); return err },
		func() error { return b.Start(t.Context(), "a") },
		func() error { return b.Launch(t.Context(), "a", cmd) },
	}
	for i, step := range steps {
		if err := step(); !errors.Is(err, errLost) {
			t.Fatalf("step %d: %v", i, err)
		}
		if err := step(); err != nil && !errors.Is(err, runtime.ErrExited) {
			t.Fatalf("step %d again: %v", i, err)
		}
	}
	done := errors.New("done")
	ctx, cancel := context.WithCancelCause(t.Context())
	err := b.Watch(ctx, func(c runtime.Container) {
		if c.State == runtime.StateExited && c.Exit.ExitCode == 0 {
			cancel(done)
		}
	})
	if !errors.Is(err, done) {
		t.Error(err)
	}
}

func TestVanish(t *testing.T) {
	w := memory.NewWorld(t.TempDir(), act)
	t.Cleanup(w.Close)
	b := memory.New(memory.Config{World: w})
	id, err := b.Create(t.Context(), runtime.ContainerSpec{Name: "a", PodDir: t.TempDir(), Container: "main"})
	if err == nil {
		err = b.Start(t.Context(), id)
	}
	if err == nil {
		err = b.Launch(t.Context(), id, launch.Command{ID: "1", Argv: []string{"sh", "-c", "", "sleep", "600"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	if !w.Vanish(id) {
		t.Fatal("there is nothing to vanish")
	}
	if all, err := b.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("the list holds %v, %v", all, err)
	}
	if err := b.Start(t.Context(), id); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("start: %v", err)
	}
}
