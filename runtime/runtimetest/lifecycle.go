package runtimetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

func testInventory(f *fixture) {
	if f.b.Name() == "" || f.caps.Isolation == "" {
		f.Errorf("name %q and isolation %q must say something", f.b.Name(), f.caps.Isolation)
	}
	inv, err := f.b.Inventory(f.ctx())
	f.check("inventory", err)
	if inv.CPUMilli <= 0 || inv.MemoryBytes <= 0 {
		f.Errorf("inventory is %+v", inv)
	}
}

func testPrepareImage(f *fixture) {
	var all sync.WaitGroup
	images := make([]runtime.Image, 8)
	for i := range images {
		all.Go(func() {
			img, err := f.b.PrepareImage(f.ctx(), runtime.ImageRequest{Ref: f.h.Image, Policy: runtime.PullIfNotPresent},
				func(runtime.ImageProgress) {})
			if err != nil {
				f.Errorf("prepare: %v", err)
			}
			images[i] = img
		})
	}
	all.Wait()
	for _, img := range images {
		if img.ID == "" || img.Digest == "" || img.ID != images[0].ID || img.Digest != images[0].Digest {
			f.Errorf("got %+v and %+v for one reference", images[0], img)
		}
	}
	_, err := f.b.PrepareImage(f.ctx(), runtime.ImageRequest{Ref: f.h.UnknownImage, Policy: runtime.PullNever}, nil)
	if !errors.Is(err, runtime.ErrImageUnavailable) {
		f.Errorf("unknown image: %v", err)
	} else if !strings.Contains(err.Error(), f.h.UnknownImage) {
		f.Errorf("the error does not name the image: %v", err)
	}
}

func testCreateIsIdempotent(f *fixture) {
	s := f.spec()
	id := f.create(s)
	again, err := f.b.Create(f.ctx(), s)
	f.check("create again", err)
	if again != id {
		f.Errorf("the second create made %s beside %s", again, id)
	}
	other := s
	other.Env = []string{"DIFFERENT=1"}
	if _, err := f.b.Create(f.ctx(), other); !errors.Is(err, runtime.ErrConflict) {
		f.Errorf("another spec of the same name: %v", err)
	}
	c, ok := f.find(id)
	if !ok || c.State != runtime.StateCreated || c.Name != s.Name {
		f.Errorf("after create it is %+v", c)
	}
}

func testCreateAtOnce(f *fixture) {
	s := f.spec()
	ids := make([]string, 8)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			id, err := f.b.Create(f.ctx(), s)
			if err != nil {
				f.Errorf("create: %v", err)
			}
			ids[i] = id
		})
	}
	all.Wait()
	f.made = append(f.made, ids[0])
	for _, id := range ids {
		if id != ids[0] {
			f.Errorf("two containers for one name: %s and %s", ids[0], id)
		}
	}
}

func testUnknownIDs(f *fixture) {
	const id = "skiff-test-nobody"
	if err := f.b.Start(f.ctx(), id); !errors.Is(err, runtime.ErrNotFound) {
		f.Errorf("start: %v", err)
	}
	if err := f.b.Launch(f.ctx(), id, action("a", "exit", "0")); !errors.Is(err, runtime.ErrNotFound) {
		f.Errorf("launch: %v", err)
	}
	if _, err := f.b.Stats(f.ctx(), id); !errors.Is(err, runtime.ErrNotFound) {
		f.Errorf("stats: %v", err)
	}
	if err := f.b.Remove(f.ctx(), id); err != nil {
		f.Errorf("remove: %v", err)
	}
	if err := f.b.Stop(f.ctx(), id, 0); err != nil && !errors.Is(err, runtime.ErrNotFound) {
		f.Errorf("stop: %v", err)
	}
}

func testStartTwice(f *fixture) {
	s := f.spec()
	id := f.start(s)
	f.check("start again", f.b.Start(f.ctx(), id))
	f.check("launch", f.b.Launch(f.ctx(), id, action("a", "append", f.out(s)+"/count", "x")))
	f.end(id)
	if got := f.result(s, "count"); got != "x\n" {
		f.Errorf("the command wrote %q", got)
	}
}

