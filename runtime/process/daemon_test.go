package process_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/process"
)

// daemonFlag makes this binary a daemon that starts containers and hangs.
var daemonFlag = flag.String("daemon", "", "state folder of the daemon to be")

// TestDaemon is not a test but the daemon that TestKilledDaemon kills.
func TestDaemon(t *testing.T) {
	if *daemonFlag == "" {
		t.Skip("for TestKilledDaemon only")
	}
	b := open(t, process.Config{StateDir: *daemonFlag, LauncherPath: launcher(t)})
	img, err := b.PrepareImage(t.Context(), runtime.ImageRequest{Ref: "alpine"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		name := fmt.Sprintf("c%d", i)
		id, err := b.Create(t.Context(), runtime.ContainerSpec{
			Name: name, Image: img, PodDir: filepath.Join(*daemonFlag, "pods", name), Container: "main",
		})
		if err == nil {
			err = b.Start(t.Context(), id)
		}
		if err == nil {
			err = b.Launch(t.Context(), id, launch.Command{ID: name, Argv: []string{"/bin/sh", "-c", "sleep 0.3; exit 7"}})
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("launched")
	}
}

// TestKilledDaemon kills a daemon at some moment of its work, several times.
// Whatever it had begun ends as it would have; nothing runs twice, nothing is
// left over.
func TestKilledDaemon(t *testing.T) {
	for round := range 4 {
		state := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run", "^TestDaemon$", "-daemon", state, "-launcher", launcher(t))
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 3 + round {
			lines.Scan()
		}
		time.Sleep(time.Duration(round) * 3 * time.Millisecond) // anywhere in the next one
		_ = cmd.Process.Kill()
		_ = cmd.Wait()

		b := open(t, process.Config{StateDir: state, LauncherPath: launcher(t)})
		all, err := b.List(t.Context())
		if err != nil || len(all) < 3+round {
			t.Fatalf("round %d: %d containers, %v", round, len(all), err)
		}
		finish(t, b, all)
		entries, err := os.ReadDir(filepath.Join(state, "process"))
		if err != nil || len(entries) != 1 || !entries[0].Type().IsRegular() {
			t.Errorf("round %d: left over beside the ledger: %v, %v", round, entries, err)
		}
		if all, err := b.List(t.Context()); err != nil || len(all) > 0 {
			t.Errorf("round %d: left over: %v, %v", round, all, err)
		}
	}
}

// finish brings every container to its end as an engine would, and removes it.
func finish(t *testing.T, b *process.Backend, all []runtime.Container) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, c := range all {
		// Repeats of what may have been done.
		cmd := launch.Command{ID: c.Name, Argv: []string{"/bin/sh", "-c", "sleep 0.3; exit 7"}}
		if err := b.Start(ctx, c.ID); err != nil && !errors.Is(err, runtime.ErrExited) {
			t.Errorf("start %s: %v", c.ID, err)
		}
		if err := b.Launch(ctx, c.ID, cmd); err != nil {
			t.Errorf("launch %s: %v", c.ID, err)
		}
	}
	left := len(all)
	ended := map[string]bool{}
	done := errors.New("all have ended")
	watch, stop := context.WithCancelCause(ctx)
	err := b.Watch(watch, func(c runtime.Container) {
		if (c.State != runtime.StateExited && c.State != runtime.StateLost) || ended[c.ID] {
			return
		}
		ended[c.ID] = true
		if c.Exit == nil || c.Exit.ExitCode != 7 || c.Exit.CommandID != c.Name {
			t.Errorf("%s ended with %+v %+v", c.ID, c, c.Exit)
		}
		if left--; left == 0 {
			stop(done)
		}
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
	for _, c := range all {
		if err := b.Remove(ctx, c.ID); err != nil {
			t.Error(err)
		}
	}
	if err := b.Close(); err != nil { // waits for what is removed in the background
		t.Error(err)
	}
}