func testExitedNeverRunsAgain(f *fixture) {
	s := f.spec()
	cmd := action("a", "append", f.out(s)+"/count", "x")
	id := f.launch(s, cmd)
	f.end(id)
	if err := f.b.Start(f.ctx(), id); !errors.Is(err, runtime.ErrExited) {
		f.Errorf("start of an exited container: %v", err)
	}
	f.check("launch of the same command", f.b.Launch(f.ctx(), id, cmd))
	if got := f.result(s, "count"); got != "x\n" {
		f.Errorf("the command wrote %q", got)
	}
	again, err := f.b.Create(f.ctx(), s)
	if err != nil || again != id {
		f.Errorf("create of an exited container gives %q, %v", again, err)
	}
	if c, ok := f.find(id); !ok || c.State != runtime.StateExited {
		f.Errorf("it is %s", c.State)
	}
}

func testLaunchOnce(f *fixture) {
	s := f.spec()
	id := f.start(s)
	cmd := action("a", "append", f.out(s)+"/count", "x")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := f.b.Launch(f.ctx(), id, cmd); err != nil {
				f.Errorf("launch: %v", err)
			}
		})
	}
	all.Wait()
	if c := f.end(id); c.Exit == nil || c.Exit.CommandID != "a" || c.Exit.ExitCode != 0 {
		f.Errorf("got %+v", c.Exit)
	}
	if got := f.result(s, "count"); got != "x\n" {
		f.Errorf("the command wrote %q", got)
	}
}

func testLaunchOtherCommand(f *fixture) {
	id := f.launch(f.spec(), action("a", "sleep", "600"))
	if err := f.b.Launch(f.ctx(), id, action("b", "exit", "0")); err == nil {
		f.Error("a second command was taken")
	}
	if c, _ := f.find(id); c.State != runtime.StateRunning {
		f.Errorf("it is %s", c.State)
	}
}

func testOutputs(f *fixture) {
	s := f.spec()
	value := strings.Repeat("v\n", 100)
	cmd := action("a", "write", f.out(s)+"/deep/value", value)
	cmd.Directories = []string{f.out(s) + "/deep"}
	cmd.Outputs = []launch.Output{
		{Name: "value", Path: f.out(s) + "/deep/value"}, {Name: "none", Path: f.out(s) + "/none"},
	}
	r := f.record(s, cmd)
	if string(r.Outputs["value"]) != value {
		f.Errorf("the output is %q", r.Outputs["value"])
	}
	if _, there := r.Outputs["none"]; there {
		f.Error("a file that is not there is an output")
	}
}

func testExitCodes(f *fixture) {
	for _, code := range []int{0, 1, 42, 255} {
		r := f.record(f.spec(), action("a", "exit", strconv.Itoa(code)))
		want := launch.ReasonError
		if code == 0 {
			want = launch.ReasonCompleted
		}
		if r.ExitCode != code || r.Reason != want || r.CommandID != "a" {
			f.Errorf("exit %d: got %+v", code, r)
		}
		if r.FinishedAt.Before(r.StartedAt) || time.Since(r.FinishedAt) > time.Hour {
			f.Errorf("exit %d: times %v to %v", code, r.StartedAt, r.FinishedAt)
		}
	}
}

func testStates(f *fixture) {
	s := f.spec()
	var mu sync.Mutex
	var states []runtime.State
	changed := make(chan struct{}, 100)
	ctx, cancel := context.WithCancelCause(f.Context())
	done := make(chan error, 1)
	var id string
	go func() {
		done <- f.b.Watch(ctx, func(c runtime.Container) {
			mu.Lock()
			defer mu.Unlock()
			if c.Name == s.Name && (len(states) == 0 || states[len(states)-1] != c.State) {
				states = append(states, c.State)
				changed <- struct{}{}
			}
		})
	}()
	id = f.create(s)
	for _, step := range []func() error{
		nil,
		func() error { return f.b.Start(f.ctx(), id) },
		func() error { return f.b.Launch(f.ctx(), id, action("a", "sleep", "600")) },
		func() error { return f.b.Stop(f.ctx(), id, time.Minute) },
	} {
		if step != nil {
			f.check("step", step())
		}
		select {
		case <-changed:
		case <-f.ctx().Done():
			mu.Lock()
			f.Fatalf("no change after %v", states)
		}
	}
	cause := errors.New("enough")
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		f.Errorf("watch returned %v, want the context's cause", err)
	}
	want := []runtime.State{runtime.StateCreated, runtime.StateWaiting, runtime.StateRunning, runtime.StateExited}
	mu.Lock()
	defer mu.Unlock()
	for i := range want {
		if states[i] != want[i] {
			f.Errorf("states are %v, want %v", states, want)
			break
		}
	}
}

func testWatchReplays(f *fixture) {
	created := f.create(f.spec())
	running := f.launch(f.spec(), action("a", "sleep", "600"))
	exited := f.launch(f.spec(), action("a", "exit", "3"))
	f.end(exited)
	want := map[string]runtime.State{
		created: runtime.StateCreated, running: runtime.StateRunning, exited: runtime.StateExited,
	}
	ctx, cancel := context.WithCancelCause(f.ctx())
	defer cancel(nil)
	busy := false
	err := f.b.Watch(ctx, func(c runtime.Container) {
		if busy {
			f.Error("fn is called while it runs")
		}
		busy = true
		if state, ok := want[c.ID]; ok && c.State == state {
			if state == runtime.StateExited && (c.Exit == nil || c.Exit.ExitCode != 3) {
				f.Errorf("the exited one comes with %+v", c.Exit)
			}
			delete(want, c.ID)
		}
		busy = false
		if len(want) == 0 {
			cancel(errSeen)
		}
	})
	if !errors.Is(err, errSeen) {
		f.Errorf("the watch ended with %v and without %v", err, want)
	}
}

func testList(f *fixture) {
	s := f.spec()
	s.Labels["skiff.dev/task"] = "train"
	id := f.launch(s, action("a", "sleep", "600"))
	c, ok := f.find(id)
	if !ok {
		f.Fatal("the list lacks it")
	}
	if c.Name != s.Name || c.State != runtime.StateRunning || c.StartedAt.IsZero() {
		f.Errorf("got %+v", c)
	}
	for k, v := range s.Labels {
		if c.Labels[k] != v {
			f.Errorf("label %s is %q, want %q", k, c.Labels[k], v)
		}
	}
}

func testStopRunning(f *fixture) {
	id := f.launch(f.spec(), action("a", "sleep", "600"))
	f.check("stop", f.b.Stop(f.ctx(), id, time.Minute))
	c, ok := f.find(id)
	if !ok || c.State != runtime.StateExited || c.Exit == nil {
		f.Fatalf("after stop it is %+v", c)
	}
	if c.Exit.Reason != launch.ReasonStopped || c.Exit.ExitCode == 0 {
		f.Errorf("got %+v", c.Exit)
	}
	f.check("stop of an exited container", f.b.Stop(f.ctx(), id, 0))
}

func testStopGated(f *fixture) {
	id := f.start(f.spec())
	f.check("stop", f.b.Stop(f.ctx(), id, time.Minute))
	c := f.end(id)
	if c.State == runtime.StateExited && (c.Exit == nil || c.Exit.ExitCode == 0 || c.Exit.Reason == launch.ReasonCompleted) {
		f.Errorf("a container without a command ended with %+v", c.Exit)
	}
	if err := f.b.Launch(f.ctx(), id, action("a", "exit", "0")); err == nil {
		f.Error("a stopped container took a command")
	}
}

func testStopCreated(f *fixture) {
	id := f.create(f.spec())
	f.check("stop", f.b.Stop(f.ctx(), id, 0))
	f.check("remove", f.b.Remove(f.ctx(), id))
	if _, ok := f.find(id); ok {
		f.Error("it is still listed")
	}
}

func testRemove(f *fixture) {
	s := f.spec()
	id := f.launch(s, action("a", "sleep", "600"))
	if err := f.b.Remove(f.ctx(), id); err == nil {
		f.Error("a running container was removed")
	}
	f.check("stop", f.b.Stop(f.ctx(), id, 0))
	f.check("remove", f.b.Remove(f.ctx(), id))
	if _, ok := f.find(id); ok {
		f.Error("it is still listed")
	}
	if _, ok, err := host.ReadExit(launch.ControlDir(s.PodDir, s.Container)); err != nil || !ok {
		f.Errorf("the exit record is gone with the container: %v", err)
	}
	f.check("remove again", f.b.Remove(f.ctx(), id))
}

func testEnsureVolume(f *fixture) {
	path, err := f.b.EnsureVolume(f.ctx(), "team", "data")
	f.check("ensure volume", err)
	f.check("write", os.WriteFile(filepath.Join(path, "x"), []byte("1"), 0o600))
	again, err := f.b.EnsureVolume(f.ctx(), "team", "data")
	if err != nil || again != path {
		f.Errorf("the second call gives %q, %v; want %q", again, err, path)
	}
	other, err := f.b.EnsureVolume(f.ctx(), "other", "data")
	if err != nil || other == path {
		f.Errorf("another namespace gets %q, %v", other, err)
	}
	for _, bad := range []string{"", "..", "a/b", "/abs"} {
		if _, err := f.b.EnsureVolume(f.ctx(), "team", bad); err == nil {
			f.Errorf("volume %q was made", bad)
		}
		if _, err := f.b.EnsureVolume(f.ctx(), bad, "data"); err == nil {
			f.Errorf("a volume of namespace %q was made", bad)
		}
	}
}

func testRemoveVolume(f *fixture) {
	path, err := f.b.EnsureVolume(f.ctx(), "team", "gone")
	f.check("ensure volume", err)
	kept, err := f.b.EnsureVolume(f.ctx(), "team", "kept")
	f.check("ensure volume", err)
	f.check("make a folder", os.MkdirAll(filepath.Join(path, "a", "b"), 0o700))
	f.check("write", os.WriteFile(filepath.Join(path, "a", "b", "x"), []byte("1"), 0o600))
	f.check("link out", os.Symlink(kept, filepath.Join(path, "link")))
	f.check("write", os.WriteFile(filepath.Join(kept, "x"), []byte("1"), 0o600))
	f.check("remove volume", f.b.RemoveVolume(f.ctx(), "team", "gone"))
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		f.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(kept, "x")); err != nil {
		f.Errorf("what a link led to is gone, too: %v", err)
	}
	f.check("remove it again", f.b.RemoveVolume(f.ctx(), "team", "gone"))
	for _, bad := range []string{"", "..", "a/b"} {
		if f.b.RemoveVolume(f.ctx(), "team", bad) == nil || f.b.RemoveVolume(f.ctx(), bad, "kept") == nil {
			f.Errorf("%q was taken for a name", bad)
		}
	}
}

func testLogOfOneLine(f *fixture) {
	s := f.spec()
	f.run(s, action("a", "say", "hello there"))
	if got, _ := f.log(s, host.LogOptions{}); got != "hello there\n" {
		f.Errorf("the log is %q", got)
	}
	if got, _ := f.log(s, host.LogOptions{Follow: true}); got != "hello there\n" {
		f.Errorf("the followed log is %q", got)
	}
}

func testLost(f *fixture) {
	if f.h.SignalLauncher == nil {
		f.Skip("no launcher to kill")
	}
	s := f.spec()
	id := f.launch(s, action("a", "sleep", "600"))
	f.h.SignalLauncher(f.T, id, syscall.SIGKILL)
	c := f.end(id)
	if c.State != runtime.StateLost || c.Exit != nil || c.Message == "" && c.Reason == "" {
		f.Errorf("a killed launcher leaves %+v", c)
	}
	if err := f.b.Start(f.ctx(), id); !errors.Is(err, runtime.ErrExited) {
		f.Errorf("start of a lost container: %v", err)
	}
	f.check("stop of a lost container", f.b.Stop(f.ctx(), id, 0))
}
